//! What must be true when all has come to its end: each promise was kept, nothing was done twice that needn't be, nothing
//! is left.

mod course;

use std::collections::{BTreeMap, BTreeSet};

use mailworker::kv;
use mailworker::mail::MessageId;
use mailworker::store::{MessageDetail, MessageFilter, MessageOutcome, Store, WARM_BYTES};

use crate::ledger::{Heard, Ledger, Promise, Sent, Take};
use crate::mail::{Expect, Mail};
use crate::plan::{Plan, QUICK};
use crate::server::Server;
use crate::world::{BEGINNING, World};
use course::{Course, courses};

/// What was promised so shortly before the last of all messages may not have been read, as far as a process knows that
/// begins after a sudden death.
const LAST_MOMENTS: u64 = 30_000;
/// What may lie between a message's arrival, which its id tells, and the look whether it is a resend.
const UNDER_WAY: u64 = 100;

/// What the store has of a message.
fn octets(server: &Server, id: MessageId) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    server.store.reader().body(id).ok()?.raw.write_to(&mut octets).ok()?;
    Some(octets)
}

pub async fn judge(world: &World, server: Server) -> Vec<String> {
    let mut found = Vec::new();
    at_rest(&server, &mut found);
    let rows = rows(&server.store);
    let counted = server.store.kv().get("COUNTS", "all", mailworker::clock::now()).unwrap();
    let bodies: BTreeMap<MessageId, Vec<u8>> =
        rows.iter().filter_map(|row| Some((row.summary.id, octets(&server, row.summary.id)?))).collect();
    server.stop(world).await;
    let report = Store::check(&world.data_dir()).unwrap();
    found.extend(report.findings.iter().map(|finding| format!("the store is damaged: {finding:?}")));

    let ledger = world.ledger();
    found.extend(ledger.violations.iter().cloned());
    let judge = Judge { plan: &world.plan, ledger: &ledger, rows: &rows, bodies: &bodies };
    judge.promises(&mut found);
    judge.resends(&mut found);
    let mut count = 0;
    for row in &rows {
        let courses = courses(row);
        for course in &courses {
            course.judge(row, &ledger, &world.plan, &mut found);
        }
        match judge.mail_of(row) {
            Some(mail) if row.summary.outcome.promised() => {
                count += mail.expects.iter().filter(|expect| **expect == Expect::Counted).count();
                judge.row(row, mail, &courses, &mut found);
            }
            None if row.summary.outcome == MessageOutcome::Authored => judge.notice(row, &courses, &mut found),
            _ => {}
        }
    }
    let counted = counted.map(|entry| entry.value);
    let expected = (count > 0).then(|| kv::Value::Json(count.into()));
    if counted != expected {
        found.push(format!("{count} were counted, and the store says {counted:?}"));
    }
    found
}

/// Nothing is under way, held or reserved.
fn at_rest(server: &Server, found: &mut Vec<String>) {
    let levels = [
        ("octets of mail coming in", usize::try_from(server.budget.used()).unwrap()),
        ("sessions", server.listeners.open()),
        ("attempts", server.dispatcher.attempts_open()()),
        ("workers' runs", server.answering.intake.runs_open()()),
        ("reads", server.store.reads_open()()),
        ("units that wait for the writer", server.store.waiting()()),
        ("octets kept warm", WARM_BYTES - server.store.warm_room()),
    ];
    let left = levels.into_iter().filter(|(_, level)| *level > 0);
    found.extend(left.map(|(what, level)| format!("{level} {what} are left when all is over")));
}

fn rows(store: &Store) -> Vec<MessageDetail> {
    let (reader, mut rows, mut before) = (store.reader(), Vec::new(), None);
    loop {
        let page = reader.messages(&MessageFilter { before, limit: Some(200), ..MessageFilter::default() }).unwrap();
        let Some(last) = page.last() else { return rows };
        before = Some(last.id);
        rows.extend(page.iter().map(|summary| reader.message(summary.id).unwrap()));
    }
}

struct Judge<'a> {
    plan: &'a Plan,
    ledger: &'a Ledger,
    rows: &'a [MessageDetail],
    bodies: &'a BTreeMap<MessageId, Vec<u8>>,
}

