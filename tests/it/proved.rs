//! Routes by what the sender proved, and what `explain` and `session` find out about one.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::harness::stranger::{PROXIED, STRANGER, greeted_as};
use crate::harness::{Client, Server, Setup, SmtpSink};
use crate::sender::signed_by;

const WORKER: &str = "fn email(message, env, ctx) { message.forward(\"worker@example.net\"); }";

const ROUTES: &str = r#"
[[route]]
from = "*@partner.example"
auth = { dmarc = "pass" }
action = "forward"
to = ["partners@example.net"]

[[route]]
match = "vault@example.com"
unless = { auth = { passed = true } }
action = "reject"
text = "Only from those who prove who they are"

[[route]]
match = "bin@example.com"
unless = { auth = { spf = ["pass", "none"] } }
action = "drop"

[[route]]
auth = { spf = ["fail", "softfail"], dkim = "none", iprev = "permerror" }
action = "quarantine"
text = "nobody vouches for it"
"#;

fn setup(sink: &SmtpSink) -> Setup {
    let setup = Setup::relaying_to(sink).toml(PROXIED).rules(WORKER).toml(ROUTES);
    let sends = "v=spf1 ip4:192.0.2.0/24 -all";
    setup.dns.txt("partner.example", sends).txt("_dmarc.partner.example", "v=DMARC1; p=none");
    setup.dns.txt("stranger.example", sends).txt("disowned.example", "v=spf1 ip4:203.0.113.1 ~all");
    setup.dns.a("mail.partner.example", STRANGER).ptr(STRANGER, "mail.partner.example");
    setup
}

fn greeted(server: &Server, from: Ipv4Addr) -> Client {
    greeted_as(server, from, "mail.partner.example")
}

fn letter(from: &str) -> Vec<u8> {
    format!("From: {from}\r\nTo: someone@example.com\r\nSubject: hello\r\n\r\nwords\r\n").into_bytes()
}

/// Who decided on the newest message, and with what.
fn decided(server: &Server) -> String {
    let newest = server.newest_settled();
    let decided: Vec<Value> =
        newest["trace"].as_array().unwrap().iter().filter(|event| event["event"] == "decided").cloned().collect();
    assert_eq!(decided.len(), 1, "{newest}");
    format!("{}: {}", decided[0]["by"].as_str().unwrap(), decided[0]["verdict"].as_str().unwrap())
}

#[test]
fn a_route_goes_by_what_the_sender_proved() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    let mut client = greeted(&server, STRANGER);
    client.send("ann@partner.example", &["any@example.com"], &letter("ann@partner.example")).expect(250);
    assert_eq!(decided(&server), "route 1 (from *@partner.example, dmarc=pass): accept");
    assert_eq!(sink.wait_one().recipients(), ["partners@example.net"]);

    // Another's envelope passes SPF; that proves nothing of the author.
    client.send("ann@stranger.example", &["any@example.com"], &letter("ann@partner.example")).expect(250);
    assert_eq!(decided(&server), "worker rules/main.rhai: accept");

    let mut unnamed = greeted(&server, Ipv4Addr::new(192, 0, 2, 8));
    unnamed.send("x@disowned.example", &["any@example.com"], &letter("x@disowned.example")).expect(250);
    let by = "route 4 (iprev=permerror, spf=softfail, dkim=none): quarantine (nobody vouches for it)";
    assert_eq!(decided(&server), by);
    client.send("x@disowned.example", &["any@example.com"], &letter("x@disowned.example")).expect(250);
    assert_eq!(decided(&server), "worker rules/main.rhai: accept", "its address has a name");
    server.settled();
}

#[test]
fn what_is_refused_for_want_of_a_proof_is_put_off_while_dns_does_not_answer() {
    let sink = SmtpSink::start();
    let setup = setup(&sink);
    setup.dns.fail("broken.example");
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    client.envelope("ann@nothing.example", &["vault@example.com"]);
    let refused = client.data(&letter("ann@nothing.example")).expect_status(550, "5.7.1");
    assert!(refused.text().contains("Only from those who prove"), "{}", refused.text());
    client.send("ann@stranger.example", &["vault@example.com"], &letter("ann@stranger.example")).expect(250);

    for to in ["vault@example.com", "bin@example.com"] {
        client.envelope("ann@broken.example", &[to]);
        let put_off = client.data(&letter("ann@broken.example")).expect_status(451, "4.4.3");
        assert!(put_off.text().contains("try again later"), "{}", put_off.text());
        assert!(decided(&server).ends_with("DNS did not answer for its `unless`): defer"), "{}", decided(&server));
    }
    // Where it keeps nobody's mail out, what isn't known holds for nobody.
    client.send("ann@broken.example", &["any@example.com"], &letter("ann@broken.example")).expect(250);
    assert_eq!(decided(&server), "worker rules/main.rhai: accept");
    server.dns.mend("broken.example");
    client.envelope("ann@broken.example", &["vault@example.com"]);
    client.data(&letter("ann@broken.example")).expect_status(550, "5.7.1");
    server.settled();
}

