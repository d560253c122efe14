//! What `trigger` takes.

use clap::Args;

use super::Machine;
use crate::mail::Timestamp;

#[derive(Debug, Args)]
#[command(after_help = "\
For real: what the handler asks for is committed as that of a planned run is, as a message with a trace, by the running
server or, where none runs, by the command itself. The planned times stay as they are. With --dry-run nothing is sent,
kept or written; keys are read as they are now, and what the worker reads outside is asked.
Ends with 1 where the handler fails: then nothing was done, and the trace says why.

Examples:
  mailworker trigger
  mailworker trigger '0 9 * * MON' --dry-run
  mailworker trigger '0 9 * * MON' --time 2026-11-30T09:00:00Z")]
pub struct Trigger {
    /// Which of the configured crons `event.cron` says; may be left out where there is but one
    #[arg(value_name = "CRON")]
    pub cron: Option<String>,
    /// What `event.scheduled_time` says; otherwise now
    #[arg(long, value_name = "TIME", value_parser = crate::cli::trigger::moment)]
    pub time: Option<Timestamp>,
    /// Show what it would do, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub machine: Machine,
}
