//! Listens, accepts, admits, and stops in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bind::{ListenError, listen, none_is_left};
use super::budget::Budget;
use super::connection;
use super::limits::{Gate, Slot};
use super::socket::{Socket, Sockets};
use super::tls::TlsState;
use super::visit::Answerer;
use crate::clock;
use crate::config::{self, TlsMode};
use crate::event::{Bus, Event, Kind};
use crate::mail::Reply;

/// After the deadline of a shutdown: how long answers under way may still take before they are left behind.
const GRACE: Duration = Duration::from_secs(10);
/// After a failure to accept (no file descriptors left): how long before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs.
pub struct Parts {
    pub answerer: Arc<dyn Answerer>,
    /// Swapped by a reload.
    pub tls: Arc<ArcSwap<TlsState>>,
    pub bus: Bus,
    pub budget: Arc<Budget>,
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Serving,
    /// Idle sessions are told to go; messages on their way may be finished.
    Draining,
    /// Whoever is still there is cut off, but for answers under way.
    Cut,
}

/// What the connections of all listeners share.
pub(super) struct Shared {
    pub(super) parts: Parts,
    gate: Arc<Gate>,
    sessions: AtomicU64,
    pub(super) stop: watch::Receiver<Stop>,
}

impl Shared {
    pub(super) fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn publish(&self, session: Option<u64>, kind: Kind) {
        let event = Event::new(clock::now(), kind);
        self.parts.bus.publish(match session {
            Some(session) => event.in_session(session),
            None => event,
        });
    }
}

/// One socket that is listened on.
#[derive(Debug, Clone)]
pub struct Bound {
    /// With the real port.
    pub address: SocketAddr,
    pub tls: TlsMode,
    /// What of it there is at the start: STARTTLS isn't offered before a certificate is there.
    pub offered: TlsMode,
    pub(super) proxies: Vec<ipnet::IpNet>,
}

/// All the listeners, accepting.
pub struct Listeners {
    bound: Vec<Bound>,
    loops: JoinSet<()>,
    stop: watch::Sender<Stop>,
    gate: Arc<Gate>,
}

impl Listeners {
    /// Binds every listener, then accepts on all of them. Within a tokio runtime.
    ///
    /// # Errors
    /// The first one that can't be had; none is then listened on.
    pub fn start(listeners: &[config::Listener], parts: Parts) -> Result<Self, ListenError> {
        let mut sockets = Vec::with_capacity(listeners.len());
        for listener in listeners {
            sockets.extend(listen(&listener.address)?.into_iter().map(|socket| (socket, listener)));
        }
        none_is_left(listeners.iter().map(|listener| &listener.address))?;
        Ok(Self::on(sockets, parts))
    }

    /// Accepts on sockets that are there, each by the listener that it was made for. Within a tokio runtime.
    #[must_use]
    pub fn on<S: Sockets>(sockets: Vec<(S, &config::Listener)>, parts: Parts) -> Self {
        let (stop, stopped) = watch::channel(Stop::Serving);
        let gate = Gate::new();
        let shared = Arc::new(Shared { parts, gate: Arc::clone(&gate), sessions: AtomicU64::new(0), stop: stopped });
        let mut started = Self { bound: Vec::new(), loops: JoinSet::new(), stop, gate };
        for (socket, listener) in sockets {
            let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
            let address = socket.local_addr().unwrap_or(unspecified);
            let is_available = shared.parts.tls.load().is_available();
            let offered = if listener.tls == TlsMode::Starttls && !is_available { TlsMode::Off } else { listener.tls };
            let bound = Bound { address, tls: listener.tls, offered, proxies: listener.proxy_protocol.clone() };
            shared.publish(None, listening(&bound));
            started.bound.push(bound.clone());
            started.loops.spawn(accept(socket, Arc::new(bound), Arc::clone(&shared)));
        }
        started
    }

