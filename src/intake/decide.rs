//! One recipient's fate: a `[[route]]` or a worker decides, and its effects become deliveries and writes.
//!
//! Blocks (a worker runs): called where blocking is allowed.

use std::sync::Arc;
use std::time::Duration;

use super::author;
use super::canary::Handler;
use super::changes::{self, Changes};
use super::forward;
use super::hook;
use super::policy::{self, Sentence};
use super::recipient::is_postmaster;
use super::snapshot::Snapshot;
use crate::clock::{self, Instant};
use crate::config::route::Taken;
use crate::config::{Config, Consequence, Domain, RouteAction};
use crate::event::{Decision, Event, Kind, millis, shown_url};
use crate::kv;
use crate::mail::{Address, Envelope, Message, MessageId, Recipient, Reply, Timestamp};
use crate::rules::outcome::{Effect, ForwardTo, LogLine, Place, WebhookTarget};
use crate::rules::{EmailCall, KvView, Lent, Outcome, Reached, Release, Seed, SessionFacts, Verdict};
use crate::store::{Acceptance, Decider, MessageOutcome, NewDelivery, WebhookBody};

/// Octets of a key that a line of the trace shows.
const MAX_KEY_SHOWN: usize = 80;

/// One message on its way in, with all that is known of it.
pub struct Case {
    pub id: MessageId,
    pub received_at: Timestamp,
    pub snapshot: Arc<Snapshot>,
    pub envelope: Envelope,
    pub facts: Arc<SessionFacts>,
    pub message: Arc<Message>,
    /// What its workers draw ids from.
    pub seed: Seed,
    /// How the sender was looked into.
    pub told: Option<Kind>,
    /// It was taken before: whether its sender may send it was judged then.
    pub is_judged_again: bool,
}

impl Case {
    /// The rules that decide for this recipient: those that `rcpt_to` was asked by, whoever it led the mail to.
    pub(super) fn rules_for(&self, recipient: &Recipient) -> &Arc<Release> {
        let named = recipient.original.as_ref().unwrap_or(&recipient.address);
        self.snapshot.rules_for(self.envelope.sender.as_ref(), named)
    }
}

/// What becomes of one recipient.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    Accept,
    Reject(Reply),
    /// Deferred by the worker, or it failed: 451.
    Defer(Reply),
}

/// One recipient's fate with all that it brings along.
#[derive(Debug)]
pub struct Judged {
    pub recipient: Recipient,
    pub fate: Fate,
    /// An earlier recipient of the same message is the same mailbox.
    pub is_repeated: bool,
    /// Accepted, Stored, Dropped or Quarantined; of meaning for `Fate::Accept`.
    pub outcome: MessageOutcome,
    pub deliveries: Vec<NewDelivery>,
    pub reads: Vec<kv::Read>,
    pub writes: Vec<kv::Write>,
    pub keep_until: Option<Timestamp>,
    pub mailbox: Option<String>,
    pub events: Vec<Event>,
    /// Mails that the worker wrote.
    pub authored: Vec<Acceptance>,
    /// That they were, to be told after the decision.
    written: Vec<Event>,
    /// Who decides: the worker, and the route that chose it; the labels of that route.
    by: String,
    /// The same for deliveries, whose ends it hears.
    decider: Option<Decider>,
    tags: Vec<String>,
    /// What the worker changed of the message so far, for the forwards that follow.
    changes: Changes,
}

/// One recipient.
pub fn decide(case: &Case, recipient: &Recipient, kv: &KvView, reach: &Lent, run: u32) -> Judged {
    match Asked::of(case, recipient, reach) {
        Asked::Nobody(judged) => judged,
        Asked::Worker { judged, call } => {
            let started = Instant::now();
            let rules = case.rules_for(recipient);
            let outcome = rules.email(&call, kv);
            judged.by_worker(case, (rules, &call), outcome, started.elapsed(), run)
        }
    }
}

/// One recipient, and with it what its worker came to, where one decides.
pub fn decide_telling(case: &Case, recipient: &Recipient, kv: &KvView, reach: &Lent) -> (Judged, Option<Outcome>) {
    match Asked::of(case, recipient, reach) {
        Asked::Nobody(judged) => (judged, None),
        Asked::Worker { judged, call } => {
            let started = Instant::now();
            let rules = case.rules_for(recipient);
            let outcome = rules.email(&call, kv);
            let told = outcome.clone();
            (judged.by_worker(case, (rules, &call), outcome, started.elapsed(), 1), Some(told))
        }
    }
}

