//! Messages that lie in their segment and are never in memory by themselves.

use bytes::Bytes;
use mailworker::event::{Bus, Kind};
use mailworker::mail::MessageId;
use mailworker::store::{Acceptance, LARGE, Settled, Store, StoreError};

use crate::harness::*;

/// Octets that tell where they stand.
fn long(octets: usize, seed: usize) -> Bytes {
    let lines = (0..).map(|n| format!("line {} of {seed}\r\n", n + seed));
    let mut text = String::with_capacity(octets + 40);
    lines
        .take_while(|line| {
            text.push_str(line);
            text.len() < octets
        })
        .for_each(drop);
    text.truncate(octets);
    text.into()
}

fn with(mut acceptance: Acceptance, body: &Bytes) -> Acceptance {
    acceptance.body = body.clone().into();
    acceptance
}

/// Whether it is read from its segment, and as it was written.
async fn lies_there(store: &Store, id: MessageId, body: &Bytes) -> bool {
    let read = store.body(id).await.unwrap();
    read.raw.here().is_none() && read.head == message("").head && read.raw.whole().await.unwrap() == *body
}

/// Changes the last octet of a segment's last record.
fn damage_end(path: &std::path::Path) {
    let mut octets = std::fs::read(path).unwrap();
    octets[Home::end(path) - 1] ^= 1;
    std::fs::write(path, octets).unwrap();
}

#[tokio::test]
async fn what_is_large_is_read_where_it_lies_even_when_its_file_has_lost_its_name() {
    let home = Home::new();
    let store = home.open();
    let (small, large) = (long(LARGE, 1), long(3 * LARGE + 17, 2));
    let small_id = accept(&store, with(message(""), &small)).await;
    let large_id = accept(&store, with(message(""), &large)).await;
    let after = home.crash();
    let store = after.open();
    let read = store.body(small_id).await.unwrap();
    assert_eq!(read.raw.here(), Some(&small));
    assert!(lies_there(&store, large_id, &large).await);
    let held = store.body(large_id).await.unwrap();
    std::fs::remove_file(&after.segments()[0]).unwrap();
    assert!(held.raw.whole().await.unwrap() == large);
    assert!(held.raw.is_ascii() && held.raw.len() == large.len());
}

#[tokio::test]
async fn one_whose_last_octet_has_changed_is_never_handed_out() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, with(message(""), &long(5 * LARGE, 1))).await;
    store.close().await;
    damage_end(&home.segments()[0]);
    let bus = Bus::new(16);
    let mut events = bus.subscribe();
    let store = Store::open(home.options(), bus).unwrap();
    assert!(matches!(store.body(id).await, Err(StoreError::NotFound(_))));
    let mut told = false;
    while let Ok(event) = events.try_recv() {
        told |=
            event.message == Some(id) && matches!(&event.kind, Kind::Fault { what, .. } if what.contains("damaged"));
    }
    assert!(told);
}

#[tokio::test]
async fn what_is_large_and_needed_moves_on_with_its_neighbours() {
    let home = Home::new();
    let store = Store::open(home.options(), Bus::new(64)).unwrap();
    let at = now().minus(8 * DAY);
    let (body, spent) = (long(2 * LARGE, 1), long(4 * LARGE, 2));
    let large = accept(&store, with(message_at("", at), &body)).await;
    let small = accept(&store, message_at("small", at)).await;
    let mut settled = with(message_at("", at), &spent);
    settled.deliveries.clear();
    accept(&store, settled).await;
    for delivery in store.claim(now(), 10).await.unwrap() {
        let end = Settled::Later { due: now().plus(DAY), error: "421".to_owned(), delay_noticed: false };
        store.settle(vec![settlement(delivery.key, end)]).await.unwrap();
    }
    store.close().await;
    let store = home.open();
    let before = home.segments();
    while store.retain(now()).await.unwrap() {}
    assert!(home.segments().iter().all(|segment| !before.contains(segment)), "another file holds them now");
    assert!(lies_there(&store, large, &body).await);
    assert_eq!(octets(&store, small).await, "small");
    let after = home.crash();
    assert_eq!(Store::check(&after.path()).unwrap().findings, []);
    assert!(lies_there(&after.open(), large, &body).await);
}

#[tokio::test]
async fn a_repair_takes_over_what_is_large_and_whole() {
    let home = Home::new();
    let store = home.open();
    let (one, other) = (long(2 * LARGE, 1), long(2 * LARGE, 2));
    let whole = accept(&store, with(message(""), &one)).await;
    let damaged = accept(&store, with(message(""), &other)).await;
    store.close().await;
    damage_end(&home.segments()[0]);
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert!(repaired.found.findings.iter().any(|finding| finding.problem.contains(&damaged.to_string())));
    assert_eq!(repaired.left.findings, []);
    let store = home.open();
    assert!(lies_there(&store, whole, &one).await);
    assert!(matches!(store.body(damaged).await, Err(StoreError::NotFound(_))));
}
