//! One run of a handler: what it has asked for so far. Shared by everything the script was handed, dropped with it.
//!
//! Does nothing: effects, writes, reads and log lines are staged, and become an outcome only when the script has
//! returned. Bounded: actions, reads and log lines are counted. What goes beyond the budget, and a store that can't
//! answer, are errors that a script's `try` doesn't catch.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rhai::{Dynamic, EvalAltResult, Map, NativeCallContext, Position};
use serde_json::Value as Json;

use super::env::Environment;
use super::kv::Staging;
use super::value;
use crate::mail::{Address, Reply, SessionLimits, Timestamp};
use crate::rules::engine::waiting;
use crate::rules::outcome::{Effect, LogLine, Place};
use crate::rules::reach::{Lent, Reached, Request};
use crate::rules::{Happening, KvView, Seed, Stage};

/// Lines that one run may log, and octets of each.
const MAX_LINES: usize = 100;
const MAX_LINE: usize = 4096;
/// Octets of `session.notes` as JSON: they go on with the session.
const MAX_NOTES: usize = 64 * 1024;

/// What an API function returns to the engine.
pub type ScriptResult<T> = Result<T, Box<EvalAltResult>>;

/// The handlers of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handler {
    Stage(Stage),
    RcptTo,
    Email,
    Happening(Happening),
    /// No handler: a test of rules, in whose runs others decide.
    Test,
}

impl Handler {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stage(stage) => stage.handler(),
            Self::RcptTo => "rcpt_to",
            Self::Email => "email",
            Self::Happening(happening) => happening.handler(),
            Self::Test => "test",
        }
    }
}

/// The state of one run.
pub struct Run {
    pub main: String,
    pub handler: Handler,
    /// The recipient's domain's separator; empty: no subaddresses.
    pub subaddress: String,
    pub now: Timestamp,
    pub seed: Seed,
    pub environment: Arc<Environment>,
    keys: KvView,
    pub reach: Lent,
    /// Whom the lists are asked about.
    pub client: IpAddr,
    state: Mutex<State>,
    /// What has ended the run. Kept apart from the error, since some functions of Rhai (`sort`) swallow what their
    /// closures throw, and from the state, whose lock its finder may hold.
    fatal: OnceLock<Fatal>,
}

/// What was asked for so far.
#[derive(Debug, Default)]
pub struct State {
    pub reject: Option<(Reply, Place)>,
    pub defer: Option<(Reply, Place)>,
    pub drop: Option<Place>,
    /// The reason.
    pub quarantine: Option<(String, Place)>,
    pub redirect: Option<(Address, Place)>,
    pub effects: Vec<(Effect, Place)>,
    pub kv: Staging,
    pub log: Vec<LogLine>,
    /// What was asked outside, and what the trace tells of it.
    pub requests: Vec<Request>,
    pub reached: Vec<Reached>,
    pub notes: Map,
    /// What `connect` lets the session do.
    pub limits: SessionLimits,
    /// Labels, each once.
    pub tags: Vec<String>,
    /// How many places of the message fields are taken out of.
    pub places: usize,
    /// Octets and number of the mails that it writes.
    pub written: (usize, usize),
    /// The message has its answer.
    pub replied: bool,
    /// How many limits were asked for.
    pub questions: u64,
    /// How many ids were drawn.
    pub drawn: u64,
}

/// What a run is started with.
pub struct Start<'a> {
    pub main: &'a str,
    pub handler: Handler,
    pub subaddress: &'a str,
    pub now: Timestamp,
    pub seed: Seed,
    pub environment: &'a Arc<Environment>,
    pub kv: &'a KvView,
    pub reach: &'a Lent,
    pub client: IpAddr,
    pub notes: &'a BTreeMap<String, Json>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("main", &self.main).field("handler", &self.handler).finish_non_exhaustive()
    }
}

impl Run {
    #[must_use]
    pub fn new(start: &Start<'_>) -> Self {
        let notes = start.notes.iter().map(|(name, json)| (name.as_str().into(), value::from_json(json))).collect();
        Self {
            main: start.main.to_owned(),
            handler: start.handler,
            subaddress: start.subaddress.to_owned(),
            now: start.now,
            seed: start.seed,
            environment: Arc::clone(start.environment),
            keys: Arc::clone(start.kv),
            reach: start.reach.clone(),
            client: start.client,
            state: Mutex::new(State { notes, ..State::default() }),
            fatal: OnceLock::new(),
        }
    }

    /// The state; locked for as long as the guard lives.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a call, in the file that the calling function stands in.
    #[must_use]
    pub fn place(&self, context: &NativeCallContext) -> Place {
        place_at(context.call_source().unwrap_or(&self.main), context.call_position())
    }

