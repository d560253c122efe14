//! Retention and backup: what may go goes whole, what is needed stays, and a copy of a running store is a store.

use std::time::Duration;

use mailworker::event::{Bus, Kind};
use mailworker::kv::{Value, Write};
use mailworker::mail::{MessageId, Timestamp};
use mailworker::store::{Acceptance, Options, QueueFilter, Settled, Store, StoreError};

use crate::harness::*;

const HOUR: Duration = Duration::from_hours(1);

/// Segments of one message or two.
fn open(home: &Home) -> Store {
    Store::open(Options { segment_size: 1, ..home.options() }, Bus::new(64)).unwrap()
}

/// Received so many days ago, with nothing left to deliver.
fn settled(days: u32) -> Acceptance {
    let mut acceptance = message_at(&format!("{days} days old"), now().minus(days * DAY));
    acceptance.deliveries.clear();
    acceptance
}

async fn retain(store: &Store, at: Timestamp) {
    while store.retain(at).await.unwrap() {}
}

/// As [`retain`], further ahead than the clock can jump unnoticed: that is believed after an hour.
async fn retain_later(store: &Store, at: Timestamp) {
    assert!(!store.retain(at.minus(HOUR)).await.unwrap());
    retain(store, at).await;
}

/// Takes so many octets that what else is in its segment is little.
fn large(mut acceptance: Acceptance) -> Acceptance {
    acceptance.body = bytes::Bytes::from("x".repeat(2000)).into();
    acceptance
}

async fn is_gone(store: &Store, id: MessageId) -> bool {
    matches!(store.body(id).await, Err(StoreError::NotFound(_)))
}

#[tokio::test]
async fn octets_go_by_whole_segments_when_all_in_one_are_past_their_time() {
    let home = Home::new();
    let store = open(&home);
    let old = accept(&store, settled(8)).await;
    let young = accept(&store, settled(6)).await;
    let current = accept(&store, settled(8)).await;
    assert_eq!(home.segments().len(), 3);
    retain(&store, now()).await;
    assert!(is_gone(&store, old).await && !is_gone(&store, young).await);
    assert!(!is_gone(&store, current).await, "the segment that is being written stays");
    assert_eq!(home.segments().len(), 2);
    let summary = store.message(old).await.unwrap().summary;
    assert_eq!((summary.raw, summary.size), (false, 10), "its record is kept longer");
    assert_eq!(Store::check(&home.path()).unwrap().findings, []);
}

