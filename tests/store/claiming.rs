//! claim: what is due comes in order, to one caller at a time, and what can't be read stands in nobody's way.

use mailworker::event::Kind;

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
