//! What Prometheus reads. Every label's values are a closed list here; what isn't on it is `other`.
//!
//! Handles are made once and kept: counting an event is an atomic addition, without a look-up by name.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::clock;
use crate::event::{Event, Kind};
use crate::mail::Timestamp;

const PHASES: &[&str] = &["connect", "helo", "mail", "rcpt", "data", "other"];
const CODES: &[&str] = &[
    "421", "450", "451", "452", "500", "501", "502", "503", "504", "521", "530", "550", "551", "552", "553", "554",
    "555", "other",
];
const OUTCOMES: &[&str] = &["accepted", "rejected", "deferred", "resent", "other"];
const VERDICTS: &[&str] = &["accept", "store", "drop", "reject", "defer", "fail", "other"];
const DELIVERIES: &[&str] = &["relay", "webhook", "notice", "decide", "tell", "other"];
const ATTEMPTS: &[&str] = &["delivered", "later", "failed", "other"];
const VERSIONS: &[&str] = &["TLSv1.2", "TLSv1.3", "other"];
const NOTICES: &[&str] = &["sent", "suppressed"];
const WRITTEN: &[&str] = &["mail", "reply"];
const RELEASES: &[&str] = &["active", "canary"];
const RESULTS: &[&str] = &["ok", "fail"];
const UNLOGGED: &[&str] = &["flood", "stderr", "store"];
const ONE: &[&str] = &[""];

/// In seconds: from a fast disk's sync to a slow peer's patience.
const BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// After so many samples, those of the histograms are folded together, whether or not anybody asks for them.
const FOLD_EVERY: u32 = 16 * 1024;

/// A number that its owner knows and that is read when the metrics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    SessionsOpen,
    InFlightBytes,
    StorageFreeBytes,
    DeliveryAttempts,
    WorkerRuns,
    WorkerRequests,
    StoreReads,
    StoreWaiting,
}

/// What each level is called, and what it says.
const LEVELS: &[(Level, &str, &str)] = &[
    (Level::SessionsOpen, "mailworker_sessions_open", "Sessions open now"),
    (
        Level::InFlightBytes,
        "mailworker_in_flight_bytes",
        "Octets of mail held in memory while it is received and decided",
    ),
    (Level::StorageFreeBytes, "mailworker_storage_free_bytes", "Free space on the store's disk"),
    (
        Level::DeliveryAttempts,
        "mailworker_delivery_attempts_open",
        "Attempts at deliveries under way, of [limits] deliveries",
    ),
    (Level::WorkerRuns, "mailworker_worker_runs_open", "Worker runs under way that took a place of [limits] runs"),
    (
        Level::WorkerRequests,
        "mailworker_worker_requests_open",
        "Requests outside (fetch, ai, DNS) that workers wait for",
    ),
    (Level::StoreReads, "mailworker_store_reads_open", "Reads of the store under way, those of workers apart"),
    (Level::StoreWaiting, "mailworker_store_waiting", "Changes that wait for the store's writer or are being written"),
];

type Source = Box<dyn Fn() -> u64 + Send + Sync>;

/// Counters of one name, by one or two labels.
struct Family {
    rows: &'static [&'static str],
    columns: &'static [&'static str],
    /// All made at the start, so that the first event is an increase over 0 and not a series that begins at 1.
    cells: Vec<Counter>,
}

