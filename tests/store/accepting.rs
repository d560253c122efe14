//! accept, claim, settle, body: the life of a message in the store.

use std::collections::HashSet;

use mailworker::kv::{Read, Value, Write};
use mailworker::mail::Timestamp;
use mailworker::store::{Accepted, MessageFilter, MessageOutcome, QueueFilter, Settled, Store, StoreError};

use crate::harness::*;

#[tokio::test]
async fn what_was_accepted_is_there_after_a_crash_with_its_octets_its_trace_and_its_delivery() {
    let home = Home::new();
    let store = home.open();
    let acceptance = message("Subject: Hello\r\n\r\nHi\r\n");
    let (raw, head, envelope) = (acceptance.body.here().cloned(), acceptance.head.clone(), acceptance.envelope.clone());
    let id = accept(&store, acceptance).await;

    let after = home.crash();
    let store = after.open();
    let body = store.body(id).await.unwrap();
    assert_eq!((body.raw.here().cloned(), body.head, body.envelope), (raw, head, envelope));
    let detail = store.message(id).await.unwrap();
    assert_eq!(detail.summary.subject.as_deref(), Some("Hello"));
    assert_eq!(detail.summary.ip, Some("192.0.2.7".parse().unwrap()));
    assert_eq!((detail.summary.queued, detail.summary.raw), (1, true));
    assert_eq!(detail.trace, vec![accepted(id, id.timestamp())]);
    let claimed = store.claim(now(), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].key.message, id);
    assert!(claimed[0].warm.is_none());
}

#[tokio::test]
async fn an_accepted_delivery_is_claimed_warm_once_and_is_gone_when_it_is_done() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, message("x\r\n")).await;
    let claimed = store.claim(now(), 10).await.unwrap();
    assert_eq!(claimed[0].warm.as_ref().unwrap().raw.here().unwrap().as_ref(), b"x\r\n");
    assert!(store.claim(now(), 10).await.unwrap().is_empty());

    let mut settled = settlement(claimed[0].key, Settled::Done);
    settled.events = vec![accepted(id, now())];
    store.settle(vec![settled]).await.unwrap();
    let detail = store.message(id).await.unwrap();
    assert_eq!((detail.summary.queued, detail.summary.dead, detail.trace.len()), (0, 0, 2));
    assert!(detail.deliveries.is_empty());
    assert_eq!(store.next_due().await.unwrap(), None);
    drop(store);
    assert!(home.open().claim(now(), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_delivery_settled_for_later_comes_back_when_it_is_due_with_its_attempts_counted() {
    let home = Home::new();
    let store = home.open();
    accept(&store, message("x")).await;
    let key = store.claim(now(), 1).await.unwrap()[0].key;
    let due = now().plus(DAY);
    let later = Settled::Later { due, error: "421 busy".to_owned(), delay_noticed: true };
    store.settle(vec![settlement(key, later)]).await.unwrap();
    assert!(store.claim(now(), 1).await.unwrap().is_empty());
    assert_eq!(store.next_due().await.unwrap(), Some(due));
    let again = store.claim(due, 1).await.unwrap();
    assert_eq!((again[0].key, again[0].attempts, again[0].delay_noticed), (key, 1, true));
    let entry = store.queue(QueueFilter::default()).await.unwrap().remove(0);
    assert_eq!(entry.last_error.as_deref(), Some("421 busy"));

    let due = due.plus(DAY);
    store.settle(vec![settlement(key, Settled::Postponed { due })]).await.unwrap();
    assert_eq!(store.claim(due, 1).await.unwrap()[0].attempts, 1);
}

#[tokio::test]
async fn a_dead_delivery_is_kept_and_not_claimed() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, message("x")).await;
    let key = store.claim(now(), 1).await.unwrap()[0].key;
    store.settle(vec![settlement(key, Settled::Dead { error: "410".to_owned() })]).await.unwrap();
    assert!(store.claim(now().plus(DAY), 1).await.unwrap().is_empty());
    let detail = store.message(id).await.unwrap();
    assert_eq!((detail.summary.queued, detail.summary.dead), (0, 1));
    let gauges = store.gauges().await.unwrap();
    assert_eq!((gauges.queued, gauges.dead), (0, 1));
}

