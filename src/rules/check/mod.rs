//! From sources to a release, or to everything that is wrong with them.
//!
//! Every file is parsed, so that every file's error is told at once; then imports, handlers and names are looked at
//! in what could be parsed; at last modules are evaluated, dependencies first, and each main's top level once.

mod around;
mod calls;
mod clashes;
mod conditions;
mod fields;
mod finding;
mod handlers;
mod idioms;
mod imports;
mod kinds;
mod lines;
mod members;
mod names;
mod passed;
mod written;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rhai::{AST, Dynamic, Engine, EvalAltResult, Module, Scope};

use self::finding::{Findings, Warned};
use super::api::env::{Environment, register_names};
use super::engine::{Budget, build, constants, metered};
use super::failure::describe;
use super::hidden::Hidden;
use super::modules::Modules;
use super::scripted;
use super::worker::Worker;
use super::{Bindings, Release, RunClock};
use crate::diagnostic::{Diagnostic, Severity};

/// How long a test may take, with all that it asks to be decided.
const TEST_TIME: Duration = Duration::from_mins(1);

/// Files by name, as far as they could be parsed.
type Scripts = BTreeMap<String, AST>;

pub(super) use lines::reachable;

/// What the mains are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mains {
    Workers,
    /// Workers that were checked when they were deployed, by this version or an earlier one.
    Deployed,
    Tests,
}

impl Mains {
    /// Of names that can be known before anything runs.
    fn warned(self) -> Warned {
        match self {
            Self::Deployed => Warned::Slips,
            Self::Workers | Self::Tests => Warned::Nothing,
        }
    }
}

/// Compiles; see [`Release::compile`] and [`Release::compile_deployed`].
pub(super) fn compile(
    sources: &BTreeMap<String, String>,
    mains: &[String],
    bindings: Bindings,
    kind: Mains,
) -> Result<(Release, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (release, _, findings) = made(sources, mains, bindings, kind)?;
    Ok((release, findings))
}

/// A test's name, and its line.
pub(super) type Named = (String, u32);

/// Compiles a file of tests; see [`super::scripted::Scripted::compile`].
pub(super) fn compile_tests(
    sources: &BTreeMap<String, String>,
    file: &str,
    bindings: Bindings,
) -> Result<(Release, Vec<Named>), Vec<Diagnostic>> {
    let (release, tests, _) = made(sources, &[file.to_owned()], bindings, Mains::Tests)?;
    Ok((release, tests))
}

fn made(
    sources: &BTreeMap<String, String>,
    mains: &[String],
    bindings: Bindings,
    kind: Mains,
) -> Result<(Release, Vec<Named>, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut budget = bindings.budget.clone().unwrap_or_default();
    if kind == Mains::Tests {
        // What it asks to be decided has a budget of its own, and counts as its time.
        budget.wall_clock = TEST_TIME;
    }
    let environment = Arc::new(Environment::new(&bindings, version(sources)));
    let mut engine = engine(kind, &budget, &environment);
    let modules = Modules::default();
    engine.set_module_resolver(modules.clone());

    let mut findings = Findings::new(sources);
    let scripts = parse(&engine, sources, &mut findings);
    let graph = imports::graph(&scripts, sources, &mut findings);
    let order = imports::order(&graph, &mut findings);
    let (members, keys) = (members::Members::of(&engine), calls::keys(&scripts));
    let reached = imports::reached(&graph, mains);
    for (file, script) in &scripts {
        let is_main = mains.contains(file);
        findings.only_warn(if reached.contains(file.as_str()) { kind.warned() } else { Warned::All });
        names::check(
            file,
            script,
            is_main,
            &names::Known {
                environment: &environment,
                members: &members,
                graph: &graph,
                scripts: &scripts,
                keys: &keys,
            },
            &mut findings,
        );
    }
    findings.only_warn(kind.warned());
    let is_clash = clashes::check(&scripts, &graph, mains, &mut findings);
    findings.only_warn(Warned::Nothing);
    let first = mains.first().map_or("", String::as_str);
    mains_are(kind, mains, (sources, &scripts), &mut findings);
    let clock = bindings.clock;
    if !findings.any_error() {
        let evaluation = Evaluation { engine: &engine, budget: &budget, clock: clock.as_ref(), modules: &modules };
        evaluation.modules(&order, &scripts, &graph, &mut findings);
        evaluation.mains(mains, &scripts, &mut findings);
    }
    let findings = findings.sorted();
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(findings);
    }
    // Of a type, and found by every file once they are imported.
    let methods = |main: &String| {
        let others = scripts.iter().filter(|(file, _)| *file != main).flat_map(|(_, script)| script.iter_fn_def());
        others.into_iter().any(|function| function.this_type.is_some())
    };
    let worker = |main: &String| match (kind, scripts.get(main)?) {
        (Mains::Workers | Mains::Deployed, script) => {
            Some((main.clone(), Worker::new(main, script, !is_clash && !methods(main))))
        }
        (Mains::Tests, script) => Some((main.clone(), Worker::of_tests(main, script))),
    };
    let workers: BTreeMap<_, _> = mains.iter().filter_map(worker).filter(|(_, worker)| !worker.is_empty()).collect();
    let tests = if kind == Mains::Tests { workers.values().flat_map(Worker::named).collect() } else { Vec::new() };
    let first = first.to_owned();
    Ok((Release { engine, budget, clock, environment, workers, first, sources: sources.clone() }, tests, findings))
}

