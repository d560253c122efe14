//! From a host to a connection that is ready for a message: connect, greeting, EHLO, STARTTLS, login.
//!
//! An address whose server doesn't take the session gives way to the host's next one (RFC 5321 §5.1).
//! Standards: RFC 5321 §3.1, §3.2, §4.1.1.1; RFC 3207 (STARTTLS); RFC 2033 (LHLO); RFC 4954 (AUTH); RFC 7504 (521).
//! The login is mail-send's, over our stream: it knows the mechanisms of AUTH. For the rest it isn't used: it knows no
//! pipelining, no answer for each recipient, no enhanced codes, and no reuse by destination.

use std::net::SocketAddr;
use std::time::Duration;

use mail_send::{Credentials, SmtpClient};

use crate::config::{Config, Login, RelayTimeouts, Scheme, Smarthost};
use crate::delivery::network::{Duplex, Network};
use crate::delivery::{Failure, Retry, Side};

use super::connection::Connection;
use super::dial::{DialError, dial};
use super::reply::{Offers, is_done, refused, reply};
use super::tls::Tls;
use super::{hosts::Host, seconds};

/// Servers of one host that are spoken to in one attempt and may each turn us away (RFC 5321 §5.1 asks for two): each
/// can take minutes to say nothing.
const MAX_SESSIONS: usize = 3;

/// What TLS is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    /// When offered, unchecked.
    Opportunistic,
    /// Demanded, checked.
    Demanded,
    /// From the first octet, checked.
    Implicit,
    /// None: it was tried and failed, and nothing demands it.
    Clear,
}

/// How a host is to be spoken to.
pub struct Manner<'a> {
    pub config: &'a Config,
    pub tls: &'a Tls,
    pub smarthost: Option<&'a Smarthost>,
    pub network: &'a Network,
}

/// Why there is no connection.
enum Trouble {
    /// TLS failed where nothing demands it: in the clear, on a new connection.
    TlsFailed,
    /// Another address may do better.
    Failed(Failure),
    /// The login was refused for good: it would be at the next address too, and accounts are locked by such attempts.
    Login(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A connection to `host` at one of `addresses`, ready for MAIL.
///
/// # Errors
/// What the host or the network said.
pub async fn open(manner: &Manner<'_>, host: &Host, addresses: &[SocketAddr]) -> Result<Connection, Failure> {
    let limit = manner.config.relay.timeouts.connect;
    let mut left = addresses.to_vec();
    let mut worst = None;
    for _ in 0..MAX_SESSIONS {
        let failure = match dial(manner.network, &mut left, limit).await {
            Some(Ok((stream, address))) => match converse(manner, host, stream, address).await {
                Ok(connection) => return Ok(connection),
                Err(Trouble::Login(failure)) => return Err(failure),
                Err(Trouble::Failed(failure)) => failure,
                Err(Trouble::TlsFailed) => {
                    Failure::later(Side::Network, "4.4.2", format!("no TLS with {}", named(host, address)))
                }
            },
            Some(Err(error)) => unreached(host, &error),
            None => break,
        };
        worst = Some(weightier(worst, failure));
    }
    let no_address = || Failure::later(Side::Network, "4.4.1", format!("{} has no address to connect to", host.name));
    Err(worst.unwrap_or_else(no_address))
}

/// One that may come back outweighs any that never will; else the later one.
#[must_use]
pub fn weightier(known: Option<Failure>, next: Failure) -> Failure {
    known.filter(|known| known.retry == Retry::Later && next.retry == Retry::Never).unwrap_or(next)
}

/// Over the connection that was made; where TLS fails and nothing demands it, over another in the clear.
async fn converse(
    manner: &Manner<'_>,
    host: &Host,
    stream: Box<dyn Duplex>,
    address: SocketAddr,
) -> Result<Connection, Trouble> {
    let caller = Caller { manner, host, address };
    match caller.begin(stream, manner.security()).await {
        Err(Trouble::TlsFailed) => {}
        tried => return tried,
    }
    match dial(manner.network, &mut vec![address], manner.config.relay.timeouts.connect).await {
        Some(Ok((stream, _))) => caller.begin(stream, Security::Clear).await,
        Some(Err(error)) => Err(unreached(host, &error).into()),
        None => Err(Trouble::TlsFailed),
    }
}

fn unreached(host: &Host, error: &DialError) -> Failure {
    let DialError { address, reason } = error;
    Failure::later(Side::Network, "4.4.1", format!("connect to {}: {reason}", named(host, *address)))
}

/// As in `mx1.example.net [192.0.2.1]:25`.
fn named(host: &Host, address: SocketAddr) -> String {
    format!("{} [{}]:{}", host.name, address.ip(), address.port())
}

impl Manner<'_> {
    fn security(&self) -> Security {
        match self.smarthost {
            Some(Smarthost { scheme: Scheme::Smtps, .. }) => Security::Implicit,
            // No login goes in the clear, whatever the scheme (the configuration is checked for that too).
            Some(Smarthost { scheme: Scheme::SmtpStarttls, .. } | Smarthost { login: Some(_), .. }) => {
                Security::Demanded
            }
            None if self.config.relay.require_tls => Security::Demanded,
            Some(_) | None => Security::Opportunistic,
        }
    }

    fn is_lmtp(&self) -> bool {
        self.smarthost.is_some_and(|smarthost| smarthost.scheme == Scheme::Lmtp)
    }

    fn login(&self) -> Option<&Login> {
        self.smarthost.and_then(|smarthost| smarthost.login.as_ref())
    }
}

/// One address that was reached.
struct Caller<'a> {
    manner: &'a Manner<'a>,
    host: &'a Host,
    address: SocketAddr,
}

