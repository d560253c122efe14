//! Who sends a message: what is looked up and when, what a script is told of it, what becomes of mail that fails, and whose
//! `Authentication-Results` is believed.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::DkimSigner;

use crate::harness::stranger::{PROXIED, STRANGER, greeted};
use crate::harness::{Client, Server, Setup, SmtpSink, contains, mail};

pub(crate) fn letter(from: &str, subject: &str) -> Vec<u8> {
    format!("From: {from}\r\nTo: support@example.com\r\nSubject: {subject}\r\n\r\nwords\r\n").into_bytes()
}

/// What the trace says of one check.
pub(crate) fn checked(server: &Server, check: &str) -> (String, String) {
    let detail = server.newest();
    let trace = detail["trace"].as_array().unwrap().clone();
    let told = trace.iter().find(|event| event["event"] == "authenticated").unwrap_or_else(|| panic!("{trace:?}"));
    let one = told["checks"].as_array().unwrap().iter().find(|one| one["check"] == check).unwrap().clone();
    (one["result"].as_str().unwrap().to_owned(), one["about"].as_str().unwrap().to_owned())
}

#[test]
fn mail_that_its_authors_domain_disowns_is_refused_or_put_aside_as_that_domain_asks() {
    let domains = r#"
[[domain]]
name = "example.com"
postmaster = "admin@example.net"

[[domain]]
name = "lenient.example.com"
postmaster = "admin@example.net"
dmarc_reject = "accept"
dmarc_quarantine = "reject"
"#;
    let rules = "fn email(message, env, ctx) { message.tag(`worker:${message.auth.dmarc.result}`); message.drop(); }";
    let setup = Setup::new().toml(PROXIED).toml(domains).rules(rules);
    setup.dns.txt("_dmarc.bank.example", "v=DMARC1; p=reject").txt("_dmarc.shop.example", "v=DMARC1; p=quarantine");
    setup.dns.txt("_dmarc.watching.example", "v=DMARC1; p=none").txt("evil.example", "v=spf1 ip4:192.0.2.0/24 -all");
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    let send = |client: &mut Client, author: &str, to: &str| {
        client.send("crook@evil.example", &[to], &letter(author, "Your account"))
    };
    let refused = send(&mut client, "boss@bank.example", "support@example.com").expect_status(550, "5.7.1");
    assert!(refused.text().contains("bank.example") && refused.text().contains("DMARC"), "{}", refused.text());
    let trace = server.newest()["trace"].clone();
    let decided = trace.as_array().unwrap().iter().find(|event| event["event"] == "decided").unwrap().clone();
    assert_eq!(decided["by"], "the policy on senders", "no worker is asked");
    assert_eq!(checked(&server, "dmarc"), ("fail".to_owned(), "bank.example".to_owned()));
    assert_eq!(checked(&server, "spf"), ("pass".to_owned(), "evil.example".to_owned()), "which is another's domain");
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let shown = server.stdout(&["messages", "show", &id]);
    assert!(shown.contains("dmarc=fail bank.example: p=reject") && shown.contains(" ms)"), "{shown}");

    // Subdomains that publish nothing are its own, too.
    send(&mut client, "boss@mail.bank.example", "support@example.com").expect_status(550, "5.7.1");
    // Another author beside it, or a second From, hides nothing.
    send(&mut client, "me@evil.example, boss@bank.example", "support@example.com").expect_status(550, "5.7.1");
    let twice = "me@evil.example\r\nFrom: boss@bank.example";
    send(&mut client, twice, "support@example.com").expect_status(550, "5.7.1");
    send(&mut client, "boss@bank.example", "support@lenient.example.com").expect(250);
    assert!(server.newest()["trace"].to_string().contains("worker:fail"));
    send(&mut client, "sales@shop.example", "support@lenient.example.com").expect_status(550, "5.7.1");
    send(&mut client, "sales@shop.example", "support@example.com").expect(250);
    assert_eq!(server.newest()["outcome"], "quarantined");
    send(&mut client, "me@watching.example", "support@example.com").expect(250);
    assert!(server.newest()["trace"].to_string().contains("worker:fail"));
    send(&mut client, "me@evil.example", "support@example.com").expect(250);
    assert!(server.newest()["trace"].to_string().contains("worker:none"), "nothing is published");
    // RFC 5321 §4.5.1
    send(&mut client, "boss@bank.example", "postmaster@example.com").expect(250);
}

