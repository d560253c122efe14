//! The HTTP clients: one for endpoints that the configuration names, one for URLs that a script made.
//!
//! Both resolve through our own resolver and keep idle connections by origin. The second may only connect to
//! addresses that `[egress]` allows; what is checked is what is connected to, so that a name can't change in between.
//! No redirects, no proxy from the environment, no cookies. TLS by ring, certificates always checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder, Response, redirect};
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use crate::delivery::egress::may_reach;
use crate::delivery::network::{Failed, Network, Simulated};
use crate::delivery::relay::tls::Tls;
use crate::dns::{Dns, LookupError};

/// Addresses of one host that are tried in one attempt.
const MAX_ADDRESSES: usize = 8;
/// An idle connection is closed before servers commonly close theirs (after 5 s), so that none is used as it goes. There
/// are no more of them than attempts at once: with a bound below that they would be closed and opened without end.
const IDLE: Duration = Duration::from_secs(4);
const USER_AGENT: &str = concat!("mailworker/", env!("CARGO_PKG_VERSION"));

/// The clients can't be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client can't be set up: {0}")]
pub struct SetupError(String);

/// Why a host can't be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    #[error("{host} is at {found}, which is no public address and not in [egress] allow")]
    Forbidden { host: String, found: String },
    #[error("{0}: no such host, or it has no address")]
    NoSuchHost(String),
    #[error("{0}")]
    Unanswered(String),
}

/// One of them. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// What there is in the internet's place.
    other: Option<Arc<Other>>,
}

struct Other {
    network: Arc<dyn Simulated>,
    resolver: Resolver,
}

impl Client {
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// # Errors
    /// The innermost cause says why; one that is [`Unreachable`] is among the causes.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failed> {
        let Some(other) = &self.other else { return Ok(request.send().await?) };
        let request = request.build()?;
        let to = other.resolver.of(request.url()).await.map_err(Unsent)?;
        Ok(other.network.call(to, request).await.map_err(Unsent)?)
    }
}

/// As HTTP's own errors, it only wraps what happened.
#[derive(Debug, thiserror::Error)]
#[error("the request couldn't be sent")]
struct Unsent(#[source] Failed);

/// Both clients.
pub struct Clients {
    dns: Arc<Dns>,
    tls: ClientConfig,
    network: Network,
    named: Client,
    scripted: ArcSwap<Scripted>,
}

/// The client for URLs of scripts, by the addresses allowed when it was made: a reload makes a new one, whose pool
/// holds no connection that is no longer allowed.
struct Scripted {
    allow: Vec<IpNet>,
    client: Client,
}

impl Clients {
    /// `roots`: the authorities trusted; `None`: the public ones.
    ///
    /// # Errors
    /// The TLS provider or the client refuses its settings.
    pub fn new(dns: Arc<Dns>, roots: Option<Arc<RootCertStore>>, network: &Network) -> Result<Self, SetupError> {
        let tls = Tls::new(roots).map_err(|error| SetupError(error.to_string()))?;
        let tls = ClientConfig::clone(&tls.verified);
        let named = client(&dns, &tls, network, None)?;
        let scripted = Scripted { allow: Vec::new(), client: client(&dns, &tls, network, Some(Vec::new()))? };
        Ok(Self { dns, tls, network: network.clone(), named, scripted: ArcSwap::from_pointee(scripted) })
    }

    /// For what the configuration names: it goes where it says.
    pub fn named(&self) -> Client {
        self.named.clone()
    }

    /// For what a script named.
    ///
    /// # Errors
    /// As [`Clients::new`].
    pub fn scripted(&self, allow: &[IpNet]) -> Result<Client, SetupError> {
        let current = self.scripted.load();
        if current.allow == allow {
            return Ok(current.client.clone());
        }
        let made = client(&self.dns, &self.tls, &self.network, Some(allow.to_vec()))?;
        self.scripted.store(Arc::new(Scripted { allow: allow.to_vec(), client: made.clone() }));
        Ok(made)
    }
}

/// `allow`: the addresses beside the public ones; `None`: every address.
fn client(
    dns: &Arc<Dns>,
    tls: &ClientConfig,
    network: &Network,
    allow: Option<Vec<IpNet>>,
) -> Result<Client, SetupError> {
    let resolver = Resolver { dns: Arc::clone(dns), allow };
    let other = network.other().map(|network| Arc::new(Other { network, resolver: resolver.clone() }));
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .dns_resolver(resolver)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .http1_only()
        .user_agent(USER_AGENT)
        .pool_idle_timeout(IDLE)
        .build()
        .map_err(|error| SetupError(error.to_string()))?;
    Ok(Client { http, other })
}

/// A literal address is connected to without being resolved, so it is checked here.
///
/// # Errors
/// [`Unreachable::Forbidden`]
pub fn check_literal(url: &Url, allow: &[IpNet]) -> Result<(), Unreachable> {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    if may_reach(ip, allow) {
        return Ok(());
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    Err(Unreachable::Forbidden { host, found: ip.to_string() })
}

#[derive(Clone)]
struct Resolver {
    dns: Arc<Dns>,
    allow: Option<Vec<IpNet>>,
}

impl Resolver {
    /// As HTTP's own connector has it.
    async fn of(&self, url: &Url) -> Result<Vec<SocketAddr>, Failed> {
        let found = match url.host() {
            Some(Host::Ipv4(ip)) => vec![IpAddr::V4(ip)],
            Some(Host::Ipv6(ip)) => vec![IpAddr::V6(ip)],
            Some(Host::Domain(name)) => addresses(&self.dns, name, self.allow.as_deref()).await?,
            None => Vec::new(),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (dns, allow) = (Arc::clone(&self.dns), self.allow.clone());
        Box::pin(async move {
            let addresses = addresses(&dns, name.as_str(), allow.as_deref()).await?;
            // The port is the URL's: the connector puts it in.
            let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

async fn addresses(dns: &Dns, host: &str, allow: Option<&[IpNet]>) -> Result<Vec<IpAddr>, Unreachable> {
    let found = match dns.addresses(host).await {
        Ok(found) => found,
        Err(LookupError::NoSuchName(_)) => Vec::new(),
        Err(error) => return Err(Unreachable::Unanswered(error.to_string())),
    };
    if found.is_empty() {
        return Err(Unreachable::NoSuchHost(host.to_owned()));
    }
    let allowed = |ip: &IpAddr| allow.is_none_or(|allow| may_reach(*ip, allow));
    let mut reachable: Vec<IpAddr> = found.iter().copied().filter(allowed).collect();
    if reachable.is_empty() {
        let found = found.iter().take(MAX_ADDRESSES).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(Unreachable::Forbidden { host: host.to_owned(), found });
    }
    reachable.truncate(MAX_ADDRESSES);
    Ok(reachable)
}
