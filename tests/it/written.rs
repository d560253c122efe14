//! Mail that workers write: with the message or not at all, each with a trace of its own.

use crate::harness::{Setup, SmtpSink};

const ORDER: &[u8] = b"From: ann@example.org\r\nSubject: Order\r\nMessage-ID: <o1@example.org>\r\n\r\nTwo, please.\r\n";

const WRITES: &str = r#"
fn email(message, env, ctx) {
    ctx.send(#{
        from: `Shop <${message.to}>`,
        to: "Team <team@example.net>",
        bcc: "archive@example.net",
        subject: `New: ${message.subject} — Bücher`,
        text: "One.\n.Two\n",
        attachments: [#{ filename: "a.txt", content: "abc" }],
    });
    if message.to.local == "fails" { throw "no"; }
    if message.to.local == "refused" { message.set_reject("no"); }
    if message.to.local == "kept" { message.quarantine("odd"); }
}
"#;

#[test]
fn a_worker_writes_a_mail_that_has_its_own_way_and_trace() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(WRITES).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["shop@example.com"], ORDER).expect(250);
    server.settled();

    let mails = sink.wait(1);
    let to: Vec<&str> = mails.iter().flat_map(|mail| mail.recipients()).collect();
    assert!(to.len() == 2 && to.contains(&"team@example.net") && to.contains(&"archive@example.net"), "{to:?}");
    let mail = &mails[0];
    assert!(mail.from.starts_with("<shop@example.com>"), "{}", mail.from);
    let text = mail.text();
    for field in [
        "From: \"Shop\" <shop@example.com>\r\n",
        "To: \"Team\" <team@example.net>\r\n",
        "\r\nSubject: =?utf-8?",
        "\r\nAuto-Submitted: auto-generated\r\n",
        "\r\nX-Mailworker-Hops: 1\r\n",
        "\r\nDate: ",
        "@mx.example.com>\r\n",
        "\r\n.Two\r\n",
    ] {
        assert!(text.contains(field) || text.starts_with(field), "{field:?} is not in\n{text}");
    }
    assert!(!text.contains("archive@"), "{text}");

    let written = server.wait_event(mark, "written", |_| true);
    let id = written["mail"].as_str().unwrap();
    assert_eq!(written["to"], serde_json::json!(["team@example.net", "archive@example.net"]));
    let mail = server.json(&["messages", "show", id]).remove(0);
    assert_eq!((&mail["outcome"], &mail["sender"]), (&"authored".into(), &"shop@example.com".into()), "{mail}");
    let trace = mail["trace"].as_array().unwrap();
    let told: Vec<&str> = trace.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(told, ["accepted", "attempted", "attempted"], "{mail}");
    assert!(trace[0]["reply"]["text"].as_str().unwrap().contains(written["message"].as_str().unwrap()), "{mail}");
    let raw = server.cli(&["messages", "raw", id]).stdout;
    assert_eq!(String::from_utf8_lossy(&raw), text, "what is kept is what went out");

    let about = server.stdout(&["messages", "show", written["message"].as_str().unwrap()]);
    assert!(about.contains("mail to team@example.net, archive@example.net (rules/main.rhai:3:9)"), "{about}");
    assert!(about.contains(&format!("as {id}")), "{about}");
    assert!(server.metric("mailworker_written_total", &["what=\"mail\""]) >= 1.0);
}

#[test]
fn a_mail_goes_out_with_its_message_or_not_at_all() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(WRITES).start();
    server.send("ann@example.org", &["fails@example.com"], ORDER).expect(451);
    server.send("ann@example.org", &["refused@example.com"], ORDER).expect(550);
    server.send("ann@example.org", &["kept@example.com"], ORDER).expect(250);
    server.settled();
    assert_eq!(sink.mails().len(), 0, "{:#?}", sink.mails());
    assert!(server.messages().iter().all(|message| message["outcome"] != "authored"));
}