#[test]
fn a_trusted_forwarder_is_not_judged() {
    let trusted = "[authentication]\ntrusted_forwarders = [\"192.0.2.7\"]";
    let rules = "fn email(message, env, ctx) { print(message.auth.trusted_forwarder); message.drop(); }";
    let setup = Setup::new().toml(PROXIED).toml(trusted).rules(rules);
    setup.dns.txt("_dmarc.bank.example", "v=DMARC1; p=reject");
    let server = setup.start();
    let message = letter("boss@bank.example", "x");
    greeted(&server, STRANGER).send("a@list.example", &["support@example.com"], &message).expect(250);
    assert!(server.newest()["trace"].to_string().contains("\"true\""));
    let (other, message) = (Ipv4Addr::new(192, 0, 2, 8), letter("boss@bank.example", "y"));
    greeted(&server, other).send("a@list.example", &["support@example.com"], &message).expect_status(550, "5.7.1");
}

#[test]
fn a_failure_of_spf_alone_refuses_nobody_but_where_a_setting_says_so() {
    let domains = r#"
[[domain]]
name = "example.com"
postmaster = "admin@example.net"

[[domain]]
name = "strict.example.com"
postmaster = "admin@example.net"
spf_fail = "reject"
"#;
    let setup = Setup::new().toml(PROXIED).toml(domains).rules("fn email(message, env, ctx) { message.drop(); }");
    setup.dns.txt("example.org", "v=spf1 -all");
    let (signed, record) = signed_by("example.org", &letter("ann@example.org", "signed"));
    setup.dns.txt("sel._domainkey.example.org", &record);
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    let message = letter("ann@example.org", "forwarded");
    client.send("ann@example.org", &["support@example.com"], &message).expect(250);
    assert_eq!(checked(&server, "spf").0, "fail");
    let refused = client.send("ann@example.org", &["support@strict.example.com"], &message);
    assert!(refused.expect_status(550, "5.7.23").text().contains("spf=fail"));
    // Whose signature holds has sent it, whoever brings it.
    client.send("ann@example.org", &["support@strict.example.com"], &signed).expect(250);
}

/// The message with a signature of this domain's, and the key as DNS has it.
pub(crate) fn signed_by(domain: &str, message: &[u8]) -> (Vec<u8>, String) {
    signed_with(domain, message, &["From", "Subject"])
}

pub(crate) fn signed_with(domain: &str, message: &[u8], names: &[&str]) -> (Vec<u8>, String) {
    let (pair, record) = key();
    let key = Ed25519Key::from_pkcs8_der(&pair).unwrap();
    let unsigned = DkimSigner::from_key(key).domain(domain).selector("sel").headers(names.iter().copied());
    let field = unsigned.sign(message).unwrap().to_header();
    ([field.as_bytes(), message].concat(), record)
}

/// A key to sign with, and what DNS says of it.
pub(crate) fn key() -> (Vec<u8>, String) {
    let pair = Ed25519Key::generate_pkcs8().unwrap();
    let public = STANDARD.encode(Ed25519Key::from_pkcs8_der(&pair).unwrap().public_key());
    (pair, format!("v=DKIM1; k=ed25519; p={public}"))
}

