//! Builds every part from the configuration, starts it, and drains it in order on shutdown.
//!
//! The order of the start: snapshot, store, dispatcher, listeners, HTTP; of the end the reverse: no new connections,
//! sessions finish or are told 421, attempts settle, the store closes. Input: [`Options`]. Output: a running [`App`].

mod answering;
mod chores;
mod outgoing;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::admin::api::{InForce, Listening};
use crate::admin::{self, Control, Health, Readiness};
use crate::config::{Config, TlsMode};
use crate::delivery::{self, Decide, Dispatcher};
use crate::diagnostic::{Diagnostic, Severity};
use crate::dns::Dns;
use crate::event::{Bus, Event, Kind};
use crate::intake::{Current, Intake};
use crate::listener::{self, Answerer, Budget, Listeners};
use crate::reach::Outside;
use crate::reload::{self, Adjust, Built, Source, Swapped, Watch, Watched, Watcher};
use crate::store::{self, Store, StoreError};
use crate::telemetry::Level;
use crate::vault::Sealer;
use crate::{clock, telemetry};

pub use answering::Answering;
pub use chores::retention;
use chores::{gauges, keep_time, notice, stopped, watch_trial};
use outgoing::Outgoing;

/// How long what is under way may take once a stop was asked for.
const DRAIN: Duration = Duration::from_secs(25);
/// Closed when it has grown past this: small enough to be deleted soon, large enough to be few.
const SEGMENT_SIZE: u64 = 64 * 1024 * 1024;

/// How many events who reads the bus may lag behind.
pub const BUS_CAPACITY: usize = 4096;

/// What to run.
pub struct Options {
    pub source: Source,
    pub adjust: Option<Adjust>,
    /// Relays and webhooks go here and not into the world (`dev`).
    pub capture: Option<delivery::Capture>,
    /// Whoever subscribed before the start misses nothing of it.
    pub bus: Bus,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration has errors")]
    Config(Vec<Diagnostic>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Listen(String),
    #[error("{0}")]
    Resolver(String),
    #[error("start the threads of deliveries: {0}")]
    Threads(std::io::Error),
}

/// Part of `/readyz`: what is not there yet.
const LISTENERS: &str = "listeners";
const STOPPING: &str = "stopping";

/// The running server.
pub struct App {
    store: Store,
    bus: Bus,
    answering: Arc<Answering>,
    listeners: Listeners,
    outgoing: Outgoing,
    watcher: Watcher,
    readiness: Readiness,
    http: Option<SocketAddr>,
    found: FoundAtStart,
    stop: watch::Sender<bool>,
    chores: Vec<tokio::task::JoinHandle<()>>,
}

impl App {
    /// Starts every part; the listeners last, so that nothing is accepted that can't be kept.
    ///
    /// # Errors
    /// What is wrong, in words for the admin; nothing keeps running then.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let bus = options.bus.clone();
        let (watch, store, built) = open(&options, &bus)?;
        let current = Current::new(built.snapshot);
        let config = Arc::clone(&current.load().config);
        store.expect_waits(longest_wait(&config));
        let dns = Dns::new(&config.dns).map(Arc::new).map_err(|error| StartError::Resolver(error.to_string()))?;
        let outside = Outside::new(Arc::clone(&dns), None, &delivery::Network::default());
        let outside = outside.map(Arc::new).map_err(|error| StartError::Resolver(error.to_string()))?;
        let answering = Arc::new(Answering::new(&store, &bus, &current, &dns, Some(outside)));
        let delivery_config = Arc::new(ArcSwap::new(Arc::clone(&config)));
        let tls = Arc::new(ArcSwap::from_pointee(built.tls));
        let budget = Budget::new(&config.limits);
        let (stop, stopping) = watch::channel(false);
        let readiness = Readiness::default();
        readiness.hold(LISTENERS, "not bound yet");
        let http_listener = bind_http(&config).await?;
        let parts = listener::Parts {
            answerer: answering.clone(),
            bus: bus.clone(),
            budget: Arc::clone(&budget),
            tls: Arc::clone(&tls),
        };
        let listeners = Listeners::start(&config.listeners, parts).map_err(|e| StartError::Listen(e.to_string()))?;
        readiness.clear(LISTENERS);
        // Nothing goes out of a start that fails.
        let outgoing = Outgoing::start(delivery::Parts {
            store: store.clone(),
            config: Arc::clone(&delivery_config),
            dns,
            bus: bus.clone(),
            decider: Arc::clone(&answering) as Arc<dyn Decide>,
            capture: options.capture,
            roots: None,
            network: delivery::Network::default(),
        })?;
        in_use(&answering.intake, &outgoing.dispatcher, &store);
        levels(&listeners, &budget, &config);
        let ours = Watched {
            source: options.source,
            adjust: options.adjust,
            current: current.clone(),
            tls,
            bus: bus.clone(),
            swapped: follow(budget, store.clone(), delivery_config),
        };
        let sealer = sealer(&ours);
        let watcher = Watcher::start(ours, watch);
        let found = found(built.warnings, built.deployed, &listeners);
        let http = http_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        keep(&bus, &store);
        let answered = Arc::clone(&answering);
        let ground =
            Ground { store: &store, bus: &bus, config: &config, current: &current, answered, sealer, stopping };
        let chores = ground.chores(http_listener, readiness.clone(), &listeners, watcher.nudger());
        let chores = chores.inspect_err(|_| bus.keep(None))?;
        begun(&bus, http, &found);
        Ok(Self { store, bus, answering, listeners, outgoing, watcher, readiness, http, found, stop, chores })
    }

