//! claim: what is due comes in order, to one caller at a time, and what can't be read stands in nobody's way.

use std::collections::HashSet;

use mailworker::event::Kind;
use mailworker::mail::{MessageId, Timestamp};
use mailworker::store::{Acceptance, DeliveryKey, QueueFilter, Settled, Store, WARM_BYTES};

use crate::harness::*;

#[tokio::test]
async fn a_delivery_that_cannot_be_read_is_parked_and_the_others_are_claimed() {
    let home = Home::new();
    let store = home.open();
    let broken = accept(&store, message("broken")).await;
    let sound = accept(&store, message("sound")).await;
    store.close().await;
    home.sql().execute("UPDATE deliveries SET task = '{\"kind\":' WHERE message = ?1", [broken.to_bytes()]).unwrap();

    let store = home.open();
    let claimed = store.claim(now(), 10).await.unwrap();
    assert_eq!(claimed.iter().map(|delivery| delivery.key.message).collect::<Vec<_>>(), [sound]);
    done(&store, claimed[0].key).await;
    assert!(store.claim(now(), 10).await.unwrap().is_empty());
    assert_eq!(store.next_due().await.unwrap(), None);
    let detail = store.message(broken).await.unwrap();
    assert_eq!((detail.summary.queued, detail.summary.dead), (0, 1));
    assert_eq!(detail.deliveries[0].kind, "unreadable");
    assert!(detail.deliveries[0].last_error.as_deref().unwrap().starts_with("its task can't be read"));
    assert!(matches!(detail.trace.last().unwrap().kind, Kind::Fault { .. }));
    let gauges = store.gauges().await.unwrap();
    assert_eq!((gauges.queued, gauges.dead), (0, 1));
}

#[tokio::test]
async fn a_delivery_whose_key_is_damaged_is_parked_too() {
    let home = Home::new();
    let store = home.open();
    let sound = accept(&store, message("sound")).await;
    store.close().await;
    let insert = "INSERT INTO deliveries SELECT ?1, ?2, 0, destination, task, 0, queued_at, 0, NULL, 0 FROM deliveries \
                  WHERE message = ?3";
    home.sql().execute(insert, rusqlite::params![[1_u8, 2, 3], 0, sound.to_bytes()]).unwrap();
    home.sql().execute(insert, rusqlite::params![sound.to_bytes(), -1, sound.to_bytes()]).unwrap();

    let store = home.open();
    let claimed = store.claim(now(), 10).await.unwrap();
    assert_eq!(claimed.iter().map(|delivery| delivery.key.message).collect::<Vec<_>>(), [sound]);
    done(&store, claimed[0].key).await;
    assert!(store.claim(now(), 10).await.unwrap().is_empty());
    let gauges = store.gauges().await.unwrap();
    assert_eq!((gauges.queued, gauges.dead), (0, 2));
}

/// A message of one delivery, due so many seconds from now.
fn due_in(seconds: i64) -> Acceptance {
    let mut acceptance = message("x");
    acceptance.deliveries = vec![relay(after(seconds))];
    acceptance
}

fn after(seconds: i64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() + seconds * 1000)
}

async fn claimed(store: &Store, at: Timestamp, limit: usize) -> Vec<MessageId> {
    store.claim(at, limit).await.unwrap().iter().map(|delivery| delivery.key.message).collect()
}

#[tokio::test]
async fn what_is_due_comes_in_the_order_in_which_it_falls_due() {
    let home = Home::new();
    let store = home.open();
    let third = accept(&store, due_in(300)).await;
    let first = accept(&store, due_in(100)).await;
    let second = accept(&store, due_in(200)).await;
    assert!(claimed(&store, now(), 10).await.is_empty());
    assert_eq!(store.next_due().await.unwrap().map(|at| at <= after(100)), Some(true));
    assert_eq!(claimed(&store, after(250), 10).await, [first, second]);
    assert_eq!(claimed(&store, after(301), 10).await, [third]);
    assert_eq!(store.next_due().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_claimed_twice_however_many_ask() {
    let home = Home::new();
    let store = home.open();
    for n in 0..30 {
        let mut many = message("x");
        many.deliveries = (0..20).map(|m| relay(after(if (n + m) % 2 == 0 { 0 } else { 5 }))).collect();
        accept(&store, many).await;
    }
    let mut askers = Vec::new();
    for _ in 0..8 {
        let store = store.clone();
        askers.push(tokio::spawn(async move {
            let mut keys = Vec::new();
            loop {
                let some = store.claim(after(60), 7).await.unwrap();
                if some.is_empty() {
                    return keys;
                }
                keys.extend(some.iter().map(|delivery| delivery.key));
            }
        }));
    }
    let mut all = Vec::new();
    for asker in askers {
        all.extend(asker.await.unwrap());
    }
    assert_eq!(all.len(), 600);
    assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 600);
}

#[tokio::test]
async fn a_process_that_dies_holds_nothing() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, message("x")).await;
    assert_eq!(claimed(&store, now(), 10).await, [id]);
    drop(store);
    assert_eq!(claimed(&home.open(), now(), 10).await, [id]);
}

