//! What a worker changes of a message for its next hops, and what it calls it.

use crate::harness::{Setup, SmtpSink};

const MESSAGE: &str = "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=k; h=From:Subject:\r\n\tDate; bh=x; b=y\r\n\
                       From: ann@example.org\r\nX-Old: 1\r\nSubject: Offer\r\n and more\r\nx-old: 2\r\n\r\n\
                       X-Old: in the body\r\n..\r\n";

/// The message as the next hop has it, without what we put before it for the trace.
fn arrived(sink: &SmtpSink, to: &str) -> String {
    let mails = sink.mails();
    let mail = mails.iter().find(|mail| mail.recipients() == [to]).unwrap_or_else(|| panic!("nothing for {to}"));
    mail.text()
}

#[test]
fn a_field_is_set_and_taken_out_for_what_is_forwarded_from_there_on() {
    let sink = SmtpSink::start();
    let rules = r#"
fn email(message, env, ctx) {
    message.forward("plain@example.net");
    message.set_header("subject", `Bücher: ${message.subject}`);
    message.remove_header("X-OLD");
    message.remove_header("X-None");
    message.forward("changed@example.net");
}
"#;
    let server = Setup::relaying_to(&sink).rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], MESSAGE.as_bytes()).expect(250);
    server.settled();
    assert!(arrived(&sink, "plain@example.net").ends_with(MESSAGE), "{}", arrived(&sink, "plain@example.net"));

    let changed = arrived(&sink, "changed@example.net");
    let rest = MESSAGE.replace("X-Old: 1\r\nSubject: Offer\r\n and more\r\nx-old: 2\r\n", "");
    assert!(changed.ends_with(&rest), "{changed}");
    let head = changed.strip_suffix(&rest).unwrap();
    assert!(head.contains("\r\nsubject: =?utf-8?") && !head.contains("Offer\r\n"), "{head}");
    assert_eq!(changed.to_lowercase().matches("\r\nsubject:").count(), 1, "{changed}");

    let newest = server.newest();
    let decided = newest["trace"].as_array().unwrap().iter().find(|event| event["event"] == "decided").unwrap();
    let effects: Vec<&str> = decided["effects"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    assert_eq!(
        effects,
        [
            "forward to plain@example.net (rules/main.rhai:3:13)",
            "set subject, which breaks the DKIM signature of example.org (rules/main.rhai:4:13)",
            "remove X-OLD (rules/main.rhai:5:13)",
            "remove X-None (rules/main.rhai:6:13)",
            "forward to changed@example.net (rules/main.rhai:7:13)",
        ]
    );
    let raw = server.cli(&["messages", "raw", newest["id"].as_str().unwrap()]).stdout;
    assert!(raw.ends_with(MESSAGE.as_bytes()), "what was received is kept as it was");
}

/// What doesn't lie in memory is read around what was taken out.
#[test]
fn a_large_message_goes_out_without_a_field() {
    let sink = SmtpSink::start();
    let rules =
        "fn email(message, env, ctx) { message.remove_header(\"X-Old\"); message.forward(\"team@example.net\"); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let body = "x-old: 123456789\r\n".repeat(40_000);
    let message = format!("X-Old: 1\r\nSubject: large\r\nX-Old: 2\r\n\r\n{body}");
    server.send("ann@example.org", &["support@example.com"], message.as_bytes()).expect(250);
    let data = sink.wait_one().text();
    assert!(data.ends_with(&format!("\r\nSubject: large\r\n\r\n{body}")) && !data.contains("X-Old:"));
}

#[test]
fn a_tag_is_told_with_the_decision() {
    let rules = r#"
fn email(message, env, ctx) {
    message.tag("invoice");
    if message.to.local == "nobody" { message.tag("unknown"); message.set_reject("no"); }
}
"#;
    let server = Setup::new().rules(rules).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], MESSAGE.as_bytes()).expect(250);
    let decided = server.wait_event(mark, "decided", |_| true);
    assert_eq!(decided["tags"], serde_json::json!(["invoice"]), "{decided}");
    assert_eq!(server.newest()["outcome"], "stored");
    server.send("ann@example.org", &["nobody@example.com"], MESSAGE.as_bytes()).expect(550);
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let shown = server.stdout(&["messages", "show", &id]);
    assert!(shown.contains("tagged invoice, unknown"), "{shown}");
}
