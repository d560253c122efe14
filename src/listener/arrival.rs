//! From a socket to a stream and a client: the PROXY header, the handshake, and how the session is to behave.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::limits::Slot;
use super::serve::{Bound, Shared, Stop, too_many_from_there};
use super::socket::Socket;
use super::stream::{Stream, send_away};
use super::visit::Visit;
use super::{proxy, tls};
use crate::config::{Config, TlsMode};
use crate::event::Kind;
use crate::mail::Reply;
use crate::smtp::Settings;

/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Whom we speak with: the peer, or whom a proxy speaks for. `None`: it was sent away.
pub(super) async fn learn_peer<S: Socket>(
    mut tcp: S,
    mut slot: Slot,
    peer: SocketAddr,
    session: u64,
    bound: &Bound,
    shared: &Shared,
) -> Option<(S, Slot, SocketAddr)> {
    if !bound.is_proxy(peer.ip()) {
        return Some((tcp, slot, peer));
    }
    let header = tokio::select! {
        biased;
        header = proxy::read(&mut tcp, proxy::TIMEOUT) => header,
        () = stopping(shared.stop.clone()) => {
            send_away(&mut tcp, &Reply::new(421, 3, 2, "The server is shutting down")).await;
            return None;
        }
    };
    let peer = match header {
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
pub(super) async fn encrypt<S: Socket>(
    tcp: S,
    server: Option<Arc<ServerConfig>>,
    visit: &mut Visit,
    shared: &Shared,
) -> Option<Stream<S>> {
    let shaken = match server {
        Some(server) => tokio::select! {
            biased;
            shaken = tls::shake_hands(tcp, server, HANDSHAKE) => shaken,
            // There are no words in which a peer in mid-handshake could be told.
            () = stopping(shared.stop.clone()) => Err("the server stopped during the handshake".to_owned()),
        },
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

/// Until the server is told to stop.
pub(super) async fn stopping(mut stop: watch::Receiver<Stop>) {
    let _or_is_gone = stop.wait_for(|stop| *stop != Stop::Serving).await;
}

pub(super) fn settings(config: &Config, visit: &Visit, bound: &Bound, shared: &Shared) -> Settings {
    settings_for(config, visit.client.ip, bound.tls, shared.parts.tls.load().is_available())
}

/// How a session with this client behaves at a listener of that mode.
#[must_use]
pub fn settings_for(config: &Config, client: IpAddr, tls: TlsMode, has_certificate: bool) -> Settings {
    let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
    let upgradable = matches!(tls, TlsMode::Starttls | TlsMode::Required);
    Settings {
        hostname: config.hostname.clone(),
        message_size: config.limits.message_size,
        recipients: config.limits.recipients,
        errors: config.limits.errors,
        starttls: upgradable && has_certificate,
        tls_required: tls == TlsMode::Required || is_in(&config.session.require_tls),
        repair_line_ends: is_in(&config.session.repair_line_ends),
        command_timeout: config.session.command_timeout,
        data_timeout: config.session.data_timeout,
    }
}
