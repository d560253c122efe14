//! An event as a person reads it. `tail`, `dev` and `messages show` all speak through here.

use super::print::{BAD, BOLD, DIM, GOOD, NOTE, Painted, WAIT, plain, sender};
use crate::event::{Attempted, Checked, Decision, Event, Kind};
use crate::mail::{Address, Client, Reply};
use crate::rules::outcome::Place;

/// What happened: a word for it in its colour, and the rest. Further lines belong to the first.
#[must_use]
pub fn event(event: &Event) -> Vec<String> {
    match &event.kind {
        Kind::Decided(decision) => decided(decision),
        Kind::Handled { handler, by, effects, operations, micros } => {
            let used = format!("  ({operations} operations, {:.1} ms)", milliseconds(*micros));
            let mut lines =
                vec![format!("{}{}", told(GOOD, "handled", &format!("{handler} by {by}")), Painted(DIM, used))];
            lines.extend(effects.iter().map(|effect| format!("  {} {}", Painted(NOTE, "·"), plain(effect))));
            lines
        }
        Kind::Authenticated { checks } => checks.iter().map(checked).collect(),
        Kind::Attempted(attempted) => vec![self::attempted(attempted)],
        Kind::ReloadFailed { what, error } => {
            let mut lines = vec![told(BAD, "reload failed", &format!("{what}: what was there before is kept"))];
            lines.extend(error.lines().map(|line| plain(line).into_owned()));
            lines
        }
        Kind::ScriptFailed { handler, error, source, .. } => {
            let mut lines = vec![told(BAD, "failed", &format!("{handler}: {error}"))];
            lines.extend(source.iter().flat_map(|source| pointed(error, source)));
            lines
        }
        kind => vec![message(kind).or_else(|| session(kind)).unwrap_or_else(|| server(kind))],
    }
}

/// The line of the rules that failed, and a caret below where.
fn pointed(error: &str, source: &str) -> Vec<String> {
    let Some((_, line, column)) = Place::before(error) else { return Vec::new() };
    // What stands before the caret is as wide as in the line above: a tab stays one.
    let before: String =
        source.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { c } else { ' ' }).collect();
    let is_there = column > 0 && source.chars().count() >= column;
    let number = format!("{line:>6} | ");
    let caret = is_there.then(|| format!("{} | {before}{}", " ".repeat(6), Painted(BAD, "^")));
    [format!("{}{}", Painted(DIM, number), tabs(source))].into_iter().chain(caret).collect()
}

/// Safe to print, tabs as they are.
fn tabs(line: &str) -> String {
    line.split('\t').map(|part| plain(part).into_owned()).collect::<Vec<_>>().join("\t")
}

/// A word in its colour, and what is to be said of it.
#[must_use]
pub fn told(style: anstyle::Style, word: &str, rest: &str) -> String {
    format!("{} {}", Painted(style, format_args!("{word:<9}")), plain(rest))
}

/// What bears on one message.
fn message(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Received { client, sender: from, recipients, size, subject } => {
            let to = recipients.iter().map(Address::as_str).collect::<Vec<_>>().join(", ");
            let subject = subject.as_deref().unwrap_or("(no subject)");
            let from = sender(from.as_ref());
            let rest = format!("{from} → {to}  {subject:?}  {size} bytes from {}", whom(client));
            told(BOLD, "received", &rest)
        }
        Kind::Resent { original } => told(NOTE, "resent", &format!("the same message as {original}, which stands")),
        Kind::ScriptLog { file, line, text, .. } => told(DIM, "log", &format!("{text}  ({file}:{line})")),
        Kind::Reached { file, line, what, answer, failed, kept, millis, .. } => {
            let time = if *kept { "kept".to_owned() } else { format!("{millis} ms") };
            told(if *failed { WAIT } else { DIM }, "asked", &format!("{what}: {answer}, {time}  ({file}:{line})"))
        }
        Kind::Accepted { reply, deliveries } => {
            told(GOOD, "accepted", &format!("{reply}  ({})", super::print::count(u64::from(*deliveries), "delivery")))
        }
        Kind::Rejected { reply } => told(BAD, "rejected", &reply.to_string()),
        Kind::Deferred { reply } => told(WAIT, "deferred", &reply.to_string()),
        Kind::Failed { destination, target, reason, attempts, .. } => {
            told(BAD, "given up", &format!("{target} by {destination} after {attempts}: {reason}"))
        }
        Kind::Written { what, to, mail } => {
            let to = to.iter().map(Address::as_str).collect::<Vec<_>>().join(", ");
            told(NOTE, "written", &format!("{what} to {to} as {mail}"))
        }
        Kind::NoticeSent { to, notice } => told(NOTE, "notice", &format!("to {to} as {notice}")),
        Kind::NoticeSuppressed { to, reason } => {
            told(NOTE, "no notice", &format!("to {}: {reason}", sender(to.as_ref())))
        }
        _ => return None,
    })
}

