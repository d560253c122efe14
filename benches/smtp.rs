//! What the receiving session costs: a transaction, a body, a line. `cargo bench --bench smtp`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use mailworker::smtp::{Action, Answer, Question, Session, Settings};

fn main() {
    divan::main();
}

fn settings() -> Settings {
    Settings {
        hostname: "mx.example.com".into(),
        message_size: 64 * 1024 * 1024,
        recipients: 100,
        errors: 20,
        starttls: true,
        tls_required: false,
        repair_line_ends: false,
        command_timeout: Duration::from_mins(5),
        data_timeout: Duration::from_mins(3),
    }
}

/// A session that has heard EHLO.
fn greeted() -> Session {
    let mut session = Session::new(settings());
    drive(&mut session, b"EHLO client.example.org\r\n");
    session
}

/// Pushes, answers every question with yes, throws the replies away; the octets of the bodies handed over.
fn drive(session: &mut Session, octets: &[u8]) -> usize {
    let mut received = 0;
    session.push(octets);
    loop {
        match session.poll() {
            Action::Ask(question) => {
                if let Question::Message(transaction) = question {
                    received += black_box(transaction).body.len();
                }
                session.answer(Answer::Accept);
            }
            Action::Flush => session.sent(session.output().len()),
            Action::Read { .. } => {
                session.sent(session.output().len());
                return received;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Text in lines of 76, some of which begin with a dot.
fn text(octets: usize) -> Vec<u8> {
    let stuffed = [b"..".as_slice(), &b"x".repeat(74)].concat();
    let plain = b"y".repeat(76);
    let mut text = Vec::with_capacity(octets + 80);
    for number in 0_usize.. {
        if text.len() >= octets {
            break;
        }
        text.extend_from_slice(if number % 20 == 0 { &stuffed } else { &plain });
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// One transaction in three packets, as a client with PIPELINING sends it.
#[divan::bench(args = [1024, 4096, 102_400])]
fn transaction(bencher: Bencher<'_, '_>, octets: usize) {
    let mut body = text(octets);
    body.extend_from_slice(b".\r\n");
    let mut session = greeted();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let envelope =
            b"MAIL FROM:<a@client.example.org> SIZE=4096 BODY=8BITMIME\r\nRCPT TO:<b@example.com>\r\nDATA\r\n";
        drive(&mut session, envelope);
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