/// One recipient, where its worker comes to an end within `patience`; else nothing has happened.
pub fn decide_within(patience: Duration, case: &Case, recipient: &Recipient, kv: &KvView, run: u32) -> Option<Judged> {
    match Asked::of(case, recipient, &Lent::default()) {
        Asked::Nobody(judged) => Some(judged),
        Asked::Worker { judged, call } => {
            let started = Instant::now();
            let rules = case.rules_for(recipient);
            let outcome = rules.email_within(patience, &call, kv)?;
            Some(judged.by_worker(case, (rules, &call), outcome, started.elapsed(), run))
        }
    }
}

/// Who decides on a recipient.
enum Asked {
    /// It is decided: a loop, the configuration, a route.
    Nobody(Judged),
    Worker {
        judged: Judged,
        call: EmailCall,
    },
}

impl Asked {
    fn of(case: &Case, recipient: &Recipient, reach: &Lent) -> Self {
        let config = &case.snapshot.config;
        let mut judged = Judged::of(case, recipient);
        let address = &recipient.address;
        if let Some(reply) = loops(case, recipient) {
            judged.fate = Fate::Reject(reply);
            judged.decided(case, "loop check", "reject", Vec::new());
            return Self::Nobody(judged);
        }
        // RFC 5321 §4.5.1: <postmaster> without a domain is the first one's. A domain that is gone is nobody's.
        let any = || config.domains.first().filter(|_| address.domain().is_empty());
        let Some(domain) = config.domain_for(address).or_else(any) else {
            judged.fate = Fate::Defer(Reply::new(451, 3, 5, "This domain is not configured any more, try again later"));
            judged.decided(case, "configuration", "defer", Vec::new());
            return Self::Nobody(judged);
        };
        if is_postmaster(address) {
            // RFC 5321 §4.5.1: whatever the rules say of others.
            judged.forward(case, &ForwardTo::Address(domain.postmaster.clone()), &[]);
            let effects = vec![format!("forward to {}", domain.postmaster)];
            judged.decided(case, "postmaster", "accept", effects);
            return Self::Nobody(judged);
        }
        if let Some(sentence) = policy_on(case, domain) {
            judged.by_policy(case, sentence);
            return Self::Nobody(judged);
        }
        let mut taken = config.routes_for(&case.route_facts(recipient));
        // It is the last one.
        let chosen: Option<Taken<'_>> = taken.pop_if(|taken| matches!(taken.route.action, RouteAction::Worker { .. }));
        let main = || config.main_for(Some(domain), chosen.as_ref().map(|taken| taken.route));
        judged.decider = case.decider(recipient, main);
        for taken in &taken {
            judged.by_route(case, taken);
            if taken.route.stop {
                return Self::Nobody(judged);
            }
        }
        let main = main();
        judged.by = match &chosen {
            Some(taken) => format!("worker {main}, {taken}"),
            None => format!("worker {main}"),
        };
        judged.tags = chosen.map(|taken| taken.route.tags.clone()).unwrap_or_default();
        let call = EmailCall {
            main,
            id: case.id,
            received_at: case.received_at,
            recipient: address.clone(),
            subaddress: domain.subaddress.clone(),
            session: Arc::clone(&case.facts),
            message: Arc::clone(&case.message),
            now: clock::now(),
            seed: case.seed,
            reach: reach.clone(),
        };
        Self::Worker { judged, call }
    }
}

/// What the policy of its domain makes of the sender.
pub(super) fn policy_on(case: &Case, domain: &Domain) -> Option<Sentence> {
    let auth = case.facts.client.auth.as_deref().filter(|_| !case.is_judged_again)?;
    policy::sentence(auth, domain)
}

