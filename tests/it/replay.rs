//! `replay`: past messages through other rules. It says what would change, and changes nothing.

use serde_json::Value;

use crate::harness::{Server, Setup, SmtpSink, mail};

const RULES: &str = r#"
fn rcpt_to(session, rcpt, env) {
    if rcpt.local == "old" { session.redirect("new@example.com"); }
}
fn email(message, env, ctx) {
    env.SEEN.put(`seen:${message.id}`, #{ at: ctx.now(), by: random_id() });
    if message.to.local == "nobody" { message.set_reject(550, "5.1.1", "No such mailbox"); return; }
    if message.to.local == "later" { message.defer("Come back"); return; }
    message.tag("seen");
    message.forward("team@example.net");
    ctx.webhook("TICKETS", #{ subject: message.subject, at: ctx.now() });
}
"#;

const SETTINGS: &str = r#"
[[kv_namespaces]]
binding = "SEEN"

[[webhook]]
binding = "TICKETS"
url = "http://127.0.0.1:9/hook"
"#;

/// A server whose next hop takes nothing, so that what is queued stays and shows.
fn server() -> (SmtpSink, Server) {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).rules(RULES).toml(SETTINGS).start();
    server.leaves_queue();
    (sink, server)
}

/// What it prints with `--json`, changes and summary apart, and its exit code.
fn replay(server: &Server, arguments: &[&str]) -> (Vec<Value>, Value, i32) {
    let output = server.cli(&[&["replay"], arguments, &["--json"]].concat());
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert!(last["summary"].is_object(), "{last}");
    (lines, last, output.status.code().unwrap())
}

/// All that a store shows of itself.
fn kept(server: &Server) -> Vec<Value> {
    let messages = server.messages();
    let traces = messages.iter().map(|row| server.json(&["messages", "show", row["id"].as_str().unwrap()]).remove(0));
    traces.map(|mut shown| shown["trace"].take()).chain(server.json(&["kv", "list", "SEEN"])).collect()
}

#[test]
fn what_new_rules_would_change_is_told_by_recipient_and_nothing_is_done() {
    let (sink, mut server) = server();
    server.send("ann@example.org", &["support@example.com", "sales@example.com"], &mail("both", "x")).expect(250);
    server.send("bob@example.org", &["old@example.com"], &mail("moved", "x")).expect(250);
    server.send("ann@example.org", &["nobody@example.com"], &mail("refused", "x")).expect(550);
    server.send("ann@example.org", &["later@example.com"], &mail("deferred", "x")).expect(451);
    sink.wait(3);
    assert!(server.stop().success());
    let before = kept(&server);
    let new = RULES
        .replace("message.tag(\"seen\");", "if message.to.local == \"sales\" { message.quarantine(\"odd\"); return; }")
        .replace("No such mailbox", "Gone")
        .replace("redirect(\"new@", "redirect(\"newer@");
    server.write("new/main.rhai", &new.replace("message.forward(", "message.tag(\"seen\");\n    message.forward("));

    let (changed, last, code) = replay(&server, &["--since", "1h", "--rules", "new"]);
    let told = changed.iter().map(|one| (one["recipient"].as_str().unwrap(), one["kind"].as_str().unwrap()));
    let told: Vec<_> = told.collect();
    let kinds = [
        ("nobody@example.com", "reject, other words"),
        ("new@example.com", "accept, other effects"),
        ("sales@example.com", "accept → quarantine"),
    ];
    assert_eq!((told.as_slice(), code), (&kinds[..], 1), "newest first: {changed:#?}");
    assert_eq!(changed[0]["before"]["reply"]["text"], "No such mailbox");
    assert_eq!(changed[0]["after"]["reply"]["text"], "Gone");
    assert_eq!(changed[1]["after"]["effects"][0], "redirect to newer@example.com");
    assert_eq!(
        (&changed[2]["after"]["why"], &changed[2]["after"]["at"]),
        (&"odd".into(), &"rules/main.rhai:9:46".into())
    );
    let summary = &last["summary"];
    assert_eq!((&summary["messages"], &summary["recipients"], &summary["put_off"]), (&3.into(), &4.into(), &1.into()));
    assert_eq!(last["against"], "rules");
    assert_eq!(kept(&server), before);
}

/// By the trace: what the rules decided then and decide now is the same, ids and times in it as well.
#[test]
fn what_was_decided_then_is_decided_again() {
    let (sink, mut server) = server();
    let to = ["support@example.com", "Support@example.com", "old@example.com", "postmaster@example.com"];
    server.send("ann@example.org", &to, &mail("several", "x")).expect(250);
    server.send("", &["support@example.com"], &mail("null", "x")).expect(250);
    server.send("ann@example.org", &["nobody@example.com"], &mail("refused", "x")).expect(550);
    sink.wait(4);
    let (changed, last, code) = replay(&server, &["--since", "1h"]);
    assert_eq!((changed.as_slice(), code), (&[][..], 0), "{last}");
    let summary = &last["summary"];
    assert_eq!((&summary["messages"], &summary["recipients"]), (&3.into(), &5.into()), "one was the same mailbox");
    assert_eq!((&last["against"], &summary["unrecorded"]), (&"then".into(), &0.into()));
    let printed = server.stdout(&["replay", "--since", "1h"]);
    assert_eq!(printed, "3 messages for 5 recipients held against what was decided then: nothing would change\n");

    assert!(server.stop().success());
    server
        .write("rules/main.rhai", &RULES.replace("team@", "desk@").replace("\n    message.tag", "\n\n    message.tag"));
    let (changed, _, code) = replay(&server, &["--since", "1h"]);
    assert_eq!((changed.len(), code), (3, 1), "not the postmaster's, nor what is refused: {changed:#?}");
    let output = server.cli(&["replay", "--since", "1h", "--to", "support@", "--from", "<>", "--diff"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    for words in [
        "<> → support@example.com",
        "  - forward to team@example.net\n",
        "  + forward to desk@example.net\n",
        "    webhook to TICKETS\n",
        "1 message for 1 recipient held against what was decided then: 1 would change\n       1  accept, other effects\n",
    ] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    // Only what is in the octets of payloads and keys tells these apart, which the trace doesn't hold.
    server.write("rules/main.rhai", RULES);
    server.write("new/main.rhai", &RULES.replace("subject: message.subject", "about: message.subject"));
    assert_eq!(replay(&server, &["--since", "1h", "--rules", "new", "--then"]).2, 0);
    let (changed, ..) = replay(&server, &["--since", "1h", "--rules", "new"]);
    assert_eq!(changed.iter().map(|one| &one["kind"]).collect::<Vec<_>>(), ["accept, other content"; 3]);
}

#[test]
fn a_message_is_judged_by_the_time_of_its_arrival_and_keys_as_they_are() {
    let (sink, server) = server();
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    sink.wait_one();
    let rules = "fn email(message, env, ctx) {\n    if ctx.now() != message.received_at { throw \"late\"; }\n    \
                 let seen = env.SEEN.get(`seen:${message.id}`);\n    \
                 message.set_reject(if seen == () { \"new\" } else { \"known\" });\n}\n";
    server.write("new/main.rhai", rules);
    let (changed, last, _) = replay(&server, &["--since", "1h", "--rules", "new"]);
    assert_eq!(changed[0]["after"]["reply"]["text"], "known", "its own key is there by now: {changed:#?}");
    assert_eq!(last["summary"]["read_keys"], 1);
    let told = server.cli(&["replay", "--since", "1h", "--rules", "new"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("1 decision read keys, which are as they are now"));

    server.write("new/main.rhai", "fn email(message, env, ctx) {\n    throw \"no\";\n}\n");
    let (changed, ..) = replay(&server, &["--since", "1h", "--rules", "new"]);
    assert_eq!(changed[0]["kind"], "accept → fail");
    assert_eq!(changed[0]["after"]["why"], "rules/main.rhai:2:5: no");
}

#[test]
fn another_configuration_judges_by_its_routes_and_the_store_stays() {
    let (sink, server) = server();
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    sink.wait_one();
    let text = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let route = "\n[[route]]\nmatch = \"support@*\"\naction = \"drop\"\n";
    server.write("other.toml", &(text.replace("data_dir = \"data\"", "data_dir = \"nowhere\"") + route));
    let (changed, ..) = replay(&server, &["--since", "1h", "--with", "other.toml"]);
    assert_eq!(changed[0]["kind"], "accept → drop", "{changed:#?}");
    assert_eq!(changed[0]["after"]["by"], "route 1 (support@*)");
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let (changed, ..) = replay(&server, &[&id, "--with", "other.toml"]);
    assert_eq!(changed.len(), 1);
}

#[test]
fn what_is_gone_damaged_or_out_of_range_is_counted_and_said() {
    let (sink, mut server) = server();
    for subject in ["gone", "damaged", "whole"] {
        server.send("ann@example.org", &["support@example.com"], &mail(subject, "x")).expect(250);
    }
    // Larger than what is held in memory otherwise.
    let large = [mail("large", "x"), b"0123456789abcdef0123456789abcdef\r\n".repeat(20_000)].concat();
    server.send("bob@example.net", &["support@example.com"], &large).expect(250);
    sink.wait(4);
    assert!(server.stop().success());
    let store = rusqlite::Connection::open(server.path().join("data/mailworker.db")).unwrap();
    store.execute("UPDATE messages SET segment = NULL WHERE subject = 'gone'", []).unwrap();
    store.execute("UPDATE messages SET start = start + 1 WHERE subject = 'damaged'", []).unwrap();
    drop(store);
    let (_, last, code) = replay(&server, &["--since", "1h"]);
    let summary = &last["summary"];
    assert_eq!((&summary["messages"], &summary["gone"], &summary["unreadable"]), (&2.into(), &1.into(), &1.into()));
    assert!(summary["first_error"].as_str().unwrap().contains("damaged"), "{summary}");
    assert_eq!(code, 1);
    let told = server.cli(&["replay", "--since", "1h"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("1 message not judged: retention has taken the octets"));
    assert_eq!(replay(&server, &["--since", "1h", "--from", "*@example.net"]).1["summary"]["messages"], 1);
    assert_eq!(replay(&server, &["--since", "2h", "--until", "1h"]).1["summary"]["messages"], 0);
}

#[test]
fn rules_that_do_not_compile_or_are_not_there_are_said_by_their_own_names() {
    let (_sink, server) = server();
    server.write("broken/main.rhai", "fn email(message, env, ctx) {\n    message.foward(\"a@example.net\");\n}\n");
    let broken = server.cli(&["replay", "--since", "1h", "--rules", "broken"]);
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert_eq!(broken.status.code(), Some(78), "{said}");
    assert!(said.contains("broken/main.rhai:2:13") && said.contains("did you mean forward?"), "{said}");
    let missing = server.cli(&["replay", "--since", "1h", "--rules", "nowhere"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    server.write("empty/other.rhai", "fn f() {}\n");
    let empty = server.cli(&["replay", "--since", "1h", "--rules", "empty"]);
    assert_eq!(empty.status.code(), Some(78), "{empty:?}");
    assert_eq!(server.cli(&["replay"]).status.code(), Some(2));
}

/// As many messages as several threads share: each once, newest first.
#[test]
fn many_are_judged_at_once_and_told_in_order() {
    let setup = Setup::new().rules("fn email(message, env, ctx) { message.store(); }");
    let server = setup.start();
    let mut client = server.client();
    for number in 0..300 {
        client.send("ann@example.org", &["support@example.com"], &mail(&format!("m{number}"), "x")).expect(250);
    }
    server.write("new/main.rhai", "fn email(message, env, ctx) { message.drop(); }");
    let (changed, last, _) = replay(&server, &["--since", "1h", "--rules", "new", "--threads", "4"]);
    let ids: Vec<_> = changed.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 300);
    assert!(ids.is_sorted_by(|one, next| one > next), "{ids:?}");
    assert_eq!(last["summary"]["kinds"]["accept → drop"], 300);
}

const FIRST: &str = r#"
fn email(message, env, ctx) {
    env.SEEN.increment("count");
    if message.to.local == "held" { message.quarantine("odd"); return; }
    message.drop();
}
"#;
const FIXED: &str = r#"
fn email(message, env, ctx) {
    env.SEEN.increment("count");
    if message.to.local == "nobody" { message.set_reject("No"); return; }
    message.forward("team@example.net");
}
"#;

/// The server on `FIRST` has dropped one message; its rules are `FIXED` by now.
fn dropped(sink: &SmtpSink, to: &[&str]) -> (Server, String, Vec<u8>) {
    let server = Setup::relaying_to(sink).rules(FIRST).toml(SETTINGS).start();
    let message = mail("lost", "x");
    server.send("ann@example.org", to, &message).expect(250);
    server.takes_up("rules/main.rhai", FIXED);
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    (server, id, message)
}

#[test]
fn a_message_is_delivered_for_real_by_the_rules_in_force_and_says_so_in_its_trace() {
    let sink = SmtpSink::start();
    let (mut server, id, message) =
        dropped(&sink, &["support@example.com", "Support@example.com", "nobody@example.com"]);
    let unasked = server.cli(&["replay", &id, "--deliver"]);
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("--yes"), "{unasked:?}");
    let output = server.cli(&["replay", &id, "--deliver", "--yes", "--json"]);
    let replayed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&replayed["deliveries"], &replayed["refused"]), (&1.into(), &1.into()), "{replayed}");
    assert_eq!(output.status.code(), Some(1), "not all of them have it");
    sink.wait_one().prepended_to(&message);
    let shown = server.newest_settled();
    assert_eq!(shown["outcome"], "accepted", "{shown}");
    let trace = shown["trace"].as_array().unwrap();
    assert!(trace.iter().any(|event| event["event"] == "admin" && event["verb"] == "replay"), "{shown}");
    let count: Vec<_> =
        trace.iter().filter(|event| event["event"] == "decided").map(|event| &event["verdict"]).collect();
    assert_eq!(count, ["drop", "accept", "drop", "accept", "reject"], "{shown}");
    assert_eq!(server.stdout(&["kv", "get", "SEEN", "count"]).trim(), "4", "of each run once, a refusal's, too");

    // And where no server runs.
    assert!(server.stop().success());
    let output = server.cli(&["replay", &id, "--deliver", "--yes"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("replayed: 1 delivery queued"), "{output:?}");
    server.run();
    assert_eq!(sink.wait(2)[1].recipients(), ["team@example.net"]);
    server.settled();
    assert_eq!(server.json(&["store", "check"])[0]["findings"], serde_json::json!([]));
}

#[test]
fn two_who_deliver_at_once_send_it_once() {
    let sink = SmtpSink::start();
    let (server, id, _) = dropped(&sink, &["support@example.com"]);
    let socket = server.path().join("data/control.sock");
    let asked = || {
        let body = format!("{{\"id\":\"{id}\",\"known\":0}}");
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let request = format!(
            "POST /v1/messages/replay HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    let answers = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(asked)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let done = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    let refused = answers.iter().filter(|answer| answer.contains("it has been sent since")).count();
    assert_eq!((done, refused), (1, 3), "{answers:#?}");
    server.settled();
    assert_eq!(sink.mails().len(), 1);
    assert_eq!(server.stdout(&["kv", "get", "SEEN", "count"]).trim(), "2");
}

#[test]
fn a_quarantine_ends_by_it_and_what_is_gone_is_not_delivered() {
    let sink = SmtpSink::start();
    let (server, id, _) = dropped(&sink, &["held@example.com"]);
    assert_eq!(server.newest()["outcome"], "quarantined");
    server.stdout(&["replay", &id, "--deliver", "--yes"]);
    sink.wait_one();
    assert_eq!(server.newest_settled()["outcome"], "accepted");
    // While it runs: a start would find the octets again.
    let store = rusqlite::Connection::open(server.path().join("data/mailworker.db")).unwrap();
    store.execute("UPDATE messages SET segment = NULL", []).unwrap();
    drop(store);
    let gone = server.cli(&["replay", &id, "--deliver", "--yes"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no longer kept"), "{gone:?}");
}

/// A replay makes no requests: it says how many messages it can't judge for that.
#[test]
fn nobody_outside_is_asked_and_routes_that_go_on_count() {
    let sink = SmtpSink::start();
    let route = "[[route]]\nmatch = \"support@*\"\naction = \"forward\"\nto = [\"copy@example.net\"]\nstop = false\n";
    let server = Setup::relaying_to(&sink).rules(crate::harness::setup::FORWARD).toml(route).start();
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    sink.wait_one();
    server.settled();
    assert_eq!(replay(&server, &["--since", "1h"]).2, 0, "the copy is known from the trace");
    let asks = "fn email(message, env, ctx) {\n    ctx.dns_lookup(\"example.net\", \"MX\");\n    message.drop();\n}\n";
    server.write("new/main.rhai", asks);
    let (changed, last, code) = replay(&server, &["--since", "1h", "--rules", "new"]);
    assert_eq!((changed.len(), code), (0, 0), "{changed:#?}");
    assert_eq!((&last["summary"]["asked_outside"], &last["summary"]["messages"]), (&1.into(), &0.into()));
    let told = server.cli(&["replay", "--since", "1h", "--rules", "new"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("1 message not judged: the rules ask outside"), "{told:?}");
    server.write("new/main.rhai", "fn email(message, env, ctx) {\n    message.drop();\n}\n");
    let (changed, ..) = replay(&server, &["--since", "1h", "--rules", "new"]);
    assert_eq!(
        changed[0]["before"]["effects"],
        serde_json::json!(["forward to copy@example.net", "forward to team@example.net"])
    );
    assert_eq!(changed[0]["after"]["effects"], serde_json::json!(["forward to copy@example.net"]));
}

#[test]
fn a_deploy_can_be_made_to_show_what_it_would_change_and_ask() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(crate::harness::setup::FORWARD).start();
    server.stdout(&["deploy"]);
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    sink.wait_one();
    server.settled();
    server.write("rules/main.rhai", "fn email(message, env, ctx) {\n    message.drop();\n}\n");
    let asked = server.cli(&["deploy", "--replay", "1h"]);
    let told = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    assert!(told.contains("accept → drop") && told.contains("- forward to team@example.net"), "{told}");
    assert!(String::from_utf8_lossy(&asked.stderr).contains("nothing was deployed"), "{asked:?}");
    let releases = || server.json(&["versions", "list"]).len();
    assert_eq!(releases(), 1);
    let told = server.stdout(&["deploy", "--replay", "1h", "--yes"]);
    assert!(told.contains("1 would change") && told.contains("deployed"), "{told}");
    assert_eq!(releases(), 2);
}
