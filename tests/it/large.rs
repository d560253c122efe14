//! Messages too large to lie in memory: they go to the disk as they come, and what is given up leaves nothing there.

use std::fs;

use crate::harness::{Server, Setup, SmtpSink, smtp};

/// About so many octets, with dots at lines' starts wherever a block may end.
fn large(octets: usize) -> Vec<u8> {
    let mut message = format!("Subject: large {octets}\r\nX-Odd: folded\r\n\tvalue\r\n\r\n").into_bytes();
    let mut n = 0_usize;
    while message.len() < octets {
        let line = match n % 4 {
            0 => "..\r\n".to_owned(),
            1 => format!(".{n:x}\r\n"),
            2 => ".\r\n".to_owned(),
            _ => format!("{n:08x}{}\r\n", "x".repeat(n % 61)),
        };
        message.extend_from_slice(line.as_bytes());
        n += 1;
    }
    message
}

/// The same as DATA carries it, without the end.
fn endless(octets: usize) -> Vec<u8> {
    let mut message = smtp::stuffed(&large(octets));
    message.truncate(message.len() - 3);
    message
}

/// The files of the spool that end so.
fn files(server: &Server, extension: &str) -> usize {
    let entries = fs::read_dir(server.path().join("data/spool")).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|found| found == extension)).count()
}

#[test]
fn a_large_message_goes_on_octet_for_octet_warm_and_after_a_restart() {
    let sink = SmtpSink::start();
    sink.always("MAIL", "451 4.3.0 later");
    let mut server = Setup::relaying_to(&sink).start();
    let (first, second) = (large(3 << 20), large((1 << 20) + 7));
    let mut client = server.client();
    client.send("ann@example.org", &["support@example.com"], &first).expect(250);
    client.envelope("ann@example.org", &["support@example.com"]);
    for chunk in second.chunks(300_001) {
        client.raw(format!("BDAT {}\r\n", chunk.len()).as_bytes());
        client.raw(chunk);
        client.reply().expect(250);
    }
    client.command("BDAT 0 LAST").expect(250);
    assert_eq!((files(&server, "seg"), files(&server, "part")), (2, 0), "each lies in a segment of its own");
    sink.wait_command("MAIL");
    server.kill();
    sink.as_usual();
    server.run();
    let mut mails = sink.wait(2);
    mails.sort_by_key(|mail| mail.data.len());
    mails[0].prepended_to(&second);
    mails[1].prepended_to(&first);
    let third = large(2 << 20);
    server.send("ann@example.org", &["support@example.com"], &third).expect(250);
    sink.wait(3)[2].prepended_to(&third);
    let check = server.stdout(&["store", "check"]);
    assert!(check.contains("nothing is wrong"), "{check}");
}

#[test]
fn what_is_given_up_half_way_leaves_nothing_on_the_disk() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).toml("[limits]\nmessage_size = \"2 MiB\"").start();
    let (message, none) = (large(1 << 20), || (files(&server, "part") == 0).then_some(()));
    let mut client = server.client();
    let chunk = |client: &mut crate::harness::Client| {
        client.envelope("ann@example.org", &["support@example.com"]);
        client.raw(format!("BDAT {}\r\n", message.len()).as_bytes());
        client.raw(&message);
        client.reply().expect(250);
        server.wait_until("a part", || (files(&server, "part") == 1).then_some(()));
    };
    chunk(&mut client);
    client.command("RSET").expect(250);
    server.wait_until("nothing of it after RSET", none);

    // A shorter message after one that was given up is itself alone.
    chunk(&mut client);
    client.raw(
        b"RSET\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<support@example.com>\r\nBDAT 15 LAST\r\nSubject: me\r\n\r\n",
    );
    for code in [250, 250, 250, 250] {
        client.reply().expect(code);
    }
    sink.wait_one().prepended_to(b"Subject: me\r\n\r\n");
    server.wait_until("nothing of it after another", none);

    // Too large, when much of it was there.
    client.envelope("ann@example.org", &["support@example.com"]);
    client.data(&large(3 << 20)).expect_status(552, "5.3.4");
    server.wait_until("nothing of it after 552", none);

    // A bare LF, when much of it was there: refused at the true end.
    client.envelope("ann@example.org", &["support@example.com"]);
    client.command("DATA").expect(354);
    client.raw(&[&endless(1 << 20)[..], b"bare\n.\r\n"].concat());
    client.raw(&smtp::stuffed(&message));
    client.reply().expect_status(550, "5.6.0");
    server.wait_until("nothing of it after 550", none);

    chunk(&mut client);
    drop(client);
    server.wait_until("nothing of it when the client has gone", none);
    assert_eq!(sink.mails().len(), 1);
}

#[test]
fn a_kill_in_mid_message_leaves_nothing_after_the_next_start() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).start();
    let mut client = server.client();
    client.envelope("ann@example.org", &["support@example.com"]);
    client.command("DATA").expect(354);
    client.raw(&endless(1 << 20));
    server.wait_until("a part", || (files(&server, "part") == 1).then_some(()));
    server.kill();
    assert_eq!(files(&server, "part"), 1);
    server.run();
    assert_eq!((files(&server, "part"), files(&server, "seg")), (0, 0));
    server.send("ann@example.org", &["support@example.com"], &large(1 << 20)).expect(250);
    sink.wait_one().prepended_to(&large(1 << 20));
}

/// A worker sees all of it; what it rejects is kept for a later look, what it puts off isn't.
#[test]
fn a_worker_decides_a_large_message_as_any_other() {
    let sink = SmtpSink::start();
    let rules = r#"
fn email(message, env, ctx) {
    if message.raw_size < 1000000 || message.raw.len() != message.raw_size { throw "not all of it"; }
    switch message.to.local {
        "rejected" => message.set_reject("no"),
        "later"    => message.defer("later"),
        _          => message.forward("team@example.net"),
    }
}"#;
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let message = large(1 << 20);
    let mut client = server.client();
    client.send("ann@example.org", &["later@example.com"], &message).expect(451);
    server.wait_until("nothing of what comes again", || {
        (files(&server, "part") + files(&server, "seg") == 0).then_some(())
    });
    assert_eq!(client.send("ann@example.org", &["rejected@example.com"], &message).code / 100, 5);
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.cli(&["messages", "raw", &id]).stdout, message);
    client.send("ann@example.org", &["support@example.com"], &message).expect(250);
    sink.wait_one().prepended_to(&message);
    assert_eq!(files(&server, "seg"), 2);
}
