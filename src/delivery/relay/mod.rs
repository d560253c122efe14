//! Relaying: one message to one next hop by SMTP or LMTP, with an answer for each of its recipients.
//!
//! Tries the next hop's hosts in order until one takes the session; what that one says of the message stands. A
//! connection that served before is tried first, and when it turns out dead a new one, which counts as one attempt.
//! Never alters the message. Input: a [`Letter`] and where to. Output: an [`Outcome`].

pub mod connection;
pub mod dial;
pub mod hosts;
pub mod letter;
pub mod open;
pub mod reply;
pub mod tls;
pub mod transaction;

use std::time::Duration;

use crate::config::Config;
use crate::dns::Dns;
use crate::mail::Reply;

use self::connection::Connection;
use self::letter::Letter;
use self::open::Manner;
use self::tls::Tls;
use super::route::NextHop;
use super::{Failure, Retry, Side};

/// What relaying needs beside the message.
pub struct Relay<'a> {
    pub config: &'a Config,
    pub dns: &'a Dns,
    pub tls: &'a Tls,
}

/// What came of one message at one next hop.
#[derive(Debug)]
pub struct Outcome {
    /// For each recipient, in order.
    pub results: Vec<Result<Reply, Failure>>,
    /// The server that was spoken to.
    pub peer: Option<String>,
    pub tls: Option<String>,
    /// It sends notices of success by itself (RFC 3461 §5.2.2).
    pub passes_dsn: bool,
    /// Good for the next message.
    pub connection: Option<Connection>,
    /// The destination itself is in trouble: it can't be reached, or closed the door on us.
    pub trouble: Option<Failure>,
}

impl Relay<'_> {
    /// Hands `letter` to `hop`.
    pub async fn send(&self, hop: &NextHop, letter: &Letter, reuse: Option<Connection>) -> Outcome {
        // An unasked 5xx that came after the last message must not be taken for an answer to this one.
        if let Some(mut connection) = reuse
            && connection.is_in_step()
        {
            let sent = transaction::send(&mut connection, letter, &self.config.relay.timeouts).await;
            // Closed while it was idle: nothing was said of the message yet, so that a new connection may ask again.
            if sent.broken.is_none() || sent.content_sent {
                return self.finished(connection, sent);
            }
        }
        match self.connect(hop).await {
            Ok(mut connection) => {
                let sent = transaction::send(&mut connection, letter, &self.config.relay.timeouts).await;
                self.finished(connection, sent)
            }
            Err(failure) => Outcome {
                results: letter.recipients.iter().map(|_| Err(failure.clone())).collect(),
                peer: None,
                tls: None,
                passes_dsn: false,
                connection: None,
                trouble: Some(failure).filter(is_trouble),
            },
        }
    }

    fn finished(&self, connection: Connection, sent: transaction::Sent) -> Outcome {
        let goes_on = sent.broken.is_none() && connection.carried < self.config.relay.messages_per_connection;
        Outcome {
            results: sent.results,
            peer: Some(connection.peer.clone()),
            tls: connection.tls.clone(),
            passes_dsn: connection.offers.dsn,
            trouble: sent.broken.filter(is_trouble),
            connection: goes_on.then_some(connection),
        }
    }

    /// A session with the first of the hop's hosts that takes one.
    async fn connect(&self, hop: &NextHop) -> Result<Connection, Failure> {
        let smarthost = if let NextHop::Smarthost(smarthost) = hop { Some(smarthost) } else { None };
        let manner = Manner { config: self.config, tls: self.tls, smarthost };
        let mut worst: Option<Failure> = None;
        for host in hosts::hosts_of(hop, self.config, self.dns).await? {
            let tried = match hosts::addresses_of(&host, self.config, self.dns).await {
                Ok(addresses) => open::open(&manner, &host, &addresses).await,
                Err(failure) => Err(failure),
            };
            match tried {
                Ok(connection) => return Ok(connection),
                // RFC 5321 §5.1: the next one.
                Err(failure) => worst = Some(open::weightier(worst, failure)),
            }
        }
        Err(worst.unwrap_or_else(|| Failure::never(Side::Ours, "5.4.4", "there is no host to send to")))
    }
}

/// Trouble of the destination as a whole, and not of one message.
fn is_trouble(failure: &Failure) -> bool {
    failure.retry == Retry::Later
        && (failure.side == Side::Network || failure.reply.as_ref().is_some_and(|reply| !reply.is_positive()))
}

/// As in `300 s` or `250 ms`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}
