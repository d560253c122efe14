//! What the commands take that change what a server runs by: secrets.

use clap::Subcommand;

use super::Machine;

#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Keep a secret, asked for without echo or read from standard input; a running server takes it up at once
    #[command(after_help = "\
A worker finds it as env.NAME, the configuration as { secret = \"NAME\" }. It belongs to the environment that --env names.
It is sealed with the key of `[secrets] key` (by default secrets.key beside the configuration, which the first secret
makes), so that a backup of the store holds none that can be read: keep the key elsewhere.

Examples:
  mailworker secret put API_TOKEN
  mailworker secret put API_TOKEN --env staging < token.txt")]
    Put { name: String },
    /// List names and when they were set; no value is ever shown
    List {
        #[command(flatten)]
        machine: Machine,
    },
    /// Delete a secret
    Delete { name: String },
}
