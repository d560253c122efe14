//! settle: what a delivery's end brings with it commits in one transaction, or not at all.

use mailworker::kv::{Read, Value, Write};
use mailworker::mail::MessageId;
use mailworker::store::{
    Accepted, DeliveryKey, Discharge, Keep, MessageOutcome, Settled, Settlement, Store, StoreError,
};

use crate::harness::*;

async fn one_claimed(store: &Store) -> DeliveryKey {
    accept(store, message("x")).await;
    store.claim(now(), 1).await.unwrap()[0].key
}

fn put(text: &str) -> Write {
    let (namespace, key) = ("N".to_owned(), "k".to_owned());
    Write::Put { namespace, key, value: Value::Text(text.to_owned()), metadata: None, expires_at: None }
}

fn value(store: &Store) -> Option<Value> {
    store.kv().get("N", "k", now()).unwrap().map(|entry| entry.value)
}

#[tokio::test]
async fn a_settlement_whose_reads_are_stale_changes_nothing_and_its_claim_stands() {
    let home = Home::new();
    let store = home.open();
    let key = one_claimed(&store).await;
    store.kv_write(vec![put("1")], now()).await.unwrap();
    let author = message("notice");
    let notice = author.id;
    let stale = Settlement {
        events: vec![accepted(key.message, now())],
        then: vec![relay(now())],
        kv_reads: vec![Read::Key { namespace: "N".to_owned(), key: "k".to_owned(), version: None }],
        kv_writes: vec![put("2")],
        authored: vec![author],
        outcome: Some(MessageOutcome::Dropped),
        ..settlement(key, Settled::Done)
    };
    assert_eq!(store.settle(vec![stale.clone()]).await.unwrap(), Accepted::Overtaken);
    assert_eq!(value(&store), Some(Value::Text("1".to_owned())));
    let detail = store.message(key.message).await.unwrap();
    assert_eq!((detail.summary.queued, detail.summary.outcome, detail.trace.len()), (1, MessageOutcome::Accepted, 1));
    assert!(matches!(store.message(notice).await, Err(StoreError::NotFound(_))));
    assert!(store.claim(now(), 10).await.unwrap().is_empty(), "it is still the caller's");

    // Run again on what is there now.
    let version = store.kv().get("N", "k", now()).unwrap().unwrap().version;
    let read = Read::Key { namespace: "N".to_owned(), key: "k".to_owned(), version: Some(version) };
    let fresh = Settlement { kv_reads: vec![read], ..stale };
    assert_eq!(store.settle(vec![fresh]).await.unwrap(), Accepted::Committed);
    assert_eq!(value(&store), Some(Value::Text("2".to_owned())));
    assert_eq!(store.claim(now(), 10).await.unwrap().len(), 2, "what follows, and what was authored");
}

