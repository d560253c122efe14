//! Drives one [`Session`] over one stream: reads for it, writes for it, asks for it, and keeps its time.
//!
//! Output is sent only when the session can do nothing more, so that a pipelined transaction costs one write. Every
//! wait is bounded: a read and a write by the state's time-out, a command line and a message as a whole, the session
//! as a whole (RFC 5321 §4.5.3.2). An answer under way is never cut short.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::budget::Reservation;
use super::limits::Slot;
use super::serve::{Bound, Shared, Stop, too_many_from_there};
use super::stream::{FAREWELL, Stream, part, send_away};
use super::visit::{End, Visit};
use super::{proxy, tls};
use crate::config::{Config, EarlyTalk, TlsMode};
use crate::event::Kind;
use crate::mail::{Client, Reply};
use crate::smtp::{Action, Answer, Closed, Question, Session, Settings};

/// What a connection reads at once while commands are expected: an idle one holds no more than this.
const COMMAND_BUFFER: usize = 4 * 1024;
/// The same while a message comes in.
const DATA_BUFFER: usize = 64 * 1024;
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Serves one accepted connection to its end.
pub(super) async fn run(tcp: TcpStream, peer: SocketAddr, slot: Slot, bound: Arc<Bound>, shared: Arc<Shared>) {
    let session = shared.next_session();
    // Answers are single segments and must not wait for the next one (Nagle).
    let _without_it_all_works_slower = tcp.set_nodelay(true);
    let Some((tcp, slot, peer)) = learn_peer(tcp, slot, peer, session, &bound, &shared).await else { return };
    let client = Client {
        ip: peer.ip().to_canonical(),
        port: peer.port(),
        listener: bound.address.to_string(),
        helo: None,
        esmtp: false,
        tls: None,
        ptr: None,
    };
    shared.publish(Some(session), Kind::Connected { client: Box::new(client.clone()) });
    let mut visit = Visit::new(session, client);
    let stream = if bound.tls == TlsMode::Implicit {
        let Some(stream) = encrypt(tcp, &mut visit, &shared).await else { return };
        stream
    } else {
        Stream::Plain(tcp)
    };
    let config = shared.parts.answerer.open(&mut visit);
    let settings = settings(&config, &visit, &bound, &shared);
    Connection::new(stream, visit, config, settings, &shared).serve().await;
    drop(slot);
}

/// Whom we speak with: the peer, or whom a proxy speaks for. `None`: it was sent away.
async fn learn_peer(
    mut tcp: TcpStream,
    mut slot: Slot,
    peer: SocketAddr,
    session: u64,
    bound: &Bound,
    shared: &Shared,
) -> Option<(TcpStream, Slot, SocketAddr)> {
    if !bound.is_proxy(peer.ip()) {
        return Some((tcp, slot, peer));
    }
    let peer = match proxy::read(&mut tcp, proxy::TIMEOUT).await {
        Ok(client) => client.unwrap_or(peer),
        Err(reason) => {
            let ip = peer.ip().to_canonical();
            shared.publish(Some(session), Kind::Dropped { phase: "connect".to_owned(), ip, reason });
            send_away(&mut tcp, &Reply::new(421, 3, 5, "A PROXY header is required here")).await;
            return None;
        }
    };
    if slot.assign(peer.ip(), shared.parts.answerer.config().limits.connections_per_ip) {
        return Some((tcp, slot, peer));
    }
    let reply = too_many_from_there();
    send_away(&mut tcp, &reply).await;
    let ip = peer.ip().to_canonical();
    let phase = "connect".to_owned();
    shared.publish(Some(session), Kind::Refused { phase, ip, sender: None, recipient: None, reply });
    None
}

/// Shakes hands, and tells how it went. `None`: it failed, and the connection is closed.
async fn encrypt(tcp: TcpStream, visit: &mut Visit, shared: &Shared) -> Option<Stream> {
    let shaken = match shared.parts.tls.load().server() {
        Some(server) => tls::shake_hands(tcp, server, HANDSHAKE).await,
        None => Err("there is no certificate ([tls] in the configuration)".to_owned()),
    };
    match shaken {
        Ok(stream) => {
            let facts = tls::facts(&stream);
            let (version, cipher) = (facts.version.clone(), facts.cipher.clone());
            shared.publish(Some(visit.session), Kind::TlsStarted { version, cipher });
            visit.client.tls = Some(facts);
            Some(Stream::Tls(Box::new(stream)))
        }
        Err(error) => {
            let error = format!("{} [{}]", error, visit.client.ip);
            shared.publish(Some(visit.session), Kind::TlsFailed { error });
            None
        }
    }
}

