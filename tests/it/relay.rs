//! How next hops are spoken to: which of them is, what is said, and what their answers mean.

use std::net::Ipv4Addr;

use crate::harness::{Setup, SmtpSink, mail};

/// Forwards to one address.
fn to(address: &str) -> String {
    format!("fn email(message, env, ctx) {{ message.forward(\"{address}\"); }}")
}

/// RFC 5321 §5.1, §3.1: a server that turns us away gives way to the host's other address, and that to the next host.
#[test]
fn a_server_that_turns_us_away_gives_way_to_the_next() {
    let second = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 3), 0).into());
    let first = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 2), second.address.port()).into());
    let backup = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 4), second.address.port()).into());
    let setup = Setup::new().toml(&format!("[relay]\nport = {}", second.address.port()));
    setup.dns.mx("example.net", 10, "mx.example.net").mx("example.net", 20, "backup.example.net");
    setup.dns.a("mx.example.net", Ipv4Addr::new(127, 0, 0, 2)).a("mx.example.net", Ipv4Addr::new(127, 0, 0, 3));
    setup.dns.a("backup.example.net", Ipv4Addr::new(127, 0, 0, 4));
    first.always("CONNECT", "554 5.3.2 no service here");
    let server = setup.start();
    server.send("ann@example.org", &["support@example.com"], &mail("second", "x")).expect(250);
    second.wait_one();
    server.settled();
    second.always("EHLO", "421 4.3.2 closing").always("MAIL", "421 4.3.2 closing");
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("third", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "delivered");
    backup.wait_one();
}

/// RFC 5321 §4.3.2: the first digit decides, whatever comes after it.
#[test]
fn a_571_is_a_refusal_for_good() {
    let sink = SmtpSink::start();
    sink.always("RCPT TO:<team@", "571 5.7.1 not for you");
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("barred", "x")).expect(250);
    let failed = server.wait_event(mark, "failed", |_| true);
    assert!(failed["reason"].as_str().unwrap().contains("571 5.7.1 not for you"), "{failed}");
    assert_eq!(failed["attempts"], 1);
}

/// RFC 5321 §4.2.5: only a 2xx after the dot is a delivery.
#[test]
fn a_354_after_the_dot_is_no_delivery() {
    let sink = SmtpSink::start();
    sink.script(".", ["354 go on"]);
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("more", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    sink.wait_one();
}

/// RFC 6531 §3.4: UTF-8 in an address needs SMTPUTF8 at MAIL, and a domain alone doesn't need that.
#[test]
fn a_domain_beyond_ascii_goes_in_a_labels() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(&to("b@bücher.example")).start();
    server.send("ann@example.org", &["support@example.com"], &mail("domain", "x")).expect(250);
    let arrived = sink.wait_one();
    assert_eq!(arrived.recipients(), ["b@xn--bcher-kva.example"]);
    assert!(!arrived.from.contains("SMTPUTF8"), "{}", arrived.from);
}
