//! A deployed rule set: sources compiled once, shared by every run.
//!
//! Never does anything but decide: what a run asks for comes back as an [`Outcome`]. A run that fails in any way (an
//! error, an overrun, a panic of the engine) asks for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rhai::{Dynamic, Engine, Map};

use super::api::context::ContextView;
use super::api::env::{EnvView, Environment};
use super::api::message::MessageView;
use super::api::run::{Handler, Run, Start, State, enter, place_at};
use super::api::session::SessionView;
use super::api::{address, value};
use super::check::{self, Mains};
use super::engine::{Budget, Metered, exceeded, metered};
use super::failure::describe;
use super::outcome::{Effect, Place, Usage};
use super::stack::with_room;
use super::step::{Watcher, watch};
use super::worker::{Entry, Worker};
use super::{
    Bindings, EmailCall, KvView, Outcome, RcptCall, RcptOutcome, RcptVerdict, RunClock, Stage, StageCall, StageOutcome,
    StageVerdict, Verdict,
};
use crate::diagnostic::Diagnostic;
use crate::mail::SessionLimits;

/// Characters of a line of the rules that a trace shows.
const MAX_LINE: usize = 200;

/// Compiled workers with what they are bound to. Immutable, shared between threads.
pub struct Release {
    pub(super) engine: Engine,
    pub(super) budget: Budget,
    pub(super) clock: Option<RunClock>,
    pub(super) environment: Arc<Environment>,
    pub(super) workers: BTreeMap<String, Worker>,
    /// The worker that is asked before a recipient is known.
    pub(super) first: String,
    /// What it was compiled from, by file: the lines that errors show.
    pub(super) sources: BTreeMap<String, String>,
}

impl std::fmt::Debug for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Release").field("version", &self.environment.version).finish_non_exhaustive()
    }
}

impl Release {
    /// Compiles `sources` (path as the configuration names it, `rules/main.rhai` ─► text; modules as `rules/lib/spam.rhai`).
    /// `mains` are the scripts that configuration, domains and routes name; the first of them is asked before a recipient
    /// is known.
    ///
    /// # Errors
    /// Every finding, each with its place; warnings come back with the release.
    pub fn compile(
        sources: &BTreeMap<String, String>,
        mains: &[String],
        bindings: Bindings,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        Self::compile_as(Mains::Workers, sources, mains, bindings)
    }

    /// As [`Release::compile`], for what was checked when it was deployed, by this version or an earlier one: names that
    /// can be known before anything runs are only warned of, so that what a version has learnt to refuse stops no mail
    /// that the one before it took.
    ///
    /// # Errors
    /// What can't be run, and what the configuration doesn't give it.
    pub fn compile_deployed(
        sources: &BTreeMap<String, String>,
        mains: &[String],
        bindings: Bindings,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        Self::compile_as(Mains::Deployed, sources, mains, bindings)
    }

    fn compile_as(
        kind: Mains,
        sources: &BTreeMap<String, String>,
        mains: &[String],
        bindings: Bindings,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let budget = bindings.budget.clone().unwrap_or_default();
        let compiled = with_room(&budget, || check::compile(sources, mains, bindings, kind));
        compiled.unwrap_or_else(|why| Err(vec![Diagnostic::unplaced("rules", why)]))
    }

    /// Each step of each run is told to `watcher` from here on. `is_timed`: the budget's time counts nevertheless.
    #[must_use]
    pub fn watched(mut self, watcher: Watcher, is_timed: bool) -> Self {
        watch(&mut self.engine, watcher);
        self.clock = self.clock.filter(|_| is_timed);
        self
    }

    /// The lines that a run can reach, by file, of those that the mains come to.
    #[must_use]
    pub fn reachable(
        sources: &BTreeMap<String, String>,
        mains: &[String],
        bindings: &Bindings,
    ) -> BTreeMap<String, BTreeSet<u32>> {
        let budget = bindings.budget.clone().unwrap_or_default();
        with_room(&budget, || check::reachable(sources, mains, &budget)).unwrap_or_default()
    }

    /// Whether the first worker has a handler for this stage of a session.
    #[must_use]
    pub fn asks(&self, stage: Stage) -> bool {
        self.has(&self.first, stage.handler())
    }

