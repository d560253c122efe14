//! kv: what workers read and write, with expiry, versions, lists in pages, and counters.

use mailworker::kv::{Value, View, Write};
use mailworker::mail::Timestamp;
use mailworker::store::{Store, StoreError};
use serde_json::json;

use crate::harness::*;

fn put(key: &str, value: Value, expires_at: Option<Timestamp>) -> Write {
    Write::Put {
        namespace: "N".to_owned(),
        key: key.to_owned(),
        value,
        metadata: Some(json!({ "of": key })),
        expires_at,
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn add(key: &str, by: i64) -> Write {
    Write::Increment { namespace: "N".to_owned(), key: key.to_owned(), by }
}

async fn write(store: &Store, writes: Vec<Write>) -> Result<(), StoreError> {
    store.kv_write(writes, now()).await
}

fn names(view: &dyn View, prefix: &str, cursor: Option<&str>, limit: usize) -> (Vec<String>, Option<String>) {
    let page = view.list("N", prefix, cursor, limit, now()).unwrap();
    (page.keys.into_iter().map(|key| key.name).collect(), page.cursor)
}

#[tokio::test]
async fn every_kind_of_value_comes_back_as_it_was_with_its_metadata() {
    let home = Home::new();
    let store = home.open();
    let values = [text("tä\u{0}xt"), Value::Blob(vec![0, 255, 10]), Value::Json(json!({ "a": [1, null] })), text("")];
    for (n, value) in values.iter().enumerate() {
        write(&store, vec![put(&n.to_string(), value.clone(), None)]).await.unwrap();
    }
    let after = home.crash();
    let view = after.open().kv();
    for (n, value) in values.into_iter().enumerate() {
        let entry = view.get("N", &n.to_string(), now()).unwrap().unwrap();
        assert_eq!((entry.value, entry.metadata), (value, Some(json!({ "of": n.to_string() }))));
    }
    assert_eq!(view.get("M", "0", now()).unwrap(), None, "namespaces are apart");
}

#[tokio::test]
async fn a_key_is_absent_from_the_moment_it_expires() {
    let home = Home::new();
    let store = home.open();
    let at = now().plus(DAY);
    write(&store, vec![put("k", text("v"), Some(at))]).await.unwrap();
    let view = store.kv();
    let just_before = Timestamp::from_millis(at.as_millis() - 1);
    assert_eq!(view.get("N", "k", just_before).unwrap().unwrap().expires_at, Some(at));
    assert_eq!(view.get("N", "k", at).unwrap(), None);
    assert!(view.list("N", "", None, 10, at).unwrap().keys.is_empty());
    assert_eq!(view.list("N", "", None, 10, just_before).unwrap().keys.len(), 1);
}

#[tokio::test]
async fn a_list_is_in_octet_order_by_prefix_and_in_pages_without_the_expired() {
    let home = Home::new();
    let store = home.open();
    let mut writes: Vec<Write> = ["a", "b:1", "b:2", "b:%", "b:é", "b;"].map(|key| put(key, text(""), None)).into();
    writes.push(put("b:15", text(""), Some(now().minus(DAY))));
    write(&store, writes).await.unwrap();
    let view = store.kv();
    assert_eq!(names(&*view, "b:", None, 10), (["b:%", "b:1", "b:2", "b:é"].map(str::to_owned).into(), None));
    let (first, cursor) = names(&*view, "b:", None, 2);
    assert_eq!((first, cursor.as_deref()), (["b:%", "b:1"].map(str::to_owned).into(), Some("b:1")));
    let (second, end) = names(&*view, "b:", cursor.as_deref(), 2);
    assert_eq!((second, end), (["b:2", "b:é"].map(str::to_owned).into(), None));
    assert_eq!(names(&*view, "", None, 1000).0.len(), 6);
    assert!(names(&*view, "c", None, 10).0.is_empty());
}

#[tokio::test]
async fn a_list_is_never_longer_than_its_bound() {
    let home = Home::new();
    let store = home.open();
    let writes = (0..mailworker::kv::MAX_LIST + 5).map(|n| put(&format!("{n:06}"), text(""), None)).collect();
    write(&store, writes).await.unwrap();
    let (all, cursor) = names(&*store.kv(), "", None, usize::MAX);
    assert_eq!(all.len(), mailworker::kv::MAX_LIST);
    assert_eq!(names(&*store.kv(), "", cursor.as_deref(), usize::MAX).0.len(), 5);
}

#[tokio::test]
async fn versions_are_never_given_twice_not_even_after_a_restart() {
    let home = Home::new();
    let mut last = 0;
    for _ in 0..3 {
        let store = home.open();
        for _ in 0..2 {
            write(&store, vec![put("k", text("v"), None)]).await.unwrap();
            let version = store.kv().get("N", "k", now()).unwrap().unwrap().version;
            assert!(version > last);
            last = version;
            let delete = Write::Delete { namespace: "N".to_owned(), key: "k".to_owned() };
            write(&store, vec![delete]).await.unwrap();
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_from_many_sides_all_count() {
    let home = Home::new();
    let store = home.open();
    let mut tasks = Vec::new();
    for n in 0..50 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            let mut acceptance = message("x");
            acceptance.kv_writes = vec![add("count", n % 3), add("count", 1)];
            accept(&store, acceptance).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let sum: i64 = (0..50).map(|n| n % 3 + 1).sum();
    assert_eq!(store.kv().get("N", "count", now()).unwrap().unwrap().value, Value::Json(sum.into()));
}

#[tokio::test]
async fn an_increment_of_what_is_no_integer_writes_nothing_of_its_run() {
    let home = Home::new();
    let store = home.open();
    let before = vec![put("text", text("7"), None), put("most", Value::Json(i64::MAX.into()), None)];
    write(&store, before).await.unwrap();
    for key in ["text", "most"] {
        let mut acceptance = message("x");
        acceptance.kv_writes = vec![put("side", text("effect"), None), add(key, 1)];
        let id = acceptance.id;
        assert!(matches!(store.accept(acceptance).await, Err(StoreError::Failed(_))));
        assert!(matches!(store.message(id).await, Err(StoreError::NotFound(_))));
        assert_eq!(store.kv().get("N", "side", now()).unwrap(), None);
    }
    assert_eq!(store.kv().get("N", "text", now()).unwrap().unwrap().value, text("7"));
}