    /// Each listener with the port it really has.
    #[must_use]
    pub fn listening(&self) -> Vec<Listening> {
        listening(&self.listeners)
    }

    /// Where health and metrics are answered.
    #[must_use]
    pub fn http(&self) -> Option<Listening> {
        let address = self.http?.to_string();
        Some(Listening { protocol: "http".to_owned(), address, tls: TlsMode::Off.as_str().to_owned() })
    }

    /// What the configuration and the rules were warned of.
    #[must_use]
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.found.warnings
    }

    /// Which deployed release runs since the start in place of the files, in words.
    #[must_use]
    pub fn deployed(&self) -> Option<&str> {
        self.found.deployed.as_deref()
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.answering.config()
    }

    /// Who answers sessions, for mail that comes in by another way.
    #[must_use]
    pub fn answering(&self) -> Arc<Answering> {
        Arc::clone(&self.answering)
    }

    /// Reads configuration, rules and certificates again (SIGHUP).
    pub fn reload(&self) {
        self.watcher.nudge();
    }

    /// No new connections; sessions finish or are told 421; attempts settle; the store closes.
    pub async fn stop(self) {
        // Before the first connection is refused, and until the last moment that anybody can ask.
        self.readiness.hold(STOPPING, "no new connections are taken");
        let open_sessions = self.listeners.open() as u64;
        self.bus.publish(Event::new(clock::now(), Kind::Stopping { open_sessions }));
        drop(self.watcher);
        self.listeners.drain(DRAIN).await;
        // What is asked outside goes over connections that may be the dispatcher's threads', until the last has asked.
        let _threads = self.outgoing.drain(DRAIN).await;
        let _all_have_gone = self.stop.send(true);
        for chore in self.chores {
            // A reader of `tail` that hangs must not hold up the stop.
            let _late = tokio::time::timeout(Duration::from_secs(2), chore).await;
        }
        self.bus.keep(None);
        self.store.close().await;
    }
}

/// The files watched and the store ours; then all is read (again), so that nothing that changed meanwhile is missed.
fn open(options: &Options, bus: &Bus) -> Result<(Watch, Store, Built), StartError> {
    let read = || reload::build(&options.source, options.adjust.as_ref()).map_err(StartError::Config);
    let before = read()?;
    let watch = Watch::begin(&before, bus);
    let store = Store::open(store_options(&before.snapshot.config), bus.clone())?;
    let built = read()?;
    if built.snapshot.config.data_dir != before.snapshot.config.data_dir {
        let changed = "`data_dir` was changed while it was read: start again";
        return Err(StartError::Config(vec![Diagnostic::unplaced("mailworker.toml", changed)]));
    }
    Ok((watch, store, built))
}

