//! Backups: whole or not there at all, into a directory that is otherwise left as it is, readable where nothing is written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mailworker::store::{MessageFilter, Store, StoreError};

use crate::harness::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn made(path: &Path, mode: u32) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_directory_that_holds_something_is_refused_and_left_as_it_is() {
    let (home, elsewhere) = (Home::new(), Home::new());
    let store = home.open();
    made(&elsewhere.path(), 0o755);
    std::fs::write(elsewhere.path().join("theirs"), "x").unwrap();
    let Err(StoreError::Unusable(text)) = store.backup(&elsewhere.path()).await else { panic!("it isn't empty") };
    assert!(text.contains("isn't empty"), "{text}");
    assert_eq!((mode(&elsewhere.path()), entries(&elsewhere.path())), (0o755, vec!["theirs".to_owned()]));
    let file = elsewhere.path().join("theirs");
    let Err(StoreError::Unusable(text)) = store.backup(&file).await else { panic!("it is a file") };
    assert!(text.contains("is no directory"), "{text}");
}

#[tokio::test]
async fn an_empty_directory_is_filled_and_keeps_its_mode() {
    let (home, elsewhere) = (Home::new(), Home::new());
    let store = home.open();
    accept(&store, message("x")).await;
    made(&elsewhere.path(), 0o750);
    store.backup(&elsewhere.path()).await.unwrap();
    assert_eq!(mode(&elsewhere.path()), 0o750);
    assert_eq!(mode(&elsewhere.path().join("mailworker.db")), 0o600);
    assert_eq!(mode(&elsewhere.path().join("spool")), 0o700);
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing_behind() {
    let (home, elsewhere) = (Home::new(), Home::new());
    let store = home.open();
    accept(&store, message("x")).await;
    std::fs::remove_file(home.segments().remove(0)).unwrap();
    assert!(store.backup(&elsewhere.path()).await.is_err());
    assert!(!elsewhere.path().exists(), "{:?}", entries(&elsewhere.path()));
    made(&elsewhere.path(), 0o755);
    assert!(store.backup(&elsewhere.path()).await.is_err());
    assert_eq!(entries(&elsewhere.path()), [] as [&str; 0], "what was there stays");
}

#[tokio::test]
async fn a_backup_that_did_not_come_to_its_end_is_no_store() {
    let (home, elsewhere) = (Home::new(), Home::new());
    let store = home.open();
    accept(&store, message("x")).await;
    store.backup(&elsewhere.path()).await.unwrap();
    let database = elsewhere.path().join("mailworker.db");
    std::fs::rename(&database, database.with_extension("db.partial")).unwrap();
    let refusals = [
        Store::open(elsewhere.options(), mailworker::event::Bus::new(16)).map(drop),
        Store::open_readonly(&elsewhere.path()).map(drop),
        Store::check(&elsewhere.path()).map(drop),
        Store::repair(&elsewhere.path(), now()).map(drop),
    ];
    for refusal in refusals {
        let Err(StoreError::Unusable(text)) = refusal else { panic!("{refusal:?}") };
        assert!(text.contains("didn't come to its end"), "{text}");
    }
}

/// What lies on read-only media: SQLite could make neither WAL nor index of it there.
#[tokio::test]
async fn a_backup_is_read_and_checked_without_a_file_being_made_beside_it() {
    let (home, elsewhere) = (Home::new(), Home::new());
    let store = home.open();
    accept(&store, message("x")).await;
    store.backup(&elsewhere.path()).await.unwrap();
    assert_eq!(entries(&elsewhere.path()), ["mailworker.db", "spool"]);
    let reader = Store::open_readonly(&elsewhere.path()).unwrap();
    assert_eq!(reader.messages(&MessageFilter::default()).unwrap().len(), 1);
    assert_eq!(Store::check(&elsewhere.path()).unwrap().findings, []);
    assert_eq!(entries(&elsewhere.path()), ["mailworker.db", "spool"]);
    let journal: String = elsewhere.sql().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(journal, "delete");
}
