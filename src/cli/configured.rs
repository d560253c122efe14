//! The configuration as the command line finds it: file, `--env`, environment.

use crate::config::load::{self, Loaded, Reading};
use crate::config::{Config, ListenAddress};
use crate::vault;

use super::Failure;
use super::args::Common;

/// What the command line and the environment say of it; the file is the one that is found now.
#[must_use]
pub fn options(common: &Common) -> load::Options {
    // Not `vars()`: that panics where one variable of the environment isn't UTF-8.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let (file, env) = (common.config.clone(), common.env.clone());
    load::Options { file, env, environment, ..load::Options::default() }.pinned()
}

/// As a server sees it: with the secrets that its store keeps.
#[must_use]
pub fn with_secrets(common: &Common) -> load::Options {
    load::Options { kept: Some(vault::kept()), ..options(common) }
}

/// As one sees it who tries rules: the secrets that there are by name, their values from `.dev.vars`.
#[must_use]
pub fn for_development(common: &Common, secrets: Reading) -> load::Options {
    load::Options { secrets, dev_vars: true, ..with_secrets(common) }
}

/// Loads it for a command that looks at the store or asks a running server: secrets stay unread, for an admin's shell
/// has none of the service's, and its rules may lie in the store alone.
pub fn load(common: &Common) -> Result<Loaded, Failure> {
    let options = load::Options { secrets: Reading::Unread, without_rules: true, ..options(common) };
    Config::load(&options).map_err(Failure::Configuration)
}

/// The address of the first listener, as far as the configuration knows it.
#[must_use]
pub fn first_listener(config: &Config) -> Option<std::net::SocketAddr> {
    config.listeners.iter().find_map(|listener| match listener.address {
        ListenAddress::Socket(address) if address.port() != 0 => Some(address),
        ListenAddress::Socket(_) | ListenAddress::Systemd(_) => None,
    })
}
