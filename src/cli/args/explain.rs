//! What `explain` and `session` take.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueHint};

use super::{Machine, recipient};
use crate::mail::{Address, MessageId};
use crate::rules::outcome::Place;

#[derive(Debug, Args)]
#[command(after_help = "\
For an address, or a message in a file: asks the configuration, its routes and the worker as the server would: `connect`,
`helo`, `mail_from`, `rcpt_to`, then `email`, as far as it gets. Who sends it is looked up as the server does it (iprev, SPF,
DKIM, DMARC, ARC), for the client of --ip and --helo; whom [authentication] skip names, such as 127.0.0.1, is not. A file's
recipient and sender are those of its fields, where --to and --from name no others. For the id of a message that came in:
tells what became of it, and what the rules as they are now would make of it, by its own time and client. Either way every line of a rule that is reached is
shown, what it asks of the keys and what it is answered, each effect with its line, and the next hop of what is queued;
that MX hosts exist isn't looked up. Keys are read as they are now, and
what `env.limit` counts starts empty. Nothing is sent, kept or written.
With --step the run stops at lines, and standard input says how it goes on: `step`, `next`, `out`, `continue`,
`break LINE`, `print EXPRESSION`, `vars`, `where`, `list`, `quit`; time doesn't count then.

Examples:
  mailworker explain support@example.com
  mailworker explain support@example.com --from boss@example.net --message mail.eml
  mailworker explain mail.eml --ip 203.0.113.7 --helo mx.example.net
  mailworker explain 01JDEXAMP1E00000000000000A
  mailworker explain support@example.com --break rules/lib/spam.rhai:12")]
pub struct Explain {
    /// The recipient, a message (RFC 5322), or the id of a message that came in
    #[arg(value_name = "ADDRESS|FILE|ID", value_hint = ValueHint::FilePath)]
    pub what: What,
    /// The envelope's sender, `<>` for the null sender; otherwise the file's, or someone@example.org
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// The client's address; otherwise 127.0.0.1
    #[arg(long, value_name = "IP")]
    pub ip: Option<IpAddr>,
    /// What the client calls itself in EHLO; otherwise mail.example.org
    #[arg(long, value_name = "NAME")]
    pub helo: Option<String>,
    /// The recipient of a message in a file; otherwise the first of ours in its fields
    #[arg(long, value_name = "ADDRESS", value_parser = recipient)]
    pub to: Option<Address>,
    /// Ask nobody: the sender isn't looked into, and what the rules ask outside has no answer
    #[arg(long)]
    pub offline: bool,
    /// The message (RFC 5322); otherwise one is made up
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub message: Option<PathBuf>,
    /// Stop at the first line that is reached, and ask how to go on (`help` lists the commands)
    #[arg(long, conflicts_with = "json")]
    pub step: bool,
    /// Stop at this line; may be given several times
    #[arg(long = "break", value_name = "[FILE:]LINE", conflicts_with = "json")]
    pub breakpoints: Vec<Break>,
    #[command(flatten)]
    pub machine: Machine,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Reads what a client would say from standard input, line by line, and prints what the server would answer, with reasons in
lines that begin with `#`: the route, the handler and its line, the limit, what a message would be queued for; and who
sends, looked up as the server does it, when it is known: the client's name, then SPF, then DKIM, DMARC and ARC. STARTTLS is
taken as done. Nothing is kept, sent or written, and what one message would write the next one doesn't see.

Examples:
  mailworker session
  mailworker session --ip 203.0.113.7 --helo mail.example.org
  printf 'EHLO x\\nMAIL FROM:<>\\nRCPT TO:<me@example.com>\\nQUIT\\n' | mailworker session")]
pub struct Rehearse {
    /// The client's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub ip: IpAddr,
    /// Say EHLO with this name at first
    #[arg(long, value_name = "NAME")]
    pub helo: Option<String>,
    /// The client's name in DNS, as if it had been confirmed
    #[arg(long, value_name = "NAME")]
    pub ptr: Option<String>,
    /// Ask nobody: the sender isn't looked into, and what the rules ask outside has no answer
    #[arg(long)]
    pub offline: bool,
    /// The session runs over TLS from its start
    #[arg(long)]
    pub tls: bool,
    /// The listener it comes in by, as the configuration names it; otherwise the first
    #[arg(long, value_name = "ADDRESS")]
    pub listener: Option<String>,
}

/// What is to be explained.
#[derive(Debug, Clone)]
pub enum What {
    Address(Address),
    File(PathBuf),
    Message(MessageId),
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The name of a message in a maildir can be read as an address.
        let file = PathBuf::from(text);
        if text.contains('/') && file.is_file() {
            return Ok(Self::File(file));
        }
        if let Ok(id) = text.parse::<MessageId>() {
            return Ok(Self::Message(id));
        }
        match recipient(text) {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) if file.is_file() => Ok(Self::File(file)),
            Err(error) => Err(format!("{error}; and no file, nor a message's id, which has 26 characters")),
        }
    }
}

/// A line of a rule to stop at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// `None`: of whichever file.
    pub file: Option<String>,
    pub line: u32,
}

impl FromStr for Break {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, line) = text.rsplit_once(':').map_or((None, text), |(file, line)| (Some(file.to_owned()), line));
        let line = line.parse().ok().filter(|line| *line > 0);
        line.map(|line| Self { file, line }).ok_or_else(|| format!("{text:?} is no line: expected LINE or FILE:LINE"))
    }
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file}:{}", self.line),
            None => write!(f, "line {}", self.line),
        }
    }
}

impl Break {
    /// A file is known by the end of its path, too: `spam.rhai`.
    #[must_use]
    pub fn is_at(&self, place: &Place) -> bool {
        let is_file = |file: &String| {
            place.file.strip_suffix(file.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        self.line == place.line && self.file.as_ref().is_none_or(is_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_named_with_or_without_its_file() {
        let place = Place { file: "rules/lib/spam.rhai".into(), line: 12, column: 3 };
        for (text, is) in [
            ("12", true),
            ("spam.rhai:12", true),
            ("rules/lib/spam.rhai:12", true),
            ("am.rhai:12", false),
            ("13", false),
        ] {
            assert_eq!(text.parse::<Break>().unwrap().is_at(&place), is, "{text}");
        }
        for text in ["", "x", "a.rhai:", "0", "a:b"] {
            assert!(text.parse::<Break>().is_err(), "{text}");
        }
    }
}