/// Whoever has DNS of his own can have it fail, for the envelope, for a signature, for another author beside the one he forges.
#[test]
fn a_senders_dns_that_fails_on_purpose_leaves_nobody_unproved_open() {
    let proved =
        "[[route]]\nmatch = \"ceo@example.com\"\nauth = { passed = false }\naction = \"reject\"\ntext = \"Prove it\"";
    let setup = Setup::new().toml(PROXIED).rules("fn email(message, env, ctx) { message.drop(); }").toml(proved);
    setup
        .dns
        .fail("evil.example")
        .fail("_dmarc.evil.example")
        .fail("sel._domainkey.evil.example")
        .fail("broken.example");
    setup.dns.txt("disowned.example", "v=spf1 -all").txt("_dmarc.watching.example", "v=DMARC1; p=none");
    let (signed, _) = signed_by("evil.example", &letter("ceo@watching.example"));
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    for (sender, message) in [
        ("crook@evil.example", letter("ceo@bank.example")),
        ("crook@disowned.example", signed.clone()),
        ("crook@evil.example", signed),
        ("crook@evil.example", letter("x@evil.example, ceo@bank.example")),
        ("crook@broken.example", letter("x@broken.example, ceo@bank.example")),
    ] {
        client.envelope(sender, &["ceo@example.com"]);
        let refused = client.data(&message).expect_status(550, "5.7.1");
        assert!(refused.text().contains("Prove it"), "{}", refused.text());
    }
    assert_eq!(decided(&server), "route 1 (ceo@example.com, sender not proved): reject");
    client.envelope("ann@broken.example", &["ceo@example.com"]);
    client.data(&letter("ann@broken.example")).expect(250);
    assert!(decided(&server).starts_with("worker"), "what its own DNS may still say is known to nobody");
}

#[test]
fn nobody_is_refused_at_rcpt_for_what_the_message_will_prove() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    let mut client = greeted(&server, STRANGER);
    client.envelope("ann@nothing.example", &["vault@example.com"]);
    client.command("RSET").expect(250);
    let told = server.json(&["explain", "vault@example.com"]).remove(0);
    assert_eq!(told["rcpt"]["code"], 250, "{told}");
    // A client on the own network is looked into by nobody.
    assert_eq!(told["answer"]["code"], 550, "{told}");
}

