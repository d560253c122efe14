//! How sessions end: early talk, time-outs, peers that leave, panics, and the shutdown.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mailworker::config::{EarlyTalk, TlsMode};
use mailworker::event::Kind;
use mailworker::listener::End;
use mailworker::smtp::Closed;
use tokio::net::TcpStream;

use super::client::{Client, PATIENCE};
use super::server::{start, start_silent, until};

const SOON: Duration = Duration::from_millis(150);

#[tokio::test]
async fn a_visit_is_asked_about_from_connect_to_quit() {
    let mut server = start(TlsMode::Off, |_| {});
    let mut client = Client::greeted(server.address()).await;
    assert_eq!(server.asked("helo").await.helo.as_deref(), Some("client.example"));
    assert!(client.command("MAIL FROM:<ann@example.org>").await.starts_with("250"));
    assert!(client.command("RCPT TO:<nobody@example.com>").await.starts_with("550 5.1.1 no such user"));
    assert!(client.command("RSET").await.starts_with("250"));
    assert!(client.message("ann@example.com", "hello").await.starts_with("250"));
    assert!(client.command("QUIT").await.starts_with("221"));
    assert!(client.is_closed().await);
    assert_eq!(server.end().await, End::Closed(Closed::Quit));
}

#[tokio::test]
async fn a_pipelined_session_is_answered_in_order() {
    let server = start(TlsMode::Off, |_| {});
    let mut client = Client::greeted(server.address()).await;
    let transaction = "MAIL FROM:<ann@example.org>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n";
    client.send(transaction.as_bytes()).await;
    for code in ["250", "250", "354"] {
        assert!(client.reply().await.starts_with(code));
    }
    client.send(b"hello\r\n.\r\nMAIL FROM:<ann@example.org>\r\nQUIT\r\n").await;
    for code in ["250", "250", "221", ""] {
        assert!(client.reply().await.starts_with(code));
    }
}

#[tokio::test]
async fn whoever_talks_before_the_greeting_is_refused() {
    let mut server = start_silent(TlsMode::Off, |_| {});
    let mut client = Client::connect(server.address()).await;
    client.send(b"EHLO too.early\r\n").await;
    server.table.greeting.add_permits(1);
    assert!(client.reply().await.starts_with("554 "));
    assert!(client.is_closed().await);
    assert_eq!(server.refusal().await.0, "connect");
    assert_eq!(server.end().await, End::Closed(Closed::Refused));
}

#[tokio::test]
async fn the_greeting_waits_for_whoever_talks_before_it() {
    let server = start(TlsMode::Off, |config| config.session.greet_delay = PATIENCE);
    let mut client = Client::connect(server.address()).await;
    until(|| server.listeners.open() == 1).await;
    client.send(b"EHLO too.early\r\n").await;
    assert!(client.reply().await.starts_with("554 "));

    let server = start(TlsMode::Off, |config| config.session.greet_delay = SOON);
    Client::greeted(server.address()).await;
}

#[tokio::test]
async fn a_greeting_that_waits_holds_up_no_stop() {
    let server = start(TlsMode::Off, |config| config.session.greet_delay = Duration::from_mins(1));
    let mut client = Client::connect(server.address()).await;
    until(|| server.listeners.open() == 1).await;
    let drained = tokio::spawn(server.listeners.drain(Duration::from_hours(1)));
    client.reply().await;
    tokio::time::timeout(PATIENCE, drained).await.expect("the stop not to wait for it").unwrap();
}

#[tokio::test]
async fn early_talk_may_be_allowed() {
    let server = start_silent(TlsMode::Off, |config| config.session.early_talk = EarlyTalk::Allow);
    let mut client = Client::connect(server.address()).await;
    client.send(b"EHLO too.early\r\n").await;
    server.table.greeting.add_permits(1);
    assert!(client.reply().await.starts_with("220 "));
    assert!(client.reply().await.starts_with("250"));
}

#[tokio::test]
async fn an_idle_client_is_told_and_dropped() {
    let mut server = start(TlsMode::Off, |config| config.session.command_timeout = SOON);
    let mut client = Client::greeted(server.address()).await;
    assert!(client.reply().await.starts_with("421 4.4.2"));
    assert!(client.is_closed().await);
    let (_, reason) = server.dropped().await;
    assert!(reason.contains("0.15 s without a whole command"), "{reason}");
    until(|| server.listeners.open() == 0).await;
}

/// Sends one octet every now and then, until the server has had enough.
async fn trickle(client: &mut Client, octet: u8) -> String {
    let mut beat = tokio::time::interval(SOON / 10);
    for _ in 0..10_000 {
        beat.tick().await;
        if client.try_send(&[octet]).await.is_err() {
            return String::new();
        }
        if let Ok(reply) = tokio::time::timeout(Duration::from_micros(1), client.reply()).await {
            return reply;
        }
    }
    panic!("a trickle held its place for ever");
}

#[tokio::test]
async fn a_command_that_comes_in_drop_by_drop_has_its_time_once() {
    let mut server = start(TlsMode::Off, |config| config.session.command_timeout = SOON);
    let mut client = Client::greeted(server.address()).await;
    trickle(&mut client, b'N').await;
    assert!(server.dropped().await.1.contains("without a whole command"));
}

