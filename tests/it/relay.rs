//! How next hops are spoken to: which of them is, what is said, and what their answers mean.

use crate::harness::{Setup, SmtpSink, mail};

/// Forwards to one address.
fn to(address: &str) -> String {
    format!("fn email(message, env, ctx) {{ message.forward(\"{address}\"); }}")
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
