//! What became of one recipient, said so that two of them can be held against each other: by whatever rules, then or now.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use serde::Serialize;

use crate::event::{Decision, Event, Kind};
use crate::intake::decide::{Fate as Verdict, Judged};
use crate::intake::foresee::Foresight;
use crate::mail::{Address, Envelope, Reply};

/// By whom the second of two that are the same mailbox is decided: as the first, so there is nothing to compare.
const REPEATED: &str = "the same recipient before";

/// What a route says that adds to what comes after it.
const GOES_ON: &str = "continue";

/// One recipient's fate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fate {
    /// accept, reject, defer, drop, store, quarantine, fail.
    pub verdict: String,
    /// Of a quarantine its reason, of a failure its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// `worker rules/main.rhai`, `route 3 (billing@example.com)`, `connect`, `rcpt_to`.
    pub by: String,
    /// The line that settled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What the sender reads, where it is refused and that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// What is done, one line each, without the lines of the rules that asked for it.
    pub effects: Vec<String>,
    /// Of what is queued and written, octet for octet; nothing where only the trace is left.
    #[serde(skip)]
    content: Option<Vec<u64>>,
}

impl Fate {
    /// How two of them differ, in a few words; `None`: they come to the same.
    #[must_use]
    pub fn change_to(&self, after: &Self) -> Option<String> {
        let word = &self.verdict;
        if *word != after.verdict {
            return Some(format!("{word} → {}", after.verdict));
        }
        if self.effects != after.effects {
            return Some(format!("{word}, other effects"));
        }
        if self.why != after.why {
            return Some(format!("{word}, for another reason"));
        }
        let differ = |one: &Option<Reply>, other: &Option<Reply>| one.is_some() && other.is_some() && one != other;
        if differ(&self.reply, &after.reply) {
            return Some(format!("{word}, other words"));
        }
        let known = self.content.is_some() && after.content.is_some();
        (known && self.content != after.content).then(|| format!("{word}, other content"))
    }

    /// As a line: `reject 550 5.7.1 No (rules/main.rhai:14:9)`.
    #[must_use]
    pub fn line(&self) -> String {
        let what = self.reply.as_ref().map(ToString::to_string).or_else(|| self.why.clone());
        let what = what.map(|what| format!(" {what}")).unwrap_or_default();
        let at = self.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        format!("{}{what} by {}{at}", self.verdict, self.by)
    }

    fn of(decision: &Decision) -> Self {
        let explained = decision.verdict.split_once(" (").and_then(|(_, rest)| rest.strip_suffix(')'));
        let mut effects: Vec<String> = decision.effects.iter().map(|effect| without_place(effect)).collect();
        effects.extend(decision.tags.iter().map(|tag| format!("tag {tag}")));
        Self {
            verdict: decision.word().to_owned(),
            why: explained.map(ToOwned::to_owned),
            by: decision.by.clone(),
            at: decision.place.clone(),
            reply: None,
            effects,
            content: None,
        }
    }

    fn refused(by: &str, at: Option<String>, reply: &Reply) -> Self {
        let verdict = if reply.is_permanent() { "reject" } else { "defer" };
        let (by, reply) = (by.to_owned(), Some(reply.clone()));
        Self { verdict: verdict.to_owned(), why: None, by, at, reply, effects: Vec::new(), content: None }
    }

    /// What the rules make of it now; `None` where an earlier recipient is the same mailbox.
    pub(super) fn foreseen(seen: &Foresight) -> Option<Self> {
        let at = seen.answered_at.as_ref().map(ToString::to_string);
        if let Some((stage, reply)) = &seen.earlier {
            return Some(Self::refused(stage.handler(), at, reply));
        }
        if let Some(reply) = seen.answer.as_ref().filter(|reply| !reply.is_positive()) {
            return Some(Self::refused("rcpt_to", at, reply));
        }
        if let Some(reply) = &seen.refused {
            return Some(Self::refused("loop check", None, reply));
        }
        let mut fate = Self::judged(seen.judged.as_ref()?)?;
        fate.redirected(seen.redirected.as_ref());
        Some(fate)
    }

    fn judged(judged: &Judged) -> Option<Self> {
        if judged.is_repeated {
            return None;
        }
        let mut fate = last_of(judged.events.iter().filter_map(decision_of))?;
        if let Verdict::Reject(reply) | Verdict::Defer(reply) = &judged.fate {
            fate.reply = Some(reply.clone());
        }
        if fate.verdict == "fail" {
            // Its words hold the message's id and no more than that.
            fate.reply = None;
            fate.why = judged.events.iter().find_map(|event| error_of(event, &judged.recipient.address));
        }
        let tasks = judged.deliveries.iter().map(|delivery| hash(&serde_json::to_string(delivery).ok()));
        let writes = judged.writes.iter().map(|write| hash(&serde_json::to_string(write).ok()));
        fate.content = Some(tasks.chain(writes).collect());
        Some(fate)
    }

    fn redirected(&mut self, to: Option<&Address>) {
        if let Some(to) = to {
            self.effects.insert(0, format!("redirect to {to}"));
        }
    }
}

