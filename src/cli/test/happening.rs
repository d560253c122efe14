//! Tests of handlers that are about no message on its way in: `scheduled`, `delivered`, `failed`.
//!
//! A test names what happened in place of a message; what the handler reads of it is made as the server makes it.

use serde::Deserialize;

use super::case::Reader;
use super::file::{Moment, OfEnvelope, Test};
use super::kind::Kind;
use crate::config::Cron;
use crate::config::document::{At, Leaf, NodeId, Parsed};
use crate::mail::{MessageId, Timestamp};
use crate::store::TellTask;

/// What such a handler can have asked for.
const KINDS: [Kind; 6] = [Kind::Error, Kind::Webhook, Kind::Send, Kind::Kv, Kind::Deleted, Kind::Log];
/// The message that ended, where a test doesn't say.
const RANDOM: u128 = 7;

/// What happened.
#[derive(Debug)]
pub enum Happened {
    /// It is time, by this cron.
    Scheduled(String),
    /// A delivery of that message ended.
    Ended(MessageId, TellTask),
}

/// `delivered = { … }`, `failed = { … }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    pub kind: Option<Parsed<What>>,
    pub to: Option<At<Parsed<OfEnvelope>>>,
    pub destination: Option<String>,
    pub status: Option<String>,
    pub reply: Option<String>,
    pub attempts: Option<u32>,
    pub message_id: Option<Parsed<Id>>,
    pub at: Option<Parsed<Moment>>,
}

/// What ended.
#[derive(Debug)]
pub struct What(pub &'static str);

impl Leaf for What {
    const WHAT: &'static str = "forward, mail or webhook";
    const EXAMPLE: &'static str = "forward";
    fn parse(text: &str) -> Result<Self, String> {
        let known = ["forward", "mail", "webhook"].into_iter().find(|known| *known == text);
        known.map(Self).ok_or_else(|| format!("nothing ends that is called `{}`\n{}", text.escape_debug(), Self::WHAT))
    }
}

#[derive(Debug)]
pub struct Id(pub MessageId);

impl Leaf for Id {
    const WHAT: &'static str = "a message's id";
    const EXAMPLE: &'static str = "01KBX3V1Q00000000000000007";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: crate::mail::id::ParseIdError| error.to_string())
    }
}

impl Reader<'_> {
    /// What a test says happened; `None`: it is about a message that comes in. What it says of both is a finding.
    pub(super) fn happened(&mut self, node: NodeId, now: Timestamp, test: &mut Test) -> Option<Happened> {
        let (cron, delivered, failed) = (test.scheduled.take(), test.delivered.take(), test.failed.take());
        let given = [("scheduled", cron.is_some()), ("delivered", delivered.is_some()), ("failed", failed.is_some())];
        let given: Vec<&str> = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        let (name, more) = given.split_first()?;
        if !more.is_empty() {
            let help = format!("make one test of `{name}`, another of `{}`", more.join("` and `"));
            self.find(node, "one test is of one handler", Some(help));
        }
        self.has_no_message(node, name, test);
        match (cron, delivered, failed) {
            (Some(At { value: Parsed(cron), node }), ..) => Some(self.time(node, &cron)),
            (_, Some(At { value, node }), _) => self.end(node, now, true, value),
            (.., Some(At { value, node })) => self.end(node, now, false, value),
            (None, None, None) => None,
        }
    }

    fn has_no_message(&mut self, node: NodeId, name: &str, test: &Test) {
        let beside = [
            ("message", test.message.is_some()),
            ("raw", test.raw.is_some()),
            ("from", test.from.is_some()),
            ("to", test.to.is_some()),
            ("session", test.session.is_some()),
            ("auth", test.auth.is_some()),
        ];
        let beside: Vec<&str> = beside.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        if !beside.is_empty() {
            let help = format!("leave out `{}`", beside.join("`, `"));
            self.find(node, &format!("a test of `{name}` has no message"), Some(help));
        }
    }

    /// One that the configuration doesn't have would never be run.
    fn time(&mut self, node: NodeId, cron: &Cron) -> Happened {
        let crons = &self.config.crons;
        if !crons.iter().any(|known| known.text() == cron.text()) {
            let help = super::case::near(cron.text(), crons.iter().map(Cron::text), "[triggers] crons");
            self.find(node, &format!("no cron `{}` is configured", cron.text().escape_debug()), Some(help));
        }
        Happened::Scheduled(cron.text().to_owned())
    }

    fn end(&mut self, node: NodeId, now: Timestamp, delivered: bool, ended: Ended) -> Option<Happened> {
        let Some(At { value: Parsed(OfEnvelope(recipient)), node: to }) = ended.to else {
            let help = "the address that the mail came in for: to = \"support@example.com\"".to_owned();
            self.find(node, "`to` is missing", Some(help));
            return None;
        };
        if self.config.domain_for(&recipient).is_none() {
            let known = self.config.domains.iter().map(|domain| domain.name.as_str());
            let help = super::case::near(recipient.domain(), known, "[[domain]]");
            self.find(to, &format!("`{recipient}` is in none of our domains, and no worker is told"), Some(help));
        }
        let (status, reply) = if delivered { ("2.0.0", "250 2.0.0 Ok") } else { ("5.1.1", "550 5.1.1 No such user") };
        let or = |given: Option<String>, otherwise: &str| given.unwrap_or_else(|| otherwise.to_owned());
        let task = TellTask {
            delivered,
            recipient,
            what: ended.kind.map_or("forward", |Parsed(What(what))| what).to_owned(),
            destination: or(ended.destination, "team@example.net"),
            status: or(ended.status, status),
            reply: or(ended.reply, reply),
            attempts: ended.attempts.unwrap_or(1),
            at: ended.at.map_or(now, |Parsed(Moment(at))| at),
            by: None,
        };
        let message = ended.message_id.map_or_else(|| MessageId::new(now, RANDOM), |Parsed(Id(id))| id);
        Some(Happened::Ended(message, task))
    }

    /// That nothing is expected which no such handler does.
    pub(super) fn fits(&mut self, node: NodeId, kinds: impl Iterator<Item = Kind>) {
        let foreign: Vec<&str> = kinds.filter(|kind| !KINDS.contains(kind)).map(Kind::key).collect();
        if !foreign.is_empty() {
            let help = format!("the keys here are {}", KINDS.map(Kind::key).join(", "));
            self.find(node, &format!("without a message there is no `{}`", foreign.join("`, `")), Some(help));
        }
    }
}