impl Caller<'_> {
    fn limits(&self) -> &RelayTimeouts {
        &self.manner.config.relay.timeouts
    }

    async fn begin(&self, stream: Box<dyn Duplex>, security: Security) -> Result<Connection, Trouble> {
        let limits = self.limits();
        let mut connection = Connection::new(stream, named(self.host, self.address));
        connection.lmtp = self.manner.is_lmtp();
        if security == Security::Implicit {
            connection = self.secure(connection, true, limits.greeting).await?;
        }
        greet(&mut connection, limits).await?;
        if matches!(security, Security::Opportunistic | Security::Demanded) {
            self.hello(&mut connection, security).await?;
            connection = self.start_tls(connection, security).await?;
            if connection.tls.is_none() {
                return Ok(connection);
            }
        }
        if let Some(login) = self.manner.login() {
            connection = self.log_in(connection, login).await?;
        }
        // What was learnt in the clear is forgotten (RFC 3207 §4.2), what was before the login too (RFC 4954 §4).
        self.hello(&mut connection, security).await?;
        Ok(connection)
    }

    async fn hello(&self, connection: &mut Connection, security: Security) -> Result<(), Failure> {
        let (hostname, limit) = (&self.manner.config.hostname, self.limits().command);
        let verb = if connection.lmtp { "LHLO" } else { "EHLO" };
        connection.send(format!("{verb} {hostname}\r\n").as_bytes(), verb, limit).await?;
        let answer = connection.receive(verb, limit).await?;
        if is_done(&answer) {
            connection.offers = Offers::parse(&answer.text);
            return Ok(());
        }
        // RFC 5321 §3.2: a server of old knows HELO only. It can't offer STARTTLS then.
        if answer.is_permanent() && !connection.lmtp && security != Security::Demanded {
            connection.send(format!("HELO {hostname}\r\n").as_bytes(), "HELO", limit).await?;
            let answer = connection.receive("HELO", limit).await?;
            if is_done(&answer) {
                connection.offers = Offers::default();
                return Ok(());
            }
            return Err(session_refused(answer, "HELO", connection));
        }
        Err(session_refused(answer, verb, connection))
    }

    /// Over TLS from here on; as it was where the server has none and nothing demands it.
    async fn start_tls(&self, mut connection: Connection, security: Security) -> Result<Connection, Trouble> {
        let demanded = security == Security::Demanded;
        if !connection.offers.starttls {
            if demanded {
                let detail = format!("{} doesn't offer STARTTLS, which the configuration demands", connection.peer);
                return Err(Failure::later(Side::Remote, "4.7.4", detail).into());
            }
            return Ok(connection);
        }
        let limit = self.limits().command;
        connection.send(b"STARTTLS\r\n", "STARTTLS", limit).await?;
        let answer = connection.receive("STARTTLS", limit).await?;
        if answer.code == 220 {
            return self.secure(connection, demanded, limit).await;
        }
        if demanded { Err(session_refused(answer, "STARTTLS", &connection).into()) } else { Ok(connection) }
    }

    async fn secure(&self, connection: Connection, checked: bool, limit: Duration) -> Result<Connection, Trouble> {
        let (peer, lmtp) = (connection.peer.clone(), connection.lmtp);
        let shaking = self.manner.tls.start(connection.into_stream(), &self.host.name, self.address.ip(), checked);
        let reason = match tokio::time::timeout(limit, shaking).await {
            Ok(Ok((stream, told))) => {
                let mut connection = Connection::new(Box::new(stream), peer);
                connection.tls = Some(told);
                connection.lmtp = lmtp;
                return Ok(connection);
            }
            Ok(Err(reason)) => reason,
            Err(_) => format!("{} without an answer", seconds(limit)),
        };
        if !checked {
            return Err(Trouble::TlsFailed);
        }
        Err(Failure::later(Side::Network, "4.7.5", format!("TLS handshake with {peer}: {reason}")).into())
    }

    /// By mail-send, which says EHLO once more for itself.
    async fn log_in(&self, connection: Connection, login: &Login) -> Result<Connection, Trouble> {
        let (peer, tls, lmtp) = (connection.peer.clone(), connection.tls.clone(), connection.lmtp);
        let mut client = SmtpClient { stream: connection.into_stream(), timeout: self.limits().command };
        let credentials = Credentials::new(login.user.as_str(), login.password.expose());
        let logged_in = match client.capabilities(&self.manner.config.hostname, lmtp).await {
            Ok(offers) => client.authenticate(&credentials, &offers).await.map(drop),
            Err(error) => Err(error),
        };
        logged_in.map_err(|error| login_failed(error, &peer))?;
        let mut connection = Connection::new(client.stream, peer);
        connection.tls = tls;
        connection.lmtp = lmtp;
        Ok(connection)
    }
}