#[test]
fn explain_and_tests_say_how_a_route_was_judged_by_a_proof() {
    let tests = r#"
[[test]]
name = "a partner proves it"
from = "ann@partner.example"
raw = "From: ann@partner.example\nSubject: x\n\nx\n"
to = "any@example.com"
auth.spf = "pass"
auth.dmarc = "pass"
expect.forward = ["partners@example.net"]
[[test]]
name = "a forger is the worker's"
from = "ann@partner.example"
raw = "From: ann@partner.example\nSubject: x\n\nx\n"
to = "any@example.com"
auth.dmarc = "fail"
expect.forward = ["worker@example.net"]
[[test]]
name = "the vault"
from = "ann@partner.example"
raw = "From: ann@partner.example\nSubject: x\n\nx\n"
to = "vault@example.com"
auth.dmarc = "temperror"
expect.defer = { enhanced = "4.4.3" }
"#;
    let sink = SmtpSink::start();
    let server = setup(&sink).file("rules/tests/routes.toml", tests).start();
    let tested = server.cli(&["test"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    server.write("partner.eml", "From: ann@partner.example\r\nSubject: x\r\n\r\nx\r\n");
    let told = server.stdout(&["explain", "any@example.com", "--message", "partner.eml"]);
    for words in ["route 1 doesn't apply: dmarc=none, not pass", "route 4 doesn't apply: iprev=none, not permerror"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

const PARTNER: &str = "Return-Path: <bounces@partner.example>\nFrom: ann@partner.example\nTo: Bob <b@elsewhere.example>, \
    any@example.com\nSubject: x\n\nx\n";

/// The sender is looked into as the server would, for the client that is named; the file says the rest.
#[test]
fn explain_finds_out_who_sends_the_message_in_a_file() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    server.write("new/1.M2@host", PARTNER);
    let client = ["--ip", "192.0.2.7", "--helo", "mail.partner.example"];
    let told = server.stdout(&[&["explain", "new/1.M2@host"], &client[..]].concat());
    for words in [
        "message   from bounces@partner.example to any@example.com\n",
        "iprev=pass mail.partner.example  (",
        "spf helo=none mail.partner.example",
        "spf=pass partner.example  (",
        "dmarc=pass partner.example: p=none  (",
        "route 1 (from *@partner.example, dmarc=pass)",
        "queues    relay to partners@example.net",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let asked = server.dns.asked("partner.example");
    let told =
        server.json(&[&["explain", "new/1.M2@host", "--from", "<>", "--offline"], &client[..]].concat()).remove(0);
    assert!(told["not_looked_into"].as_str().unwrap().contains("--offline"), "{told}");
    assert_eq!((&told["sender"], &told["address"]), (&Value::Null, &"any@example.com".into()), "{told}");
    assert!(told.to_string().contains("route 1 doesn't apply: dmarc=none, not pass"), "{told}");
    assert_eq!(server.dns.asked("partner.example"), asked, "nobody is asked");
    let told = server.stdout(&["explain", "new/1.M2@host", "--to", "vault@example.com"]);
    assert!(
        told.contains("127.0.0.1 is one of [authentication] skip") && told.contains("550 5.7.1 Only from"),
        "{told}"
    );

    server.write("nobody.eml", "From: a@b.example\nTo: c@d.example\n\nx\n");
    let refused = server.cli(&["explain", "nobody.eml"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("--to ADDRESS"), "{said}");
    assert_eq!(server.cli(&["explain", "any@example.com", "--to", "x@example.com"]).status.code(), Some(2));
    assert_eq!(server.cli(&["explain", "nobody.eml", "--message", "nobody.eml"]).status.code(), Some(2));
    assert!(server.messages().is_empty() && sink.mails().is_empty());
}

/// What is asked and said at which question is what the server would find out by then.
#[test]
fn a_session_is_told_who_speaks_as_soon_as_it_is_known() {
    let worker = "fn connect(session, env) { print(`named ${session.ptr}`); }\n\
        fn email(message, env, ctx) { print(ctx.dns_lookup(\"partner.example\", \"TXT\").len); message.drop(); }";
    let sink = SmtpSink::start();
    let server = setup(&sink).rules(worker).start();
    let said = "EHLO mail.partner.example\nMAIL FROM:<ann@partner.example>\nRCPT TO:<any@example.com>\nDATA\n\
        From: ann@stranger.example\n\nx\n.\nMAIL FROM:<ann@partner.example>\nRCPT TO:<any@example.com>\nDATA\n\
        From: ann@partner.example\n\nx\n.\nQUIT\n";
    let told = rehearsed(&server, &["--ip", "192.0.2.7"], said);
    in_order(
        &told,
        &[
            "220 ",
            "iprev=pass mail.partner.example",
            "named mail.partner.example",
            "250 ",
            "spf=pass partner.example",
            "354 ",
            "dmarc=none stranger.example",
            "route 1 doesn't apply: From is not *@partner.example",
            "drop for any@example.com",
            "354 ",
            "dmarc=pass partner.example",
            "route 1 (from *@partner.example, dmarc=pass)",
        ],
    );
    let told = rehearsed(&server, &["--ip", "192.0.2.7", "--offline"], said);
    in_order(
        &told,
        &["# not looked into, so every result is none: --offline", "named ", "354 ", "--offline, so nobody is asked"],
    );
    assert!(!told.contains("=pass"), "{told}");
    let told = rehearsed(&server, &["--ip", "192.0.2.8", "--ptr", "said.example"], "QUIT\n");
    in_order(&told, &["iprev=pass said.example: as --ptr says", "named said.example"]);
    assert!(server.messages().is_empty() && sink.mails().is_empty());
}

fn rehearsed(server: &Server, arguments: &[&str], input: &str) -> String {
    server.fed(&[&["session"], arguments].concat(), input)
}

#[track_caller]
fn in_order(told: &str, all: &[&str]) {
    let mut rest = told;
    for words in all {
        let at = rest.find(words).unwrap_or_else(|| panic!("{words}, in its order: {told}"));
        rest = &rest[at + words.len()..];
    }
}
