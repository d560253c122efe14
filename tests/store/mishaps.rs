//! What happens to disks, files, rows and clocks: the store opens, loses nothing, says what is wrong, and goes on.

use std::path::PathBuf;
use std::time::Duration;

use mailworker::event::{Bus, Event, Kind};
use mailworker::mail::MessageId;
use mailworker::store::{Acceptance, Options, QueueFilter, Settled, Store, StoreError};

use crate::harness::*;

const HOUR: Duration = Duration::from_hours(1);

/// A store, and what it says while it is opened and after.
fn open(home: &Home) -> (Store, tokio::sync::broadcast::Receiver<std::sync::Arc<Event>>) {
    let bus = Bus::new(256);
    let events = bus.subscribe();
    (Store::open(home.options(), bus).unwrap(), events)
}

fn faults(events: &mut tokio::sync::broadcast::Receiver<std::sync::Arc<Event>>) -> String {
    let mut said = String::new();
    while let Ok(event) = events.try_recv() {
        if let Kind::Fault { what, detail } = &event.kind {
            said.extend([what, ": ", detail, "\n"]);
        }
    }
    said
}

/// All segments in the quarantine.
fn quarantined(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in std::fs::read_dir(home.path().join("quarantine")).into_iter().flatten() {
        found.extend(std::fs::read_dir(directory.unwrap().path()).unwrap().map(|entry| entry.unwrap().path()));
    }
    found
}

fn database(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let path = home.path().join("mailworker.db");
    vec![(path.clone(), std::fs::read(path).unwrap())]
}

fn settled(days: u32) -> Acceptance {
    let mut acceptance = message_at(&format!("{days} days old"), now().minus(days * DAY));
    acceptance.deliveries.clear();
    acceptance
}

async fn body(home: &Home, id: MessageId) -> String {
    let store = home.open();
    let body = store.body(id).await.unwrap();
    store.close().await;
    String::from_utf8(body.raw.here().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn an_older_database_beside_a_newer_spool_loses_no_mail() {
    let home = Home::new();
    let store = home.open();
    accept(&store, message("before")).await;
    store.close().await;
    let older = database(&home);
    let store = home.open();
    let id = accept(&store, message("after")).await;
    store.close().await;
    let newer = database(&home);

    std::fs::write(&older[0].0, &older[0].1).unwrap();
    let (store, mut events) = open(&home);
    let aside = quarantined(&home);
    assert_eq!(aside.len(), 1, "nothing is deleted");
    let said = faults(&mut events);
    assert!(said.contains("0000000000000002.seg") && said.contains("restored backup"), "{said}");
    assert!(
        said.contains(aside[0].parent().unwrap().to_str().unwrap()) && said.contains("back into spool/"),
        "how to have it back: {said}"
    );
    while store.retain(now()).await.unwrap() {}
    store.close().await;

    // What comes in meanwhile, also after a further start, bears no number that the one put aside has.
    let store = home.open();
    let later = accept(&store, message("later")).await;
    store.close().await;
    assert!(home.path().join("spool/0000000000000003.seg").exists(), "{:?}", home.segments());
    assert_eq!(body(&home, later).await, "later");

    // As the message says.
    std::fs::write(&newer[0].0, &newer[0].1).unwrap();
    std::fs::rename(&aside[0], home.path().join("spool/0000000000000002.seg")).unwrap();
    assert_eq!(body(&home, id).await, "after");
}

#[tokio::test]
async fn an_index_that_lacks_its_rows_costs_no_segment() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, message("precious")).await;
    store.close().await;
    let sql = home.sql();
    sql.execute_batch(
        "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET rootpage = \
         (SELECT rootpage FROM sqlite_schema WHERE name = 'kv_expires') WHERE name = 'messages_segment'",
    )
    .unwrap();
    drop(sql);
    let (store, mut events) = open(&home);
    let said = faults(&mut events);
    assert!(said.contains("index") && said.contains("store check --repair"), "{said}");
    store.close().await;
    let (store, mut events) = open(&home);
    while store.retain(now()).await.unwrap() {}
    assert!(faults(&mut events).contains("index"), "nor while it runs");
    assert_eq!(octets(&store, id).await, "precious");
    assert_eq!((home.segments().len(), quarantined(&home).len()), (1, 0));
}

