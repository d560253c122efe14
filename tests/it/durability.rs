//! Killed at any moment and at each point of a message's way, it loses nothing for which 250 was read, and sends twice only
//! what RFC 1047 and a next hop's answer that wasn't stored leave in doubt.
//!
//! The senders are MTAs: what had no answer is sent again. `KILLS=240` is the long form.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::points::POINTS;
use crate::harness::sink::Mail;
use crate::harness::watched::Watched;
use crate::harness::{Client, Points, Server, Setup, SmtpSink, mail};

const SENDERS: u64 = 4;
/// Of so many kills in a row each point has one; the others come at whatever moment it is.
const ROUND: u64 = 10;
/// Messages of which the next hop has said 250 and whose settlement isn't stored, at one moment.
const IN_DOUBT: usize = 64;

fn kills() -> u64 {
    std::env::var("KILLS").map_or(20, |kills| kills.parse().expect("KILLS is a number"))
}

/// What the senders know of the server and of what it has answered for.
#[derive(Default)]
struct Load {
    /// Where it listens now; `None` while it is dead.
    address: Watched<Option<SocketAddr>>,
    /// Subjects for which 250 was read.
    accepted: Watched<Vec<String>>,
    /// How often a message was sent to its end and no answer read, by subject (RFC 1047).
    unanswered: Watched<BTreeMap<String, usize>>,
    next: AtomicU64,
    over: AtomicBool,
}

impl Load {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

/// Sends numbered messages until the load is over, each until its 250 is read.
fn send_on(load: &Load) {
    while !load.is_over() {
        let subject = format!("numbered-{}", load.next.fetch_add(1, Ordering::SeqCst));
        let mut client = None;
        while !load.is_over() && send_one(load, &mut client, &subject).is_none() {
            client = None;
        }
    }
}

fn greeted(load: &Load) -> Option<Client> {
    let nowhere = || load.is_over().then_some(([0; 4], 0).into());
    let address = load.address.wait(|address| address.or_else(nowhere))?;
    let mut client = Client::connect(address).ok()?;
    client.try_reply().ok().filter(|reply| reply.code == 220)?;
    client.try_raw(b"EHLO client.example.org\r\n").ok()?;
    client.offers = client.try_reply().ok()?.lines;
    Some(client)
}

/// On a connection that is there, or a new one.
fn send_one(load: &Load, connection: &mut Option<Client>, subject: &str) -> Option<()> {
    if connection.is_none() {
        *connection = greeted(load);
    }
    let client = connection.as_mut()?;
    for line in ["MAIL FROM:<ann@example.org>\r\n", "RCPT TO:<support@example.com>\r\n"] {
        client.try_raw(line.as_bytes()).ok()?;
        client.try_reply().ok().filter(|reply| reply.code == 250)?;
    }
    client.try_raw(b"DATA\r\n").ok()?;
    client.try_reply().ok().filter(|reply| reply.code == 354)?;
    // Part of it may arrive even where the rest can't be written any more.
    let sent = client.try_raw(&crate::harness::smtp::stuffed(&mail(subject, &"filler ".repeat(500))));
    let Some(reply) = sent.ok().and_then(|()| client.try_reply().ok()) else {
        load.unanswered.change(|unanswered| *unanswered.entry(subject.to_owned()).or_default() += 1);
        return None;
    };
    if reply.code == 250 {
        load.accepted.change(|accepted| accepted.push(subject.to_owned()));
    }
    (reply.code == 250).then_some(())
}

/// One kill after the other, and what each has left in doubt.
struct Killing {
    server: Server,
    sink: SmtpSink,
    points: Points,
    load: Arc<Load>,
    /// How often it was killed at each point.
    reached: BTreeMap<&'static str, u64>,
    /// How many times a message may come once more: its next hop had said 250, and after a kill it was queued still.
    in_doubt: BTreeMap<String, usize>,
}

impl Killing {
    fn kill(&mut self, number: u64) {
        let address = self.server.smtp();
        let before = self.load.accepted.lock().len();
        self.load.address.change(|place| *place = Some(address));
        // A different amount of work before each, so that it falls at ever other moments.
        let wanted = before + 5 + usize::try_from(number * 7 % 23).unwrap();
        let grown = self.load.accepted.wait(|accepted| (accepted.len() >= wanted).then_some(()));
        assert!(grown.is_some(), "no progress before kill {number}: {:#?}", self.server.log.all());
        let point = usize::try_from(number % ROUND).ok().and_then(|at| POINTS.get(at)).copied();
        if let Some(point) = point {
            self.points.arm(point, 1 + number * 5 % 13);
            let status = self.server.ended();
            assert_eq!(status.signal(), Some(9), "it ended by itself: {:#?}", self.server.log.all());
            assert_eq!(self.points.disarm().as_deref(), Some(point));
        } else {
            self.server.kill();
        }
        *self.reached.entry(point.unwrap_or("any")).or_default() += 1;
        self.load.address.change(|place| *place = None);
        self.look();
    }

