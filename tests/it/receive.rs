//! What comes in goes on octet for octet, however it was sent.

use crate::harness::{Client, Server, Setup, SmtpSink, contains, mail, smtp};

#[test]
fn a_message_goes_on_octet_for_octet_with_received_before_it() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let message = mail("whole", "Hello.");
    let reply = server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    assert!(reply.text().starts_with("2."), "{reply:?}");

    let arrived = sink.wait_one();
    assert_eq!(arrived.recipients(), ["team@example.net"]);
    let head = String::from_utf8(arrived.prepended_to(&message).to_vec()).unwrap();
    assert!(head.contains("Received: from client.example.org"), "{head}");
    assert!(head.contains("by mx.example.com"), "{head}");
    assert!(head.contains("with ESMTP id "), "{head}");
    assert!(head.contains("for <support@example.com>"), "{head}");
    assert!(head.ends_with("\r\n"), "{head}");
}

/// RFC 5321 §4.5.2, RFC 6152: 8-bit octets, long lines, trailing blanks, dots and odd header fields stay as they are.
#[test]
fn odd_octets_stay_as_they_are() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut message = b"Subject: =?utf-8?q?caf=C3=A9?= \t\r\nX-Odd:\r\n\tfolded  \r\nX-Latin: caf\xe9\r\n\r\n".to_vec();
    message.extend_from_slice(b".\r\n..\r\n.leading dot\r\ntrailing blanks  \t\r\n\r\n\x80\xfe\xff\x01\x7f\r\n");
    message.extend_from_slice(&b"x".repeat(20_000));
    message.extend_from_slice(b"\r\nthe end\r\n");

    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org> BODY=8BITMIME").expect(250);
    client.command("RCPT TO:<support@example.com>").expect(250);
    client.data(&message).expect(250);
    let arrived = sink.wait_one();
    arrived.prepended_to(&message);
    assert!(arrived.from.contains("BODY=8BITMIME"), "{}", arrived.from);
}

#[test]
fn a_message_without_header_or_body_is_a_message() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    server.send("ann@example.org", &["support@example.com"], b"").expect(250);
    sink.wait_one().prepended_to(b"");
}

/// RFC 2920 §3.2: several transactions in one packet, answered in order.
#[test]
fn whole_transactions_in_one_packet_are_answered_in_order() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut client = server.client();
    assert!(client.offers.iter().any(|offer| offer == "PIPELINING"), "{:?}", client.offers);
    let mut packet = Vec::new();
    for subject in ["one", "two", "three"] {
        packet.extend_from_slice(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n");
        packet.extend_from_slice(&smtp::stuffed(&mail(subject, ".")));
    }
    packet.extend_from_slice(b"QUIT\r\n");
    client.raw(&packet);
    for _ in 0..3 {
        for code in [250, 250, 354, 250] {
            client.reply().expect(code);
        }
    }
    client.reply().expect(221);
    let mut subjects: Vec<String> = sink.wait(3).iter().map(subject).collect();
    subjects.sort();
    assert_eq!(subjects, ["one", "three", "two"]);
}

fn subject(mail: &crate::harness::sink::Mail) -> String {
    let text = mail.text();
    text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default().to_owned()
}

/// RFC 3030 §2: chunks of any size, an empty last one, and octets that DATA could not carry without stuffing.
#[test]
fn chunks_make_one_message() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut client = server.client();
    assert!(client.offers.iter().any(|offer| offer == "CHUNKING"), "{:?}", client.offers);
    let message = mail("chunked", ".\r\n.\r\nthree dots ...");
    client.envelope("ann@example.org", &["support@example.com"]);
    for chunk in message.chunks(37) {
        client.raw(format!("BDAT {}\r\n", chunk.len()).as_bytes());
        client.raw(chunk);
        client.reply().expect(250);
    }
    client.command("BDAT 0 LAST").expect(250);
    sink.wait_one().prepended_to(&message);
}

/// RFC 3030 §4.2: what a refused BDAT announces is read over all the same.
#[test]
fn the_octets_of_a_refused_chunk_are_no_commands() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut client = server.client();
    client.raw(b"BDAT 12 LAST\r\nQUIT\r\nQUIT\r\nNOOP\r\n");
    client.reply().expect(503);
    client.reply().expect(250);
    client.send("ann@example.org", &["support@example.com"], &mail("after", "x")).expect(250);
    sink.wait_one();
}

