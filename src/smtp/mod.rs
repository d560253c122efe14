//! The receiving side of SMTP as a state machine without sockets: octets in, actions out, and questions that stop it.
//!
//! Pure: no tokio, no clock. `listener::connection` drives it over a stream; `intake` answers its questions.
//! Standards: RFC 5321, 1870 (SIZE), 2034 (ENHANCEDSTATUSCODES), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS),
//! 3461 (DSN), 6152 (8BITMIME), 6531 (SMTPUTF8), PRDR (draft-hall-prdr-00).

pub mod command;
pub mod data;
mod input;
pub mod session;

pub use session::Session;

use std::time::Duration;

use bytes::Bytes;

use crate::mail::{Address, Envelope, Recipient, Reply, SessionLimits};

/// How a session behaves. Made by the listener from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub hostname: String,
    pub message_size: u64,
    pub recipients: usize,
    pub errors: usize,
    /// STARTTLS is offered (a certificate is there and the session isn't encrypted yet).
    pub starttls: bool,
    /// MAIL without TLS is refused (530 5.7.0).
    pub tls_required: bool,
    /// Bare CR and LF become CRLF and aren't refused.
    pub repair_line_ends: bool,
    pub command_timeout: Duration,
    pub data_timeout: Duration,
}

impl Settings {
    /// Lowers what it is to be lowered; nothing is raised.
    fn narrow(&mut self, limits: SessionLimits) {
        let lower = |value: &mut usize, most: Option<u32>| {
            *value = most.and_then(|most| usize::try_from(most).ok()).map_or(*value, |most| most.min(*value));
        };
        lower(&mut self.recipients, limits.recipients);
        lower(&mut self.errors, limits.errors);
        self.message_size = limits.message_size.map_or(self.message_size, |most| most.min(self.message_size));
    }
}

/// What the driver must do next.
#[derive(Debug)]
pub enum Action {
    /// Send [`Session::output`] (then say so with [`Session::sent`]), and read on for at most this long:
    /// nothing more can be done without octets. On the time running out: [`Session::time_out`].
    Read { timeout: Duration },
    /// Send the output before going on: the client has asked for more answers than are held at once.
    Flush,
    /// Answer by [`Session::answer`]; until then the session takes octets but does nothing with them.
    /// Pending output may stay unsent until the answer is there (RFC 2920 §3.2).
    Ask(Question),
    /// Send the output, then shake hands; then [`Session::tls_started`] or drop the connection.
    /// All that was buffered in the clear is gone (RFC 3207 §4.2).
    StartTls,
    /// Send the output, then close.
    Close(Closed),
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    Quit,
    TooManyErrors,
    /// Intake refused the client (554 or 421), or it spoke before the greeting.
    Refused,
    /// 421 after a time-out or on shutdown.
    Told,
    /// The peer speaks HTTP, TLS or something else: its octets must not be taken for commands.
    NotSmtp,
    /// A BDAT without a readable size: where its octets end can't be known (RFC 3030 §2).
    OutOfStep,
}

impl Closed {
    /// For the log.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::TooManyErrors => "too many errors",
            Self::Refused => "refused",
            Self::Told => "told to go (421)",
            Self::NotSmtp => "not SMTP",
            Self::OutOfStep => "out of step",
        }
    }
}

/// A command or message that the session refused by itself, without a question: for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// connect, helo, mail, rcpt, data.
    pub phase: &'static str,
    pub sender: Option<String>,
    pub recipient: Option<String>,
    pub reply: Reply,
}

/// What the session can't decide by itself.
#[derive(Debug)]
pub enum Question {
    /// May this client speak? Asked first; the answer's reply is the greeting.
    Connect,
    Helo {
        name: String,
        esmtp: bool,
    },
    /// The envelope's fields but its recipients; `size` as declared (0: not).
    MailFrom {
        envelope: Box<Envelope>,
        size: u64,
    },
    RcptTo {
        recipient: Box<Recipient>,
    },
    /// The whole message is there.
    Message(Box<Transaction>),
}

/// A message as the session hands it over.
#[derive(Debug)]
pub struct Transaction {
    pub envelope: Envelope,
    /// Octets after decoding, as received otherwise; of a large message the rest, behind `handed_on`.
    pub body: Bytes,
    /// How many octets of it were given away before by [`Session::hand_on`].
    pub handed_on: u64,
    /// The client asked for an answer for each recipient.
    pub prdr: bool,
}

/// What intake says.
#[derive(Debug)]
pub enum Answer {
    /// The session's own words: 250 and the fitting text (for Connect: the greeting).
    Accept,
    /// These words, and what their class means: a refusal, or a 250 with a text of intake's.
    Reply(Reply),
    /// Connect only: the greeting, and this session may do no more than that.
    Within(SessionLimits),
    /// RCPT only: accepted, and the worker runs for another address.
    Redirect(Address),
    /// Message with PRDR only: one for each recipient, in order, then the final one.
    Each { replies: Vec<Reply>, last: Reply },
}