    /// Whether the worker `main` has this handler (`rcpt_to`, `email`).
    #[must_use]
    pub fn has(&self, main: &str, handler: &str) -> bool {
        self.workers.get(main).is_some_and(|worker| worker.entry(handler).is_some())
    }

    /// Whether there is a worker of that name.
    #[must_use]
    pub fn knows(&self, main: &str) -> bool {
        self.workers.contains_key(main)
    }

    /// What [`Release::version`] of these sources is.
    #[must_use]
    pub fn version_of(sources: &BTreeMap<String, String>) -> String {
        check::version(sources)
    }

    /// A hash of the sources: what `ctx.version` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.environment.version
    }

    /// The line that the place before an error's words names, as it was compiled.
    #[must_use]
    pub fn line_of(&self, error: &str) -> Option<String> {
        let (file, line, _) = Place::before(error)?;
        let line = self.sources.get(file)?.lines().nth(line.checked_sub(1)?)?;
        Some(self.hide(line.chars().take(MAX_LINE).collect()))
    }

    /// The text without the values of secrets, which stand in none that is kept or shown.
    #[must_use]
    pub fn hide(&self, text: String) -> String {
        self.environment.hidden.hide(text)
    }

    /// Runs `email`. Blocks for as long as the budget allows: call it where blocking is allowed.
    #[must_use]
    pub fn email(&self, call: &EmailCall, kv: &KvView) -> Outcome {
        let (state, ended) = self.run_email(None, call, kv);
        outcome(ended.result, state, ended.usage)
    }

    /// Runs `email` for at most `patience`, by the clock that the rules were bound to. `None`: that was too short; nothing
    /// has happened, and the run can be had anew. The clock is looked at between operations: a single one may take longer.
    #[must_use]
    pub fn email_within(&self, patience: Duration, call: &EmailCall, kv: &KvView) -> Option<Outcome> {
        let (state, ended) = self.run_email(Some(patience), call, kv);
        (!ended.cut).then(|| outcome(ended.result, state, ended.usage))
    }

    fn run_email(&self, patience: Option<Duration>, call: &EmailCall, kv: &KvView) -> (State, Ended) {
        let run = Arc::new(Run::new(&Start {
            main: &call.main,
            handler: Handler::Email,
            subaddress: &call.subaddress,
            now: call.now,
            seed: call.seed.of(&call.recipient),
            environment: &self.environment,
            kv,
            reach: &call.reach,
            client: call.session.client.ip,
            notes: &call.session.notes,
        }));
        let about = Arc::new(call.clone());
        let arguments = [
            Dynamic::from(MessageView::new(Arc::clone(&about), Arc::clone(&run))),
            Dynamic::from(EnvView::new(Arc::clone(&run))),
            Dynamic::from(ContextView::new(Arc::clone(&run), Some(about))),
        ];
        self.run(patience, &run, "email", arguments)
    }

    /// Runs `rcpt_to`. Blocks likewise.
    #[must_use]
    pub fn rcpt_to(&self, call: &RcptCall, kv: &KvView) -> RcptOutcome {
        let (state, ended) = self.run_rcpt_to(None, call, kv);
        rcpt_outcome(ended.result, state, ended.usage, call)
    }

    /// Runs `rcpt_to` for at most `patience`, as `email_within` does.
    #[must_use]
    pub fn rcpt_to_within(&self, patience: Duration, call: &RcptCall, kv: &KvView) -> Option<RcptOutcome> {
        let (state, ended) = self.run_rcpt_to(Some(patience), call, kv);
        (!ended.cut).then(|| rcpt_outcome(ended.result, state, ended.usage, call))
    }

    fn run_rcpt_to(&self, patience: Option<Duration>, call: &RcptCall, kv: &KvView) -> (State, Ended) {
        let run = Arc::new(Run::new(&Start {
            main: &call.main,
            handler: Handler::RcptTo,
            subaddress: &call.subaddress,
            now: call.now,
            seed: call.seed.of(&call.recipient),
            environment: &self.environment,
            kv,
            reach: &call.reach,
            client: call.session.client.ip,
            notes: &call.session.notes,
        }));
        let arguments = [
            Dynamic::from(SessionView::new(Arc::new(call.session.clone()), Arc::clone(&run))),
            address::to_dynamic(Some(&call.recipient)),
            Dynamic::from(EnvView::new(Arc::clone(&run))),
        ];
        self.run(patience, &run, "rcpt_to", arguments)
    }

    /// Runs the first worker's handler for a stage of the session. Blocks likewise.
    #[must_use]
    pub fn stage(&self, call: &StageCall, kv: &KvView) -> StageOutcome {
        let (state, ended) = self.run_stage(None, call, kv);
        stage_outcome(ended.result, state, ended.usage, call)
    }

    /// Runs it for at most `patience`, as `email_within` does.
    #[must_use]
    pub fn stage_within(&self, patience: Duration, call: &StageCall, kv: &KvView) -> Option<StageOutcome> {
        let (state, ended) = self.run_stage(Some(patience), call, kv);
        (!ended.cut).then(|| stage_outcome(ended.result, state, ended.usage, call))
    }

    fn run_stage(&self, patience: Option<Duration>, call: &StageCall, kv: &KvView) -> (State, Ended) {
        let run = Arc::new(Run::new(&Start {
            main: &self.first,
            handler: Handler::Stage(call.stage),
            subaddress: &call.subaddress,
            now: call.now,
            seed: call.seed,
            environment: &self.environment,
            kv,
            reach: &call.reach,
            client: call.session.client.ip,
            notes: &call.session.notes,
        }));
        let session = Dynamic::from(SessionView::new(Arc::new(call.session.clone()), Arc::clone(&run)));
        let env = Dynamic::from(EnvView::new(Arc::clone(&run)));
        let handler = call.stage.handler();
        match call.stage {
            Stage::Connect | Stage::Helo => self.run(patience, &run, handler, [session, env]),
            Stage::MailFrom => {
                let sender = address::to_dynamic(call.session.sender.as_ref());
                self.run(patience, &run, handler, [session, sender, env])
            }
        }
    }

    /// One run, from start to end on this thread: what it asked for, and how it ended.
    pub(super) fn run<const N: usize>(
        &self,
        patience: Option<Duration>,
        run: &Arc<Run>,
        handler: &str,
        arguments: [Dynamic; N],
    ) -> (State, Ended) {
        let ended = match self.workers.get(&run.main).and_then(|worker| worker.entry(handler)) {
            Some(entry) => self.run_entry(patience, run, entry, arguments),
            None => Ended::failed(&run.main, rhai::Position::NONE, &format!("the worker has no {handler}")),
        };
        let ended = Ended { result: ended.result.map_err(|why| self.hide(why)), ..ended };
        (std::mem::take(&mut *run.state()), ended)
    }

    fn run_entry<const N: usize>(
        &self,
        patience: Option<Duration>,
        run: &Arc<Run>,
        entry: &Entry,
        arguments: [Dynamic; N],
    ) -> Ended {
        let script = || {
            let _entered = enter(run);
            metered(self.clock.as_ref(), &self.budget, patience, || self.evaluate(entry, arguments, &run.main))
        };
        match with_room(&self.budget, script) {
            Ok(Metered { result, operations, cut, exceeded }) => {
                let swallowed = exceeded.filter(|_| result.is_ok());
                let result = match (run.fatal(), swallowed) {
                    (Some(fatal), _) => Err(fatal.to_string()),
                    (None, Some(what)) => Err(format!("{}: {what}", place_at(&run.main, entry.position))),
                    (None, None) => result,
                };
                Ended { result, usage: Usage { operations, micros: 0 }, cut }
            }
            Err(why) => Ended::failed(&run.main, entry.position, why),
        }
    }

    fn evaluate<const N: usize>(&self, entry: &Entry, arguments: [Dynamic; N], main: &str) -> Result<(), String> {
        entry.run(&self.engine, arguments).map_err(|error| {
            let (place, text) = describe(&error, (main, entry.position), &self.budget, &self.environment.hidden);
            // A sort that is cut short says that its closure is in error.
            format!("{place}: {}", exceeded().unwrap_or(text))
        })
    }
}

