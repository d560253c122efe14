//! What a handler would do that is about no message on its way in, with nothing done: `scheduled`, `delivered`, `failed`.

use crate::intake::{Snapshot, happened, scheduled};
use crate::mail::{MessageId, Timestamp};
use crate::rules::{HappeningOutcome, KvView, Lent, Seed};
use crate::store::TellTask;

/// What `scheduled` would do at `at`, a time of `cron`. Blocks, for a worker runs.
#[must_use]
pub fn on_time(snapshot: &Snapshot, (cron, at): (&str, Timestamp), kv: &KvView, reach: Lent) -> HappeningOutcome {
    snapshot.release.happening(&scheduled::call(snapshot, cron, at, Seed::default(), reach), kv)
}

/// What `delivered` or `failed` would do about that end of a delivery; `None`: no worker of ours is told of it. Blocks likewise.
#[must_use]
pub fn on_end(snapshot: &Snapshot, message: MessageId, task: &TellTask, kv: &KvView) -> Option<HappeningOutcome> {
    let (rules, call) = happened::end(snapshot, message, task, Seed::default())?;
    Some(rules.happening(&call, kv))
}
