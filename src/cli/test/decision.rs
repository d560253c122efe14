//! Runs a case through the rules as mail would go, and says what they decided, item by item, each with its line.
//!
//! Nothing is done: the intake's own judgement without effects, by a clock that stands still and ids that are the same
//! each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::case::{About, Case, Mail};
use super::happening::Happened as Told;
use super::keys::{self, Keys, Name};
use super::kind::Kind;
use super::update::by_namespace;
use super::written;
use crate::clock;
use crate::config::Config;
use crate::event::{Decision as Decided, Event, Kind as Happened};
use crate::intake::Snapshot;
use crate::intake::decide::{Fate, Judged};
use crate::intake::foresee::{Foresight, Probe, foresee, on_end, on_time};
use crate::kv::Write;
use crate::mail::draft::Purpose;
use crate::mail::{PayloadFormat, Reply, Timestamp};
use crate::rules::outcome::{Carried, Effect, ForwardTo, Place, WebhookTarget};
use crate::rules::{HappeningOutcome, KvView, Lent, Outcome, Reach, Stage, Verdict};
use crate::store::{MessageOutcome, Task, WebhookBody};

/// What ids are drawn from.
const SEED: u64 = 7;

/// One item of a decision, and what settled it: a line of a rule, a route.
#[derive(Debug, Clone)]
pub struct Made {
    pub item: Value,
    pub at: Option<String>,
}

impl Made {
    /// Of RCPT's answer: that it isn't the plain «ok».
    #[must_use]
    pub fn is_news(&self) -> bool {
        self.item.get("code") != Some(&Value::from(250)) || self.item.get("redirect").is_some()
    }
}

/// All that was decided on one case.
#[derive(Debug, Default)]
pub struct Decision {
    kinds: BTreeMap<Kind, Vec<Made>>,
}

impl Decision {
    /// The items of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &[Made] {
        self.kinds.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// As a test in Rhai reads it: an array of items for each kind, keys by namespace.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let items = |kind: Kind| self.of(kind).iter().map(|made| made.item.clone()).collect::<Vec<Value>>();
        let said = |kind: Kind| match kind {
            Kind::Drop => json!(!self.of(kind).is_empty()),
            Kind::Kv | Kind::Deleted => by_namespace(kind, &items(kind)),
            _ => Value::Array(items(kind)),
        };
        Kind::ALL.into_iter().map(|kind| (kind.key().to_owned(), said(kind))).collect::<Map<_, _>>().into()
    }

    fn add(&mut self, kind: Kind, item: Value, at: Option<String>) {
        self.kinds.entry(kind).or_default().push(Made { item, at });
    }
}

/// Decides on a case.
#[must_use]
pub fn decide(case: &Case, snapshot: &Arc<Snapshot>) -> Decision {
    decide_by(case, snapshot, &Arc::new(Keys::new(BTreeMap::new())))
}

/// The same by keys that are there already, beside the case's own.
#[must_use]
pub fn decide_by(case: &Case, snapshot: &Arc<Snapshot>, keys: &Arc<Keys>) -> Decision {
    let _stopped = clock::stop(case.now);
    keys.lay(&case.keys);
    let reach = Lent::new(Arc::clone(&case.world) as Arc<dyn Reach>);
    let mut maker =
        Maker { config: &snapshot.config, keys, now: case.now, written: BTreeMap::new(), made: Decision::default() };
    let kv: KvView = Arc::clone(keys) as KvView;
    fastrand::seed(SEED);
    match &case.about {
        About::Mail(mail) => maker.mail(snapshot, mail, &kv, &reach),
        About::Happened(Told::Scheduled(cron)) => maker.handled(on_time(snapshot, (cron, case.now), &kv, reach)),
        About::Happened(Told::Ended(message, task)) => {
            if let Some(outcome) = on_end(snapshot, *message, task, &kv) {
                maker.handled(outcome);
            }
        }
    }
    maker.settle()
}

struct Maker<'a> {
    config: &'a Config,
    keys: &'a Keys,
    now: Timestamp,
    /// Every key that was written, and the line that did it last.
    written: BTreeMap<Name, Option<String>>,
    made: Decision,
}