fn settings(config: &Config, visit: &Visit, bound: &Bound, shared: &Shared) -> Settings {
    let upgradable = matches!(bound.tls, TlsMode::Starttls | TlsMode::Required);
    Settings {
        hostname: config.hostname.clone(),
        message_size: config.limits.message_size,
        recipients: config.limits.recipients,
        errors: config.limits.errors,
        starttls: upgradable && shared.parts.tls.load().is_available(),
        tls_required: bound.tls == TlsMode::Required,
        repair_line_ends: config.session.repair_line_ends.iter().any(|network| network.contains(&visit.client.ip)),
        command_timeout: config.session.command_timeout,
        data_timeout: config.session.data_timeout,
    }
}

/// Why a session stopped short of a close of its own.
struct Broken {
    reason: String,
}

/// One session under way.
struct Connection<'a> {
    /// `None` only where a handshake failed and took the stream with it.
    stream: Option<Stream>,
    session: Session,
    visit: Visit,
    config: Arc<Config>,
    shared: &'a Shared,
    stop: watch::Receiver<Stop>,
    buffer: Vec<u8>,
    /// For the octets of the message that is coming in or being answered.
    reservation: Reservation,
    ends: Instant,
    /// Set while a message comes in.
    message_ends: Option<Instant>,
    /// When the session last did something: a command that comes in drop by drop is no such thing.
    moved: Instant,
    /// Why the session was told to go (421), if it was, and what it was at.
    told: Option<(&'static str, String)>,
}

impl<'a> Connection<'a> {
    fn new(stream: Stream, visit: Visit, config: Arc<Config>, settings: Settings, shared: &'a Shared) -> Self {
        let now = Instant::now();
        let mut session = Session::new(settings);
        if matches!(stream, Stream::Tls(_)) {
            session.tls_started();
        }
        Self {
            stream: Some(stream),
            session,
            visit,
            ends: later(now, config.session.session_timeout),
            config,
            shared,
            stop: shared.stop.clone(),
            buffer: Vec::new(),
            reservation: shared.parts.budget.reserve(),
            message_ends: None,
            moved: now,
            told: None,
        }
    }