#[test]
fn a_script_and_the_next_hop_are_told_who_it_was() {
    let sink = SmtpSink::start();
    let rules = r#"
fn mail_from(session, sender, env) { session.notes.name = session.ptr; }
fn email(message, env, ctx) {
    let auth = message.auth;
    print(`${auth.passed} ${auth.spf.result} ${auth.spf_helo.result} ${auth.dmarc.result} ${auth.dmarc.policy}`);
    for one in auth.dkim { print(`${one.result} ${one.domain} ${one.selector} ${one.algorithm} ${one.aligned}`); }
    print(`${auth.iprev.result} ${auth.iprev.name} ${message.session.notes.name} ${message.session.ptr}`);
    message.forward("team@example.net");
}
"#;
    let setup = Setup::relaying_to(&sink).toml(PROXIED).rules(rules);
    let (signed, record) = signed_by("example.org", &letter("ann@example.org", "signed"));
    setup.dns.txt("sel._domainkey.example.org", &record).txt("_dmarc.example.org", "v=DMARC1; p=reject");
    setup
        .dns
        .txt("example.org", "v=spf1 include:_spf.example.org ~all")
        .txt("_spf.example.org", "v=spf1 a:mx.example.org -all");
    setup.dns.ptr(STRANGER, "mx.example.org").a("mx.example.org", STRANGER);
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    client.send("ann@example.org", &["support@example.com"], &signed).expect(250);
    let trace = server.newest()["trace"].to_string();
    assert!(trace.contains("true pass none pass reject"), "{trace}");
    assert!(trace.contains("pass example.org sel ed25519-sha256 true"), "{trace}");
    assert!(trace.contains("pass mx.example.org mx.example.org mx.example.org"), "{trace}");
    let relayed = sink.wait_one();
    let head = String::from_utf8_lossy(relayed.prepended_to(&signed)).into_owned();
    let ours = head.split_once("Authentication-Results: mx.example.com;").unwrap_or_else(|| panic!("{head}")).1;
    for said in [
        "iprev=pass policy.iprev=192.0.2.7 (mx.example.org)",
        "spf=pass smtp.mailfrom=ann@example.org",
        "dkim=pass header.d=example.org header.s=sel header.a=ed25519-sha256",
        "dmarc=pass header.from=example.org policy.dmarc=reject",
        "Received: from mail.example.org (mx.example.org [192.0.2.7])",
    ] {
        assert!(ours.contains(said), "{said}\n{head}");
    }
    // What the body says otherwise breaks the signature, and SPF still speaks for it.
    let changed = [signed.as_slice(), b"more\r\n"].concat();
    client.send("ann@example.org", &["support@example.com"], &changed).expect(250);
    assert_eq!(checked(&server, "dkim").0, "fail");
    assert_eq!(checked(&server, "dmarc").0, "pass");
}

#[test]
fn a_field_forged_in_our_name_goes_and_others_stay() {
    let sink = SmtpSink::start();
    let rules = r#"fn email(message, env, ctx) {
        print(`seen ${message.headers.get_all("Authentication-Results").len}`);
        message.set_header("X-Seen", "1");
        message.forward("team@example.net");
    }"#;
    let server = Setup::relaying_to(&sink).toml(PROXIED).rules(rules).start();
    let forged = "Authentication-Results: (x) MX.example.com 1;\r\n dmarc=pass header.from=bank.example\r\n";
    let other = "Authentication-Results: mx.example.net; spf=pass\r\nX-Seen: no\r\n";
    let again = "authentication-results: \"mx.example.com\"; dkim=pass\r\n";
    let plain = "From: ann@example.org\r\nSubject: x\r\n\r\nAuthentication-Results: mx.example.com; in the text\r\n";
    let message = format!("{forged}{other}{again}{plain}");
    let mut client = greeted(&server, STRANGER);
    client.send("ann@example.org", &["support@example.com"], message.as_bytes()).expect(250);
    assert!(server.newest()["trace"].to_string().contains("seen 1"));
    let relayed = sink.wait_one().text();
    assert_eq!(relayed.matches("mx.example.com;\r\n\tiprev=").count(), 1, "{relayed}");
    assert_eq!(relayed.matches("thentication-Results: ").count(), 3, "ours, the other's, the text's: {relayed}");
    assert!(!relayed.contains("bank.example") && !relayed.contains("dkim=pass"), "{relayed}");
    assert!(relayed.contains("mx.example.net; spf=pass") && relayed.ends_with("in the text\r\n"), "{relayed}");
    assert!(relayed.contains("X-Seen: 1") && !relayed.contains("X-Seen: no"), "{relayed}");
    // What is stored is what came.
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let raw = server.cli(&["messages", "raw", &id]).stdout;
    assert!(contains(&raw, message.as_bytes()));
}

#[test]
fn a_dns_that_does_not_answer_is_no_failure_and_holds_nobody_up_for_long() {
    let limits = "[authentication]\ntimeout = \"2 s\"\n[dns]\ntimeout = \"30 s\"";
    let setup = Setup::new().toml(PROXIED).toml(limits).rules("fn email(message, env, ctx) { message.drop(); }");
    let (signed, _) = signed_by("silent.example", &letter("ann@silent.example", "x"));
    setup.dns.hush("silent.example").hush("in-addr.arpa").fail("_dmarc.failing.example").fail("failing.example");
    let server = setup.start();
    let began = Instant::now();
    let mut client = greeted(&server, STRANGER);
    client.send("ann@silent.example", &["support@example.com"], &signed).expect(250);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    for check in ["iprev", "spf", "dkim", "dmarc"] {
        assert_eq!(checked(&server, check).0, "temperror", "{check}");
    }
    client.send("ann@failing.example", &["support@example.com"], &letter("ann@failing.example", "x")).expect(250);
    assert_eq!((checked(&server, "spf").0.as_str(), checked(&server, "dmarc").0.as_str()), ("temperror", "temperror"));
}