fn moment(id: MessageId) -> u64 {
    u64::try_from(id.timestamp().since(BEGINNING).as_millis()).unwrap()
}

impl Judge<'_> {
    /// What it is one of.
    fn mail_of(&self, row: &MessageDetail) -> Option<&Mail> {
        let group = row.summary.subject.as_deref()?.strip_prefix('g')?.parse::<usize>().ok()?;
        self.plan.mails.iter().find(|mail| mail.group == group)
    }

    /// Each 250 that was read stands for one message in the store, as it was sent.
    fn promises(&self, found: &mut Vec<String>) {
        let mut promised: BTreeMap<MessageId, Vec<(&Mail, &Promise)>> = BTreeMap::new();
        for (mail, sent) in self.plan.mails.iter().zip(&self.ledger.mails) {
            if let Sent::Promised(promise) = sent {
                promised.entry(promise.id).or_default().push((mail, promise));
            }
        }
        for (id, theirs) in &promised {
            let row = self.rows.iter().find(|row| row.summary.id == *id && row.summary.outcome.promised());
            for (mail, _) in theirs {
                match row.and_then(|row| self.mail_of(row)) {
                    Some(kept) if kept.group == mail.group => {}
                    _ => found.push(format!("lost: {id} of group {}, for which 250 was read", mail.group)),
                }
            }
            let doubtful = theirs.iter().filter(|(_, promise)| self.is_doubtful(promise)).count();
            if theirs.len() > 1 && doubtful + 1 < theirs.len() {
                found.push(format!(
                    "lost: {} equal mails of group {} were taken for one, {id}",
                    theirs.len(),
                    theirs[0].0.group
                ));
            }
        }
        for group in 0..self.ledger.open_ends.len() {
            let unread = self.rows.iter().filter(|row| {
                row.summary.outcome.promised()
                    && self.mail_of(row).is_some_and(|mail| mail.group == group)
                    && !promised.contains_key(&row.summary.id)
            });
            let (unread, open) = (unread.count(), self.ledger.open_ends[group]);
            if unread > open as usize {
                found
                    .push(format!("group {group} is there {unread} times too often, and {open} answers were not read"));
            }
        }
    }

    /// Of a sender who comes again since it hasn't read the answer nothing is taken twice (RFC 1047): where the first
    /// session had ended, an hour hasn't passed and the server has run on. Once told that it is there already, it is known no
    /// longer: of a third copy, whose octets the network held back until its sender had long gone, nothing tells a new mail.
    fn resends(&self, found: &mut Vec<String>) {
        for group in 0..self.ledger.open_ends.len() {
            let mails: Vec<&Mail> = self.plan.mails.iter().filter(|mail| mail.group == group).collect();
            let partial = |expect: &Expect| matches!(expect, Expect::Refused | Expect::Moody { .. });
            let [only] = mails.as_slice() else { continue };
            if only.expects.iter().any(partial) {
                continue;
            }
            let of_group = |row: &&MessageDetail| {
                row.summary.outcome.promised() && self.mail_of(row).is_some_and(|mail| mail.group == group)
            };
            let mut rows: Vec<&MessageDetail> = self.rows.iter().filter(of_group).collect();
            rows.sort_by_key(|row| row.summary.id);
            for pair in rows.windows(2) {
                let (first, second) = (moment(pair[0].summary.id), moment(pair[1].summary.id));
                let session = pair[0].trace.first().and_then(|event| event.session);
                let ended = self.ledger.dropped.iter().any(|(up, number, at)| {
                    let (from, until) = self.ledger.up[up - 1];
                    let served = from <= first && until.is_none_or(|until| second <= until);
                    served && Some(*number) == session && *at + UNDER_WAY < second
                });
                let told = self.ledger.resent.iter().any(|(id, at)| *id == pair[0].summary.id && *at <= second);
                if ended && !told && second < first + 3_600_000 {
                    found.push(format!(
                        "a resend: group {group} was taken as {} and again as {}",
                        pair[0].summary.id, pair[1].summary.id
                    ));
                }
            }
        }
    }

    /// As far as the server knows, its 250 may not have been read.
    fn is_doubtful(&self, promise: &Promise) -> bool {
        let said = moment(promise.id);
        let newest_before =
            |death: u64| self.rows.iter().map(|row| moment(row.summary.id)).filter(|at| *at <= death).max();
        !promise.went_on.is_passed()
            || self.ledger.deaths.iter().any(|death| {
                said <= *death && newest_before(*death).is_some_and(|newest| said + LAST_MOMENTS >= newest)
            })
    }

    /// One message that was accepted: its octets, and all that was to come of it.
    fn row(&self, row: &MessageDetail, mail: &Mail, courses: &[Course<'_>], found: &mut Vec<String>) {
        let id = row.summary.id;
        if self.bodies.get(&id).is_none_or(|body| *body != mail.octets) {
            found.push(format!("{id} of group {} isn't kept as it was sent", mail.group));
        }
        let mut onward: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let mut ears: BTreeMap<(usize, bool), usize> = BTreeMap::new();
        let mut moody = 0;
        for expect in &mail.expects {
            match expect {
                Expect::Hop { hop, recipient } => *onward.entry((*hop, recipient)).or_default() += 1,
                Expect::Moody { hop, recipient } => {
                    moody += 1;
                    *onward.entry((*hop, recipient)).or_default() += 1;
                }
                Expect::Ear { ear, named } => *ears.entry((*ear, *named)).or_default() += 1,
                Expect::Counted | Expect::Refused => {}
            }
        }
        let undecided = courses.iter().filter(|course| course.kind() == "decide" && course.is_dead()).count();
        if undecided > moody {
            found.push(format!("{id}: {undecided} decisions were given up, {moody} were put off"));
        }
        let mut missing = 0;
        for ((hop, recipient), wanted) in onward {
            let theirs: Vec<&Course<'_>> =
                courses.iter().filter(|c| c.kind() == "relay" && c.target() == recipient).collect();
            missing += wanted.saturating_sub(theirs.len());
            if theirs.len() > wanted {
                found.push(format!("{id}: {} deliveries to {recipient}, {wanted} were asked for", theirs.len()));
            }
            let takes: Vec<&Take> =
                self.ledger.takes.iter().filter(|take| take.id == Some(id) && take.recipient == recipient).collect();
            self.taken(row, mail, &theirs, &takes, found);
            if hop == QUICK
                && self.plan.is_fair()
                && mail.expects.iter().any(|expect| matches!(expect, Expect::Hop { hop: QUICK, .. }))
            {
                self.quick(row, &takes, found);
            }
        }
        if missing > undecided {
            found.push(format!("lost: {id} of group {} has {missing} deliveries too few", mail.group));
        }
        for ((ear, named), wanted) in ears {
            let target = if named { "EAR".to_owned() } else { format!("http://ear{ear}.example/…") };
            let theirs: Vec<&Course<'_>> =
                courses.iter().filter(|c| c.kind() == "webhook" && c.target() == target).collect();
            if theirs.len() != wanted {
                found.push(format!("lost: {id} has {} webhooks to {target}, {wanted} were asked for", theirs.len()));
            }
            for course in theirs {
                self.heard(row, mail, course, found);
            }
        }
        self.told(row, mail, courses, found);
    }

    /// What a next hop has of it.
    fn taken(
        &self,
        row: &MessageDetail,
        mail: &Mail,
        courses: &[&Course<'_>],
        takes: &[&Take],
        found: &mut Vec<String>,
    ) {
        let (id, target) = (row.summary.id, courses.first().map_or("nobody", |course| course.target()));
        let delivered = courses.iter().filter(|course| course.is_delivered()).count();
        if takes.len() < delivered {
            found.push(format!("lost: {id} was delivered to {target} {delivered} times, and taken {}", takes.len()));
        }
        let ambiguous = takes.iter().filter(|take| take.is_ambiguous()).count();
        if takes.len() > delivered + ambiguous {
            found.push(format!(
                "twice: {target} has {} copies of {id}, of which {ambiguous} by ambiguous ends",
                takes.len()
            ));
        }
        for take in takes {
            let head = take.octets.strip_suffix(&*mail.octets).map(<[u8]>::to_vec);
            let ours = |head: &[u8]| head.ends_with(b"\r\n") && memchr::memmem::find(head, b"\r\n\r\n").is_none();
            if !head.is_some_and(|head| ours(&head)) {
                found.push(format!("changed: what {target} has of {id} isn't what was sent"));
            }
        }
    }

    /// Whoever is well is not held up by those who aren't.
    fn quick(&self, row: &MessageDetail, takes: &[&Take], found: &mut Vec<String>) {
        let Some(first) = takes.iter().map(|take| take.at).min() else { return };
        let (begun, _) = self.ledger.up.iter().copied().filter(|(begun, _)| *begun <= first).max().unwrap_or_default();
        let waited = first.saturating_sub(begun.max(moment(row.summary.id)));
        if waited > course::SOON {
            found.push(format!("unfair: {} waited {} s for a next hop that is well", row.summary.id, waited / 1000));
        }
    }

    /// What an endpoint has of it.
    fn heard(&self, row: &MessageDetail, mail: &Mail, course: &Course<'_>, found: &mut Vec<String>) {
        let id = format!("msg_{}_{}", row.summary.id, course.n());
        let heard: Vec<&Heard> = self.ledger.heard.iter().filter(|heard| heard.id == id).collect();
        let delivered = usize::from(course.is_delivered());
        if heard.len() < delivered {
            found.push(format!("lost: the webhook {id} was delivered, and nobody heard of it"));
        }
        let ambiguous = heard.iter().filter(|heard| heard.is_ambiguous()).count();
        if heard.len() > delivered + ambiguous {
            found.push(format!("twice: {id} was heard {} times, {ambiguous} by ambiguous ends", heard.len()));
        }
        let group = format!("g{}", mail.group);
        if heard.iter().any(|heard| heard.group != group) {
            found.push(format!("changed: the webhook {id} doesn't tell of {group}"));
        }
    }

    /// Whoever sent it is told of what didn't arrive, or it is noted why not.
    fn told(&self, row: &MessageDetail, mail: &Mail, courses: &[Course<'_>], found: &mut Vec<String>) {
        let dead = courses.iter().filter(|c| c.is_dead() && matches!(c.kind(), "relay" | "decide")).count();
        let refused = mail.expects.iter().filter(|expect| **expect == Expect::Refused).count();
        let notices = course::notices(row);
        if notices < dead + refused {
            found.push(format!(
                "untold: {} has {dead} dead and {refused} refused, and {notices} notices",
                row.summary.id
            ));
        }
    }

    /// A notice of the server's own goes to whom it is about, once.
    fn notice(&self, row: &MessageDetail, courses: &[Course<'_>], found: &mut Vec<String>) {
        let Some(body) = self.bodies.get(&row.summary.id) else {
            return found.push(format!("the notice {} has no octets", row.summary.id));
        };
        let takes: Vec<&Take> = self.ledger.takes.iter().filter(|take| take.octets == *body).collect();
        let delivered = courses.iter().filter(|course| course.is_delivered()).count();
        let ambiguous = takes.iter().filter(|take| take.is_ambiguous()).count();
        if takes.len() < delivered || takes.len() > delivered + ambiguous {
            found.push(format!(
                "the notice {} was delivered {delivered} times and taken {}",
                row.summary.id,
                takes.len()
            ));
        }
        let known: BTreeSet<&str> = takes.iter().map(|take| take.recipient.as_str()).collect();
        if known.iter().any(|recipient| !recipient.ends_with(".example") || !recipient.starts_with("me@client")) {
            found.push(format!("the notice {} went to {known:?}", row.summary.id));
        }
    }
}

impl Take {
    /// The server may not know that it was taken.
    fn is_ambiguous(&self) -> bool {
        self.excused || !self.answered.as_ref().is_some_and(crate::pipe::Mark::is_reached)
    }
}

impl Heard {
    fn is_ambiguous(&self) -> bool {
        self.excused || !self.answered.as_ref().is_some_and(crate::pipe::Mark::is_reached)
    }
}