/// How a run ended.
pub(super) struct Ended {
    /// An error is in words, its place first.
    pub result: Result<(), String>,
    pub usage: Usage,
    /// The caller's patience was at its end: the result says nothing of the script.
    pub cut: bool,
}

impl Ended {
    fn failed(main: &str, position: rhai::Position, why: &str) -> Self {
        Self { result: Err(format!("{}: {why}", place_at(main, position))), usage: Usage::default(), cut: false }
    }
}

/// Failed before Defer before Reject before Quarantine; then the effects, then `drop()`, then nothing at all.
fn outcome(result: Result<(), String>, state: State, usage: Usage) -> Outcome {
    let State { reject, defer, quarantine, drop, mut effects, kv, log, reached, mut tags, .. } = state;
    if result.is_err() {
        tags.clear();
    }
    let (reads, writes, writes_at) = (kv.reads, kv.writes, kv.writes_at);
    if quarantine.is_some() {
        effects.retain(|(effect, _)| matches!(effect, Effect::Store { .. }));
    }
    let (verdict, effects, writes) = match (result, defer, reject, quarantine) {
        (Err(error), ..) => (Verdict::Failed { error }, Vec::new(), Vec::new()),
        (Ok(()), Some((reply, at)), ..) => (Verdict::Defer { reply, at }, Vec::new(), Vec::new()),
        (Ok(()), None, Some((reply, at)), _) => (Verdict::Reject { reply, at }, Vec::new(), writes),
        (Ok(()), None, None, Some((reason, at))) => (Verdict::Quarantine { reason, at }, effects, writes),
        (Ok(()), None, None, None) if effects.iter().any(|(effect, _)| effect.decides()) => {
            (Verdict::Accept, effects, writes)
        }
        (Ok(()), None, None, None) => (drop.map_or(Verdict::Undecided, |at| Verdict::Drop { at }), effects, writes),
    };
    Outcome { verdict, effects, reads, writes, writes_at, tags, log, reached, usage }
}