/// With all that a script of this kind may call and name.
fn engine(kind: Mains, budget: &Budget, environment: &Environment) -> Engine {
    let mut engine = build(budget);
    register_names(&mut engine, environment);
    if kind == Mains::Tests {
        scripted::register(&mut engine);
    }
    engine
}

/// Whether each main is there, and what it is for.
fn mains_are(
    kind: Mains,
    mains: &[String],
    (sources, scripts): (&BTreeMap<String, String>, &Scripts),
    findings: &mut Findings,
) {
    let first = mains.first().map_or("", String::as_str);
    for main in mains {
        match scripts.get(main) {
            Some(script) if kind == Mains::Tests => handlers::check_tests(main, script, findings),
            Some(script) => handlers::check(main, script, first, findings),
            None if !sources.contains_key(main) => findings.whole_file(main, "no such file among the rules"),
            None => {}
        }
    }
}

/// Sixteen hexadecimal digits that change with any source.
pub(super) fn version(sources: &BTreeMap<String, String>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (path, text) in sources {
        for part in [path, text] {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    context.finish().as_ref().iter().take(8).fold(String::new(), |hex, octet| format!("{hex}{octet:02x}"))
}

fn parse(engine: &Engine, sources: &BTreeMap<String, String>, findings: &mut Findings) -> Scripts {
    let scope = constants();
    let mut scripts = Scripts::new();
    for (file, text) in sources {
        let parsed = catch_unwind(AssertUnwindSafe(|| engine.compile_with_scope(&scope, text)));
        match parsed {
            Ok(Ok(mut script)) => {
                script.set_source(file.as_str());
                scripts.insert(file.clone(), script);
            }
            Ok(Err(error)) => findings.syntax(file, &error),
            Err(_panic) => findings.whole_file(file, "the parser gave up on this file: please report it"),
        }
    }
    scripts
}

/// Runs what stands outside functions, within the budget of a run.
struct Evaluation<'a> {
    engine: &'a Engine,
    budget: &'a Budget,
    clock: Option<&'a RunClock>,
    modules: &'a Modules,
}

impl Evaluation<'_> {
    /// Dependencies first; a module is evaluated once, whoever imports it.
    fn modules(&self, order: &[String], scripts: &Scripts, graph: &imports::Graph, findings: &mut Findings) {
        let mut compiled: BTreeMap<&str, Arc<Module>> = BTreeMap::new();
        for file in order {
            let Some(script) = scripts.get(file) else { continue };
            for import in graph.get(file).into_iter().flatten() {
                if let Some(module) = compiled.get(import.file.as_str()) {
                    self.modules.add(file, &import.path, Arc::clone(module));
                }
            }
            if !graph.values().flatten().any(|import| import.file == *file) {
                continue;
            }
            let module = self.guarded(file, findings, || Module::eval_ast_as_new(Scope::new(), script, self.engine));
            if let Some(module) = module {
                compiled.insert(file, Arc::new(module));
            }
        }
    }

    /// Once, to see whether it can be run.
    fn mains(&self, mains: &[String], scripts: &Scripts, findings: &mut Findings) {
        for (main, script) in mains.iter().filter_map(|main| Some((main, scripts.get(main)?))) {
            let top = script.clone_statements_only();
            let top = AST::new_with_source(top.statements().to_vec(), script.shared_lib().clone(), main.as_str());
            self.guarded(main, findings, || self.engine.eval_ast::<Dynamic>(&top));
        }
    }

    fn guarded<T>(
        &self,
        file: &str,
        findings: &mut Findings,
        script: impl FnOnce() -> Result<T, Box<EvalAltResult>>,
    ) -> Option<T> {
        let script = || catch_unwind(AssertUnwindSafe(script));
        match metered(self.clock, self.budget, None, script).result {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                let (place, text) = describe(&error, (file, rhai::Position::NONE), self.budget, &Hidden::default());
                findings.at_place(&place, text);
                None
            }
            Err(_panic) => {
                findings.whole_file(file, "its top level made the engine panic: please report it");
                None
            }
        }
    }
}