    /// To the end, whatever it is.
    async fn serve(mut self) {
        let end = match AssertUnwindSafe(self.drive()).catch_unwind().await {
            Ok(Ok(closed)) => match self.told.take() {
                Some((phase, reason)) => End::Dropped { phase, reason },
                None => End::Closed(closed),
            },
            Ok(Err(broken)) => End::Dropped { phase: self.session.phase(), reason: broken.reason },
            Err(panic) => {
                self.fault("a session", panic.as_ref());
                if let Some(stream) = &mut self.stream {
                    send_away(stream, &Reply::new(421, 3, 0, "Internal error, try again later")).await;
                }
                End::Dropped { phase: "session", reason: "an internal error".to_owned() }
            }
        };
        self.publish_refusals();
        self.visit.acknowledged = self.session.acknowledged();
        let dropped = match &end {
            End::Closed(Closed::Quit) => None,
            End::Closed(closed) => Some((self.session.phase(), closed.reason().to_owned())),
            End::Dropped { phase, reason } => Some((*phase, reason.clone())),
        };
        if let Some((phase, reason)) = dropped {
            let ip = self.visit.client.ip;
            self.publish(Kind::Dropped { phase: phase.to_owned(), ip, reason });
        }
        let answerer = &self.shared.parts.answerer;
        let visit = &mut self.visit;
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| answerer.closed(visit, &end))) {
            self.fault("the end of a session", panic.as_ref());
        }
    }

    async fn drive(&mut self) -> Result<Closed, Broken> {
        loop {
            match self.session.poll() {
                Action::Read { timeout } => {
                    self.publish_refusals();
                    self.flush().await?;
                    self.read(timeout).await?;
                }
                Action::Flush => self.flush().await?,
                Action::Ask(question) => self.ask(question).await,
                Action::StartTls => self.start_tls().await?,
                Action::Close(closed) => {
                    self.flush().await?;
                    self.close(closed).await;
                    return Ok(closed);
                }
            }
        }
    }

    /// Sends all that the session has to say.
    async fn flush(&mut self) -> Result<(), Broken> {
        let octets = self.session.output();
        if octets.is_empty() {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Err(Broken::gone()) };
        let limit = self.config.session.command_timeout;
        let sent = async {
            stream.write_all(octets).await?;
            stream.flush().await
        };
        // The end of the session binds, too, but there is always a moment for a 421.
        let ends = later(Instant::now(), limit).min(later(self.ends, FAREWELL));
        match tokio::time::timeout_at(ends, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Broken { reason: format!("sending an answer: {error}") }),
            Err(_) => return Err(Broken { reason: "the peer did not take our answer in time".to_owned() }),
        }
        let count = octets.len();
        self.session.sent(count);
        self.moved = Instant::now();
        Ok(())
    }

    /// Reads once, for at most as long as any of the limits allows.
    async fn read(&mut self, timeout: Duration) -> Result<(), Broken> {
        let receiving = self.session.is_receiving_data();
        let now = Instant::now();
        self.message_ends = if receiving {
            self.message_ends.or_else(|| Some(later(now, self.config.session.message_timeout)))
        } else {
            self.reservation.release();
            None
        };
        // RFC 5321 §4.5.3.2: each block of data has its time anew, a command line has it once.
        let state_ends = later(if receiving { now } else { self.moved }, timeout);
        let ends = state_ends.min(self.ends).min(self.message_ends.unwrap_or(self.ends));

        self.buffer.clear();
        size(&mut self.buffer, receiving);
        let Some(stream) = &mut self.stream else { return Err(Broken::gone()) };
        let read = tokio::select! {
            biased;
            _ = self.stop.changed() => return self.stopping().await,
            read = tokio::time::timeout_at(ends, stream.read_buf(&mut self.buffer)) => read,
        };
        match read {
            Ok(Ok(0)) if receiving => Err(Broken { reason: "the peer left in mid-message".to_owned() }),
            Ok(Ok(0)) => Err(Broken { reason: "the peer left without QUIT".to_owned() }),
            Ok(Ok(count)) => {
                self.take_in(count, receiving);
                Ok(())
            }
            Ok(Err(error)) => Err(Broken { reason: format!("reading from the peer: {error}") }),
            Err(_) => {
                self.told = Some((self.session.phase(), self.overtime(ends, state_ends, timeout)));
                self.session.time_out();
                Ok(())
            }
        }
    }

    /// Hands the session what was read, if there is room for it.
    fn take_in(&mut self, count: usize, receiving: bool) {
        if receiving {
            let held = u64::try_from(self.session.body_len().saturating_add(count)).unwrap_or(u64::MAX);
            if !self.reservation.grow_to(held) {
                self.session.refuse_body(no_memory());
                self.reservation.release();
            }
        }
        self.session.push(&self.buffer);
    }

    /// Which of the limits ended the wait, in words.
    fn overtime(&self, ended: Instant, state_ends: Instant, timeout: Duration) -> String {
        let session = &self.config.session;
        if ended == state_ends {
            format!("{} s without a whole command or block of data", timeout.as_secs_f32())
        } else if ended == self.ends {
            format!("the session took longer than {} s", session.session_timeout.as_secs_f32())
        } else {
            format!("the message took longer than {} s", session.message_timeout.as_secs_f32())
        }
    }

    /// The server is stopping: the session decides whether it can go on for its message, but not beyond the deadline.
    async fn stopping(&mut self) -> Result<(), Broken> {
        if *self.stop.borrow_and_update() == Stop::Draining {
            self.session.shut_down();
            return Ok(());
        }
        if let Some(stream) = &mut self.stream {
            send_away(stream, &Reply::new(421, 3, 2, "The server is shutting down")).await;
        }
        Err(Broken { reason: "the server stopped".to_owned() })
    }

    async fn ask(&mut self, question: Question) {
        if let Question::Helo { name, esmtp } = &question {
            self.visit.client.helo = Some(name.clone());
            self.visit.client.esmtp = *esmtp;
        }
        self.visit.acknowledged = self.session.acknowledged();
        let asked = Asked::of(&question);
        let answer = if self.reserve_for(&question) {
            let answer = AssertUnwindSafe(self.shared.parts.answerer.answer(&mut self.visit, question));
            answer.catch_unwind().await.unwrap_or_else(|panic| {
                self.fault("an answer", panic.as_ref());
                Answer::Reply(asked.fault_reply())
            })
        } else {
            Answer::Reply(no_memory())
        };
        if asked == Asked::Message {
            self.message_ends = None;
            self.reservation.release();
        }
        self.moved = Instant::now();
        if asked == Asked::Connect && self.is_early_talker(&answer) {
            self.session.early_talk();
        } else {
            self.session.answer(answer);
        }
    }

    /// A message that came within few reads has not been reserved for yet.
    fn reserve_for(&mut self, question: &Question) -> bool {
        match question {
            Question::Message(transaction) => {
                self.reservation.grow_to(u64::try_from(transaction.body.len()).unwrap_or(u64::MAX))
            }
            _ => true,
        }
    }

    /// RFC 5321 §4.3.1: the client waits for the greeting. Costs an honest one nothing.
    fn is_early_talker(&self, answer: &Answer) -> bool {
        let refused = matches!(answer, Answer::Reply(reply) if !reply.is_positive());
        !refused
            && self.config.session.early_talk == EarlyTalk::Refuse
            && self.stream.as_ref().is_some_and(Stream::has_octets)
    }

    /// RFC 3207 §4
    async fn start_tls(&mut self) -> Result<(), Broken> {
        self.flush().await?;
        let Some(Stream::Plain(tcp)) = self.stream.take() else { return Err(Broken::gone()) };
        self.stream = encrypt(tcp, &mut self.visit, self.shared).await;
        if self.stream.is_none() {
            return Err(Broken { reason: "the TLS handshake failed".to_owned() });
        }
        // RFC 3207 §4.2: what the client said in the clear is forgotten.
        self.visit.client.helo = None;
        self.visit.client.esmtp = false;
        self.session.tls_started();
        self.moved = Instant::now();
        Ok(())
    }

    async fn close(&mut self, closed: Closed) {
        let Some(stream) = &mut self.stream else { return };
        let _the_peer_may_have_gone = match closed {
            Closed::Quit => tokio::time::timeout(FAREWELL, stream.end()).await,
            _ => tokio::time::timeout(FAREWELL, part(stream)).await,
        };
    }

    fn publish(&self, kind: Kind) {
        self.shared.publish(Some(self.visit.session), kind);
    }

    fn publish_refusals(&mut self) {
        for refusal in self.session.take_refusals() {
            self.publish(Kind::Refused {
                phase: refusal.phase.to_owned(),
                ip: self.visit.client.ip,
                sender: refusal.sender,
                recipient: refusal.recipient,
                reply: refusal.reply,
            });
        }
    }

    fn fault(&self, what: &str, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        self.publish(Kind::Fault { what: what.to_owned(), detail: format!("panicked: {text}") });
    }
}

