//! `store check` and its repair: every kind of damage is found and named, mended, and the rest of the mail is intact.

use std::path::PathBuf;

use mailworker::kv::{Value, Write};
use mailworker::mail::MessageId;
use mailworker::store::{CheckReport, RepairReport, Store, StoreError};

use crate::harness::*;

/// A store with three messages, closed: each with a delivery, a trace, and its octets in one segment; one key.
async fn three() -> (Home, [MessageId; 3]) {
    let home = Home::new();
    let store = home.open();
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(accept(&store, message(&format!("Subject: {n}\r\n\r\nbody number {n}\r\n"))).await);
    }
    store.kv_write(vec![put("k", "v")], now()).await.unwrap();
    store.close().await;
    (home, [ids[0], ids[1], ids[2]])
}

fn put(key: &str, text: &str) -> Write {
    let (namespace, key) = ("N".to_owned(), key.to_owned());
    Write::Put { namespace, key, value: Value::Text(text.to_owned()), metadata: None, expires_at: None }
}

fn check(home: &Home) -> CheckReport {
    Store::check(&home.path()).unwrap()
}

fn kinds(report: &CheckReport) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.kind.as_str()).collect()
}

/// Repairs, and holds that the check before it changed nothing and that the one after it finds nothing.
#[track_caller]
fn mended(home: &Home, found: &[&str]) -> RepairReport {
    let before = check(home);
    assert_eq!(kinds(&before), found, "{before:#?}");
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert_eq!(repaired.found, before, "a check changes nothing");
    assert_eq!(repaired.left.findings, [], "nothing is left");
    assert_eq!(check(home).findings, [], "a second check finds nothing");
    repaired
}

#[track_caller]
fn names(report: &CheckReport, words: &str) {
    assert!(report.findings.iter().any(|finding| finding.problem.contains(words)), "{words}: {report:#?}");
}

async fn body(home: &Home, id: MessageId) -> Result<String, StoreError> {
    let store = home.open();
    let body = store.body(id).await;
    store.close().await;
    body.map(|body| String::from_utf8(body.raw.here().unwrap().to_vec()).unwrap())
}

/// Changes the first octet of `text` in a segment.
fn damage(segment: &PathBuf, text: &str) {
    let mut octets = std::fs::read(segment).unwrap();
    let at = octets.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    octets[at] ^= 0x20;
    std::fs::write(segment, octets).unwrap();
}