async fn greet(connection: &mut Connection, limits: &RelayTimeouts) -> Result<(), Failure> {
    let greeting = connection.receive("the greeting", limits.greeting).await?;
    if greeting.code == 220 {
        return Ok(());
    }
    let code = greeting.code;
    let mut failure = refused(greeting, "the connection", &connection.peer);
    // RFC 7504 §4: 521 says that the host takes no mail at all. Any other refusal to speak is the host's mood of today,
    // and no message of ours has been judged by it.
    if code != 521 {
        failure.retry = Retry::Later;
    }
    Err(failure)
}

/// A refusal of us, not of a message: tried again, and elsewhere first.
fn session_refused(answer: crate::mail::Reply, phase: &str, connection: &Connection) -> Failure {
    let mut failure = refused(answer, phase, &connection.peer);
    failure.retry = Retry::Later;
    failure
}

/// A login that fails is the configuration's fault or the server's, never the message's: it is tried again.
fn login_failed(error: mail_send::Error, peer: &str) -> Trouble {
    use mail_send::Error;
    match error {
        Error::UnexpectedReply(said) | Error::AuthenticationFailed(said) => {
            let mut failure = refused(reply(said.code, said.esc, &said.message), "the login", peer);
            let for_good = failure.retry == Retry::Never;
            failure.retry = Retry::Later;
            failure.side = Side::Ours;
            if for_good { Trouble::Login(failure) } else { Trouble::Failed(failure) }
        }
        Error::UnsupportedAuthMechanism => {
            Failure::later(Side::Ours, "4.7.0", format!("{peer} offers no way to log in that we know")).into()
        }
        Error::Timeout => Failure::later(Side::Network, "4.4.1", format!("login at {peer}: no answer in time")).into(),
        other => Failure::later(Side::Network, "4.4.1", format!("login at {peer}: {other}")).into(),
    }
}

#[cfg(test)]
mod tests;
