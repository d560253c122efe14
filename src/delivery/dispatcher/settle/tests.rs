//! Each result of an attempt, and what it comes to.

use std::path::Path;

use super::*;
use crate::config::load;
use crate::delivery::Side;
use crate::delivery::dispatcher::attempt::{Extent, Trouble};
use crate::delivery::dispatcher::destination::Resting;
use crate::mail::{Address, MessageId};
use crate::store::WebhookTask;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const MINUTE: Duration = Duration::from_mins(1);

const CONFIG: &str = r#"
hostname = "mx.example.com"
[[domain]]
name = "example.com"
postmaster = "admin@example.net"
[relay]
retry = ["1 m", "5 m"]
expire = "1 d"
delay_notice = "4 h"
[webhook_defaults]
retry = ["10 s"]
"#;

pub(in crate::delivery::dispatcher) fn config() -> Config {
    Config::from_toml(CONFIG, "test.toml", Path::new("/"), &load::Options::default()).unwrap().config
}

/// Workers that hear of nothing.
struct Deaf;

impl Decide for Deaf {
    fn decide(&self, _: DeliveryKey, _: std::sync::Arc<Body>, _: DecideTask) -> crate::delivery::Deciding<'_> {
        panic!("nobody decides")
    }
    fn hears(&self, _: Option<&crate::store::Decider>, _: &Address, _: bool) -> bool {
        false
    }
    fn tell(&self, _: DeliveryKey, _: TellTask) -> crate::delivery::Deciding<'_> {
        panic!("nobody hears")
    }
}

fn judge(config: &Config) -> Judge<'_> {
    Judge { config, ears: &Deaf, destination: "mx:example.net", now: NOW, chance: 0.5, took: Duration::from_millis(7) }
}

fn task(notify: Notify) -> RelayTask {
    RelayTask {
        recipient: Address::parse("team@example.net").unwrap(),
        original: Address::parse("support@example.com").unwrap(),
        notify,
        orcpt: None,
        via: None,
        headers: Vec::new(),
        removed: Vec::new(),
        own: false,
        by: None,
    }
}

fn delivery(task: Task, attempts: u32, age: Duration) -> Delivery {
    Delivery {
        key: DeliveryKey { message: MessageId::new(NOW, 1), n: 0 },
        task,
        destination: "mx:example.net".into(),
        attempts,
        queued_at: NOW.minus(age),
        due: NOW,
        delay_noticed: false,
        warm: None,
    }
}

fn relayed(notify: Notify, attempts: u32, age: Duration, result: Result<Reply, Failure>) -> Settlement {
    let config = config();
    let task = task(notify);
    let by = Relayed { peer: Some("mx1.example.net [192.0.2.1]:25".into()), tls: None, passes_dsn: false };
    judge(&config).relayed(&delivery(Task::Relay(task.clone()), attempts, age), &task, result, &by)
}

fn refusal(retry: Retry) -> Failure {
    let (code, status) = if retry == Retry::Never { (550, "5.1.1") } else { (450, "4.2.0") };
    Failure {
        retry,
        side: Side::Remote,
        status: status.into(),
        reply: Some(Reply::new(code, 1, 1, "no")),
        detail: "mx1 said no".into(),
    }
}