#[tokio::test]
async fn a_spool_that_is_not_mounted_is_refused_and_one_that_comes_back_after_a_repair_is_taken_up() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, message("precious")).await;
    store.close().await;
    let (spool, away) = (home.path().join("spool"), home.path().join("away"));
    std::fs::rename(&spool, &away).unwrap();
    let refused = || match Store::open(home.options(), Bus::new(16)) {
        Err(StoreError::Unusable(text)) => text,
        other => panic!("{other:?}"),
    };
    let text = refused();
    assert!(text.contains("spool isn't there") && text.contains("mount"), "{text}");
    assert!(!spool.exists(), "no fresh one hides it");
    let Err(StoreError::Unusable(text)) = Store::check(&home.path()) else { panic!("it can't be checked") };
    assert!(text.contains("spool isn't there"), "{text}");

    std::fs::create_dir(&spool).unwrap();
    let text = refused();
    assert!(text.contains("none of the segments") && text.contains("mount"), "{text}");
    Store::repair(&home.path(), now()).unwrap();
    let store = home.open();
    assert!(store.claim(now(), 10).await.unwrap().is_empty(), "what can't be sent is parked");
    // What comes in meanwhile hides nothing of what is away.
    let meanwhile = accept(&store, message("meanwhile")).await;
    store.close().await;
    for entry in std::fs::read_dir(&away).unwrap().map(Result::unwrap) {
        std::fs::rename(entry.path(), spool.join(entry.file_name())).unwrap();
    }
    let (store, mut events) = open(&home);
    let said = faults(&mut events);
    assert!(said.contains("have their octets again") && said.contains("queue retry"), "{said}");
    assert_eq!(octets(&store, id).await, "precious");
    assert_eq!(octets(&store, meanwhile).await, "meanwhile");
    assert_eq!(store.queue_retry(QueueFilter { dead: Some(true), ..QueueFilter::default() }, now()).await.unwrap(), 1);
    assert_eq!(store.claim(now(), 10).await.unwrap().len(), 2);
    store.close().await;
    assert_eq!(Store::check(&home.path()).unwrap().findings, []);
}

#[tokio::test]
async fn a_segment_all_of_whose_records_have_gone_is_known_for_emptied_by_the_next_start() {
    let home = Home::new();
    let store = home.open();
    accept(&store, settled(31)).await;
    store.retain(now()).await.unwrap();
    store.close().await;
    let (store, mut events) = open(&home);
    while store.retain(now()).await.unwrap() {}
    assert_eq!((home.segments().len(), quarantined(&home).len()), (0, 0));
    assert_eq!(faults(&mut events), "");
    let notes: i64 =
        home.sql().query_row("SELECT count(*) FROM counters WHERE name LIKE 'emptied%'", [], |row| row.get(0)).unwrap();
    assert_eq!(notes, 0);
    store.close().await;
}

