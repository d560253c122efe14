//! One event, one line. Faults are errors, what needs an eye is a warning, what happens to a message is info.
//!
//! Texts that come from peers, scripts or files are recorded as strings, which the formatters quote and escape; the
//! message of a line is always one of ours. What a stranger can cause without a message of its own (refusals, connections
//! that break, what `rcpt_to` prints) has an [`Allowance`]: a flood of it must not become one of lines.

use std::net::IpAddr;
use std::sync::LazyLock;

use super::allowance::Allowance;
use super::metrics;
use crate::event::{Attempted, Decision, Event, Kind};
use crate::mail::{Address, Client, Reply, Timestamp};

/// Of sessions: refused, dropped, handshakes that failed.
static SESSIONS: LazyLock<Allowance> = LazyLock::new(Allowance::default);
/// Of scripts that ran for no message yet: strangers must not hide a session's lines behind them.
static SCRIPTS: LazyLock<Allowance> = LazyLock::new(Allowance::default);

/// The null sender is written as SMTP writes it.
fn sender(sender: Option<&Address>) -> &str {
    sender.map_or("<>", Address::as_str)
}

/// Logs one event.
pub(super) fn write(event: &Event) {
    tell_kept_back(event.at);
    match &event.kind {
        Kind::Started { .. }
        | Kind::Listening { .. }
        | Kind::Reloaded { .. }
        | Kind::Running { .. }
        | Kind::CanaryStopped { .. }
        | Kind::ReloadFailed { .. }
        | Kind::Fault { .. }
        | Kind::StorageLow { .. }
        | Kind::Retention { .. }
        | Kind::Stopping { .. }
        | Kind::Admin { .. } => server(event),
        Kind::Connected { .. }
        | Kind::TlsStarted { .. }
        | Kind::TlsFailed { .. }
        | Kind::Refused { .. }
        | Kind::Dropped { .. } => session(event),
        Kind::Attempted(attempt) => attempted(event, attempt),
        Kind::Failed { .. }
        | Kind::Written { .. }
        | Kind::NoticeSent { .. }
        | Kind::NoticeSuppressed { .. }
        | Kind::DestinationPaused { .. }
        | Kind::EndpointDisabled { .. } => delivery(event),
        _ => message(event),
    }
}

fn server(event: &Event) {
    match &event.kind {
        Kind::Started { version } => tracing::info!(version = version.as_str(), "started"),
        Kind::Listening { protocol, address, tls } => {
            tracing::info!(protocol = protocol.as_str(), address = address.as_str(), tls = tls.as_str(), "listening");
        }
        Kind::Reloaded { what } => tracing::info!(what = what.as_str(), "reloaded"),
        Kind::Running { rules } => tracing::info!(rules = rules.as_str(), "running"),
        Kind::CanaryStopped { env, release, reason } => {
            tracing::warn!(env = env.as_str(), release, reason = reason.as_str(), "canary stopped");
        }
        Kind::ReloadFailed { what, error } => {
            tracing::error!(what = what.as_str(), error = error.as_str(), "reload failed, the old one is kept");
        }
        Kind::Fault { what, detail } => {
            tracing::error!(session = event.session, what = what.as_str(), detail = detail.as_str(), "fault");
        }
        Kind::StorageLow { free_bytes, wanted_bytes } => tracing::warn!(free_bytes, wanted_bytes, "storage low"),
        Kind::Retention { messages, raw_bytes, keys } => tracing::info!(messages, raw_bytes, keys, "retention"),
        Kind::Stopping { open_sessions } => tracing::info!(open_sessions, "stopping"),
        Kind::Admin { verb, detail } => tracing::info!(verb = verb.as_str(), detail = detail.as_str(), "admin"),
        _ => {}
    }
}

fn session(event: &Event) {
    let session = event.session;
    match &event.kind {
        Kind::Connected { client } => {
            tracing::debug!(session, ip = %client.ip, port = client.port, listener = client.listener.as_str(), "connected");
        }
        Kind::TlsStarted { version, cipher } => {
            tracing::debug!(session, version = version.as_str(), cipher = cipher.as_str(), "tls started");
        }
        Kind::TlsFailed { error } if is_granted(&SESSIONS, None, event) => {
            tracing::info!(session, error = error.as_str(), "tls failed");
        }
        Kind::Refused { phase, ip, sender, recipient, reply } if is_granted(&SESSIONS, Some(*ip), event) => {
            tracing::info!(
                session,
                phase = phase.as_str(),
                ip = %ip,
                sender = sender.as_deref(),
                recipient = recipient.as_deref(),
                reply = text(reply).as_str(),
                "refused"
            );
        }
        Kind::Dropped { phase, ip, reason } if is_granted(&SESSIONS, Some(*ip), event) => {
            tracing::info!(session, phase = phase.as_str(), ip = %ip, reason = reason.as_str(), "dropped");
        }
        _ => {}
    }
}

