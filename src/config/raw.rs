//! `mailworker.toml` as it is written: the one description from which the reader and the JSON schema both come.
//!
//! Pure. Each field's comment is its line in the schema. Everything is optional here; [`super::check`] fills in the
//! defaults, resolves the names and demands what can't be left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::decode::At;
use super::leaf::{
    Binding, DestinationName, DomainName, Endpoint, HopUrl, HostName, HttpAddress, Parsed, Server, Size,
};
use super::reach::Reachable;
use super::secret::{HeaderValue, KeySource, PemFile, Secrets};
use super::{Consequence, Cron, EarlyTalk, ListenAddress, TlsMode};
use crate::mail::{Address, PayloadFormat};

/// A leaf with its place.
pub type Leaf<T> = Option<At<Parsed<T>>>;

/// The configuration of mailworker.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "mailworker.toml")]
pub struct File {
    /// The name in the greeting, EHLO and Received. Default: the machine's name.
    pub hostname: Leaf<HostName>,
    /// The worker of every domain that names none. Default: "rules/main.rhai".
    pub main: Leaf<PathBuf>,
    /// The store and the raw mail. Default: "data".
    pub data_dir: Leaf<PathBuf>,
    /// Where SMTP listens. Default: one on "0.0.0.0:25".
    #[serde(default)]
    pub listener: Vec<At<Listener>>,
    /// The certificate. Default: none, so STARTTLS isn't offered.
    pub tls: Option<At<Tls>>,
    /// Health, readiness, metrics.
    pub http: Option<Http>,
    /// The domains that mail is taken for.
    #[serde(default)]
    pub domain: Vec<At<Domain>>,
    /// In order, up to the first that applies and stops; what none takes goes to the worker.
    #[serde(default)]
    pub route: Vec<At<super::route::Written>>,
    /// Strings, numbers, booleans, arrays, tables: `env.NAME` in a worker.
    #[serde(default)]
    pub vars: BTreeMap<String, At<serde_json::Value>>,
    /// What `mailworker secret put` keeps: `env.NAME` in a worker, `{ secret = "NAME" }` here.
    pub secrets: Option<Sealing>,
    /// Key-value stores that workers read and write.
    #[serde(default)]
    pub kv_namespaces: Vec<At<KvNamespace>>,
    /// HTTP endpoints with a name, a key and settings of their own.
    #[serde(default)]
    pub webhook: Vec<At<Webhook>>,
    /// What holds for every webhook that doesn't say otherwise, and for URLs that no `[[webhook]]` names.
    pub webhook_defaults: Option<WebhookDefaults>,
    /// Named next hops; mail for others goes by MX or by `[relay]`.
    #[serde(default)]
    pub destination: Vec<At<Destination>>,
    /// How mail is sent on.
    pub relay: Option<At<Relay>>,
    /// Where MX targets and URLs from scripts may lead.
    pub egress: Option<Egress>,
    /// What a worker's `fetch` may reach.
    pub fetch: Option<Fetch>,
    /// What a worker's `ai` asks: a server that speaks OpenAI's chat completions.
    pub ai: Option<At<Ai>>,
    /// Who answers look-ups.
    pub dns: Option<Dns>,
    /// Whose mail is looked into, and what becomes of what fails.
    pub authentication: Option<Authentication>,
    /// Where an address is: `session.asn`, `session.country` in a worker.
    pub geoip: Option<GeoIp>,
    /// What the server takes on at once.
    pub limits: Option<Limits>,
    /// What one run of a worker may use.
    pub budget: Option<Budget>,
    /// How long what is kept is kept.
    pub retention: Option<Retention>,
    /// How the receiving session behaves.
    pub session: Option<Session>,
    /// When the worker runs by itself.
    pub triggers: Option<Triggers>,
    /// `--env NAME`: any of the above over again. Tables merge, lists replace.
    #[serde(rename = "env")]
    #[schemars(with = "Option<BTreeMap<String, Overlay>>")]
    pub _overlays: Option<serde::de::IgnoredAny>,
}

/// Stands for [`File`] without `env` in the schema.
#[derive(JsonSchema)]
struct Overlay {}

/// Where SMTP listens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// "IP:PORT"; port 0 picks one and prints it; "fd:NAME" takes systemd's socket. Default: "0.0.0.0:25".
    pub address: Leaf<ListenAddress>,
    /// off | starttls (once a certificate is there) | required | implicit. Default: starttls.
    pub tls: Option<At<TlsMode>>,
    /// Networks whose peers must send a PROXY header; a connection of theirs without one is refused. Default: none.
    #[serde(default)]
    pub proxy_protocol: Vec<Parsed<IpNet>>,
}

