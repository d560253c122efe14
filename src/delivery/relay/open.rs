//! From a host to a connection that is ready for a message: connect, greeting, EHLO, STARTTLS, login.
//!
//! Standards: RFC 5321 §3.1, §3.2, §4.1.1.1; RFC 3207 (STARTTLS); RFC 2033 (LHLO); RFC 7504 (521).
//! A smarthost with a login is reached through mail-send, which knows the mechanisms of AUTH. For the rest it isn't
//! used: it knows no pipelining, no answer for each recipient, no enhanced codes, and no reuse by destination.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail_send::{Credentials, SmtpClientBuilder};
use tokio_rustls::TlsConnector;

use crate::config::{Config, Login, RelayTimeouts, Scheme, Smarthost};
use crate::delivery::{Failure, Retry, Side};

use super::connection::Connection;
use super::dial::{DialError, dial};
use super::reply::{Offers, refused, reply};
use super::tls::{Tls, describe};
use super::{hosts::Host, seconds};

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
}

/// Why there is no connection.
enum Trouble {
    /// TLS failed where nothing demands it: in the clear, on a new connection.
    TlsFailed,
    Failed(Failure),
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
    let scheme = manner.smarthost.map_or(Scheme::Smtp, |smarthost| smarthost.scheme);
    if let Some((smarthost, login)) = manner.smarthost.and_then(|hop| hop.login.as_ref().map(|login| (hop, login))) {
        return log_in(manner, smarthost, login, addresses).await;
    }
    let security = match scheme {
        Scheme::Smtp | Scheme::Lmtp => Security::Opportunistic,
        Scheme::SmtpStarttls => Security::Demanded,
        Scheme::Smtps => Security::Implicit,
    };
    let lmtp = scheme == Scheme::Lmtp;
    match begin(manner, host, addresses, security, lmtp).await {
        Ok(connection) => Ok(connection),
        Err(Trouble::Failed(failure)) => Err(failure),
        Err(Trouble::TlsFailed) => match begin(manner, host, addresses, Security::Clear, lmtp).await {
            Ok(connection) => Ok(connection),
            Err(Trouble::Failed(failure)) => Err(failure),
            Err(Trouble::TlsFailed) => {
                Err(Failure::later(Side::Network, "4.4.2", format!("no TLS with {}", host.name)))
            }
        },
    }
}

async fn begin(
    manner: &Manner<'_>,
    host: &Host,
    addresses: &[SocketAddr],
    security: Security,
    lmtp: bool,
) -> Result<Connection, Trouble> {
    let limits = &manner.config.relay.timeouts;
    let (stream, address) = reach(host, addresses, limits.connect).await?;
    let peer = format!("{} [{}]:{}", host.name, address.ip(), address.port());
    let mut connection = Connection::new(Box::new(stream), peer);
    if security == Security::Implicit {
        connection = secure(connection, manner, host, address, true, limits.greeting).await?;
    }
    greet(&mut connection, limits).await?;
    connection.lmtp = lmtp;
    let hostname = &manner.config.hostname;
    connection.offers = hello(&mut connection, hostname, lmtp, security, limits).await?;
    let wanted = matches!(security, Security::Opportunistic | Security::Demanded);
    if !wanted || !connection.offers.starttls {
        if security == Security::Demanded {
            let detail = format!("{} doesn't offer STARTTLS, which the configuration demands", connection.peer);
            return Err(Failure::later(Side::Remote, "4.7.4", detail).into());
        }
        return Ok(connection);
    }
    connection.send(b"STARTTLS\r\n", "STARTTLS", limits.command).await?;
    let answer = connection.receive("STARTTLS", limits.command).await?;
    if answer.code != 220 {
        return match security {
            Security::Demanded => Err(refused(answer, "STARTTLS", &connection.peer).into()),
            _ => Ok(connection),
        };
    }
    let checked = security == Security::Demanded;
    let mut connection = secure(connection, manner, host, address, checked, limits.command).await?;
    connection.lmtp = lmtp;
    // RFC 3207 §4.2: what was learnt in the clear is forgotten.
    connection.offers = hello(&mut connection, hostname, lmtp, Security::Demanded, limits).await?;
    Ok(connection)
}