#[tokio::test]
async fn what_stands_wrongly_in_a_row_or_a_file_keeps_no_store_shut() {
    for wrong in [
        "UPDATE messages SET segment = 'abc'",
        "UPDATE messages SET segment = 1.5",
        "UPDATE messages SET segment = 9223372036854775807",
        "UPDATE messages SET segment = -1",
        "UPDATE deliveries SET state = 'x'",
        "DELETE FROM counters",
        "UPDATE counters SET value = 'x'",
        "UPDATE counters SET value = 4294967296 WHERE name = 'kv_version'",
        "UPDATE counters SET value = -1",
        "INSERT INTO messages SELECT substr(id, 1, 15), sender, recipients, envelope, client, subject, header_from, \
         outcome, fingerprint, segment, start, head_size, size, keep_until, mailbox, 0 FROM messages",
        "INSERT INTO counters (name, value) VALUES ('seen', 'x'), ('emptied x', 'x')",
        "INSERT INTO kv VALUES (x'00', x'01', 0, NULL, 1, 'x', x'ff')",
    ] {
        let home = Home::new();
        let store = home.open();
        accept(&store, message("row")).await;
        let other = accept(&store, message("other")).await;
        store.close().await;
        let sql = home.sql();
        let one = if wrong.starts_with("UPDATE messages") { " WHERE id = (SELECT min(id) FROM messages)" } else { "" };
        sql.execute(&format!("{wrong}{one}"), []).unwrap();
        drop(sql);
        std::fs::create_dir(home.path().join("spool/00000000000000ff.seg")).unwrap();
        std::fs::write(home.path().join("spool/7fffffffffffffff.seg"), "").unwrap();
        for _ in 0..2 {
            let store = home.open();
            accept(&store, message("new")).await;
            while store.retain(now()).await.unwrap() {}
            assert_eq!(octets(&store, other).await, "other", "{wrong}");
            store.close().await;
        }
        assert!(home.path().join("spool/0000000000000100.seg").exists(), "{wrong}: {:?}", home.segments());
    }
}

#[tokio::test]
async fn a_counter_of_versions_that_is_gone_is_made_again_past_all_that_were_given() {
    use mailworker::kv::{Value, Write};
    let home = Home::new();
    let put = || {
        let (namespace, key) = ("N".to_owned(), "k".to_owned());
        Write::Put { namespace, key, value: Value::Text("v".to_owned()), metadata: None, expires_at: None }
    };
    let mut last = 0;
    for _ in 0..3 {
        let store = home.open();
        store.kv_write(vec![put()], now()).await.unwrap();
        store.close().await;
        let sql = home.sql();
        let version: i64 = sql.query_row("SELECT version FROM kv", [], |row| row.get(0)).unwrap();
        assert!(version > last);
        last = version;
        sql.execute("DELETE FROM counters", []).unwrap();
    }
}

