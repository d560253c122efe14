//! It stops well: what is under way is finished, what isn't begins nowhere, and nothing is lost.

use crate::harness::{Client, Setup, SmtpSink, mail};

#[test]
fn sigterm_ends_an_idle_server_at_once() {
    let mut server = Setup::new().start();
    assert!(server.stop().success());
}

#[test]
fn sigterm_lets_a_message_under_way_be_finished() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).start();
    let address = server.smtp();
    let mut client = server.client();
    client.envelope("ann@example.org", &["support@example.com"]);
    client.command("DATA").expect(354);
    let mark = server.log.mark();
    server.terminate();
    server.wait_event(mark, "stopping", |_| true);
    server.wait_until("no new connection is taken", || match Client::connect(address) {
        Err(_) => Some(()),
        Ok(mut client) => client.try_reply().map_or(true, |reply| reply.code == 421).then_some(()),
    });
    client.raw(&crate::harness::smtp::stuffed(&mail("last", "x")));
    client.reply().expect(250);
    drop(client);
    assert!(server.ended().success());

    server.run();
    sink.wait(1);
    server.settled();
    assert_eq!(sink.mails().len(), 1, "delivered once, before the end or after");
}

#[test]
fn sigterm_lets_an_attempt_be_settled() {
    let sink = SmtpSink::start();
    sink.hold();
    let mut server = Setup::relaying_to(&sink).start();
    server.send("ann@example.org", &["support@example.com"], &mail("held", "x")).expect(250);
    sink.wait_command(".");
    let mark = server.log.mark();
    server.terminate();
    server.wait_event(mark, "stopping", |_| true);
    sink.release();
    assert!(server.ended().success());
    assert_eq!(sink.mails().len(), 1);
    server.run();
    assert!(server.queue().is_empty(), "{:?}", server.queue());
    assert_eq!(sink.mails().len(), 1);
}

#[test]
fn what_is_queued_goes_on_after_a_restart() {
    let sink = SmtpSink::start();
    sink.always("MAIL", "450 4.7.1 not now");
    let mut server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("waits", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    assert!(server.stop().success());
    sink.as_usual();
    server.run();
    sink.wait_one();
}