    /// In the order of the configuration; those that systemd handed over by one name in its order.
    #[must_use]
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// The addresses listened on, with their real ports.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.bound.iter().map(|bound| bound.address).collect()
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.gate.open()
    }

    /// What counts them: for the metrics, since it can be kept when the listeners are gone.
    #[must_use]
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// Stops: accepts no more, tells idle sessions to go (421 4.3.2), lets messages on their way be finished until the
    /// deadline, then cuts off whoever is left. Answers under way are waited for a little longer still.
    pub async fn drain(mut self, deadline: Duration) {
        self.stop.send_replace(Stop::Draining);
        if tokio::time::timeout(deadline, ended(&mut self.loops)).await.is_err() {
            self.stop.send_replace(Stop::Cut);
            let _too_late = tokio::time::timeout(GRACE, ended(&mut self.loops)).await;
        }
        // An answer that still runs is left to itself, not cancelled half way.
        self.loops.detach_all();
    }
}

async fn ended(loops: &mut JoinSet<()>) {
    while loops.join_next().await.is_some() {}
}

fn listening(bound: &Bound) -> Kind {
    let (protocol, tls) = ("smtp".to_owned(), bound.offered.as_str().to_owned());
    Kind::Listening { protocol, address: bound.address.to_string(), tls }
}

/// Accepts until the shutdown, then waits for the connections it began.
async fn accept<S: Sockets>(mut socket: S, bound: Arc<Bound>, shared: Arc<Shared>) {
    let mut stop = shared.stop.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            Some(ended) = connections.join_next() => report(ended, &shared),
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(slot) = admit(&stream, peer, &bound, &shared) {
                        connections.spawn(connection::run(stream, peer, slot, Arc::clone(&bound), Arc::clone(&shared)));
                    }
                }
                Err(error) => pause_after(&error, &shared).await,
            },
        }
    }
    drop(socket);
    while let Some(ended) = connections.join_next().await {
        report(ended, &shared);
    }
}

/// The last border that a panic meets; `connection::run` has borders of its own, which can still answer the peer.
fn report(ended: Result<(), tokio::task::JoinError>, shared: &Shared) {
    if let Err(error) = ended {
        shared.publish(None, Kind::Fault { what: "a session".to_owned(), detail: error.to_string() });
    }
}

/// A slot for the connection, or a 421 for the peer. The peer's own address counts, but for a proxy's.
fn admit(stream: &impl Socket, peer: SocketAddr, bound: &Bound, shared: &Shared) -> Option<Slot> {
    let limits = &shared.parts.answerer.config().limits;
    let Some(mut slot) = shared.gate.admit(limits.connections) else {
        refuse(stream, peer, &Reply::new(421, 7, 0, "Too many connections, try again later"), shared);
        return None;
    };
    if !bound.is_proxy(peer.ip()) && !slot.assign(peer.ip(), limits.connections_per_ip) {
        refuse(stream, peer, &too_many_from_there(), shared);
        return None;
    }
    Some(slot)
}

pub(super) fn too_many_from_there() -> Reply {
    Reply::new(421, 7, 0, "Too many connections from your address, try again later")
}

/// Says why and closes, without a task and without waiting: a fresh socket's buffer takes one line.
fn refuse(stream: &impl Socket, peer: SocketAddr, reply: &Reply, shared: &Shared) {
    let mut line = Vec::with_capacity(80);
    reply.write(&mut line);
    stream.say(&line);
    shared.publish(
        None,
        Kind::Refused {
            phase: "connect".to_owned(),
            ip: peer.ip().to_canonical(),
            sender: None,
            recipient: None,
            reply: reply.clone(),
        },
    );
}

async fn pause_after(error: &io::Error, shared: &Shared) {
    // The peer went before it was accepted: nothing of ours is wrong.
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    shared.publish(None, Kind::Fault { what: "accept".to_owned(), detail: error.to_string() });
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

impl Bound {
    pub(super) fn is_proxy(&self, ip: std::net::IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.proxies.iter().any(|network| network.contains(&ip))
    }
}
