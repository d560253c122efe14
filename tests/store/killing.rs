//! Kills in the middle: a process that accepts, settles and retains is killed again and again, and what it had promised is there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use mailworker::event::Bus;
use mailworker::mail::MessageId;
use mailworker::store::{Options, Settled, Store};

use crate::harness::*;

const HOME: &str = "STORE_TEST_HOME";

/// The process that is killed: says each id once its message is committed. Without the variable it is no test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_promises() {
    let Some(path) = std::env::var_os(HOME) else { return };
    let options = Options { segment_size: 100_000, ..options(std::path::Path::new(&path)) };
    let store = Store::open(options, Bus::new(16)).unwrap();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0_u32.. {
                let mut acceptance = message("");
                acceptance.body = bytes::Bytes::from(body(acceptance.id)).into();
                let id = accept(&store, acceptance).await;
                println!("promised {id}");
                if n.is_multiple_of(4) {
                    for delivery in store.claim(now(), 2).await.unwrap() {
                        let end = if n.is_multiple_of(8) {
                            Settled::Later { due: now(), error: "421".to_owned(), delay_noticed: false }
                        } else {
                            Settled::Dead { error: "550".to_owned() }
                        };
                        store.settle(vec![settlement(delivery.key, end)]).await.unwrap();
                    }
                    // Believed only an hour after it was first said.
                    let later = now().plus(8 * DAY);
                    store.retain(later.minus(std::time::Duration::from_hours(1))).await.unwrap();
                    store.retain(later.plus(std::time::Duration::from_mins(1))).await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Some KiB that only this message has.
fn body(id: MessageId) -> String {
    format!("{id}\r\n").repeat(40 + usize::from(id.to_bytes()[15]))
}

#[test]
fn whatever_is_killed_and_whenever_what_was_promised_is_there() {
    let home = Home::new();
    let mut promised = Vec::new();
    for round in 0..6 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["killing::a_process_that_promises", "--exact", "--nocapture"]).env(HOME, home.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ids =
            lines.filter_map(|line| line.split_once("promised ").and_then(|(_, id)| id.parse::<MessageId>().ok()));
        let mut told = 0;
        for id in ids {
            promised.push(id);
            told += 1;
            // What it still manages to say before it is gone counts as well.
            if told == 30 + round * 17 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(told >= 30, "it promised {told} before it ended by itself");
    }
    // A segment that was never named may be left.
    let report = Store::check(&home.path()).unwrap();
    assert!(!report.findings.iter().any(|finding| finding.serious), "{report:#?}");
    assert_eq!(report.messages, report.deliveries, "none is settled for good");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = home.open();
        for id in &promised {
            assert_eq!(octets(&store, *id).await, body(*id));
            let summary = store.message(*id).await.unwrap().summary;
            assert_eq!(summary.queued + summary.dead, 1);
        }
        store.close().await;
    });
    assert_eq!(Store::check(&home.path()).unwrap().findings, []);
}
