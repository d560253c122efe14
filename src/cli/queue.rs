//! `queue`: deliveries that wait or were given up; listed, tried again, taken off.

use super::access::{self, Writer};
use super::args::{Common, Machine, Queue, QueueChange, QueueFilter};
use super::print::{self, BAD, BOLD, DIM, Painted, WAIT, plain};
use super::{Done, Failure, configured};
use crate::store::{self, QueueEntry};
use crate::{clock, mail::Timestamp};

pub async fn run(common: &Common, verb: Queue) -> Done {
    match verb {
        Queue::List { filter, limit, machine } => {
            let config = configured::load(common)?.config;
            let reader = access::reader(&config)?;
            let entries = reader.queue(&filter.of_store(Some(limit)))?;
            list(&entries, machine)
        }
        Queue::Retry(change) => {
            let filter = change.narrowed()?;
            let writer = Writer::open(&configured::load(common)?.config).await?;
            let number = writer.queue_retry(filter).await;
            writer.close().await;
            changed(number?, "due now", change.machine)
        }
        Queue::Drop(change) => {
            let filter = change.narrowed()?;
            let writer = Writer::open(&configured::load(common)?.config).await?;
            let number = writer.queue_drop(filter).await;
            writer.close().await;
            changed(number?, "dropped", change.machine)
        }
    }
}

impl QueueFilter {
    fn of_store(&self, limit: Option<usize>) -> store::QueueFilter {
        store::QueueFilter {
            message: self.id,
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            destination: self.destination.clone(),
            before: self.older_than.map(|age| clock::now().minus(age)),
            error: self.error.clone(),
            dead: self.dead.then_some(true),
            limit,
        }
    }

    fn is_empty(&self) -> bool {
        self.id.is_none()
            && self.sender.is_none()
            && self.recipient.is_none()
            && self.destination.is_none()
            && self.older_than.is_none()
            && self.error.is_none()
            && !self.dead
    }
}

impl QueueChange {
    /// A slip of the hand must not reach the whole queue.
    fn narrowed(&self) -> Result<store::QueueFilter, Failure> {
        if self.filter.is_empty() && !self.all {
            let text = "this would reach every delivery: give a filter (--id, --destination, --dead …), or --all";
            return Err(Failure::Usage(text.to_owned()));
        }
        Ok(self.filter.of_store(None))
    }
}

fn changed(number: u64, what: &str, machine: Machine) -> Done {
    if machine.json {
        return print::json(&crate::admin::api::Changed { deliveries: number });
    }
    print::line(format_args!("{} {what}", print::count(number, "delivery")))
}

fn list(entries: &[QueueEntry], machine: Machine) -> Done {
    if machine.json {
        return entries.iter().try_for_each(print::json);
    }
    if entries.is_empty() {
        return print::line("no deliveries");
    }
    let now = clock::now();
    entries.iter().try_for_each(|entry| print::line(line(entry, now)))
}

/// One delivery on a line, its last error on a second.
#[must_use]
pub fn line(entry: &QueueEntry, now: Timestamp) -> String {
    let state = if entry.dead {
        Painted(BAD, "dead".to_owned())
    } else if entry.due <= now {
        Painted(WAIT, "due".to_owned())
    } else {
        Painted(WAIT, format!("due in {}", humantime::format_duration(whole_seconds(entry.due.since(now)))))
    };
    let age = humantime::format_duration(whole_seconds(now.since(entry.queued_at)));
    let error = entry.last_error.as_deref().map(|error| format!("\n    {}", Painted(DIM, plain(error))));
    format!(
        "{}/{}  {}  {state}  {} to {} by {}, {}, queued for {age}{}",
        entry.key.message,
        entry.key.n,
        print::sender(entry.sender.as_ref()),
        entry.kind,
        Painted(BOLD, plain(&entry.target)),
        plain(&entry.destination),
        print::count(u64::from(entry.attempts), "attempt"),
        error.unwrap_or_default(),
    )
}

fn whole_seconds(duration: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_secs(duration.as_secs())
}
