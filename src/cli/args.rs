//! What may be typed: the commands, their options and their help. Completions and the man page come from here too.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::mail::Address;

mod deployed;
mod explain;
mod flow;
mod import;
mod kept;
mod replay;
mod trigger;

pub use deployed::{Deploy, Rollback, Secret, Versions};
pub use explain::{Break, Explain, Rehearse, What};
pub use flow::{command, parse};
pub use import::{Import, ImportFrom};
pub use kept::{
    Backup, Kv, Limit, LogList, Logged, MessageList, Messages, Queue, QueueChange, QueueFilter, Store, Tail,
};
pub use replay::Replay;
pub use trigger::Trigger;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  mailworker dev --demo            send sample mail through the built-in rules and see what becomes of it
  mailworker init mail && cd mail  write a configuration and rules to start from
  mailworker check                 compile configuration and rules; point at what is wrong
  mailworker test                  run the tests of the rules
  mailworker replay --since 7d     what changed rules would have made of last week's mail
  mailworker dev                   try them: SMTP on 127.0.0.1:2525, nothing leaves this machine
  mailworker serve                 receive mail
  mailworker messages list         what came in, and what became of it
  mailworker tail --recipient me   watch it happen

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration or rules.";

/// A programmable inbound mail server: SMTP in, a worker script decides, mail and signed webhooks go out.
#[derive(Debug, Parser)]
#[command(name = "mailworker", version, styles = STYLES, after_help = EXAMPLES, max_term_width = 110)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// The configuration; otherwise ./mailworker.toml, `$MAILWORKER_CONFIG`, /etc/mailworker/mailworker.toml
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Options of every command")]
    pub config: Option<PathBuf>,
    /// Lay [env.NAME] of the configuration over the rest
    #[arg(long, global = true, value_name = "NAME", help_heading = "Options of every command")]
    pub env: Option<String>,
    /// When to print in colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Options of every command")]
    pub color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a configuration, rules and a key for webhooks to start from
    Init(Init),
    /// Turn another service's rules into routes
    Import(Import),
    /// Receive mail
    Serve(Serve),
    /// Try configuration and rules: mail comes in, what would go out is captured and shown
    Dev(Dev),
    /// Compile configuration and rules, and say where each setting came from
    Check(Check),
    /// Where mail for an address would go, or what became of a message, and why
    Explain(Explain),
    /// Speak SMTP with the configuration as it is, each answer with its reason
    Session(Rehearse),
    /// Run the tests of rules: what is decided on a message is held against what is expected
    Test(Test),
    /// Run `scheduled` now, by hand, for real or without effects
    Trigger(Trigger),
    /// Run past messages through other rules, without effects: what would change, and how
    Replay(Replay),
    /// Put the rules in force as a release: compiled, tested, for all mail or a part of it
    Deploy(Deploy),
    /// Releases of the rules: list them, look into them, compare them
    #[command(subcommand)]
    Versions(Versions),
    /// Go back to the release before, to another, or to the files, at once
    Rollback(Rollback),
    /// Hand a message to a running server over SMTP and print its answers
    Send(Send),
    /// What came in, and what became of it
    #[command(subcommand)]
    Messages(Messages),
    /// What belongs to no message: refusals and why, faults, starts and reloads
    #[command(subcommand)]
    Log(Logged),
    /// Deliveries that wait, and those that were given up
    #[command(subcommand)]
    Queue(Queue),
    /// Read and write a worker's key-value namespaces
    #[command(subcommand)]
    Kv(Kv),
    /// Values for workers that nobody can read: sealed in the store, listed by name
    #[command(subcommand)]
    Secret(Secret),
    /// Watch a running server
    Tail(Tail),
    /// Copy the store, whether a server runs on it or not
    Backup(Backup),
    /// Prove the store sound, and mend it
    #[command(subcommand)]
    Store(Store),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  mailworker completions bash > ~/.local/share/bash-completion/completions/mailworker"
    )]
    Completions { shell: clap_complete::Shell },
    /// Print what a worker may call, as editors read it
    #[command(after_help = "Examples:\n  mailworker definitions > rules/mailworker.d.rhai")]
    Definitions,
    /// Print the man page, with every key of the configuration
    #[command(after_help = "Examples:\n  mailworker man | man -l -")]
    Man,
}

/// For commands whose output a program may read.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Machine {
    /// Print JSON, one value a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "\
A secret that can't be read from here is a warning: the service has its own environment and credentials, a shell has
others. `serve` demands each of them.

Examples:
  mailworker check
  mailworker check --secrets --json")]
