//! The configuration: what `mailworker.toml`, the environment and flags say, with a default for every key but `[[domain]]`.
//!
//! Each field's doc comment is its line in the reference (`deploy/mailworker.toml`) and in the schema.
//! Pure but for `load`, which reads files and the environment. Immutable once loaded; a reload makes a new one.

mod authentication;
mod check;
mod cron;
mod decode;
mod defaults;
mod dev_vars;
pub mod document;
mod geoip;
pub mod leaf;
pub mod load;
pub mod lookup;
mod queue;
mod raw;
mod reach;
pub mod route;
mod schema;
mod secret;
mod tree;
pub mod units;
mod variable;

pub use authentication::{Authentication, Consequence, Policy};
pub use cron::Cron;
pub use geoip::GeoIp;
pub use reach::{Ai, Fetch, Reachable};
pub use route::{Route, RouteAction};
pub use schema::schema;
pub use secret::SecretSource;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::mail::Address;

/// The whole of it, checked: names resolve, numbers are in range, paths are absolute (or as embedded).
#[derive(Debug, Clone)]
pub struct Config {
    /// Greeting, EHLO, Received.
    pub hostname: String,
    /// The worker of every domain that names none; relative to `rules_dir`'s parent as written.
    pub main: PathBuf,
    pub data_dir: PathBuf,
    pub listeners: Vec<Listener>,
    pub tls: Option<TlsFiles>,
    pub http: Http,
    pub domains: Vec<Domain>,
    pub routes: Vec<Route>,
    /// `[vars]`: strings, numbers, booleans, arrays, tables.
    pub vars: BTreeMap<String, serde_json::Value>,
    /// What `mailworker secret put` keeps for this environment, or `.dev.vars` says in its place.
    pub secrets: BTreeMap<String, Secret>,
    /// Where the key for them is.
    pub secrets_key: SecretSource,
    pub kv_namespaces: Vec<String>,
    pub webhooks: Vec<Webhook>,
    pub webhook_defaults: WebhookDefaults,
    pub destinations: Vec<Destination>,
    pub relay: Relay,
    pub egress: Vec<IpNet>,
    pub fetch: Fetch,
    pub ai: Option<Ai>,
    pub dns: Dns,
    pub authentication: Authentication,
    pub geoip: GeoIp,
    pub limits: Limits,
    pub budget: Budget,
    pub retention: Retention,
    /// `[triggers]`: when the top-level `main` runs by itself.
    pub crons: Vec<Cron>,
    pub session: SessionSettings,
    /// `--env NAME`; empty without.
    pub env_name: String,
    /// The directory of the file it was read from: every relative path was relative to it.
    pub base_dir: PathBuf,
    /// Domains by name.
    index: lookup::Index,
}

/// `[[listener]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `IP:PORT`, or `fd:NAME` for a socket of systemd's.
    pub address: ListenAddress,
    pub tls: TlsMode,
    /// Peers that must send a PROXY header (v1 or v2): a receiver doesn't guess whether there is one (PROXY protocol, §2).
    pub proxy_protocol: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    Socket(std::net::SocketAddr),
    Systemd(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum TlsMode {
    Off,
    /// Offered once a certificate is there.
    #[default]
    Starttls,
    /// MAIL before STARTTLS is refused (530 5.7.0, RFC 3207 §4).
    Required,
    /// TLS from the first octet (RFC 8314 §3).
    Implicit,
}

impl TlsMode {
    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starttls => "starttls",
            Self::Required => "required",
            Self::Implicit => "implicit",
        }
    }
}

/// `[tls]`: PEM files, read again when they change.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Further pairs, chosen by SNI.
    pub sni: Vec<(PathBuf, PathBuf)>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// /healthz /readyz /metrics; `None` switches it off (`address = ""`).
    pub address: Option<std::net::SocketAddr>,
}

/// `[[domain]]`
#[derive(Debug, Clone)]
pub struct Domain {
    /// In A-labels and lower case; `*.example.com` takes every subdomain.
    pub name: String,
    /// Where postmaster@ goes, whatever the worker says.
    pub postmaster: Address,
    pub main: Option<PathBuf>,
    /// The separator of a subaddress; empty switches it off.
    pub subaddress: String,
    pub case_sensitive: bool,
    /// RCPT in the clear is refused (530 5.7.0, RFC 3207 §4), but for the postmaster.
    pub require_tls: bool,
    /// What becomes of mail for it that fails DMARC or SPF, but for the postmaster's.
    pub policy: Policy,
}

/// `[[webhook]]`
#[derive(Clone)]
pub struct Webhook {
    pub binding: String,
    pub url: url::Url,
    /// Keys, the current one first; several while one rotates.
    pub secrets: Vec<Secret>,
    pub headers: Vec<(String, String)>,
    pub timeout: Duration,
    /// At once to this endpoint.
    pub concurrency: usize,
    /// Of what is made of a message.
    pub format: crate::mail::PayloadFormat,
}

