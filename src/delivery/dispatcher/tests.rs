//! The dispatcher over a store: what faults of our own come to.

use std::path::Path;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::*;
use crate::clock;
use crate::config::{Config, load};
use crate::delivery::{Decide, Deciding};
use crate::dns::Dns;
use crate::event::{Bus, Event, Kind};
use crate::mail::{Address, Envelope, Notify as Dsn, Recipient};
use crate::store::{
    Acceptance, Body, DecideTask, MessageOutcome, NewDelivery, Options, QueueEntry, QueueFilter, RelayTask, Store, Task,
};

const CONFIG: &str = r#"
hostname = "mx.example.com"
[[domain]]
name = "example.com"
postmaster = "admin@example.net"
[relay]
smarthost = "smtp://127.0.0.1:1"
retry = ["1 s"]
expire = "3 s"
[dns]
servers = ["127.0.0.1:1"]
"#;

/// A worker with a fault that ends its run.
struct Faulty;

impl Decide for Faulty {
    fn decide(&self, _: crate::store::DeliveryKey, _: Arc<Body>, _: DecideTask) -> Deciding<'_> {
        panic!("on purpose")
    }

    fn hears(&self, _: Option<&crate::store::Decider>, _: &Address, _: bool) -> bool {
        false
    }

    fn tell(&self, _: crate::store::DeliveryKey, _: crate::store::TellTask) -> Deciding<'_> {
        panic!("on purpose")
    }
}

struct House {
    dir: tempfile::TempDir,
    store: Store,
    bus: Bus,
}

impl House {
    fn open(dir: tempfile::TempDir) -> Self {
        let bus = Bus::new(256);
        let options = Options {
            data_dir: dir.path().join("data"),
            segment_size: 1 << 20,
            raw_retention: Duration::from_hours(1),
            log_retention: Duration::from_hours(1),
            free_space: 0,
        };
        let store = Store::open(options, bus.clone()).unwrap();
        Self { dir, store, bus }
    }

    fn dispatcher(&self) -> Dispatcher {
        let config = Config::from_toml(CONFIG, "test.toml", Path::new("/"), &load::Options::default()).unwrap().config;
        Dispatcher::start(Parts {
            store: self.store.clone(),
            dns: Arc::new(Dns::new(&config.dns).unwrap()),
            config: Arc::new(ArcSwap::from_pointee(config)),
            bus: self.bus.clone(),
            decider: Arc::new(Faulty),
            capture: None,
            roots: None,
            network: crate::delivery::Network::default(),
        })
    }

    async fn accept(&self, task: Task) {
        let now = clock::now();
        let acceptance = Acceptance {
            id: clock::message_id(now),
            received_at: now,
            envelope: Envelope::default(),
            client: None,
            head: Bytes::new(),
            body: Bytes::from_static(b"Subject: x\r\n\r\nx\r\n").into(),
            fingerprint: [0; 16],
            subject: None,
            header_from: None,
            outcome: MessageOutcome::Accepted,
            keep_until: None,
            mailbox: None,
            deliveries: vec![NewDelivery { task, destination: "here".into(), due: now }],
            kv_reads: Vec::new(),
            kv_writes: Vec::new(),
            events: Vec::new(),
            authored: Vec::new(),
        };
        self.store.accept(acceptance).await.unwrap();
    }

    async fn queue(&self) -> Vec<QueueEntry> {
        self.store.queue(QueueFilter::default()).await.unwrap()
    }
}

/// Asks again after each event, for a while.
async fn until<T>(
    house: &House,
    mut told: tokio::sync::broadcast::Receiver<Arc<Event>>,
    ask: impl Fn(&[QueueEntry], &Event) -> Option<T>,
) -> T {
    let asking = async {
        loop {
            let event = told.recv().await.unwrap();
            if let Some(answer) = ask(&house.queue().await, &event) {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap()
}

#[tokio::test]
async fn an_attempt_that_panics_counts_and_comes_to_its_end() {
    let house = House::open(tempfile::tempdir().unwrap());
    let recipient = Recipient::new(Address::parse("support@example.com").unwrap());
    house.accept(Task::Decide(DecideTask { recipient, notes: std::collections::BTreeMap::new() })).await;
    let told = house.bus.subscribe();
    let _dispatcher = house.dispatcher();
    let attempts = until(&house, told, |queue, event| {
        let dead = queue.iter().find(|entry| entry.dead)?;
        matches!(event.kind, Kind::Failed { .. }).then_some(dead.attempts)
    })
    .await;
    assert!(attempts > 1, "{attempts} attempts");
}

/// A spool that is lost while the server runs is no reason to give anything up.
#[tokio::test]
async fn a_message_whose_segment_is_missing_is_a_fault_and_stays_queued() {
    let house = House::open(tempfile::tempdir().unwrap());
    let team = Address::parse("team@example.net").unwrap();
    let task = RelayTask {
        recipient: team.clone(),
        original: team,
        notify: Dsn::default(),
        orcpt: None,
        via: None,
        headers: Vec::new(),
        removed: Vec::new(),
        own: false,
        by: None,
    };
    house.accept(Task::Relay(task)).await;
    house.store.close().await;
    let House { dir, .. } = house;
    let house = House::open(dir);
    std::fs::rename(house.dir.path().join("data/spool"), house.dir.path().join("away")).unwrap();
    let told = house.bus.subscribe();
    let _dispatcher = house.dispatcher();
    let entry = until(&house, told, |queue, event| {
        let faulty = matches!(&event.kind, Kind::Attempted(attempted) if attempted.answer.contains("can't be read"));
        faulty.then(|| (queue[0].dead, queue[0].attempts))
    })
    .await;
    assert_eq!(entry, (false, 1));
}
