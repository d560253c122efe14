//! The worker runs by itself, when the configuration says: `scheduled`.
//!
//! Each run is a message of ours without octets of anybody's: it has what the handler asked for as its deliveries, and its
//! trace. It commits with the mark that this time is done, in one transaction, so that a crash neither loses nor repeats
//! it. Of the times that nobody was there for, the last runs; one that fails is told, and the next runs as planned.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::errand::Errand;
use super::happened::{NOWHERE, Told};
use super::{Intake, MAX_RUNS, PATIENCE, Snapshot, headers, too_busy};
use crate::aside;
use crate::clock::{self, Instant};
use crate::config::Cron;
use crate::event::{Event, Kind};
use crate::kv::{self, SCHEDULED};
use crate::mail::{Address, BodyKind, Envelope, MessageId, Reply, Timestamp};
use crate::rules::{Happening, HappeningCall, Lent, Seed};
use crate::store::{Acceptance, StoreError};

/// A clock that is set back by no more than that runs nothing twice. What was marked beyond it, a clock that was ahead has
/// marked, and would have to be waited for.
const SET_BACK: Duration = Duration::from_hours(1);

/// How long nothing is looked at, at most: a clock may be set, a configuration changed.
const LONGEST: Duration = Duration::from_secs(20);

impl Intake {
    /// Runs what is due by the configuration in force, and says how long there is nothing to do.
    pub async fn keep_time(&self) -> Duration {
        let snapshot = self.current.load();
        for cron in &snapshot.config.crons {
            if let Err(error) = self.due(&snapshot, cron).await {
                let detail = format!("`{}` was not run, and is tried again: {error}", cron.text());
                self.fault(detail);
            }
        }
        if let Err(error) = self.forget_removed(&snapshot).await {
            self.fault(format!("the marks of crons that are gone stay for now: {error}"));
        }
        let now = clock::now();
        let next = snapshot.config.crons.iter().filter_map(|cron| cron.next(now)).min();
        next.map_or(LONGEST, |next| next.since(now).min(LONGEST))
    }

    /// Runs the last of its times that have come, if it hasn't run.
    async fn due(&self, snapshot: &Snapshot, cron: &Cron) -> Result<(), StoreError> {
        let mut errand = None;
        for _ in 0..MAX_RUNS {
            let now = clock::now();
            let (kv, key) = (self.store.kv(), cron.text().to_owned());
            let found = aside::run(move || kv.get(SCHEDULED, &key, now)).await;
            let found = found.map_err(failed)?.map_err(failed)?;
            let version = found.as_ref().map(|entry| entry.version);
            let last = found.and_then(|entry| match entry.value {
                kv::Value::Text(text) => text.parse().ok().map(Timestamp::from_millis),
                _ => None,
            });
            if let Some(ahead) = last.filter(|last| *last > now.plus(SET_BACK)) {
                self.fault(format!("`{}` ran last at {ahead}, which is to come: it goes on from now", cron.text()));
            }
            // From when it is first seen: what was before that, it wasn't there for.
            let Some(last) = last.filter(|last| *last <= now.plus(SET_BACK)) else {
                return self.store.kv_write(vec![mark(cron, now)], now).await;
            };
            let Some(at) = cron.latest(last, now) else { return Ok(()) };
            // What it was answered outside is kept for the run that is repeated.
            let errand = errand.get_or_insert_with(|| Errand::new(&self.ways, &self.turns, &snapshot.config, NOWHERE));
            let seed = clock::seed_of(&("scheduled", cron.text(), at));
            let due = Due { cron: cron.text(), at, now, seed, subject: format!("Scheduled: {}", cron.text()) };
            let ran = self.run_scheduled(snapshot, due, errand).await;
            let mut acceptance = ran.map_err(StoreError::Failed)?;
            let read = kv::Read::Key { namespace: SCHEDULED.to_owned(), key: cron.text().to_owned(), version };
            acceptance.kv_reads.push(read);
            acceptance.kv_writes.push(mark(cron, at));
            if self.commit_scheduled(acceptance).await?.is_some() {
                return Ok(());
            }
        }
        Err(StoreError::Failed(format!("a key that the worker reads was changed by others in each of {MAX_RUNS} runs")))
    }

