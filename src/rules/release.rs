//! A deployed rule set: sources compiled once, shared by every run.
//!
//! Never does anything but decide: what a run asks for comes back as an [`Outcome`]. A run that fails in any way (an
//! error, an overrun, a panic of the engine) asks for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{Dynamic, Engine, Scope};

use super::api::context::ContextView;
use super::api::env::{EnvView, Environment};
use super::api::message::MessageView;
use super::api::run::{Handler, Run, Start, State, enter, place_at};
use super::api::session::SessionView;
use super::api::{address, value};
use super::check;
use super::engine::{Budget, metered};
use super::failure::describe;
use super::outcome::Usage;
use super::stack::with_room;
use super::worker::{ARGUMENTS, Entry, Worker};
use super::{Bindings, EmailCall, KvView, Outcome, RcptCall, RcptOutcome, RcptVerdict, RunClock, Verdict};
use crate::diagnostic::Diagnostic;

/// Compiled workers with what they are bound to. Immutable, shared between threads.
pub struct Release {
    pub(super) engine: Engine,
    pub(super) budget: Budget,
    pub(super) clock: Option<RunClock>,
    pub(super) environment: Arc<Environment>,
    pub(super) workers: BTreeMap<String, Worker>,
}

impl std::fmt::Debug for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Release").field("version", &self.environment.version).finish_non_exhaustive()
    }
}

impl Release {
    /// Compiles `sources` (path as the configuration names it, `rules/main.rhai` ─► text; modules as `rules/lib/spam.rhai`).
    /// `mains` are the scripts that domains and routes name.
    ///
    /// # Errors
    /// Every finding, each with its place; warnings come back with the release.
    pub fn compile(
        sources: &BTreeMap<String, String>,
        mains: &[String],
        bindings: Bindings,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let budget = bindings.budget.clone().unwrap_or_default();
        let compiled = with_room(&budget, || check::compile(sources, mains, bindings));
        compiled.unwrap_or_else(|why| Err(vec![check::unplaced(why)]))
    }

    /// Whether the worker `main` has this handler (`rcpt_to`, `email`).
    #[must_use]
    pub fn has(&self, main: &str, handler: &str) -> bool {
        self.workers.get(main).is_some_and(|worker| worker.entry(handler).is_some())
    }