/// Seals by the configuration in force.
fn sealer(watched: &Watched) -> Sealer {
    let current = watched.current.clone();
    Sealer::new(watched.source.options(), move || Arc::clone(&current.load().config))
}

/// What an admin is to know of a start.
struct FoundAtStart {
    warnings: Vec<Diagnostic>,
    /// Which deployed release runs in place of the files, in words.
    deployed: Option<String>,
}

fn found(mut warnings: Vec<Diagnostic>, deployed: Option<String>, listeners: &Listeners) -> FoundAtStart {
    warnings.extend(listeners.bound().iter().filter_map(|bound| unencrypted(bound.address, bound.tls, bound.offered)));
    FoundAtStart { warnings, deployed }
}

/// The last that is told of a start.
fn begun(bus: &Bus, http: Option<SocketAddr>, found: &FoundAtStart) {
    if let Some(address) = http.map(|http| http.to_string()) {
        let (protocol, tls) = ("http".to_owned(), TlsMode::Off.as_str().to_owned());
        bus.publish(Event::new(clock::now(), Kind::Listening { protocol, address, tls }));
    }
    if let Some(rules) = found.deployed.clone() {
        bus.publish(Event::new(clock::now(), Kind::Running { rules }));
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    bus.publish(Event::new(clock::now(), Kind::Started { version }));
}

/// What a configuration that comes into force changes beside the snapshot.
fn follow(budget: Arc<Budget>, store: Store, delivery: Arc<ArcSwap<Config>>) -> Swapped {
    Arc::new(move |fresh| {
        store.expect_waits(longest_wait(fresh));
        budget.set(&fresh.limits);
        delivery.store(Arc::clone(fresh));
    })
}

/// What belongs to no message is kept in the store's log. Of a store that can't write the first fault alone: keeping is
/// tried each second until it can again, and must not feed on its own failures.
pub fn keep(bus: &Bus, store: &Store) {
    let store = store.clone();
    bus.keep(Some(Arc::new(move |event| {
        if !matches!(event.kind, Kind::Fault { .. }) || store.writes() {
            store.log(event);
        }
    })));
}

/// What the tasks beside the mail stand on.
struct Ground<'a> {
    store: &'a Store,
    bus: &'a Bus,
    config: &'a Config,
    current: &'a Current,
    sealer: Sealer,
    answered: Arc<Answering>,
    stopping: watch::Receiver<bool>,
}

impl Ground<'_> {
    /// Retention, gauges, HTTP, the control socket: each ends when the stop says so.
    fn chores(
        self,
        http: Option<TcpListener>,
        readiness: Readiness,
        listeners: &Listeners,
        nudge: impl Fn() + Send + 'static,
    ) -> Result<Vec<tokio::task::JoinHandle<()>>, StartError> {
        let (store, bus, stopping) = (self.store.clone(), self.bus.clone(), self.stopping);
        let mut chores = vec![
            tokio::spawn(retention(store.clone(), bus.clone(), stopping.clone())),
            tokio::spawn(gauges(store.clone(), stopping.clone())),
            tokio::spawn(notice(store.clone(), nudge, stopping.clone())),
            tokio::spawn(keep_time(Arc::clone(&self.answered), stopping.clone())),
            tokio::spawn(watch_trial(store.clone(), bus.clone(), self.current.clone(), stopping.clone())),
        ];
        if let Some(listener) = http {
            let health = Health { store: store.clone(), readiness, metrics: telemetry::prometheus };
            chores.push(tokio::spawn(admin::serve_http(listener, health, stopped(stopping.clone()))));
        }
        let socket = bind_control(&self.config.data_dir)?;
        let (redecider, sealer, in_force) = (self.answered, self.sealer, in_force(self.current));
        let control = Control { redecider, store, bus, listeners: listening(listeners), sealer, in_force };
        chores.push(tokio::spawn(admin::serve_control(socket, control, stopped(stopping))));
        Ok(chores)
    }
}

/// As the configuration has it.
#[must_use]
pub fn store_options(config: &Config) -> store::Options {
    store::Options {
        data_dir: config.data_dir.clone(),
        segment_size: SEGMENT_SIZE,
        raw_retention: config.retention.raw,
        log_retention: config.retention.log,
        free_space: config.limits.free_space,
    }
}

