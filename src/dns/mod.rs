//! The one caching resolver; every look-up has a deadline.
//!
//! Answers MX, addresses, TXT and names of addresses to `delivery`, `intake` and `authenticate`. «There is no such
//! name» and «nobody answered» are never mixed up: the one is an answer, the other is [`LookupError::Temporary`].
//! hickory (through mail-auth) is confined to this module and `authenticate`. Tests use a [`Table`], which asks nobody.
//! Standards: RFC 1035, RFC 2308 (negative answers), RFC 5321 §5.1 (MX).

mod table;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use mail_auth::hickory_resolver::TokioResolver;
use mail_auth::hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::hickory_resolver::lookup::Lookup;
use mail_auth::hickory_resolver::net::NetError;
use mail_auth::hickory_resolver::net::runtime::TokioRuntimeProvider;
use mail_auth::hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail_auth::hickory_resolver::system_conf::read_system_conf;
use rustls::{ClientConfig, RootCertStore};

use crate::config;

pub use table::Table;
pub(crate) use table::{Addresses4, Addresses6, Exchanges, Pointers, Texts};

/// Most records of one answer that are looked at.
const MAX_RECORDS: usize = 64;

/// Look-ups with a cache and a deadline.
pub struct Dns {
    authenticator: MessageAuthenticator,
    timeout: Duration,
    table: Option<Table>,
}

/// One MX record (RFC 5321 §5.1). The host is in lower case, without its final dot; empty for a null MX (RFC 7505).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    pub preference: u16,
    pub host: String,
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address, a name, a text.
    Text(String),
    Mx(Mx),
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// NXDOMAIN, or a name that can't be one: asking again won't help.
    #[error("no such domain: {0}")]
    NoSuchName(String),
    /// SERVFAIL, a time-out, a network that is down: ask again later.
    #[error("DNS look-up of {name} failed: {reason}")]
    Temporary { name: String, reason: String },
}

/// The resolver can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("the resolver can't be set up: {0}")]
pub struct SetupError(String);

/// Name servers are asked in the clear. Without a TLS configuration of ours the resolver would read the machine's
/// authorities, and fail where there are none.
fn authenticator(servers: ResolverConfig, options: ResolverOpts) -> Result<MessageAuthenticator, SetupError> {
    let failed = |error: &dyn fmt::Display| SetupError(error.to_string());
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let resolver = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        .with_options(options)
        .with_tls_config(tls)
        .build()
        .map_err(|error| failed(&error))?;
    Ok(MessageAuthenticator(resolver))
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("timeout", &self.timeout).field("table", &self.table).finish_non_exhaustive()
    }
}

impl Dns {
    /// By the servers named, or the system's. Call it within a runtime.
    ///
    /// # Errors
    /// No servers are named and the system's configuration can't be read.
    pub fn new(settings: &config::Dns) -> Result<Self, SetupError> {
        let (servers, mut options) = if settings.servers.is_empty() {
            read_system_conf().map_err(|error| {
                SetupError(format!("/etc/resolv.conf: {error}; `[dns] servers` can name the servers instead"))
            })?
        } else {
            let servers = settings.servers.iter().map(name_server).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        };
        // Two tries have to fit into the deadline of the whole.
        options.timeout = settings.timeout / 2;
        options.attempts = 2;
        options.cache_size = 8192;
        Ok(Self { authenticator: authenticator(servers, options)?, timeout: settings.timeout, table: None })
    }

    /// Answers from `table` alone.
    ///
    /// # Errors
    /// The resolver behind it (which is never asked) can't be made.
    pub fn table(table: Table) -> Result<Self, SetupError> {
        let nowhere = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
        let authenticator = authenticator(nowhere, ResolverOpts::default())?;
        Ok(Self { authenticator, timeout: Duration::from_secs(5), table: Some(table) })
    }

    /// The MX records of `domain`, best first; empty where the domain has none.
    ///
    /// # Errors
    /// [`LookupError`]
    pub async fn mx(&self, domain: &str) -> Result<Vec<Mx>, LookupError> {
        if let Some(table) = &self.table {
            return table.mx(domain);
        }
        let name = absolute(domain)?;
        let answer = self.ask(domain, self.authenticator.0.mx_lookup(name)).await?;
        let mut found = Vec::new();
        for record in answer.iter().flat_map(Lookup::answers).take(MAX_RECORDS) {
            if let RData::MX(mx) = &record.data {
                found.push(Mx { preference: mx.preference, host: plain(&mx.exchange) });
            }
        }
        found.sort_by_key(|mx| mx.preference);
        Ok(found)
    }