#[tokio::test]
async fn what_is_queued_dead_or_to_be_kept_longer_moves_on_before_its_segment_goes() {
    let home = Home::new();
    let store = Store::open(home.options(), Bus::new(64)).unwrap();
    let at = now().minus(8 * DAY);
    let queued = accept(&store, message_at("queued", at)).await;
    let dead = accept(&store, message_at("dead", at)).await;
    let mut kept = settled(8);
    kept.keep_until = Some(now().plus(DAY));
    let kept = accept(&store, kept).await;
    let spent = accept(&store, large(settled(8))).await;
    for delivery in store.claim(now(), 10).await.unwrap() {
        let end = if delivery.key.message == dead {
            Settled::Dead { error: "550".to_owned() }
        } else {
            Settled::Later { due: now().plus(DAY), error: "421".to_owned(), delay_noticed: false }
        };
        store.settle(vec![settlement(delivery.key, end)]).await.unwrap();
    }
    store.close().await;

    let store = home.open();
    let before = home.segments();
    retain(&store, now()).await;
    assert_ne!(home.segments(), before, "another file holds them now");
    for (id, body) in [(queued, "queued"), (dead, "dead"), (kept, "8 days old")] {
        assert_eq!(octets(&store, id).await, body);
    }
    assert!(is_gone(&store, spent).await);
    // Durably so.
    let after = home.crash();
    assert_eq!(Store::check(&after.path()).unwrap().findings, []);
    let store = after.open();
    assert_eq!(octets(&store, queued).await, "queued");
    assert_eq!(store.queue_retry(QueueFilter::default(), now()).await.unwrap(), 2);
    assert_eq!(store.claim(now(), 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn more_mail_that_must_stay_than_a_segment_holds_is_not_written_again_and_again() {
    let home = Home::new();
    let store = Store::open(Options { segment_size: 5000, ..home.options() }, Bus::new(64)).unwrap();
    let mut kept = Vec::new();
    for n in 0..30 {
        // Of each segment one half must stay, of some more.
        let mut acceptance = large(settled(8));
        acceptance.keep_until = (n % 3 != 0).then(|| now().plus(9 * DAY));
        kept.push((acceptance.keep_until.is_some(), accept(&store, acceptance).await));
    }
    accept(&store, settled(0)).await;
    let mut steps = 0;
    while store.retain(now()).await.unwrap() {
        steps += 1;
        assert!(steps < 1000, "it never ends");
    }
    let settled_down = home.segments();
    retain(&store, now()).await;
    assert_eq!(home.segments(), settled_down, "the next round finds nothing to do");
    for (needed, id) in &kept {
        assert!(!needed || !is_gone(&store, *id).await);
    }
    // When it needn't stay any longer it goes; what is still written to, at the next start.
    store.close().await;
    let store = home.open();
    retain_later(&store, now().plus(10 * DAY)).await;
    assert!(is_gone(&store, kept[1].1).await);
    assert_eq!(home.segments().len(), 0);
    assert_eq!(Store::check(&home.path()).unwrap().findings, []);
}

#[tokio::test]
async fn what_has_moved_on_lies_in_segments_of_its_own() {
    let home = Home::new();
    let store = Store::open(Options { segment_size: 5000, ..home.options() }, Bus::new(64)).unwrap();
    let needed = accept(&store, message_at("needed", now().minus(8 * DAY))).await;
    for _ in 0..3 {
        accept(&store, large(settled(8))).await;
    }
    accept(&store, settled(0)).await;
    retain(&store, now()).await;
    let fresh = accept(&store, settled(0)).await;
    let segment = |id: MessageId| -> i64 {
        let sql = "SELECT segment FROM messages WHERE id = ?1";
        home.sql().query_row(sql, [id.to_bytes()], |row| row.get(0)).unwrap()
    };
    assert_ne!(segment(needed), segment(fresh));
    assert_eq!(octets(&store, needed).await, "needed");
}

#[tokio::test]
async fn a_warm_delivery_outlives_its_segment() {
    let home = Home::new();
    let store = open(&home);
    let id = accept(&store, message_at("warm", now().minus(8 * DAY))).await;
    accept(&store, settled(0)).await;
    let claimed = store.claim(now(), 1).await.unwrap();
    retain(&store, now()).await;
    assert_eq!(claimed[0].warm.as_ref().unwrap().raw.here().unwrap(), "warm");
    assert_eq!(octets(&store, id).await, "warm");
    done(&store, claimed[0].key).await;
    accept(&store, settled(0)).await;
    retain_later(&store, now().plus(DAY)).await;
    assert!(is_gone(&store, id).await);
}

#[tokio::test]
async fn a_segment_with_damage_that_is_needed_stays_and_the_admin_hears_of_it() {
    let home = Home::new();
    let bus = Bus::new(64);
    let mut events = bus.subscribe();
    let store = Store::open(Options { segment_size: 1000, ..home.options() }, bus).unwrap();
    let id = accept(&store, message_at("needed", now().minus(8 * DAY))).await;
    accept(&store, large(settled(8))).await;
    let spent = accept(&store, large(settled(8))).await;
    accept(&store, settled(0)).await;
    let segment = home.segments().remove(0);
    let mut octets = std::fs::read(&segment).unwrap();
    let at = octets.windows(6).position(|window| window == b"needed").unwrap();
    octets[at] ^= 1;
    std::fs::write(&segment, octets).unwrap();
    retain(&store, now()).await;
    assert!(segment.exists(), "what is left of it isn't deleted");
    assert!(is_gone(&store, spent).await, "and it doesn't hold up the others");
    let mut told = false;
    while let Ok(event) = events.try_recv() {
        told |=
            event.message == Some(id) && matches!(&event.kind, Kind::Fault { what, .. } if what.contains("can't go"));
    }
    assert!(told);
}

#[tokio::test]
async fn records_go_after_their_time_but_never_one_that_is_queued() {
    let home = Home::new();
    let store = open(&home);
    let old = accept(&store, settled(31)).await;
    let queued = accept(&store, message_at("queued", now().minus(31 * DAY))).await;
    let young = accept(&store, settled(29)).await;
    retain(&store, now()).await;
    assert!(matches!(store.message(old).await, Err(StoreError::NotFound(_))));
    assert!(store.message(young).await.is_ok());
    let detail = store.message(queued).await.unwrap();
    assert_eq!((detail.summary.queued, detail.trace.len()), (1, 1));
    assert_eq!(octets(&store, queued).await, "queued");
}

#[tokio::test]
async fn the_log_and_keys_that_have_expired_go_too() {
    let home = Home::new();
    let store = open(&home);
    let put = |key: &str, expires_at| Write::Put {
        namespace: "N".to_owned(),
        key: key.to_owned(),
        value: Value::Text("v".to_owned()),
        metadata: None,
        expires_at,
    };
    let writes = vec![put("short", Some(now().plus(DAY))), put("long", None)];
    store.kv_write(writes, now()).await.unwrap();
    let event =
        |days: u32| mailworker::event::Event::new(now().minus(days * DAY), Kind::Reloaded { what: "x".to_owned() });
    store.log(event(31));
    store.log(event(1));
    store.kv_write(Vec::new(), now()).await.unwrap();
    assert_eq!(store.reader().log(10).unwrap().len(), 2);
    retain(&store, now()).await;
    retain_later(&store, now().plus(2 * DAY)).await;
    assert_eq!(store.reader().log(10).unwrap().len(), 1);
    let rows: i64 = home.sql().query_row("SELECT count(*) FROM kv", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_store_opens_sound_with_all_that_was_promised_before_it() {
    let home = Home::new();
    let store = open(&home);
    let mut before = Vec::new();
    for n in 0..20 {
        before.push((accept(&store, message(&format!("before {n}"))).await, format!("before {n}")));
    }
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..60 {
                accept(&store, message(&format!("meanwhile {n}"))).await;
                store.retain(now()).await.unwrap();
            }
        }
    });
    let elsewhere = Home::new();
    store.backup(&elsewhere.path()).await.unwrap();
    writing.await.unwrap();

    assert_eq!(Store::check(&elsewhere.path()).unwrap().findings, []);
    let copy = elsewhere.open();
    for (id, body) in before {
        assert_eq!(octets(&copy, id).await, body);
    }
    assert!(copy.claim(now(), 100).await.unwrap().len() >= 20);
    assert!(
        matches!(store.backup(&elsewhere.path()).await, Err(StoreError::Unusable(_))),
        "a copy is never overwritten"
    );
}

#[tokio::test]
async fn a_backup_of_a_damaged_store_says_what_is_missing() {
    let home = Home::new();
    let store = open(&home);
    accept(&store, message("x")).await;
    store.close().await;
    let segment = home.segments().remove(0);
    let file = std::fs::File::options().write(true).open(&segment).unwrap();
    file.set_len(Home::end(&segment) as u64 - 1).unwrap();
    let store = open(&home);
    let Err(StoreError::Failed(text)) = store.backup(&Home::new().path()).await else { panic!("it isn't whole") };
    assert!(text.contains("0000000000000001.seg") && text.contains("store check"), "{text}");
}