/// PEM files, read again when they change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The chain, the server's own certificate first: a path, or a credential of systemd's.
    pub certificate: Option<At<PemFile>>,
    /// Its private key: a path, or a credential of systemd's.
    pub key: Option<At<PemFile>>,
    /// Further pairs, chosen by the name that the client asks for.
    #[serde(default)]
    pub sni: Vec<At<Pair>>,
    /// Not offered by this version: certificates by ACME.
    #[schemars(with = "Option<serde_json::Value>")]
    pub acme: Option<At<serde::de::IgnoredAny>>,
}

/// One more certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The chain, the server's own certificate first: a path, or a credential of systemd's.
    pub certificate: Option<At<PemFile>>,
    /// Its private key: a path, or a credential of systemd's.
    pub key: Option<At<PemFile>>,
}

/// Health, readiness, metrics.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// /healthz, /readyz, /metrics; "" switches it off. Default: "127.0.0.1:8025".
    pub address: Leaf<HttpAddress>,
}

/// A domain that mail is taken for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// "example.com", or "*.example.com" for every subdomain.
    pub name: Leaf<DomainName>,
    /// Where postmaster@ goes, whatever the worker says.
    pub postmaster: Leaf<Address>,
    /// A worker of its own. Default: the top-level `main`.
    pub main: Leaf<PathBuf>,
    /// What parts a subaddress from the name; "" switches it off. Default: "+".
    pub subaddress: Option<At<String>>,
    /// Whether the case of what is before the @ counts. Default: false.
    pub case_sensitive: Option<bool>,
    /// Mail for it, but for its postmaster, is taken over TLS alone. Default: false.
    pub require_tls: Option<At<bool>>,
    /// accept | quarantine | reject: mail that fails DMARC, whose author's domain asks to reject it. Default: that of `[authentication]`.
    pub dmarc_reject: Option<Consequence>,
    /// The same where it asks for quarantine. Default: that of `[authentication]`.
    pub dmarc_quarantine: Option<Consequence>,
    /// The same where SPF says `-all` and DKIM doesn't speak for the author. Default: that of `[authentication]`.
    pub spf_fail: Option<Consequence>,
}

/// A key-value store that workers read and write.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvNamespace {
    /// Its name in a worker: `env.BINDING`.
    pub binding: Leaf<Binding>,
}

/// An HTTP endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its name in a worker: `env.BINDING`.
    pub binding: Leaf<Binding>,
    /// Where it is posted to.
    pub url: Leaf<Endpoint>,
    /// The key that signs (Standard Webhooks): "whsec_" and Base64 of 24 to 64 bytes, or "whsk_" and that of a private key of ed25519, the current one first while one rotates. Default: that of `[webhook_defaults]`.
    pub secret: Option<At<Secrets>>,
    /// Header fields that are added; a value may be read from where a secret is read from. Default: none.
    #[serde(default)]
    pub headers: BTreeMap<String, At<HeaderValue>>,
    /// For one attempt. Default: that of `[webhook_defaults]`.
    pub timeout: Leaf<Duration>,
    /// Requests at once to this endpoint. Default: that of `[webhook_defaults]`.
    pub concurrency: Option<At<usize>>,
    /// Of what is made of a message (by a route, or a script that says none): ours, or as this service posts one. Default: "standard".
    pub format: Option<At<PayloadFormat>>,
}

/// How secrets are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sealing {
    /// The key that they are sealed with: Base64 of 32 bytes, outside of the store. Default: { file = "secrets.key" }, which the first secret makes.
    pub key: Option<At<KeySource>>,
}

/// What holds for webhooks that don't say otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookDefaults {
    /// The key that signs what goes to URLs that no `[[webhook]]` names. Default: none, so it goes unsigned.
    pub secret: Option<At<Secrets>>,
    /// For one attempt. Default: "15 s".
    pub timeout: Leaf<Duration>,
    /// The waits before each further attempt; after the last one it is a dead letter.
    pub retry: Option<At<Vec<Parsed<Duration>>>>,
    /// Requests at once to one endpoint. Default: 8.
    pub concurrency: Option<At<usize>>,
}