    /// IPv6 and IPv4 addresses of `host`, each kind in the order of its answer; empty where it has none.
    ///
    /// # Errors
    /// [`LookupError`]; where only one of the two kinds failed, the other is the answer.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        if let Some(table) = &self.table {
            return table.addresses(host);
        }
        // A name of one label may be one of the local network's, which the search list completes.
        let name = if host.contains('.') { absolute(host)? } else { relative(host)? };
        let (v6, v4) = tokio::join!(
            self.ask(host, self.authenticator.0.ipv6_lookup(name.clone())),
            self.ask(host, self.authenticator.0.ipv4_lookup(name)),
        );
        let mut found = Vec::new();
        for record in [&v6, &v4].into_iter().flatten().flatten().flat_map(Lookup::answers).take(MAX_RECORDS) {
            match &record.data {
                RData::AAAA(address) => found.push(IpAddr::V6(address.0)),
                RData::A(address) => found.push(IpAddr::V4(address.0)),
                _ => {}
            }
        }
        if found.is_empty() {
            // A failure that may pass weighs more than an absence: the other kind may hold the address.
            let errors = [v6.err(), v4.err()].into_iter().flatten();
            let weightiest = errors.max_by_key(|error| matches!(error, LookupError::Temporary { .. }));
            return weightiest.map_or(Ok(found), Err);
        }
        Ok(found)
    }

    /// The TXT records of `name`, each joined to one text; empty where there are none.
    ///
    /// # Errors
    /// [`LookupError`]
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, LookupError> {
        if let Some(table) = &self.table {
            return table.txt(name);
        }
        let answer = self.ask(name, self.authenticator.0.txt_lookup(absolute(name)?)).await?;
        let mut found = Vec::new();
        for record in answer.iter().flat_map(Lookup::answers).take(MAX_RECORDS) {
            if let RData::TXT(txt) = &record.data {
                let octets: Vec<u8> = txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
                found.push(String::from_utf8_lossy(&octets).into_owned());
            }
        }
        Ok(found)
    }

    /// The records of one of the types A, AAAA, CNAME, MX, NS, PTR, SRV and TXT; empty where there are none.
    ///
    /// # Errors
    /// [`LookupError`]
    pub async fn records(&self, name: &str, kind: &str) -> Result<Vec<Data>, LookupError> {
        if let Some(table) = &self.table {
            return table.records(name, kind);
        }
        let kind = RecordType::from_str(kind).map_err(|_| LookupError::NoSuchName(name.to_owned()))?;
        let answer = self.ask(name, self.authenticator.0.lookup(absolute(name)?, kind)).await?;
        let records = answer.iter().flat_map(Lookup::answers).take(MAX_RECORDS);
        let mut found: Vec<Data> = records.filter_map(|record| data(&record.data, kind)).collect();
        found.sort_by_key(|data| if let Data::Mx(mx) = data { mx.preference } else { 0 });
        Ok(found)
    }

    /// The addresses of `host` that are of the same kind as `like`; empty where it has none.
    ///
    /// # Errors
    /// [`LookupError`]
    pub async fn addresses_like(&self, host: &str, like: IpAddr) -> Result<Vec<IpAddr>, LookupError> {
        if let Some(table) = &self.table {
            let found = table.addresses(host)?;
            return Ok(found.into_iter().filter(|ip| ip.is_ipv4() == like.is_ipv4()).collect());
        }
        let name = absolute(host)?;
        let answer = if like.is_ipv4() {
            self.ask(host, self.authenticator.0.ipv4_lookup(name)).await?
        } else {
            self.ask(host, self.authenticator.0.ipv6_lookup(name)).await?
        };
        let address = |data: &RData| match data {
            RData::A(address) if like.is_ipv4() => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) if like.is_ipv6() => Some(IpAddr::V6(address.0)),
            _ => None,
        };
        let records = answer.iter().flat_map(Lookup::answers).take(MAX_RECORDS);
        Ok(records.filter_map(|record| address(&record.data)).collect())
    }

    /// The names of `ip`, which nothing confirms yet; empty where it has none.
    ///
    /// # Errors
    /// [`LookupError::Temporary`]
    pub async fn names(&self, ip: IpAddr) -> Result<Vec<String>, LookupError> {
        if let Some(table) = &self.table {
            return Ok(table.names(ip));
        }
        let subject = ip.to_string();
        let answer = match self.ask(&subject, self.authenticator.0.reverse_lookup(Name::from(ip))).await {
            Err(LookupError::NoSuchName(_)) => return Ok(Vec::new()),
            other => other?,
        };
        let records = answer.iter().flat_map(Lookup::answers).take(MAX_RECORDS);
        Ok(records
            .filter_map(|record| if let RData::PTR(name) = &record.data { Some(plain(&name.0)) } else { None })
            .collect())
    }

    /// One look-up within the deadline; `None` where the name exists without such a record.
    async fn ask<T>(
        &self,
        name: &str,
        lookup: impl Future<Output = Result<T, NetError>>,
    ) -> Result<Option<T>, LookupError> {
        let temporary = |reason: String| LookupError::Temporary { name: name.to_owned(), reason };
        match tokio::time::timeout(self.timeout, lookup).await {
            Ok(Ok(found)) => Ok(Some(found)),
            Ok(Err(error)) if error.is_nx_domain() => Err(LookupError::NoSuchName(name.to_owned())),
            Ok(Err(error)) if error.is_no_records_found() => Ok(None),
            Ok(Err(error)) => Err(temporary(error.to_string())),
            Err(_) => Err(temporary(format!("{:?} without an answer", self.timeout))),
        }
    }

    /// For `authenticate`: mail-auth's own view of this resolver.
    pub(crate) fn authenticator(&self) -> &MessageAuthenticator {
        &self.authenticator
    }

    pub(crate) fn known(&self) -> Option<&Table> {
        self.table.as_ref()
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// What a record of this type says; of others (an alias on the way) nothing.
fn data(record: &RData, kind: RecordType) -> Option<Data> {
    let text = match record {
        _ if record.record_type() != kind => return None,
        RData::MX(mx) => return Some(Data::Mx(Mx { preference: mx.preference, host: plain(&mx.exchange) })),
        RData::SRV(srv) => {
            let target = plain(&srv.target);
            return Some(Data::Srv { priority: srv.priority, weight: srv.weight, port: srv.port, target });
        }
        RData::A(address) => address.0.to_string(),
        RData::AAAA(address) => address.0.to_string(),
        RData::CNAME(name) => plain(&name.0),
        RData::NS(name) => plain(&name.0),
        RData::PTR(name) => plain(&name.0),
        RData::TXT(txt) => {
            let octets: Vec<u8> = txt.txt_data.iter().flat_map(|part| part.iter().copied()).collect();
            String::from_utf8_lossy(&octets).into_owned()
        }
        _ => return None,
    };
    Some(Data::Text(text))
}

/// Also one that no host has: a label may hold any octets (RFC 2181 §11), and SPF's macros make such (RFC 7208 §7.3).
fn relative(name: &str) -> Result<Name, LookupError> {
    let as_it_is = || Name::from_labels(name.strip_suffix('.').unwrap_or(name).split('.').map(octets));
    let named = Name::from_str_relaxed(name).or_else(|error| if name.is_ascii() { as_it_is() } else { Err(error) });
    named.map_err(|_| LookupError::NoSuchName(name.to_owned()))
}

/// A label whose odd octets are written as [`plain`] writes them: `\:`, `\040`.
fn octets(label: &str) -> Vec<u8> {
    let (mut octets, mut rest) = (Vec::with_capacity(label.len()), label);
    while let Some((before, after)) = rest.split_once('\\') {
        octets.extend_from_slice(before.as_bytes());
        let number = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        octets.extend(number.or_else(|| after.bytes().next()));
        rest = after.get(if number.is_some() { 3 } else { 1 }..).unwrap_or_default();
    }
    octets.extend_from_slice(rest.as_bytes());
    octets
}

fn absolute(name: &str) -> Result<Name, LookupError> {
    let mut name = relative(name)?;
    name.set_fqdn(true);
    Ok(name)
}

/// Lower case, no final dot; the root is empty.
fn plain(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}
