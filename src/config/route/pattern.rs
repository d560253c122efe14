//! What a route's conditions are written as: patterns of addresses, of senders, of header fields.

use super::super::leaf::{DomainName, Leaf};
use super::super::{Config, Domain};
use super::same_domain;
use crate::mail::Address;

/// What `match` says.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// `*@*`
    Anybody,
    Address(Address),
    /// `local@*`
    Local(String),
    /// `*@example.com`
    Domain(String),
    /// `/regex/`, against the whole address, in either case.
    Regex(regex::Regex),
}

impl Pattern {
    /// As `match` writes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        <Match as Leaf>::parse(text).map(|found| found.pattern)
    }

    /// Whether this recipient is meant.
    #[must_use]
    pub fn takes(&self, recipient: &Address, config: &Config) -> bool {
        let key = recipient.domain_key();
        Candidate { address: recipient, key: &key, domain: config.domain_by_key(&key) }.matches(self)
    }
}

/// A `match`, with the text it was.
#[derive(Debug, Clone)]
pub struct Match {
    pub text: String,
    pub pattern: Pattern,
}

impl Leaf for Match {
    const WHAT: &'static str = "a pattern such as \"billing@example.com\"";
    const EXAMPLE: &'static str = "*@example.com";
    fn parse(text: &str) -> Result<Self, String> {
        let pattern = if let Some(regex) = between_slashes(text)? {
            Pattern::Regex(regex_of(regex)?)
        } else if text == "*@*" {
            Pattern::Anybody
        } else if let Some(local) = text.strip_suffix("@*") {
            let address = Address::parse(&format!("{local}@example")).map_err(|error| error.to_string())?;
            Pattern::Local(address.unquoted_local().into_owned())
        } else if let Some(domain) = text.strip_prefix("*@") {
            Pattern::Domain(DomainName::parse(domain)?.0)
        } else {
            let forms = "\"local@example.com\", \"local@*\", \"*@example.com\" or \"/regular expression/\"";
            Pattern::Address(Address::parse(text).map_err(|error| format!("{error}\na route matches {forms}"))?)
        };
        Ok(Self { text: text.to_owned(), pattern })
    }
}

/// A `sender` or `from`, with the text it was.
#[derive(Debug, Clone)]
pub struct Sender {
    pub text: String,
    /// `None`: `<>`, the null sender of bounces.
    pattern: Option<Pattern>,
}

impl Sender {
    #[must_use]
    pub fn matches(&self, sender: Option<&Address>) -> bool {
        match (&self.pattern, sender) {
            (None, None) => true,
            (Some(pattern), Some(address)) => {
                let key = address.domain_key();
                Candidate { address, key: &key, domain: None }.matches(pattern)
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Leaf for Sender {
    const WHAT: &'static str = "a pattern such as \"*@partner.example\"";
    const EXAMPLE: &'static str = "*@partner.example";
    fn parse(text: &str) -> Result<Self, String> {
        let pattern = if text == "<>" {
            None
        } else {
            let forms =
                "\"ann@partner.example\", \"local@*\", \"*@partner.example\", \"/regular expression/\" or \"<>\"";
            Some(Match::parse(text).map_err(|error| match error.split_once('\n') {
                Some((what, help)) if help.starts_with("a route") => format!("{what}\na sender is {forms}"),
                _ => error,
            })?)
        };
        Ok(Self { text: text.to_owned(), pattern: pattern.map(|pattern| pattern.pattern) })
    }
}

/// What a header field must have.
#[derive(Debug, Clone)]
pub struct Text {
    pub written: String,
    wanted: Wanted,
}

#[derive(Debug, Clone)]
enum Wanted {
    /// `*`: it is there.
    Any,
    /// Somewhere in it, in either case: in lower case here.
    Part(String),
    Regex(regex::Regex),
}

impl Text {
    #[must_use]
    pub fn is_in(&self, value: &str) -> bool {
        match &self.wanted {
            Wanted::Any => true,
            Wanted::Part(part) => value.to_lowercase().contains(part.as_str()),
            Wanted::Regex(regex) => regex.is_match(value),
        }
    }
}

impl Leaf for Text {
    const WHAT: &'static str = "a text, or \"/regex/\"";
    const EXAMPLE: &'static str = "invoice";
    fn parse(text: &str) -> Result<Self, String> {
        let wanted = match between_slashes(text)? {
            Some(regex) => Wanted::Regex(regex_of(regex)?),
            None if text.trim().is_empty() => {
                return Err("this text is in every field\nwrite \"*\" for any field of that name".to_owned());
            }
            None if text == "*" => Wanted::Any,
            None => Wanted::Part(text.to_lowercase()),
        };
        Ok(Self { written: text.to_owned(), wanted })
    }
}

fn between_slashes(text: &str) -> Result<Option<&str>, String> {
    let Some(regex) = text.strip_prefix('/') else { return Ok(None) };
    regex.strip_suffix('/').map(Some).ok_or_else(|| "the regular expression has no closing `/`".to_owned())
}

/// In either case: local parts, domains and what people write in fields seldom mean another by it.
fn regex_of(text: &str) -> Result<regex::Regex, String> {
    // A pattern is the admin's, but a slip in it should not take the memory of the machine.
    let built = regex::RegexBuilder::new(text).size_limit(1 << 20).case_insensitive(true).build();
    built.map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        format!("bad regular expression: {last}")
    })
}

/// An address, as patterns look at it.
pub struct Candidate<'a> {
    pub address: &'a Address,
    pub key: &'a str,
    /// Of ours, where it is a recipient: subaddresses and case are its own affair.
    pub domain: Option<&'a Domain>,
}

impl Candidate<'_> {
    pub fn matches(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Anybody => true,
            Pattern::Address(wanted) => self.same_local(&wanted.unquoted_local()) && wanted.domain_key() == self.key,
            Pattern::Local(wanted) => self.same_local(wanted),
            Pattern::Domain(wanted) => same_domain(wanted, self.key),
            Pattern::Regex(regex) => regex.is_match(&self.text()),
        }
    }

    /// The whole of it in lower case.
    pub fn text(&self) -> String {
        format!("{}@{}", self.address.unquoted_local().to_lowercase(), self.key)
    }

    /// `billing` takes `billing+2026` too where the domain knows subaddresses, and both in quotes (RFC 5321 §4.1.2: it is
    /// the same mailbox).
    fn same_local(&self, wanted: &str) -> bool {
        let exact = self.domain.is_some_and(|domain| domain.case_sensitive);
        [self.address.unquoted_local(), self.address.base(Domain::separator(self.domain))]
            .into_iter()
            .any(|local| if exact { local == wanted } else { local.to_lowercase() == wanted.to_lowercase() })
    }
}