pub struct Check {
    /// A secret that can't be read is an error, as it is for `serve`
    #[arg(long)]
    pub secrets: bool,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mailworker init\n  mailworker init /etc/mailworker")]
pub struct Init {
    /// Where to; made if it isn't there
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Prints one line for each listener once it listens (`listening smtp 127.0.0.1:2525 starttls`), and tells systemd.
With --json every event from the start on is a line of JSON, these among them.
SIGTERM and SIGINT let open sessions end; SIGHUP reads configuration, rules and certificates again.

Examples:
  mailworker serve --config /etc/mailworker/mailworker.toml
  mailworker serve --log json --log-level debug")]
pub struct Serve {
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub log: Log,
}

/// The log, which goes to standard error.
#[derive(Debug, Clone, Args)]
pub struct Log {
    /// How log lines are written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log: LogFormat,
    /// error, warn, info, debug, trace, or a filter as in `info,mailworker::delivery=debug`
    #[arg(long, value_name = "LEVEL", env = "MAILWORKER_LOG")]
    pub log_level: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Takes ./mailworker.toml where there is one, and otherwise (and for --demo) what is built in. Relays and webhooks go
to a capture sink in this process instead of the world; what it catches is kept as .eml and .json files. Configuration
and rules are read again when they change; one that doesn't compile is shown, and the last good one stays. A server's
own configuration will do; mail comes in by SMTP, and by HTTP as Cloudflare's simulator takes it: there its author
counts as proved, or as `&dmarc=fail` says. A secret that isn't to be had here is replaced, and [tls] is left out.

Examples:
  mailworker dev --demo
  mailworker dev
  mailworker send mail.eml --from me@example.net --to support@example.com --server 127.0.0.1:2525
  curl --data-binary @mail.eml 'localhost:8787/cdn-cgi/local/email?from=me@example.net&to=support@example.com&format=json'")]
pub struct Dev {
    /// Send the sample messages, show what became of each, and end
    #[arg(long)]
    pub demo: bool,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2525")]
    pub smtp: SocketAddr,
    /// Where to take mail by HTTP, on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8787", value_parser = loopback)]
    pub http: SocketAddr,
    /// Keep store and captured mail here; otherwise a temporary directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub log: Log,
}

#[derive(Debug, Default, Args)]
#[command(after_help = "\
Each [[test]] has a name, a message (a file beside it, or raw), the envelope's to, and what it
expects; it may have from, now, session, vars and kv. In place of a message it may say what happened
(scheduled, delivered, failed). The rules decide as for real mail, by the
configuration's variables, namespaces and routes, without network, server or store. A test that
fails is shown as a comparison: - expected, + decided, and the line that decided it.
What can be expected: connect, helo, mail_from, rcpt, error, reject, defer, drop, quarantine, header,
forward, webhook, send, reply, store, tag, kv, deleted, log. Tests in Rhai are functions test_…() of
tests/*.rhai, which have decide(#{ … }) and assertions.

  [[test]]
  name = \"support mail opens a ticket\"
  message = \"fixtures/support.eml\"
  to = \"support@example.com\"
  expect.forward = [\"team@example.net\"]
  expect.webhook = [{ target = \"TICKETS\", payload.type = \"email_received\" }]

Examples:
  mailworker test
  mailworker test rules/tests/support.toml --filter ticket
  mailworker test --coverage --lcov lcov.info --junit report.xml
  mailworker test --json | jq -r 'select(.result == \"failed\") | .name'")]
pub struct Test {
    /// Files of tests, or folders with them; otherwise tests/*.toml and tests/*.rhai beside each `main` of the configuration
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Rewrite what failing tests of *.toml expect to what was decided; comments and order stay, and so do tests in Rhai
    #[arg(long)]
    pub update: bool,
    /// Show which lines of the rules the tests reached, and which never
    #[arg(long, conflicts_with = "json")]
    pub coverage: bool,
    /// Write the same here as editors and build servers read it (LCOV)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub lcov: Option<PathBuf>,
    /// Write the results here as build servers read them (`JUnit` XML), too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub junit: Option<PathBuf>,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mailworker send hello.eml --from me@example.net --to support@example.com
  mailworker send - --from '<>' --to info@example.com --server mx.example.com:25 < bounce.eml")]
pub struct Send {
    /// The message (RFC 5322); `-` reads standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The envelope's sender; `<>` for the null sender
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    pub from: String,
    /// A recipient of the envelope; may be given several times
    #[arg(long = "to", value_name = "ADDRESS", value_parser = recipient, required = true, num_args = 1..)]
    pub to: Vec<Address>,
    /// The server; otherwise the first listener of the configuration
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// How the session is encrypted; the certificate isn't checked
    #[arg(long, value_name = "MODE", default_value = "off")]
    pub tls: SendTls,
    #[command(flatten)]
    pub machine: Machine,
}

/// Whoever reaches the port hands in mail as anybody.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error| format!("{error}: expected as in 127.0.0.1:8787"))?;
    if address.ip().is_loopback() { Ok(address) } else { Err("only an address of loopback is listened on".to_owned()) }
}

/// An address, or `postmaster` alone (RFC 5321 §4.5.1).
fn recipient(text: &str) -> Result<Address, crate::mail::address::AddressError> {
    Address::bare_postmaster(text).map_or_else(|| Address::parse(text), Ok)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SendTls {
    Off,
    Starttls,
    Implicit,
}
