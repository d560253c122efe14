//! How next hops are spoken to: which of them is, what is said, and what their answers mean.

use crate::harness::{Setup, SmtpSink, mail};

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