/// What bears on a session.
fn session(kind: &Kind) -> Option<String> {
    Some(match kind {
        Kind::Connected { client } => told(DIM, "connected", &whom(client)),
        Kind::TlsStarted { version, cipher } => told(DIM, "tls", &format!("{version} {cipher}")),
        Kind::TlsFailed { error } => told(BAD, "tls", error),
        Kind::Refused { phase, ip, sender, recipient, reply } => {
            told(style_of(reply), "refused", &refused(phase, *ip, sender.as_deref(), recipient.as_deref(), reply))
        }
        Kind::Dropped { phase, ip, reason } => told(DIM, "dropped", &format!("{ip} after {phase}: {reason}")),
        _ => return None,
    })
}

fn refused(phase: &str, ip: std::net::IpAddr, sender: Option<&str>, recipient: Option<&str>, reply: &Reply) -> String {
    let parties = match (sender, recipient) {
        (Some(sender), Some(recipient)) => format!(" {sender} → {recipient}"),
        (Some(sender), None) => format!(" {sender}"),
        (None, Some(recipient)) => format!(" → {recipient}"),
        (None, None) => String::new(),
    };
    format!("{ip} at {phase}{parties}: {reply}")
}

fn style_of(reply: &Reply) -> anstyle::Style {
    if reply.is_permanent() { BAD } else { WAIT }
}

