//! Killed at any moment, it loses nothing for which 250 was read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::watched::Watched;
use crate::harness::{Client, Setup, SmtpSink, mail};

const KILLS: u64 = 20;
const SENDERS: u64 = 4;

/// What the senders know of the server and of what it has answered for.
#[derive(Default)]
struct Load {
    /// Where it listens now; `None` while it is dead.
    address: Watched<Option<SocketAddr>>,
    /// Subjects for which 250 was read.
    accepted: Watched<Vec<String>>,
    next: AtomicU64,
    over: AtomicBool,
}

/// Sends numbered messages until the load is over; whatever breaks, the next one goes to the server that is there then.
fn send_on(load: &Load) {
    while !load.over.load(Ordering::SeqCst) {
        let waited =
            load.address.wait(|address| address.or(load.over.load(Ordering::SeqCst).then_some(([0; 4], 0).into())));
        let Some(mut client) = waited.and_then(|address| Client::connect(address).ok()) else { continue };
        while send_one(load, &mut client).is_some() && !load.over.load(Ordering::SeqCst) {}
    }
}

fn send_one(load: &Load, client: &mut Client) -> Option<()> {
    let number = load.next.fetch_add(1, Ordering::SeqCst);
    let subject = format!("numbered-{number}");
    if client.offers.is_empty() {
        client.try_reply().ok().filter(|reply| reply.code == 220)?;
        client.try_raw(b"EHLO client.example.org\r\n").ok()?;
        client.offers = client.try_reply().ok()?.lines;
    }
    for line in ["MAIL FROM:<ann@example.org>\r\n", "RCPT TO:<support@example.com>\r\n"] {
        client.try_raw(line.as_bytes()).ok()?;
        client.try_reply().ok().filter(|reply| reply.code == 250)?;
    }
    client.try_raw(b"DATA\r\n").ok()?;
    client.try_reply().ok().filter(|reply| reply.code == 354)?;
    client.try_raw(&crate::harness::smtp::stuffed(&mail(&subject, &"filler ".repeat(500)))).ok()?;
    client.try_reply().ok().filter(|reply| reply.code == 250)?;
    load.accepted.change(|accepted| accepted.push(subject));
    Some(())
}

#[test]
fn twenty_kills_under_load_lose_nothing() {
    let sink = SmtpSink::start();
    let kv = "[[kv_namespaces]]\nbinding = \"STATE\"\n[limits]\nconnections_per_ip = 100";
    let rules = "fn email(message, env, ctx) { env.STATE.put(message.subject, message.id); message.forward(\"team@example.net\"); }";
    let mut server = Setup::relaying_to(&sink).toml(kv).rules(rules).start();
    let load = Arc::new(Load::default());
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let load = Arc::clone(&load);
            std::thread::spawn(move || send_on(&load))
        })
        .collect();

    for kill in 0..KILLS {
        let address = server.smtp();
        let before = load.accepted.lock().len();
        load.address.change(|place| *place = Some(address));
        // A different amount of work before each kill, so that it falls at ever other moments.
        let wanted = before + 5 + usize::try_from(kill * 7 % 23).unwrap();
        let grown = load.accepted.wait(|accepted| (accepted.len() >= wanted).then_some(()));
        assert!(grown.is_some(), "no progress before kill {kill}: {:#?}", server.log.all());
        server.kill();
        load.address.change(|place| *place = None);
        server.run();
    }
    load.over.store(true, Ordering::SeqCst);
    let address = server.smtp();
    load.address.change(|place| *place = Some(address));
    for sender in senders {
        sender.join().unwrap();
    }

    let accepted = load.accepted.lock().clone();
    server.settled();
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for mail in sink.mails() {
        let text = mail.text();
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject");
        *arrived.entry(subject.to_owned()).or_default() += 1;
        // What arrived is whole.
        assert!(text.ends_with("filler \r\n"), "{subject} is cut");
    }
    let lost: Vec<&String> = accepted.iter().filter(|subject| !arrived.contains_key(*subject)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), accepted.len());

    // A duplicate needs a kill between the next hop's 250 and the settlement: no more than were under way at kills.
    let twice = arrived.values().filter(|count| **count > 1).count();
    let under_way = usize::try_from(KILLS).unwrap() * 64;
    assert!(twice <= under_way, "{twice} duplicates");
    // What the worker wrote was kept together with its message.
    for subject in accepted.iter().step_by(17) {
        server.stdout(&["kv", "get", "STATE", subject]);
    }
    assert!(server.stop().success());
    let check = server.cli(&["store", "check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&[check.stdout, check.stderr].concat()));
    eprintln!("{} accepted, {} arrived, {twice} twice", accepted.len(), arrived.len());
}