/// A named next hop.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// What workers and routes call it.
    pub name: Leaf<DestinationName>,
    /// `smtp://HOST:25`, `smtp+starttls://USER@HOST:587`, `smtps://USER@HOST:465` or `lmtp://HOST:24`.
    pub smarthost: Leaf<HopUrl>,
    /// Of the USER in `smarthost`.
    pub password: Option<At<Secrets>>,
}

/// How mail is sent on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// `smtp://HOST:25`, `smtp+starttls://USER@HOST:587`, `smtps://USER@HOST:465` or `lmtp://HOST:24`. Default: none, by MX.
    pub smarthost: Leaf<HopUrl>,
    /// Of the USER in `smarthost`.
    pub password: Option<At<Secrets>>,
    /// The port at MX hosts. Default: 25.
    pub port: Option<At<u16>>,
    /// Nothing goes to an MX host without TLS and a certificate of its name; it is tried until it expires. Default: false.
    pub require_tls: Option<bool>,
    /// The waits before each further attempt; the last one repeats.
    pub retry: Option<At<Vec<Parsed<Duration>>>>,
    /// How long a delivery is tried before it bounces. Default: "5days".
    pub expire: Leaf<Duration>,
    /// Connections at once to one destination. Default: 10.
    pub concurrency: Option<At<usize>>,
    /// Messages over one connection before it is closed. Default: 100.
    pub messages_per_connection: Option<At<usize>>,
    /// The sender is told of a delay after this long. Default: never.
    pub delay_notice: Leaf<Duration>,
    /// How long each step may take (RFC 5321 §4.5.3.2).
    pub timeouts: Option<RelayTimeouts>,
}

/// How long each step may take (RFC 5321 §4.5.3.2).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayTimeouts {
    /// To one address. Default: "30s".
    pub connect: Leaf<Duration>,
    /// For the greeting. Default: "5m".
    pub greeting: Leaf<Duration>,
    /// For the answer to a command. Default: "5m".
    pub command: Leaf<Duration>,
    /// Between two blocks of a message. Default: "3m".
    pub data: Leaf<Duration>,
    /// For the answer to the message. Default: "10m".
    pub data_end: Leaf<Duration>,
}

/// Where MX targets and URLs from scripts may lead.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Networks beside the public ones. Default: none.
    #[serde(default)]
    pub allow: Vec<Parsed<IpNet>>,
}

/// What a worker's `fetch` may reach. Private addresses are reached only where `[egress]` allows them, too.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// Hosts ("api.example.com", "*.example.com"), or URLs that others begin with (`https://api.example.com/v1/`). Default: every host with a public address.
    pub allow: Option<Vec<Parsed<Reachable>>>,
    /// For one request that says no other. Default: "3 s".
    pub timeout: Leaf<Duration>,
    /// Requests at once, of all runs together: `fetch`, `ai` and look-ups. Default: 100.
    pub concurrency: Option<At<usize>>,
}

/// A server that speaks OpenAI's chat completions.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ai {
    /// Its base URL, such as `https://api.openai.com/v1`.
    pub url: Leaf<Endpoint>,
    /// The model where a script names none. Default: none.
    pub model: Option<At<String>>,
    /// The key that it asks for (`Authorization: Bearer`). Default: none.
    pub api_key: Option<At<Secrets>>,
    /// For one answer. Default: "4 s".
    pub timeout: Leaf<Duration>,
}

/// Who answers look-ups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// "ADDRESS" or "ADDRESS:PORT". Default: the system's.
    #[serde(default)]
    pub servers: Vec<Parsed<Server>>,
    /// For one look-up, retries included. Default: "5s".
    pub timeout: Leaf<Duration>,
}

/// Whose mail is looked into (iprev, SPF, DKIM, DMARC, ARC), and what becomes of what fails.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authentication {
    /// Networks whose clients are not looked into; `[]` looks into all, `["0.0.0.0/0", "::/0"]` into none. Default: loopback and private ones.
    pub skip: Option<Vec<Parsed<IpNet>>>,
    /// For the look-ups of each check that a message waits for: SPF, then the signatures, then DMARC. Default: "10 s".
    pub timeout: Leaf<Duration>,
    /// accept | quarantine | reject: mail that fails DMARC, whose author's domain asks to reject it. Default: reject.
    pub dmarc_reject: Option<Consequence>,
    /// The same where it asks for quarantine. Default: quarantine.
    pub dmarc_quarantine: Option<Consequence>,
    /// The same where SPF says `-all` and DKIM doesn't speak for the author. Default: accept.
    pub spf_fail: Option<Consequence>,
    /// Networks that forward others' mail: none of the above applies to theirs. Default: none.
    #[serde(default)]
    pub trusted_forwarders: Vec<Parsed<IpNet>>,
    /// Domains (and what is below them) whose ARC seals are believed: mail that they sealed after DMARC had passed isn't judged again. Default: none.
    #[serde(default)]
    pub trusted_sealers: Vec<Parsed<HostName>>,
}

