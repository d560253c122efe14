//! What a worker costs: one call of a handler, and the compilation. `cargo bench --bench rules`.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "fixtures/worker.rs"]
mod fixtures;

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use fixtures::{Empty, call, compile, example, rcpt_call, switch};
use mailworker::rules::{KvView, Verdict};

fn main() {
    divan::main();
}

fn email(bencher: Bencher<'_, '_>, sources: &BTreeMap<String, String>) {
    let release = compile(sources);
    let kv: KvView = Arc::new(Empty);
    let call = call();
    assert_eq!(release.email(&call, &kv).verdict, Verdict::Accept);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| black_box(release.email(&call, &kv)));
}

/// A recipient looked up and the message forwarded.
#[divan::bench]
fn email_by_a_switch(bencher: Bencher<'_, '_>) {
    email(bencher, &switch());
}

/// The shipped worker: spam check, a key put, a webhook, a forward.
#[divan::bench]
fn email_by_the_example(bencher: Bencher<'_, '_>) {
    email(bencher, &example());
}

#[divan::bench]
fn rcpt_to(bencher: Bencher<'_, '_>) {
    let release = compile(&switch());
    let kv: KvView = Arc::new(Empty);
    let call = rcpt_call();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| black_box(release.rcpt_to(&call, &kv)));
}

#[divan::bench]
fn compile_the_example(bencher: Bencher<'_, '_>) {
    let sources = example();
    bencher.bench_local(|| black_box(compile(&sources)));
}
