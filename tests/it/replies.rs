//! `message.reply`: who has an answer, once, in which thread; and who never has one.

use crate::harness::{Setup, SmtpSink};

const QUESTION: &str = "From: Ann <ann@example.org>\r\nSubject: Printer\r\nMessage-ID: <q2@example.org>\r\n\
                        References: <q1@example.org>\r\n\r\nIt burns.\r\n";
const ANSWERS: &str = r#"
fn email(message, env, ctx) {
    if message.reply(#{ text: "We are on it.", every: DAY }) { message.tag("answered"); }
    message.forward("team@example.net");
}
"#;

/// What is decided, by the clock and the facts that a test of rules sets.
#[test]
fn a_test_of_rules_says_what_is_answered() {
    let tests = r#"
[[test]]
name = "a question is answered in its thread"
raw = """
From: Ann <ann@example.org>
Subject: Printer
Message-ID: <q2@example.org>
References: <q1@example.org>

It burns.
"""
to = ["support@example.com", "support@example.com"]
auth.dmarc = "pass"
expect.reply = { to = "Ann <ann@example.org>", from = "support@example.com", subject = "Re: Printer", text = "We are on it.", in_reply_to = "q2@example.org", references = ["q1@example.org", "q2@example.org"] }

[[test]]
name = "who isn't proved has no answer"
raw = "From: ann@example.org\n\nx\n"
to = "support@example.com"
expect.reply = []
expect.log = "no reply: nothing proves who sent it (message.auth.passed is false)"

[[test]]
name = "this one is expected otherwise"
raw = "From: ann@example.org\n\nx\n"
to = "support@example.com"
auth.dmarc = "pass"
expect.reply = "We are away."
"#;
    let setup = Setup::new().rules(ANSWERS).file("rules/tests/reply.toml", tests);
    let server = setup.start();
    let output = server.cli(&["test"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("2 passed") && told.contains("1 failed") && told.contains("We are on it."), "{told}");
    server.stdout(&["test", "--update"]);
    let tests = std::fs::read_to_string(server.path().join("rules/tests/reply.toml")).unwrap();
    assert!(tests.contains("expect.reply = \"We are on it.\""), "{tests}");
}

/// The message isn't put off for it.
#[test]
fn who_is_not_proved_has_no_answer_and_the_trace_says_why() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(ANSWERS).start();
    server.send("ann@example.org", &["support@example.com"], QUESTION.as_bytes()).expect(250);
    server.settled();
    assert_eq!(sink.wait_one().recipients(), ["team@example.net"]);
    let shown = server.stdout(&["messages", "show", server.newest()["id"].as_str().unwrap()]);
    assert!(shown.contains("no reply: nothing proves who sent it"), "{shown}");
    assert!(!shown.contains("answered"), "{shown}");
}
