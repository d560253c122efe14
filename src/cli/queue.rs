//! `queue`: deliveries that wait or were given up; listed, tried again, taken off.

use std::collections::BTreeMap;

use serde::Serialize;

use super::access::{self, Writer};
use super::args::{Common, Limit, Machine, Queue, QueueChange, QueueFilter};
use super::pages::pages;
use super::print::{self, BAD, BOLD, DIM, Painted, WAIT, plain};
use super::{Done, Failure, configured};
use crate::store::{self, QueueEntry, Reader};
use crate::{clock, mail::Timestamp};

pub async fn run(common: &Common, verb: Queue) -> Done {
    match verb {
        Queue::List { filter, limit, machine } => {
            let config = configured::load(common)?.config;
            list(&access::reader(&config)?, &filter, limit, machine)
        }
        Queue::Summary { filter, machine } => {
            let config = configured::load(common)?.config;
            summary(&access::reader(&config)?, &filter, machine)
        }
        Queue::Retry(change) => {
            let filter = change.narrowed()?;
            let writer = Writer::open(&configured::load(common)?.config).await?;
            let number = writer.queue_retry(filter, change.all).await;
            writer.close().await;
            changed(number?, "due now", change.machine)
        }
        Queue::Drop(change) => {
            let filter = change.narrowed()?;
            let writer = Writer::open(&configured::load(common)?.config).await?;
            let number = writer.queue_drop(filter, change.all).await;
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
            after: None,
            limit,
        }
    }
}

impl QueueChange {
    /// A slip of the hand must not reach the whole queue.
    fn narrowed(&self) -> Result<store::QueueFilter, Failure> {
        let filter = self.filter.of_store(None);
        if filter.reaches_all() && !self.all {
            let text = "this would reach every delivery: give a filter (--id, --destination, --dead …), or --all";
            return Err(Failure::Usage(text.to_owned()));
        }
        Ok(filter)
    }
}

fn changed(number: u64, what: &str, machine: Machine) -> Done {
    if machine.json {
        return print::json(&crate::admin::api::Changed { deliveries: number });
    }
    print::line(format_args!("{} {what}", print::count(number, "delivery")))
}

fn list(reader: &Reader, filter: &QueueFilter, limit: Limit, machine: Machine) -> Done {
    let now = clock::now();
    let show = |entry: &QueueEntry| if machine.json { print::json(entry) } else { print::line(line(entry, now)) };
    let shown = pages(
        limit.of(machine),
        |last: Option<&QueueEntry>, limit| {
            let after = last.map(|entry| entry.key);
            Ok(reader.queue(&store::QueueFilter { after, ..filter.of_store(Some(limit)) })?)
        },
        show,
    )?;
    shown.tell(limit, machine, "deliveries")
}

/// What waits for one next hop.
#[derive(Debug, Serialize)]
struct Sum {
    destination: String,
    queued: u64,
    dead: u64,
    /// Since when the first of those queued waits.
    oldest: Option<Timestamp>,
    /// When the next one is due.
    next: Option<Timestamp>,
    /// Of the delivery that was tried last, as far as its next try tells.
    last_error: Option<String>,
    #[serde(skip)]
    of: Option<Timestamp>,
}

impl Sum {
    fn add(&mut self, entry: QueueEntry) {
        if entry.dead {
            self.dead += 1;
        } else {
            self.queued += 1;
            self.oldest = Some(self.oldest.map_or(entry.queued_at, |oldest| oldest.min(entry.queued_at)));
            self.next = Some(self.next.map_or(entry.due, |next| next.min(entry.due)));
        }
        if entry.last_error.is_some() && self.of <= Some(entry.due) {
            (self.last_error, self.of) = (entry.last_error, Some(entry.due));
        }
    }
}

fn summary(reader: &Reader, filter: &QueueFilter, machine: Machine) -> Done {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut add = |entry: &QueueEntry| {
        let destination = entry.destination.clone();
        let sum = sums.entry(destination.clone()).or_insert_with(|| Sum {
            destination,
            queued: 0,
            dead: 0,
            oldest: None,
            next: None,
            last_error: None,
            of: None,
        });
        sum.add(entry.clone());
        Ok(())
    };
    let _all = pages(
        usize::MAX,
        |last: Option<&QueueEntry>, limit| {
            let after = last.map(|entry| entry.key);
            Ok(reader.queue(&store::QueueFilter { after, ..filter.of_store(Some(limit)) })?)
        },
        &mut add,
    )?;
    let mut sums: Vec<Sum> = sums.into_values().collect();
    sums.sort_by_key(|sum| std::cmp::Reverse(sum.queued + sum.dead));
    if machine.json {
        return sums.iter().try_for_each(print::json);
    }
    if sums.is_empty() {
        return print::line("no deliveries");
    }
    let now = clock::now();
    sums.iter().try_for_each(|sum| print::line(sum_line(sum, now)))
}

fn sum_line(sum: &Sum, now: Timestamp) -> String {
    let oldest = sum.oldest.map(|at| format!(", the oldest for {}", span(now.since(at)))).unwrap_or_default();
    let next = match sum.next {
        Some(at) if at > now => format!(", next in {}", span(at.since(now))),
        Some(_) => ", next now".to_owned(),
        None => String::new(),
    };
    let dead = Painted(if sum.dead > 0 { BAD } else { DIM }, format!("{} dead", sum.dead));
    let error = sum.last_error.as_deref().map(|error| format!("\n    {}", Painted(DIM, plain(error))));
    format!(
        "{}  {} queued, {dead}{oldest}{next}{}",
        Painted(BOLD, plain(&sum.destination)),
        sum.queued,
        error.unwrap_or_default(),
    )
}

/// One delivery on a line, its last error on a second.
#[must_use]
pub fn line(entry: &QueueEntry, now: Timestamp) -> String {
    let state = if entry.dead {
        Painted(BAD, "dead".to_owned())
    } else if entry.due <= now {
        Painted(WAIT, "due".to_owned())
    } else {
        Painted(WAIT, format!("due in {}", span(entry.due.since(now))))
    };
    let age = span(now.since(entry.queued_at));
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

/// In whole seconds.
fn span(duration: std::time::Duration) -> humantime::FormattedDuration {
    humantime::format_duration(std::time::Duration::from_secs(duration.as_secs()))
}
