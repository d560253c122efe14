//! What the receiving session costs: a transaction, a body, a line. `cargo bench --bench smtp`.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "fixtures/session.rs"]
mod fixtures;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use fixtures::{ENVELOPE, drive, greeted, text};

fn main() {
    divan::main();
}

/// One transaction in three packets, as a client with PIPELINING sends it.
#[divan::bench(args = [1024, 4096, 102_400])]
fn transaction(bencher: Bencher<'_, '_>, octets: usize) {
    let mut body = text(octets);
    body.extend_from_slice(b".\r\n");
    let mut session = greeted();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        drive(&mut session, ENVELOPE);
        assert!(drive(&mut session, black_box(&body)) > 0);
    });
}

/// DATA in reads of 64 KiB.
#[divan::bench(args = [102_400, 10_485_760])]
fn data(bencher: Bencher<'_, '_>, octets: usize) {
    let mut body = text(octets);
    body.extend_from_slice(b".\r\n");
    let mut session = greeted();
    bencher.counter(BytesCount::new(body.len())).bench_local(|| {
        drive(&mut session, b"MAIL FROM:<a@client.example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n");
        let received: usize = body.chunks(65_536).map(|read| drive(&mut session, black_box(read))).sum();
        assert!(received > octets / 2);
    });
}

/// The same by BDAT, in one chunk.
#[divan::bench(args = [102_400, 10_485_760])]
fn chunk(bencher: Bencher<'_, '_>, octets: usize) {
    let body = text(octets);
    let mut session = greeted();
    let command =
        format!("MAIL FROM:<a@client.example.org>\r\nRCPT TO:<b@example.com>\r\nBDAT {} LAST\r\n", body.len());
    bencher.counter(BytesCount::new(body.len())).bench_local(|| {
        drive(&mut session, command.as_bytes());
        let received: usize = body.chunks(65_536).map(|read| drive(&mut session, black_box(read))).sum();
        assert_eq!(received, body.len());
    });
}