/// `Delivered-To` for this same mailbox, put there by us: it has been here before.
pub(super) fn loops(case: &Case, recipient: &Recipient) -> Option<Reply> {
    let (address, name) = (&recipient.address, recipient.address.as_str());
    let same = |value: &str| {
        // One mailbox is written in different ways only with quotes or beyond ASCII.
        let plain = |text: &str| text.is_ascii() && !text.contains('"');
        value.eq_ignore_ascii_case(name)
            || !(plain(value) && plain(name)) && Address::parse(value).is_ok_and(|value| value.same_mailbox(address))
    };
    let been_here = case.message.delivered_to().iter().any(|value| same(value.trim()));
    been_here
        .then(|| Reply::new(554, 4, 6, format!("Mail for {name} goes in circles: it has been delivered here before")))
}

impl Judged {
    pub(super) fn of(case: &Case, recipient: &Recipient) -> Self {
        Self {
            recipient: recipient.clone(),
            fate: Fate::Accept,
            is_repeated: false,
            outcome: MessageOutcome::Accepted,
            deliveries: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            keep_until: None,
            mailbox: None,
            events: Vec::new(),
            authored: Vec::new(),
            written: Vec::new(),
            by: String::new(),
            decider: None,
            tags: Vec::new(),
            changes: Changes::of(&case.message),
        }
    }

    /// The same mailbox once more, however it is written: the same answer, and nothing is done twice.
    pub(super) fn again(&self, case: &Case, recipient: &Recipient) -> Self {
        let mut again =
            Self { fate: self.fate.clone(), outcome: self.outcome, is_repeated: true, ..Self::of(case, recipient) };
        let verdict = match self.fate {
            Fate::Accept => "accept",
            Fate::Reject(_) => "reject",
            Fate::Defer(_) => "defer",
        };
        again.decided(case, "the same recipient before", verdict, Vec::new());
        again
    }

    /// There was no room left for it, as `what` says.
    pub(super) fn put_off(mut self, case: &Case, what: &str) -> Self {
        self.fate = Fate::Defer(Reply::new(451, 3, 0, format!("Too busy now, try again later ({})", case.id)));
        self.decided(case, what, "defer", Vec::new());
        self
    }

    fn decided(&mut self, case: &Case, by: &str, verdict: &str, effects: Vec<String>) {
        self.decided_with_tags(case, by, verdict, effects, &[]);
    }

    pub(super) fn decided_with_tags(
        &mut self,
        case: &Case,
        by: &str,
        verdict: &str,
        effects: Vec<String>,
        tags: &[String],
    ) {
        self.push_decision(
            case.received_at,
            Decision {
                recipient: self.recipient.address.clone(),
                by: by.to_owned(),
                verdict: verdict.to_owned(),
                place: None,
                effects,
                tags: tags.to_vec(),
                version: None,
                canary: false,
                operations: 0,
                micros: 0,
                runs: 1,
            },
        );
    }

    fn push_decision(&mut self, at: Timestamp, decision: Decision) {
        self.events.push(Event::new(at, Kind::Decided(Box::new(decision))));
    }

    /// The sender isn't who it says: no worker is asked.
    fn by_policy(&mut self, case: &Case, sentence: Sentence) {
        let verdict = match sentence.consequence {
            Consequence::Reject => {
                self.fate = Fate::Reject(sentence.reply);
                "reject"
            }
            Consequence::Quarantine | Consequence::Accept => {
                self.outcome = MessageOutcome::Quarantined;
                "quarantine"
            }
        };
        self.decided(case, "the policy on senders", &format!("{verdict} ({})", sentence.why), Vec::new());
    }

    fn by_worker(
        mut self,
        case: &Case,
        (rules, call): (&Arc<Release>, &EmailCall),
        mut outcome: Outcome,
        took: Duration,
        run: u32,
    ) -> Self {
        case.snapshot.ran(Handler::Email, rules, matches!(outcome.verdict, Verdict::Failed { .. }));
        let (version, canary) = case.snapshot.told(rules);
        let mut effects: Vec<String> =
            outcome.effects.iter().map(|(effect, at)| describe(Some(&case.message), effect, at)).collect();
        effects
            .extend(outcome.writes.iter().zip(&outcome.writes_at).map(|(write, at)| describe_write(write, at, rules)));
        let effects = effects.into_iter().map(|effect| rules.hide(effect)).collect();
        let operations = outcome.usage.operations;
        let of_worker = std::mem::take(&mut outcome.tags).into_iter().map(|tag| rules.hide(tag));
        let tags = std::mem::take(&mut self.tags).into_iter().chain(of_worker).collect();
        let why = match &outcome.verdict {
            Verdict::Quarantine { reason, .. } => rules.hide(format!(" ({reason})")),
            _ => String::new(),
        };
        let (verdict, at) = self.take((case, rules), outcome, call.now);
        self.settle();
        let by = std::mem::take(&mut self.by);
        self.push_decision(
            call.now,
            Decision {
                recipient: self.recipient.address.clone(),
                by,
                verdict: format!("{verdict}{why}"),
                place: at.map(|at| at.to_string()),
                effects,
                tags,
                version,
                canary,
                operations,
                micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                runs: run,
            },
        );
        self.events.append(&mut self.written);
        self
    }

