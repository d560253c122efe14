//! TLS: offered, demanded, from the first octet, with the certificate that is on disk now.

use std::os::unix::fs::symlink;

use crate::harness::{Certificate, Client, Setup, SmtpSink, mail};

#[test]
fn starttls_encrypts_and_the_state_begins_anew() {
    let sink = SmtpSink::start();
    let certificate = Certificate::for_name("mx.example.com");
    let server = Setup::relaying_to(&sink).certificate(&certificate).start();
    let mut client = server.client();
    assert!(client.offers.iter().any(|offer| offer == "STARTTLS"), "{:?}", client.offers);
    client.command("STARTTLS now").expect(501);
    client.command("MAIL FROM:<forgotten@example.org>").expect(250);
    client.start_tls(&certificate, "mx.example.com");
    assert!(!client.offers.iter().any(|offer| offer == "STARTTLS"), "{:?}", client.offers);
    client.command("RCPT TO:<support@example.com>").expect(503);
    client.send("ann@example.org", &["support@example.com"], &mail("encrypted", "x")).expect(250);
    let text = sink.wait_one().text();
    assert!(text.contains("with ESMTPS id") && text.contains("TLS"), "{text}");
}

/// RFC 3207 §4.2 and the command injections of 2021: what stood behind STARTTLS in the clear is never run.
#[test]
fn commands_injected_before_the_handshake_are_dropped() {
    let certificate = Certificate::for_name("mx.example.com");
    let server = Setup::new().certificate(&certificate).start();
    let mut client = server.client();
    client.raw(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<support@example.com>\r\n");
    client.reply().expect(220);
    client.shake_hands(&certificate, "mx.example.com");
    client.ehlo();
    client.command("DATA").expect(503);
    client.command("MAIL FROM:<ann@example.org>").expect(250);
}

#[test]
fn tls_from_the_first_octet_and_tls_demanded() {
    let sink = SmtpSink::start();
    let certificate = Certificate::for_name("mx.example.com");
    let listeners = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\n\
                     [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"required\"";
    let server = Setup::relaying_to(&sink).certificate(&certificate).toml(listeners).start();
    let mut implicit = Client::greeted_in_tls(server.listeners[0], &certificate, "mx.example.com");
    implicit.send("ann@example.org", &["support@example.com"], &mail("implicit", "x")).expect(250);

    let mut required = Client::greeted(server.listeners[1]);
    required.command("MAIL FROM:<ann@example.org>").expect_status(530, "5.7.0");
    required.start_tls(&certificate, "mx.example.com");
    required.send("ann@example.org", &["support@example.com"], &mail("required", "x")).expect(250);
    sink.wait(2);
}

#[test]
fn a_domain_may_take_its_mail_over_tls_alone() {
    let sink = SmtpSink::start();
    let certificate = Certificate::for_name("mx.example.com");
    let domains = "[[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\nrequire_tls = true\n\
                   [[domain]]\nname = \"example.edu\"\npostmaster = \"admin@example.net\"";
    let server = Setup::relaying_to(&sink).certificate(&certificate).toml(domains).start();
    let mut client = server.client();
    let mark = server.log.mark();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    client.command("RCPT TO:<support@Example.COM>").expect_status(530, "5.7.0");
    server.wait_event(mark, "refused", |event| event["recipient"] == "support@Example.COM" && event["phase"] == "rcpt");
    client.command("RCPT TO:<postmaster@example.com>").expect(250);
    client.command("RCPT TO:<support@example.edu>").expect(250);
    client.start_tls(&certificate, "mx.example.com");
    client.send("ann@example.org", &["support@example.com"], &mail("encrypted", "x")).expect(250);
    sink.wait(1);
}

#[test]
fn of_a_peer_mail_may_be_taken_over_tls_alone() {
    let sink = SmtpSink::start();
    let certificate = Certificate::for_name("mx.example.com");
    let peers = "[session]\nrequire_tls = [\"192.0.2.0/24\", \"127.0.0.0/8\"]";
    let server = Setup::relaying_to(&sink).certificate(&certificate).toml(peers).start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect_status(530, "5.7.0");
    client.start_tls(&certificate, "mx.example.com");
    client.send("ann@example.org", &["support@example.com"], &mail("encrypted", "x")).expect(250);
    sink.wait(1);
}

#[test]
fn what_is_listened_with_is_what_is_offered() {
    let without = Setup::new().start();
    let with = Setup::new().certificate(&Certificate::for_name("mx.example.com")).start();
    for (server, tls) in [(without, "off"), (with, "starttls")] {
        server.wait_event(0, "listening", |event| event["protocol"] == "smtp" && event["tls"] == tls);
    }
}

#[test]
fn a_new_certificate_serves_the_next_session() {
    let old = Certificate::for_name("mx.example.com");
    let server = Setup::new().certificate(&old).start();
    let mut before = server.client();
    before.start_tls(&old, "mx.example.com");

    let new = Certificate::for_name("mx.example.com");
    let mark = server.log.mark();
    server.write_certificate(&new);
    // Each of the two files may be seen by itself; the last word is the new pair.
    server.wait_event(mark, "reloaded", |_| true);
    server.wait_until("the new certificate is served", || {
        let mut client = server.client();
        client.command("STARTTLS").expect(220);
        client.try_shake_hands(&new, "mx.example.com").is_ok().then_some(())
    });
    before.command("NOOP").expect(250);
}

/// Kubernetes mounts a secret as links over `..data`, which it swaps; certbot links into a folder that it writes.
#[test]
fn a_certificate_behind_links_is_renewed_wherever_the_change_is() {
    let old = Certificate::for_name("mx.example.com");
    let setup = Setup::new().certificate(&old).toml("[tls]\ncertificate = \"tls/cert.pem\"\nkey = \"tls/key.pem\"");
    let at = |path: &str| setup.dir.path().join(path);
    for folder in ["tls/..1", "tls/..2", "live"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    old.write(&at("tls/..1"));
    symlink("..1", at("tls/..data")).unwrap();
    for file in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{file}"), at("tls").join(file)).unwrap();
    }
    let server = setup.start();
    let is_served = |certificate: &Certificate| {
        server.wait_until("the new certificate is served", || {
            let mut client = server.client();
            client.command("STARTTLS").expect(220);
            client.try_shake_hands(certificate, "mx.example.com").is_ok().then_some(())
        });
    };
    is_served(&old);

    let swapped = Certificate::for_name("mx.example.com");
    let at = |path: &str| server.path().join(path);
    swapped.write(&at("tls/..2"));
    symlink("..2", at("tls/..new")).unwrap();
    std::fs::rename(at("tls/..new"), at("tls/..data")).unwrap();
    is_served(&swapped);

    swapped.write(&at("live"));
    symlink("../live", at("tls/..new")).unwrap();
    let mark = server.log.mark();
    std::fs::rename(at("tls/..new"), at("tls/..data")).unwrap();
    server.wait_event(mark, "reloaded", |_| true);
    let written = Certificate::for_name("mx.example.com");
    written.write(&at("live"));
    is_served(&written);
}

#[test]
fn starttls_after_the_certificate_was_taken_away_is_put_off() {
    let certificate = Certificate::for_name("mx.example.com");
    let server = Setup::new().certificate(&certificate).start();
    let mut client = server.client();
    let text = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let mut settings: toml::Table = text.parse().unwrap();
    settings.remove("tls");
    server.takes_up("mailworker.toml", &toml::to_string(&settings).unwrap());
    client.command("STARTTLS").expect_status(454, "4.7.0");
    client.send("ann@example.org", &["support@example.com"], &mail("in the clear", "x")).expect(250);
    assert!(!server.client().offers.iter().any(|offer| offer == "STARTTLS"));
}

/// RFC 6531 §4.3: the name of the protocol says both.
#[test]
fn mail_with_utf8_over_tls_is_received_with_utf8smtps() {
    let sink = SmtpSink::start();
    let certificate = Certificate::for_name("mx.example.com");
    let server = Setup::relaying_to(&sink).certificate(&certificate).start();
    let mut client = server.client();
    client.start_tls(&certificate, "mx.example.com");
    client.command("MAIL FROM:<ann@example.org> SMTPUTF8").expect(250);
    client.command("RCPT TO:<support@example.com>").expect(250);
    client.data(&mail("utf8", "x")).expect(250);
    let text = sink.wait_one().text();
    assert!(text.contains("with UTF8SMTPS id"), "{text}");
}

#[test]
fn a_handshake_that_fails_is_told_and_harms_nobody() {
    let certificate = Certificate::for_name("mx.example.com");
    let server = Setup::new().certificate(&certificate).start();
    let mark = server.log.mark();
    let mut client = server.client();
    client.command("STARTTLS").expect(220);
    client.raw(b"this is no TLS at all\r\n\r\n");
    server.wait_event(mark, "tls_failed", |_| true);
    server.client().start_tls(&certificate, "mx.example.com");
}

#[test]
fn a_machine_that_knows_no_authorities_serves() {
    // As in a container without ca-certificates: ours are built in.
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink)
        .environment("SSL_CERT_FILE", "/dev/null")
        .environment("SSL_CERT_DIR", "/dev/null")
        .start();
    server.send("ann@example.org", &["support@example.com"], &mail("alone", "x")).expect(250);
    sink.wait_one();
}
