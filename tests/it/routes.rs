//! `[[route]]`: mail goes its way without a script, by whom it is for, who sent it, what it is like.

use serde_json::Value;

use crate::harness::sink::Mail;
use crate::harness::{Server, Setup, SmtpSink, mail};

const WORKER: &str = r#"
fn rcpt_to(session, rcpt, env) { if rcpt.local == "nobody" { session.reject("No such mailbox"); } }
fn email(message, env, ctx) {
    switch message.to.local {
        "refused" => message.set_reject("Not here"),
        "held" => message.quarantine("looks odd"),
        "dropped" => message.drop(),
        _ => message.forward("worker@example.net"),
    }
}
"#;

const ROUTES: &str = r#"
[[route]]
sender = "*@spam.example"
action = "reject"
text = "Not from there"

[[route]]
match = "billing@example.com"
header = { Subject = ["/^invoice \\d+/", "bill"], X-Kind = "*" }
action = "forward"
to = ["accounts@example.net"]
headers = { X-Team = "billing" }
tags = ["invoice"]

[[route]]
from = "*@partner.example"
unless = { header = { Subject = "urgent" } }
action = "store"

[[route]]
larger_than = "20 KiB"
ip = ["127.0.0.0/8", "::1"]
action = "quarantine"
text = "too large to be read"

[[route]]
ip = "203.0.113.0/24"
action = "reject"
"#;

/// From ann@example.org to one of ours, with these fields.
fn sent(server: &Server, from: &str, to: &str, fields: &str, text: &str) -> Value {
    let message = format!("To: someone@example.com\r\n{fields}\r\n{text}\r\n");
    server.send(from, &[to], message.as_bytes()).expect(250);
    server.newest_settled()
}

/// Whom the next hop has had mail for, that of each message in the alphabet's order.
fn arrived(sink: &SmtpSink) -> Vec<String> {
    let of = |mail: &Mail| {
        let mut to: Vec<String> = mail.recipients().into_iter().map(str::to_owned).collect();
        to.sort();
        to
    };
    sink.each(of).concat()
}

/// Who decided, and with what, in order.
fn decided(detail: &Value) -> Vec<String> {
    let events = detail["trace"].as_array().unwrap().iter().filter(|event| event["event"] == "decided");
    events.map(|event| format!("{}: {}", event["by"].as_str().unwrap(), event["verdict"].as_str().unwrap())).collect()
}

#[test]
fn a_route_takes_what_all_its_conditions_hold_for() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(WORKER).toml(ROUTES).start();
    let invoice = "Subject: Invoice 42\r\nX-Kind: pdf\r\n";
    let routed = sent(&server, "ann@example.org", "billing+2026@example.com", invoice, "x");
    let by = "route 2 (billing@example.com, header Subject: /^invoice \\d+/, header X-Kind: *): accept";
    assert_eq!(decided(&routed), [by]);
    let arrived = sink.wait(1).remove(0);
    assert_eq!(arrived.recipients(), ["accounts@example.net"]);
    assert!(arrived.text().contains("X-Team: billing\r\n"), "{}", arrived.text());
    assert!(routed.to_string().contains(r#""tags":["invoice"]"#), "{routed}");

    for (fields, text) in [("Subject: Invoice\r\nX-Kind: pdf\r\n", "x"), ("Subject: Invoice 42\r\n", "x")] {
        let not_routed = sent(&server, "ann@example.org", "billing@example.com", fields, text);
        assert_eq!(decided(&not_routed), ["worker rules/main.rhai: accept"], "{fields}");
    }
    let partner = "From: Bob <BOB@Partner.example>\r\nSubject: hello\r\n";
    let stored = sent(&server, "bounces@lists.example", "any@example.com", partner, "x");
    assert_eq!(decided(&stored), ["route 3 (from *@partner.example): store"]);
    let urgent = "From: bob@partner.example\r\nSubject: =?utf-8?q?URGENT?=\r\n";
    let unless = sent(&server, "bob@partner.example", "any@example.com", urgent, "x");
    assert_eq!(decided(&unless), ["worker rules/main.rhai: accept"]);
}

#[test]
fn what_is_large_waits_in_quarantine_until_it_is_let_out() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(WORKER).toml(ROUTES).start();
    let large = format!("{}\r\n", "x".repeat(70)).repeat(400);
    let held = sent(&server, "ann@example.org", "any@example.com", "Subject: much\r\n", &large);
    assert_eq!(held["outcome"], "quarantined");
    let by = "route 4 (ip 127.0.0.0/8, larger than 20480 octets): quarantine (too large to be read)";
    assert_eq!(decided(&held), [by]);
    assert!(sink.mails().is_empty());
    server.stdout(&["messages", "release", held["id"].as_str().unwrap()]);
    assert_eq!(sink.wait_one().recipients(), ["any@example.com"]);
    server.settled();
}