fn rcpt_outcome(result: Result<(), String>, state: State, usage: Usage, call: &RcptCall) -> RcptOutcome {
    let verdict = match (result, state.defer, state.reject, state.redirect) {
        (Err(error), ..) => RcptVerdict::Failed { error },
        (Ok(()), Some((reply, at)), ..) => RcptVerdict::Defer { reply, at },
        (Ok(()), None, Some((reply, at)), _) => RcptVerdict::Reject { reply, at },
        (Ok(()), None, None, Some((to, at))) => RcptVerdict::Redirect { to, at },
        (Ok(()), None, None, None) => RcptVerdict::Accept,
    };
    let failed = matches!(verdict, RcptVerdict::Failed { .. });
    let notes = if failed { call.session.notes.clone() } else { noted(state.notes) };
    RcptOutcome { verdict, notes, log: state.log, reached: state.reached, usage }
}

fn stage_outcome(result: Result<(), String>, state: State, usage: Usage, call: &StageCall) -> StageOutcome {
    let verdict = match (result, state.defer, state.reject) {
        (Err(error), ..) => StageVerdict::Failed { error },
        (Ok(()), Some((reply, at)), _) => StageVerdict::Defer { reply, at },
        (Ok(()), None, Some((reply, at))) => StageVerdict::Reject { reply, at },
        (Ok(()), None, None) => StageVerdict::Accept,
    };
    let failed = matches!(verdict, StageVerdict::Failed { .. });
    let notes = if failed { call.session.notes.clone() } else { noted(state.notes) };
    let limits = if failed { SessionLimits::default() } else { state.limits };
    StageOutcome { verdict, limits, notes, log: state.log, reached: state.reached, usage }
}

/// The notes as a run left them; what a failed one noted counts for nothing.
fn noted(notes: Map) -> BTreeMap<String, serde_json::Value> {
    match value::to_json(&Dynamic::from_map(notes)) {
        Ok(serde_json::Value::Object(notes)) => notes.into_iter().collect(),
        // They were checked when they were set.
        _ => BTreeMap::new(),
    }
}