    /// Whoever plans the same again later starts anew, and not with what there would have been in between.
    async fn forget_removed(&self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (kv, now) = (self.store.kv(), clock::now());
        let marks = aside::run(move || kv.list(SCHEDULED, "", None, kv::MAX_LIST, now)).await;
        let marks = marks.map_err(failed)?.map_err(failed)?;
        let is_planned = |name: &String| snapshot.config.crons.iter().any(|cron| cron.text() == name);
        let gone = marks.keys.into_iter().map(|key| key.name).filter(|name| !is_planned(name));
        let gone: Vec<kv::Write> = gone.map(|key| kv::Write::Delete { namespace: SCHEDULED.to_owned(), key }).collect();
        if gone.is_empty() { Ok(()) } else { self.store.kv_write(gone, now).await }
    }

    fn fault(&self, detail: String) {
        self.bus.publish(Event::new(clock::now(), Kind::Fault { what: "scheduled".into(), detail }));
    }

    pub(super) async fn run_scheduled(
        &self,
        snapshot: &Snapshot,
        due: Due<'_>,
        errand: &Arc<Errand>,
    ) -> Result<Acceptance, String> {
        let ours = Address::parse(&format!("postmaster@{}", snapshot.config.hostname)).map_err(|e| e.to_string())?;
        let (mut told, about) = (Told::default(), format!("the cron {}", due.cron));
        let call = call(snapshot, &due, errand.lent());
        if snapshot.release.has(&call.main, call.happening.handler()) {
            let turn = self.turns.take(NOWHERE, Instant::now() + PATIENCE).await;
            let turn = turn.ok_or_else(|| too_busy().to_string())?;
            self.handle((snapshot, &snapshot.release), call, &ours, &about, (turn, errand), &mut told).await?;
        }
        Ok(acceptance(due, &ours, told))
    }
}

/// A time that has come.
pub(super) struct Due<'a> {
    pub cron: &'a str,
    pub at: Timestamp,
    pub now: Timestamp,
    pub seed: Seed,
    /// What its run is called.
    pub subject: String,
}

/// How the worker is called for it.
pub(super) fn call(snapshot: &Snapshot, due: &Due<'_>, reach: Lent) -> HappeningCall {
    HappeningCall {
        happening: Happening::Scheduled,
        main: snapshot.config.main_for(None, None),
        subaddress: String::new(),
        event: json!({ "cron": due.cron, "scheduled_time": due.at.as_millis() }),
        now: due.now,
        seed: due.seed,
        reach,
    }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

fn mark(cron: &Cron, at: Timestamp) -> kv::Write {
    kv::Write::Put {
        namespace: SCHEDULED.to_owned(),
        key: cron.text().to_owned(),
        value: kv::Value::Text(at.as_millis().to_string()),
        metadata: None,
        expires_at: None,
    }
}

/// The run as a message of ours.
fn acceptance(due: Due<'_>, ours: &Address, told: Told) -> Acceptance {
    let Due { now, subject, .. } = due;
    let id: MessageId = clock::message_id(now);
    let count = u32::try_from(told.deliveries.len()).unwrap_or(u32::MAX);
    let reply = Reply::new(250, 0, 0, subject.clone());
    let octets = format!("From: <{ours}>\r\nDate: {}\r\nSubject: {subject}\r\n\r\n", now.to_rfc5322());
    let mut events = told.events;
    events.push(Event::new(now, Kind::Accepted { reply, deliveries: count }));
    for event in &mut events {
        event.message = Some(id);
    }
    let envelope = Envelope {
        sender: None,
        recipients: Vec::new(),
        smtputf8: false,
        body: BodyKind::SevenBit,
        ret: None,
        envid: None,
    };
    Acceptance {
        subject: Some(subject),
        header_from: Some(ours.to_string()),
        deliveries: told.deliveries,
        kv_reads: told.reads,
        kv_writes: told.writes,
        events,
        authored: told.authored,
        ..Acceptance::ours(id, envelope, octets.into_bytes(), headers::never_again(id), now)
    }
}