impl Maker<'_> {
    /// For one recipient after the other; each sees what was written for those before it.
    fn mail(&mut self, snapshot: &Arc<Snapshot>, mail: &Mail, kv: &KvView, reach: &Lent) {
        for recipient in &mail.to {
            fastrand::seed(SEED);
            let (sender, client, raw) = (mail.from.clone(), mail.client.clone(), mail.raw.clone());
            let probe = Probe { recipient: recipient.clone(), sender, client, raw, reach: reach.clone() };
            let is_first = self.made.kinds.is_empty();
            if !self.take(&foresee(snapshot, probe, kv), is_first) {
                break;
            }
        }
    }

    /// What a handler did that is about no message.
    fn handled(&mut self, outcome: HappeningOutcome) {
        for line in outcome.log {
            let at = format!("{}:{}", line.at.file, line.at.line);
            self.made.add(Kind::Log, json!({ "text": line.text }), Some(at));
        }
        if let Err(error) = outcome.result {
            self.made.add(Kind::Error, json!({ "text": error }), None);
        }
        self.effects(&outcome.effects);
        for (at, write) in outcome.writes.iter().enumerate() {
            self.write(write, outcome.writes_at.get(at));
        }
    }

    /// Whether the session goes on. What it did before its first recipient is told but once.
    fn take(&mut self, seen: &Foresight, is_first: bool) -> bool {
        self.tell(seen.events.iter().filter(|event| is_first || !is_of_session(event)));
        let at = seen.answered_at.as_ref().map(Place::to_string);
        if let Some((stage, reply)) = &seen.earlier {
            let kind = match stage {
                Stage::Connect => Kind::Connect,
                Stage::Helo => Kind::Helo,
                Stage::MailFrom => Kind::MailFrom,
            };
            self.made.add(kind, Value::Object(words(reply)), at);
            return false;
        }
        let mut answer = seen.answer.as_ref().map(words).unwrap_or_default();
        if let Some(to) = &seen.redirected {
            answer.insert("redirect".to_owned(), json!(to));
        }
        self.made.add(Kind::Rcpt, Value::Object(answer), at);
        self.message(seen);
        true
    }

    fn message(&mut self, seen: &Foresight) {
        if let Some(reply) = &seen.refused {
            self.made.add(Kind::Reject, Value::Object(words(reply)), None);
        }
        let Some(judged) = &seen.judged else { return };
        self.tell(&judged.events);
        self.fate(judged, seen.outcome.as_ref());
        self.tags(judged);
        self.route(judged, seen.outcome.as_ref());
        if let Some(outcome) = &seen.outcome {
            self.effects(&outcome.effects);
        }
        let places = seen.outcome.as_ref().map(|outcome| outcome.writes_at.as_slice()).unwrap_or_default();
        for (at, write) in judged.writes.iter().enumerate() {
            self.write(write, places.get(at));
        }
    }

    /// What scripts logged, and how they failed.
    fn tell<'e>(&mut self, events: impl IntoIterator<Item = &'e Event>) {
        for event in events {
            match &event.kind {
                Happened::ScriptLog { file, line, text, .. } => {
                    self.made.add(Kind::Log, json!({ "text": text }), Some(format!("{file}:{line}")));
                }
                Happened::ScriptFailed { error, .. } => self.made.add(Kind::Error, json!({ "text": error }), None),
                _ => {}
            }
        }
    }

    fn fate(&mut self, judged: &Judged, outcome: Option<&Outcome>) {
        let verdict = outcome.map(|outcome| &outcome.verdict);
        let at = match verdict {
            Some(
                Verdict::Reject { at, .. }
                | Verdict::Defer { at, .. }
                | Verdict::Drop { at }
                | Verdict::Quarantine { at, .. },
            ) => Some(at.to_string()),
            _ => decided_by(judged),
        };
        match (&judged.fate, verdict) {
            // It is told as the error that it is.
            (Fate::Defer(_), Some(Verdict::Failed { .. })) => {}
            (Fate::Defer(reply), _) => self.made.add(Kind::Defer, Value::Object(words(reply)), at),
            (Fate::Reject(reply), _) => self.made.add(Kind::Reject, Value::Object(words(reply)), at),
            (Fate::Accept, Some(Verdict::Undecided)) => {
                self.made.add(Kind::Store, json!({}), Some("the worker decided nothing".to_owned()));
            }
            (Fate::Accept, Some(Verdict::Quarantine { reason, .. })) => {
                self.made.add(Kind::Quarantine, json!({ "reason": reason }), at);
            }
            (Fate::Accept, None) if judged.outcome == MessageOutcome::Quarantined => {
                let reason = last_decision(judged).and_then(|decision| decision.verdict.split_once(' '));
                let reason = reason.map(|(_, reason)| reason.trim_matches(['(', ')']));
                self.made.add(Kind::Quarantine, json!({ "reason": reason }), at);
            }
            (Fate::Accept, _) if judged.outcome == MessageOutcome::Dropped => self.made.add(Kind::Drop, json!({}), at),
            (Fate::Accept, _) => {}
        }
    }

    /// What a worker asked for.
    fn effects(&mut self, effects: &[(Effect, Place)]) {
        for (effect, at) in effects {
            let at = Some(at.to_string());
            match effect {
                Effect::Forward { to, headers } => {
                    let to = match to {
                        ForwardTo::Address(address) => json!(address),
                        ForwardTo::Destination(name) => json!(name),
                    };
                    self.made.add(Kind::Forward, with_headers(json!({ "to": to }), headers), at);
                }
                Effect::Webhook { target, method, headers, body } => {
                    let target = match target {
                        WebhookTarget::Binding(name) => name,
                        WebhookTarget::Url(url) => url,
                    };
                    let (name, carried) = match body {
                        Carried::Json(text) => ("payload", serde_json::from_str(text).unwrap_or_else(|_| json!(text))),
                        Carried::Message { format } => ("format", json!(format.map_or("", PayloadFormat::word))),
                    };
                    let item = json!({ "target": target, "method": method, name: carried });
                    self.made.add(Kind::Webhook, with_headers(item, headers), at);
                }
                Effect::Header { name, value } => {
                    let item = match value {
                        Some(value) => json!({ "name": name, "value": value }),
                        None => json!({ "name": name, "removed": true }),
                    };
                    self.made.add(Kind::Header, item, at);
                }
                Effect::Mail(draft) => {
                    let kind = if matches!(draft.purpose, Purpose::New) { Kind::Send } else { Kind::Reply };
                    self.made.add(kind, written::shown(draft), at);
                }
                Effect::Store { mailbox, retention_secs } => {
                    let mut item = Map::new();
                    item.extend(mailbox.iter().map(|mailbox| ("mailbox".to_owned(), json!(mailbox))));
                    item.extend(retention_secs.iter().map(|seconds| ("retention".to_owned(), json!(seconds))));
                    self.made.add(Kind::Store, Value::Object(item), at);
                }
            }
        }
    }

    /// The labels of routes and worker.
    fn tags(&mut self, judged: &Judged) {
        for event in &judged.events {
            if let Happened::Decided(decision) = &event.kind {
                for tag in &decision.tags {
                    self.made.add(Kind::Tag, json!({ "name": tag }), None);
                }
            }
        }
    }

    /// What the configuration says, before the worker or in its place.
    fn route(&mut self, judged: &Judged, outcome: Option<&Outcome>) {
        let at = decided_by(judged);
        let is_queued =
            |(effect, _): &&(Effect, Place)| matches!(effect, Effect::Forward { .. } | Effect::Webhook { .. });
        let of_worker = outcome.map_or(0, |outcome| outcome.effects.iter().filter(is_queued).count());
        let of_routes = judged.deliveries.len().saturating_sub(of_worker);
        for delivery in judged.deliveries.iter().take(of_routes) {
            match &delivery.task {
                Task::Relay(relay) => {
                    let to = relay.via.clone().unwrap_or_else(|| relay.recipient.to_string());
                    self.made.add(Kind::Forward, json!({ "to": to }), at.clone());
                }
                Task::Webhook(webhook) => {
                    let target = webhook.binding.as_ref().unwrap_or(&webhook.url);
                    let mut item = json!({ "target": target, "method": webhook.method });
                    if let (WebhookBody::Json(body), Some(item)) = (&webhook.body, item.as_object_mut()) {
                        item.insert("payload".to_owned(), json!(body));
                    }
                    self.made.add(Kind::Webhook, item, at.clone());
                }
                Task::Notice(_) | Task::Decide(_) | Task::Tell(_) => {}
            }
        }
        if outcome.is_none() && judged.fate == Fate::Accept && judged.outcome == MessageOutcome::Stored {
            self.made.add(Kind::Store, json!({}), at);
        }
    }

    fn write(&mut self, write: &Write, at: Option<&Place>) {
        let (Write::Put { namespace, key, .. }
        | Write::Delete { namespace, key }
        | Write::Increment { namespace, key, .. }) = write;
        let at = at.map(Place::to_string);
        match self.keys.apply(write, self.now) {
            // Whom no second answer goes to is for us to know.
            Ok(()) if namespace == crate::kv::REPLIES => {}
            Ok(()) => {
                self.written.insert((namespace.clone(), key.clone()), at);
            }
            // The commit would fail by it, and with it the message.
            Err(why) => {
                let text = at.as_ref().map_or_else(|| why.clone(), |at| format!("{at}: {why}"));
                self.made.add(Kind::Error, json!({ "text": text }), None);
            }
        }
    }

    /// The keys as they are in the end; webhooks by their names where they have one.
    fn settle(mut self) -> Decision {
        for (name, at) in std::mem::take(&mut self.written) {
            let (kind, mut item) = match self.keys.entry(&name, self.now) {
                Some(entry) => (Kind::Kv, keys::shown(&entry, self.now)),
                None => (Kind::Deleted, Map::new()),
            };
            item.insert("namespace".to_owned(), json!(name.0));
            item.insert("key".to_owned(), json!(name.1));
            self.made.add(kind, Value::Object(item), at);
        }
        for made in self.made.kinds.entry(Kind::Webhook).or_default() {
            by_name(self.config, &mut made.item);
        }
        self.made
    }
}