#[tokio::test]
async fn a_settlement_queues_what_follows_and_accepts_what_it_authors_in_one_transaction() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, message("x")).await;
    let key = store.claim(now(), 1).await.unwrap()[0].key;
    let mut author = message("notice");
    author.outcome = MessageOutcome::Authored;
    let notice = author.id;
    let mut settled = settlement(key, Settled::Done);
    settled.then = vec![relay(now())];
    settled.authored = vec![author];
    settled.outcome = Some(MessageOutcome::Dropped);
    store.settle(vec![settled]).await.unwrap();

    let claimed = store.claim(now(), 10).await.unwrap();
    let keys: HashSet<_> = claimed.iter().map(|delivery| (delivery.key.message, delivery.key.n)).collect();
    // Numbers aren't given twice: the settled one was 0.
    assert_eq!(keys, HashSet::from([(id, 1), (notice, 0)]));
    let authored = claimed.iter().find(|delivery| delivery.key.message == notice).unwrap();
    assert_eq!(authored.warm.as_ref().unwrap().raw.here().unwrap().as_ref(), b"notice");
    assert_eq!(store.message(id).await.unwrap().summary.outcome, MessageOutcome::Dropped);
}

#[tokio::test]
async fn an_acceptance_whose_reads_are_stale_leaves_nothing_not_even_its_octets() {
    let home = Home::new();
    let store = home.open();
    let put = |text: &str| Write::Put {
        namespace: "N".to_owned(),
        key: "k".to_owned(),
        value: Value::Text(text.to_owned()),
        metadata: None,
        expires_at: None,
    };
    store.kv_write(vec![put("1")], now()).await.unwrap();
    let read = |version| Read::Key { namespace: "N".to_owned(), key: "k".to_owned(), version };
    let mut stale = message("stale");
    stale.kv_reads = vec![read(None)];
    stale.kv_writes = vec![put("2")];
    let id = stale.id;
    assert_eq!(store.accept(stale).await.unwrap(), Accepted::Overtaken);
    assert!(matches!(store.message(id).await, Err(StoreError::NotFound(_))));
    assert!(store.claim(now(), 10).await.unwrap().is_empty());
    assert!(home.segments().is_empty());
    let entry = store.kv().get("N", "k", now()).unwrap().unwrap();
    assert_eq!(entry.value, Value::Text("1".to_owned()));

    let mut fresh = message("fresh");
    fresh.kv_reads = vec![read(Some(entry.version))];
    fresh.kv_writes = vec![put("2")];
    accept(&store, fresh).await;
    assert_eq!(store.kv().get("N", "k", now()).unwrap().unwrap().value, Value::Text("2".to_owned()));
}

