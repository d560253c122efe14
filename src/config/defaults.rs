//! What holds where the file says nothing. `deploy/mailworker.toml` shows the same values; a test holds them together.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Budget, Config, Dns, EarlyTalk, Fetch, Http, Limits, ListenAddress, Listener, Relay, RelayTimeouts, Retention,
    SecretSource, SessionSettings, TlsMode, WebhookDefaults,
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn waits<const N: usize>(seconds: [u64; N]) -> Vec<Duration> {
    seconds.into_iter().map(Duration::from_secs).collect()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            main: PathBuf::from("rules/main.rhai"),
            data_dir: PathBuf::from("data"),
            listeners: vec![Listener::default()],
            tls: None,
            http: Http::default(),
            domains: Vec::new(),
            routes: Vec::new(),
            vars: std::collections::BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            secrets_key: SecretSource::File(PathBuf::from("secrets.key")),
            kv_namespaces: Vec::new(),
            webhooks: Vec::new(),
            webhook_defaults: WebhookDefaults::default(),
            destinations: Vec::new(),
            relay: Relay::default(),
            egress: Vec::new(),
            crons: Vec::new(),
            fetch: Fetch::default(),
            ai: None,
            dns: Dns::default(),
            authentication: super::Authentication::default(),
            geoip: super::GeoIp::default(),
            limits: Limits::default(),
            budget: Budget::default(),
            retention: Retention::default(),
            session: SessionSettings::default(),
            env_name: String::new(),
            base_dir: PathBuf::new(),
            index: super::lookup::Index::default(),
        }
    }
}

impl Default for Listener {
    fn default() -> Self {
        let address = ListenAddress::Socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 25)));
        Self { address, tls: TlsMode::default(), proxy_protocol: Vec::new() }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8025))) }
    }
}

/// The waits that Standard Webhooks recommends.
impl Default for WebhookDefaults {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            timeout: Duration::from_secs(15),
            retry: waits([5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]),
            concurrency: 8,
        }
    }
}

/// RFC 5321 §4.5.4.1: at least 30 minutes between attempts after the first few, given up after 4 to 5 days.
impl Default for Relay {
    fn default() -> Self {
        Self {
            smarthost: None,
            port: 25,
            require_tls: false,
            retry: waits([MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR]),
            expire: Duration::from_secs(5 * DAY),
            concurrency: 10,
            messages_per_connection: 100,
            delay_notice: None,
            timeouts: RelayTimeouts::default(),
        }
    }
}

impl Default for RelayTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            greeting: Duration::from_secs(5 * MINUTE),
            command: Duration::from_secs(5 * MINUTE),
            data: Duration::from_secs(3 * MINUTE),
            data_end: Duration::from_secs(10 * MINUTE),
        }
    }
}

/// Below the budget's time, so that a script can still decide without an answer.
impl Default for Fetch {
    fn default() -> Self {
        Self { allow: None, timeout: Duration::from_secs(3), concurrency: 100 }
    }
}

/// Of `[ai]`.
pub const AI_TIMEOUT: Duration = Duration::from_secs(4);

impl Default for Dns {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Duration::from_secs(5) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: 25 << 20,
            connections: 1000,
            connections_per_ip: 20,
            in_flight: 256 << 20,
            recipients: 1000,
            errors: 20,
            hops: 100,
            free_space: 512 << 20,
            deliveries: 200,
            runs: 0,
        }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            command_timeout: Duration::from_secs(5 * MINUTE),
            data_timeout: Duration::from_secs(3 * MINUTE),
            message_timeout: Duration::from_secs(30 * MINUTE),
            session_timeout: Duration::from_secs(HOUR),
            early_talk: EarlyTalk::Refuse,
            greet_delay: Duration::ZERO,
            require_tls: Vec::new(),
            repair_line_ends: Vec::new(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            operations: 1_000_000,
            wall_clock: Duration::from_secs(5),
            string_size: 1 << 20,
            array_size: 10_000,
            map_size: 10_000,
            call_depth: 64,
            actions: 100,
            requests: 20,
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { raw: Duration::from_secs(7 * DAY), log: Duration::from_secs(30 * DAY) }
    }
}
