//! Tests of rules that are written in Rhai: each function `test_…` is a run of its own, which asks what the rules decide.
//!
//! Beside what a worker has, a test has `decide` and assertions. Who decides is lent by the caller ([`Decides`]), which knows
//! configuration and messages; here both sides are JSON. A failed assertion ends the test whatever it catches.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString, Map, NativeCallContext};
use serde_json::Value as Json;

use super::api::message::MessageView;
use super::api::run::{Handler, Run, ScriptResult, Start, current, refuse};
use super::api::value::{from_json, to_json};
use super::outcome::LogLine;
use super::stack::with_room;
use super::step::Watcher;
use super::{Bindings, EmailCall, KvView, Lent, Release, Seed, check};
use crate::diagnostic::Diagnostic;
use crate::mail::Timestamp;

/// What a test's name begins with.
pub(super) const PREFIX: &str = "test_";
/// Characters of a value that an assertion shows.
const MAX_SHOWN: usize = 600;

/// Decides on what a test describes.
pub trait Decides: Send + Sync {
    /// # Errors
    /// What is wrong with the description, or with the decision, in words: the test fails by them.
    fn decide(&self, asked: &Json) -> Result<Json, String>;

    /// The message that a test describes, for its first recipient, as `email` would be called with it.
    ///
    /// # Errors
    /// What is wrong with the description.
    fn message(&self, asked: &Json) -> Result<EmailCall, String>;
}

/// The tests of one file, compiled with the rules that it imports.
pub struct Scripted {
    release: Release,
    file: String,
    /// In the order of the file: name and line.
    tests: Vec<(String, u32)>,
}

/// What a test came to.
#[derive(Debug)]
pub struct Ran {
    /// Why it failed begins with `file:line:column:`.
    pub result: Result<(), String>,
    pub log: Vec<LogLine>,
}

impl Scripted {
    /// Compiles `file`, one of the sources; the others are what it may import.
    ///
    /// # Errors
    /// Every finding, each with its place.
    pub fn compile(
        file: &str,
        sources: &BTreeMap<String, String>,
        bindings: Bindings,
    ) -> Result<Self, Vec<Diagnostic>> {
        let budget = bindings.budget.clone().unwrap_or_default();
        let compiled = with_room(&budget, || check::compile_tests(sources, file, bindings));
        let (release, tests) = compiled.unwrap_or_else(|why| Err(vec![Diagnostic::unplaced(file, why)]))?;
        Ok(Self { release, file: file.to_owned(), tests })
    }

    /// Each step of each test is told to `watcher` from here on.
    #[must_use]
    pub fn watched(self, watcher: Watcher) -> Self {
        Self { release: self.release.watched(watcher, true), ..self }
    }

    #[must_use]
    pub fn tests(&self) -> &[(String, u32)] {
        &self.tests
    }

    /// Runs one. Blocks for as long as it takes.
    #[must_use]
    pub fn run(&self, test: &str, now: Timestamp, kv: &KvView, decides: Arc<dyn Decides>) -> Ran {
        let run = Arc::new(Run::new(&Start {
            main: &self.file,
            handler: Handler::Test,
            subaddress: "",
            now,
            seed: Seed::default(),
            environment: &self.release.environment,
            kv,
            reach: &Lent::default(),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            notes: &BTreeMap::new(),
        }));
        let before = DECIDES.replace(Some(decides));
        let (state, ended) = self.release.run(None, &run, test, []);
        DECIDES.set(before);
        Ran { result: ended.result, log: state.log }
    }
}

thread_local! {
    /// Who decides for this thread's test.
    static DECIDES: RefCell<Option<Arc<dyn Decides>>> = const { RefCell::new(None) };
}

/// What a test has beside what a worker has.
pub(super) fn register(engine: &mut Engine) {
    engine
        .register_fn("decide", |context: NativeCallContext, asked: Map| decide(&context, asked))
        .register_fn("mail", |context: NativeCallContext, asked: Map| mail(&context, asked))
        .register_fn("assert", |context: NativeCallContext, holds: bool| {
            judged(&context, holds, || "assert: this isn't so".to_owned())
        })
        .register_fn("assert", |context: NativeCallContext, holds: bool, text: ImmutableString| {
            judged(&context, holds, || format!("assert: {text}"))
        })
        .register_fn("assert_eq", |context: NativeCallContext, found: Dynamic, wanted: Dynamic| {
            compared(&context, &found, &wanted, is_same, "it isn't")
        })
        .register_fn("assert_ne", |context: NativeCallContext, found: Dynamic, wanted: Dynamic| {
            compared(&context, &found, &wanted, |found, wanted| !is_same(found, wanted), "it was to differ from")
        })
        .register_fn("assert_like", |context: NativeCallContext, found: Dynamic, wanted: Dynamic| {
            compared(&context, &found, &wanted, is_like, "it isn't like")
        });
}

