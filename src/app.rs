//! Builds every part from the configuration, starts it, and drains it in order on shutdown.
//!
//! The order of the start: snapshot, store, dispatcher, listeners, HTTP; of the end the reverse: no new connections,
//! sessions finish or are told 421, attempts settle, the store closes. Input: [`Options`]. Output: a running [`App`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::admin::api::{InForce, Listening, ReplayOf, Replayed};
use crate::admin::control::Redecide;
use crate::admin::{self, Control, Health, Readiness};
use crate::config::{Config, TlsMode};
use crate::delivery::{self, Decide, Decided, Dispatcher};
use crate::diagnostic::{Diagnostic, Severity};
use crate::dns::Dns;
use crate::event::{Bus, Event, Kind};
use crate::intake::decide::Fate;
use crate::intake::{self, Anew, Current, Intake};
use crate::listener::{self, Answerer, Budget, End, Listeners, Visit};
use crate::mail::{Address, MessageId, Reply};
use crate::reach::Outside;
use crate::reload::{self, Adjust, Built, Source, Swapped, Watch, Watched, Watcher};
use crate::rules::Happening;
use crate::smtp::{Answer, Closed, Question};
use crate::store::releases::{Change, Stop};
use crate::store::{self, DecideTask, Keep, Store, StoreError, TellTask};
use crate::telemetry::Level;
use crate::vault::Sealer;
use crate::{clock, telemetry};

/// How many events a slow reader of the bus may lag behind.
const BUS_CAPACITY: usize = 4096;
/// How long what is under way may take once a stop was asked for.
const DRAIN: Duration = Duration::from_secs(25);
/// Closed when it has grown past this: small enough to be deleted soon, large enough to be few.
const SEGMENT_SIZE: u64 = 64 * 1024 * 1024;
/// How often the store looks for what retention no longer keeps.
const RETENTION_EVERY: Duration = Duration::from_mins(1);
/// Half of what retention waits between two steps, by how long the first took.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked at how a release on trial does.
const TRIAL_EVERY: Duration = Duration::from_millis(500);
/// How often the gauges are read.
const GAUGES_EVERY: Duration = Duration::from_secs(5);

