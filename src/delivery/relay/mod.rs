//! Relaying: one message to one next hop by SMTP or LMTP, with an answer for each of its recipients.
//!
//! Tries the next hop's hosts in order until one takes the session; what that one says of the message stands. A
//! connection that served before is tried first, and when it turns out closed a new one, which counts as one attempt.
//! More recipients than the server takes at once go in further transactions, within the same attempt.
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
use self::letter::{Letter, Rcpt};
use self::open::Manner;
use self::tls::Tls;
use self::transaction::Sent;
use super::network::Network;
use super::route::NextHop;
use super::{Failure, Retry, Side};

/// What relaying needs beside the message.
pub struct Relay<'a> {
    pub config: &'a Config,
    pub dns: &'a Dns,
    pub tls: &'a Tls,
    pub network: &'a Network,
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
    /// The destination itself may be in trouble.
    pub trouble: Option<Trouble>,
    /// Why the message couldn't be read to its end.
    pub unread: Option<String>,
}

/// What may be wrong with the destination as a whole.
#[derive(Debug)]
pub struct Trouble {
    pub extent: Extent,
    pub failure: Failure,
}

/// Whom a trouble bears on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// No message gets there: no connection, no greeting, no session.
    Unreachable,
    /// It is there and asks for less.
    Busy,
    /// A part of it asks for less: a connection that has taken messages, one of a host's URLs.
    Partly,
    /// The connection broke over this message. Others may fare better.
    Broke,
}