fn notices(settlement: &Settlement) -> Vec<(&str, &str, &str)> {
    settlement
        .then
        .iter()
        .filter_map(|new| match &new.task {
            Task::Notice(notice) => Some((notice.action.as_str(), notice.status.as_str(), notice.recipient.as_str())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_delivered_one_is_done_and_calls_for_no_notice() {
    let settlement = relayed(Notify::default(), 0, MINUTE, Ok(Reply::new(250, 0, 0, "ok")));
    assert_eq!(settlement.result, Settled::Done);
    assert!(settlement.then.is_empty());
}

#[test]
fn success_is_told_where_it_was_asked_for_and_nobody_else_tells_it() {
    let asked = Notify { success: true, failure: false, delay: false, explicit: true };
    let settlement = relayed(asked, 0, MINUTE, Ok(Reply::new(250, 0, 0, "ok")));
    assert_eq!(notices(&settlement), [("relayed", "2.0.0", "support@example.com")]);
}

#[test]
fn a_refusal_for_good_is_dead_and_names_the_recipient_as_the_sender_knows_it() {
    let settlement = relayed(Notify::default(), 0, MINUTE, Err(refusal(Retry::Never)));
    assert_eq!(settlement.result, Settled::Dead { error: "mx1 said no".into() });
    assert_eq!(notices(&settlement), [("failed", "5.1.1", "support@example.com")]);
    assert!(matches!(settlement.events.last().map(|event| &event.kind), Some(Kind::Failed { attempts: 1, .. })));
}

#[test]
fn notify_never_is_heard() {
    let never = Notify { success: false, failure: false, delay: false, explicit: true };
    assert!(relayed(never, 0, MINUTE, Err(refusal(Retry::Never))).then.is_empty());
    assert!(relayed(never, 0, 300 * MINUTE, Err(refusal(Retry::Later))).then.is_empty());
}

#[test]
fn a_refusal_for_now_waits_by_the_schedule() {
    let due = |attempts| match relayed(Notify::default(), attempts, MINUTE, Err(refusal(Retry::Later))).result {
        Settled::Later { due, delay_noticed: false, .. } => due.since(NOW),
        other => panic!("{other:?}"),
    };
    assert_eq!([due(0), due(1), due(2)], [MINUTE, 5 * MINUTE, 5 * MINUTE]);
}

#[test]
fn a_delay_is_told_once() {
    let long = 250 * MINUTE;
    let first = relayed(Notify::default(), 5, long, Err(refusal(Retry::Later)));
    assert_eq!(notices(&first), [("delayed", "4.2.0", "support@example.com")]);
    assert!(matches!(first.result, Settled::Later { delay_noticed: true, .. }));
    let config = config();
    let told = Delivery { delay_noticed: true, ..delivery(Task::Relay(task(Notify::default())), 6, long) };
    assert!(judge(&config).unsent(&told, &refusal(Retry::Later)).then.is_empty());
}

#[test]
fn when_the_time_is_up_it_is_dead_with_4_4_7() {
    let settlement = relayed(Notify::default(), 40, 1440 * MINUTE, Err(refusal(Retry::Later)));
    assert!(matches!(&settlement.result, Settled::Dead { error } if error.starts_with("given up after 41 attempts")));
    assert_eq!(notices(&settlement), [("failed", "4.4.7", "support@example.com")]);
}

fn hooked(attempts: u32, retry_after: Option<Duration>) -> Settlement {
    let task = WebhookTask {
        binding: Some("HOOK".into()),
        url: "https://user:secret@hooks.example.net/in?key=secret".into(),
        method: "POST".into(),
        headers: Vec::new(),
        body: crate::store::WebhookBody::Json("{}".into()),
        recipient: Address::parse("support@example.com").unwrap(),
        quiet: false,
        by: None,
    };
    let failure = Failure::later(Side::Remote, "4.3.0", "503");
    let sent = Sent {
        result: Err(failure),
        retry_after,
        pauses: true,
        disables: None,
        host: "hooks.example.net:443".into(),
        status: Some(503),
    };
    judge(&config()).hooked(&delivery(Task::Webhook(task), attempts, MINUTE), sent)
}

#[test]
fn a_webhook_waits_as_long_as_it_was_asked_to_and_dies_with_its_schedule() {
    let settlement = hooked(0, Some(5 * MINUTE));
    assert!(matches!(settlement.result, Settled::Later { due, .. } if due == NOW.plus(5 * MINUTE)));
    let told = settlement.events.iter().find_map(|event| match &event.kind {
        Kind::Attempted(attempted) => attempted.next,
        _ => None,
    });
    assert_eq!(told, Some(NOW.plus(5 * MINUTE)));
    assert!(matches!(hooked(1, None).result, Settled::Dead { .. }));
}

#[test]
fn an_event_names_the_binding_or_the_host_and_nothing_that_may_be_a_key() {
    let told = serde_json::to_string(&hooked(1, None).events).unwrap();
    assert!(told.contains("\"target\":\"HOOK\""), "{told}");
    assert!(!told.contains("secret") && !told.contains("/in"), "{told}");
}

#[test]
fn a_worker_that_decides_at_last_forwards_with_what_it_wrote() {
    let recipient = crate::mail::Recipient::new(Address::parse("support@example.com").unwrap());
    let task = DecideTask { recipient, notes: std::collections::BTreeMap::new() };
    let forward = NewDelivery {
        task: Task::Relay(self::task(Notify::default())),
        destination: "mx:example.net".into(),
        due: NOW,
    };
    let write = crate::kv::Write::Delete { namespace: "A".into(), key: "b".into() };
    let decided = Decided::Done {
        authored: Vec::new(),
        quarantined: false,
        deliveries: vec![forward],
        keep: None,
        kv_reads: Vec::new(),
        kv_writes: vec![write],
        events: Vec::new(),
    };
    let config = config();
    let settlement = judge(&config).decided(&delivery(Task::Decide(task.clone()), 0, MINUTE), &task, decided);
    assert_eq!((settlement.result, settlement.outcome), (Settled::Done, Some(MessageOutcome::Accepted)));
    assert_eq!((settlement.then.len(), settlement.kv_writes.len()), (1, 1));
}

#[test]
fn a_worker_that_fails_for_days_is_given_up_without_telling_the_world_why() {
    let recipient = crate::mail::Recipient::new(Address::parse("support@example.com").unwrap());
    let task = DecideTask { recipient, notes: std::collections::BTreeMap::new() };
    let decided = Decided::Later { error: "rules/main.rhai:1:1: secret".into(), events: Vec::new() };
    let config = config();
    let old = delivery(Task::Decide(task.clone()), 40, 1440 * MINUTE);
    let settlement = judge(&config).decided(&old, &task, decided);
    assert!(matches!(settlement.result, Settled::Dead { .. }));
    let Some(NewDelivery { task: Task::Notice(notice), .. }) = settlement.then.first() else { panic!() };
    assert!(!notice.diagnostic.contains("secret"));
}

fn rested(extent: Extent, was_due: bool, age: Duration) -> Settlement {
    let failure = Failure::later(Side::Network, "4.4.1", "connect to mx1.example.net [192.0.2.1]:25: refused");
    let trouble = Trouble { failure, host: None, wanted: None, extent };
    let resting = Resting { since: NOW, until: NOW.plus(10 * MINUTE), trouble: std::sync::Arc::new(trouble) };
    let config = config();
    judge(&config).rested(&delivery(Task::Relay(task(Notify::default())), 0, age), &resting, was_due)
}

#[test]
fn where_nothing_gets_through_it_counts_for_all_that_were_due() {
    let settlement = rested(Extent::Unreachable, true, MINUTE);
    let Settled::Later { due, error, .. } = &settlement.result else { panic!("{settlement:?}") };
    assert_eq!((*due, error.as_str()), (NOW.plus(10 * MINUTE), "connect to mx1.example.net [192.0.2.1]:25: refused"));
    let Some(Kind::Attempted(attempted)) = settlement.events.first().map(|event| &event.kind) else { panic!() };
    assert_eq!((attempted.attempt, attempted.next), (1, Some(*due)), "never before the rest is over");
    let later = rested(Extent::Unreachable, false, MINUTE);
    assert_eq!((later.result, later.events.len()), (Settled::Postponed { due: NOW.plus(10 * MINUTE) }, 0));
}

#[test]
fn where_less_is_asked_for_nothing_counts_until_the_time_is_up() {
    let settlement = rested(Extent::Busy, true, MINUTE);
    assert_eq!(settlement.result, Settled::Postponed { due: NOW.plus(10 * MINUTE) });
    let delayed = rested(Extent::Busy, true, 250 * MINUTE);
    assert_eq!(notices(&delayed), [("delayed", "4.4.1", "support@example.com")]);
    let expired = rested(Extent::Busy, false, 1440 * MINUTE);
    assert!(matches!(expired.result, Settled::Dead { .. }));
    assert_eq!(notices(&expired), [("failed", "4.4.7", "support@example.com")]);
}

#[test]
fn a_rest_ends_no_later_than_the_time_that_is_left() {
    let settlement = rested(Extent::Busy, false, 200 * MINUTE);
    assert_eq!(settlement.result, Settled::Postponed { due: NOW.plus(10 * MINUTE) });
    let config = config();
    let nearly = Delivery { delay_noticed: true, ..delivery(Task::Relay(task(Notify::default())), 9, 1435 * MINUTE) };
    let failure = Failure::later(Side::Network, "4.4.1", "refused");
    let trouble = Trouble { failure, host: None, wanted: None, extent: Extent::Busy };
    let resting = Resting { since: NOW, until: NOW.plus(10 * MINUTE), trouble: std::sync::Arc::new(trouble) };
    let settlement = judge(&config).rested(&nearly, &resting, true);
    assert_eq!(settlement.result, Settled::Postponed { due: NOW.plus(5 * MINUTE) });
}
