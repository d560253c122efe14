//! What the listener and intake say to each other: one visit for each connection, its questions and its end.
//!
//! The order, for each connection that came past the limits (and past its PROXY header and, on an implicit listener,
//! its handshake):
//!
//! ```text
//! open(visit) ─► answer(visit, Connect) ─► answer(visit, Helo | MailFrom | RcptTo | Message) [─► said(visit)] … ─► closed(visit, end)
//! ```
//!
//! Each is called by the one task that has the connection, one after the other, never two at once.

use std::any::Any;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::clock::Instant;
use crate::config::Config;
use crate::mail::{Client, Reply};
use crate::smtp::{Answer, Closed, Question};

/// Who answers a session's questions. Intake implements it; tests do with a table.
pub trait Answerer: Send + Sync + 'static {
    /// The configuration in force now: asked at each accept, so it must cost no more than a pointer's load.
    fn config(&self) -> Arc<Config>;

    /// A visit begins. Whatever is kept in [`Visit::put`] stays with it to its end. The configuration that is returned
    /// is the one that this session runs by (limits, time-outs, host name), however often it is reloaded meanwhile.
    fn open(&self, visit: &mut Visit) -> Arc<Config>;

    /// Answers one question. Always run to its end: neither a peer that goes away nor a shutdown drops this future
    /// half way, so it must bound its own time. A panic in it is a Fault and a 451 to the peer, and the session goes on.
    /// `visit.client` is up to date: `helo` and `esmtp` as of this question, `tls` as soon as the handshake is done.
    /// What it refuses, it publishes itself; the listener publishes what it or the session refused.
    fn answer<'a>(&'a self, visit: &'a mut Visit, question: Question) -> BoxFuture<'a, Answer>;

    /// What was answered to the last message, or to several, has been handed to the connection, as far as it takes it: its
    /// client waits no longer for what is done now. Not called where the connection broke before there was a chance to.
    fn said(&self, visit: &mut Visit);

    /// Takes the next octets of a message that is coming in and is large. What it takes belongs to the message of the next
    /// question [`Question::Message`], whose transaction says how many octets of it came so, or is given up. Run to its
    /// end as an answer is.
    ///
    /// # Errors
    /// Why the message can't be taken; it has let go of all of it then.
    fn take_part<'a>(&'a self, visit: &'a mut Visit, octets: Vec<u8>) -> BoxFuture<'a, Result<(), Reply>>;

    /// The message whose parts were taken won't be asked about: they go.
    fn give_up_parts(&self, visit: &mut Visit);

    /// A visit is over. Called once for each `open`, whatever the way out, a panic included.
    fn closed(&self, visit: &mut Visit, end: &End);
}

/// One connection, from its greeting to its end.
#[derive(Debug)]
pub struct Visit {
    /// Its number since the start, as in [`Event::in_session`](crate::event::Event::in_session).
    pub session: u64,
    /// The facts, as far as known.
    pub client: Client,
    /// When it was accepted.
    pub since: Instant,
    /// The client went on speaking after our last final reply to a message, so it has read it (RFC 1047).
    pub acknowledged: bool,
    own: Option<Box<dyn Any + Send + Sync>>,
}

/// How a visit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The session closed it: QUIT, a refusal at the greeting, too many errors, a 421.
    Closed(Closed),
    /// The connection broke, or one of our own faults ended it: what it was at, and why.
    Dropped { phase: &'static str, reason: String },
}

impl Visit {
    #[must_use]
    pub fn new(session: u64, client: Client) -> Self {
        Self { session, client, since: Instant::now(), acknowledged: false, own: None }
    }

    /// Keeps the answerer's own state with the visit: the snapshot it began with, a worker's notes.
    pub fn put<T: Any + Send + Sync>(&mut self, own: T) {
        self.own = Some(Box::new(own));
    }

    /// What was [`put`](Self::put), if it was a `T`.
    #[must_use]
    pub fn own<T: Any>(&self) -> Option<&T> {
        self.own.as_ref()?.downcast_ref()
    }

    /// The same, to be changed.
    pub fn own_mut<T: Any>(&mut self) -> Option<&mut T> {
        self.own.as_mut()?.downcast_mut()
    }
}