#[test]
fn look_ups_begin_before_the_message_comes_and_are_shared() {
    let setup = Setup::new().toml(PROXIED).rules("fn email(message, env, ctx) { message.drop(); }");
    setup.dns.txt("example.org", "v=spf1 ip4:192.0.2.7 -all");
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    server.wait_until("the client's name is asked for", || {
        (server.dns.asked("7.2.0.192.in-addr.arpa") > 0).then_some(())
    });
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    server.wait_until("SPF is asked for", || (server.dns.asked("example.org") > 0).then_some(()));
    client.command("RSET").expect(250);
    for number in 0..20 {
        let message = letter("ann@example.org", &number.to_string());
        client.send("ann@example.org", &["support@example.com"], &message).expect(250);
    }
    let asked = server.dns.asked("example.org");
    assert!(asked < 15, "{asked} times for 21 messages, though an answer lives for a second");
}

#[test]
fn the_own_network_is_not_looked_into() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    server.dns.txt("_dmarc.bank.example", "v=DMARC1; p=reject");
    let message = mail("from the printer", "x");
    server.send("boss@bank.example", &["support@example.com"], &message).expect(250);
    let head = String::from_utf8_lossy(sink.wait_one().prepended_to(&message)).into_owned();
    assert!(!head.contains("Authentication-Results"), "{head}");
    assert_eq!((server.dns.asked("bank.example"), server.dns.asked("_dmarc.bank.example")), (0, 0));
    assert!(!server.newest()["trace"].to_string().contains("authenticated"));
}

/// RFC 6376 App. A.2 and A.3, RFC 8463 App. A.2 and A.3: the messages and the keys that stand there.
#[test]
fn the_examples_of_the_standards_verify() {
    let setup = Setup::new().toml(PROXIED).rules("fn email(message, env, ctx) { message.drop(); }");
    let rsa = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v\
               3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ\
               2QIDAQAB";
    let other = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi\
                 Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTI\
                 KT+l/K4w3QIDAQAB";
    let edwards = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    setup.dns.txt("brisbane._domainkey.example.com", rsa).txt("test._domainkey.football.example.com", other);
    setup.dns.txt("brisbane._domainkey.football.example.com", edwards);
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/examples");
    for (file, expected) in [
        ("rfc6376-a2.eml", vec!["rsa-sha256 example.com"]),
        ("rfc8463-a3.eml", vec!["ed25519-sha256 football.example.com", "rsa-sha256 football.example.com"]),
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap().replace('\n', "\r\n");
        let results = |client: &mut Client, text: &str| -> Vec<(String, String)> {
            client.send("joe@football.example.com", &["support@example.com"], text.as_bytes()).expect(250);
            let id = server.newest()["id"].as_str().unwrap().to_owned();
            let body = server.json(&["messages", "show", &id])[0].clone();
            let told =
                body["trace"].as_array().unwrap().iter().find(|event| event["event"] == "authenticated").unwrap();
            let all = told["checks"].as_array().unwrap().iter().filter(|one| one["check"] == "dkim");
            all.map(|one| (one["result"].as_str().unwrap().into(), one["about"].as_str().unwrap().into())).collect()
        };
        let found = results(&mut client, &text);
        assert_eq!(found.len(), expected.len(), "{file}");
        for ((result, domain), expected) in found.iter().zip(&expected) {
            assert_eq!((result.as_str(), Some(domain.as_str())), ("pass", expected.split(' ').nth(1)), "{file}");
        }
        for (from, to) in [("hungry", "thirsty"), ("Subject: Is", "Subject: was")] {
            let changed = results(&mut client, &text.replace(from, to));
            assert!(changed.iter().all(|(result, _)| result == "fail"), "{file}, {to}: {changed:?}");
        }
    }
}