    /// What the next hop has and the store doesn't know of.
    fn look(&mut self) {
        self.sink.idle();
        let taken: BTreeSet<String> = self.sink.each(id).into_iter().collect();
        let queued = self.server.json(&["queue", "list", "--limit", "10000"]);
        let queued = queued.iter().filter_map(|entry| entry["key"]["message"].as_str());
        let doubtful: BTreeSet<&str> = queued.filter(|id| taken.contains(*id)).collect();
        assert!(doubtful.len() <= IN_DOUBT, "{} in doubt after one kill", doubtful.len());
        for id in doubtful {
            *self.in_doubt.entry(id.to_owned()).or_default() += 1;
        }
    }

    /// How many came twice, where that may be.
    fn judge(&self) -> (usize, usize) {
        let accepted = self.load.accepted.lock().clone();
        let (mut subjects, mut copies) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
        for (id, subject, whole) in
            self.sink.each(|mail| (id(mail), subject(mail), mail.data.ends_with(b"filler \r\n")))
        {
            assert!(whole, "{subject} is cut");
            subjects.insert(subject);
            *copies.entry(id).or_default() += 1;
        }
        let lost: Vec<&String> = accepted.iter().filter(|subject| !subjects.contains(*subject)).collect();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), accepted.len());
        for (id, copies) in &copies {
            let doubts = self.in_doubt.get(id).copied().unwrap_or(0);
            assert!(*copies <= 1 + doubts, "{id} came {copies} times, and was in doubt after {doubts} kills");
        }
        // One message that was sent again without an answer may be two for us.
        let mut stored = BTreeMap::<String, usize>::new();
        for message in self.server.json(&["messages", "list", "--limit", "10000"]) {
            *stored.entry(message["subject"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let unanswered = self.load.unanswered.lock().clone();
        for (subject, stored) in &stored {
            let unanswered = unanswered.get(subject).copied().unwrap_or(0);
            assert!(*stored <= 1 + unanswered, "{subject} is there {stored} times, unanswered {unanswered} times");
        }
        (copies.values().map(|copies| copies - 1).sum(), stored.values().map(|stored| stored - 1).sum())
    }
}

/// As our trace field names it.
fn id(mail: &Mail) -> String {
    let text = String::from_utf8_lossy(&mail.data);
    let (_, behind) = text.split_once(" id ").expect("a trace field");
    behind.chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn subject(mail: &Mail) -> String {
    let text = String::from_utf8_lossy(&mail.data);
    text.lines().find_map(|line| line.strip_prefix("Subject: ")).expect("a subject").to_owned()
}

#[test]
fn kills_at_each_point_and_at_any_moment_lose_nothing() {
    let (sink, points) = (SmtpSink::start(), Points::new());
    sink.number();
    let kv = "[[kv_namespaces]]\nbinding = \"STATE\"\n[limits]\nconnections_per_ip = 100";
    let rules = "fn email(message, env, ctx) { env.STATE.put(message.subject, message.id); message.forward(\"team@example.net\"); }";
    let setup = Setup::relaying_to(&sink).toml(kv).rules(rules);
    let setup = points.environment().into_iter().fold(setup, |setup, (name, value)| setup.environment(name, value));
    let load = Arc::new(Load::default());
    let (reached, in_doubt) = (BTreeMap::new(), BTreeMap::new());
    let mut killing = Killing { server: setup.start(), sink, points, load: Arc::clone(&load), reached, in_doubt };
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let load = Arc::clone(&load);
            std::thread::spawn(move || send_on(&load))
        })
        .collect();

    for number in 0..kills() {
        killing.kill(number);
        killing.server.run();
    }
    let address = killing.server.smtp();
    load.over.store(true, Ordering::SeqCst);
    load.address.change(|place| *place = Some(address));
    for sender in senders {
        sender.join().unwrap();
    }
    killing.server.settled();
    let (sent_twice, stored_twice) = killing.judge();
    assert!(POINTS.iter().all(|point| killing.reached.contains_key(point)), "{:?}", killing.reached);
    // What the worker wrote was kept together with its message.
    let accepted = load.accepted.lock().clone();
    for subject in accepted.iter().step_by(17) {
        killing.server.stdout(&["kv", "get", "STATE", subject]);
    }
    assert!(killing.server.stop().success());
    let check = killing.server.cli(&["store", "check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&[check.stdout, check.stderr].concat()));
    let unanswered: usize = load.unanswered.lock().values().sum();
    let in_doubt: usize = killing.in_doubt.values().sum();
    eprintln!(
        "{} kills: {:?}\n{} accepted, none lost; {sent_twice} sent twice of {in_doubt} whose delivery was in doubt, \
         {stored_twice} taken twice of {unanswered} that had no answer",
        kills(),
        killing.reached,
        accepted.len()
    );
}
