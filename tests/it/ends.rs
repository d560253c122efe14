//! What a worker is told of how things ended: once, and nothing waits for it.

use serde_json::Value;

use crate::harness::{HttpSink, Setup, SmtpSink};

const MESSAGE: &[u8] = b"From: ann@example.org\r\nSubject: Order\r\n\r\nTwo, please.\r\n";

fn rules(hook: &HttpSink) -> String {
    r#"
fn email(message, env, ctx) {
    message.forward("team@example.net");
    if message.to.local == "hooks" { ctx.webhook("HOOK/hooked", #{ what: "asked by email" }); }
    if message.to.local == "writes" { ctx.send(#{ from: message.to, to: "ann@example.org", text: "x" }); }
}
fn delivered(event, env, ctx) { env.ENDS.increment(`delivered:${event.kind}`); tell("delivered", event, ctx); }
fn failed(event, env, ctx) { env.ENDS.increment(`failed:${event.kind}`); tell("failed", event, ctx); }
fn tell(what, event, ctx) {
    ctx.log(`${what} ${event.kind}`);
    ctx.webhook("HOOK/told", #{ what: what, event: event });
}
"#
    .replace("HOOK", hook.url("").trim_end_matches('/'))
}

/// What was told, in order.
fn told(hook: &HttpSink, count: usize) -> Vec<Value> {
    let requests = hook.wait(count);
    requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

fn setup(sink: &SmtpSink, rules: &str) -> Setup {
    Setup::relaying_to(sink).rules(rules).toml("kv_namespaces = [{ binding = \"ENDS\" }]")
}

#[test]
fn a_worker_hears_that_a_forward_was_delivered_once() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = setup(&sink, &rules(&hook)).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    let told = told(&hook, 1);
    assert_eq!(told[0]["what"], "delivered");
    let event = &told[0]["event"];
    let expected = [
        ("kind", "forward"),
        ("to", "support@example.com"),
        ("destination", "team@example.net"),
        ("status", "2.0.0"),
        ("reply", "250 2.0.0 ok"),
    ];
    for (field, value) in expected {
        assert_eq!(event[field], value, "{event}");
    }
    assert_eq!(event["attempts"], 1, "{event}");
    let newest = server.newest_settled();
    assert_eq!(event["message_id"], newest["id"], "{event}");
    assert!(event["at"].as_i64().unwrap() > 1_700_000_000_000, "{event}");
    let handled = server.wait_event(mark, "handled", |_| true);
    assert_eq!((&handled["handler"], &handled["by"]), (&"delivered".into(), &"rules/main.rhai".into()), "{handled}");
    let shown = server.stdout(&["messages", "show", newest["id"].as_str().unwrap()]);
    assert!(
        shown.contains("delivered by rules/main.rhai") && shown.contains("increment ENDS \"delivered:forward\" by 1"),
        "{shown}"
    );
    server.settled();
    // The webhook that it asked for ended, too, and calls nobody.
    assert_eq!(hook.requests().len(), 1);
    assert_eq!(server.stdout(&["kv", "get", "ENDS", "delivered:forward"]).trim(), "1");
    assert_eq!(server.cli(&["kv", "get", "ENDS", "delivered:webhook"]).status.code(), Some(1));
}

#[test]
fn a_worker_hears_why_a_forward_was_given_up() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    sink.always("RCPT TO:<team@", "550 5.1.1 nobody here");
    let server = setup(&sink, &rules(&hook)).start();
    server.send("", &["support@example.com"], MESSAGE).expect(250);
    let told = told(&hook, 1);
    assert_eq!((&told[0]["what"], &told[0]["event"]["status"]), (&"failed".into(), &"5.1.1".into()), "{told:?}");
    assert!(told[0]["event"]["reply"].as_str().unwrap().contains("nobody here"), "{told:?}");
    server.settled();
    assert_eq!(hook.requests().len(), 1);
    // Sent again by an admin's hand it ends again.
    server.stdout(&["queue", "retry", "--all"]);
    assert_eq!(self::told(&hook, 2)[1]["what"], "failed");
    server.settled();
}

#[test]
fn a_worker_hears_of_its_webhooks_and_mails() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = setup(&sink, &rules(&hook)).start();
    server.send("ann@example.org", &["hooks@example.com"], MESSAGE).expect(250);
    // The webhook itself, and what was told of it and of the forward.
    told(&hook, 3);
    server.send("ann@example.org", &["writes@example.com"], MESSAGE).expect(250);
    let all = told(&hook, 5);
    server.settled();
    let events: Vec<&Value> = all.iter().filter_map(|body| body.get("event")).collect();
    let of = |kind: &str| *events.iter().find(|event| event["kind"] == kind).unwrap_or_else(|| panic!("{events:#?}"));
    assert_eq!(of("webhook")["status"], "200");
    assert!(of("webhook")["destination"].as_str().unwrap().starts_with("http://127.0.0.1"));
    assert_eq!(
        (&of("mail")["to"], &of("mail")["destination"]),
        (&"writes@example.com".into(), &"ann@example.org".into())
    );
    let mail = server.messages().into_iter().find(|message| message["outcome"] == "authored").unwrap();
    assert_eq!(of("mail")["message_id"], mail["id"]);
    assert_eq!(hook.requests().len(), 5);
}

#[test]
fn a_handler_that_fails_is_told_and_tried_again_and_nothing_waits_for_it() {
    let sink = SmtpSink::start();
    let rules = r#"
fn email(message, env, ctx) { message.forward("team@example.net"); }
fn delivered(event, env, ctx) {
    env.ENDS.increment("seen");
    if env.ENDS.get("well") == () { throw "the ticket system is away"; }
}
"#;
    let server = setup(&sink, rules).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    let failed = server.wait_event(mark, "script_failed", |_| true);
    assert_eq!(failed["handler"], "delivered", "{failed}");
    let error = failed["error"].as_str().unwrap();
    assert!(error.starts_with("rules/main.rhai:5:") && error.ends_with("the ticket system is away"), "{failed}");
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    sink.wait(2);
    server.wait_until("both are given up", || {
        (server.queue().iter().filter(|entry| entry["kind"] == "tell" && entry["dead"] == true).count() == 2)
            .then_some(())
    });
    assert_eq!(
        server.cli(&["kv", "get", "ENDS", "seen"]).status.code(),
        Some(1),
        "nothing that a failed run asked for"
    );
    server.stdout(&["kv", "put", "ENDS", "well", "yes"]);
    server.stdout(&["queue", "retry", "--all"]);
    server.settled();
    assert_eq!(server.stdout(&["kv", "get", "ENDS", "seen"]).trim(), "2");
}

#[test]
fn a_handler_that_is_tried_again_counts_once() {
    let sink = SmtpSink::start();
    let rules = r#"
fn email(message, env, ctx) { message.forward("team@example.net"); }
fn delivered(event, env, ctx) {
    ctx.log(`left ${env.limit("ends", "all", "100/day").remaining}`);
    if env.ENDS.get("well") == () { throw "the ticket system is away"; }
}
"#;
    let server = setup(&sink, rules).start();
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    server.wait_until("it is given up", || {
        server.queue().iter().any(|entry| entry["kind"] == "tell" && entry["dead"] == true).then_some(())
    });
    server.stdout(&["kv", "put", "ENDS", "well", "yes"]);
    server.stdout(&["queue", "retry", "--all"]);
    let newest = server.newest_settled();
    let lines: Vec<&str> =
        newest["trace"].as_array().unwrap().iter().filter_map(|event| event["text"].as_str()).collect();
    assert!(lines.len() > 1 && lines.iter().all(|line| *line == "left 99"), "{lines:?}");
}

/// A route that goes by the message chose it, and by then the message is gone.
#[test]
fn the_worker_that_decided_hears_it() {
    let sink = SmtpSink::start();
    let worker = |name: &str| {
        format!(
            "fn email(message, env, ctx) {{ message.forward(\"{name}@example.net\"); }}\n\
             fn delivered(event, env, ctx) {{ ctx.log(\"{name} hears \" + event.destination); }}\n"
        )
    };
    let routes = r#"
[[route]]
from = "*@vip.example"
action = "worker"
main = "rules/vip.rhai"

[[route]]
header = { Subject = "invoice" }
action = "forward"
to = ["accounts@example.net"]
stop = false
"#;
    let setup = Setup::relaying_to(&sink).rules(&worker("all")).file("rules/vip.rhai", &worker("vip")).toml(routes);
    let server = setup.start();
    let heard = |from: &str, subject: &str| {
        let message = format!("From: {from}\r\nSubject: {subject}\r\n\r\nx\r\n");
        server.send("ann@example.org", &["support@example.com"], message.as_bytes()).expect(250);
        let newest = server.newest_settled();
        let mut lines: Vec<String> = newest["trace"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["event"] == "script_log" || event["event"] == "handled")
            .filter_map(|event| event["text"].as_str().or(event["by"].as_str()).map(str::to_owned))
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(heard("bob@vip.example", "Invoice"), ["rules/vip.rhai", "vip hears vip@example.net"]);
    let both = ["all hears accounts@example.net", "all hears all@example.net", "rules/main.rhai", "rules/main.rhai"];
    assert_eq!(heard("bob@example.org", "Invoice"), both);
}

/// What is to be told is on the disk with what ended.
#[test]
fn what_ended_is_told_after_a_kill() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let failing = rules(&hook).replace("fn tell(what, event, ctx) {", "fn tell(what, event, ctx) { throw \"not now\";");
    let mut server = setup(&sink, &failing).toml("[webhook_defaults]\nretry = [\"1 h\"]").start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    server.wait_event(mark, "script_failed", |_| true);
    server.kill();
    server.write("rules/main.rhai", &rules(&hook));
    server.run();
    server.stdout(&["queue", "retry", "--all"]);
    assert_eq!(told(&hook, 1)[0]["what"], "delivered");
    server.settled();
    assert_eq!(server.stdout(&["kv", "get", "ENDS", "delivered:forward"]).trim(), "1");
}

#[test]
fn where_no_worker_listens_nothing_is_queued() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    let newest = server.newest_settled();
    let told: Vec<&str> =
        newest["trace"].as_array().unwrap().iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(told, ["received", "decided", "accepted", "attempted"]);
}