#[tokio::test]
async fn a_refused_unit_takes_nothing_from_the_others_of_its_group() {
    let home = Home::new();
    let store = home.open();
    let twice = message("first");
    accept(&store, twice.clone()).await;
    let mut tasks = Vec::new();
    for n in 0..40 {
        let acceptance = if n % 4 == 0 { twice.clone() } else { message(&format!("body {n}")) };
        let store = store.clone();
        tasks.push(tokio::spawn(async move { (n, acceptance.id, store.accept(acceptance).await) }));
    }
    for task in tasks {
        let (n, id, result) = task.await.unwrap();
        if n % 4 == 0 {
            assert!(matches!(result, Err(StoreError::Failed(_))), "{result:?}");
        } else {
            assert_eq!(result.unwrap(), Accepted::Committed);
            assert_eq!(octets(&store, id).await, format!("body {n}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_their_syncs_and_each_is_whole() {
    let home = Home::new();
    let store = home.open();
    let before = store.syncs();
    let mut tasks = Vec::new();
    for n in 0..300 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move { (n, accept(&store, message(&format!("body {n}"))).await) }));
    }
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    assert!(store.syncs() - before < 600, "one group for each message is no group commit");
    let after = home.crash();
    let store = after.open();
    for (n, id) in ids {
        assert_eq!(octets(&store, id).await, format!("body {n}"));
    }
    let claimed = store.claim(now(), 1000).await.unwrap();
    assert_eq!(claimed.iter().map(|delivery| delivery.key).collect::<HashSet<_>>().len(), 300);
}

#[tokio::test]
async fn what_was_told_451_leaves_its_trace_and_no_octets() {
    let home = Home::new();
    let store = home.open();
    let mut deferred = message("body");
    deferred.outcome = MessageOutcome::Deferred;
    deferred.deliveries.clear();
    let (id, fingerprint) = (deferred.id, deferred.fingerprint);
    accept(&store, deferred).await;
    let detail = store.message(id).await.unwrap();
    assert_eq!((detail.summary.raw, detail.summary.size, detail.trace.len()), (false, 4, 1));
    assert!(matches!(store.body(id).await, Err(StoreError::NotFound(_))));
    assert_eq!(store.take_unread(&fingerprint), None);
    assert!(home.segments().is_empty());
}

#[tokio::test]
async fn only_what_may_be_unread_is_told_as_such_for_an_hour_and_once() {
    let home = Home::new();
    let store = home.open();
    let (first, old) = (message("x"), message_at("y", now().minus(DAY)));
    let known = [(first.fingerprint, first.id), (old.fingerprint, old.id)];
    accept(&store, first).await;
    accept(&store, old).await;
    assert_eq!(known.map(|(fingerprint, _)| store.take_unread(&fingerprint)), [None, None]);
    for (fingerprint, id) in known {
        store.put_unread(fingerprint, id);
    }
    assert_eq!(known.map(|(fingerprint, _)| store.take_unread(&fingerprint)), [Some(known[0].1), None]);
    assert_eq!(store.take_unread(&known[0].0), None);
}

#[tokio::test]
async fn a_clean_stop_keeps_what_may_be_unread_and_nothing_else() {
    let home = Home::new();
    let store = home.open();
    let (unread, read) = (message("unread"), message("read"));
    let known = [(unread.fingerprint, unread.id), (read.fingerprint, read.id)];
    accept(&store, unread).await;
    accept(&store, read).await;
    store.put_unread(known[0].0, known[0].1);
    store.close().await;
    let again = home.open();
    // The next end isn't clean; what was read before the clean one is known to be.
    let crashed = home.crash();
    assert_eq!(known.map(|(fingerprint, _)| again.take_unread(&fingerprint)), [Some(known[0].1), None]);
    assert_eq!(crashed.open().take_unread(&known[1].0), None);
    again.close().await;
    assert_eq!(home.open().take_unread(&known[0].0), None, "it was taken");
    assert_eq!(Store::check(&home.path()).unwrap().findings, []);
}

#[tokio::test]
async fn after_a_crash_what_was_promised_in_the_last_moments_may_be_unread() {
    let home = Home::new();
    let store = home.open();
    let mut refused = message("refused");
    refused.outcome = MessageOutcome::Rejected;
    let acceptances =
        [message_at("long read", now().minus(std::time::Duration::from_mins(2))), message("just now"), refused];
    let known = acceptances.each_ref().map(|acceptance| acceptance.fingerprint);
    for acceptance in acceptances {
        accept(&store, acceptance).await;
    }
    let after = home.crash().open();
    assert_eq!(known.map(|fingerprint| after.take_unread(&fingerprint).is_some()), [false, true, false]);
}

#[tokio::test]
async fn the_list_is_newest_first_in_pages_and_narrows_by_every_field() {
    let home = Home::new();
    let store = home.open();
    let start = now();
    let mut ids = Vec::new();
    for n in 0..5_i64 {
        let at = Timestamp::from_millis(start.as_millis() + n);
        let mut acceptance = message_at("x", at);
        acceptance.subject = Some(format!("100% no. {n}"));
        ids.push(accept(&store, acceptance).await);
    }
    ids.reverse();
    let list = async |filter: MessageFilter| {
        store.messages(filter).await.unwrap().iter().map(|line| line.id).collect::<Vec<_>>()
    };
    let page = list(MessageFilter { limit: Some(2), ..MessageFilter::default() }).await;
    assert_eq!(page, ids[..2]);
    let page = list(MessageFilter { before: Some(page[1]), ..MessageFilter::default() }).await;
    assert_eq!(page, ids[2..]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(list(MessageFilter { subject: some("0% NO. 3"), ..MessageFilter::default() }).await, [ids[1]]);
    assert!(list(MessageFilter { subject: some("100_"), ..MessageFilter::default() }).await.is_empty());
    assert_eq!(list(MessageFilter { sender: some("sender@"), ..MessageFilter::default() }).await.len(), 5);
    assert_eq!(list(MessageFilter { recipient: some("a@example.org"), ..MessageFilter::default() }).await.len(), 5);
    assert!(list(MessageFilter { recipient: some("b@"), ..MessageFilter::default() }).await.is_empty());
    let outcome = Some(MessageOutcome::Stored);
    assert!(list(MessageFilter { outcome, ..MessageFilter::default() }).await.is_empty());
    let since = Some(Timestamp::from_millis(start.as_millis() + 3));
    assert_eq!(list(MessageFilter { since, ..MessageFilter::default() }).await, ids[..2]);
}

#[tokio::test]
async fn a_store_that_cannot_write_says_so_until_it_can() {
    let home = Home::new();
    let store = home.open();
    assert!(store.troubles().is_empty());
    let (spool, aside) = (home.path().join("spool"), home.path().join("aside"));
    std::fs::rename(&spool, &aside).unwrap();
    assert!(store.accept(message("lost")).await.is_err());
    assert_eq!(store.troubles().len(), 1, "{:?}", store.troubles());
    std::fs::rename(&aside, &spool).unwrap();
    accept(&store, message("kept")).await;
    assert!(store.troubles().is_empty(), "{:?}", store.troubles());
}