fn text(reply: &Reply) -> String {
    reply.to_string()
}

fn is_granted(allowance: &Allowance, ip: Option<IpAddr>, event: &Event) -> bool {
    let granted = allowance.grants(ip, event.at);
    if !granted {
        metrics::unlogged("flood", 1);
    }
    granted
}

/// One line for all that got none in the window that is over.
pub(super) fn tell_kept_back(now: Timestamp) {
    tell_of(&SESSIONS, "sessions", now);
    tell_of(&SCRIPTS, "scripts", now);
}

fn tell_of(allowance: &Allowance, of: &str, now: Timestamp) {
    if let Some(kept) = allowance.kept_back(now) {
        let (most_ip, most) = kept.most.unzip();
        let most_ip = most_ip.map(tracing::field::display);
        tracing::info!(of, kept_back = kept.lines, most_ip, most, "lines kept back");
    }
}

fn message(event: &Event) {
    let session = event.session;
    let id = event.message.map(tracing::field::display);
    match &event.kind {
        Kind::Received { client, sender: from, recipients, size, .. } => {
            received(event, client, sender(from.as_ref()), recipients, *size);
        }
        Kind::Resent { original } => tracing::info!(session, id, original = %original, "resent"),
        Kind::Handled { handler, by, effects, micros, .. } => tracing::info!(
            id = event.message.map(tracing::field::display),
            handler = handler.as_str(),
            by = by.as_str(),
            effects = effects.len(),
            micros,
            "handled"
        ),
        Kind::Authenticated { checks } => {
            let all: Vec<String> = checks.iter().map(|one| format!("{}={}", one.check, one.result)).collect();
            tracing::info!(session, id, checks = all.join(" ").as_str(), "authenticated");
        }
        Kind::Decided(decision) => decided(event, decision),
        Kind::ScriptLog { .. } | Kind::Reached { .. } | Kind::ScriptFailed { .. } => script(event),
        Kind::Accepted { reply, deliveries } => {
            tracing::info!(session, id, deliveries, reply = text(reply).as_str(), "accepted");
        }
        Kind::Rejected { reply } => tracing::info!(session, id, reply = text(reply).as_str(), "rejected"),
        Kind::Deferred { reply } => tracing::info!(session, id, reply = text(reply).as_str(), "deferred"),
        _ => {}
    }
}

fn script(event: &Event) {
    if event.message.is_none() && !is_granted(&SCRIPTS, None, event) {
        return;
    }
    let session = event.session;
    let id = event.message.map(tracing::field::display);
    match &event.kind {
        Kind::ScriptLog { recipient, file, line, text } => tracing::info!(
            session,
            id,
            recipient = recipient.as_ref().map(Address::as_str),
            file = file.as_str(),
            line,
            text = text.as_str(),
            "script"
        ),
        Kind::Reached { recipient, file, line, what, answer, failed, kept, millis } => tracing::info!(
            session,
            id,
            recipient = recipient.as_ref().map(Address::as_str),
            file = file.as_str(),
            line,
            what = what.as_str(),
            answer = answer.as_str(),
            failed,
            kept,
            millis,
            "reached"
        ),
        Kind::ScriptFailed { recipient, handler, error, .. } => tracing::error!(
            session,
            id,
            recipient = recipient.as_ref().map(Address::as_str),
            handler = handler.as_str(),
            error = error.as_str(),
            "script failed"
        ),
        _ => {}
    }
}

fn received(event: &Event, client: &Client, sender: &str, recipients: &[Address], size: u64) {
    tracing::info!(
        session = event.session,
        id = event.message.map(tracing::field::display),
        ip = %client.ip,
        helo = client.helo.as_deref(),
        sender,
        recipient = recipients.first().map(Address::as_str),
        recipients = recipients.len(),
        size,
        "received"
    );
}

fn decided(event: &Event, decision: &Decision) {
    tracing::info!(
        session = event.session,
        id = event.message.map(tracing::field::display),
        recipient = decision.recipient.as_str(),
        by = decision.by.as_str(),
        verdict = decision.verdict.as_str(),
        place = decision.place.as_deref(),
        effects = decision.effects.len(),
        tags = (!decision.tags.is_empty()).then(|| decision.tags.join(",")),
        micros = decision.micros,
        runs = decision.runs,
        "decided"
    );
}

fn attempted(event: &Event, attempt: &Attempted) {
    tracing::info!(
        id = event.message.map(tracing::field::display),
        delivery = attempt.delivery,
        kind = attempt.kind.as_str(),
        target = attempt.target.as_str(),
        host = attempt.host.as_deref(),
        attempt = attempt.attempt,
        outcome = attempt.outcome.as_str(),
        answer = attempt.answer.as_str(),
        millis = attempt.millis,
        next = attempt.next.map(tracing::field::display),
        "attempted"
    );
}