/// What to run.
pub struct Options {
    pub source: Source,
    pub adjust: Option<Adjust>,
    /// Relays and webhooks go here and not into the world (`dev`).
    pub capture: Option<delivery::Capture>,
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
    dispatcher: Dispatcher,
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
        let bus = Bus::new(BUS_CAPACITY);
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
        let dispatcher = Dispatcher::start(delivery::Parts {
            store: store.clone(),
            config: Arc::clone(&delivery_config),
            dns,
            bus: bus.clone(),
            decider: Arc::clone(&answering) as Arc<dyn Decide>,
            capture: options.capture,
            roots: None,
            network: delivery::Network::default(),
        });
        in_use(&answering.intake, &dispatcher, &store);
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
        let answered = Arc::clone(&answering);
        let ground =
            Ground { store: &store, bus: &bus, config: &config, current: &current, answered, sealer, stopping };
        let chores = ground.chores(http_listener, readiness.clone(), &listeners, watcher.nudger())?;
        begun(&bus, &store, &found);
        Ok(Self { store, bus, answering, listeners, dispatcher, watcher, readiness, http, found, stop, chores })
    }

    /// Each listener with the port it really has.
    #[must_use]
    pub fn listening(&self) -> Vec<Listening> {
        listening(&self.listeners)
    }

    /// Where health and metrics are answered.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
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
    pub fn bus(&self) -> &Bus {
        &self.bus
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
        self.dispatcher.drain(DRAIN).await;
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

/// Told, and from now on kept.
fn begun(bus: &Bus, store: &Store, found: &FoundAtStart) {
    keep(bus, store);
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
        tls: tls_word(bound.offered).into(),
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

fn tls_word(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Off => "off",
        TlsMode::Starttls => "starttls",
        TlsMode::Required => "required",
        TlsMode::Implicit => "implicit",
    }
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

async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _the_app_is_gone = stopping.wait_for(|stop| *stop).await;
}

/// The longest wait that a schedule names, and half of it again: it is spread.
fn longest_wait(config: &Config) -> Duration {
    let waits = config.relay.retry.iter().chain(&config.webhook_defaults.retry);
    waits.max().map_or(Duration::ZERO, |longest| longest.saturating_mul(3) / 2)
}

/// Deletes what retention no longer keeps, in small steps; between two of them mail has twice as long for itself.
pub async fn retention(store: Store, bus: Bus, stopping: watch::Receiver<bool>) {
    let mut timer = tokio::time::interval(RETENTION_EVERY);
    loop {
        tokio::select! {
            biased;
            _ = timer.tick() => {}
            () = stopped(stopping.clone()) => return,
        }
        loop {
            let began = tokio::time::Instant::now();
            match store.retain(clock::now()).await {
                Ok(true) => tokio::select! {
                    biased;
                    () = tokio::time::sleep(2 * began.elapsed().clamp(SHORTEST_PAUSE, LONGEST_PAUSE)) => {}
                    () = stopped(stopping.clone()) => return,
                },
                Ok(false) | Err(StoreError::Closed) => break,
                Err(error) => {
                    let kind = Kind::Fault { what: "retention".into(), detail: error.to_string() };
                    bus.publish(Event::new(clock::now(), kind));
                    break;
                }
            }
        }
    }
}

/// Runs what the configuration plans. A run that has begun ends before the stop goes on.
async fn keep_time(answerer: Arc<Answering>, stopping: watch::Receiver<bool>) {
    loop {
        let pause = answerer.intake.keep_time().await;
        tokio::select! {
            biased;
            () = stopped(stopping.clone()) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What an admin has put into the store is taken up as a change of the files is.
async fn notice(store: Store, nudge: impl Fn() + Send, stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            () = stopped(stopping.clone()) => return,
            () = store.deployed() => nudge(),
        }
    }
}

/// Gives up a release on trial whose runs fail too often.
async fn watch_trial(store: Store, bus: Bus, current: Current, stopping: watch::Receiver<bool>) {
    let mut timer = tokio::time::interval(TRIAL_EVERY);
    loop {
        tokio::select! {
            biased;
            _ = timer.tick() => {}
            () = stopped(stopping.clone()) => return,
        }
        let snapshot = current.load();
        let failing = snapshot.canary().and_then(|canary| Some((canary.id, canary.verdict()?)));
        let Some((release, reason)) = failing else { continue };
        let (env, at) = (snapshot.config.env_name.clone(), clock::now());
        let stop = Stop { env: env.clone(), release, reason: reason.clone(), at };
        // What fails is tried again; that it is tried no more already is as good.
        if store.change_release(Change::Stop(stop)).await.is_ok() {
            bus.publish(Event::new(at, Kind::CanaryStopped { env, release, reason }));
        }
    }
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

/// Keeps the store's gauges up to date.
async fn gauges(store: Store, stopping: watch::Receiver<bool>) {
    let mut timer = tokio::time::interval(GAUGES_EVERY);
    loop {
        tokio::select! {
            biased;
            _ = timer.tick() => {}
            () = stopped(stopping.clone()) => return,
        }
        if let Ok(gauges) = store.gauges().await {
            telemetry::gauges(&gauges);
        }
    }
}

/// Between the listener's visits and intake's, and between delivery's second runs and intake's.
pub struct Answering {
    pub intake: Intake,
    current: Current,
}

impl Answering {
    #[must_use]
    pub fn new(store: &Store, bus: &Bus, current: &Current, dns: &Arc<Dns>, outside: Option<Arc<Outside>>) -> Self {
        let intake = Intake::new(store.clone(), bus.clone(), current.clone(), Arc::clone(dns), outside);
        Self { intake, current: current.clone() }
    }
}

impl Answerer for Answering {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.current.load().config)
    }

    fn open(&self, visit: &mut Visit) -> Arc<Config> {
        let own = self.intake.open(visit.session);
        let config = own.config();
        visit.put(own);
        config
    }

    fn answer<'a>(&'a self, visit: &'a mut Visit, question: Question) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let (client, acknowledged) = (visit.client.clone(), visit.acknowledged);
            let Some(own) = visit.own_mut::<intake::Visit>() else {
                return Answer::Reply(Reply::new(451, 3, 0, "Something failed here, try again later"));
            };
            if acknowledged {
                self.intake.acknowledged(own);
            }
            self.intake.answer(own, &client, question).await
        })
    }

    fn take_part<'a>(&'a self, visit: &'a mut Visit, octets: Vec<u8>) -> BoxFuture<'a, Result<(), Reply>> {
        Box::pin(async move {
            match visit.own_mut::<intake::Visit>() {
                Some(own) => self.intake.take_part(own, octets).await,
                None => Err(Reply::new(451, 3, 0, "Something failed here, try again later")),
            }
        })
    }

    fn give_up_parts(&self, visit: &mut Visit) {
        if let Some(own) = visit.own_mut::<intake::Visit>() {
            self.intake.give_up_parts(own);
        }
    }

    fn closed(&self, visit: &mut Visit, end: &End) {
        let has_read = visit.acknowledged || *end == End::Closed(Closed::Quit);
        if let Some(own) = visit.own_mut::<intake::Visit>() {
            self.intake.closed(own, has_read);
        }
    }
}

