//! What the commands take that change what a server runs by: releases and secrets.

use clap::{Args, Subcommand};

use super::Machine;

#[derive(Debug, Args)]
#[command(after_help = "\
Compiles the rules, runs their tests, and stores their files as a release of the environment that --env names. A running
server takes it up between two messages, and without one the next start does. From the first deploy on the release is what
`serve` runs, and no longer the files, which needn't be there any more: `check`, `serve` and its log say so; `rollback
files` goes back to them.
What doesn't compile can't be deployed. --force goes past tests that fail, and the log says so.

With --percent or --recipients it is tried first: the other mail keeps its release. Sender and recipient decide, so that
mail that comes again has the same rules. `versions promote` makes it the one that runs, `rollback` ends the trial, and a
trial whose runs fail too often ends by itself.

Examples:
  mailworker deploy --message \"bugs@ goes to the new tracker\"
  mailworker deploy --env staging
  mailworker deploy --replay 7d
  mailworker deploy --percent 10 --max-errors 2%
  mailworker deploy --recipients '*@beta.example.com'")]
pub struct Deploy {
    /// What it is for, as `versions list` shows it
    #[arg(long, short = 'm', value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub message: String,
    /// Who deploys; otherwise `$USER`
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
    /// Deploy although tests fail
    #[arg(long)]
    pub force: bool,
    /// Before that, show what it would have made otherwise of the mail of this time (`7d`), and ask
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub replay: Option<std::time::Duration>,
    /// Deploy whatever --replay shows, without asking
    #[arg(long, requires = "replay")]
    pub yes: bool,
    /// Try it on so much of the mail
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=99), conflicts_with = "recipients")]
    pub percent: Option<u8>,
    /// Try it on mail for these: an address, local@*, *@example.com or /regex/
    #[arg(long, value_name = "PATTERN")]
    pub recipients: Option<String>,
    /// End the trial when more runs of one of its handlers fail, and more than the others'
    #[arg(long, value_name = "N%", default_value = "5%", value_parser = percentage)]
    pub max_errors: f64,
    /// As long as a handler had fewer runs, a trial doesn't end by itself for it
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub min_runs: u64,
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>();
    number.ok().filter(|number| (0.0..=100.0).contains(number)).ok_or_else(|| "expected 0% to 100%".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum Versions {
    /// List releases, newest first
    #[command(after_help = "Examples:\n  mailworker versions list\n  mailworker versions list --env staging --json")]
    List {
        /// At most so many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
        limit: usize,
        #[command(flatten)]
        machine: Machine,
    },
    /// One release: who, when, why, its tests, its files
    #[command(
        after_help = "Examples:\n  mailworker versions show 12\n  mailworker versions show 3f2a --file rules/main.rhai"
    )]
    Show {
        /// Its number, or how its version begins (what ctx.version and traces say)
        release: String,
        /// Print one of its files
        #[arg(long, value_name = "PATH")]
        file: Option<String>,
        #[command(flatten)]
        machine: Machine,
    },
    /// What differs between the files of two releases
    #[command(after_help = "Examples:\n  mailworker versions diff 11 12\n  mailworker versions diff 12 files")]
    Diff {
        /// A release, or `files`: what lies below the configuration
        from: String,
        /// Another
        to: String,
    },
    /// Make the release on trial the one that runs
    #[command(after_help = "Examples:\n  mailworker versions promote")]
    Promote {
        /// Who does; otherwise `$USER`
        #[arg(long, value_name = "NAME")]
        author: Option<String>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Takes effect at once. Without a release: a trial ends, and what ran beside it goes on; where there is none, the release runs
that ran before. The release must compile with the configuration as it is now.

Examples:
  mailworker rollback
  mailworker rollback 11
  mailworker rollback files")]
pub struct Rollback {
    /// A release's number, how its version begins, or `files`: run what lies below the configuration again
    pub release: Option<String>,
    /// Who does; otherwise `$USER`
    #[arg(long, value_name = "NAME")]
    pub author: Option<String>,
}

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
    /// Delete a secret that neither the rules in force nor the configuration name
    Delete {
        name: String,
        /// Delete it though they do: the server goes on as it is, and its next start fails
        #[arg(long)]
        force: bool,
    },
}