impl Family {
    fn new(
        recorder: &PrometheusRecorder,
        name: &'static str,
        rows: (&'static str, &'static [&'static str]),
        columns: (&'static str, &'static [&'static str]),
    ) -> Self {
        let labels = |pairs: [(&'static str, &'static str); 2]| {
            let named = pairs.into_iter().filter(|(label, _)| !label.is_empty());
            named.map(|(label, value)| metrics::Label::new(label, value)).collect::<Vec<_>>()
        };
        let pairs = rows.1.iter().flat_map(|row| columns.1.iter().map(move |column| (*row, *column)));
        let cells = pairs
            .map(|(row, column)| {
                let labels = labels([(rows.0, row), (columns.0, column)]);
                with_local_recorder(recorder, || counter!(name, labels))
            })
            .collect();
        Self { rows: rows.1, columns: columns.1, cells }
    }

    fn plain(recorder: &PrometheusRecorder, name: &'static str) -> Self {
        Self::new(recorder, name, ("", ONE), ("", ONE))
    }

    fn by(
        recorder: &PrometheusRecorder,
        name: &'static str,
        label: &'static str,
        values: &'static [&'static str],
    ) -> Self {
        Self::new(recorder, name, (label, values), ("", ONE))
    }

    fn cell(&self, row: &str, column: &str) -> Option<&Counter> {
        let (row, column) = (place(self.rows, row), place(self.columns, column));
        self.cells.get(row * self.columns.len() + column)
    }

    fn add(&self, row: &str, column: &str, count: u64) {
        if let Some(cell) = self.cell(row, column) {
            cell.increment(count);
        }
    }
}

/// Where a value stands in its list; the last place is for what isn't on it.
fn place(values: &[&str], value: &str) -> usize {
    values.iter().position(|known| *known == value).unwrap_or(values.len().saturating_sub(1))
}

struct Metrics {
    handle: PrometheusHandle,
    samples: AtomicU32,
    levels: Vec<(Level, Gauge)>,
    sources: RwLock<Vec<(Level, Source)>>,

    sessions: Family,
    tls: Family,
    tls_failures: Family,
    refused: Family,
    dropped: Family,
    messages: Family,
    message_bytes: Family,
    decisions: Family,
    script_failures: Family,
    deliveries: Family,
    deliveries_failed: Family,
    notices: Family,
    written: Family,
    pauses: Family,
    faults: Family,
    reload_failures: Family,
    release_runs: Family,
    canaries_stopped: Family,
    unlogged: Family,

    accept_seconds: Histogram,
    decision_seconds: Histogram,
    delivery_seconds: Histogram,

    queued: Gauge,
    dead: Gauge,
    oldest_queued_seconds: Gauge,
    store_bytes: Gauge,
}

impl Metrics {
    fn new() -> Self {
        // Only an empty list of buckets is refused, and this one isn't.
        let builder = PrometheusBuilder::new().set_buckets(BUCKETS).unwrap_or_default();
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, describe);
        let seconds = |name: &'static str| with_local_recorder(&recorder, || histogram!(name));
        let level = |name: &'static str| with_local_recorder(&recorder, || gauge!(name));
        let plain = |name: &'static str| Family::plain(&recorder, name);
        let by = |name: &'static str, label, values| Family::by(&recorder, name, label, values);
        let table = |name: &'static str, rows, columns| Family::new(&recorder, name, rows, columns);
        Self {
            sessions: plain("mailworker_sessions_total"),
            tls: by("mailworker_tls_sessions_total", "version", VERSIONS),
            tls_failures: plain("mailworker_tls_failures_total"),
            refused: table("mailworker_refused_total", ("phase", PHASES), ("code", CODES)),
            dropped: by("mailworker_dropped_total", "phase", PHASES),
            messages: by("mailworker_messages_total", "outcome", OUTCOMES),
            message_bytes: plain("mailworker_message_bytes_total"),
            decisions: by("mailworker_decisions_total", "verdict", VERDICTS),
            script_failures: plain("mailworker_script_failures_total"),
            deliveries: table("mailworker_deliveries_total", ("kind", DELIVERIES), ("outcome", ATTEMPTS)),
            deliveries_failed: plain("mailworker_deliveries_failed_total"),
            notices: by("mailworker_notices_total", "outcome", NOTICES),
            written: by("mailworker_written_total", "what", WRITTEN),
            pauses: plain("mailworker_destination_pauses_total"),
            faults: plain("mailworker_faults_total"),
            reload_failures: plain("mailworker_reload_failures_total"),
            release_runs: table("mailworker_release_runs_total", ("release", RELEASES), ("result", RESULTS)),
            canaries_stopped: plain("mailworker_canaries_stopped_total"),
            unlogged: by("mailworker_unlogged_total", "why", UNLOGGED),
            accept_seconds: seconds("mailworker_accept_seconds"),
            decision_seconds: seconds("mailworker_decision_seconds"),
            delivery_seconds: seconds("mailworker_delivery_seconds"),
            levels: LEVELS.iter().map(|(which, name, _)| (*which, level(name))).collect(),
            queued: level("mailworker_queued_deliveries"),
            dead: level("mailworker_dead_deliveries"),
            oldest_queued_seconds: level("mailworker_oldest_queued_seconds"),
            store_bytes: level("mailworker_store_bytes"),
            samples: AtomicU32::new(0),
            sources: RwLock::default(),
            handle,
        }
    }

    fn set(&self, level: Level, value: u64) {
        if let Some((_, gauge)) = self.levels.iter().find(|(known, _)| *known == level) {
            gauge.set(float(value));
        }
    }

    fn time(&self, histogram: &Histogram, seconds: f64) {
        histogram.record(seconds);
        if self.samples.fetch_add(1, Ordering::Relaxed) % FOLD_EVERY == FOLD_EVERY - 1 {
            self.handle.run_upkeep();
        }
    }

    fn count(&self, event: &Event) {
        match &event.kind {
            Kind::Connected { .. } => self.sessions.add("", "", 1),
            Kind::TlsStarted { version, .. } => self.tls.add(version, "", 1),
            Kind::TlsFailed { .. } => self.tls_failures.add("", "", 1),
            Kind::Refused { phase, reply, .. } => self.refused.add(phase, code(reply.code), 1),
            Kind::Dropped { phase, .. } => self.dropped.add(phase, "", 1),
            Kind::Fault { .. } => self.faults.add("", "", 1),
            Kind::CanaryStopped { .. } => self.canaries_stopped.add("", "", 1),
            Kind::ReloadFailed { .. } => self.reload_failures.add("", "", 1),
            Kind::StorageLow { free_bytes, .. } => self.set(Level::StorageFreeBytes, *free_bytes),
            Kind::DestinationPaused { .. } => self.pauses.add("", "", 1),
            Kind::NoticeSent { .. } => self.notices.add("sent", "", 1),
            Kind::NoticeSuppressed { .. } => self.notices.add("suppressed", "", 1),
            Kind::Failed { .. } => self.deliveries_failed.add("", "", 1),
            Kind::Attempted(attempt) => {
                self.deliveries.add(&attempt.kind, &attempt.outcome, 1);
                self.time(&self.delivery_seconds, float(attempt.millis) / 1e3);
            }
            _ => self.count_message(event),
        }
    }

    fn count_message(&self, event: &Event) {
        match &event.kind {
            Kind::Received { size, .. } => self.message_bytes.add("", "", *size),
            Kind::Accepted { .. } => {
                self.messages.add("accepted", "", 1);
                self.answered(event);
            }
            Kind::Rejected { .. } => self.messages.add("rejected", "", 1),
            Kind::Deferred { .. } => self.messages.add("deferred", "", 1),
            Kind::Resent { .. } => self.messages.add("resent", "", 1),
            Kind::ScriptFailed { .. } => self.script_failures.add("", "", 1),
            Kind::Written { what, .. } => self.written.add(what, "", 1),
            Kind::Decided(decision) => {
                self.decisions.add(decision.word(), "", 1);
                if decision.version.is_some() {
                    let release = if decision.canary { "canary" } else { "active" };
                    self.release_runs.add(release, if decision.word() == "fail" { "fail" } else { "ok" }, 1);
                }
                self.time(&self.decision_seconds, float(decision.micros) / 1e6);
            }
            _ => {}
        }
    }

    /// A message's id tells when it arrived.
    fn answered(&self, event: &Event) {
        if let Some(id) = event.message {
            self.time(&self.accept_seconds, event.at.since(id.timestamp()).as_secs_f64());
        }
    }
}

fn describe() {
    let counters = [
        ("mailworker_sessions_total", "Sessions begun"),
        ("mailworker_tls_sessions_total", "TLS handshakes done, by version"),
        ("mailworker_tls_failures_total", "TLS handshakes failed"),
        ("mailworker_refused_total", "Connections, commands and messages refused, by phase and code"),
        ("mailworker_dropped_total", "Sessions that ended otherwise than by QUIT, by phase"),
        ("mailworker_messages_total", "Messages answered, by outcome"),
        ("mailworker_message_bytes_total", "Octets of the messages received"),
        ("mailworker_decisions_total", "Decisions for one recipient, by verdict"),
        ("mailworker_script_failures_total", "Worker runs that failed"),
        ("mailworker_deliveries_total", "Attempts at deliveries, by kind and outcome"),
        ("mailworker_deliveries_failed_total", "Deliveries given up"),
        ("mailworker_notices_total", "Delivery status notifications, sent or suppressed"),
        ("mailworker_written_total", "Mails that workers wrote"),
        ("mailworker_destination_pauses_total", "Destinations given a rest"),
        ("mailworker_faults_total", "Our own faults"),
        ("mailworker_reload_failures_total", "Reloads that failed"),
        ("mailworker_release_runs_total", "Runs of deployed workers, by release (active, canary) and result"),
        ("mailworker_canaries_stopped_total", "Releases on trial that were given up"),
        (
            "mailworker_unlogged_total",
            "Not logged: lines kept back in a flood, lines that standard error took too slowly, events the store's log had no place for",
        ),
    ];
    let gauges = [
        ("mailworker_queued_deliveries", "Deliveries not yet settled"),
        ("mailworker_dead_deliveries", "Deliveries given up and kept for an admin"),
        ("mailworker_oldest_queued_seconds", "Age of the oldest delivery not yet settled"),
        ("mailworker_store_bytes", "Size of the store on its disk"),
    ];
    let histograms = [
        ("mailworker_accept_seconds", "From a message's last octet to its commit on disk, worker included"),
        ("mailworker_decision_seconds", "Time a worker ran for one recipient"),
        ("mailworker_delivery_seconds", "Time of one attempt at a delivery"),
    ];
    for (name, text) in counters {
        metrics::describe_counter!(name, text);
    }
    for (name, text) in gauges.into_iter().chain(LEVELS.iter().map(|(_, name, text)| (*name, *text))) {
        metrics::describe_gauge!(name, text);
    }
    for (name, text) in histograms {
        metrics::describe_histogram!(name, text);
    }
}

/// The code as its label's value.
fn code(code: u16) -> &'static str {
    let mut digits = [b'0'; 3];
    for (digit, divisor) in digits.iter_mut().zip([100, 10, 1]) {
        *digit += u8::try_from(code / divisor % 10).unwrap_or(0);
    }
    CODES.iter().find(|known| known.as_bytes() == digits).copied().unwrap_or("other")
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floats alone, exact to 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

fn all() -> &'static Metrics {
    static ALL: OnceLock<Metrics> = OnceLock::new();
    ALL.get_or_init(Metrics::new)
}

/// Counts one event.
pub(super) fn count(event: &Event) {
    all().count(event);
}

/// Names who knows a level; it is asked each time the metrics are read. The last one named counts.
pub fn level(level: Level, source: impl Fn() -> u64 + Send + Sync + 'static) {
    let mut levels = all().sources.write().unwrap_or_else(PoisonError::into_inner);
    levels.retain(|(known, _)| *known != level);
    levels.push((level, Box::new(source)));
}

/// So many more lines or events weren't logged, and why.
pub(super) fn unlogged(why: &str, count: u64) {
    all().unlogged.add(why, "", count);
}

/// Takes over what the store counts.
pub fn gauges(gauges: &crate::store::Gauges) {
    let all = all();
    if let Some(store) = all.unlogged.cell("store", "") {
        store.absolute(gauges.unlogged);
    }
    all.queued.set(float(gauges.queued));
    all.dead.set(float(gauges.dead));
    all.store_bytes.set(float(gauges.store_bytes));
    let age = |since: Timestamp| clock::now().since(since).as_secs_f64();
    all.oldest_queued_seconds.set(gauges.oldest_queued.map_or(0.0, age));
}

/// All metrics in Prometheus' text format.
#[must_use]
pub fn prometheus() -> String {
    let all = all();
    for (level, source) in all.sources.read().unwrap_or_else(PoisonError::into_inner).iter() {
        all.set(*level, source());
    }
    all.handle.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{MessageId, Reply};

    fn event(kind: Kind) -> Event {
        Event::new(Timestamp::from_millis(1_500), kind)
    }

    #[test]
    fn events_are_counted_by_their_labels() {
        let metrics = Metrics::new();
        let refused = |code| Kind::Refused {
            phase: "rcpt".to_owned(),
            ip: "192.0.2.1".parse().unwrap(),
            sender: None,
            recipient: Some("victim@example.com".to_owned()),
            reply: Reply::new(code, 7, 1, "no"),
        };
        metrics.count(&event(refused(550)));
        metrics.count(&event(refused(550)));
        metrics.count(&event(refused(597)));
        let text = metrics.handle.render();
        assert!(text.contains(r#"mailworker_refused_total{phase="rcpt",code="550"} 2"#), "{text}");
        assert!(text.contains(r#"mailworker_refused_total{phase="rcpt",code="other"} 1"#), "{text}");
        assert!(!text.contains("victim"), "{text}");
    }

    #[test]
    fn each_counter_is_there_before_its_first_event() {
        let text = Metrics::new().handle.render();
        for zero in [
            "mailworker_faults_total 0",
            "mailworker_sessions_total 0",
            r#"mailworker_messages_total{outcome="deferred"} 0"#,
            r#"mailworker_deliveries_total{kind="webhook",outcome="failed"} 0"#,
            r#"mailworker_refused_total{phase="rcpt",code="550"} 0"#,
            r#"mailworker_unlogged_total{why="store"} 0"#,
        ] {
            assert!(text.lines().any(|line| line == zero), "{zero}\n{text}");
        }
    }

    #[test]
    fn a_verdict_is_counted_by_its_word() {
        let metrics = Metrics::new();
        let decision = crate::event::Decision {
            recipient: crate::mail::Address::parse("a@example.com").unwrap(),
            by: "worker rules/main.rhai".to_owned(),
            verdict: "store (the worker decided nothing)".to_owned(),
            place: None,
            effects: Vec::new(),
            tags: Vec::new(),
            version: None,
            canary: false,
            operations: 1,
            micros: 1,
            runs: 1,
        };
        metrics.count(&event(Kind::Decided(Box::new(decision))));
        let text = metrics.handle.render();
        assert!(text.contains(r#"mailworker_decisions_total{verdict="store"} 1"#), "{text}");
    }

    #[test]
    fn acceptance_is_timed_from_the_arrival() {
        let metrics = Metrics::new();
        let accepted = Kind::Accepted { reply: Reply::new(250, 0, 0, "ok"), deliveries: 1 };
        metrics.count(&event(accepted).of(MessageId::new(Timestamp::from_millis(1_000), 1)));
        let text = metrics.handle.render();
        assert!(text.contains("mailworker_accept_seconds_sum 0.5"), "{text}");
        assert!(text.contains(r#"mailworker_messages_total{outcome="accepted"} 1"#), "{text}");
    }

    #[test]
    fn levels_are_read_when_the_metrics_are() {
        level(Level::InFlightBytes, || 4096);
        assert!(prometheus().contains("mailworker_in_flight_bytes 4096"));
        gauges(&crate::store::Gauges { queued: 3, ..Default::default() });
        assert!(prometheus().contains("mailworker_queued_deliveries 3"));
    }
}