/// Whether it tells of a handler that runs before there is a recipient.
fn is_of_session(event: &Event) -> bool {
    matches!(event.kind, Happened::ScriptLog { recipient: None, .. } | Happened::ScriptFailed { recipient: None, .. })
}

/// Says a webhook's name instead of its URL, where the configuration has one for it: so both forms are the same.
pub fn by_name(config: &Config, webhook: &mut Value) {
    let url = webhook.get("target").and_then(Value::as_str).and_then(|target| url::Url::parse(target).ok());
    if let (Some(known), Some(item)) = (url.and_then(|url| config.webhook_at(&url)), webhook.as_object_mut()) {
        item.insert("target".to_owned(), json!(known.binding));
    }
}

/// Who decided, where it is the configuration.
/// What settled it: the worker, or the last route.
fn last_decision(judged: &Judged) -> Option<&Decided> {
    judged.events.iter().rev().find_map(|event| match &event.kind {
        Happened::Decided(decision) => Some(&**decision),
        _ => None,
    })
}

fn decided_by(judged: &Judged) -> Option<String> {
    last_decision(judged).map(|decision| decision.by.clone())
}

fn words(reply: &Reply) -> Map<String, Value> {
    let mut words = Map::new();
    words.insert("code".to_owned(), json!(reply.code));
    words.extend(reply.enhanced().map(|enhanced| ("enhanced".to_owned(), json!(enhanced))));
    words.insert("text".to_owned(), json!(reply.text));
    words
}

fn with_headers(mut item: Value, headers: &[(String, String)]) -> Value {
    let fields: Map<String, Value> = headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    if let (false, Some(item)) = (fields.is_empty(), item.as_object_mut()) {
        item.insert("headers".to_owned(), Value::Object(fields));
    }
    item
}
