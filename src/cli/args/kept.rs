//! What the commands take that show and change what is kept: messages, log, queue, KV, backup, store.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::Machine;
use crate::mail::MessageId;
use crate::store::MessageOutcome;

#[derive(Debug, Subcommand)]
pub enum Messages {
    /// List messages, newest first
    #[command(after_help = "\
Examples:
  mailworker messages list --recipient support@ --since 2h
  mailworker messages list --outcome rejected --json")]
    List(MessageList),
    /// One message's story, step by step: session, decision with rule and line, each attempt at delivery
    Show {
        id: MessageId,
        #[command(flatten)]
        machine: Machine,
    },
    /// The message's bytes as they were received
    Raw { id: MessageId },
    /// Let a message out of its quarantine
    #[command(after_help = "\
Each recipient for whom the worker put it there gets it by `[relay]`, or by `--to` somebody else does. Each goes out once;
the worker isn't asked again.

Examples:
  mailworker messages release 01JDEXAMP1E00000000000000A --to team@example.net")]
    Release {
        id: MessageId,
        /// An address or a `[[destination]]`, in place of the recipients
        #[arg(long, value_name = "ADDRESS|NAME")]
        to: Vec<String>,
        #[command(flatten)]
        machine: Machine,
    },
}

#[derive(Debug, Args)]
pub struct MessageList {
    /// Part of the sender's address
    #[arg(long, value_name = "TEXT")]
    pub sender: Option<String>,
    /// Part of a recipient's address
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,
    /// Part of the subject
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,
    /// accepted, stored, dropped, rejected, deferred, quarantined or authored (our own notices)
    #[arg(long, value_parser = outcome)]
    pub outcome: Option<MessageOutcome>,
    /// Received within this time: `2h`, `3days`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub since: Option<std::time::Duration>,
    /// Older than this message: the next page
    #[arg(long, value_name = "ID")]
    pub before: Option<MessageId>,
    #[command(flatten)]
    pub limit: Limit,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Debug, Subcommand)]
pub enum Logged {
    /// List refusals, faults and the like, newest first
    #[command(after_help = "\
What is kept: refused commands and connections, sessions that broke, failures of a worker's handlers before `email`,
destinations given a rest, faults, starts, reloads and an admin's changes, for as long as `[retention] log` says. What
became of a message is told by `messages show`.

Examples:
  mailworker log list --sender ann@ --since 12h
  mailworker log list --phase rcpt --ip 192.0.2.
  mailworker log list --sender '<>' -n 10 --json")]
    List(LogList),
}

#[derive(Debug, Args)]
pub struct LogList {
    /// Part of the sender's address; `<>` for the null sender
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub sender: Option<String>,
    /// Part of a recipient's address
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,
    /// Part of the client's IP address
    #[arg(long, value_name = "TEXT")]
    pub ip: Option<String>,
    /// How far the session had come
    #[arg(long, value_name = "PHASE", value_parser = ["connect", "helo", "mail", "rcpt", "data"])]
    pub phase: Option<String>,
    /// Within this time: `2h`, `3days`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub since: Option<std::time::Duration>,
    /// Older than this one: the next page
    #[arg(long, value_name = "ID")]
    pub before: Option<i64>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: usize,
    #[command(flatten)]
    pub machine: Machine,
}

/// How much of a list.
#[derive(Debug, Clone, Copy, Args)]
pub struct Limit {
    /// At most so many; 0: all. Otherwise 50, and with --json all
    #[arg(long = "limit", short = 'n', value_name = "N")]
    pub given: Option<usize>,
}

