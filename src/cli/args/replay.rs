//! What `replay` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::Machine;
use crate::mail::MessageId;
use crate::replay::Wanted;

#[derive(Debug, Default, Args)]
#[command(after_help = "\
Nothing is sent, kept or written, whether a server runs on the store or not. With --rules or --with, what these decide is
held against what the configuration's own rules decide on the same message. Without, the files as they are now are held
against what was decided then, as the trace has it (a rule's place in its file, and the values of keys and payloads, are
not in it and are not compared).
A message is judged by the time of its arrival, its client and its envelope. Keys are read as they are now; how many
decisions read some is said. Messages whose octets retention has taken are counted, and so are those that were put off
(451), of which none are kept. Nobody outside is asked: messages whose rules use `fetch`, `ai` or DNS are counted apart.
Ends with 0 where nothing would change, with 1 where something would or a message can't be read.

With --deliver the message is decided on as if it had come again, and what is asked for is committed with a line in its
trace, by the running server or, where none runs, by the command itself. What it was sent to before gets it again. Who is
refused now is told of it by nobody: the sender has read 250 long since.

Examples:
  mailworker replay --since 7d
  mailworker replay --since 2d --to support@ --rules ../new/rules --diff
  mailworker replay 01JDEXAMP1E00000000000000A --diff
  mailworker replay 01JDEXAMP1E00000000000000A --deliver
  mailworker replay --since 7d --json | jq -r 'select(.kind) | .kind' | sort | uniq -c")]
pub struct Replay {
    /// This message alone
    #[arg(value_name = "ID", conflicts_with_all = ["since", "until", "to", "from"])]
    pub id: Option<MessageId>,
    /// Received within this time: `7d`, `12h`
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, required_unless_present = "id")]
    pub since: Option<Duration>,
    /// Received longer ago than this
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub until: Option<Duration>,
    /// Only this recipient: part of an address, `*@example.com`, `/^sales/`
    #[arg(long, value_name = "PATTERN")]
    pub to: Option<Wanted>,
    /// Only this sender, in the same way; `<>` for the null sender
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    pub from: Option<Wanted>,
    /// The rules to judge by: a folder in place of the one that `main` stands in
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub rules: Option<PathBuf>,
    /// The configuration to judge by, with its domains and routes; the store stays that of --config
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub with: Option<PathBuf>,
    /// Hold what --rules or --with decide against what was decided then
    #[arg(long)]
    pub then: bool,
    /// Show what is done no more and what is done instead
    #[arg(long)]
    pub diff: bool,
    /// Do it for real: decide on the message by the rules in force, and queue and write what they ask for
    #[arg(long, requires = "id", conflicts_with_all = ["rules", "with", "then", "diff"])]
    pub deliver: bool,
    /// Do it without asking
    #[arg(long, requires = "deliver")]
    pub yes: bool,
    /// Judge so many at once; otherwise one for each processor
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    #[command(flatten)]
    pub machine: Machine,
}