/// Once, though the run that wrote it was a later one.
#[test]
fn what_is_decided_later_is_written_later() {
    let sink = SmtpSink::start();
    let rules = r#"
fn email(message, env, ctx) {
    if message.to.local == "late" && env.STATE.get("well") == () { throw "not yet"; }
    ctx.send(#{ from: message.to, to: "team@example.net", subject: message.to.local, text: "x" });
}
"#;
    let setup = Setup::relaying_to(&sink).rules(rules);
    let server = setup.toml("kv_namespaces = [{ binding = \"STATE\" }]").start();
    server.send("ann@example.org", &["soon@example.com", "late@example.com"], ORDER).expect(250);
    assert!(sink.wait(1)[0].text().contains("Subject: soon\r\n"));
    server.stdout(&["kv", "put", "STATE", "well", "yes"]);
    server.stdout(&["queue", "retry", "--all"]);
    assert!(sink.wait(2)[1].text().contains("Subject: late\r\n"));
    server.settled();
    assert_eq!(sink.mails().len(), 2);
    let late = server.messages().into_iter().find(|message| message["subject"] == "late").unwrap();
    assert_eq!(late["outcome"], "authored");
}

/// A next hop that refuses it for good ends it, and nobody is told by mail.
#[test]
fn a_mail_that_is_refused_bounces_to_nobody() {
    let sink = SmtpSink::start();
    sink.always("RCPT TO:<team@", "550 5.1.1 nobody here");
    let server = Setup::relaying_to(&sink).rules(WRITES).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["shop@example.com"], ORDER).expect(250);
    server.wait_event(mark, "failed", |event| event["target"] == "team@example.net");
    server.settled();
    let to: Vec<String> = sink.each(|mail| mail.recipients().join(","));
    assert_eq!(to, ["archive@example.net"]);
}

#[test]
fn what_is_written_about_a_bounce_cannot_bounce() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(WRITES).start();
    server.send("", &["shop@example.com"], ORDER).expect(250);
    assert!(sink.wait(1)[0].from.starts_with("<>"), "{:?}", sink.mails());
    server.settled();
}

/// A worker that writes to an address of its own domain, whose mail comes back to it.
#[test]
fn workers_that_write_to_themselves_come_to_an_end() {
    let sink = SmtpSink::start();
    let rules = r#"
fn email(message, env, ctx) { ctx.send(#{ from: message.to, to: message.to, subject: "again", text: "x" }); }
"#;
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mut message = ORDER.to_vec();
    for round in 1..=5 {
        server.send("ann@example.org", &["shop@example.com"], &message).expect(250);
        message = sink.wait(round).pop().unwrap().data;
        assert!(String::from_utf8_lossy(&message).contains(&format!("X-Mailworker-Hops: {round}\r\n")));
    }
    // It is taken, and told: its sender can't mend it by trying again.
    server.send("ann@example.org", &["shop@example.com"], &message).expect(250);
    let logged = server.wait_event(0, "script_log", |_| true);
    assert!(logged["text"].as_str().unwrap().contains("goes in circles"), "{logged}");
    server.settled();
    assert_eq!((sink.mails().len(), &server.newest()["outcome"]), (5, &"stored".into()));
}

#[test]
fn explain_and_tests_of_rules_tell_what_would_be_written() {
    let sink = SmtpSink::start();
    let tests = r#"
[[test]]
name = "an order is told to the team"
raw = """
From: ann@example.org
Subject: Order

x
"""
to = "shop@example.com"
expect.send = [{ to = "Team <team@example.net>", bcc = "archive@example.net", attachments = [{ filename = "a.txt", size = 3 }] }]

[[test]]
name = "nobody else"
raw = "From: ann@example.org\n\nx\n"
to = "shop@example.com"
expect.send = "nobody@example.net"
"#;
    let setup = Setup::relaying_to(&sink).rules(WRITES).file("rules/tests/send.toml", tests);
    let server = setup.start();
    let explained = server.stdout(&["explain", "shop@example.com"]);
    assert!(explained.contains("mail to team@example.net, archive@example.net (rules/main.rhai:3:9)"), "{explained}");
    assert!(explained.contains("relay to team@example.net by smtp://"), "{explained}");
    let output = server.cli(&["test"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains("1 passed") && told.contains("1 failed") && told.contains("Team <team@example.net>"),
        "{told}"
    );
    assert!(sink.mails().is_empty() && server.messages().is_empty());
}
