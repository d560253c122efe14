//! A store in a directory of its own, and what goes into it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use mailworker::event::{Bus, Event, Kind};
use mailworker::mail::{Address, Client, Envelope, MessageId, Notify, Recipient, Reply, Timestamp};
use mailworker::store::{
    Acceptance, Accepted, DeliveryKey, MessageOutcome, NewDelivery, Options, RelayTask, Settled, Settlement, Store,
    Task, WebhookBody, WebhookTask,
};
use tempfile::TempDir;

pub const DAY: Duration = Duration::from_hours(24);

pub struct Home {
    pub dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn options(&self) -> Options {
        options(&self.path())
    }

    pub fn open(&self) -> Store {
        Store::open(self.options(), Bus::new(16)).unwrap()
    }

    /// What a power cut would leave: the files as they are now, opened elsewhere.
    pub fn crash(&self) -> Self {
        let copy = Self::new();
        copy_tree(&self.path(), &copy.path());
        copy
    }

    /// The segment files, in order.
    pub fn segments(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(self.path().join("spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    }

    /// Where the last record of a segment ends: what lies behind it are zeros (the store writes them ahead).
    pub fn end(segment: &Path) -> usize {
        let octets = std::fs::read(segment).unwrap();
        octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1)
    }

    /// The database, for what no caller of a store can do.
    pub fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path().join("mailworker.db")).unwrap()
    }
}

pub fn options(data_dir: &Path) -> Options {
    Options {
        data_dir: data_dir.to_owned(),
        segment_size: 64 << 20,
        raw_retention: 7 * DAY,
        log_retention: 30 * DAY,
        free_space: 0,
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn now() -> Timestamp {
    mailworker::clock::now()
}

pub fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A message's octets as the store has them.
pub async fn octets(store: &Store, id: MessageId) -> Bytes {
    store.body(id).await.unwrap().raw.whole().await.unwrap()
}

/// A message to `a@example.org` with one delivery, due when it was received.
pub fn message(body: &str) -> Acceptance {
    message_at(body, now())
}

pub fn message_at(body: &str, at: Timestamp) -> Acceptance {
    let recipient = address("a@example.org");
    let id = mailworker::clock::message_id(at);
    Acceptance {
        id,
        received_at: at,
        envelope: Envelope {
            sender: Some(address("sender@example.net")),
            recipients: vec![Recipient::new(recipient.clone())],
            ..Envelope::default()
        },
        client: Some(Client {
            ip: "192.0.2.7".parse().unwrap(),
            port: 40_000,
            listener: "127.0.0.1:25".to_owned(),
            helo: Some("client.example.net".to_owned()),
            esmtp: true,
            tls: None,
            ptr: None,
            auth: None,
            origin: mailworker::mail::Origin::default(),
        }),
        head: Bytes::from_static(b"Received: by mx.example.org\r\n"),
        body: Bytes::copy_from_slice(body.as_bytes()).into(),
        fingerprint: id.to_bytes(),
        subject: Some("Hello".to_owned()),
        header_from: Some("sender@example.net".to_owned()),
        outcome: MessageOutcome::Accepted,
        keep_until: None,
        mailbox: None,
        deliveries: vec![relay(at)],
        kv_reads: Vec::new(),
        kv_writes: Vec::new(),
        events: vec![accepted(id, at)],
        authored: Vec::new(),
    }
}

pub fn accepted(id: MessageId, at: Timestamp) -> Event {
    Event::new(at, Kind::Accepted { reply: Reply::new(250, 0, 0, "OK"), deliveries: 1 }).of(id)
}

pub fn relay(due: Timestamp) -> NewDelivery {
    NewDelivery {
        task: Task::Relay(RelayTask {
            recipient: address("team@example.com"),
            original: address("a@example.org"),
            notify: Notify::default(),
            orcpt: None,
            via: None,
            headers: Vec::new(),
            removed: Vec::new(),
            own: false,
            by: None,
        }),
        destination: "mx:example.com".to_owned(),
        due,
    }
}

pub fn webhook(json: String) -> NewDelivery {
    let task = Task::Webhook(WebhookTask {
        binding: None,
        url: "https://hooks.example.net/in".to_owned(),
        method: "POST".to_owned(),
        headers: Vec::new(),
        body: WebhookBody::Json(json),
        recipient: address("a@example.org"),
        quiet: false,
        by: None,
    });
    NewDelivery { task, destination: "https://hooks.example.net".to_owned(), due: now() }
}

pub fn settlement(key: DeliveryKey, result: Settled) -> Settlement {
    Settlement {
        key,
        result,
        events: Vec::new(),
        then: Vec::new(),
        kv_reads: Vec::new(),
        kv_writes: Vec::new(),
        authored: Vec::new(),
        outcome: None,
        keep: None,
    }
}

pub async fn accept(store: &Store, acceptance: Acceptance) -> MessageId {
    let id = acceptance.id;
    assert_eq!(store.accept(acceptance).await.unwrap(), Accepted::Committed);
    id
}

pub async fn done(store: &Store, key: DeliveryKey) {
    store.settle(vec![settlement(key, Settled::Done)]).await.unwrap();
}
