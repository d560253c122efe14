//! A release on trial: a part of the mail, always the same part; promoted, rolled back, or given up by itself.

use crate::harness::{Server, Setup, SmtpSink, mail};

fn forwards_to(local: &str) -> String {
    format!("fn email(message, env, ctx) {{ message.forward(\"{local}@example.net\"); }}")
}

#[track_caller]
fn deploy(server: &Server, rules: &str, arguments: &[&str]) -> String {
    server.write("rules/main.rhai", rules);
    server.stdout(&[&["deploy"], arguments].concat())
}

/// Who of so many senders is decided on by the one on trial.
#[track_caller]
fn tried_on(server: &Server, sink: &SmtpSink, senders: usize) -> Vec<usize> {
    let before = sink.each(|_| ()).len();
    let mut client = server.client();
    for n in 0..senders {
        client.send(&format!("s{n}@example.org"), &["support@example.com"], &mail("x", "x")).expect(250);
    }
    client.command("QUIT").expect(221);
    sink.wait(before + senders);
    let all = sink.each(|mail| (mail.from.clone(), mail.recipients()[0] == "new@example.net"));
    let mut tried: Vec<usize> = all[before..]
        .iter()
        .filter(|(_, is_new)| *is_new)
        .map(|(from, _)| from.trim_start_matches("<s").split('@').next().unwrap().parse().unwrap())
        .collect();
    tried.sort_unstable();
    tried
}

#[test]
fn a_share_of_the_mail_is_always_the_same_until_it_is_promoted() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).start();
    deploy(&server, &forwards_to("old"), &[]);
    let printed = deploy(&server, &forwards_to("new"), &["--percent", "30"]);
    assert!(printed.contains("tried on 30% of the mail"), "{printed}");
    let tried = tried_on(&server, &sink, 100);
    // Four standard deviations.
    assert!((12..=48).contains(&tried.len()), "{tried:?}");
    server.settled();
    let canary = server.metric("mailworker_release_runs_total", &["release=\"canary\"", "result=\"ok\""]);
    assert_eq!(canary.to_string(), tried.len().to_string());
    let active = server.metric("mailworker_release_runs_total", &["release=\"active\""]);
    assert_eq!(active.to_string(), (100 - tried.len()).to_string());
    let list = server.json(&["versions", "list"]);
    assert_eq!((list[0]["state"].as_str(), list[0]["trial"]["percent"].as_u64()), (Some("on trial"), Some(30)));
    assert_eq!(list[1]["state"], "active");

    // The same senders, also after a restart.
    assert!(server.stop().success());
    server.run();
    assert_eq!(tried_on(&server, &sink, 100), tried);
    server.stdout(&["versions", "promote"]);
    assert_eq!(tried_on(&server, &sink, 20).len(), 20);
    let promoted = server.newest_settled().to_string();
    assert!(promoted.contains("\"version\"") && !promoted.contains("\"canary\""), "{promoted}");
    let output = server.cli(&["versions", "promote"]);
    assert!(!output.status.success(), "{output:?}");
    server.stdout(&["rollback"]);
    assert_eq!(tried_on(&server, &sink, 20), Vec::<usize>::new());
}

#[test]
fn it_is_tried_on_the_recipients_that_are_named_and_rolled_back() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let output = server.cli(&["deploy", "--percent", "5"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("no release to try it beside"), "{said}");
    deploy(&server, &forwards_to("old"), &[]);
    // Its `rcpt_to` is asked, too.
    let new = format!(
        "fn rcpt_to(session, rcpt, env) {{ if rcpt.local == \"beta-x\" {{ session.reject(550, \"5.1.1\", \"no\"); }} }}\n{}",
        forwards_to("new")
    );
    deploy(&server, &new, &["--recipients", "/^beta/"]);
    let to = |to: &str| {
        let before = sink.each(|_| ()).len();
        server.send("ann@example.org", &[to], &mail("x", "x")).expect(250);
        sink.wait(before + 1)[before].recipients()[0].to_owned()
    };
    assert_eq!(to("support@example.com"), "old@example.net");
    assert_eq!(to("beta@example.com"), "new@example.net");
    assert_eq!(to("beta-2@example.com"), "new@example.net");
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    client.command("RCPT TO:<beta-x@example.com>").expect(550);
    client.command("QUIT").expect(221);
    let printed = server.stdout(&["rollback"]);
    assert!(printed.contains("release 2 is tried no more"), "{printed}");
    assert_eq!(to("beta@example.com"), "old@example.net");
    let log = serde_json::Value::from(server.json(&["log", "list"])).to_string();
    assert!(log.contains("canary_stopped") && log.contains("rolled back by"), "{log}");
}

