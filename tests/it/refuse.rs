//! What must not come in doesn't, and the session stays in step afterwards.

use crate::harness::{Setup, SmtpSink, contains, mail};

/// No relaying, in any disguise (RFC 5321 §3.6.1, §7.1).
#[test]
fn nothing_is_relayed_for_foreign_domains() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).toml("[limits]\nerrors = 1000").start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    for recipient in [
        "bob@example.net",
        "bob@sub.example.com",
        "bob@notexample.com",
        "bob%example.net@example.org",
        "example.com!bob@example.net",
        "\"bob@example.com\"@example.net",
        "bob%example.net@example.com",
        "example.net!bob@example.com",
        "\"bob@example.net\"@example.com",
        "@example.com:bob@example.net",
        "bob@[127.0.0.1]",
        "bob@[IPv6:::1]",
        "bob@127.0.0.1",
        "bob@example.com@example.net",
        "bob@example.com.example.net",
        "bob",
        "\"postmaster@example.net\"",
        "postmaster@example.net",
        "bob@example.com ",
        "bob@example.com\tx",
        "bob@exämple.com",
    ] {
        let reply = client.command(&format!("RCPT TO:<{recipient}>"));
        assert_eq!(reply.code / 100, 5, "{recipient}: {reply:?}");
    }
    client.command("DATA").expect(554);
    client.command("RSET").expect(250);
    assert!(sink.mails().is_empty());
    assert!(server.queue().is_empty());
}

/// Only CRLF `.` CRLF ends a message (RFC 5321 §4.1.1.4); what comes near it is refused as a whole, and the commands
/// that follow it in the message are text.
#[test]
fn a_smuggled_message_is_refused_as_a_whole() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\r\n.\r\r\n", "\r\n\0.\r\n", "\n\n.\r\n"]
    {
        let mut client = server.client();
        client.envelope("ann@example.org", &["support@example.com"]);
        client.command("DATA").expect(354);
        client.raw(format!("Subject: outer\r\n\r\nx{end}").as_bytes());
        client.raw(b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<support@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\ny\r\n.\r\n");
        client.reply().expect_status(550, "5.6.0");
        client.command("NOOP").expect(250);
        client.send("ann@example.org", &["support@example.com"], &mail(&format!("after {end:?}"), "x")).expect(250);
    }
    let arrived = sink.wait(9);
    server.settled();
    assert!(arrived.iter().all(|mail| !contains(&mail.data, b"smuggled")), "{arrived:#?}");
    assert_eq!(sink.mails().len(), 9);
}

/// RFC 1870 §6: refused at MAIL when it is announced, at its end when it isn't.
#[test]
fn a_message_over_the_limit_is_refused_and_the_session_goes_on() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).toml("[limits]\nmessage_size = \"64 KiB\"").start();
    let mut client = server.client();
    assert!(client.offers.iter().any(|offer| offer == "SIZE 65536"), "{:?}", client.offers);
    client.command("MAIL FROM:<ann@example.org> SIZE=65537").expect_status(552, "5.3.4");
    client.command("MAIL FROM:<ann@example.org> SIZE=65536").expect(250);
    client.command("RCPT TO:<support@example.com>").expect(250);
    let line = [b"x".repeat(998), b"\r\n".to_vec()].concat();
    client.data(&[b"Subject: big\r\n\r\n".to_vec(), line.repeat(300)].concat()).expect_status(552, "5.3.4");
    client.send("ann@example.org", &["support@example.com"], &mail("small", "x")).expect(250);
    sink.wait_one();
}

/// RFC 5321 §6.3
#[test]
fn a_message_that_loops_is_refused() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let hops = "Received: from a by b; Mon, 23 Nov 2026 09:15:02 +0000\r\n";
    let looping = [hops.repeat(101).as_bytes(), &mail("hops", "x")[..]].concat();
    server.send("ann@example.org", &["support@example.com"], &looping).expect_status(554, "5.4.6");
    let delivered = [b"Delivered-To: support@example.com\r\n", &mail("own", "x")[..]].concat();
    server.send("ann@example.org", &["support@example.com"], &delivered).expect_status(554, "5.4.6");
    let many = [hops.repeat(30).as_bytes(), &mail("some-hops", "x")[..]].concat();
    server.send("ann@example.org", &["support@example.com"], &many).expect(250);
    sink.wait_one().prepended_to(&many);
}

#[test]
fn commands_out_of_order_leave_the_session_in_step() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut client = server.client();
    client.command("RCPT TO:<support@example.com>").expect(503);
    client.command("DATA").expect(503);
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    client.command("MAIL FROM:<ann@example.org>").expect(503);
    client.command("RSET").expect(250);
    client.command("MAIL FROM:<ann@example.org> UNKNOWN=1").expect(555);
    client.command("NONSENSE").expect(500);
    client.command("VRFY support").expect(252);
    client.command("EXPN support").expect(502);
    client.command("RSET").expect(250);
    client.send("ann@example.org", &["support@example.com"], &mail("in-step", "x")).expect(250);
    sink.wait_one();
}

#[test]
fn too_many_errors_end_the_session() {
    let server = Setup::new().toml("[limits]\nerrors = 5").start();
    let mut client = server.client();
    let codes: Vec<u16> = (0..6).map(|_| client.command("NONSENSE").code).collect();
    assert_eq!(codes.last(), Some(&421), "{codes:?}");
    assert!(client.closed());
}

/// A hostile shape of MIME is handled in bounded time, and whole.
#[test]
fn deep_nesting_and_many_parts_are_survived() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) {\n\
                 let text = message.text; let many = message.attachments.len();\n\
                 message.forward(\"team@example.net\"); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mut deep = b"Subject: deep\r\nMIME-Version: 1.0\r\n".to_vec();
    for level in 0..1000 {
        let part = format!("Content-Type: multipart/mixed; boundary=\"b{level}\"\r\n\r\n--b{level}\r\n");
        deep.extend_from_slice(part.as_bytes());
    }
    let mut wide = b"Subject: wide\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    for _ in 0..9_000 {
        wide.extend_from_slice(b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n");
    }
    let headers = [b"Subject: long\r\n".to_vec(), b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(25_000)].concat();
    for message in [deep, wide, headers] {
        let reply = server.send("ann@example.org", &["support@example.com"], &message);
        assert!([250, 451, 550, 552, 554].contains(&reply.code), "{reply:?}");
    }
    server.send("ann@example.org", &["support@example.com"], &mail("alive", "x")).expect(250);
    sink.wait(1);
}