fn decide(context: &NativeCallContext, asked: Map) -> ScriptResult<Dynamic> {
    let asked = to_json(&Dynamic::from_map(asked)).map_err(|why| refuse(context, format!("decide: {why}")))?;
    let lent = DECIDES.with_borrow(Clone::clone);
    let Some(judge) = lent else { return Err(refuse(context, "decide: nobody decides here")) };
    match judge.decide(&asked) {
        Ok(decided) => Ok(from_json(&decided)),
        Err(why) => Err(fails(context, format!("decide: {why}"))),
    }
}

/// What functions of modules are handed as `message`; what they tell it comes to nothing.
fn mail(context: &NativeCallContext, asked: Map) -> ScriptResult<Dynamic> {
    let asked = to_json(&Dynamic::from_map(asked)).map_err(|why| refuse(context, format!("mail: {why}")))?;
    let (lent, run) = (DECIDES.with_borrow(Clone::clone), current());
    let (Some(judge), Some(run)) = (lent, run) else { return Err(refuse(context, "mail: there is no test here")) };
    let call = judge.message(&asked).map_err(|why| fails(context, format!("mail: {why}")))?;
    Ok(Dynamic::from(MessageView::new(Arc::new(call), run)))
}

/// The test ends here, and no `try` goes on with it.
#[allow(clippy::unnecessary_box_returns)] // As the engine takes it.
fn fails(context: &NativeCallContext, why: String) -> Box<EvalAltResult> {
    match current() {
        Some(run) => run.overrun(context, why),
        None => refuse(context, why),
    }
}

fn judged(context: &NativeCallContext, holds: bool, why: impl FnOnce() -> String) -> ScriptResult<()> {
    if holds { Ok(()) } else { Err(fails(context, why())) }
}

fn compared(
    context: &NativeCallContext,
    found: &Dynamic,
    wanted: &Dynamic,
    holds: impl FnOnce(&Json, &Json) -> bool,
    how: &str,
) -> ScriptResult<()> {
    let json = |value| to_json(value).map_err(|why| refuse(context, format!("{}: {why}", context.fn_name())));
    let (found, wanted) = (json(found)?, json(wanted)?);
    judged(context, holds(&found, &wanted), || {
        format!("{}: {how} {}\nit is {}", context.fn_name(), shown(&wanted), shown(&found))
    })
}

fn shown(value: &Json) -> String {
    let text = value.to_string();
    let cut = text.floor_char_boundary(MAX_SHOWN);
    let start = text.get(..cut).unwrap_or_default();
    if cut < text.len() { format!("{start}…") } else { text }
}

/// Numbers are the same by their value, however they are written.
fn is_same(found: &Json, wanted: &Json) -> bool {
    match (found, wanted) {
        (Json::Number(found), Json::Number(wanted)) => found == wanted || found.as_f64() == wanted.as_f64(),
        (Json::Array(found), Json::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| is_same(found, wanted))
        }
        (Json::Object(found), Json::Object(wanted)) => {
            found.len() == wanted.len()
                && wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| is_same(found, wanted)))
        }
        (found, wanted) => found == wanted,
    }
}

/// Of maps only the keys that are wanted.
fn is_like(found: &Json, wanted: &Json) -> bool {
    match (found, wanted) {
        (Json::Array(found), Json::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| is_like(found, wanted))
        }
        (Json::Object(found), Json::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| is_like(found, wanted)))
        }
        (found, wanted) => is_same(found, wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_like_something_has_all_that_is_wanted() {
        let found = json!({ "a": [{ "b": 1, "c": 2 }], "d": 1.0 });
        for (wanted, like) in [
            (json!({}), true),
            (json!({ "d": 1 }), true),
            (json!({ "a": [{ "b": 1 }] }), true),
            (json!({ "a": [] }), false),
            (json!({ "e": null }), false),
            (json!([]), false),
        ] {
            assert_eq!(is_like(&found, &wanted), like, "{wanted}");
        }
        assert!(
            is_same(&json!([1, { "a": 2.0 }]), &json!([1.0, { "a": 2 }]))
                && !is_same(&json!({ "a": 1, "b": 2 }), &json!({ "a": 1 }))
        );
    }
}