/// The values of header fields may be secrets, so only their names are shown.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("binding", &self.binding)
            .field("url", &self.url.as_str())
            .field("secrets", &self.secrets)
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("timeout", &self.timeout)
            .field("concurrency", &self.concurrency)
            .field("format", &self.format)
            .finish()
    }
}

/// `[webhook_defaults]`
#[derive(Debug, Clone)]
pub struct WebhookDefaults {
    /// Signs what goes to URLs that no `[[webhook]]` names.
    pub secrets: Vec<Secret>,
    pub timeout: Duration,
    /// The waits before each further attempt.
    pub retry: Vec<Duration>,
    pub concurrency: usize,
}

/// A secret's value. Never printed: `Debug` shows dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }
    /// The value itself, for the place that signs or logs in with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `[[destination]]`: a named next hop.
#[derive(Debug, Clone)]
pub struct Destination {
    pub name: String,
    pub smarthost: Smarthost,
}

/// `smtp://HOST:PORT`, `smtp+starttls://user@host:587`, `smtps://user@host:465`, `lmtp://127.0.0.1:24`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smarthost {
    pub scheme: Scheme,
    /// A name or an address.
    pub host: String,
    pub port: u16,
    pub login: Option<Login>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// STARTTLS when offered, unverified.
    Smtp,
    /// STARTTLS demanded, certificate checked.
    SmtpStarttls,
    /// TLS from the first octet, certificate checked.
    Smtps,
    /// RFC 2033.
    Lmtp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

/// `[relay]`
#[derive(Debug, Clone)]
pub struct Relay {
    /// Absent: by MX.
    pub smarthost: Option<Smarthost>,
    /// The port at MX hosts.
    pub port: u16,
    /// An MX host must offer STARTTLS and show a certificate of its name; else the mail waits.
    pub require_tls: bool,
    /// The waits before each further attempt; the last one repeats.
    pub retry: Vec<Duration>,
    /// How long a delivery is tried before it bounces.
    pub expire: Duration,
    /// Connections at once to one destination.
    pub concurrency: usize,
    /// Messages over one connection before it is closed.
    pub messages_per_connection: usize,
    /// A notice of delay after this long; `None`: never.
    pub delay_notice: Option<Duration>,
    pub timeouts: RelayTimeouts,
}

/// RFC 5321 §4.5.3.2
#[derive(Debug, Clone)]
pub struct RelayTimeouts {
    pub connect: Duration,
    pub greeting: Duration,
    pub command: Duration,
    pub data: Duration,
    pub data_end: Duration,
}

/// `[dns]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Empty: the system's (`/etc/resolv.conf`).
    pub servers: Vec<std::net::SocketAddr>,
    /// For one look-up, retries included.
    pub timeout: Duration,
}

/// `[limits]`
#[derive(Debug, Clone)]
pub struct Limits {
    pub message_size: u64,
    pub connections: usize,
    pub connections_per_ip: usize,
    /// Bytes of mail that is coming in or being decided, all sessions together; on the disk they count a quarter.
    pub in_flight: u64,
    /// Recipients of one transaction.
    pub recipients: usize,
    /// Errors of one session before it is closed with 421.
    pub errors: usize,
    /// `Received` fields before a message is taken for one that loops (RFC 5321 §6.3).
    pub hops: usize,
    /// Free space on the store's disk below which MAIL is refused.
    pub free_space: u64,
    /// Deliveries under way at once, all kinds together.
    pub deliveries: usize,
    /// Worker runs at once; 0: twice the processors.
    pub runs: usize,
}

/// `[session]`: how the receiving session behaves.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Waiting for a command.
    pub command_timeout: Duration,
    /// Between two blocks of DATA or BDAT.
    pub data_timeout: Duration,
    /// One message's octets, from the first to the last.
    pub message_timeout: Duration,
    /// The session as a whole.
    pub session_timeout: Duration,
    /// Refuse (554) a client that talks before the greeting.
    pub early_talk: EarlyTalk,
    /// How long the greeting waits for such a one.
    pub greet_delay: Duration,
    /// Peers whose mail in the clear is refused (530 5.7.0, RFC 3207 §4).
    pub require_tls: Vec<IpNet>,
    /// Peers whose bare CR and LF are repaired and not refused.
    pub repair_line_ends: Vec<IpNet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum EarlyTalk {
    Refuse,
    Allow,
}

/// `[budget]`: what one run of a worker may use.
#[derive(Debug, Clone)]
pub struct Budget {
    pub operations: u64,
    pub wall_clock: Duration,
    pub string_size: usize,
    pub array_size: usize,
    pub map_size: usize,
    pub call_depth: usize,
    pub actions: usize,
    /// Outside: `fetch`, `ai`, look-ups.
    pub requests: usize,
}

/// `[retention]`
#[derive(Debug, Clone)]
pub struct Retention {
    /// The bytes of a message.
    pub raw: Duration,
    /// Its record, events and trace.
    pub log: Duration,
}
