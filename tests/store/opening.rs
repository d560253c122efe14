//! Opening: one process at a time, what isn't a store of ours, what a crash or a hand has left in the directory.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use mailworker::event::{Bus, Kind};
use mailworker::store::{MessageFilter, Options, QueueFilter, Store, StoreError};

use crate::harness::*;

#[track_caller]
fn refused(home: &Home) -> String {
    match Store::open(home.options(), Bus::new(16)) {
        Err(StoreError::Unusable(text) | StoreError::Locked(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_owner_is_refused_and_told_who_the_first_is() {
    let home = Home::new();
    let store = home.open();
    let text = refused(&home);
    assert!(text.contains(&format!("in use by process {}", std::process::id())), "{text}");
    assert!(text.contains("data_dir of its own"), "and what to do: {text}");
    accept(&store, message("x")).await;
    store.close().await;
    assert_eq!(home.open().claim(now(), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_closed_store_takes_nothing_more() {
    let home = Home::new();
    let store = home.open();
    store.close().await;
    assert!(matches!(store.accept(message("x")).await, Err(StoreError::Closed)));
    assert!(matches!(store.retain(now()).await, Err(StoreError::Closed)));
}

#[test]
fn what_is_in_it_is_nobody_elses_business() {
    let home = Home::new();
    let _store = home.open();
    let mode = |name: &str| std::fs::metadata(home.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["", "spool"].map(mode), [0o700; 2]);
    assert_eq!(["mailworker.db", "mailworker.db-wal", "lock"].map(mode), [0o600; 3]);
}

/// The lock lies on the directory: a hand that tidies up lets no second server in.
#[tokio::test]
async fn a_lock_file_that_was_deleted_lets_nobody_in() {
    let home = Home::new();
    let store = home.open();
    std::fs::remove_file(home.path().join("lock")).unwrap();
    assert!(refused(&home).contains("in use by another process"));
    store.close().await;
    home.open();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_who_is_about_to_let_go() {
    let home = Home::new();
    let store = home.open();
    let bus = Bus::new(16);
    let mut events = bus.subscribe();
    let options = home.options();
    let second = tokio::task::spawn_blocking(move || Store::open(options, bus).map(drop));
    let told = events.recv().await.unwrap();
    let Kind::Fault { what, detail } = &told.kind else { panic!("{told:?}") };
    assert!(what.contains("waited for") && detail.contains("in use by process"), "{told:?}");
    store.close().await;
    second.await.unwrap().unwrap();
}

/// Slips such as `data_dir = "/srv"` or `data_dir = "/tmp"` must not shut everybody out of it.
#[test]
fn a_directory_that_was_there_keeps_its_mode_and_one_that_all_users_share_is_refused() {
    for (mode, taken) in [(0o755, true), (0o750, true), (0o1777, false), (0o777, false)] {
        let home = Home::new();
        std::fs::create_dir_all(home.path()).unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        if taken {
            drop(home.open());
        } else {
            let text = refused(&home);
            assert!(text.contains("all users share it"), "{text}");
            assert!(!home.path().join("spool").exists(), "nothing is left in it");
        }
        assert_eq!(std::fs::metadata(home.path()).unwrap().permissions().mode() & 0o7777, mode);
    }
}

/// `store check --repair` and `kv put` by root, in the store of a service that isn't root.
#[tokio::test]
async fn what_root_makes_in_a_store_belongs_to_its_owner() {
    let home = Home::new();
    let store = home.open();
    accept(&store, message("one of two")).await;
    accept(&store, message("damaged")).await;
    store.close().await;
    std::fs::remove_file(home.path().join("lock")).unwrap();
    let segment = home.segments().remove(0);
    let mut octets = std::fs::read(&segment).unwrap();
    octets[Home::end(&segment) - 1] ^= 1;
    std::fs::write(&segment, octets).unwrap();
    let given = std::process::Command::new("chown").arg("-R").arg("65534:65534").arg(home.path()).output().unwrap();
    if !given.status.success() {
        println!("skipped: only root gives files away");
        return;
    }
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert!(repaired.quarantine.is_some() && home.segments().len() == 1);
    home.open().kv_write(Vec::new(), now()).await.unwrap();
    let mut below = vec![home.path()];
    while let Some(path) = below.pop() {
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65534), "{}", path.display());
        if found.is_dir() {
            below.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_told() {
    let home = Home::new();
    std::fs::create_dir_all(home.path().parent().unwrap()).unwrap();
    std::fs::write(home.path(), "").unwrap();
    let text = refused(&home);
    assert!(text.contains("is no directory"), "{text}");
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let home = Home::new();
    drop(home.open());
    let sql = "UPDATE refinery_schema_history SET version = version + 100";
    home.sql().execute(sql, []).unwrap();
    let text = refused(&home);
    assert!(text.contains("opened by a newer version") && text.contains("restore a backup"), "{text}");
    assert!(matches!(Store::open_readonly(&home.path()), Err(StoreError::Unusable(_))));
    assert!(matches!(Store::check(&home.path()), Err(StoreError::Unusable(_))));
}

#[test]
fn another_programs_database_is_left_alone() {
    let home = Home::new();
    std::fs::create_dir_all(home.path()).unwrap();
    home.sql().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(refused(&home).contains("not a store"));
    let theirs: i64 = home.sql().query_row("SELECT count(*) FROM theirs", [], |row| row.get(0)).unwrap();
    assert_eq!(theirs, 0);
}

#[tokio::test]
async fn segments_without_their_database_are_not_taken_for_leftovers() {
    let home = Home::new();
    let store = home.open();
    accept(&store, message("precious")).await;
    store.close().await;
    for name in ["mailworker.db", "mailworker.db-wal", "mailworker.db-shm"] {
        let _not_there = std::fs::remove_file(home.path().join(name));
    }
    let text = refused(&home);
    assert!(text.contains("restore") && text.contains("spool"), "{text}");
    assert_eq!(home.segments().len(), 1);
    assert!(refused(&home).contains("spool"), "and trying again doesn't get around it");
    assert_eq!(home.segments().len(), 1);
}

#[tokio::test]
async fn a_torn_tail_is_left_alone_and_its_place_never_used_again() {
    let home = Home::new();
    let store = home.open();
    let first = accept(&store, message("first")).await;
    let after = home.crash();
    let segment = after.segments().remove(0);
    let torn = [std::fs::read(&segment).unwrap(), b"MWR1 torn".to_vec()].concat();
    std::fs::write(&segment, &torn).unwrap();
    let store = after.open();
    let second = accept(&store, message("second")).await;
    assert_eq!(after.segments().len(), 2);
    assert_eq!(std::fs::read(&segment).unwrap(), torn);
    assert_eq!(octets(&store, first).await, "first");
    assert_eq!(octets(&store, second).await, "second");
}

#[tokio::test]
async fn octets_that_were_never_promised_go_when_the_store_is_opened() {
    let home = Home::new();
    drop(home.open());
    // Killed between the segment's sync and the commit.
    std::fs::write(home.path().join("spool/0000000000000001.seg"), "MWR1 whole, but no row").unwrap();
    let store = home.open();
    assert!(home.segments().is_empty());
    accept(&store, message("x")).await;
}

#[tokio::test]
async fn one_row_that_cannot_be_read_keeps_neither_the_store_shut_nor_the_others_from_view() {
    let home = Home::new();
    let store = home.open();
    let broken = accept(&store, message("x")).await;
    let sound = accept(&store, message("y")).await;
    store.close().await;
    let sql = "UPDATE messages SET fingerprint = x'00', subject = CAST(x'ff' AS TEXT), outcome = 'what', size = 'big' \
               WHERE id = ?1";
    home.sql().execute(sql, [broken.to_bytes()]).unwrap();
    home.sql().execute("UPDATE deliveries SET attempts = 'x' WHERE message = ?1", [broken.to_bytes()]).unwrap();
    let store = home.open();
    let list = store.messages(MessageFilter::default()).await.unwrap();
    assert_eq!(list.iter().map(|line| line.id).collect::<Vec<_>>(), [sound, broken]);
    assert_eq!(store.queue(QueueFilter::default()).await.unwrap().len(), 2);
    assert!(store.message(broken).await.is_ok());
}

#[tokio::test]
async fn a_disk_with_less_free_than_wanted_has_no_room() {
    let home = Home::new();
    let full = Store::open(Options { free_space: u64::MAX, ..home.options() }, Bus::new(16)).unwrap();
    // The writer looks at the disk before it serves.
    full.kv_write(Vec::new(), now()).await.unwrap();
    assert!(!full.has_room());
    full.close().await;
    let store = home.open();
    store.kv_write(Vec::new(), now()).await.unwrap();
    assert!(store.has_room());
}

#[tokio::test]
async fn a_clock_that_was_set_back_loses_nothing() {
    let home = Home::new();
    let store = home.open();
    let future = accept(&store, message_at("from the future", now().plus(DAY))).await;
    let present = accept(&store, message("x")).await;
    store.close().await;
    let store = home.open();
    while store.retain(now()).await.unwrap() {}
    assert_eq!(octets(&store, future).await, "from the future");
    assert_eq!(octets(&store, present).await, "x");
    assert_eq!(store.claim(now(), 10).await.unwrap().len(), 1);
    assert_eq!(store.claim(now().plus(DAY), 10).await.unwrap().len(), 1);
}
