//! The Rhai engine and its limits: built once for each release and shared by every run.
//!
//! A script has no file, process, clock or randomness: of Rhai's packages the one that tells the time is left out, and
//! what sleeps or evaluates text is refused. Operations, wall clock, sizes and depth are bounded by the [`Budget`];
//! the rest (variables, modules, nesting of expressions) by constants here.

use std::cell::{Cell, RefCell};
use std::sync::LazyLock;
use std::time::Duration;

use rhai::packages::{
    BasicArrayPackage, BasicBlobPackage, BasicMapPackage, BasicMathPackage, BitFieldPackage, CorePackage, LogicPackage,
    MoreStringPackage, Package,
};
use rhai::{Dynamic, Engine, EvalAltResult, Module, NativeCallContext, Scope, Shared};

use super::RunClock;
use super::api;
use super::api::run::refuse;
use super::growth;

#[cfg(test)]
mod tests;

/// Variables that one function may have at a time.
const MAX_VARIABLES: usize = 200;
const MAX_MODULES: usize = 100;
const MAX_FUNCTIONS: usize = 1000;
/// Expressions inside each other: the parser and the evaluation recurse by them.
pub(super) const MAX_EXPRESSION: usize = 48;
/// Operations between two looks at the clock.
const LOOK: u64 = 128;
/// Octets that a function looks at for what counts as one operation.
const STRETCH: usize = 64;
/// Variables named between two looks at the sizes of all.
const SIZES: u32 = 64;

/// What one run may use.
#[derive(Debug, Clone)]
pub struct Budget {
    pub operations: u64,
    pub wall_clock: Duration,
    pub string_size: usize,
    pub array_size: usize,
    pub map_size: usize,
    pub call_depth: usize,
    pub actions: usize,
    /// Outside: `fetch`, `ai`, look-ups.
    pub requests: usize,
}

impl Budget {
    pub(super) const DEFAULT: Self = Self {
        operations: 1_000_000,
        wall_clock: Duration::from_secs(5),
        string_size: 1024 * 1024,
        array_size: 10_000,
        map_size: 10_000,
        call_depth: 64,
        actions: 100,
        requests: 20,
    };
}

impl Default for Budget {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What of Rhai's packages a worker has: one module, since each that there is gets asked for whatever a script calls.
static LANGUAGE: LazyLock<Shared<Module>> = LazyLock::new(|| {
    let mut language = Module::new();
    for package in [
        CorePackage::new().as_shared_module(),
        BitFieldPackage::new().as_shared_module(),
        LogicPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicBlobPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        MoreStringPackage::new().as_shared_module(),
    ] {
        language.combine(Module::clone(&package));
    }
    language.build_index();
    Shared::new(language)
});

/// The engine with everything registered and every limit set; it resolves no module yet.
pub(super) fn build(budget: &Budget) -> Engine {
    let mut engine = Engine::new_raw();
    engine.register_global_module(Shared::clone(&LANGUAGE));
    engine.disable_symbol("eval");
    engine.register_fn("back_trace", |context: NativeCallContext| no_trace(&context));
    engine.register_fn("sleep", |context: NativeCallContext, _: i64| no_sleep(&context));
    engine.register_fn("sleep", |context: NativeCallContext, _: f64| no_sleep(&context));
    api::register(&mut engine);
    growth::bound(&mut engine);

    engine
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(false)
        // The meter's limit comes first. It counts what closures do, too; Rhai begins anew for each call of one.
        .set_max_operations(budget.operations.saturating_add(1))
        .set_max_string_size(budget.string_size)
        .set_max_array_size(budget.array_size)
        .set_max_map_size(budget.map_size)
        .set_max_call_levels(budget.call_depth)
        .set_max_expr_depths(MAX_EXPRESSION, MAX_EXPRESSION)
        .set_max_variables(MAX_VARIABLES)
        .set_max_functions(MAX_FUNCTIONS)
        .set_max_modules(MAX_MODULES);
    let limit = budget.wall_clock;
    engine.on_progress(move |_| METER.with(|meter| meter.tick(limit)));
    watch_sizes(&mut engine);
    engine
}

/// Rhai looks at the size of what is computed, but not of what grows in place: `map[key] = value` without end. So now
/// and then, when a variable is named, all that the function holds is looked at.
#[allow(deprecated)] // The engine calls it volatile; the cases of hostile scripts show that it holds.
fn watch_sizes(engine: &mut Engine) {
    engine.on_var(|_, _, context| {
        if METER.with(Meter::looks_at_sizes) {
            for (_, _, value) in context.scope().iter_raw() {
                context.engine().ensure_data_size_within_limits(value)?;
            }
        }
        Ok(None)
    });
}

fn no_sleep(context: &NativeCallContext) -> Result<(), Box<EvalAltResult>> {
    Err(refuse(context, "sleep isn't offered: a run decides at once"))
}

fn no_trace(context: &NativeCallContext) -> Result<(), Box<EvalAltResult>> {
    Err(refuse(context, "back_trace isn't offered: `mailworker explain --step` shows the calls"))
}

/// What every script may name without declaring it: seconds.
pub(super) fn constants() -> Scope<'static> {
    let mut scope = Scope::new();
    scope.push_constant("SECOND", 1_i64);
    scope.push_constant("MINUTE", 60_i64);
    scope.push_constant("HOUR", 3_600_i64);
    scope.push_constant("DAY", 86_400_i64);
    scope
}