/// Which question it was, when the question itself has been given away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Connect,
    Message,
    Other,
}

impl Asked {
    fn of(question: &Question) -> Self {
        match question {
            Question::Connect => Self::Connect,
            Question::Message(_) => Self::Message,
            _ => Self::Other,
        }
    }

    /// Our own faults are never 5xx.
    fn fault_reply(self) -> Reply {
        let code = if self == Self::Connect { 421 } else { 451 };
        Reply::new(code, 3, 0, "Internal error, try again later")
    }
}

impl Broken {
    fn gone() -> Self {
        Self { reason: "the connection is gone".to_owned() }
    }
}

/// `[limits] in_flight` is used up.
fn no_memory() -> Reply {
    Reply::new(452, 3, 1, "No room for the message now, try again later")
}

/// A read buffer of the size that the state calls for.
fn size(buffer: &mut Vec<u8>, receiving: bool) {
    let wanted = if receiving { DATA_BUFFER } else { COMMAND_BUFFER };
    if buffer.capacity() < wanted {
        buffer.reserve_exact(wanted);
    } else if buffer.capacity() > wanted {
        buffer.shrink_to(wanted);
    }
}

/// `duration` after `moment`, however long it is.
fn later(moment: Instant, duration: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    moment + duration.min(YEAR)
}
