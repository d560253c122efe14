//! One run of a handler: what it has asked for so far. Shared by everything the script was handed, dropped with it.
//!
//! Does nothing: effects, writes, reads and log lines are staged, and become an outcome only when the script has
//! returned. Bounded: actions and log lines are counted.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rhai::{EvalAltResult, NativeCallContext, Position};

use crate::mail::Timestamp;
use crate::rules::outcome::{Effect, LogLine, Place};

/// Lines that one run may log, and octets of each.
const MAX_LINES: usize = 100;
const MAX_LINE: usize = 4096;

/// What an API function returns to the engine.
pub type ScriptResult<T> = Result<T, Box<EvalAltResult>>;

/// The state of one run.
#[derive(Debug)]
pub struct Run {
    pub main: String,
    /// The recipient's domain's separator; empty: no subaddresses.
    pub subaddress: String,
    pub now: Timestamp,
    max_actions: usize,
    state: Mutex<State>,
}

/// What was asked for so far.
#[derive(Debug, Default)]
pub struct State {
    pub effects: Vec<(Effect, Place)>,
    pub log: Vec<LogLine>,
}

impl Run {
    #[must_use]
    pub fn new(main: String, subaddress: String, now: Timestamp, max_actions: usize) -> Self {
        Self { main, subaddress, now, max_actions, state: Mutex::default() }
    }

    /// The state; locked for as long as the guard lives.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a call, in the file that the calling function stands in.
    #[must_use]
    pub fn place(&self, context: &NativeCallContext) -> Place {
        self.place_at(context.call_source(), context.call_position())
    }

    /// A place in `source`; the main script's where there is none.
    #[must_use]
    pub fn place_at(&self, source: Option<&str>, position: Position) -> Place {
        let number = |n: Option<usize>| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        Place {
            file: source.unwrap_or(&self.main).to_owned(),
            line: number(position.line()),
            column: number(position.position()),
        }
    }

    /// Stages one effect.
    ///
    /// # Errors
    /// The budget's actions are used up.
    pub fn stage(&self, context: &NativeCallContext, effect: Effect) -> ScriptResult<()> {
        let at = self.place(context);
        let mut state = self.state();
        if state.effects.len() >= self.max_actions {
            return Err(refuse(context, format!("more than {} actions in one run", self.max_actions)));
        }
        state.effects.push((effect, at));
        Ok(())
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
            let cut = text.floor_char_boundary(MAX_LINE);
            text.get(..cut).unwrap_or_default().to_owned()
        };
        state.log.push(LogLine { at, text });
    }
}

/// An error of the script at the place of this call.
#[must_use]
pub fn refuse(context: &NativeCallContext, text: impl Into<String>) -> Box<EvalAltResult> {
    Box::new(EvalAltResult::ErrorRuntime(text.into().into(), context.call_position()))
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Run>>> = const { RefCell::new(None) };
}

/// The run of this thread, for what is handed no view: getters of strings, `print`, the clock.
#[must_use]
pub fn current() -> Option<Arc<Run>> {
    CURRENT.with(|current| current.borrow().clone())
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
