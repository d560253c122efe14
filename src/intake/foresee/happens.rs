//! What a handler would do that is about no message on its way in, with nothing done: `scheduled`, `delivered`, `failed`.

use crate::clock::{self, Instant};
use crate::intake::scheduled::{self, Due};
use crate::intake::{Snapshot, Told, happened};
use crate::mail::{Address, MessageId, Timestamp};
use crate::rules::{Happening, HappeningOutcome, KvView, Lent, Seed};
use crate::store::TellTask;

/// What `scheduled` would do at `at`, a time of `cron`. Blocks, for a worker runs.
#[must_use]
pub fn on_time(snapshot: &Snapshot, (cron, at): (&str, Timestamp), kv: &KvView, reach: Lent) -> HappeningOutcome {
    let due = Due { cron, at, now: clock::now(), seed: Seed::default(), subject: String::new() };
    snapshot.release.happening(&scheduled::call(snapshot, &due, reach), kv)
}

/// The same as it would be told, with what it would queue. Blocks likewise.
///
/// # Errors
/// The worker has no such handler.
pub fn told_on_time(
    snapshot: &Snapshot,
    (cron, at): (&str, Timestamp),
    kv: &KvView,
    reach: Lent,
) -> Result<Told, String> {
    let due = Due { cron, at, now: clock::now(), seed: Seed::default(), subject: String::new() };
    let call = scheduled::call(snapshot, &due, reach);
    let handler = Happening::Scheduled.handler();
    if !snapshot.release.has(&call.main, handler) {
        return Err(format!("the worker {} has no handler `{handler}`", call.main));
    }
    let ours =
        Address::parse(&format!("postmaster@{}", snapshot.config.hostname)).map_err(|error| error.to_string())?;
    let (began, mut told) = (Instant::now(), Told::default());
    let outcome = snapshot.release.happening(&call, kv);
    told.take((snapshot, &snapshot.release), (&ours, "a run without effects"), call, outcome, began.elapsed());
    Ok(told)
}

/// What `delivered` or `failed` would do about that end of a delivery; `None`: no worker of ours is told of it. Blocks likewise.
#[must_use]
pub fn on_end(snapshot: &Snapshot, message: MessageId, task: &TellTask, kv: &KvView) -> Option<HappeningOutcome> {
    let (rules, call) = happened::end(snapshot, message, task, Seed::default())?;
    Some(rules.happening(&call, kv))
}