fn delivery(event: &Event) {
    let id = event.message.map(tracing::field::display);
    match &event.kind {
        Kind::Failed { delivery, destination, target, reason, attempts } => tracing::warn!(
            id,
            delivery,
            destination = destination.as_str(),
            target = target.as_str(),
            reason = reason.as_str(),
            attempts,
            "delivery failed"
        ),
        Kind::Written { what, to, mail } => {
            let first = to.first().map(Address::as_str);
            tracing::info!(id, what = what.as_str(), to = first, recipients = to.len(), mail = %mail, "written");
        }
        Kind::NoticeSent { to, notice } => tracing::info!(id, to = to.as_str(), notice = %notice, "notice sent"),
        Kind::NoticeSuppressed { to, reason } => {
            tracing::info!(id, to = sender(to.as_ref()), reason = reason.as_str(), "notice suppressed");
        }
        Kind::DestinationPaused { destination, until, reason } => tracing::warn!(
            destination = destination.as_str(),
            until = %until,
            reason = reason.as_str(),
            "destination paused"
        ),
        Kind::EndpointDisabled { endpoint, reason } => {
            tracing::warn!(id, endpoint = endpoint.as_str(), reason = reason.as_str(), "endpoint disabled");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::super::plain::Plain;
    use super::*;
    use crate::mail::{MessageId, Timestamp};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(json: bool, event: &Event) -> String {
        lines_of(json, || write(event))
    }

    fn lines_of(json: bool, telling: impl FnOnce()) -> String {
        let sink = Sink::default();
        let made = sink.clone();
        let builder = tracing_subscriber::fmt()
            .with_writer(move || made.clone())
            .with_ansi(false)
            .with_target(false)
            .with_max_level(tracing::Level::INFO);
        if json {
            tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), telling);
        } else {
            tracing::subscriber::with_default(builder.event_format(Plain).finish(), telling);
        }
        let octets = sink.0.lock().unwrap().clone();
        String::from_utf8(octets).unwrap()
    }

    fn refusal(sender: &str) -> Event {
        let kind = Kind::Refused {
            phase: "rcpt".to_owned(),
            ip: "192.0.2.1".parse().unwrap(),
            sender: Some(sender.to_owned()),
            recipient: None,
            reply: Reply::new(550, 7, 1, "no\nrelaying"),
        };
        Event::new(Timestamp::from_millis(0), kind).in_session(7)
    }

    #[test]
    fn a_line_names_what_happened() {
        let line = written(false, &refusal("a@example.com"));
        for part in ["INFO", "refused", "session=7", "phase=\"rcpt\"", "ip=192.0.2.1", "550 5.7.1 no / relaying"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn a_peers_octets_neither_break_nor_forge_a_line() {
        let line = written(false, &refusal("a\r\nERROR fault\x1b[31m@example.com"));
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
        assert!(!line.contains('\x1b'), "{line}");
        let line = written(true, &refusal("a\r\n\"}@example.com"));
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["sender"], "a\r\n\"}@example.com");
    }

    #[test]
    fn a_message_is_found_by_its_id() {
        let id = MessageId::new(Timestamp::from_millis(1), 2);
        let event = Event::new(Timestamp::from_millis(5), Kind::Rejected { reply: Reply::new(550, 7, 1, "no") }).of(id);
        assert!(written(false, &event).contains(&id.to_string()));
    }

    #[test]
    fn connections_are_not_told_of_above_debug() {
        let client = Client {
            ip: "192.0.2.1".parse().unwrap(),
            port: 1,
            listener: String::new(),
            helo: None,
            esmtp: false,
            tls: None,
            ptr: None,
            auth: None,
            origin: crate::mail::Origin::default(),
        };
        let event = Event::new(Timestamp::from_millis(0), Kind::Connected { client: Box::new(client) });
        assert_eq!(written(false, &event), "");
    }

    #[test]
    fn a_flood_of_refusals_is_no_flood_of_lines() {
        // One of its own: the process's counts what other tests log meanwhile.
        let allowance = Allowance::default();
        let flood = refusal("a@example.com");
        let ip = "198.51.100.9".parse().ok();
        let lines = (0..50).filter(|_| is_granted(&allowance, ip, &flood)).count();
        assert_eq!(lines, 20);
        let told = lines_of(false, || tell_of(&allowance, "sessions", Timestamp::from_millis(10_000)));
        assert!(told.contains("kept_back=30 most_ip=198.51.100.9 most=30"), "{told}");
    }
}
