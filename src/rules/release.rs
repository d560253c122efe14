//! A deployed rule set: sources compiled once, shared by every run.

use std::collections::BTreeMap;

use super::{Bindings, EmailCall, KvView, Outcome, RcptCall, RcptOutcome};
use crate::diagnostic::Diagnostic;

/// Compiled workers with what they are bound to. Immutable, shared between threads.
#[derive(Debug)]
pub struct Release {}

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
        let _ = (sources, mains, bindings);
        Ok((Self {}, Vec::new()))
    }

    /// Whether the worker `main` has this handler (`rcpt_to`, `email`).
    #[must_use]
    pub fn has(&self, main: &str, handler: &str) -> bool {
        let _ = (main, handler);
        false
    }

    /// Runs `email`. Blocks for as long as the budget allows: call it where blocking is allowed.
    #[must_use]
    pub fn email(&self, call: &EmailCall, kv: &KvView) -> Outcome {
        let _ = (call, kv);
        unimplemented!()
    }

    /// Runs `rcpt_to`. Blocks likewise.
    #[must_use]
    pub fn rcpt_to(&self, call: &RcptCall, kv: &KvView) -> RcptOutcome {
        let _ = (call, kv);
        unimplemented!()
    }
}
