//! Fills a store as a server would that has run for days: `fill DIRECTORY MESSAGES QUEUED`.
//!
//! MESSAGES were accepted over the last six days and delivered; QUEUED more wait for a thousand destinations, to be tried
//! again in the next hours. Written by the store's own calls, synced as in service.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../fixtures/message.rs"]
mod fixtures;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fixtures::{done, message};
use futures_util::future::join_all;
use mailworker::event::{Attempted, Bus, Event, Kind};
use mailworker::mail::Timestamp;
use mailworker::store::{DeliveryKey, Options, Settlement, Store};

/// Messages of one commit.
const TOGETHER: usize = 256;
/// Octets of one.
const OCTETS: usize = 1024;
const DESTINATIONS: usize = 1000;

const SPAN: Duration = Duration::from_hours(144);
const SOON: Duration = Duration::from_hours(1);
const WITHIN: Duration = Duration::from_hours(11);

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    let [_, directory, logged, queued] = arguments.as_slice() else {
        println!("fill DIRECTORY MESSAGES QUEUED");
        return;
    };
    let options = Options {
        data_dir: directory.into(),
        segment_size: 256 << 20,
        raw_retention: Duration::from_hours(168),
        log_retention: Duration::from_hours(720),
        free_space: 0,
    };
    let store = Store::open(options, Bus::new(16)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let filling = Filling { store, begun: now.checked_sub(SPAN).unwrap() };
    runtime.block_on(filling.run(logged.parse().unwrap(), queued.parse().unwrap()));
}

struct Filling {
    store: Store,
    /// When the first message came, since the epoch.
    begun: Duration,
}

impl Filling {
    async fn run(self, logged: usize, queued: usize) {
        let all = logged + queued;
        for first in (0..all).step_by(TOGETHER) {
            let numbers = first..(first + TOGETHER).min(all);
            // Spread evenly over all of them.
            let waiting = numbers.clone().map(|number| (number + 1) * queued / all > number * queued / all);
            let waiting: Vec<bool> = waiting.collect();
            let accepting = numbers.zip(&waiting).map(|(number, waits)| self.accept(number, all, *waits));
            let accepted = join_all(accepting.collect::<Vec<_>>()).await;
            let done = accepted.into_iter().flatten().map(settlement);
            self.store.settle(done.collect()).await.unwrap();
        }
        self.store.close().await;
    }
}

impl Filling {
    /// The message of that number; the delivery that is done with it, unless it waits.
    async fn accept(&self, number: usize, of: usize, waits: bool) -> Option<(DeliveryKey, Timestamp)> {
        let at = timestamp(self.begun + part(SPAN, number, of));
        let mut acceptance = message(number, at, OCTETS, 1);
        let id = acceptance.id;
        for delivery in &mut acceptance.deliveries {
            delivery.destination = format!("mx:d{}.example.net", number % DESTINATIONS);
            // Later than now in any case: what is due at once would be offered in memory.
            delivery.due = timestamp(self.begun + SPAN + SOON + part(WITHIN, number % 100_003, 100_003));
        }
        self.store.accept(acceptance).await.unwrap();
        (!waits).then_some((DeliveryKey { message: id, n: 0 }, at))
    }
}

fn settlement((key, at): (DeliveryKey, Timestamp)) -> Settlement {
    let attempted = Attempted {
        delivery: key.n,
        kind: "relay".to_owned(),
        destination: "mx:example.net".to_owned(),
        target: "team@example.net".to_owned(),
        host: Some("mx1.example.net [192.0.2.25]:25".to_owned()),
        attempt: 1,
        outcome: "delivered".to_owned(),
        answer: "250 2.0.0 Ok: queued as 4Tq8c12pXzz1".to_owned(),
        millis: 212,
        next: None,
        tls: Some("TLSv1.3".to_owned()),
    };
    done(key, vec![Event::new(at, Kind::Attempted(Box::new(attempted))).of(key.message)])
}

/// So much of the span as `number` is of `of`.
fn part(span: Duration, number: usize, of: usize) -> Duration {
    Duration::from_micros(u64::try_from(span.as_micros() * number as u128 / of as u128).unwrap())
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap())
}