    /// Turns a worker's outcome into what is committed. Returns the verdict's word and the place that settled it.
    fn take(
        &mut self,
        (case, rules): (&Case, &Release),
        outcome: Outcome,
        now: Timestamp,
    ) -> (&'static str, Option<Place>) {
        self.reads = outcome.reads;
        self.events.extend(reached_events(now, Some(&self.recipient.address), outcome.reached));
        self.events.extend(log_events(now, Some(&self.recipient.address), outcome.log));
        let last = outcome.effects.last().map(|(_, at)| at.clone());
        match outcome.verdict {
            Verdict::Accept => {
                self.writes = outcome.writes;
                self.outcome = MessageOutcome::Stored;
                for (effect, _) in outcome.effects {
                    self.stage(case, effect);
                }
                ("accept", last)
            }
            Verdict::Undecided => {
                self.writes = outcome.writes;
                self.outcome = MessageOutcome::Stored;
                ("store (the worker decided nothing)", None)
            }
            Verdict::Drop { at } => {
                self.writes = outcome.writes;
                self.let_go();
                ("drop", Some(at))
            }
            Verdict::Quarantine { at, .. } => {
                self.writes = outcome.writes;
                for (effect, _) in outcome.effects {
                    self.stage(case, effect);
                }
                self.outcome = MessageOutcome::Quarantined;
                ("quarantine", Some(at))
            }
            Verdict::Reject { reply, at } => {
                self.writes = outcome.writes;
                self.fate = Fate::Reject(reply);
                ("reject", Some(at))
            }
            Verdict::Defer { reply, at } => {
                self.fate = Fate::Defer(reply);
                ("defer", Some(at))
            }
            Verdict::Failed { error } => {
                let text = format!("The rules for this address failed, try again later ({})", case.id);
                self.fate = Fate::Defer(Reply::new(451, 3, 0, text));
                self.events.push(script_failed(rules, now, Some(&self.recipient.address), "email", error));
                ("fail", None)
            }
        }
    }

    fn stage(&mut self, case: &Case, effect: Effect) {
        match effect {
            Effect::Forward { to, headers } => self.forward(case, &to, &headers),
            Effect::Webhook { target, method, headers, body } => {
                self.webhook(case, &target, &method, &headers, hook::body(body));
            }
            Effect::Store { mailbox, retention_secs } => {
                let until = retention_secs.map(|secs| case.received_at.plus(Duration::from_secs(secs)));
                self.keep_until = self.keep_until.max(until);
                self.mailbox = mailbox.or(self.mailbox.take());
            }
            Effect::Header { name, value } => self.changes.add(&case.message, name, value),
            Effect::Mail(draft) => {
                let (house, about) =
                    ((&*case.snapshot.config, &**case.rules_for(&self.recipient)), format!("message {}", case.id));
                let now = clock::now();
                let mail = author::authored(house, &draft, &about, self.decider.as_ref(), now);
                self.written.push(author::written(&draft, &mail, now));
                self.writes.extend(author::noted(&draft, now));
                self.authored.push(mail);
            }
        }
    }

    pub(super) fn forward(&mut self, case: &Case, to: &ForwardTo, headers: &[(String, String)]) {
        let config = &case.snapshot.config;
        let delivery = forward::delivery(
            config,
            &self.recipient,
            to,
            headers,
            &self.changes,
            (self.decider.as_ref(), case.received_at),
        );
        self.outcome = MessageOutcome::Accepted;
        self.deliveries.push(delivery);
    }

