//! `session`: the dialogue that a server would lead, with reasons and without effects.

use crate::harness::{Certificate, Server, Setup, SmtpSink};

const RULES: &str = r#"
fn connect(session, env) {
    if session.ip.starts_with("203.0.113.") { session.reject("Not you"); }
}
fn helo(session, env) {
    if session.helo == "spam.example" { session.defer("Later"); }
}
fn rcpt_to(session, rcpt, env) {
    switch rcpt.local {
        "nobody" => session.reject(550, "5.1.1", "No such mailbox"),
        "old" => session.redirect("new@example.com"),
        _ => (),
    }
}
fn email(message, env, ctx) {
    env.SEEN.increment("count");
    if message.subject == "spam" { message.set_reject("No, thank you"); return; }
    if message.to.local == "broken" { throw "not now"; }
    message.forward("team@example.net");
}
"#;

const SETTINGS: &str = r#"
[limits]
message_size = "64 KiB"

[[kv_namespaces]]
binding = "SEEN"
"#;

fn setup(sink: &SmtpSink) -> Setup {
    Setup::relaying_to(sink).rules(RULES).toml(SETTINGS)
}

/// What `session` prints for this input, its replies and its reasons.
fn rehearse(server: &Server, arguments: &[&str], input: &str) -> (Vec<String>, Vec<String>) {
    let printed = server.fed(&[&["session"], arguments].concat(), input);
    printed.lines().map(ToOwned::to_owned).partition(|line| !line.starts_with('#'))
}

#[track_caller]
fn gives(reasons: &[String], words: &str) {
    assert!(reasons.iter().any(|reason| reason.contains(words)), "{words}: {reasons:#?}");
}

const DIALOGUE: &str = "MAIL FROM:<ann@example.org>\nEHLO client.example.org\nRCPT TO:<a@example.com>\nNONSENSE\n\
    MAIL FROM:<ann@example.org>\nRCPT TO:<nobody@example.com>\nRCPT TO:<user@elsewhere.example>\nRCPT TO:<old@example.com>\n\
    RCPT TO:<postmaster@example.com>\nRCPT TO:<broken@example.com>\nRCPT TO:<more@example.com>\nDATA\n\
    Subject: hello\n\n..dot\n.\nMAIL FROM:<>\nRCPT TO:<sales@example.com>\nDATA\nSubject: spam\n\nx\n.\n\
    MAIL FROM:<ann@example.org> SIZE=70000\nRSET\nHELP\nQUIT\n";

#[test]
fn it_says_what_the_server_says_and_why_and_does_nothing() {
    let sink = SmtpSink::start();
    let mut server = setup(&sink).start();
    // The run that fails is made up for later.
    server.leaves_queue();
    let (replies, reasons) = rehearse(&server, &[], DIALOGUE);
    for words in [
        "# no worker has mail_from",
        "# helo has nothing against it",
        "rcpt_to, at rules/main.rhai:10:29",
        "# no [[domain]] takes elsewhere.example",
        "rcpt_to leads it on to new@example.com",
        "# [[domain]] example.com: its postmaster",
        "# [limits] message_size = 65536 octets",
        "# the protocol: no rule was asked",
        "forward to team@example.net (rules/main.rhai:19:13)",
        "would queue relay to team@example.net by",
        "would queue decide to broken@example.com",
        "reject for sales@example.com by worker rules/main.rhai at rules/main.rhai:17:44",
        "# closed: quit",
    ] {
        gives(&reasons, words);
    }
    assert!(server.messages().is_empty() && server.queue().is_empty() && sink.mails().is_empty());
    assert!(server.json(&["kv", "list", "SEEN"]).is_empty());

    let mut client = crate::harness::Client::connect(server.smtp()).unwrap();
    let mut said = vec![client.reply()];
    for line in DIALOGUE.lines() {
        client.raw(format!("{line}\r\n").as_bytes());
        let is_message = said.last().is_some_and(|reply| reply.code == 354) && line != ".";
        if !is_message {
            said.push(client.reply());
        }
    }
    let said: Vec<String> = said.iter().flat_map(|reply| reply.lines.clone()).collect();
    let bare = |line: &String| match line.find("Queued as ").or_else(|| line.find("later (")) {
        Some(at) => line[..at].to_owned(),
        None => line.clone(),
    };
    let rehearsed: Vec<String> = replies.iter().map(|line| line.get(4..).unwrap_or_default().to_owned()).collect();
    assert_eq!(rehearsed.iter().map(bare).collect::<Vec<_>>(), said.iter().map(bare).collect::<Vec<_>>());
}

#[test]
fn who_speaks_can_be_chosen() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    let (replies, reasons) = rehearse(&server, &["--ip", "203.0.113.7"], "EHLO x\n");
    assert_eq!(replies, ["554 Not you"]);
    gives(&reasons, "connect, at rules/main.rhai:3:");
    let (replies, reasons) = rehearse(&server, &["--helo", "spam.example"], "QUIT\n");
    assert!(replies.contains(&"EHLO spam.example".to_owned()), "{replies:?}");
    assert!(replies.iter().any(|line| line.starts_with("451 ") && line.ends_with("Later")), "{replies:?}");
    gives(&reasons, "helo, at rules/main.rhai:6:");
    let unknown = server.cli(&["session", "--listener", "192.0.2.1:25"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}

#[test]
fn tls_is_as_the_listener_and_the_domain_want_it() {
    let sink = SmtpSink::start();
    let certificate = Certificate::for_name("mx.example.com");
    let domain = "[[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\nrequire_tls = true\n";
    let server = setup(&sink).toml(domain).certificate(&certificate).start();
    let input = "EHLO x\nMAIL FROM:<a@example.org>\nRCPT TO:<b@example.com>\nRSET\nSTARTTLS\nEHLO x\n\
                 MAIL FROM:<a@example.org>\nRCPT TO:<b@example.com>\nQUIT\n";
    let (replies, reasons) = rehearse(&server, &[], input);
    assert!(replies.iter().any(|line| line.ends_with("STARTTLS")), "{replies:?}");
    let answers: Vec<_> =
        replies.iter().filter(|line| line.starts_with("530") || line.contains("Recipient ok")).collect();
    assert_eq!(answers.len(), 2, "{replies:?}");
    gives(&reasons, "its [[domain]] has require_tls");
    gives(&reasons, "TLS stands");
    let (replies, _) =
        rehearse(&server, &["--tls", "--helo", "x"], "MAIL FROM:<a@example.org>\nRCPT TO:<b@example.com>\n");
    assert!(replies.iter().any(|line| line.contains("Recipient ok")), "{replies:?}");
    assert!(!replies.iter().any(|line| line.ends_with("STARTTLS")), "{replies:?}");
}
