//! One operation, so many times: what `benches/counted/run` counts instructions and allocations of.
//!
//! `counted OPERATION TIMES MOST` prepares inputs for MOST and uses TIMES of them, so that the difference of two runs is
//! what the operation costs, without the start. Without arguments the operations are listed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "fixtures/message.rs"]
mod message;
#[path = "fixtures/session.rs"]
mod session;
#[path = "fixtures/store.rs"]
mod store;
#[path = "fixtures/worker.rs"]
mod worker;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use mailworker::rules::{KvView, RcptVerdict, Verdict};
use mailworker::smtp::data::Body;

/// What went before in each process, so that what is made once is there.
const WARM: usize = 3;
/// A read of the listener's.
const READ: usize = 60 * 1024;
/// Messages and deliveries that come together.
const TOGETHER: usize = 32;

/// Does it `times` over, with inputs for `most`.
type Operation = fn(times: usize, most: usize);

/// Its name, and how often it is done in the shorter and in the longer run.
const OPERATIONS: &[(&str, Operation, usize, usize)] = &[
    ("session", transaction, 50, 250),
    ("decoder_data", decode_data, 50, 250),
    ("decoder_bdat", decode_bdat, 50, 250),
    ("rule_rcpt_to", rcpt_to, 50, 2_050),
    ("rule_email_switch", email_by_a_switch, 50, 2_050),
    ("rule_email_example", email_by_the_example, 50, 2_050),
    ("accept", accept, 50, 150),
    ("accept_together", accept_together, 4, 20),
    ("claim_and_settle", claim_and_settle, 50, 150),
    ("claim_and_settle_together", claim_and_settle_together, 10, 50),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times, most] = arguments.as_slice() else {
        for (name, _, few, many) in OPERATIONS {
            println!("{name} {few} {many}");
        }
        return;
    };
    // Rhai's hashes are others in each process else, and with them what its tables take.
    rhai::config::hashing::set_hashing_seed(Some([1, 2, 3, 4])).expect("nothing was hashed before");
    let (_, operation, ..) = OPERATIONS.iter().find(|(known, ..)| known == name).expect("an operation's name");
    operation(times.parse().expect("a number"), most.parse().expect("a number"));
}

fn repeat(times: usize, mut operation: impl FnMut()) {
    for _ in 0..WARM + times {
        operation();
    }
}

/// A transaction of 4 KiB in two packets, as a client with PIPELINING sends it.
fn transaction(times: usize, _: usize) {
    let mut session = session::greeted();
    let body = [session::text(4096), b".\r\n".to_vec()].concat();
    repeat(times, || {
        session::drive(&mut session, session::ENVELOPE);
        assert!(session::drive(&mut session, black_box(&body)) > 0);
    });
}

/// 100 KiB by DATA, in lines of 76.
fn decode_data(times: usize, _: usize) {
    let text = [session::text(102_400), b".\r\n".to_vec()].concat();
    repeat(times, || {
        let mut body = Body::of_data(u64::MAX, 0, false);
        let ended = black_box(&text).chunks(READ).map(|read| body.data(read).1).last();
        assert_eq!(ended, Some(true));
        assert!(black_box(body.finish()).is_ok());
    });
}

/// The same by BDAT.
fn decode_bdat(times: usize, _: usize) {
    let text = session::text(102_400);
    repeat(times, || {
        let mut body = Body::of_chunks(u64::MAX, 0, false);
        for read in black_box(&text).chunks(READ) {
            body.chunk(read);
        }
        assert!(black_box(body.finish()).is_ok());
    });
}

fn rcpt_to(times: usize, _: usize) {
    let (release, call) = (worker::compile(&worker::switch()), worker::rcpt_call());
    let kv: KvView = Arc::new(worker::Empty);
    repeat(times, || assert_eq!(black_box(release.rcpt_to(&call, &kv)).verdict, RcptVerdict::Accept));
}

fn email(times: usize, most: usize, sources: &BTreeMap<String, String>) {
    let release = worker::compile(sources);
    let kv: KvView = Arc::new(worker::Empty);
    // A message each, since what is read of one is kept with it.
    let mut calls: Vec<_> = (0..WARM + most).map(|_| worker::call()).collect();
    repeat(times, || {
        let call = calls.pop().expect("as many as are used");
        assert_eq!(black_box(release.email(&call, &kv)).verdict, Verdict::Accept);
    });
}

fn email_by_a_switch(times: usize, most: usize) {
    email(times, most, &worker::switch());
}

/// The shipped worker: spam check, a key put, a webhook, a forward.
fn email_by_the_example(times: usize, most: usize) {
    email(times, most, &worker::example());
}

/// The writer has a thread of its own, and there is no other.
fn kept() -> store::Kept {
    store::Kept::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
}

/// How many of those that come together the writer finds at once is a matter of threads.
fn tell_syncs(syncs: u64, together: usize) {
    if together == 1 {
        println!("syncs {syncs}");
    }
}

/// Messages of 4 KiB with two deliveries and an event, so many in each group.
fn accept_groups(times: usize, most: usize, together: usize) {
    let kept = kept();
    let group = |at: usize| {
        (0..together).map(move |number| message::message(at * together + number, store::NOW, 4096, 2)).collect()
    };
    let mut groups: Vec<Vec<_>> = (0..WARM + most).rev().map(group).collect();
    repeat(times, || kept.accept(groups.pop().expect("as many as are used")));
    tell_syncs(kept.store.syncs(), together);
}

fn accept(times: usize, most: usize) {
    accept_groups(times, most, 1);
}

fn accept_together(times: usize, most: usize) {
    accept_groups(times, most, TOGETHER);
}

fn settle_groups(times: usize, most: usize, together: usize) {
    let kept = kept();
    // One by one: how many of them the writer finds at once is another number each time, and with it what its lists take.
    for number in 0..(WARM + most) * together {
        kept.accept(vec![message::message(number, store::NOW, 512, 1)]);
    }
    let before = kept.store.syncs();
    repeat(times, || kept.claim_and_settle(together));
    tell_syncs(kept.store.syncs() - before, together);
}

fn claim_and_settle(times: usize, most: usize) {
    settle_groups(times, most, 1);
}

fn claim_and_settle_together(times: usize, most: usize) {
    settle_groups(times, most, TOGETHER);
}
