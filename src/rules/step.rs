//! A run that is watched step by step: what `explain` traces, and where its debugger stops.
//!
//! Only a release that is asked to tells of its steps; of all others the engine merely looks, at each step, whether
//! anybody watches. Whoever watches may look around and evaluate, and may end the run.

use std::cell::Cell;
use std::sync::Arc;

use rhai::debugger::{DebuggerCommand, DebuggerEvent};
use rhai::{ASTNode, Dynamic, Engine, EvalAltResult, EvalContext, Expr, Stmt};

use super::api::run::{current, hidden, place_at};
use super::api::value::{article, to_json};
use super::engine::Budget;
use super::failure::describe;
use super::hidden::Hidden;
use super::outcome::Place;

/// Octets of a value that are shown.
const MAX_SHOWN: usize = 400;

/// Who is told of each step; an error ends the run with these words.
#[derive(Clone)]
pub struct Watcher(Arc<Told>);

type Told = dyn Fn(&Step<'_>) -> Result<(), String> + Send + Sync;

impl Watcher {
    #[must_use]
    pub fn new(told: impl Fn(&Step<'_>) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

/// A statement or expression that is about to be evaluated.
pub struct Step<'a> {
    pub place: Place,
    /// Calls of functions inside each other; 0 in the handler itself.
    pub depth: usize,
    /// A statement as a whole.
    pub is_statement: bool,
    inside: &'a dyn Inside,
}

impl Step<'_> {
    /// What the function at hand holds, each with its value as it may be shown.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        self.inside.variables()
    }

    /// The value of an expression as it would be here. What it does, it does to this run.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn evaluate(&self, expression: &str) -> Result<String, String> {
        self.inside.evaluate(expression)
    }

    /// The calls that led here, the innermost first: which function, and where it was called.
    #[must_use]
    pub fn calls(&self) -> Vec<(String, Place)> {
        self.inside.calls()
    }
}

/// What the engine knows at a step, whatever its lifetimes.
trait Inside {
    fn variables(&self) -> Vec<(String, String)>;
    fn evaluate(&self, expression: &str) -> Result<String, String>;
    fn calls(&self) -> Vec<(String, Place)>;
}

impl Inside for EvalContext<'_, '_, '_, '_, '_, '_> {
    fn variables(&self) -> Vec<(String, String)> {
        let mut seen: Vec<(String, String)> = Vec::new();
        // The newest come first, and hide older ones of their name; what begins with `$` are a handler's arguments before
        // it names them.
        for (name, _, value) in self.scope().iter_raw() {
            if !name.starts_with('$') && !seen.iter().any(|(known, _)| known == name) {
                seen.push((name.to_owned(), shown(value)));
            }
        }
        seen.reverse();
        seen
    }

    fn evaluate(&self, expression: &str) -> Result<String, String> {
        let value = self.engine().eval_expression_with_scope::<Dynamic>(&mut self.scope().clone(), expression);
        value.map(|value| shown(&value)).map_err(|error| {
            let (run, none) = (current(), Hidden::default());
            let hidden = run.as_ref().map_or(&none, |run| &run.environment.hidden);
            let (_, text) = describe(&error, ("", rhai::Position::NONE), &Budget::DEFAULT, hidden);
            text.strip_prefix("Syntax error: ").map(ToOwned::to_owned).unwrap_or(text)
        })
    }

    fn calls(&self) -> Vec<(String, Place)> {
        let frames = self.debugger().map(rhai::debugger::Debugger::call_stack).unwrap_or_default();
        // A frame names the file of its own function; it was called in the one before it.
        let mut file = current().map(|run| run.main.clone()).unwrap_or_default();
        let mut told = Vec::with_capacity(frames.len());
        for frame in frames {
            told.push((frame.fn_name.to_string(), place_at(&file, frame.pos)));
            if let Some(own) = &frame.source {
                file = own.to_string();
            }
        }
        told.reverse();
        told
    }
}

/// As a script would write it, cut; what has no such form by what it is.
fn shown(value: &Dynamic) -> String {
    let text = if value.is_unit() {
        "()".to_owned()
    } else {
        to_json(value).map_or_else(|_| article(value.type_name()), |json| json.to_string())
    };
    let text = hidden(&text);
    let cut = text.floor_char_boundary(MAX_SHOWN);
    let line = text.get(..cut).unwrap_or_default();
    if cut < text.len() { format!("{line}…") } else { text }
}

thread_local! {
    /// Somebody looks around at a step: what is evaluated for it is no step.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

/// The handler's second and third argument get their names where the first does, which is step enough.
fn names_argument(node: &ASTNode<'_>) -> bool {
    let is_argument = |expression: &Expr, first: bool| match expression {
        Expr::Variable(variable, ..) => variable.1.starts_with('$') && (first || variable.1 != "$0"),
        _ => false,
    };
    match node {
        ASTNode::Stmt(Stmt::Var(variable, ..)) => is_argument(&variable.1, false),
        ASTNode::Expr(expression) => is_argument(expression, true),
        _ => false,
    }
}

/// From here on `watcher` is told of each step that `engine` takes.
#[allow(deprecated)] // The engine calls it volatile; the tests of explain show that it holds.
pub(super) fn watch(engine: &mut Engine, watcher: Watcher) {
    engine.register_debugger(
        |_, debugger| debugger,
        move |context, event, node, source, position| {
            let is_step = matches!(event, DebuggerEvent::Start | DebuggerEvent::Step);
            if !is_step || position.is_none() || names_argument(&node) || LOOKING.replace(true) {
                return Ok(DebuggerCommand::StepInto);
            }
            let (place, depth) = (place_at(source.unwrap_or_default(), position), context.call_level());
            let told = (watcher.0)(&Step { place, depth, is_statement: node.is_stmt(), inside: &context });
            LOOKING.set(false);
            match told {
                Ok(()) => Ok(DebuggerCommand::StepInto),
                Err(why) => Err(Box::new(EvalAltResult::ErrorTerminated(why.into(), position))),
            }
        },
    );
}