async fn bind_http(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = config.http.address else { return Ok(None) };
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|error| {
        StartError::Listen(format!(
            "[http] address {address} can't be bound: {error}; choose another, or \"\" for none"
        ))
    })?;
    Ok(Some(listener))
}

fn bind_control(data_dir: &Path) -> Result<UnixListener, StartError> {
    admin::bind_control(data_dir).map_err(|error| {
        let path = admin::control_path(data_dir);
        StartError::Listen(format!("the control socket {} can't be bound: {error}", path.display()))
    })
}

fn listening(listeners: &Listeners) -> Vec<Listening> {
    let line = |bound: &listener::Bound| Listening {
        protocol: "smtp".into(),
        address: bound.address.to_string(),
        tls: bound.offered.as_str().into(),
    };
    listeners.bound().iter().map(line).collect()
}

/// Who listens to the world and meant to offer STARTTLS is told that it doesn't.
fn unencrypted(address: SocketAddr, tls: TlsMode, offered: TlsMode) -> Option<Diagnostic> {
    let is_reachable = !address.ip().to_canonical().is_loopback();
    (is_reachable && tls != offered).then(|| Diagnostic {
        severity: Severity::Warning,
        help: Some("add [tls] with `certificate` and `key`, or say `tls = \"off\"` for this [[listener]]".to_owned()),
        ..Diagnostic::unplaced(
            "",
            format!("mail comes in unencrypted at {address}: STARTTLS isn't offered without a certificate"),
        )
    })
}

/// What the metrics read when they are asked for.
fn levels(listeners: &Listeners, budget: &Arc<Budget>, config: &Config) {
    let (gate, budget, data_dir) = (listeners.gate(), Arc::clone(budget), config.data_dir.clone());
    telemetry::level(Level::SessionsOpen, move || gate.open() as u64);
    telemetry::level(Level::InFlightBytes, move || budget.used());
    telemetry::level(Level::StorageFreeBytes, move || store::free_bytes(&data_dir).unwrap_or_default());
}

/// What is in use of each limit. Nothing of it keeps a part alive.
fn in_use(intake: &Intake, dispatcher: &Dispatcher, store: &Store) {
    fn tell(level: Level, source: impl Fn() -> usize + Send + Sync + 'static) {
        telemetry::level(level, move || source() as u64);
    }
    tell(Level::DeliveryAttempts, dispatcher.attempts_open());
    tell(Level::WorkerRuns, intake.runs_open());
    tell(Level::WorkerRequests, intake.requests_open());
    tell(Level::StoreReads, store.reads_open());
    tell(Level::StoreWaiting, store.waiting());
}

/// The longest wait that a schedule names, and half of it again: it is spread.
fn longest_wait(config: &Config) -> Duration {
    let waits = config.relay.retry.iter().chain(&config.webhook_defaults.retry);
    waits.max().map_or(Duration::ZERO, |longest| longest.saturating_mul(3) / 2)
}

/// What runs, for who asks over the control socket.
fn in_force(current: &Current) -> admin::Asking {
    let current = current.clone();
    admin::Asking::new(move || {
        let snapshot = current.load();
        let deployed = snapshot.deployed.as_ref();
        InForce {
            env: snapshot.config.env_name.clone(),
            active: deployed.map(|deployed| deployed.active),
            canary: snapshot.canary().map(|canary| canary.id),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_to_the_world_without_a_certificate_is_told() {
        let warned = |address: &str, tls, offered| unencrypted(address.parse().unwrap(), tls, offered);
        let warning = warned("[::]:25", TlsMode::Starttls, TlsMode::Off).unwrap();
        assert!(warning.message.contains("unencrypted at [::]:25") && warning.help.is_some());
        assert_eq!(warned("127.0.0.1:2525", TlsMode::Starttls, TlsMode::Off), None);
        assert_eq!(warned("[::]:25", TlsMode::Off, TlsMode::Off), None);
        assert_eq!(warned("[::]:25", TlsMode::Starttls, TlsMode::Starttls), None);
    }
}