#[test]
fn who_is_refused_by_address_alone_is_refused_at_rcpt() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(WORKER).toml(ROUTES).start();
    let mut client = server.client();
    client.command("MAIL FROM:<x@spam.example>").expect(250);
    let refused = client.command("RCPT TO:<any@example.com>").expect(550);
    assert!(refused.text().contains("Not from there"), "{}", refused.text());
    client.command("RSET").expect(250);
    // What needs the message is not known yet: the worker is asked as if those routes weren't there.
    client.command("MAIL FROM:<x@good.example>").expect(250);
    client.command("RCPT TO:<nobody@example.com>").expect(550);
    client.command("RCPT TO:<any@example.com>").expect(250);
}

#[test]
fn nobody_is_refused_at_rcpt_whom_an_earlier_route_may_take() {
    let routes = "[[route]]\nheader = { X-Pass = \"please\" }\naction = \"store\"\n\
                  [[route]]\nmatch = \"*@*\"\naction = \"reject\"\n";
    let server = Setup::new().toml(routes).start();
    let mut client = server.client();
    client.envelope("ann@example.org", &["any@example.com"]);
    client.data(b"X-Pass: Please!\r\n\r\nx\r\n").expect(250);
    client.envelope("ann@example.org", &["any@example.com"]);
    client.data(b"Subject: no\r\n\r\nx\r\n").expect(550);
}

#[test]
fn a_route_that_goes_on_adds_to_what_comes_after_it() {
    let sink = SmtpSink::start();
    let routes = r#"
[[route]]
match = "*@example.com"
action = "forward"
to = ["archive@example.net"]
stop = false

[[route]]
header = { Subject = "/invoice/" }
action = "tag"
tags = ["money"]

[[route]]
match = "last@example.com"
action = "forward"
to = ["end@example.net"]
"#;
    let server = Setup::relaying_to(&sink).rules(WORKER).toml(routes).start();
    let both = sent(&server, "ann@example.org", "any@example.com", "Subject: Invoice\r\n", "x");
    let expected = [
        "route 1 (*@example.com): continue (accept, and go on)",
        "route 2 (header Subject: /invoice/): continue",
        "worker rules/main.rhai: accept",
    ];
    assert_eq!(decided(&both), expected);
    assert_eq!(arrived(&sink), ["archive@example.net", "worker@example.net"]);
    let ended = sent(&server, "ann@example.org", "last@example.com", "Subject: x\r\n", "x");
    assert_eq!(decided(&ended).last().unwrap(), "route 3 (last@example.com): accept");
    assert_eq!(arrived(&sink)[2..], ["archive@example.net", "end@example.net"]);

    let dropped = sent(&server, "ann@example.org", "dropped@example.com", "Subject: x\r\n", "x");
    assert_eq!(dropped["outcome"], "accepted", "the copy goes out all the same");
    assert_eq!(arrived(&sink)[4..], ["archive@example.net"]);
    let held = sent(&server, "ann@example.org", "held@example.com", "Subject: x\r\n", "x");
    assert_eq!(held["outcome"], "quarantined");
    server.send("ann@example.org", &["refused@example.com"], &mail("x", "x")).expect(550);
    server.settled();
    assert_eq!(arrived(&sink).len(), 5, "nothing goes out of what is kept back or refused");
}

#[test]
fn explain_and_tests_name_the_route_and_what_held() {
    let setup = Setup::new().rules(WORKER).toml(ROUTES);
    let tests = r#"
[[test]]
name = "an invoice"
raw = "Subject: invoice 7\nX-Kind: a\n\nx\n"
to = "billing@example.com"
expect.forward = ["accounts@example.net"]
expect.tag = ["invoice"]
[[test]]
name = "a large one"
message = "large.eml"
to = "any@example.com"
session.ip = "127.0.0.1"
expect.quarantine = "too large to be read"
"#;
    let large = format!("Subject: x\r\n\r\n{}", format!("{}\r\n", "z".repeat(900)).repeat(30));
    let server = setup.file("rules/tests/routes.toml", tests).file("rules/tests/large.eml", &large).start();
    server.write("invoice.eml", "Subject: Your bill\r\nX-Kind: z\r\n\r\nx\r\n");
    let path = server.path().join("invoice.eml");
    let told = server.stdout(&["explain", "billing@example.com", "--message", path.to_str().unwrap()]);
    assert!(told.contains("route 2 (billing@example.com, header Subject: bill, header X-Kind: *)"), "{told}");
    let told = server.stdout(&["explain", "any@example.com", "--from", "x@spam.example"]);
    assert!(told.contains("Not from there"), "{told}");
    let tested = server.cli(&["test"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
}

#[test]
fn what_a_route_stores_is_kept_though_a_later_one_or_the_worker_drops_it() {
    let sink = SmtpSink::start();
    let routes = r#"
[[route]]
header = { Subject = "keep" }
action = "store"
stop = false

[[route]]
match = "newsletter@example.com"
action = "drop"
"#;
    let server = Setup::relaying_to(&sink).rules(WORKER).toml(routes).start();
    for to in ["newsletter@example.com", "dropped@example.com"] {
        let kept = sent(&server, "ann@example.org", to, "Subject: Keep this\r\n", "x");
        assert_eq!(kept["outcome"], "stored", "{kept}");
        let dropped = sent(&server, "ann@example.org", to, "Subject: News\r\n", "x");
        assert_eq!(dropped["outcome"], "dropped", "{dropped}");
    }
    assert!(sink.mails().is_empty());
}
