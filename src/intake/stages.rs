//! Before there is a recipient: may this client speak, by this name, for this sender?
//!
//! The first worker is asked, where it has `connect`, `helo` or `mail_from`. What each notes is there for those after it:
//! a greeting begins with what `connect` noted, a transaction with what the last greeting left.
//! Standards: RFC 5321 §3.1 (554 in place of the greeting), §4.1.4 (a refused EHLO changes nothing), §4.3.2.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::decide::{log_events, reached_events, script_failed};
use super::errand::Errand;
use super::{Intake, Notes, PATIENCE, Snapshot, Visit, too_busy};
use crate::aside;
use crate::clock::{self, Instant};
use crate::event::{Event, Kind};
use crate::mail::{Address, Client, Envelope, Reply, SessionLimits};
use crate::rules::{KvView, Lent, Release, Seed, SessionFacts, Stage, StageCall, StageVerdict};
use crate::smtp::Answer;

impl Intake {
    pub(super) async fn connect(&self, visit: &mut Visit, client: &Client) -> Answer {
        visit.origin = visit.snapshot.config.geoip.origin(client.ip);
        self.look_at_client(visit, client);
        match self.stage(visit, client, Stage::Connect, None, Notes::new()).await {
            Ok((notes, limits)) => {
                visit.connected = notes;
                welcome(limits)
            }
            Err(reply) => Answer::Reply(self.said_no(visit, client, "connect", None, reply)),
        }
    }

    pub(super) async fn helo(&self, visit: &mut Visit, client: &Client) -> Answer {
        match self.stage(visit, client, Stage::Helo, None, visit.connected.clone()).await {
            Ok((notes, _)) => {
                visit.greeted = notes;
                Answer::Accept
            }
            Err(reply) => Answer::Reply(self.said_no(visit, client, "helo", None, reply)),
        }
    }

    pub(super) async fn mail_from(&self, visit: &mut Visit, client: &Client, envelope: Envelope) -> Answer {
        let sender = envelope.sender;
        self.current.take_deployed(&mut visit.snapshot);
        if !self.store.has_room() {
            let reply = Reply::new(452, 3, 1, "Not enough space here for more mail; try again later");
            return Answer::Reply(self.said_no(visit, client, "mail", sender.as_ref(), reply));
        }
        match self.stage(visit, client, Stage::MailFrom, sender.as_ref(), visit.greeted.clone()).await {
            Ok((notes, _)) => {
                visit.notes = notes;
                self.look_at_sender(visit, client, sender.as_ref());
                visit.sender = sender;
                Answer::Accept
            }
            Err(reply) => Answer::Reply(self.said_no(visit, client, "mail", sender.as_ref(), reply)),
        }
    }

    fn said_no(&self, visit: &Visit, client: &Client, phase: &str, sender: Option<&Address>, reply: Reply) -> Reply {
        self.refused(visit, client, phase, sender, None, &reply);
        reply
    }

    /// The notes as the handler leaves them, unchanged where there is none, and what it lets the session do.
    ///
    /// # Errors
    /// What to say where it may not go on.
    async fn stage(
        &self,
        visit: &mut Visit,
        client: &Client,
        stage: Stage,
        sender: Option<&Address>,
        notes: Notes,
    ) -> Result<(Notes, SessionLimits), Reply> {
        if !visit.snapshot.release.asks(stage) {
            return Ok((notes, SessionLimits::default()));
        }
        let session = SessionFacts { client: self.named(visit, client).await, sender: sender.cloned(), notes };
        let call = stage_call(&visit.snapshot, stage, session, clock::seed());
        let script = Script {
            name: stage.handler(),
            within: Release::stage_within,
            whole: Release::stage,
            lend: |call: &mut StageCall, reach| call.reach = reach,
        };
        let rules = &visit.snapshot.release;
        let outcome = self.run(visit, rules, client.ip, call, script).await.map_err(|reply| at_stage(stage, reply))?;
        let now = clock::now();
        let told = reached_events(now, None, outcome.reached).into_iter().chain(log_events(now, None, outcome.log));
        for event in told {
            self.bus.publish(event.in_session(visit.session));
        }
        if let StageVerdict::Failed { error } = &outcome.verdict {
            let failed = script_failed(rules, now, None, stage.handler(), error.clone());
            self.bus.publish(failed.in_session(visit.session));
        }
        match stage_reply(stage, &outcome.verdict) {
            None => Ok((outcome.notes, outcome.limits)),
            Some(reply) => Err(reply),
        }
    }