    /// A hash of the sources: what `ctx.version` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.environment.version
    }

    /// Runs `email`. Blocks for as long as the budget allows: call it where blocking is allowed.
    #[must_use]
    pub fn email(&self, call: &EmailCall, kv: &KvView) -> Outcome {
        let run = Arc::new(Run::new(&Start {
            main: &call.main,
            handler: Handler::Email,
            subaddress: &call.subaddress,
            now: call.now,
            environment: &self.environment,
            kv,
            notes: &call.session.notes,
        }));
        let message = MessageView::new(Arc::new(call.clone()), Arc::clone(&run));
        let arguments = [
            Dynamic::from(message),
            Dynamic::from(EnvView::new(Arc::clone(&run))),
            Dynamic::from(ContextView::new(Arc::clone(&run))),
        ];
        let (result, usage) = self.run(&run, "email", arguments);
        let state = std::mem::take(&mut *run.state());
        outcome(result, state, usage)
    }

    /// Runs `rcpt_to`. Blocks likewise.
    #[must_use]
    pub fn rcpt_to(&self, call: &RcptCall, kv: &KvView) -> RcptOutcome {
        let run = Arc::new(Run::new(&Start {
            main: &call.main,
            handler: Handler::RcptTo,
            subaddress: &call.subaddress,
            now: call.now,
            environment: &self.environment,
            kv,
            notes: &call.session.notes,
        }));
        let arguments = [
            Dynamic::from(SessionView::new(Arc::new(call.session.clone()), Arc::clone(&run))),
            address::to_dynamic(Some(&call.recipient)),
            Dynamic::from(EnvView::new(Arc::clone(&run))),
        ];
        let (result, usage) = self.run(&run, "rcpt_to", arguments);
        let state = std::mem::take(&mut *run.state());
        rcpt_outcome(result, state, usage, call)
    }

    /// One run, from start to end on this thread. An error comes back in words, its place first.
    fn run(&self, run: &Arc<Run>, handler: &str, arguments: [Dynamic; ARGUMENTS.len()]) -> (Result<(), String>, Usage) {
        let Some(entry) = self.workers.get(&run.main).and_then(|worker| worker.entry(handler)) else {
            let error = format!("{}: the worker has no {handler}", place_at(&run.main, rhai::Position::NONE));
            return (Err(error), Usage::default());
        };
        let script = || {
            let _entered = enter(run);
            metered(self.clock.as_ref(), &self.budget, || self.evaluate(entry, arguments, &run.main))
        };
        match with_room(&self.budget, script) {
            Ok((result, operations)) => {
                let result = run.fatal().map_or(result, |fatal| Err(fatal.to_string()));
                (result, Usage { operations, micros: 0 })
            }
            Err(why) => (Err(format!("{}: {why}", place_at(&run.main, entry.position))), Usage::default()),
        }
    }

    fn evaluate(&self, entry: &Entry, arguments: [Dynamic; ARGUMENTS.len()], main: &str) -> Result<(), String> {
        let mut scope = Scope::new();
        for (name, argument) in ARGUMENTS.iter().zip(arguments) {
            scope.push_dynamic(*name, argument);
        }
        match self.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &entry.script) {
            Ok(_) => Ok(()),
            Err(error) => {
                let (place, text) = describe(&error, main, entry.position, &self.budget);
                Err(format!("{place}: {text}"))
            }
        }
    }
}

/// Failed before Defer before Reject; then the effects, then `drop()`, then nothing at all.
fn outcome(result: Result<(), String>, state: State, usage: Usage) -> Outcome {
    let State { reject, defer, drop, effects, kv, log, .. } = state;
    let (reads, writes) = (kv.reads, kv.writes);
    let (verdict, effects, writes) = match (result, defer, reject) {
        (Err(error), ..) => (Verdict::Failed { error }, Vec::new(), Vec::new()),
        (Ok(()), Some((reply, at)), _) => (Verdict::Defer { reply, at }, Vec::new(), Vec::new()),
        (Ok(()), None, Some((reply, at))) => (Verdict::Reject { reply, at }, Vec::new(), writes),
        (Ok(()), None, None) if !effects.is_empty() => (Verdict::Accept, effects, writes),
        (Ok(()), None, None) => (drop.map_or(Verdict::Undecided, |at| Verdict::Drop { at }), effects, writes),
    };
    Outcome { verdict, effects, reads, writes, log, usage }
}

fn rcpt_outcome(result: Result<(), String>, state: State, usage: Usage, call: &RcptCall) -> RcptOutcome {
    let verdict = match (result, state.defer, state.reject, state.redirect) {
        (Err(error), ..) => RcptVerdict::Failed { error },
        (Ok(()), Some((reply, at)), ..) => RcptVerdict::Defer { reply, at },
        (Ok(()), None, Some((reply, at)), _) => RcptVerdict::Reject { reply, at },
        (Ok(()), None, None, Some((to, at))) => RcptVerdict::Redirect { to, at },
        (Ok(()), None, None, None) => RcptVerdict::Accept,
    };
    let notes = match (&verdict, value::to_json(&Dynamic::from_map(state.notes))) {
        // What a failed run noted counts for nothing.
        (RcptVerdict::Failed { .. }, _) => call.session.notes.clone(),
        (_, Ok(serde_json::Value::Object(notes))) => notes.into_iter().collect(),
        // They were checked when they were set.
        _ => BTreeMap::new(),
    };
    RcptOutcome { verdict, notes, log: state.log, usage }
}