/// All that lies in the quarantine, by name.
fn quarantined(repaired: &RepairReport) -> Vec<(String, Vec<u8>)> {
    let directory = repaired.quarantine.as_ref().unwrap();
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut found: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_sound_store_has_no_findings_and_is_counted() {
    let (home, _) = three().await;
    let report = check(&home);
    assert_eq!(report.findings, []);
    assert_eq!((report.messages, report.deliveries, report.segments, report.running), (3, 3, 1, false));
    let octets: u64 = (0..3).map(|n| format!("Subject: {n}\r\n\r\nbody number {n}\r\n").len() as u64 + 29).sum();
    assert_eq!(report.bytes, octets);
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert_eq!((repaired.found.findings.len(), repaired.quarantine), (0, None));
}

#[tokio::test]
async fn what_a_crash_leaves_is_sound() {
    let home = Home::new();
    let store = home.open();
    let id = accept(&store, message("whole")).await;
    let after = home.crash();
    // A group that was being written when the power went.
    let segment = &after.segments()[0];
    let mut octets = std::fs::read(segment).unwrap();
    octets.extend_from_slice(b"MWR1 torn");
    std::fs::write(segment, octets).unwrap();
    assert_eq!(check(&after).findings, []);
    assert_eq!(body(&after, id).await.unwrap(), "whole");
    assert_eq!(check(&after).findings, []);
}

#[tokio::test]
async fn a_running_store_is_checked_beside_its_server_and_not_repaired() {
    let home = Home::new();
    let store = home.open();
    accept(&store, message("x")).await;
    let report = check(&home);
    assert_eq!((report.running, report.messages, report.findings), (true, 1, Vec::new()));
    assert!(matches!(Store::repair(&home.path(), now()), Err(StoreError::Locked(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_written_to_and_cleared_while_it_is_checked_has_no_findings() {
    let home = Home::new();
    let mut options = home.options();
    options.segment_size = 4096;
    let store = Store::open(options, mailworker::event::Bus::new(16)).unwrap();
    let old = now().minus(8 * DAY);
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..150 {
                let mut message = message_at(&"x".repeat(1000), if n % 3 == 0 { now() } else { old });
                message.deliveries.truncate(usize::from(n % 2 == 0));
                accept(&store, message).await;
                store.retain(now()).await.unwrap();
            }
        }
    });
    let mut checks = 0;
    while !writing.is_finished() || checks == 0 {
        let path = home.path();
        let report = tokio::task::spawn_blocking(move || Store::check(&path).unwrap()).await.unwrap();
        assert_eq!(report.findings, []);
        checks += 1;
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn an_octet_that_changed_is_found_and_its_message_parked_while_its_neighbours_stay_whole() {
    let (home, ids) = three().await;
    let segment = home.segments().remove(0);
    damage(&segment, "body number 1");
    let repaired = mended(&home, &["octets"]);
    names(&repaired.found, &format!("message {}", ids[1]));
    names(&repaired.found, "its checksum is wrong");

    let aside = quarantined(&repaired);
    let octets = &aside.iter().find(|(name, _)| *name == format!("{}.octets", ids[1])).unwrap().1;
    assert!(octets.ends_with(b"Body number 1\r\n"), "what is left of it is kept");
    assert!(aside.iter().any(|(name, _)| *name == "0000000000000001.seg"), "and so is the segment");
    for n in [0, 2] {
        assert_eq!(body(&home, ids[n]).await.unwrap(), format!("Subject: {n}\r\n\r\nbody number {n}\r\n"));
    }
    assert!(matches!(body(&home, ids[1]).await, Err(StoreError::NotFound(_))));
    let store = home.open();
    let claimed: Vec<_> = store.claim(now(), 10).await.unwrap().iter().map(|one| one.key.message).collect();
    assert_eq!(claimed, [ids[0], ids[2]]);
    let detail = store.message(ids[1]).await.unwrap();
    assert_eq!((detail.summary.queued, detail.summary.dead, detail.summary.raw), (0, 1, false));
    assert_eq!(detail.deliveries[0].last_error.as_deref(), Some("its message's octets are gone"));
    assert_eq!(detail.trace.len(), 2, "its story tells of it");
}

#[tokio::test]
async fn a_damaged_header_of_a_record_is_found_by_its_row_and_by_the_walk() {
    let (home, ids) = three().await;
    let segment = home.segments().remove(0);
    let mut octets = std::fs::read(&segment).unwrap();
    octets[5] ^= 1;
    std::fs::write(&segment, octets).unwrap();
    let repaired = mended(&home, &["octets", "segment"]);
    names(&repaired.found, "no record begins here");
    names(&repaired.found, "no record begins at 0");
    assert!(body(&home, ids[2]).await.is_ok());
}

#[tokio::test]
async fn a_truncated_segment_loses_only_what_was_cut_off() {
    let (home, ids) = three().await;
    let segment = home.segments().remove(0);
    let end = Home::end(&segment) as u64;
    std::fs::File::options().write(true).open(&segment).unwrap().set_len(end - 5).unwrap();
    let repaired = mended(&home, &["octets"]);
    names(&repaired.found, "the file ends before the record does");
    assert!(body(&home, ids[0]).await.is_ok() && body(&home, ids[1]).await.is_ok());
    assert!(body(&home, ids[2]).await.is_err());
}

#[tokio::test]
async fn a_missing_segment_is_one_finding_and_its_messages_keep_their_records() {
    let (home, ids) = three().await;
    std::fs::remove_file(home.segments().remove(0)).unwrap();
    let repaired = mended(&home, &["segment"]);
    names(&repaired.found, "is missing: 3 messages have lost their octets");
    let store = home.open();
    let detail = store.message(ids[0]).await.unwrap();
    assert_eq!((detail.summary.subject.as_deref(), detail.summary.raw, detail.summary.dead), (Some("Hello"), false, 1));
}

#[tokio::test]
async fn a_segment_that_no_row_names_is_put_aside_and_not_deleted() {
    let (home, _) = three().await;
    let stray = home.path().join("spool/00000000000000ff.seg");
    std::fs::write(&stray, "somebody's mail").unwrap();
    let repaired = mended(&home, &["segment"]);
    assert!(!repaired.found.findings[0].serious);
    assert_eq!(quarantined(&repaired), [("00000000000000ff.seg".to_owned(), b"somebody's mail".to_vec())]);
    assert!(!stray.exists());
}

#[tokio::test]
async fn an_envelope_that_cannot_be_read_is_made_again_from_its_row() {
    let (home, ids) = three().await;
    let sql = "UPDATE messages SET envelope = '{\"sender\":', client = 'x' WHERE id = ?1";
    home.sql().execute(sql, [ids[0].to_bytes()]).unwrap();
    let repaired = mended(&home, &["message", "message"]);
    names(&repaired.found, "its envelope can't be read");
    let store = home.open();
    let body = store.body(ids[0]).await.unwrap();
    assert_eq!(body.envelope, message("x").envelope);
    assert_eq!(body.client, None);
    let rows = String::from_utf8(quarantined(&repaired).remove(0).1).unwrap();
    assert!(rows.contains(r#"{\"sender\":"#), "the row as it was is kept: {rows}");
}

#[tokio::test]
async fn values_of_the_wrong_kind_are_blanked_and_the_store_opens_again() {
    let (home, ids) = three().await;
    let sql = "UPDATE messages SET fingerprint = x'00', subject = x'ff', outcome = 'what' WHERE id = ?1";
    home.sql().execute(sql, [ids[0].to_bytes()]).unwrap();
    home.sql().execute("UPDATE deliveries SET attempts = 'many' WHERE message = ?1", [ids[1].to_bytes()]).unwrap();
    mended(&home, &["message", "delivery"]);
    let store = home.open();
    assert_eq!(store.message(ids[0]).await.unwrap().summary.subject, None);
    assert_eq!(store.message(ids[1]).await.unwrap().deliveries[0].last_error.as_deref(), Some("its row was damaged"));
    assert_eq!(store.claim(now(), 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_task_that_cannot_be_read_is_parked() {
    let (home, ids) = three().await;
    home.sql().execute("UPDATE deliveries SET task = '[]' WHERE message = ?1", [ids[1].to_bytes()]).unwrap();
    let repaired = mended(&home, &["delivery"]);
    names(&repaired.found, &format!("delivery 0 of message {}: its task can't be read", ids[1]));
    assert_eq!(home.open().message(ids[1]).await.unwrap().summary.dead, 1);
}

#[tokio::test]
async fn a_delivery_and_a_trace_without_their_message_are_put_aside() {
    let (home, ids) = three().await;
    home.sql().execute("DELETE FROM messages WHERE id = ?1", [ids[2].to_bytes()]).unwrap();
    let repaired = mended(&home, &["delivery", "trace"]);
    names(&repaired.found, "there is no such message");
    let rows = String::from_utf8(quarantined(&repaired).remove(0).1).unwrap();
    assert_eq!(rows.lines().count(), 2);
    assert!(rows.contains("team@example.com"), "the recipient can be read there: {rows}");
    assert_eq!(home.open().claim(now(), 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_number_that_would_be_given_twice_is_put_right() {
    let (home, ids) = three().await;
    home.sql().execute("UPDATE messages SET deliveries = 0 WHERE id = ?1", [ids[0].to_bytes()]).unwrap();
    mended(&home, &["delivery"]);
    let count: i64 = home
        .sql()
        .query_row("SELECT deliveries FROM messages WHERE id = ?1", [ids[0].to_bytes()], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn events_and_keys_that_cannot_be_read_are_put_aside() {
    let (home, ids) = three().await;
    home.sql().execute("UPDATE trace SET events = '[{\"at\":1}]' WHERE message = ?1", [ids[0].to_bytes()]).unwrap();
    home.sql().execute("UPDATE kv SET kind = 2, value = CAST('{' AS BLOB)", []).unwrap();
    home.sql().execute("INSERT INTO log (at, event) VALUES (1, 'x')", []).unwrap();
    let repaired = mended(&home, &["trace", "kv", "log"]);
    names(&repaired.found, "KV key N/k can't be read");
    let store = home.open();
    assert_eq!(store.kv().get("N", "k", now()).unwrap(), None);
    assert!(store.message(ids[0]).await.unwrap().trace.is_empty());
}

#[tokio::test]
async fn a_counter_of_versions_that_is_gone_is_set_past_the_newest() {
    let (home, _) = three().await;
    let version = home.open().kv().get("N", "k", now()).unwrap().unwrap().version;
    home.sql().execute("DELETE FROM counters", []).unwrap();
    mended(&home, &["kv"]);
    let store = home.open();
    store.kv_write(vec![put("k", "w")], now()).await.unwrap();
    assert!(store.kv().get("N", "k", now()).unwrap().unwrap().version > version);
}

#[tokio::test]
async fn a_missing_index_is_made_again() {
    let (home, ids) = three().await;
    home.sql().execute_batch("DROP INDEX deliveries_due; DROP INDEX messages_segment").unwrap();
    let repaired = mended(&home, &["schema", "schema"]);
    names(&repaired.found, "the index deliveries_due is missing");
    assert_eq!(repaired.quarantine, None);
    let claimed: Vec<_> = home.open().claim(now(), 10).await.unwrap().iter().map(|one| one.key.message).collect();
    assert_eq!(claimed, ids);
}

#[tokio::test]
async fn an_index_that_contradicts_its_table_is_made_again_before_it_is_trusted() {
    let (home, ids) = three().await;
    let sql = home.sql();
    let (root, text): (i64, String) = sql
        .query_row("SELECT rootpage, sql FROM sqlite_schema WHERE name = 'messages_segment'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    sql.execute("UPDATE messages SET segment = NULL WHERE id = ?1", [ids[0].to_bytes()]).unwrap();
    // The index is hidden while the row changes back, so that it knows nothing of it.
    sql.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'messages_segment'")
        .unwrap();
    drop(sql);
    let sql = home.sql();
    sql.execute("UPDATE messages SET segment = 1 WHERE id = ?1", [ids[0].to_bytes()]).unwrap();
    sql.execute_batch("PRAGMA writable_schema = ON").unwrap();
    let again = "INSERT INTO sqlite_schema VALUES ('index', 'messages_segment', 'messages', ?1, ?2)";
    sql.execute(again, rusqlite::params![root, text]).unwrap();
    drop(sql);

    let before = check(&home);
    assert!(!before.findings.is_empty() && kinds(&before).iter().all(|kind| *kind == "database"), "{before:#?}");
    assert_eq!(before.messages, 0, "rows and segments wait until it is sound");
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert_eq!((repaired.left.findings.len(), check(&home).findings.len()), (0, 0));
    for id in ids {
        assert!(body(&home, id).await.is_ok());
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_read_is_told_and_nothing_is_touched() {
    let (home, _) = three().await;
    let path = home.path().join("mailworker.db");
    let octets = std::fs::read(&path).unwrap();
    std::fs::write(&path, [b"not a database at all".as_slice(), &octets[21..]].concat()).unwrap();
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert_eq!(kinds(&repaired.left), ["database"]);
    assert!(repaired.left.findings[0].serious && repaired.left.findings[0].repair.contains("backup"));
    assert_eq!((repaired.quarantine, home.segments().len()), (None, 1));
}

#[tokio::test]
async fn pages_of_a_damaged_database_are_told() {
    let home = Home::new();
    let store = home.open();
    for n in 0..100 {
        accept(&store, message(&format!("{n}"))).await;
    }
    store.close().await;
    let path = home.path().join("mailworker.db");
    let root: i64 =
        home.sql().query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'trace'", [], |row| row.get(0)).unwrap();
    let mut octets = std::fs::read(&path).unwrap();
    let from = usize::try_from(root - 1).unwrap() * 8192;
    octets[from..from + 64].fill(0xee);
    std::fs::write(&path, octets).unwrap();
    let report = check(&home);
    assert!(!report.findings.is_empty() && kinds(&report).iter().all(|kind| *kind == "database"), "{report:#?}");
}

/// Fills pages of a tree below its root with garbage; how many.
fn damage_tree(home: &Home, name: &str) -> usize {
    let sql = home.sql();
    sql.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let path = home.path().join("mailworker.db");
    let root: i64 =
        sql.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0)).unwrap();
    drop(sql);
    let mut octets = std::fs::read(&path).unwrap();
    let page = |number: usize| (number - 1) * 8192;
    // An interior page of an index (2): its cells begin with the number of a page below.
    let at = page(usize::try_from(root).unwrap());
    assert_eq!(octets[at], 2, "{name} is large enough");
    let cells = usize::from(u16::from_be_bytes([octets[at + 3], octets[at + 4]]));
    for n in 0..cells {
        let cell = at + usize::from(u16::from_be_bytes([octets[at + 12 + 2 * n], octets[at + 13 + 2 * n]]));
        let below = u32::from_be_bytes(octets[cell..cell + 4].try_into().unwrap());
        let from = page(usize::try_from(below).unwrap());
        octets[from..from + 64].fill(0xee);
    }
    std::fs::write(&path, octets).unwrap();
    cells
}

/// A store whose index of due times has pages below its root.
async fn many() -> (Home, Vec<MessageId>) {
    let home = Home::new();
    let store = home.open();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let mut message = message("many");
        message.deliveries = (0..200).map(|_| relay(now())).collect();
        ids.push(accept(&store, message).await);
    }
    store.kv_write(vec![put("k", "v")], now()).await.unwrap();
    store.close().await;
    (home, ids)
}

#[tokio::test]
async fn an_index_whose_pages_are_garbage_is_made_anew_with_the_database() {
    let (home, ids) = many().await;
    assert!(damage_tree(&home, "deliveries_due") > 0);
    let before = check(&home);
    assert!(!before.findings.is_empty() && kinds(&before).iter().all(|kind| *kind == "database"), "{before:#?}");
    assert!(before.findings[0].serious && before.findings[0].repair.contains("tables are whole"), "{before:#?}");
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert_eq!((repaired.left.findings.as_slice(), check(&home).findings), ([].as_slice(), Vec::new()));
    assert_eq!(quarantined(&repaired).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["mailworker.db"]);
    let store = home.open();
    assert_eq!(store.claim(now(), 1000).await.unwrap().len(), 800);
    assert_eq!(octets(&store, ids[3]).await, "many");
    assert_eq!(store.message(ids[0]).await.unwrap().trace.len(), 1);
    assert!(store.kv().get("N", "k", now()).unwrap().is_some());
}

#[tokio::test]
async fn a_table_whose_pages_are_garbage_is_left_to_a_person() {
    let (home, _) = many().await;
    assert!(damage_tree(&home, "deliveries") > 0);
    let before = std::fs::read(home.path().join("mailworker.db")).unwrap();
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert!(!repaired.left.findings.is_empty() && repaired.left.findings[0].repair.contains("backup"), "{repaired:#?}");
    assert_eq!((repaired.quarantine, std::fs::read(home.path().join("mailworker.db")).unwrap()), (None, before));
    let (code, said, _) = command(&home, &["--repair", "--json"]);
    assert_eq!((code, serde_json::from_str::<RepairReport>(&said).unwrap().left), (1, repaired.left));
}

#[tokio::test]
async fn where_lost_octets_lay_is_written_down() {
    let (home, ids) = three().await;
    std::fs::remove_file(home.segments().remove(0)).unwrap();
    let repaired = mended(&home, &["segment"]);
    let rows = quarantined(&repaired).into_iter().find(|(name, _)| name == "rows.jsonl").unwrap().1;
    let rows: Vec<serde_json::Value> =
        String::from_utf8(rows).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let places: Vec<_> = rows.iter().filter(|row| row["segment"] == 1).collect();
    assert_eq!(places.len(), ids.len(), "{rows:#?}");
    assert!(places.iter().any(|row| row["start"].as_i64().unwrap() > 0));
}

#[tokio::test]
async fn more_than_a_thousand_findings_are_counted_and_all_are_mended() {
    let home = Home::new();
    let store = home.open();
    let mut first = message("x");
    first.deliveries = (0..1200).map(|_| relay(now())).collect();
    let id = accept(&store, first).await;
    store.close().await;
    home.sql().execute("UPDATE deliveries SET task = ''", []).unwrap();
    let report = check(&home);
    assert_eq!((report.findings.len(), report.unlisted), (1000, 200));
    let repaired = Store::repair(&home.path(), now()).unwrap();
    assert_eq!((repaired.left.findings.len(), repaired.left.unlisted), (0, 0));
    let rows = String::from_utf8(quarantined(&repaired).remove(0).1).unwrap();
    assert_eq!(rows.lines().count(), 1200, "each is written down once, whatever the rounds");
    assert_eq!(home.open().message(id).await.unwrap().summary.dead, 1200);
}

#[test]
fn what_is_no_store_is_refused() {
    let home = Home::new();
    assert!(matches!(Store::check(&home.path()), Err(StoreError::Unusable(_))));
    assert!(matches!(Store::repair(&home.path(), now()), Err(StoreError::Unusable(_))));
    assert!(!home.path().exists(), "and none is made");
}

/// `mailworker store check` on the store: its exit code, and what it said on either output.
fn command(home: &Home, arguments: &[&str]) -> (i32, String, String) {
    let config = home.dir.path().join("mailworker.toml");
    let text = "hostname = \"mx.example.com\"\ndata_dir = \"data\"\n\
                [[listener]]\naddress = \"127.0.0.1:0\"\n[[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\n";
    std::fs::write(&config, text).unwrap();
    std::fs::create_dir_all(home.dir.path().join("rules")).unwrap();
    std::fs::write(home.dir.path().join("rules/main.rhai"), "fn email(message, env, ctx) { }").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mailworker"));
    let output = command.args(["store", "check"]).args(arguments).arg("--config").arg(config).output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    assert_ne!(output.status.code(), Some(78), "{}", text(output.stderr));
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_command_checks_says_what_is_wrong_mends_it_and_tells_by_its_exit_code() {
    let (home, ids) = three().await;
    let (code, said, _) = command(&home, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.starts_with("3 messages, 3 deliveries, 1 segment, ") && said.ends_with(": nothing is wrong\n"),
        "{said}"
    );

    damage(&home.segments().remove(0), "body number 1");
    let (code, said, _) = command(&home, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("octets: message {}: its octets are damaged", ids[1])), "{said}");
    assert!(said.contains("Nothing was changed.") && said.contains("store check --repair"), "{said}");
    let (code, said, _) = command(&home, &["--json"]);
    let report: CheckReport = serde_json::from_str(&said).unwrap();
    assert_eq!((code, report), (1, check(&home)));

    let (code, said, _) = command(&home, &["--repair"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("quarantine") && said.contains("a second check finds nothing"), "{said}");
    let (code, said, _) = command(&home, &["--json"]);
    assert_eq!((code, serde_json::from_str::<CheckReport>(&said).unwrap().findings), (0, Vec::new()));
}

#[tokio::test]
async fn the_command_leaves_a_running_store_as_it_is() {
    let home = Home::new();
    let store = home.open();
    accept(&store, message("x")).await;
    let (code, said, _) = command(&home, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("a server runs on it"), "{said}");
    let (code, _, said) = command(&home, &["--repair"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("in use by process") && said.contains("for itself"), "{said}");
}