/// What was decided then, as the trace tells it, for each recipient of the envelope in order: the last word on each.
pub(super) fn recorded(trace: &[Event], envelope: &Envelope) -> Vec<Option<Fate>> {
    let mut by_recipient: HashMap<&Address, Vec<&Decision>> = HashMap::new();
    for decision in trace.iter().filter_map(decision_of).filter(|decision| decision.by != REPEATED) {
        by_recipient.entry(&decision.recipient).or_default().push(decision);
    }
    let of = |recipient: &crate::mail::Recipient| {
        let mut fate = last_of(by_recipient.get(&recipient.address)?.iter().copied())?;
        if fate.verdict == "fail" {
            fate.why = trace.iter().rev().find_map(|event| error_of(event, &recipient.address));
        }
        // What the whole message was answered with is this one's answer where it was the only one.
        if envelope.recipients.len() == 1 && matches!(fate.verdict.as_str(), "reject" | "defer") {
            fate.reply = trace.iter().find_map(|event| match &event.kind {
                Kind::Rejected { reply } | Kind::Deferred { reply } => Some(reply.clone()),
                _ => None,
            });
        }
        fate.redirected(recipient.original.as_ref().map(|_| &recipient.address));
        Some(fate)
    };
    envelope.recipients.iter().map(of).collect()
}

/// The last word on a recipient, with what routes did that went on before it.
fn last_of<'a>(decisions: impl Iterator<Item = &'a Decision>) -> Option<Fate> {
    let (mut last, mut before): (Option<Fate>, Vec<String>) = (None, Vec::new());
    for decision in decisions {
        let mut fate = Fate::of(decision);
        if fate.verdict == GOES_ON {
            before.append(&mut fate.effects);
        } else {
            fate.effects.splice(0..0, before.drain(..));
            last = Some(fate);
        }
    }
    last
}

fn decision_of(event: &Event) -> Option<&Decision> {
    if let Kind::Decided(decision) = &event.kind { Some(decision) } else { None }
}

fn error_of(event: &Event, of: &Address) -> Option<String> {
    match &event.kind {
        Kind::ScriptFailed { recipient, error, .. } if recipient.as_ref() == Some(of) => Some(error.clone()),
        _ => None,
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// `forward to a@example.net (rules/main.rhai:3:5)` without where it was asked for.
fn without_place(effect: &str) -> String {
    let found = effect.rfind(" (").and_then(|start| {
        let inner = effect.get(start + 2..)?;
        let (place, after) = inner.split_once(')')?;
        let mut parts = place.rsplitn(3, ':');
        let numbers = [parts.next()?, parts.next()?];
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        (parts.next().is_some() && numbers.into_iter().all(is_number)).then(|| (start, after.to_owned()))
    });
    match found {
        Some((start, after)) => format!("{}{after}", effect.get(..start).unwrap_or_default()),
        None => effect.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_the_same_wherever_it_was_asked_for() {
        for (told, bare) in [
            ("forward to a@example.net (rules/main.rhai:3:5)", "forward to a@example.net"),
            ("put EMAILS \"a (b)\" (rules/lib/a b.rhai:30:12)", "put EMAILS \"a (b)\""),
            (
                "set Subject (rules/main.rhai:3:5), which breaks the DKIM signature of a.example and 2 more",
                "set Subject, which breaks the DKIM signature of a.example and 2 more",
            ),
            ("forward to a@example.net", "forward to a@example.net"),
            ("put EMAILS \"a (b:c:1)\"", "put EMAILS \"a (b:c:1)\""),
        ] {
            assert_eq!(without_place(told), bare);
        }
    }

    #[test]
    fn fates_differ_by_verdict_effects_reasons_and_words() {
        let fate = |verdict: &str| Fate {
            verdict: verdict.into(),
            why: None,
            by: "worker a.rhai".into(),
            at: None,
            reply: None,
            effects: vec!["forward to a@example.net".into()],
            content: None,
        };
        let accept = fate("accept");
        assert_eq!(accept.change_to(&Fate { by: "route 1".into(), at: Some("a:1:1".into()), ..accept.clone() }), None);
        assert_eq!(accept.change_to(&fate("reject")).unwrap(), "accept → reject");
        assert_eq!(accept.change_to(&Fate { effects: Vec::new(), ..accept.clone() }).unwrap(), "accept, other effects");
        let held = Fate { why: Some("odd".into()), ..fate("quarantine") };
        assert_eq!(held.change_to(&fate("quarantine")).unwrap(), "quarantine, for another reason");
        let words = |text: &'static str| Fate { reply: Some(Reply::new(550, 7, 1, text)), ..fate("reject") };
        assert_eq!(words("no").change_to(&words("never")).unwrap(), "reject, other words");
        assert_eq!(words("no").change_to(&fate("reject")), None, "what isn't known is no change");
        let content = |content: u64| Fate { content: Some(vec![content]), ..accept.clone() };
        assert_eq!(content(1).change_to(&content(2)).unwrap(), "accept, other content");
        assert_eq!(content(1).change_to(&accept), None);
    }
}