/// What the run of this thread has used.
#[derive(Default)]
struct Meter {
    operations: Cell<u64>,
    /// The operation at which the clock is looked at next.
    next_look: Cell<u64>,
    named: Cell<u32>,
    /// How many it may use; `None`: there is no run.
    most: Cell<Option<u64>>,
    /// By the clock; meaningless without one. Of a brief run by the time that its thread was at work or [`waited`], so that it
    /// isn't held against a script that others have the processor.
    until: Cell<Duration>,
    /// How long this thread has waited, ever.
    waited: Cell<Duration>,
    /// The caller waits for less than the budget allows.
    brief: Cell<bool>,
    /// The run was ended because its caller doesn't wait any longer.
    cut: Cell<bool>,
    /// What was exceeded. Kept apart from the error, which some functions of Rhai (`sort`) swallow.
    exceeded: RefCell<Option<String>>,
    clock: RefCell<Option<RunClock>>,
}

impl Meter {
    /// Called for each variable that is named.
    fn looks_at_sizes(&self) -> bool {
        let named = self.named.get().wrapping_add(1);
        self.named.set(named);
        named.is_multiple_of(SIZES)
    }

    /// Called for every operation; what it returns ends the run.
    fn tick(&self, limit: Duration) -> Option<Dynamic> {
        let operations = self.operations.get().saturating_add(1);
        self.operations.set(operations);
        if let Some(most) = self.most.get().filter(|most| operations > *most) {
            return Some(self.exceed(format!("more than {most} operations")));
        }
        if operations < self.next_look.get() {
            return None;
        }
        self.next_look.set(operations.saturating_add(LOOK));
        if !self.is_late() {
            return None;
        }
        self.cut.set(self.brief.get());
        Some(self.exceed(format!("more than {} of time", humantime::format_duration(limit))))
    }

    fn is_late(&self) -> bool {
        let clock = self.clock.borrow();
        clock.as_ref().is_some_and(|clock| self.reads(clock) > self.until.get())
    }

    /// The clock that bounds this run.
    fn reads(&self, clock: &RunClock) -> Duration {
        if self.brief.get() { clock.busy().saturating_add(self.waited.get()) } else { clock.read() }
    }

    fn exceed(&self, what: String) -> Dynamic {
        self.exceeded.borrow_mut().get_or_insert(what).clone().into()
    }
}

thread_local! {
    static METER: Meter = Meter::default();
}

