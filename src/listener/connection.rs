//! Drives one [`Session`] over one stream: reads for it, writes for it, asks for it, and keeps its time.
//!
//! Output is sent only when the session can do nothing more, so that a pipelined transaction costs one write. Every
//! wait is bounded: a read and a write by the state's time-out, a command line and a message as a whole, the session
//! as a whole (RFC 5321 §4.5.3.2). An answer under way is never cut short.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::arrival::{encrypt, learn_peer, settings, stopping};
use super::budget::{Full, Reservation, weight};
use super::limits::Slot;
use super::serve::{Bound, Shared, Stop};
use super::socket::Socket;
use super::stream::{FAREWELL, Stream, part, send_away};
use super::times::{Limit, Times, later};
use super::visit::{End, Visit};
use crate::config::{Config, EarlyTalk, TlsMode};
use crate::event::Kind;
use crate::mail::{Client, Reply};
use crate::smtp::{Action, Answer, Closed, Question, Session, Settings};

mod large;

/// What a connection reads at once while commands are expected: an idle one holds no more than this.
const COMMAND_BUFFER: usize = 4 * 1024;
/// The same while a message comes in.
const DATA_BUFFER: usize = 60 * 1024;

/// Serves one accepted connection to its end.
pub(super) async fn run<S: Socket>(tcp: S, peer: SocketAddr, slot: Slot, bound: Arc<Bound>, shared: Arc<Shared>) {
    let session = shared.next_session();
    tcp.prepare();
    let Some((tcp, slot, peer)) = learn_peer(tcp, slot, peer, session, &bound, &shared).await else { return };
    let client = Client {
        ip: peer.ip().to_canonical(),
        port: peer.port(),
        listener: bound.address.to_string(),
        helo: None,
        esmtp: false,
        tls: None,
        ptr: None,
        auth: None,
        origin: crate::mail::Origin::default(),
    };
    shared.publish(Some(session), Kind::Connected { client: Box::new(client.clone()) });
    let mut visit = Visit::new(session, client);
    let stream = if bound.tls == TlsMode::Implicit {
        let Some(stream) = encrypt(tcp, shared.parts.tls.load().server(), &mut visit, &shared).await else { return };
        stream
    } else {
        Stream::Plain(tcp)
    };
    let config = shared.parts.answerer.open(&mut visit);
    let settings = settings(&config, &visit, &bound, &shared);
    Connection::new(stream, visit, config, settings, &shared).serve().await;
    drop(slot);
}

/// Why a session stopped short of a close of its own.
struct Broken {
    reason: String,
}

/// One session under way.
struct Connection<'a, S> {
    /// `None` only where a handshake failed and took the stream with it.
    stream: Option<Stream<S>>,
    session: Session,
    visit: Visit,
    config: Arc<Config>,
    shared: &'a Shared,
    stop: watch::Receiver<Stop>,
    buffer: Vec<u8>,
    /// What there was to shake hands with when the session last took octets in which STARTTLS may have stood.
    certificates: Option<Arc<ServerConfig>>,
    /// For the octets of the message that is coming in or being answered.
    reservation: Reservation,
    /// Some of them were handed to the answerer.
    handed_on: bool,
    /// The answerer hasn't heard yet that its answer to a message is said.
    unsaid: bool,
    times: Times,
    /// Why the session was told to go (421), if it was, and what it was at.
    told: Option<(&'static str, String)>,
    /// The client still said something when it had been told to go.
    spoke_on: bool,
}