impl Relay<'_> {
    /// Hands `letter` to `hop`.
    pub async fn send(&self, hop: &NextHop, letter: &Letter, reuse: Option<Connection>) -> Outcome {
        // An unasked 5xx that came after the last message must not be taken for an answer to this one.
        if let Some(mut connection) = reuse
            && connection.is_in_step()
        {
            let sent = self.carry(&mut connection, letter).await;
            // Closed while it was idle, or by a 421 since it has carried its share: nothing was said of the message yet, so
            // that a new connection may ask, once. Where that one is turned away as well, the service means it.
            let share =
                |failure: &Failure| failure.reply.as_ref().is_none_or(|r| r.code == 421 && connection.carried > 1);
            if sent.begun || !sent.broken.as_ref().is_some_and(share) {
                return self.finished(connection, sent);
            }
        }
        match self.connect(hop).await {
            Ok(mut connection) => {
                let sent = self.carry(&mut connection, letter).await;
                self.finished(connection, sent)
            }
            Err(failure) => Outcome {
                results: letter.recipients.iter().map(|_| Err(failure.clone())).collect(),
                peer: None,
                tls: None,
                passes_dsn: false,
                connection: None,
                trouble: is_trouble(&failure).then_some(Trouble { extent: Extent::Unreachable, failure }),
                unread: None,
            },
        }
    }

    /// The letter over this connection, in as many transactions as it takes to bring all the recipients in.
    async fn carry(&self, connection: &mut Connection, letter: &Letter) -> Sent {
        let limits = &self.config.relay.timeouts;
        let mut sent = transaction::send(connection, letter, limits).await;
        let mut taken = sent.results.iter().any(Result::is_ok);
        while taken && sent.broken.is_none() && connection.carried < self.config.relay.messages_per_connection {
            let left: Vec<usize> =
                sent.results.iter().enumerate().filter_map(|(n, r)| beyond(r).then_some(n)).collect();
            let recipients: Vec<Rcpt> = left.iter().filter_map(|n| letter.recipients.get(*n).cloned()).collect();
            if recipients.is_empty() {
                break;
            }
            let more = transaction::send(connection, &Letter { recipients, ..letter.clone() }, limits).await;
            taken = more.results.iter().any(Result::is_ok);
            // A refusal of the transaction is none of a recipient: what was said to that one before stands.
            if more.refused.is_none() {
                for (n, result) in left.into_iter().zip(more.results) {
                    if let Some(slot) = sent.results.get_mut(n) {
                        *slot = result;
                    }
                }
            }
            sent = Sent {
                results: sent.results,
                broken: more.broken,
                content_sent: true,
                begun: true,
                refused: more.refused,
            };
        }
        sent
    }

    fn finished(&self, connection: Connection, sent: Sent) -> Outcome {
        let ours = sent.broken.as_ref().filter(|failure| failure.side == Side::Ours);
        let unread = ours.map(|failure| failure.detail.clone());
        let goes_on = sent.broken.is_none() && connection.carried < self.config.relay.messages_per_connection;
        Outcome {
            results: sent.results,
            peer: Some(connection.peer.clone()),
            tls: connection.tls.clone(),
            passes_dsn: connection.offers.dsn,
            trouble: trouble(sent.broken, sent.refused, connection.carried),
            connection: goes_on.then_some(connection),
            unread,
        }
    }

    /// A session with the first of the hop's hosts that takes one.
    async fn connect(&self, hop: &NextHop) -> Result<Connection, Failure> {
        let smarthost = if let NextHop::Smarthost(smarthost) = hop { Some(smarthost) } else { None };
        let manner = Manner { config: self.config, tls: self.tls, smarthost, network: self.network };
        let mut worst: Option<Failure> = None;
        for host in hosts::hosts_of(hop, self.config, self.dns).await? {
            let tried = match hosts::addresses_of(&host, self.config, self.dns).await {
                Ok(addresses) => open::open(&manner, &host, &addresses).await,
                Err(failure) => Err(failure),
            };
            match tried {
                Ok(connection) => return Ok(connection),
                // RFC 5321 §5.1: the next one, but none that is worse than we are: it would send the mail back to us.
                Err(failure) => {
                    let leads_back = failure.status == hosts::LEADS_BACK;
                    worst = Some(open::weightier(worst, failure));
                    if leads_back {
                        break;
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| Failure::never(Side::Ours, "5.4.4", "there is no host to send to")))
    }
}

/// RFC 5321 §4.5.3.1.10: 452 to one recipient beyond the server's limit, when others were taken; 552 by servers of old.
/// Another status (`4.2.2`, a full mailbox) says something else.
fn beyond(result: &Result<Reply, Failure>) -> bool {
    let reply = result.as_ref().err().and_then(|failure| failure.reply.as_ref());
    reply.is_some_and(|reply| matches!(reply.code, 452 | 552) && matches!(reply.status, None | Some((5, 3))))
}

/// What a transaction, its connection's `carried`th, says of the destination's health, beyond its message's fate.
fn trouble(broken: Option<Failure>, refused: Option<Failure>, carried: usize) -> Option<Trouble> {
    if let Some(failure) = broken {
        if failure.side == Side::Ours {
            return None;
        }
        // RFC 5321 §3.8: 421 is about the service, whatever it answers. Many count the messages of a connection.
        let extent = match failure.reply.as_ref().is_some_and(|reply| reply.code == 421) {
            true if carried > 1 => Extent::Partly,
            true => Extent::Busy,
            false => Extent::Broke,
        };
        return (failure.retry == Retry::Later).then_some(Trouble { extent, failure });
    }
    // RFC 3463: X.3.2, the system takes no mail; X.7.*, its policy, which at MAIL and DATA is as a rule one on us. At
    // RCPT it is mostly greylisting, which concerns that recipient alone.
    let failure = refused.filter(|failure| {
        let status = failure.reply.as_ref().filter(|reply| reply.code / 100 == 4).and_then(|reply| reply.status);
        matches!(status, Some((3, 2) | (7, _)))
    })?;
    Some(Trouble { extent: Extent::Busy, failure })
}

/// Why there is no session: trouble of the destination as a whole, unless it is an answer for good or our own doing.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, status: Option<(u16, u16)>) -> Failure {
        let reply = Reply { code, status, text: "no".into() };
        super::reply::refused(reply, "MAIL FROM", "mx1.example.net [192.0.2.1]:25")
    }

    #[test]
    fn what_a_transaction_says_of_the_destination() {
        let extent =
            |broken: Option<Failure>, refused: Option<Failure>| trouble(broken, refused, 1).map(|it| it.extent);
        let closed = Failure::later(Side::Network, "4.4.2", "the connection was closed");
        assert_eq!(extent(Some(refusal(421, None)), None), Some(Extent::Busy));
        assert_eq!(trouble(Some(refusal(421, None)), None, 2).map(|it| it.extent), Some(Extent::Partly));
        assert_eq!(extent(Some(closed), None), Some(Extent::Broke));
        assert_eq!(extent(Some(refusal(552, Some((3, 4)))), None), None, "its last words were of the message");
        assert_eq!(extent(None, Some(refusal(451, Some((7, 500))))), Some(Extent::Busy));
        assert_eq!(extent(None, Some(refusal(450, Some((3, 2))))), Some(Extent::Busy));
        assert_eq!(extent(None, Some(refusal(451, Some((3, 0))))), None);
        assert_eq!(extent(None, Some(refusal(550, Some((7, 1))))), None);
        assert_eq!(extent(Some(Failure::later(Side::Ours, "4.3.0", "can't be read")), None), None, "it was our disk");
        assert_eq!(extent(None, None), None);
    }

    #[test]
    fn too_many_recipients_are_told_from_full_mailboxes() {
        let is_beyond = |code, status| beyond(&Err(refusal(code, status)));
        assert!(is_beyond(452, None) && is_beyond(452, Some((5, 3))) && is_beyond(552, Some((5, 3))));
        assert!(!is_beyond(452, Some((2, 2))) && !is_beyond(450, Some((5, 3))) && !is_beyond(552, Some((2, 2))));
        assert!(!beyond(&Ok(Reply::new(250, 0, 0, "ok"))));
    }
}