#[tokio::test]
async fn one_row_or_segment_that_cannot_be_read_holds_up_no_other() {
    let home = Home::new();
    let bus = Bus::new(256);
    let mut events = bus.subscribe();
    let store = Store::open(Options { segment_size: 1000, ..home.options() }, bus).unwrap();
    let at = now().minus(8 * DAY);
    let mut spent = Vec::new();
    for _ in 0..4 {
        accept(&store, message_at("needed", at)).await;
        let mut large = settled(8);
        large.body = bytes::Bytes::from("x".repeat(2000)).into();
        spent.push(accept(&store, large).await);
    }
    accept(&store, settled(31)).await;
    let current = accept(&store, settled(0)).await;
    let segments = home.segments();
    assert_eq!(segments.len(), 5);
    // A row without a place, a row without an id, a segment that can't be read.
    let sql = home.sql();
    sql.execute("UPDATE messages SET start = 'x' WHERE segment = 1", []).unwrap();
    sql.execute(
        "INSERT INTO messages SELECT substr(id, 1, 15), sender, recipients, envelope, client, subject, header_from, \
         outcome, fingerprint, segment, start, head_size, size, keep_until, mailbox, 0 FROM messages WHERE segment = 2",
        [],
    )
    .unwrap();
    drop(sql);
    let octets = std::fs::read(&segments[2]).unwrap();
    std::fs::remove_file(&segments[2]).unwrap();
    std::fs::create_dir(&segments[2]).unwrap();
    while store.retain(now()).await.unwrap() {}
    let said = faults(&mut events);
    assert!(said.contains("0000000000000001.seg can't go") && said.contains("0000000000000003.seg"), "{said}");
    assert!(!said.contains("can't write"), "the database stays open: {said}");
    assert!(segments[0].exists() && segments[2].exists());
    assert!(!segments[3].exists(), "the one without a fault is gone");
    assert!(matches!(store.body(spent[3]).await, Err(StoreError::NotFound(_))));
    let old: i64 = home
        .sql()
        .query_row(
            "SELECT count(*) FROM messages WHERE length(id) = 16 AND size = 11 AND subject IS NOT NULL",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(old, 0, "and so is the old record");
    assert!(store.body(current).await.is_ok());
    std::fs::remove_dir(&segments[2]).unwrap();
    std::fs::write(&segments[2], octets).unwrap();
}

#[tokio::test]
async fn a_clock_that_is_far_ahead_at_a_start_deletes_and_gives_up_nothing_for_an_hour() {
    let home = Home::new();
    let store = home.open();
    let kept = accept(&store, settled(0)).await;
    while store.retain(now()).await.unwrap() {}
    let queued = accept(&store, message_at("queued since", now().plus(Duration::from_millis(50)))).await;
    store.close().await;

    let (store, mut events) = open(&home);
    let ahead = now().plus(40 * DAY);
    assert!(!store.retain(ahead).await.unwrap());
    assert!(faults(&mut events).contains("the clock is ahead"));
    let claimed = store.claim(ahead, 10).await.unwrap();
    assert_eq!(claimed.iter().map(|one| one.key.message).collect::<Vec<_>>(), [queued]);
    assert!(ahead.since(claimed[0].queued_at) < DAY, "it is no older for it");
    store.close().await;
    // A start after another doesn't make it true.
    let (store, _events) = open(&home);
    assert!(!store.retain(ahead.plus(HOUR / 2)).await.unwrap());
    assert!(store.body(kept).await.is_ok());
    // A person hasn't set it right: it was a long stop.
    while store.retain(ahead.plus(HOUR + HOUR / 2)).await.unwrap() {}
    assert!(matches!(store.message(kept).await, Err(StoreError::NotFound(_))));
    assert!(store.body(queued).await.is_ok());
}

#[tokio::test]
async fn a_delivery_put_off_by_a_clock_that_was_ahead_does_not_wait_for_that_time() {
    let home = Home::new();
    let store = home.open();
    let far = accept(&store, message_at("far", now().plus(3 * DAY))).await;
    let near = accept(&store, message("near")).await;
    let claimed = store.claim(now(), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let later = Settled::Later { due: now().plus(DAY), error: "421".to_owned(), delay_noticed: false };
    store.settle(vec![settlement(claimed[0].key, later)]).await.unwrap();
    while store.retain(now()).await.unwrap() {}
    let claimed = store.claim(now(), 10).await.unwrap();
    assert_eq!(claimed.iter().map(|one| one.key.message).collect::<Vec<_>>(), [far]);
    assert_eq!(store.claim(now().plus(DAY), 10).await.unwrap()[0].key.message, near, "a schedule's own wait stands");

    let home = Home::new();
    let store = home.open();
    store.expect_waits(5 * DAY);
    accept(&store, message_at("by a long schedule", now().plus(3 * DAY))).await;
    while store.retain(now()).await.unwrap() {}
    assert!(store.claim(now(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_log_grows_old_and_full_whatever_a_clock_has_written_into_it() {
    let home = Home::new();
    let store = home.open();
    let sql = home.sql();
    let at = now().as_millis();
    for (count, at) in [(200, at + 100 * 86_400_000), (200, at - 100 * 86_400_000), (3, at)] {
        for _ in 0..count {
            sql.execute("INSERT INTO log (at, event) VALUES (?1, '{}')", [at]).unwrap();
        }
    }
    let rows = || -> i64 { home.sql().query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap() };
    while store.retain(now()).await.unwrap() {}
    assert_eq!(rows(), 203, "the old ones are gone, behind those from the future too");
    // A million rows later.
    sql.execute("INSERT INTO log (id, at, event) VALUES (1000403, ?1, '{}')", [at]).unwrap();
    while store.retain(now()).await.unwrap() {}
    assert_eq!(rows(), 1, "the oldest make room");
}