async fn reach(
    host: &Host,
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<(tokio::net::TcpStream, SocketAddr), Failure> {
    match dial(addresses, limit).await {
        Some(Ok(reached)) => Ok(reached),
        Some(Err(DialError { address, reason })) => {
            let detail = format!("connect to {} [{}]:{}: {reason}", host.name, address.ip(), address.port());
            Err(Failure::later(Side::Network, "4.4.1", detail))
        }
        None => Err(Failure::later(Side::Network, "4.4.1", format!("{} has no address to connect to", host.name))),
    }
}

async fn secure(
    connection: Connection,
    manner: &Manner<'_>,
    host: &Host,
    address: SocketAddr,
    checked: bool,
    limit: Duration,
) -> Result<Connection, Trouble> {
    let peer = connection.peer.clone();
    let shaking = manner.tls.start(connection.into_stream(), &host.name, address.ip(), checked);
    let reason = match tokio::time::timeout(limit, shaking).await {
        Ok(Ok((stream, told))) => {
            let mut connection = Connection::new(Box::new(stream), peer);
            connection.tls = Some(told);
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

async fn hello(
    connection: &mut Connection,
    hostname: &str,
    lmtp: bool,
    security: Security,
    limits: &RelayTimeouts,
) -> Result<Offers, Failure> {
    let verb = if lmtp { "LHLO" } else { "EHLO" };
    connection.send(format!("{verb} {hostname}\r\n").as_bytes(), verb, limits.command).await?;
    let answer = connection.receive(verb, limits.command).await?;
    if answer.is_positive() {
        return Ok(Offers::parse(&answer.text));
    }
    // RFC 5321 §3.2: a server of old knows HELO only. It can't offer STARTTLS then.
    if answer.is_permanent() && !lmtp && !matches!(security, Security::Demanded) {
        connection.send(format!("HELO {hostname}\r\n").as_bytes(), "HELO", limits.command).await?;
        let answer = connection.receive("HELO", limits.command).await?;
        if answer.is_positive() {
            return Ok(Offers::default());
        }
        return Err(session_refused(answer, "HELO", connection));
    }
    Err(session_refused(answer, verb, connection))
}

/// A refusal of us, not of a message: tried again, and elsewhere first.
fn session_refused(answer: crate::mail::Reply, phase: &str, connection: &Connection) -> Failure {
    let mut failure = refused(answer, phase, &connection.peer);
    failure.retry = Retry::Later;
    failure
}

/// Connects, secures and logs in by mail-send, then goes on with its stream.
async fn log_in(
    manner: &Manner<'_>,
    smarthost: &Smarthost,
    login: &Login,
    addresses: &[SocketAddr],
) -> Result<Connection, Failure> {
    let limits = &manner.config.relay.timeouts;
    let hostname = &manner.config.hostname;
    let Some(address) = addresses.first() else {
        return Err(Failure::later(Side::Network, "4.4.1", format!("{} has no address", smarthost.host)));
    };
    let connector = TlsConnector::from(Arc::clone(&manner.tls.verified));
    let mut builder = SmtpClientBuilder::new_with_tls_connector(smarthost.host.clone(), smarthost.port, connector)
        .implicit_tls(smarthost.scheme == Scheme::Smtps)
        .lmtp(smarthost.scheme == Scheme::Lmtp)
        .helo_host(hostname.clone())
        .credentials(Credentials::new(login.user.clone(), login.password.expose().to_owned()))
        .timeout(limits.connect.saturating_add(limits.greeting));
    // The resolver has looked the name up already.
    builder.addr = address.to_string();
    let peer = format!("{} [{}]:{}", smarthost.host, address.ip(), address.port());
    let client = builder.connect().await.map_err(|error| login_failed(error, &peer))?;
    let told = describe(client.stream.get_ref().1, true);
    let mut connection = Connection::new(Box::new(client.stream), peer);
    connection.tls = Some(told);
    let lmtp = smarthost.scheme == Scheme::Lmtp;
    connection.lmtp = lmtp;
    // RFC 4954 §4: after the login the server may offer otherwise.
    connection.offers = hello(&mut connection, hostname, lmtp, Security::Demanded, limits).await?;
    Ok(connection)
}

/// A login that fails is the configuration's fault or the server's, never the message's: it is tried again.
fn login_failed(error: mail_send::Error, peer: &str) -> Failure {
    use mail_send::Error;
    match error {
        Error::UnexpectedReply(said) | Error::AuthenticationFailed(said) => {
            let mut failure = refused(reply(said.code, said.esc, &said.message), "the login", peer);
            failure.retry = Retry::Later;
            failure.side = Side::Ours;
            failure
        }
        Error::MissingStartTls => Failure::later(
            Side::Remote,
            "4.7.4",
            format!("{peer} doesn't offer STARTTLS, without which no login is sent"),
        ),
        Error::UnsupportedAuthMechanism => {
            Failure::later(Side::Ours, "4.7.0", format!("{peer} offers no way to log in that we know"))
        }
        Error::Timeout => Failure::later(Side::Network, "4.4.1", format!("login at {peer}: no answer in time")),
        other => Failure::later(Side::Network, "4.4.1", format!("login at {peer}: {other}")),
    }
}
