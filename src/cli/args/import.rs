//! `import`: whose export, and where it goes.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use crate::mail::Address;

#[derive(Debug, Args)]
#[command(after_help = "\
What is read, and where it comes from:
  cloudflare       GET /client/v4/zones/ID/email/routing/rules, the answer as it is
  mailgun          GET /v3/routes, the answer as it is
  forwardemail     GET /v1/domains/NAME/aliases, or the TXT records forward-email=…
  postfix-virtual  a table of virtual_alias_maps, as virtual(5) has it

Routes are printed, or put at the end of the configuration by --write, which checks it first. What can't be
carried over is told on standard error, each with its line.

Examples:
  mailworker import cloudflare rules.json
  mailworker import postfix-virtual /etc/postfix/virtual --write")]
pub struct Import {
    /// Whose export it is
    #[arg(value_name = "SERVICE")]
    pub from: ImportFrom,
    /// The export
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The domain, where the export doesn't name it
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
    /// Where mail for the postmaster of new domains goes
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub postmaster: Option<Address>,
    /// Put them into the configuration
    #[arg(long)]
    pub write: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFrom {
    Cloudflare,
    Mailgun,
    Forwardemail,
    PostfixVirtual,
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|error| error.to_string())
}