#[test]
fn a_message_split_at_every_octet_is_the_same_message() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut client = server.client();
    let message = b"Subject: drops\r\n\r\n..\r\n.\r\nend\r\n";
    client.envelope("ann@example.org", &["support@example.com"]);
    client.command("DATA").expect(354);
    for octet in smtp::stuffed(message) {
        client.raw(&[octet]);
    }
    client.reply().expect(250);
    sink.wait_one().prepended_to(message);
}

#[test]
fn the_null_sender_is_a_sender() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    server.send("", &["support@example.com"], &mail("bounce", "x")).expect(250);
    assert!(sink.wait_one().from.starts_with("<>"), "{:?}", sink.commands());
}

/// RFC 5321 §4.5.1: whatever the worker says of others, and without a domain too.
#[test]
fn postmaster_always_gets_through() {
    let sink = SmtpSink::start();
    let refuse_all = "fn rcpt_to(session, rcpt, env) { session.reject(\"nobody here\"); }\n\
                      fn email(message, env, ctx) { message.set_reject(\"no\"); }";
    let server = Setup::relaying_to(&sink).rules(refuse_all).start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    assert_eq!(client.command("RCPT TO:<support@example.com>").code / 100, 5);
    client.command("RCPT TO:<postmaster>").expect(250);
    client.command("RCPT TO:<PostMaster@EXAMPLE.com>").expect(250);
    client.command("RCPT TO:<\"post\\master\"@example.com>").expect(250);
    client.data(&mail("to-postmaster", "x")).expect(250);
    let mails = sink.wait(1);
    assert!(mails.iter().all(|mail| mail.recipients().iter().all(|to| *to == "admin@example.net")), "{mails:?}");
}

#[test]
fn several_recipients_each_get_their_run() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { message.forward(message.to.local + \"@example.net\"); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let to = ["one@example.com", "two@example.com", "three@EXAMPLE.COM"];
    server.send("ann@example.org", &to, &mail("to-three", "x")).expect(250);
    server.settled();
    let mails = sink.mails();
    let mut recipients: Vec<&str> = mails.iter().flat_map(|mail| mail.recipients()).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, ["one@example.net", "three@example.net", "two@example.net"]);
    // With several recipients, none is named in Received (RFC 5321 §7.2).
    assert!(mails.iter().all(|mail| !mail.text().contains("for <")), "{mails:?}");
}

const UNLIKE: &str = r#"
fn email(message, env, ctx) {
    switch message.to.local.to_string() {
        "refused" => message.set_reject(550, "5.7.1", "not for you"),
        "gone"    => message.set_reject(551, "5.1.6", "moved away"),
        "later"   => message.defer("come again"),
        "broken"  => throw "broken",
        _         => message.forward("team@example.net"),
    }
}
"#;

#[test]
fn when_all_refuse_the_first_refusal_is_the_answer() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(UNLIKE).start();
    let to = ["gone@example.com", "refused@example.com"];
    let reply = server.send("ann@example.org", &to, &mail("all-refused", "x"));
    reply.expect_status(551, "5.1.6");
    assert!(sink.mails().is_empty());
}

#[test]
fn when_all_defer_or_fail_the_answer_is_451() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(UNLIKE).start();
    let message = mail("all-later", "x");
    server.send("ann@example.org", &["later@example.com", "broken@example.com"], &message).expect(451);
    assert_eq!((&server.newest()["outcome"], &server.newest()["size"]), (&"deferred".into(), &message.len().into()));
    assert!(sink.mails().is_empty());
    assert!(server.queue().is_empty());
}

#[test]
fn when_some_accept_the_answer_is_250_and_the_failed_are_ours() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).rules(UNLIKE).start();
    let to = ["good@example.com", "broken@example.com", "refused@example.com"];
    server.send("ann@example.org", &to, &mail("mixed", "x")).expect(250);
    sink.wait_one();
    server.wait_until("the broken run alone is queued", || {
        let kinds: Vec<String> =
            server.queue().iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect();
        (kinds == ["decide"]).then_some(())
    });
    server.leaves_queue();
}

