//! What all parts of one simulated world share: its time, its randomness, its network, its record of what happened; and
//! the moment at which the server's process dies.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mailworker::clock;
use mailworker::event::Event;
use mailworker::mail::Timestamp;
use tokio::sync::{Notify, mpsc};

use crate::ledger::Ledger;
use crate::pipe::{Line, Pipe, pair};
use crate::plan::Plan;
use crate::transcript::Transcript;

/// When every world begins.
pub const BEGINNING: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// What comes out of a listening socket.
pub type Arrivals = mpsc::UnboundedReceiver<(Pipe, SocketAddr)>;

pub struct World {
    pub plan: Plan,
    rng: Mutex<fastrand::Rng>,
    ledger: Mutex<Ledger>,
    transcript: Mutex<Transcript>,
    listeners: Mutex<BTreeMap<SocketAddr, mpsc::UnboundedSender<(Pipe, SocketAddr)>>>,
    links: AtomicU64,
    faults: AtomicU64,
    /// What the server has read from and written to the network in this life.
    steps: AtomicU64,
    dies_at: AtomicU64,
    frozen: AtomicBool,
    pub died: Notify,
    /// Holds the data of each life.
    room: PathBuf,
    life: AtomicU64,
}

impl World {
    pub fn new(plan: Plan, room: &Path) -> Arc<Self> {
        let mut rng = fastrand::Rng::with_seed(plan.seed ^ 0x5eed);
        let ledger = Ledger::new(&plan);
        let transcript = Transcript::new(room);
        // The server's own draws.
        fastrand::seed(rng.u64(..));
        Arc::new(Self {
            plan,
            rng: Mutex::new(rng),
            ledger: Mutex::new(ledger),
            transcript: Mutex::new(transcript),
            listeners: Mutex::default(),
            links: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            dies_at: AtomicU64::new(u64::MAX),
            frozen: AtomicBool::new(false),
            died: Notify::new(),
            room: room.to_owned(),
            life: AtomicU64::new(0),
        })
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(clock::now().since(BEGINNING).as_millis()).unwrap()
    }

    pub fn is_calm(&self) -> bool {
        self.now() >= self.plan.calm_from
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// A source of randomness for a part of its own.
    pub fn fork(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.rng.lock().unwrap().u64(..))
    }

    pub fn note(&self, what: u64, kind: &str, octets: &[u8]) {
        if !self.is_frozen() {
            self.transcript.lock().unwrap().note(self.now(), what, kind, octets);
        }
    }

    /// The server has told of something.
    pub fn tell(&self, event: &Event) {
        if self.is_frozen() {
            return;
        }
        let text = serde_json::to_string(event).unwrap();
        let text = self.transcript.lock().unwrap().without_room(&text);
        self.note(0, "event", text.as_bytes());
        self.ledger().told(event);
    }

    /// What happened so far, as one number.
    pub fn digest(&self) -> u64 {
        self.transcript.lock().unwrap().digest()
    }

    /// One fault more was injected.
    pub fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    pub fn next_link(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed)
    }

    // ---- lives

    pub fn data_dir(&self) -> PathBuf {
        self.room.join(format!("life-{}", self.life.load(Ordering::Relaxed)))
    }

    /// A process begins: it dies when it has read or written so many times.
    pub fn begin_life(&self, dies_after: Option<u64>) {
        self.steps.store(0, Ordering::Relaxed);
        self.dies_at.store(dies_after.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.listeners.lock().unwrap().clear();
        self.frozen.store(false, Ordering::Relaxed);
    }

    /// No sudden death any more.
    pub fn spare(&self) {
        self.dies_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// Nothing moves any more, until the next life.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Before the server reads or writes, or after it has told of something. True: it is dead.
    pub fn step(&self) -> bool {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        if step >= self.dies_at.load(Ordering::Relaxed) && !self.is_frozen() {
            self.die();
        }
        self.is_frozen()
    }

    /// The process is gone in this moment: what is on the disk now is what there is.
    fn die(&self) {
        self.note(0, "death", &[]);
        self.fault();
        let (old, now) = (self.data_dir(), self.now());
        self.life.fetch_add(1, Ordering::Relaxed);
        copy(&old, &self.data_dir());
        self.ledger().died(now);
        self.frozen.store(true, Ordering::Relaxed);
        self.died.notify_one();
    }

    // ---- the network

    pub fn listen(&self, at: SocketAddr) -> Arrivals {
        let (sender, arrivals) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().insert(at, sender);
        arrivals
    }

    pub fn unlisten(&self, at: SocketAddr) {
        self.listeners.lock().unwrap().remove(&at);
    }

    /// A connection from `from` to `to`, over such a line. `server`: which end is the server's, 0 the dialling one.
    pub async fn dial(
        self: &Arc<Self>,
        from: SocketAddr,
        to: SocketAddr,
        line: Line,
        server: usize,
    ) -> io::Result<Pipe> {
        let cut = |now| [from, to].iter().filter_map(|host| self.plan.cut_until(host.ip(), now)).max();
        tokio::time::sleep(Duration::from_millis(line.latency)).await;
        while let Some(until) = cut(self.now()) {
            tokio::time::sleep(Duration::from_millis(until - self.now())).await;
        }
        if self.plan.is_silent(to.ip(), self.now()) {
            self.fault();
            std::future::pending::<()>().await;
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let arrivals = self.listeners.lock().unwrap().get(&to).cloned().ok_or_else(refused)?;
        if self.plan.is_refusing(to.ip(), self.now()) {
            self.fault();
            return Err(refused());
        }
        let (ours, theirs) = pair(self, line, from, to, server);
        arrivals.send((theirs, from)).map_err(|_| refused())?;
        tokio::time::sleep(Duration::from_millis(line.latency)).await;
        Ok(ours)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
