//! What keeping costs: messages accepted (body, two deliveries, an event), and claimed and settled, at several at once.
//! `cargo bench --bench store`. On the disk of the target directory, synced as in service.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use futures_util::future::join_all;
use mailworker::event::{Bus, Event, Kind};
use mailworker::mail::{Address, Client, Envelope, Notify, Recipient, Reply, Timestamp};
use mailworker::store::{
    Acceptance, MessageOutcome, NewDelivery, Options, RelayTask, Settled, Settlement, Store, Task,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

struct Bench {
    runtime: Runtime,
    store: Store,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = Options {
            data_dir: dir.path().join("data"),
            segment_size: 256 << 20,
            raw_retention: std::time::Duration::from_hours(168),
            log_retention: std::time::Duration::from_hours(720),
            free_space: 0,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        Self { runtime, store: Store::open(options, Bus::new(16)).unwrap(), _dir: dir }
    }

    fn accept(&self, acceptances: Vec<Acceptance>) {
        let accepting = acceptances.into_iter().map(|acceptance| {
            let store = self.store.clone();
            self.runtime.spawn(async move { store.accept(acceptance).await.unwrap() })
        });
        let accepting: Vec<_> = accepting.collect();
        black_box(self.runtime.block_on(join_all(accepting)));
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn message(octets: usize, deliveries: usize) -> Acceptance {
    let at = mailworker::clock::now();
    let id = mailworker::clock::message_id(at);
    let recipient = address("support@example.com");
    let event = Event::new(at, Kind::Accepted { reply: Reply::new(250, 0, 0, "OK"), deliveries: 2 }).of(id);
    Acceptance {
        id,
        received_at: at,
        envelope: Envelope {
            sender: Some(address("alice@example.org")),
            recipients: vec![Recipient::new(recipient.clone())],
            ..Envelope::default()
        },
        client: Some(Client {
            ip: "192.0.2.7".parse().unwrap(),
            port: 40_000,
            listener: "127.0.0.1:25".to_owned(),
            helo: Some("mail.example.org".to_owned()),
            esmtp: true,
            tls: None,
            ptr: None,
        }),
        head: Bytes::from_static(b"Received: by mx.example.com\r\n"),
        body: Bytes::from(vec![b'x'; octets]).into(),
        fingerprint: id.to_bytes(),
        subject: Some("Printer".to_owned()),
        header_from: Some("alice@example.org".to_owned()),
        outcome: MessageOutcome::Accepted,
        keep_until: None,
        mailbox: None,
        deliveries: (0..deliveries).map(|_| relay(&recipient, at)).collect(),
        kv_reads: Vec::new(),
        kv_writes: Vec::new(),
        events: vec![event],
    }
}

fn relay(original: &Address, due: Timestamp) -> NewDelivery {
    NewDelivery {
        task: Task::Relay(RelayTask {
            recipient: address("team@example.net"),
            original: original.clone(),
            notify: Notify::default(),
            orcpt: None,
            via: None,
            headers: Vec::new(),
        }),
        destination: "mx:example.net".to_owned(),
        due,
    }
}

fn accept(bencher: Bencher<'_, '_>, octets: usize, together: usize) {
    let bench = Bench::new();
    bencher
        .counter(ItemsCount::new(together))
        .with_inputs(|| (0..together).map(|_| message(octets, 2)).collect::<Vec<_>>())
        .bench_local_values(|acceptances| bench.accept(acceptances));
}

#[divan::bench(args = [1, 16, 64, 256], sample_count = 30)]
fn accept_4_kib(bencher: Bencher<'_, '_>, together: usize) {
    accept(bencher, 4096, together);
}

#[divan::bench(args = [16, 64], sample_count = 30)]
fn accept_100_kib(bencher: Bencher<'_, '_>, together: usize) {
    accept(bencher, 102_400, together);
}

/// Deliveries that are due are claimed, and settled as delivered.
#[divan::bench(args = [1, 64, 256], sample_count = 30)]
fn claim_and_settle(bencher: Bencher<'_, '_>, together: usize) {
    let bench = Bench::new();
    bencher
        .counter(ItemsCount::new(together))
        .with_inputs(|| bench.accept((0..together).map(|_| message(512, 1)).collect()))
        .bench_local_values(|()| {
            bench.runtime.block_on(async {
                let claimed = bench.store.claim(mailworker::clock::now(), together).await.unwrap();
                assert_eq!(claimed.len(), together);
                let settlements = claimed.iter().map(|delivery| Settlement {
                    key: delivery.key,
                    result: Settled::Done,
                    events: Vec::new(),
                    then: Vec::new(),
                    kv_reads: Vec::new(),
                    kv_writes: Vec::new(),
                    author: None,
                    outcome: None,
                    keep: None,
                });
                bench.store.settle(settlements.collect()).await.unwrap()
            })
        });
}
