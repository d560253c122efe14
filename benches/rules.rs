//! What a worker costs: one call of a handler, and the compilation; and what routes cost. `cargo bench --bench rules`.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "fixtures/worker.rs"]
mod fixtures;

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use fixtures::{Empty, call, compile, example, large, rcpt_call, switch};
use mailworker::config::Config;
use mailworker::config::load::Options;
use mailworker::config::route::{Facts, Whence};
use mailworker::rules::{KvView, THREAD_STACK, Verdict};

/// As the server allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// On a thread with room for a script, as the server's have it.
fn main() {
    let thread = std::thread::Builder::new().stack_size(THREAD_STACK);
    thread.spawn(divan::main).unwrap().join().unwrap();
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

/// The switch in a file of 5,000 lines: to be the same as by itself.
#[divan::bench]
fn email_by_a_large_worker(bencher: Bencher<'_, '_>) {
    email(bencher, &large());
}

/// As many routes of all kinds, of which two are for this recipient and the last one takes it.
fn routed(count: usize) -> Config {
    let mut text = "hostname = \"mx.example.com\"\nmain = \"rules/main.rhai\"\n[[domain]]\nname = \"example.com\"\n\
                    postmaster = \"admin@example.net\"\n"
        .to_owned();
    let mut route = |conditions: &str| {
        text.extend(["[[route]]\n", conditions, "\naction = \"store\"\n"]);
    };
    for n in 0..count {
        match n % 4 {
            0 => route(&format!("match = \"user{n}@example.com\"")),
            1 => route(&format!("match = \"list{n}@*\"")),
            2 => route(&format!("match = \"/^news{n}-[0-9]+@/\"")),
            _ => route(&format!("match = \"other{n}@example.com\"\nheader = {{ Subject = \"/invoice {n}/\" }}")),
        }
    }
    route("match = \"support@example.com\"\nheader = { Subject = \"/^nothing/\" }");
    route("match = \"support@example.com\"\nfrom = \"*@example.org\"");
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    match Config::from_toml(&text, "mailworker.toml", directory, &Options::default()) {
        Ok(loaded) => loaded.config,
        Err(findings) => panic!("{findings:?}"),
    }
}

/// What routes come to for one message: with 200 of them no more than with 2.
#[divan::bench(args = [2, 20, 200])]
fn routes(bencher: Bencher<'_, '_>, count: usize) {
    let config = routed(count);
    let call = call();
    let facts = Facts {
        recipient: &call.recipient,
        sender: call.session.sender.as_ref(),
        client: Whence::of(&call.session.client),
        message: Some(&call.message),
        auth: None,
    };
    assert_eq!(config.routes_for(&facts).last().map(|taken| taken.at), Some(count + 1));
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| black_box(config.routes_for(&facts).len()));
}