    /// Runs a handler: at once where it is short, else when its turn has come.
    ///
    /// # Errors
    /// What to say where it couldn't be run.
    pub(super) async fn run<C: Send + 'static, T: Send + 'static>(
        &self,
        visit: &Visit,
        release: &Arc<Release>,
        client: IpAddr,
        mut call: C,
        script: Script<C, T>,
    ) -> Result<T, Reply> {
        let short = self.in_place.attempt(|patience| (script.within)(release, patience, &call, &self.store.kv()));
        if let Some(done) = short {
            return done.map_err(|panic| self.panicked(visit, script.name, &panic));
        }
        let turn = self.turns.take(client, Instant::now() + PATIENCE).await;
        let turn = turn.ok_or_else(too_busy)?;
        let (release, kv) = (Arc::clone(release), self.store.kv());
        let errand = Errand::new(&self.ways, &self.turns, &visit.snapshot.config, client);
        (script.lend)(&mut call, errand.lent());
        let task = aside::run(move || errand.within(turn, || (script.whole)(&release, &call, &kv)));
        task.await.map_err(|error| self.panicked(visit, script.name, &error.to_string()))
    }

    fn panicked(&self, visit: &Visit, handler: &str, detail: &str) -> Reply {
        let kind = Kind::Fault { what: handler.to_owned(), detail: format!("panicked: {detail}") };
        self.bus.publish(Event::new(clock::now(), kind).in_session(visit.session));
        Reply::new(451, 3, 0, "Something failed here, try again later")
    }
}

/// How a handler is run: for a moment, or with all of its budget.
pub(super) struct Script<C, T> {
    pub name: &'static str,
    pub within: fn(&Release, Duration, &C, &KvView) -> Option<T>,
    pub whole: fn(&Release, &C, &KvView) -> T,
    /// Whom it asks outside.
    pub lend: fn(&mut C, Lent),
}

pub(super) fn stage_call(snapshot: &Snapshot, stage: Stage, session: SessionFacts, seed: Seed) -> StageCall {
    // No recipient says whose mail it is: the first domain's separator.
    let subaddress = snapshot.config.domains.first().map(|domain| domain.subaddress.clone()).unwrap_or_default();
    StageCall { stage, session, subaddress, now: clock::now(), seed, reach: Lent::default() }
}

/// The greeting, and what the session may.
pub(super) fn welcome(limits: SessionLimits) -> Answer {
    if limits.is_none() { Answer::Accept } else { Answer::Within(limits) }
}

/// What is said to the client; `None`: it may go on.
pub(super) fn stage_reply(stage: Stage, verdict: &StageVerdict) -> Option<Reply> {
    match verdict {
        StageVerdict::Accept => None,
        StageVerdict::Reject { reply, .. } | StageVerdict::Defer { reply, .. } => Some(reply.clone()),
        StageVerdict::Failed { .. } => {
            Some(at_stage(stage, Reply::new(451, 3, 0, "The rules here failed, try again later")))
        }
    }
}

/// In place of the greeting a temporary refusal is 421 (RFC 5321 §4.3.2).
fn at_stage(stage: Stage, reply: Reply) -> Reply {
    if stage == Stage::Connect && reply.is_temporary() { Reply { code: 421, ..reply } } else { reply }
}
