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
    // Whoever sends it mail looks there, and mustn't find it ready while it sends everybody away.
    let (status, reasons) = server.get("/readyz");
    assert_eq!(status, 503, "{reasons}");
    assert!(reasons.contains("stopping"), "{reasons}");
    assert_eq!(server.get("/healthz").0, 200);
    client.raw(&crate::harness::smtp::stuffed(&mail("last", "x")));
    client.reply().expect(250);
    drop(client);
    assert!(server.ended().success());

    server.run();
    sink.wait(1);
    server.settled();
    assert_eq!(sink.mails().len(), 1, "delivered once, before the end or after");
}

/// `sd_notify(3)`, over a socket as systemd has it.
#[test]
fn systemd_is_told_of_start_reload_and_stop() {
    let setup = Setup::new();
    let path = setup.dir.path().join("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    let told = || {
        let mut octets = [0; 512];
        let length = socket.recv(&mut octets).unwrap();
        String::from_utf8_lossy(&octets[..length]).into_owned()
    };
    let mut server = setup.environment("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    assert_eq!(told().trim(), "READY=1");
    server.signal("HUP");
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\n") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert_eq!(told().trim(), "READY=1");
    server.terminate();
    assert_eq!(told().trim(), "STOPPING=1");
    assert!(server.ended().success());
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