impl Decide for Answering {
    fn decide(&self, message: MessageId, body: Arc<store::Body>, task: DecideTask) -> delivery::Deciding<'_> {
        Box::pin(async move {
            match self.intake.decide_again(message, &body, task).await {
                Ok(judged) => decided(judged),
                Err(error) => Decided::Later { error, events: Vec::new() },
            }
        })
    }

    fn hears(&self, recipient: &Address, delivered: bool) -> bool {
        self.intake.hears(recipient, if delivered { Happening::Delivered } else { Happening::Failed })
    }

    fn tell(&self, message: MessageId, task: TellTask) -> delivery::Deciding<'_> {
        Box::pin(async move {
            match self.intake.tell(message, task).await {
                Ok(intake::Told { failed: Some(error), events, .. }) => Decided::Later { error, events },
                Ok(told) => Decided::Done {
                    deliveries: told.deliveries,
                    authored: Vec::new(),
                    quarantined: false,
                    keep: None,
                    kv_reads: told.reads,
                    kv_writes: told.writes,
                    events: told.events,
                },
                Err(error) => Decided::Later { error, events: Vec::new() },
            }
        })
    }
}

impl Redecide for Answering {
    fn redecide(&self, asked: ReplayOf) -> BoxFuture<'_, Result<Replayed, StoreError>> {
        Box::pin(async move {
            let Anew { deliveries, refused, events } = self.intake.decide_anew(asked.id, asked.known).await?;
            Ok(Replayed { deliveries, refused, events })
        })
    }
}

/// A second run's outcome, as delivery settles it.
fn decided(judged: intake::decide::Judged) -> Decided {
    match &judged.fate {
        Fate::Accept => Decided::Done {
            deliveries: judged.deliveries,
            authored: judged.authored,
            quarantined: judged.outcome == store::MessageOutcome::Quarantined,
            keep: Some(Keep { until: judged.keep_until, mailbox: judged.mailbox })
                .filter(|keep| *keep != Keep::default()),
            kv_reads: judged.reads,
            kv_writes: judged.writes,
            events: judged.events,
        },
        // The sender has read 250 long since: a notice is the only way left to tell it.
        Fate::Reject(reply) => Decided::Done {
            deliveries: vec![intake::notice(&judged.recipient, reply, clock::now())],
            authored: Vec::new(),
            quarantined: false,
            keep: None,
            kv_reads: judged.reads,
            kv_writes: judged.writes,
            events: judged.events,
        },
        Fate::Defer(reply) => Decided::Later { error: reply.to_string(), events: judged.events },
    }
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