/// What bears on the server as a whole.
fn server(kind: &Kind) -> String {
    match kind {
        Kind::Started { version } => told(GOOD, "started", version),
        Kind::Listening { protocol, address, tls } => told(GOOD, "listening", &format!("{protocol} {address} {tls}")),
        Kind::Reloaded { what } => told(GOOD, "reloaded", what),
        Kind::Running { rules } => told(GOOD, "running", rules),
        Kind::CanaryStopped { release, reason, .. } => {
            told(BAD, "stopped", &format!("release {release} is tried no more: {reason}"))
        }
        Kind::Fault { what, detail } => told(BAD, "fault", &format!("{what}: {detail}")),
        Kind::StorageLow { free_bytes, wanted_bytes } => {
            told(BAD, "disk", &format!("{free_bytes} bytes are free, {wanted_bytes} wanted: new mail is refused"))
        }
        Kind::Retention { messages, raw_bytes, keys } => {
            told(DIM, "retention", &format!("{messages} messages, {raw_bytes} bytes of mail, {keys} keys deleted"))
        }
        Kind::Stopping { open_sessions } => told(WAIT, "stopping", &format!("{open_sessions} sessions open")),
        Kind::DestinationPaused { destination, until, reason } => {
            told(WAIT, "paused", &format!("{destination} until {}: {reason}", super::print::time(*until)))
        }
        Kind::EndpointDisabled { endpoint, reason } => told(BAD, "disabled", &format!("{endpoint}: {reason}")),
        Kind::Admin { verb, detail } => told(NOTE, "admin", &format!("{verb}: {detail}")),
        // What is told in other words above comes here never; what is added to the list comes here until it has words.
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

fn decided(decision: &Decision) -> Vec<String> {
    let style = match decision.word() {
        "reject" | "fail" => BAD,
        "defer" => WAIT,
        _ => GOOD,
    };
    let at = decision.place.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
    let runs = if decision.runs > 1 { format!(", run {} times", decision.runs) } else { String::new() };
    let canary = if decision.canary { ", on trial" } else { "" };
    let version =
        decision.version.as_deref().map(|version| format!(" (version {version}{canary})")).unwrap_or_default();
    let verdict = format!("{} for {} by {}{version}{at}", decision.verdict, decision.recipient, decision.by);
    let used = if decision.operations == 0 {
        String::new()
    } else {
        format!("  ({} operations, {:.1} ms{runs})", decision.operations, milliseconds(decision.micros))
    };
    let mut lines = vec![format!("{}{}", told(style, "decided", &verdict), Painted(DIM, used))];
    if !decision.tags.is_empty() {
        lines.push(format!("  {} tagged {}", Painted(NOTE, "·"), plain(&decision.tags.join(", "))));
    }
    lines.extend(decision.effects.iter().map(|effect| format!("  {} {}", Painted(NOTE, "·"), plain(effect))));
    lines
}

#[allow(clippy::cast_precision_loss)] // shown to a tenth of a millisecond
fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

fn checked(checked: &Checked) -> String {
    let style = match checked.result.as_str() {
        "pass" => GOOD,
        "fail" | "softfail" => BAD,
        "temperror" => WAIT,
        _ => DIM,
    };
    let Checked { check, result, about, reason, millis } = checked;
    let about = if about.is_empty() { String::new() } else { format!(" {about}") };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    told(style, "sender", &format!("{check}={result}{about}{reason}  ({millis} ms)"))
}

fn attempted(attempted: &Attempted) -> String {
    let (style, word) = match attempted.outcome.as_str() {
        "delivered" => (GOOD, "delivered"),
        "later" => (WAIT, "later"),
        _ => (BAD, "failed"),
    };
    let host = attempted.host.as_deref().unwrap_or(&attempted.destination);
    let tls = attempted.tls.as_deref().map(|tls| format!(" over {tls}")).unwrap_or_default();
    let next = attempted.next.map(|next| format!("; again at {}", super::print::time(next))).unwrap_or_default();
    let rest = format!(
        "{} to {} at {host}{tls}, attempt {}, {} ms: {}{next}",
        attempted.kind, attempted.target, attempted.attempt, attempted.millis, attempted.answer
    );
    told(style, word, &rest)
}

fn whom(client: &Client) -> String {
    let name = client.ptr.as_deref().or(client.helo.as_deref()).map(|name| format!("{name} ")).unwrap_or_default();
    let tls = client.tls.as_ref().map(|tls| format!(" over {}", tls.version)).unwrap_or_default();
    format!("{name}[{}]:{}{tls}", client.ip, client.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;

    #[test]
    fn a_decision_shows_its_line_and_what_it_asked_for() {
        let decision = Decision {
            recipient: Address::parse("support@example.com").unwrap(),
            by: "worker rules/main.rhai".into(),
            verdict: "accept".into(),
            place: Some("rules/main.rhai:33".into()),
            effects: vec!["forward to team@example.net (rules/main.rhai:33)".into()],
            tags: vec!["invoice".into()],
            version: None,
            canary: false,
            operations: 120,
            micros: 840,
            runs: 1,
        };
        let lines = event(&Event::new(Timestamp::from_millis(0), Kind::Decided(Box::new(decision))));
        let text = anstream::adapter::strip_str(&lines.join("\n")).to_string();
        assert_eq!(
            text,
            "decided   accept for support@example.com by worker rules/main.rhai at rules/main.rhai:33  (120 operations, 0.8 ms)\n  · tagged invoice\n  · forward to team@example.net (rules/main.rhai:33)"
        );
    }

    #[test]
    fn a_peers_escape_never_reaches_the_terminal() {
        let kind = Kind::Dropped { phase: "DATA".into(), ip: [192, 0, 2, 1].into(), reason: "\u{1b}]0;x\u{7}".into() };
        let lines = event(&Event::new(Timestamp::from_millis(0), kind));
        assert!(lines[0].ends_with("\\u{1b}]0;x\\u{7}"), "{lines:?}");
    }
}