    pub(super) fn webhook(
        &mut self,
        case: &Case,
        target: &WebhookTarget,
        method: &str,
        headers: &[(String, String)],
        body: WebhookBody,
    ) {
        let asked = hook::Asked { target, method, headers, quiet: false, by: self.decider.as_ref() };
        let delivery = hook::delivery(&case.snapshot.config, &asked, body, &self.recipient.address, case.received_at);
        self.outcome = MessageOutcome::Accepted;
        self.deliveries.push(delivery);
    }
}

pub(super) fn webhook_target(config: &Config, target: &str) -> WebhookTarget {
    if config.webhook(target).is_some() {
        WebhookTarget::Binding(target.to_owned())
    } else {
        WebhookTarget::Url(target.to_owned())
    }
}

/// A webhook of the configuration, as it may stand in a trace.
pub(super) fn named(config: &Config, target: &str) -> String {
    match webhook_target(config, target) {
        WebhookTarget::Binding(name) => name,
        WebhookTarget::Url(url) => shown_url(&url),
    }
}

/// One line of the trace: what is done, to whom, and the line that asked for it.
pub(super) fn describe(message: Option<&Message>, effect: &Effect, at: &Place) -> String {
    match effect {
        Effect::Header { name, value } => {
            let verb = if value.is_some() { "set" } else { "remove" };
            let broken = message.map(|message| changes::broken(message, name, value.is_some())).unwrap_or_default();
            format!("{verb} {name}{broken} ({at})")
        }
        Effect::Forward { to: ForwardTo::Address(address), .. } => format!("forward to {address} ({at})"),
        Effect::Forward { to: ForwardTo::Destination(name), .. } => format!("forward by destination {name} ({at})"),
        Effect::Webhook { target: WebhookTarget::Binding(name), .. } => format!("webhook to {name} ({at})"),
        Effect::Webhook { target: WebhookTarget::Url(url), .. } => {
            format!("webhook to {} ({at})", shown_url(url))
        }
        Effect::Store { mailbox: Some(mailbox), .. } => format!("store in {mailbox} ({at})"),
        Effect::Store { mailbox: None, .. } => format!("store ({at})"),
        Effect::Mail(draft) => {
            let to = draft.recipients().map(Address::as_str).collect::<Vec<_>>().join(", ");
            format!("{} to {to} ({at})", author::word(&draft.purpose))
        }
    }
}

/// The same of a write: its key, as much of it as a line shows, and not its value.
pub(super) fn describe_write(write: &kv::Write, at: &Place, rules: &Release) -> String {
    let shown = |key: &str| {
        let key = rules.hide(key.to_owned());
        let clipped = key.get(..key.floor_char_boundary(MAX_KEY_SHOWN)).unwrap_or_default();
        format!("{clipped:?}{}", if clipped.len() < key.len() { "…" } else { "" })
    };
    match write {
        kv::Write::Put { namespace, key, .. } => format!("put {namespace} {} ({at})", shown(key)),
        kv::Write::Delete { namespace, key } => format!("delete {namespace} {} ({at})", shown(key)),
        kv::Write::Increment { namespace, key, by } => format!("increment {namespace} {} by {by} ({at})", shown(key)),
    }
}

pub(super) fn log_events(now: Timestamp, recipient: Option<&Address>, lines: Vec<LogLine>) -> Vec<Event> {
    let event = |line: LogLine| {
        let kind =
            Kind::ScriptLog { recipient: recipient.cloned(), file: line.at.file, line: line.at.line, text: line.text };
        Event::new(now, kind)
    };
    lines.into_iter().map(event).collect()
}

pub(super) fn reached_events(now: Timestamp, recipient: Option<&Address>, reached: Vec<Reached>) -> Vec<Event> {
    let event = |one: Reached| {
        let kind = Kind::Reached {
            recipient: recipient.cloned(),
            file: one.at.file,
            line: one.at.line,
            what: one.what,
            answer: one.answer,
            failed: one.failed,
            kept: one.kept,
            millis: millis(one.took),
        };
        Event::new(now, kind)
    };
    reached.into_iter().map(event).collect()
}

/// `rules` are those that failed.
pub(super) fn script_failed(
    rules: &Release,
    now: Timestamp,
    recipient: Option<&Address>,
    handler: &str,
    error: String,
) -> Event {
    let source = rules.line_of(&error);
    Event::new(now, Kind::ScriptFailed { recipient: recipient.cloned(), handler: handler.to_owned(), error, source })
}