/// `rcpt_to` leads elsewhere, to an address that isn't tried: the message is still decided on by whoever led it there.
#[test]
fn who_was_asked_at_rcpt_decides_on_the_message_too() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let leads = "fn rcpt_to(session, rcpt, env) { session.redirect(\"support@example.com\"); }\n";
    deploy(&server, &format!("{leads}{}", forwards_to("old")), &[]);
    deploy(&server, &format!("{leads}{}", forwards_to("new")), &["--recipients", "beta@*"]);
    server.send("ann@example.org", &["beta@example.com"], &mail("x", "x")).expect(250);
    assert_eq!(sink.wait(1)[0].recipients(), ["new@example.net"]);
    server.send("ann@example.org", &["gamma@example.com"], &mail("x", "x")).expect(250);
    assert_eq!(sink.wait(2)[1].recipients(), ["old@example.net"]);
    server.settled();
    let version = |id: &str| server.json(&["versions", "show", id])[0]["version"].as_str().unwrap().to_owned();
    let messages = server.messages();
    for (message, release) in [(&messages[1], "2"), (&messages[0], "1")] {
        let id = message["id"].as_str().unwrap();
        server.stdout(&["replay", id, "--deliver", "--yes"]);
        let shown = server.stdout(&["messages", "show", id]);
        assert!(shown.contains(&format!("by rules {}: 1 deliveries", version(release))), "{release}: {shown}");
    }
    for (to, goes) in [("beta@example.com", "new@example.net"), ("gamma@example.com", "old@example.net")] {
        let foreseen = server.stdout(&["explain", to]);
        assert!(foreseen.contains(goes), "{to}: {foreseen}");
    }
}

#[test]
fn one_that_fails_too_often_is_given_up_by_itself() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).start();
    deploy(&server, &forwards_to("old"), &[]);
    let fails = "fn email(message, env, ctx) { throw \"not yet\"; }";
    deploy(&server, fails, &["--recipients", "beta@*", "--max-errors", "20%", "--min-runs", "3"]);
    let mark = server.log.mark();
    for n in 0..3 {
        assert_eq!(server.json(&["versions", "list"])[0]["state"], "on trial", "after {n}");
        server.send("ann@example.org", &["beta@example.com"], &mail("x", "x")).expect(451);
    }
    let stopped = server.wait_event(mark, "canary_stopped", |_| true);
    assert!(stopped["reason"].as_str().unwrap().contains("email: 3 of its 3 runs failed"), "{stopped}");
    server.wait_event(mark, "reloaded", |event| !event["what"].as_str().unwrap().contains("on mail for"));
    server.send("ann@example.org", &["beta@example.com"], &mail("x", "x")).expect(250);
    assert_eq!(sink.wait(1)[0].recipients(), ["old@example.net"]);
    assert!(server.metric("mailworker_canaries_stopped_total", &[]) > 0.0);
    server.settled();
    let kept = server.json(&["log", "list"]);
    assert_eq!(kept.iter().filter(|event| event["event"] == "canary_stopped").count(), 1, "{kept:?}");
    assert!(server.stop().success());
    server.run();
    server.send("ann@example.org", &["beta@example.com"], &mail("x", "x")).expect(250);
}

/// A share that draws its senders is given up at the very run that makes too many of them, and not before.
#[test]
fn a_share_whose_runs_fail_too_often_is_given_up_by_itself() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    deploy(&server, &forwards_to("old"), &[]);
    let fails = "fn email(message, env, ctx) { if message.subject == \"bad\" { throw \"not yet\"; } \
                 message.forward(\"new@example.net\"); }";
    deploy(&server, fails, &["--percent", "50", "--max-errors", "20%", "--min-runs", "5"]);
    let tried = tried_on(&server, &sink, 40);
    assert!((5..=35).contains(&tried.len()), "{tried:?}");
    let bad = |sender: usize| {
        server.send(&format!("s{sender}@example.org"), &["support@example.com"], &mail("bad", "x")).code
    };
    let old = (0..40).find(|sender| !tried.contains(sender)).unwrap();
    let mark = server.log.mark();
    let mut failed = 0;
    while failed * 100 <= 20 * (tried.len() + failed) {
        assert_eq!(server.json(&["versions", "list"])[0]["state"], "on trial", "after {failed} of {}", tried.len());
        assert_eq!((bad(old), bad(tried[failed])), (250, 451));
        failed += 1;
    }
    let stopped = server.wait_event(mark, "canary_stopped", |_| true);
    let why = stopped["reason"].as_str().unwrap();
    let words = format!("email: {failed} of its {} runs failed (", tried.len() + failed);
    assert!(why.contains(&words) && why.contains("of the active release's 0.0%"), "{words}: {why}");
    server.wait_event(mark, "reloaded", |event| !event["what"].as_str().unwrap().contains("on mail for"));
    assert_eq!(tried_on(&server, &sink, 40), Vec::<usize>::new());
    assert_eq!(bad(tried[0]), 250);
    let list = server.json(&["versions", "list"]);
    assert!(list[0]["state"] != "on trial" && list[1]["state"] == "active", "{list:?}");
}

#[test]
fn rules_on_trial_hear_how_what_they_decided_ended() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let rules =
        |name: &str| format!("{}\nfn delivered(event, env, ctx) {{ ctx.log(\"{name} hears\"); }}", forwards_to(name));
    deploy(&server, &rules("old"), &[]);
    deploy(&server, &rules("new"), &["--recipients", "beta@*"]);
    for (to, text) in [("beta@example.com", "new hears"), ("support@example.com", "old hears")] {
        server.send("ann@example.org", &[to], &mail("x", "x")).expect(250);
        let newest = server.newest_settled().to_string();
        assert!(newest.contains(text), "{newest}");
    }
}