fn outcome(text: &str) -> Result<MessageOutcome, String> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
        .map_err(|_| "expected accepted, stored, dropped, rejected, deferred, quarantined or authored".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum Queue {
    /// List deliveries, oldest first
    #[command(
        after_help = "Examples:\n  mailworker queue list --dead\n  mailworker queue list --destination example.net"
    )]
    List {
        #[command(flatten)]
        filter: QueueFilter,
        #[command(flatten)]
        limit: Limit,
        #[command(flatten)]
        machine: Machine,
    },
    /// What waits for each next hop: how much, since when, until when, and its last error
    #[command(after_help = "Examples:\n  mailworker queue summary\n  mailworker queue summary --older-than 2h --json")]
    Summary {
        #[command(flatten)]
        filter: QueueFilter,
        #[command(flatten)]
        machine: Machine,
    },
    /// Try deliveries now; those given up live again
    #[command(
        after_help = "Examples:\n  mailworker queue retry --destination mx:example.net\n  mailworker queue retry --dead --all"
    )]
    Retry(QueueChange),
    /// Take deliveries off the queue for good, without a notice to anyone
    #[command(after_help = "Examples:\n  mailworker queue drop --id 01JD2V6QZ8Y3N4K5M6P7R8S9T0")]
    Drop(QueueChange),
}

/// Filters narrow together.
#[derive(Debug, Clone, Args)]
pub struct QueueFilter {
    /// Those of one message
    #[arg(long, value_name = "ID")]
    pub id: Option<MessageId>,
    /// Part of the sender's address
    #[arg(long, value_name = "TEXT")]
    pub sender: Option<String>,
    /// Part of the recipient's address or of the URL
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,
    /// Part of the next hop
    #[arg(long, value_name = "TEXT")]
    pub destination: Option<String>,
    /// Part of the last error
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// Queued longer ago than this: `2h`, `3days`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<std::time::Duration>,
    /// Only those given up
    #[arg(long)]
    pub dead: bool,
}

#[derive(Debug, Args)]
pub struct QueueChange {
    #[command(flatten)]
    pub filter: QueueFilter,
    /// Every delivery that the filters leave; needed where there is none
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Debug, Subcommand)]
pub enum Kv {
    /// Print a key's value
    Get {
        binding: String,
        key: String,
        #[command(flatten)]
        machine: Machine,
    },
    /// Write a key; a value that is JSON other than a string is kept as such, but for numbers that would not stay the same
    #[command(after_help = "\
Examples:
  mailworker kv put EMAILS greeting hello
  mailworker kv put LISTS blocked '[\"a@example.net\"]' --ttl 30days")]
    Put {
        binding: String,
        key: String,
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// Expires after this time, 60 s at least: `1h`, `30days`
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        ttl: Option<std::time::Duration>,
        /// Keep the value as text, even if it is JSON
        #[arg(long)]
        text: bool,
    },
    /// List keys
    #[command(after_help = "\
Examples:
  mailworker kv list EMAILS --prefix email:
  mailworker kv list UNKNOWN --values")]
    List {
        binding: String,
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        prefix: String,
        /// At most so many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 1000)]
        limit: usize,
        /// Show the values, too; of a long one its beginning
        #[arg(long)]
        values: bool,
        #[command(flatten)]
        machine: Machine,
    },
    /// Delete a key
    Delete { binding: String, key: String },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mailworker tail\n  mailworker tail --recipient support@ --outcome rejected --json"
)]
pub struct Tail {
    /// Part of a recipient's address
    #[arg(long, value_name = "TEXT")]
    pub recipient: Option<String>,
    /// Part of the sender's address
    #[arg(long, value_name = "TEXT")]
    pub sender: Option<String>,
    /// accepted, rejected, deferred, dropped, stored, failed, delivered or later
    #[arg(long, value_name = "OUTCOME", value_parser = crate::admin::api::OUTCOMES)]
    pub outcome: Option<String>,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// A new or empty directory
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Store {
    /// Prove the store sound: every message's octets there and whole, rows readable, indexes right
    #[command(after_help = "\
Reads all of the store and changes nothing; beside a running server it leaves out what is being written.
With --repair, what is damaged is put into quarantine/ below data_dir and nothing is deleted; copy data_dir first.
Exits with 1 where something is found; with --repair, where something is left that can't be mended.

Examples:
  mailworker store check
  mailworker store check --json
  mailworker store check --repair")]
    Check {
        /// Mend what can be mended; no server may run on the store
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        machine: Machine,
    },
}