#[tokio::test]
async fn a_message_that_comes_in_drop_by_drop_is_bounded_as_a_whole() {
    let mut server = start(TlsMode::Off, |config| config.session.message_timeout = SOON);
    let mut client = Client::greeted(server.address()).await;
    client.begin_data("ann@example.com").await;
    trickle(&mut client, b'x').await;
    let (_, reason) = server.dropped().await;
    assert_eq!(reason, "the message took longer than 0.15 s");
    assert_eq!(server.budget.used(), 0);
}

#[tokio::test]
async fn a_session_is_bounded_as_a_whole() {
    let mut server = start(TlsMode::Off, |config| config.session.session_timeout = SOON);
    let mut client = Client::greeted(server.address()).await;
    let mut beat = tokio::time::interval(SOON / 5);
    let mut last = "250".to_owned();
    while last.starts_with("250") {
        beat.tick().await;
        last = client.command("NOOP").await;
    }
    assert_eq!(last, "421 4.4.2 Closing: the session took longer than 0.15 s");
    assert_eq!(server.dropped().await.1, "the session took longer than 0.15 s");
}

#[tokio::test]
async fn the_end_of_the_session_waits_for_a_message_under_way() {
    let time = Duration::from_secs(2);
    let mut server = start(TlsMode::Off, |config| config.session.session_timeout = time);
    let since = std::time::Instant::now();
    let mut client = Client::greeted(server.address()).await;
    client.begin_data("ann@example.com").await;
    let mut beat = tokio::time::interval(SOON);
    while since.elapsed() < time {
        beat.tick().await;
        client.send(b"still coming\r\n").await;
    }
    assert!(client.command(".").await.starts_with("250"));
    assert_eq!(client.reply().await, "421 4.4.2 Closing: the session took longer than 2 s");
    assert_eq!(server.dropped().await.1, "the session took longer than 2 s");
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_dropped() {
    let mut server = start(TlsMode::Off, |config| config.session.command_timeout = SOON);
    let mut client = Client::greeted(server.address()).await;
    let flood = "EHLO client.example\r\n".repeat(10_000);
    let sent = tokio::time::timeout(PATIENCE, async { while client.try_send(flood.as_bytes()).await.is_ok() {} });
    sent.await.expect("the server to end it");
    let (_, reason) = server.dropped().await;
    assert!(reason.contains("did not take our answer") || reason.contains("too many"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_what_is_done_after_a_message_is_answered() {
    let mut server = start(TlsMode::Off, |_| {});
    let (has_read, waits) = std::sync::mpsc::channel();
    *server.table.has_read.lock().unwrap() = Some(waits);
    let mut client = Client::greeted(server.address()).await;
    assert!(client.message("ann@example.com", "hello").await.starts_with("250"));
    has_read.send(()).unwrap();
    server.asked("said").await;
}

#[tokio::test]
async fn an_answer_runs_to_its_end_though_the_client_has_left() {
    let mut server = start(TlsMode::Off, |_| {});
    let mut client = Client::greeted(server.address()).await;
    client.begin_data("slow@example.com").await;
    client.send(b"hello\r\n.\r\n").await;
    server.asked("message").await;
    let before = server.table.answered.load(Ordering::SeqCst);
    drop(client);
    server.table.slow.add_permits(1);
    assert!(matches!(server.end().await, End::Dropped { .. }));
    assert_eq!(server.table.answered.load(Ordering::SeqCst), before + 1);
}

#[tokio::test]
async fn a_panic_in_an_answer_is_a_451_and_harms_nobody_else() {
    let mut server = start(TlsMode::Off, |_| {});
    let mut other = Client::greeted(server.address()).await;
    let mut client = Client::greeted(server.address()).await;
    client.command("MAIL FROM:<ann@example.org>").await;
    assert!(client.command("RCPT TO:<panic@example.com>").await.starts_with("451 4.3.0"));
    let detail = server.event(|kind| match kind {
        Kind::Fault { detail, .. } => Some(detail.clone()),
        _ => None,
    });
    assert_eq!(detail.await, "panicked: on purpose");
    client.command("RSET").await;
    assert!(client.message("ann@example.com", "hello").await.starts_with("250"));
    assert!(other.message("ann@example.com", "hello").await.starts_with("250"));
}

#[tokio::test]
async fn a_shutdown_lets_a_message_be_finished_and_sends_the_idle_away() {
    let server = start(TlsMode::Off, |_| {});
    let address = server.address();
    let mut idle = Client::greeted(address).await;
    let mut busy = Client::greeted(address).await;
    busy.begin_data("ann@example.com").await;
    let drained = tokio::spawn(server.listeners.drain(PATIENCE));
    assert!(idle.reply().await.starts_with("421 4.3.2"));
    assert!(idle.is_closed().await);
    assert!(busy.command("hello\r\n.").await.starts_with("250"));
    assert!(busy.reply().await.starts_with("421 4.3.2"));
    drained.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_shutdown_cuts_off_at_its_deadline_but_not_an_answer() {
    let server = start(TlsMode::Off, |_| {});
    let (gate, table) = (server.listeners.gate(), server.table);
    let address = server.listeners.local_addrs()[0];
    let mut stuck = Client::greeted(address).await;
    stuck.begin_data("ann@example.com").await;
    let mut answering = Client::greeted(address).await;
    answering.begin_data("slow@example.com").await;
    answering.send(b"hello\r\n.\r\n").await;
    let drained = tokio::spawn(server.listeners.drain(SOON));
    assert!(stuck.reply().await.starts_with("421 4.3.2"));
    table.slow.add_permits(1);
    assert!(answering.reply().await.starts_with("250"), "what was accepted is said");
    drained.await.unwrap();
    assert_eq!(gate.open(), 0);
}