impl<'a, S: Socket> Connection<'a, S> {
    fn new(stream: Stream<S>, visit: Visit, config: Arc<Config>, settings: Settings, shared: &'a Shared) -> Self {
        let now = Instant::now();
        let mut session = Session::new(settings);
        if matches!(stream, Stream::Tls(_)) {
            session.tls_started();
        }
        Self {
            stream: Some(stream),
            session,
            reservation: shared.parts.budget.reserve(visit.client.ip),
            handed_on: false,
            unsaid: false,
            visit,
            times: Times::new(now, &config.session),
            config,
            shared,
            stop: shared.stop.clone(),
            buffer: Vec::new(),
            certificates: None,
            told: None,
            spoke_on: false,
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
        // Who spoke on after our last words has most likely read those before: a duplicate is the lesser harm (RFC 1047).
        self.visit.acknowledged = self.session.acknowledged() || self.spoke_on;
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

    /// Sends all that the session has to say. Whether or not it can be sent, and before a peer that takes its time is
    /// waited for, the answerer hears that its answer is said.
    async fn flush(&mut self) -> Result<(), Broken> {
        let octets = self.session.output();
        if octets.is_empty() {
            self.said();
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Err(Broken::gone()) };
        let limit = self.config.session.command_timeout;
        let sent = pin!(async {
            stream.write_all(octets).await?;
            stream.flush().await
        });
        // The end of the session binds, too, but there is always a moment for a 421.
        let now = Instant::now();
        let ends = later(now, limit).min(later(self.times.session_ends().max(now), FAREWELL));
        // Only looked at when the peer doesn't take all of it at once. A copy, for the read is to notice the stop, too.
        let stopped = async {
            stopping(self.stop.clone()).await;
            tokio::time::sleep(FAREWELL).await;
        };
        let mut sent = pin!(tokio::time::timeout_at(ends, sent));
        let mut stopped = pin!(stopped);
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sent => break sent,
                () = std::future::ready(()), if self.unsaid => said(&mut self.unsaid, self.shared, &mut self.visit),
                () = &mut stopped => return Err(Broken::stopped()),
            }
        };
        said(&mut self.unsaid, self.shared, &mut self.visit);
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Broken { reason: format!("sending an answer: {error}") }),
            Err(_) => return Err(Broken { reason: "the peer did not take our answer in time".to_owned() }),
        }
        let count = octets.len();
        self.session.sent(count);
        self.times.moved(Instant::now());
        Ok(())
    }

    fn said(&mut self) {
        said(&mut self.unsaid, self.shared, &mut self.visit);
    }

    /// Reads once, for at most as long as any of the limits allows.
    async fn read(&mut self, timeout: Duration) -> Result<(), Broken> {
        let receiving = self.session.is_receiving_data();
        if !receiving {
            self.reservation.release();
            self.parts_are_given_up();
        }
        let now = Instant::now();
        let (ends, limit) = self.times.next(now, receiving, timeout, &self.config.session);
        // A peer that always has something to say isn't stopped by a wait that never comes.
        if ends <= now && !matches!(limit, Limit::Quiet(_)) {
            self.overtime(limit);
            return Ok(());
        }

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
                if receiving {
                    self.hand_on().await;
                }
                Ok(())
            }
            Ok(Err(error)) => Err(Broken { reason: format!("reading from the peer: {error}") }),
            Err(_) => {
                self.overtime(limit);
                Ok(())
            }
        }
    }

    /// Hands the session what was read, if there is room for it.
    fn take_in(&mut self, count: usize, receiving: bool) {
        if receiving {
            self.times.heard(Instant::now(), count);
            match weight(self.session.handed_on(), self.session.body_len_after(count)) {
                // It is thrown away as it comes.
                0 => self.reservation.release(),
                held => {
                    if let Err(full) = self.reservation.grow_to(held) {
                        self.session.refuse_body(no_room(full));
                        self.reservation.release();
                    }
                }
            }
        }
        if !receiving && self.session.may_start_tls() {
            self.certificates = self.shared.parts.tls.load().server();
            self.session.has_certificate(self.certificates.is_some());
        }
        self.session.push(&self.buffer);
    }

    /// The time is up: the peer is told why, but for a look at its rate that finds nothing wrong.
    fn overtime(&mut self, limit: Limit) {
        // Looked at in any case, as a new window begins with it.
        let slow = limit == Limit::Rate && self.times.was_slow(Instant::now(), &self.config.session);
        if limit == Limit::Rate && !(slow && self.reservation.is_in_others_way()) {
            return;
        }
        let reason = limit.reason();
        let phase = self.session.phase();
        self.session.time_out(&format!("Closing: {reason}"));
        self.told = Some((phase, reason));
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
        Err(Broken::stopped())
    }

    async fn ask(&mut self, question: Question) {
        let before = self.introduce(&question);
        self.visit.acknowledged = self.session.acknowledged();
        if self.lacks_tls(&question) {
            return self.session.turn_down(&Reply::new(530, 7, 0, "Must issue a STARTTLS command first"));
        }
        let asked = Asked::of(&question);
        let answer = match self.reserve_for(&question) {
            Ok(()) => {
                let answer = AssertUnwindSafe(self.shared.parts.answerer.answer(&mut self.visit, question));
                answer.catch_unwind().await.unwrap_or_else(|panic| {
                    self.fault("an answer", panic.as_ref());
                    Answer::Reply(asked.fault_reply())
                })
            }
            Err(full) => Answer::Reply(no_room(full)),
        };
        if let Some((helo, esmtp)) = before.filter(|_| is_refusal(&answer)) {
            (self.visit.client.helo, self.visit.client.esmtp) = (helo, esmtp);
        }
        if asked == Asked::Message {
            self.handed_on = false;
            self.unsaid = true;
            self.times.message_over();
            self.reservation.release();
        }
        let is_early_talker = asked == Asked::Connect && self.is_early_talker(&answer).await;
        self.times.moved(Instant::now());
        if is_early_talker {
            self.session.early_talk();
        } else {
            self.session.answer(answer);
        }
    }

    /// Takes the name that EHLO or HELO gives; what it was before, for a refused one changes nothing (RFC 5321 §4.1.4).
    fn introduce(&mut self, question: &Question) -> Option<(Option<String>, bool)> {
        let Question::Helo { name, esmtp } = question else { return None };
        let client = &mut self.visit.client;
        Some((client.helo.replace(name.clone()), std::mem::replace(&mut client.esmtp, *esmtp)))
    }

    /// A message that came within few reads has not been reserved for yet.
    fn reserve_for(&mut self, question: &Question) -> Result<(), Full> {
        match question {
            Question::Message(transaction) => {
                self.reservation.grow_to(weight(transaction.handed_on, transaction.body.len()))
            }
            _ => Ok(()),
        }
    }

    /// RFC 5321 §4.3.1: the client waits for the greeting. Costs an honest one nothing but `greet_delay`.
    async fn is_early_talker(&self, answer: &Answer) -> bool {
        let Some(stream) = &self.stream else { return false };
        if is_refusal(answer) || self.config.session.early_talk != EarlyTalk::Refuse {
            return false;
        }
        if !self.config.session.greet_delay.is_zero() {
            tokio::select! {
                biased;
                () = stream.wait_for_octets(self.config.session.greet_delay) => {}
                () = stopping(self.stop.clone()) => {}
            }
        }
        stream.has_octets()
    }

    /// RFC 3207 §4: a recipient whose domain demands TLS, in the clear.
    fn lacks_tls(&self, question: &Question) -> bool {
        self.visit.client.tls.is_none()
            && matches!(question, Question::RcptTo { recipient } if self.config.requires_tls(&recipient.address))
    }

    /// RFC 3207 §4
    async fn start_tls(&mut self) -> Result<(), Broken> {
        self.flush().await?;
        let Some(Stream::Plain(tcp)) = self.stream.take() else { return Err(Broken::gone()) };
        self.stream = encrypt(tcp, self.certificates.take(), &mut self.visit, self.shared).await;
        if self.stream.is_none() {
            return Err(Broken { reason: "the TLS handshake failed".to_owned() });
        }
        // RFC 3207 §4.2: what the client said in the clear is forgotten.
        self.visit.client.helo = None;
        self.visit.client.esmtp = false;
        self.session.tls_started();
        self.times.moved(Instant::now());
        Ok(())
    }

    async fn close(&mut self, closed: Closed) {
        let Some(stream) = &mut self.stream else { return };
        let _the_peer_may_have_gone = match closed {
            Closed::Quit => tokio::time::timeout(FAREWELL, stream.end()).await,
            _ => tokio::time::timeout(FAREWELL, part(stream, &mut self.spoke_on)).await,
        };
    }

    fn publish(&self, kind: Kind) {
        self.shared.publish(Some(self.visit.session), kind);
    }

    fn publish_refusals(&mut self) {
        let refusals = self.session.take_refusals();
        if !refusals.is_empty() {
            // What came of the message before them comes before them.
            self.said();
        }
        for refusal in refusals {
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

fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Answer::Reply(reply) if !reply.is_positive())
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

    fn stopped() -> Self {
        Self { reason: "the server stopped".to_owned() }
    }
}

/// `[limits] in_flight` is used up.
fn no_room(full: Full) -> Reply {
    let text = match full {
        Full::All => "No room for the message now, try again later",
        Full::Share => "Too much mail of your address is under way, try again later",
    };
    Reply::new(452, 3, 1, text)
}

fn said(unsaid: &mut bool, shared: &Shared, visit: &mut Visit) {
    if std::mem::take(unsaid) {
        shared.parts.answerer.said(visit);
    }
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
