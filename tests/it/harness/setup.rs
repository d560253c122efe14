//! A directory with a configuration and rules, before a server runs on it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Certificate, Dns, Server, SmtpSink};

/// Listens on ports of the system's choosing, resolves by a table, retries quickly, may speak to loopback.
const BASE: &str = r#"
hostname = "mx.example.com"
main = "rules/main.rhai"
data_dir = "data"

[[listener]]
address = "127.0.0.1:0"
tls = "starttls"

[http]
address = "127.0.0.1:0"

[[domain]]
name = "example.com"
postmaster = "admin@example.net"

[relay]
retry = ["200 ms"]

[webhook_defaults]
retry = ["200 ms", "200 ms"]

[egress]
allow = ["127.0.0.0/8"]
"#;

/// A worker that forwards whatever comes to one address.
pub const FORWARD: &str = r#"
fn email(message, env, ctx) {
    message.forward("team@example.net");
}
"#;

pub struct Setup {
    pub dir: TempDir,
    pub dns: Dns,
    settings: toml::Table,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// Forwards everything to team@example.net, by MX (of which there are none yet).
    pub fn new() -> Self {
        let dns = Dns::start();
        let setup =
            Self { dir: tempfile::tempdir().unwrap(), dns, settings: BASE.parse().unwrap(), environment: Vec::new() };
        let servers = format!("[dns]\nservers = [\"{}\"]\ntimeout = \"5 s\"", setup.dns.address);
        setup.toml(&servers).rules(FORWARD)
    }

    /// [`Setup::new`] with everything relayed to `sink`.
    pub fn relaying_to(sink: &SmtpSink) -> Self {
        Self::new().toml(&format!("[relay]\nsmarthost = \"{}\"", sink.url()))
    }

    /// Sets these keys over those that are there; a list replaces a list.
    pub fn toml(mut self, text: &str) -> Self {
        merge(&mut self.settings, text.parse().unwrap_or_else(|error| panic!("{error}\n{text}")));
        self
    }

    /// `rules/main.rhai`
    pub fn rules(self, text: &str) -> Self {
        self.file("rules/main.rhai", text)
    }

    pub fn file(self, path: &str, text: &str) -> Self {
        write_file(&self.dir.path().join(path), text.as_bytes());
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `[tls]` with this certificate.
    pub fn certificate(self, certificate: &Certificate) -> Self {
        certificate.write(self.dir.path());
        self.toml("[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"")
    }

    /// Writes the configuration and starts a server on it.
    #[track_caller]
    pub fn start(self) -> Server {
        self.write();
        Server::start(self.dir, self.dns, self.environment)
    }

    /// Writes the configuration; its path.
    pub fn write(&self) -> PathBuf {
        let path = self.dir.path().join("mailworker.toml");
        write_file(&path, toml::to_string(&self.settings).unwrap().as_bytes());
        path
    }
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Writes a file in one step, as an editor or a deployment does.
pub fn write_file(path: &Path, octets: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    std::fs::write(&new, octets).unwrap();
    std::fs::rename(&new, path).unwrap();
}