/// Counts what one call of a function does at a stretch, `octets` looked at, as the operations it stands for. What that
/// exceeds is found by the operation that comes next.
pub(super) fn charge(octets: usize) {
    METER.with(|meter| {
        let stretches = u64::try_from(octets / STRETCH).unwrap_or(u64::MAX);
        let operations = meter.operations.get().saturating_add(stretches);
        meter.operations.set(meter.most.get().map_or(operations, |most| operations.min(most)));
    });
}

/// Whether the run's time is over: asked now and then by what goes on for long without an operation. The next operation
/// looks at the clock, too, so that no script goes on behind it.
pub(super) fn is_overdue() -> bool {
    METER.with(|meter| {
        let is_over = meter.is_late();
        if is_over {
            meter.next_look.set(0);
            meter.cut.set(meter.brief.get());
        }
        is_over
    })
}

/// Does what may wait for the disk: a brief run's caller waits as well, though the thread isn't at work.
pub(super) fn waiting<T>(read: impl FnOnce() -> T) -> T {
    METER.with(|meter| {
        let clock = meter.brief.get().then(|| meter.clock.borrow().clone()).flatten();
        let Some(clock) = clock else { return read() };
        let begun = (clock.read(), clock.busy());
        let done = read();
        let (passed, worked) = (clock.read().saturating_sub(begun.0), clock.busy().saturating_sub(begun.1));
        meter.waited.set(meter.waited.get().saturating_add(passed.saturating_sub(worked)));
        if meter.is_late() {
            meter.next_look.set(0);
        }
        done
    })
}

/// How long brief runs of this thread have waited, since it began.
#[must_use]
pub fn waited() -> Duration {
    METER.with(|meter| meter.waited.get())
}

/// As if a brief run of this thread had waited.
#[cfg(test)]
pub(crate) fn has_waited(time: Duration) {
    METER.with(|meter| meter.waited.set(meter.waited.get().saturating_add(time)));
}

/// What is left of a run's time.
pub(super) enum Left {
    /// Without a clock, all that a run may take.
    Time(Duration),
    /// Its caller waits for a moment only: from here on it is cut short.
    GivesWay,
}

/// Asked by what makes the run wait.
pub(super) fn time_left() -> Left {
    METER.with(|meter| {
        if meter.brief.get() {
            meter.cut.set(true);
            return Left::GivesWay;
        }
        let clock = meter.clock.borrow();
        Left::Time(
            clock.as_ref().map_or(Budget::DEFAULT.wall_clock, |clock| meter.until.get().saturating_sub(clock.read())),
        )
    })
}

/// What the run of this thread has exceeded so far.
pub(super) fn exceeded() -> Option<String> {
    METER.with(|meter| meter.exceeded.borrow().clone())
}

/// What a metered run came to.
pub(super) struct Metered<T> {
    pub result: T,
    pub operations: u64,
    /// Ended because the caller's patience was: the result says nothing of the script.
    pub cut: bool,
    /// What was exceeded, though the script may have gone on.
    pub exceeded: Option<String>,
}

/// Runs `script` with the meter at zero, for at most the budget's time or the caller's `patience`, which counts only where
/// there is a clock.
pub(super) fn metered<T>(
    clock: Option<&RunClock>,
    budget: &Budget,
    patience: Option<Duration>,
    script: impl FnOnce() -> T,
) -> Metered<T> {
    let patience = patience.filter(|patience| *patience < budget.wall_clock);
    METER.with(|meter| {
        let allowed = patience.unwrap_or(budget.wall_clock);
        meter.operations.set(0);
        meter.next_look.set(LOOK);
        meter.named.set(0);
        meter.brief.set(patience.is_some());
        meter.until.set(clock.map_or(Duration::ZERO, |clock| meter.reads(clock).saturating_add(allowed)));
        meter.cut.set(false);
        meter.exceeded.take();
        meter.most.set(Some(budget.operations));
        meter.clock.replace(clock.cloned());
    });
    let result = script();
    METER.with(|meter| {
        // What is compiled on this thread until the next run is none.
        meter.most.take();
        meter.clock.take();
        let operations = meter.operations.take();
        Metered { result, operations, cut: meter.cut.get(), exceeded: meter.exceeded.take() }
    })
}