#[tokio::test]
async fn a_claim_that_nobody_waits_for_any_more_is_free_again() {
    let home = Home::new();
    let store = home.open();
    let warm = accept(&store, message("warm")).await;
    let cold = accept(&store, due_in(0)).await;
    let later = accept(&store, due_in(1)).await;
    // The writer is kept from answering: it waits for the database's lock with a unit that came first.
    let mut other = home.sql();
    let lock = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let first = store.kv_write(Vec::new(), now());
    tokio::pin!(first);
    assert!(futures_util::poll!(&mut first).is_pending());
    {
        // Polled once: what is warm is taken, the walk is asked for, and then the caller goes away.
        let claim = store.claim(after(5), 10);
        tokio::pin!(claim);
        assert!(futures_util::poll!(claim).is_pending());
    }
    lock.rollback().unwrap();
    first.await.unwrap();
    let mut found = HashSet::new();
    while found.len() < 3 {
        found.extend(claimed(&store, after(5), 10).await);
    }
    assert_eq!(found, HashSet::from([warm, cold, later]));
}

#[tokio::test]
async fn whoever_waits_is_told_when_something_may_have_become_due() {
    let home = Home::new();
    let store = home.open();
    accept(&store, message("x")).await;
    store.changed().await;
    let key = store.claim(now(), 1).await.unwrap()[0].key;
    store.settle(vec![settlement(key, Settled::Dead { error: "550".to_owned() })]).await.unwrap();
    store.changed().await;
    let filter = QueueFilter { dead: Some(true), ..QueueFilter::default() };
    assert_eq!(store.queue_retry(filter, now()).await.unwrap(), 1);
    store.changed().await;
    let again = store.claim(now(), 1).await.unwrap();
    assert_eq!((again[0].key, again[0].attempts), (key, 0), "its schedule begins anew");
}

#[tokio::test]
async fn what_an_admin_drops_is_not_handed_out_and_its_settlement_is_taken_quietly() {
    let home = Home::new();
    let store = home.open();
    let waiting = accept(&store, message("waiting")).await;
    let under_way = accept(&store, message("under way")).await;
    let held = claimed(&store, now(), 1).await;
    assert_eq!(held, [waiting]);
    assert_eq!(store.queue_drop(QueueFilter::default(), now()).await.unwrap(), 2);
    assert!(claimed(&store, now(), 10).await.is_empty());
    let mut settled = settlement(DeliveryKey { message: waiting, n: 0 }, Settled::Done);
    settled.then = vec![relay(now())];
    store.settle(vec![settled]).await.unwrap();
    assert!(claimed(&store, now(), 10).await.is_empty(), "what follows from it isn't wanted either");
    let gauges = store.gauges().await.unwrap();
    assert_eq!((gauges.queued, gauges.dead), (0, 0));
    let trace = store.message(under_way).await.unwrap().trace;
    assert!(matches!(&trace.last().unwrap().kind, Kind::Admin { verb, .. } if verb == "drop"));
}

#[tokio::test]
async fn more_than_fits_into_memory_is_claimed_from_its_rows() {
    let home = Home::new();
    let store = home.open();
    let body = "x".repeat(WARM_BYTES / 8 * 3);
    let mut ids = HashSet::new();
    for _ in 0..4 {
        ids.insert(accept(&store, message(&body)).await);
    }
    let all = store.claim(now(), 10).await.unwrap();
    assert_eq!(all.iter().map(|delivery| delivery.key.message).collect::<HashSet<_>>(), ids);
    assert_eq!(all.iter().filter(|delivery| delivery.warm.is_some()).count(), 2, "more isn't kept warm");
}

#[tokio::test]
async fn what_is_warm_counts_until_whoever_claimed_it_has_let_go() {
    let home = Home::new();
    let store = home.open();
    let empty = store.warm_room();
    let body = "x".repeat(WARM_BYTES / 8 * 3);
    for _ in 0..2 {
        accept(&store, message(&body)).await;
    }
    let held = store.claim(now(), 10).await.unwrap();
    assert!(held.iter().all(|delivery| delivery.warm.is_some()));
    assert!(store.warm_room() < WARM_BYTES / 4, "claimed and not let go: {}", store.warm_room());
    accept(&store, message(&body)).await;
    let cold = store.claim(now(), 10).await.unwrap();
    assert_eq!((cold.len(), cold[0].warm.is_some()), (1, false));
    drop(held);
    assert_eq!(store.warm_room(), empty);
    accept(&store, message(&body)).await;
    assert!(store.claim(now(), 10).await.unwrap()[0].warm.is_some());
}

#[tokio::test]
async fn one_body_counts_once_and_until_the_last_of_its_deliveries_is_gone() {
    let home = Home::new();
    let store = home.open();
    let empty = store.warm_room();
    let mut three = message(&"x".repeat(8 << 20));
    three.deliveries = vec![relay(now()); 3];
    accept(&store, three).await;
    let mut held = store.claim(now(), 10).await.unwrap();
    assert_eq!(held.len(), 3);
    let room = store.warm_room();
    assert!((8 << 20..9 << 20).contains(&(empty - room)), "{}", empty - room);
    held.truncate(1);
    assert_eq!(store.warm_room(), room);
    held.clear();
    assert_eq!(store.warm_room(), empty);
}

#[tokio::test]
async fn a_claim_is_bounded_by_the_octets_of_its_tasks() {
    let home = Home::new();
    let store = home.open();
    for _ in 0..30 {
        let mut hooked = message("x");
        hooked.deliveries = vec![webhook("x".repeat(900 << 10))];
        accept(&store, hooked).await;
    }
    claimed_in_parts(&store, 30).await;
    store.close().await;
    claimed_in_parts(&home.open(), 30).await;
}

async fn claimed_in_parts(store: &Store, count: usize) {
    let mut found = 0;
    loop {
        let claimed = store.claim(now(), 256).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        assert!(claimed.len() <= 19, "{} of 900 KiB in one claim", claimed.len());
        found += claimed.len();
    }
    assert_eq!(found, count);
}