/// One answer for each recipient where the client asks for it.
#[test]
fn prdr_answers_for_each_recipient() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(UNLIKE).start();
    let mut client = server.client();
    assert!(client.offers.iter().any(|offer| offer == "PRDR"), "{:?}", client.offers);
    client.command("MAIL FROM:<ann@example.org> PRDR").expect(250);
    for local in ["good", "refused", "later"] {
        client.command(&format!("RCPT TO:<{local}@example.com>")).expect(250);
    }
    client.data(&mail("prdr", "x")).expect(353);
    client.reply().expect(250);
    client.reply().expect(550);
    assert_eq!(client.reply().code / 100, 4);
    client.reply().expect(250);
    sink.wait_one();
    client.command("NOOP").expect(250);
}

/// RFC 6531: the addresses stay UTF-8 on the way to a next hop that has SMTPUTF8.
#[test]
fn addresses_in_utf8_go_on_as_they_are() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { message.forward(\"grüße@example.net\"); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mut client = server.client();
    client.command("MAIL FROM:<jürgen@example.org> SMTPUTF8").expect(250);
    client.command("RCPT TO:<empfänger@example.com>").expect(250);
    let message = "Subject: grüße\r\n\r\nüber\r\n".as_bytes();
    client.data(message).expect(250);
    let arrived = sink.wait_one();
    arrived.prepended_to(message);
    assert!(arrived.from.starts_with("<jürgen@example.org>") && arrived.from.contains("SMTPUTF8"), "{}", arrived.from);
    assert_eq!(arrived.recipients(), ["grüße@example.net"]);
    assert!(contains(&arrived.data, b"with UTF8SMTP id"), "{}", arrived.text());
}

#[test]
fn a_client_that_goes_in_the_middle_has_sent_nothing() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut client = server.client();
    client.envelope("ann@example.org", &["support@example.com"]);
    client.command("DATA").expect(354);
    client.raw(b"Subject: half\r\n\r\nhal");
    let mark = server.log.mark();
    drop(client);
    server.wait_event(mark, "dropped", |event| event["phase"] == "data");
    server.send("ann@example.org", &["support@example.com"], &mail("whole", "x")).expect(250);
    server.settled();
    sink.wait_one();
}

/// Two listeners, each with its own port; the address it took is told.
#[test]
fn several_listeners_take_mail() {
    let sink = SmtpSink::start();
    let two = "[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"off\"";
    let server = Setup::relaying_to(&sink).toml(two).start();
    assert_eq!(server.listeners.len(), 2);
    for (address, subject) in server.listeners.iter().zip(["first", "second"]) {
        Client::greeted(*address).send("ann@example.org", &["support@example.com"], &mail(subject, "x")).expect(250);
    }
    sink.wait(2);
}

/// RCPT said several times for one mailbox, however it is written: as many answers, one copy (RFC 5321 §4.1.2).
#[test]
fn a_recipient_that_is_named_twice_gets_one_copy() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let often = ["support@example.com", "support@example.com", "SUPPORT@EXAMPLE.com", "\"sup\\port\"@example.com"];
    server.send("ann@example.org", &often, &mail("once", "x")).expect(250);
    server.settled();
    assert_eq!(sink.wait_one().recipients().len(), 1);
}

const TRANSACTION: &[u8] = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<support@example.com>\r\nDATA\r\n";

/// Waits until no session is left: what it leaves unread is known then.
fn nobody_is_connected(server: &Server) {
    server
        .wait_until("the session has ended", || (server.metric("mailworker_sessions_open", &[]) == 0.0).then_some(()));
}

/// RFC 1047: the answer was lost with the connection, and the client comes again.
#[test]
fn a_message_whose_answer_was_lost_is_not_taken_twice() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let message = mail("resent", "x");
    let send =
        |client: &mut Client| client.send("ann@example.org", &["support@example.com"], &message).expect(250).text();
    assert!(!send(&mut server.client()).contains("already"), "the connection goes with it");
    nobody_is_connected(&server);
    let mut client = server.client();
    assert!(send(&mut client).contains("Received already"));
    // It goes on speaking, so it has read that: the same once more is meant.
    client.command("NOOP").expect(250);
    assert!(!send(&mut client).contains("already"));
    server.settled();
    assert_eq!(sink.mails().len(), 2);
}

