//! What keeping costs: messages accepted (body, two deliveries, an event), and claimed and settled, at several at once.
//! `cargo bench --bench store`. On the disk of the target directory, synced as in service.

#![allow(clippy::unwrap_used)]

#[path = "fixtures/store.rs"]
mod fixtures;
#[path = "fixtures/message.rs"]
mod message;

use std::cell::Cell;

use divan::Bencher;
use divan::counter::ItemsCount;
use fixtures::{Kept, NOW};
use mailworker::store::Acceptance;

fn main() {
    divan::main();
}

fn kept() -> Kept {
    Kept::new(tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap())
}

/// Messages that were never there before.
struct Source(Cell<usize>);

impl Source {
    fn next(&self, together: usize, octets: usize, deliveries: usize) -> Vec<Acceptance> {
        let first = self.0.get();
        self.0.set(first + together);
        (first..first + together).map(|number| message::message(number, NOW, octets, deliveries)).collect()
    }
}

fn accept(bencher: Bencher<'_, '_>, octets: usize, together: usize) {
    let (kept, source) = (kept(), Source(Cell::new(0)));
    bencher
        .counter(ItemsCount::new(together))
        .with_inputs(|| source.next(together, octets, 2))
        .bench_local_values(|acceptances| kept.accept(acceptances));
}

#[divan::bench(args = [1, 16, 64, 256], sample_count = 30)]
fn accept_4_kib(bencher: Bencher<'_, '_>, together: usize) {
    accept(bencher, 4096, together);
}

#[divan::bench(args = [16, 64], sample_count = 30)]
fn accept_100_kib(bencher: Bencher<'_, '_>, together: usize) {
    accept(bencher, 102_400, together);
}

/// Deliveries that are due are claimed, and settled as delivered.
#[divan::bench(args = [1, 64, 256], sample_count = 30)]
fn claim_and_settle(bencher: Bencher<'_, '_>, together: usize) {
    let (kept, source) = (kept(), Source(Cell::new(0)));
    bencher
        .counter(ItemsCount::new(together))
        .with_inputs(|| kept.accept(source.next(together, 512, 1)))
        .bench_local_values(|()| kept.claim_and_settle(together));
}
