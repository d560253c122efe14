//! Limits hold, say so, and are given back.

use crate::harness::{Client, Setup, SmtpSink, mail};

#[test]
fn one_address_opens_so_many_connections_and_no_more() {
    let server = Setup::new().toml("[limits]\nconnections_per_ip = 3").start();
    let mut open: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let mut over = Client::connect(server.smtp()).unwrap();
    assert_eq!(over.reply().code, 421);
    assert!(over.closed());

    let mut gone = open.pop().unwrap();
    gone.command("QUIT").expect(221);
    assert!(gone.closed());
    drop(gone);
    server.wait_until("the place is free again", || {
        let mut client = Client::connect(server.smtp()).unwrap();
        (client.reply().code == 220).then_some(())
    });
}

#[test]
fn all_together_open_so_many_connections_and_no_more() {
    let server = Setup::new().toml("[limits]\nconnections = 2\nconnections_per_ip = 100").start();
    let _open: Vec<Client> = (0..2).map(|_| server.client()).collect();
    let mut over = Client::connect(server.smtp()).unwrap();
    over.reply().expect(421);
}

/// The budget of octets in memory is shared by all sessions: what is over it is put off, never killed for.
#[test]
fn mail_over_the_memory_budget_is_put_off() {
    let sink = SmtpSink::start();
    let limits = "[limits]\nin_flight = \"300 KiB\"\nmessage_size = \"250 KiB\"";
    let server = Setup::relaying_to(&sink).toml(limits).start();
    let line = [b"x".repeat(998), b"\r\n".to_vec()].concat();
    let half = [b"Subject: big\r\n\r\n".to_vec(), line.repeat(200)].concat();
    let mut holds = server.client();
    holds.envelope("ann@example.org", &["support@example.com"]);
    holds.command("DATA").expect(354);
    holds.raw(&half);
    server.wait_until("the first one's octets are held", || {
        (server.metric("mailworker_in_flight_bytes", &[]) >= 200_000.0).then_some(())
    });
    let mut second = server.client();
    second.envelope("ann@example.org", &["support@example.com"]);
    let put_off = second.data(&half);
    put_off.expect_status(452, "4.3.1");
    holds.raw(b".\r\n");
    holds.reply().expect(250);
    server.send("ann@example.org", &["support@example.com"], &half).expect(250);
    server.settled();
}

/// RFC 5321 §4.5.3.1.8: at least a hundred; the one too many is put off and the rest stands.
#[test]
fn a_hundred_recipients_are_taken_and_the_next_is_put_off() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).toml("[limits]\nrecipients = 100").start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    for n in 0..100 {
        client.command(&format!("RCPT TO:<r{n}@example.com>")).expect(250);
    }
    client.command("RCPT TO:<more@example.com>").expect_status(452, "4.5.3");
    client.data(&mail("hundred", "x")).expect(250);
    server.settled();
    let recipients: usize = sink.mails().iter().map(|mail| mail.to.len()).sum();
    assert!(recipients >= 1, "nothing arrived");
}

/// RFC 5321 §4.5.3.2.7: a client that says nothing is told so and let go.
#[test]
fn a_silent_client_is_let_go() {
    let server = Setup::new().toml("[session]\ncommand_timeout = \"1 s\"").start();
    let mut client = server.client();
    client.reply().expect_status(421, "4.4.2");
    assert!(client.closed());
}

#[test]
fn a_session_that_drips_does_not_hold_its_place_for_ever() {
    let server = Setup::new().toml("[session]\nmessage_timeout = \"1 s\"\ndata_timeout = \"10 s\"").start();
    let mut client = server.client();
    client.envelope("ann@example.org", &["support@example.com"]);
    client.command("DATA").expect(354);
    let mark = server.log.mark();
    while client.try_raw(b"x").is_ok() && server.log.mark() == mark {
        server.log.more(mark);
    }
    server.wait_event(mark, "dropped", |event| event["phase"] == "data");
    assert!(server.queue().is_empty());
}

/// A next hop that answers nobody holds up nobody else.
#[test]
fn a_dead_destination_holds_up_no_other() {
    let (dead, alive) = (SmtpSink::start(), SmtpSink::start());
    dead.hold();
    let destinations = format!(
        "[[destination]]\nname = \"dead\"\nsmarthost = \"{}\"\n[[destination]]\nname = \"alive\"\nsmarthost = \"{}\"",
        dead.url(),
        alive.url()
    );
    let rules = "fn email(message, env, ctx) { message.forward(message.to.local.to_string()); }";
    let server = Setup::new().toml(&destinations).rules(rules).start();
    let mut client = server.client();
    for n in 0..30 {
        client.send("ann@example.org", &["dead@example.com"], &mail(&format!("dead-{n}"), "x")).expect(250);
    }
    client.send("ann@example.org", &["alive@example.com"], &mail("alive", "x")).expect(250);
    alive.wait_one();
    dead.release();
    dead.wait(30);
}