/// Who comes again writes a domain as it likes; a local part in another case may be somebody else's.
#[test]
fn a_resend_is_known_by_its_domains_however_they_are_written() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let message = mail("resent", "x");
    let again = |from: &str, to: &str| {
        let told = server.client().send(from, &[to], &message).expect(250).text();
        nobody_is_connected(&server);
        told.contains("Received already")
    };
    assert!(!again("Ann@Example.ORG", "Support@EXAMPLE.com"));
    assert!(again("Ann@example.org", "Support@example.com"));
    assert!(again("Ann@EXAMPLE.org", "Support@example.COM"));
    assert!(!again("Ann@example.org", "support@example.com"), "another mailbox, as far as anybody knows");
    assert!(!again("ann@example.org", "Support@example.com"));
    server.settled();
    assert_eq!(sink.mails().len(), 3);
}

/// Equal messages are as many as there are: in one packet, and on connections that live beside each other.
#[test]
fn equal_messages_of_clients_that_live_are_all_taken() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let message = mail("alarm", "The door is open.");
    let (mut one, mut two) = (server.client(), server.client());
    let transaction = [TRANSACTION, &smtp::stuffed(&message)].concat();
    one.raw(&transaction.repeat(3));
    for _ in 0..3 {
        for code in [250, 250, 354, 250] {
            assert!(!one.reply().expect(code).text().contains("already"));
        }
    }
    let beside = two.send("ann@example.org", &["support@example.com"], &message).expect(250);
    assert!(!beside.text().contains("already"), "{beside:?}");
    // What one of them hasn't read when it goes is known once, not three times.
    drop(one);
    two.command("QUIT").expect(221);
    nobody_is_connected(&server);
    let again = [(); 2].map(|()| server.send("ann@example.org", &["support@example.com"], &message).expect(250));
    assert_eq!(again.map(|reply| reply.text().contains("already")), [true, false]);
    server.settled();
    assert_eq!(sink.mails().len(), 5);
}

/// RFC 1047 §2: whoever comes again while the first copy is being decided is asked to wait.
#[test]
fn a_message_that_is_still_being_decided_is_not_taken_twice() {
    let sink = SmtpSink::start();
    let slow = "fn email(message, env, ctx) {\n\
                    for n in 0..150000 { if n < 0 { return; } }\n\
                    message.forward(\"team@example.net\");\n\
                }";
    let server = Setup::relaying_to(&sink).rules(slow).start();
    let message = mail("slow", "x");
    let mark = server.log.mark();
    let mut impatient = server.client();
    impatient.envelope("ann@example.org", &["support@example.com"]);
    impatient.command("DATA").expect(354);
    impatient.raw(&smtp::stuffed(&message));
    drop(impatient);
    server.wait_until("it is being decided", || (server.metric("mailworker_in_flight_bytes", &[]) > 0.0).then_some(()));
    let reply = server.send("ann@example.org", &["support@example.com"], &message);
    reply.expect_status(451, "4.3.0");
    server.wait_event(mark, "accepted", |_| true);
    nobody_is_connected(&server);
    let reply = server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    assert!(reply.text().contains("Received already"), "{reply:?}");
    server.settled();
    sink.wait_one();
}

/// A clean stop knows what was read; after a kill the last moments are in doubt.
#[test]
fn what_was_read_before_a_stop_is_not_taken_for_a_resend() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).start();
    let (read, unread) = (mail("read", "x"), mail("unread", "x"));
    let send = |server: &Server, message: &[u8]| {
        server.send("ann@example.org", &["support@example.com"], message).expect(250).text().contains("already")
    };
    assert!(!send(&server, &read));
    server.client().send("ann@example.org", &["support@example.com"], &unread).expect(250);
    server.settled();
    assert!(server.stop().success());
    server.run();
    assert!(!send(&server, &read));
    assert!(send(&server, &unread));
    let last = mail("last", "x");
    server.client().send("ann@example.org", &["support@example.com"], &last).expect(250);
    server.settled();
    server.kill();
    server.run();
    assert!(send(&server, &last));
    assert!(!send(&server, &unread));
    server.settled();
    assert_eq!(sink.mails().len(), 5);
}