    /// Asks KV.
    pub(super) fn keys<T>(&self, ask: impl FnOnce(&KvView) -> T) -> T {
        waiting(|| ask(&self.keys))
    }

    /// Stages one effect.
    ///
    /// # Errors
    /// The budget's actions are used up.
    pub fn stage(&self, context: &NativeCallContext, effect: Effect) -> ScriptResult<()> {
        self.count_action(context)?;
        let at = self.place(context);
        self.state().effects.push((effect, at));
        Ok(())
    }

    /// Room for one more effect or write.
    ///
    /// # Errors
    /// The budget's actions are used up.
    pub fn count_action(&self, context: &NativeCallContext) -> ScriptResult<()> {
        let most = self.environment.actions;
        let state = self.state();
        if state.effects.len() + state.kv.writes.len() < most {
            return Ok(());
        }
        Err(self.overrun(context, format!("more than {most} actions in one run (forward, webhook, store, put, …)")))
    }

    /// An error that no `try` catches: the run ends here.
    #[must_use]
    pub fn overrun(&self, context: &NativeCallContext, text: String) -> Box<EvalAltResult> {
        let fatal = Fatal { at: self.place(context), text };
        let _first_stays = self.fatal.set(fatal.clone());
        Box::new(EvalAltResult::ErrorSystem(String::new(), Box::new(fatal)))
    }

    /// What has ended this run, though the script may have gone on.
    #[must_use]
    pub fn fatal(&self) -> Option<&Fatal> {
        self.fatal.get()
    }

    /// Keeps a line of the log; of very many the rest is left out, and said so.
    pub fn log(&self, at: Place, text: &str) {
        let mut state = self.state();
        if state.log.len() > MAX_LINES {
            return;
        }
        let text = if state.log.len() == MAX_LINES {
            format!("(more than {MAX_LINES} lines: the rest is left out)")
        } else {
            // Before it is cut, which may leave a part of one.
            let text = self.hidden(text);
            text.get(..text.floor_char_boundary(MAX_LINE)).unwrap_or_default().to_owned()
        };
        state.log.push(LogLine { at, text });
    }

    /// The text without the values of secrets.
    #[must_use]
    pub fn hidden<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let hidden = &self.environment.hidden;
        if hidden.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(hidden.hide(text.to_owned())) }
    }

    /// The next of what this run draws from its seed.
    pub fn draw(&self) -> [u8; 32] {
        let mut state = self.state();
        state.drawn += 1;
        self.seed.draw(state.drawn)
    }

    /// Replaces `session.notes`.
    ///
    /// # Errors
    /// What in them has no JSON, or that they are too large.
    pub fn set_notes(&self, notes: Map) -> Result<(), String> {
        let json = value::to_json(&Dynamic::from_map(notes.clone())).map_err(|why| format!("session.notes: {why}"))?;
        if value::json_size(&json) > MAX_NOTES {
            return Err(format!("session.notes: larger than {MAX_NOTES} octets of JSON"));
        }
        self.state().notes = notes;
        Ok(())
    }
}

/// A place in `file`; 0 where it isn't known.
#[must_use]
pub fn place_at(file: &str, position: Position) -> Place {
    let number = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    Place { file: file.to_owned(), line: number(position.line()), column: number(position.position()) }
}

/// What ends a run whatever the script says.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{at}: {text}")]
pub struct Fatal {
    pub at: Place,
    pub text: String,
}

/// An error of the script at the place of this call.
#[must_use]
pub fn refuse(context: &NativeCallContext, text: impl Into<String>) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(text.into().into(), context.call_position()))
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Run>>> = const { RefCell::new(None) };
}

/// The run of this thread, for what is handed no view: getters of strings, `print`.
#[must_use]
pub fn current() -> Option<Arc<Run>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// The text without the values of secrets that the run of this thread may know.
#[must_use]
pub fn hidden(text: &str) -> String {
    current().map_or_else(|| text.to_owned(), |run| run.hidden(text).into_owned())
}

/// At most so many octets of what a script wrote, for an error.
#[must_use]
pub fn beginning(text: &str, most: usize) -> String {
    let mut shown = hidden(text);
    shown.truncate(shown.floor_char_boundary(most));
    shown
}

/// Makes `run` the thread's until the guard is dropped. A run stays on its thread.
#[must_use]
pub fn enter(run: &Arc<Run>) -> Entered {
    CURRENT.with(|current| Entered(current.replace(Some(Arc::clone(run)))))
}

/// Gives the thread back what was current before.
pub struct Entered(Option<Arc<Run>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| current.replace(self.0.take()));
    }
}
