//! The whole server in simulation: its network and its clock are made here, everything else is real. What happens is drawn
//! from a seed, and the same seed makes the same happen again, to the octet and the millisecond.
//!
//! `cargo test` runs a handful of seeds. `tests/simulation/run` runs them for as long as it is told:
//! `MINUTES=10 SEED=1 cargo test --test simulation seeds -- --nocapture`. `SEED=7` alone runs that one; `TRACE=1` prints
//! all that happens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unused_self,
    clippy::too_many_lines
)]

mod client;
mod ear;
mod hop;
mod judge;
mod ledger;
mod lines;
mod mail;
mod pipe;
mod plan;
mod run;
mod server;
mod transcript;
mod way;
mod world;

use std::time::{Duration, Instant};

use run::{Report, run};

/// What `cargo test` runs: some, and those that have found something.
const HANDFUL: [u64; 6] = [1, 2, 3, 4, 1074, 1_795_892_183];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// How much was simulated, for whoever watches.
fn told(reports: &[Report], took: Duration) -> String {
    let hours = reports.iter().map(|report| report.simulated).sum::<Duration>().as_secs_f64() / 3600.0;
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    let minutes = took.as_secs_f64() / 60.0;
    format!(
        "{} seeds, {} mails, {} attempts, {} sudden deaths; {hours:.0} simulated hours and {} faults in {minutes:.1} minutes: \
         {:.0} hours and {:.0} faults a minute",
        reports.len(),
        sum(|report| report.mails as u64),
        sum(|report| report.attempts),
        sum(|report| report.deaths as u64),
        sum(|report| report.faults),
        hours / minutes,
        f64::from(u32::try_from(sum(|report| report.faults)).unwrap()) / minutes,
    )
}

#[test]
fn seeds() {
    let (seed, minutes) = (number("SEED"), number("MINUTES"));
    let began = Instant::now();
    let goes_on = |done: usize| match (seed, minutes) {
        (_, Some(minutes)) => began.elapsed() < Duration::from_secs(60 * minutes),
        (Some(_), None) => done == 0,
        (None, None) => done < HANDFUL.len(),
    };
    let mut reports = Vec::new();
    while goes_on(reports.len()) {
        let nth = reports.len();
        let next = match (seed, minutes) {
            (None, None) => HANDFUL[nth],
            _ => seed.unwrap_or(1) + nth as u64,
        };
        let report = run(next);
        assert!(
            report.violations.is_empty(),
            "seed {next}; the same again: SEED={next} cargo test --test simulation seeds\n{}",
            report.violations.join("\n")
        );
        reports.push(report);
    }
    println!("{}", told(&reports, began.elapsed()));
}

#[test]
fn one_seed_is_one_story() {
    let seed = number("SEED").unwrap_or(9);
    assert_eq!(run(seed), run(seed));
}