#[tokio::test]
async fn a_list_that_was_read_and_has_changed_since_overtakes() {
    let home = Home::new();
    let store = home.open();
    let key = one_claimed(&store).await;
    let read = |seen: &[(&str, u64)]| Read::List {
        namespace: "N".to_owned(),
        prefix: "k".to_owned(),
        cursor: None,
        limit: 10,
        seen: seen.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect(),
    };
    store.kv_write(vec![put("1")], now()).await.unwrap();
    let version = store.kv().get("N", "k", now()).unwrap().unwrap().version;
    for (seen, expected) in [
        (read(&[]), Accepted::Overtaken),
        (read(&[("k", version + 1)]), Accepted::Overtaken),
        (read(&[("k", version), ("kk", 1)]), Accepted::Overtaken),
        (read(&[("k", version)]), Accepted::Committed),
    ] {
        let settled = Settlement { kv_reads: vec![seen], ..settlement(key, Settled::Done) };
        assert_eq!(store.settle(vec![settled]).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn settlements_that_come_together_commit_together_or_not_at_all() {
    let home = Home::new();
    let store = home.open();
    let keys = [one_claimed(&store).await, one_claimed(&store).await];
    let twice = Settlement { authored: vec![message("once")], ..settlement(keys[0], Settled::Done) };
    let mut again = settlement(keys[1], Settled::Done);
    again.authored.clone_from(&twice.authored);
    assert!(matches!(store.settle(vec![twice.clone(), again]).await, Err(StoreError::Failed(_))));
    for key in keys {
        assert_eq!(store.message(key.message).await.unwrap().summary.queued, 1);
    }
    assert!(store.claim(now(), 10).await.unwrap().is_empty(), "the claims stand");
    let plain = settlement(keys[1], Settled::Done);
    assert_eq!(store.settle(vec![twice, plain]).await.unwrap(), Accepted::Committed);
    assert_eq!(store.claim(now(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_settled_stays_settled_after_a_crash() {
    let home = Home::new();
    let store = home.open();
    let mut keys = Vec::new();
    for _ in 0..4 {
        keys.push(one_claimed(&store).await);
    }
    let due = now().plus(DAY);
    let ends = [
        Settled::Done,
        Settled::Later { due, error: "421".to_owned(), delay_noticed: false },
        Settled::Postponed { due },
        Settled::Dead { error: "550".to_owned() },
    ];
    store.settle(keys.iter().zip(ends).map(|(key, end)| settlement(*key, end)).collect()).await.unwrap();
    let after = home.crash();
    let store = after.open();
    assert!(store.claim(now(), 10).await.unwrap().is_empty());
    assert_eq!(store.next_due().await.unwrap(), Some(due));
    let later = store.claim(due, 10).await.unwrap();
    let found: Vec<(MessageId, u32)> = later.iter().map(|one| (one.key.message, one.attempts)).collect();
    let mut expected = vec![(keys[1].message, 1), (keys[2].message, 0)];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let gauges = store.gauges().await.unwrap();
    assert_eq!((gauges.queued, gauges.dead), (2, 1));
}

#[tokio::test]
async fn an_endless_error_is_kept_in_part() {
    let home = Home::new();
    let store = home.open();
    let key = one_claimed(&store).await;
    let error = "é".repeat(100_000);
    store.settle(vec![settlement(key, Settled::Dead { error })]).await.unwrap();
    let detail = store.message(key.message).await.unwrap();
    assert_eq!(detail.deliveries[0].last_error.as_ref().unwrap().len(), 4096);
}

/// A worker's second run keeps the message as it asks, and never shorter than another one did.
#[tokio::test]
async fn a_second_run_keeps_the_message_for_longer_and_names_its_mailbox() {
    let home = Home::new();
    let store = home.open();
    let mut acceptance = message("kept");
    acceptance.deliveries = vec![relay(now()); 3];
    let id = accept(&store, acceptance).await;
    let kept = || {
        let sql = "SELECT keep_until, mailbox FROM messages WHERE id = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<String>>(1)?));
        home.sql().query_row(sql, [id.to_bytes()], row).unwrap()
    };
    let long = now().plus(30 * DAY);
    let asked = [
        Keep { until: Some(long), mailbox: None },
        Keep { until: Some(long.minus(DAY)), mailbox: Some("archive".to_owned()) },
        Keep { until: None, mailbox: Some("other".to_owned()) },
    ];
    for (delivery, keep) in store.claim(now(), 3).await.unwrap().into_iter().zip(asked) {
        let done = Settlement { keep: Some(keep), ..settlement(delivery.key, Settled::Done) };
        store.settle(vec![done]).await.unwrap();
    }
    assert_eq!(kept(), (Some(long.as_millis()), Some("archive".to_owned())));
}

/// What else becomes of a message, its quarantine is an admin's to end, and once.
#[tokio::test]
async fn a_quarantine_ends_by_a_discharge_alone() {
    let home = Home::new();
    let store = home.open();
    let key = {
        let mut held = message("x");
        held.outcome = MessageOutcome::Quarantined;
        accept(&store, held).await;
        store.claim(now(), 1).await.unwrap()[0].key
    };
    let sent = Settlement { outcome: Some(MessageOutcome::Accepted), ..settlement(key, Settled::Done) };
    store.settle(vec![sent]).await.unwrap();
    let outcome = async || store.message(key.message).await.unwrap().summary.outcome;
    assert_eq!(outcome().await, MessageOutcome::Quarantined);

    let discharge = Discharge { id: key.message, deliveries: vec![relay(now()), relay(now())] };
    assert_eq!(store.release(discharge.clone()).await.unwrap(), 2);
    assert_eq!(outcome().await, MessageOutcome::Accepted);
    let claimed: Vec<u32> = store.claim(now(), 10).await.unwrap().iter().map(|delivery| delivery.key.n).collect();
    assert_eq!(claimed, [1, 2]);
    assert!(matches!(store.release(discharge.clone()).await, Err(StoreError::NotFound(_))));
    let nobody = Discharge { id: mailworker::clock::message_id(now()), ..discharge };
    assert!(matches!(store.release(nobody).await, Err(StoreError::NotFound(_))));
    assert!(store.claim(now(), 10).await.unwrap().is_empty());
}
