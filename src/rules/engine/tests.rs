//! A run's time, by clocks that go as the test says.

use std::sync::Mutex;

use super::*;

thread_local! {
    static BUSY: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

const PATIENCE: Duration = Duration::from_millis(1);
const SCRIPT: &str = "let n = 0; for i in 0..1000 { n += look(i); } n";

/// The wall clock finds another second gone at each look; the thread is at work as long as [`BUSY`] says.
fn clock() -> RunClock {
    let seconds = Mutex::new(0);
    let wall = RunClock::new(move || {
        let mut seconds = seconds.lock().unwrap();
        *seconds += 1;
        Duration::from_secs(*seconds)
    });
    wall.with_busy(|| BUSY.get())
}

/// One run of the script, which calls `look` a thousand times.
fn run(patience: Option<Duration>, look: fn(i64) -> i64) -> Metered<Result<i64, Box<EvalAltResult>>> {
    BUSY.set(Duration::ZERO);
    let budget = Budget { wall_clock: Duration::from_secs(2), ..Budget::DEFAULT };
    let mut engine = build(&budget);
    engine.register_fn("look", look);
    metered(Some(&clock()), &budget, patience, || engine.eval(SCRIPT))
}

#[test]
fn a_brief_run_is_not_cut_for_what_others_had_of_the_processor() {
    let brief = run(Some(PATIENCE), |i| i);
    assert!(!brief.cut);
    assert_eq!(brief.result.unwrap(), 499_500);
    let whole = run(None, |i| i);
    assert!(!whole.cut && whole.exceeded.unwrap().contains("2s of time"), "one with all its budget goes by the wall");
}

#[test]
fn a_brief_run_is_cut_for_its_own_work() {
    let brief = run(Some(PATIENCE), |i| {
        BUSY.set(BUSY.get() + PATIENCE / 100);
        i
    });
    assert!(brief.cut && brief.result.is_err());
    assert!(brief.operations < 2000, "{}", brief.operations);
}

#[test]
fn a_brief_run_is_cut_for_what_it_waited() {
    let before = waited();
    let brief = run(Some(PATIENCE), |i| waiting(|| i));
    assert!(waited().saturating_sub(before) >= Duration::from_secs(1), "told to who lent the thread, too");
    assert!(brief.cut && brief.result.is_err());
    assert!(brief.operations < 20, "by the first operation that comes: {}", brief.operations);
}
