//! `message.reply`: who has an answer, once, in which thread; and who never has one.

use crate::harness::stranger::{PROXIED, STRANGER, greeted};
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

/// RFC 5322 §2.1.1, §3.6.4: of a long thread its first, the newest and the message itself, folded.
#[test]
fn an_answer_in_a_long_thread_names_twenty_of_it_in_lines_that_can_be_sent() {
    let sink = SmtpSink::start();
    let setup = Setup::relaying_to(&sink).toml(PROXIED).rules(ANSWERS);
    setup.dns.txt("example.org", "v=spf1 ip4:192.0.2.0/24 -all").txt("_dmarc.example.org", "v=DMARC1; p=none");
    let server = setup.start();
    let send = |thread: usize| {
        let ids = (1..=thread).map(|n| format!("<{n}.{}@example.org>", "x".repeat(90)));
        let references = ids.collect::<Vec<_>>().join("\r\n ");
        let message = format!(
            "From: Ann <ann{thread}@example.org>\r\nSubject: Printer\r\nMessage-ID: <own@example.org>\r\n\
             References: {references}\r\n\r\nIt burns.\r\n"
        );
        let mut client = greeted(&server, STRANGER);
        client.send(&format!("ann{thread}@example.org"), &["support@example.com"], message.as_bytes()).expect(250);
        client.command("QUIT").expect(221);
        server.settled();
        let to = format!("ann{thread}@example.org");
        sink.mails().into_iter().find(|mail| mail.recipients() == [to.as_str()])
    };
    let answer = send(99).expect("an answer").text();
    assert!(answer.lines().all(|line| line.len() <= 998), "{answer}");
    let unfolded = answer.replace("\r\n ", " ");
    let line = unfolded.lines().find_map(|line| line.strip_prefix("References: ")).unwrap();
    let named: Vec<&str> = line.split_whitespace().map(|id| id.trim_matches(['<', '>'])).collect();
    let expected = std::iter::once(1).chain(82..=99).map(|n| format!("{n}.{}@example.org", "x".repeat(90)));
    assert_eq!(named, expected.chain(["own@example.org".to_owned()]).collect::<Vec<_>>());
    assert!(unfolded.contains("In-Reply-To: <own@example.org>\r\n"), "{unfolded}");
    assert!(send(100).is_none(), "nobody reads a hundred");
    assert!(server.newest_settled().to_string().contains("no reply: its thread is too long for people"));
}