/// Databases that say where an address is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GeoIp {
    /// Files in the `.mmdb` format: of autonomous systems, of countries, or of both. The first that knows counts. Default: none.
    #[serde(default)]
    pub databases: Vec<At<Parsed<PathBuf>>>,
}

/// What the server takes on at once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest message. Default: "25 MiB".
    pub message_size: Leaf<Size>,
    /// SMTP connections at once. Default: 1000.
    pub connections: Option<At<usize>>,
    /// Of these from one address. Default: 20.
    pub connections_per_ip: Option<At<usize>>,
    /// Bytes of mail that is coming in or being decided, all sessions together; what is on the disk already counts a quarter.
    /// Default: "256 MiB".
    pub in_flight: Leaf<Size>,
    /// Recipients of one transaction; at least 100 (RFC 5321 §4.5.3.1.8). Default: 1000.
    pub recipients: Option<At<usize>>,
    /// Errors of one session before it is closed. Default: 20.
    pub errors: Option<At<usize>>,
    /// Received fields before a message is taken for one that loops. Default: 100.
    pub hops: Option<At<usize>>,
    /// Free space on the store's disk below which mail is refused for the time being. Default: "512 MiB".
    pub free_space: Leaf<Size>,
    /// Deliveries under way at once. Default: 200.
    pub deliveries: Option<At<usize>>,
    /// Worker runs at once. Default: 0, twice the processors.
    pub runs: Option<At<usize>>,
}

/// What one run of a worker may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Steps of the script. Default: 1000000.
    pub operations: Option<At<u64>>,
    /// Time. Default: "5s".
    pub wall_clock: Leaf<Duration>,
    /// The longest string; of a message, texts are cut at a quarter of it. Default: "1 MiB".
    pub string_size: Leaf<Size>,
    /// The longest array or blob. Default: 10000.
    pub array_size: Option<At<usize>>,
    /// The largest map. Default: 10000.
    pub map_size: Option<At<usize>>,
    /// Functions within functions. Default: 64.
    pub call_depth: Option<At<usize>>,
    /// Forwards, webhooks, writes and so on. Default: 100.
    pub actions: Option<At<usize>>,
    /// What is read from outside: fetch, ai, look-ups. Default: 20.
    pub requests: Option<At<usize>>,
}

/// How long what is kept is kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The bytes of a message. Default: "7days".
    pub raw: Leaf<Duration>,
    /// Its record, events and trace. Default: "30days".
    pub log: Leaf<Duration>,
}

/// How the receiving session behaves.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Waiting for a command. Default: "5m".
    pub command_timeout: Leaf<Duration>,
    /// Between two blocks of a message. Default: "3m".
    pub data_timeout: Leaf<Duration>,
    /// One message, from its first octet to its last. Default: "30m".
    pub message_timeout: Leaf<Duration>,
    #[expect(clippy::struct_field_names, reason = "it is the key's name")]
    /// The session as a whole. Default: "1h".
    pub session_timeout: Leaf<Duration>,
    /// refuse | allow: a client that talks before the greeting. Default: refuse.
    pub early_talk: Option<At<EarlyTalk>>,
    /// How long the greeting waits for one that talks before it; 0 s catches only who has talked already. Default: "0 s".
    pub greet_delay: Leaf<Duration>,
    /// Networks whose mail is taken over TLS alone. Default: none.
    pub require_tls: Option<At<Vec<Parsed<IpNet>>>>,
    /// Networks whose bare CR and LF are repaired and not refused. Default: none.
    #[serde(default)]
    pub repair_line_ends: Vec<Parsed<IpNet>>,
}

/// When the worker runs by itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Triggers {
    /// Cron expressions of five fields, in UTC: `scheduled` of the top-level `main` runs at these times. Days of the week
    /// go from 1 or SUN to 7 or SAT. Default: none.
    #[serde(default)]
    pub crons: Vec<At<Parsed<Cron>>>,
}

/// A peer on the loopback interface alone.
#[must_use]
pub fn is_loopback(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Socket(socket) if is_loopback_ip(socket.ip()))
}

#[must_use]
pub fn is_loopback_ip(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}
