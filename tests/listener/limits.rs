//! Who is let in, how much may be in memory, and that all of it is given back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailworker::config::TlsMode;

use super::client::Client;
use super::server::{Server, start, until};

#[tokio::test]
async fn over_the_limit_of_all_connections_there_is_a_421_and_then_room_again() {
    let mut server = start(TlsMode::Off, |config| config.limits.connections = 2);
    let mut one = Client::greeted(server.address()).await;
    let _two = Client::greeted(server.address()).await;
    let mut over = Client::connect(server.address()).await;
    assert!(over.reply().await.starts_with("421 4.7.0 Too many connections"));
    assert!(over.is_closed().await);
    assert_eq!(server.refusal().await.0, "connect");

    assert!(one.command("QUIT").await.starts_with("221"));
    until(|| server.listeners.open() == 1).await;
    Client::greeted(server.address()).await;
}

#[tokio::test]
async fn over_the_limit_of_one_address_there_is_a_421_and_then_room_again() {
    let server = start(TlsMode::Off, |config| config.limits.connections_per_ip = 1);
    let one = Client::greeted(server.address()).await;
    let mut over = Client::connect(server.address()).await;
    assert!(over.reply().await.starts_with("421 4.7.0 Too many connections from your address"));
    // Not by QUIT: a place is given back on every way out.
    drop(one);
    until(|| server.listeners.open() == 0).await;
    Client::greeted(server.address()).await;
}

#[tokio::test]
async fn a_message_over_the_budget_is_put_off_and_the_next_one_taken() {
    let server = start(TlsMode::Off, |config| config.limits.in_flight = 300 * 1024);
    let mut first = Client::greeted(server.address()).await;
    first.begin_data("ann@example.com").await;
    let block = "x".repeat(998) + "\r\n";
    first.send(block.repeat(150).as_bytes()).await;
    until(|| server.budget.used() >= 150 * 1000).await;

    let mut second = Client::greeted(server.address()).await;
    let body = block.repeat(250);
    assert!(second.message("ann@example.com", &body).await.starts_with("452 4.3.1"));
    assert!(first.command(".").await.starts_with("250"), "the one that had its share keeps it");
    until(|| server.budget.used() == 0).await;
    assert!(second.message("ann@example.com", &block.repeat(100)).await.starts_with("250"));
    until(|| server.budget.used() == 0).await;
}

/// Connections that a proxy hands on, so that each client has an address of its own.
async fn client_from(server: &Server, ip: &str) -> Client {
    let mut client = Client::connect(server.address()).await;
    client.send(format!("PROXY TCP4 {ip} 198.51.100.1 4711 25\r\n").as_bytes()).await;
    assert!(client.reply().await.starts_with("220 "));
    assert!(client.command("EHLO client.example").await.starts_with("250"));
    client
}

#[tokio::test]
async fn one_address_cannot_take_the_room_from_all_others() {
    let server = start(TlsMode::Off, |config| {
        config.listeners[0].proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
        (config.limits.in_flight, config.limits.message_size) = (400 * 1024, 100 * 1024);
    });
    let block = "x".repeat(998) + "\r\n";
    let mut greedy = Vec::new();
    for held in [90, 180] {
        let mut client = client_from(&server, "192.0.2.1").await;
        client.begin_data("ann@example.com").await;
        client.send(block.repeat(90).as_bytes()).await;
        until(|| server.budget.used() >= held * 1000).await;
        greedy.push(client);
    }
    let body = block.repeat(95);
    let mut third = client_from(&server, "192.0.2.1").await;
    assert!(third.message("ann@example.com", &body).await.starts_with("452 4.3.1 Too much mail of your address"));
    let mut other = client_from(&server, "192.0.2.2").await;
    assert!(other.message("ann@example.com", &body).await.starts_with("250"));
    assert!(greedy[0].command(".").await.starts_with("250"), "what has its room keeps it");
    until(|| server.budget.used() <= 100 * 1024).await;
    assert!(third.message("ann@example.com", &body).await.starts_with("250"));
}

#[tokio::test]
async fn a_message_of_the_largest_size_is_taken_where_no_more_than_one_fits() {
    let server = start(TlsMode::Off, |config| {
        (config.limits.in_flight, config.limits.message_size) = (300 * 1024, 300 * 1024);
    });
    let mut client = Client::greeted(server.address()).await;
    for _ in 0..3 {
        let body = "x".repeat(1022) + "\r\n";
        let body = body.repeat(300);
        assert!(client.message("ann@example.com", body.trim_end()).await.starts_with("250"));
    }
    until(|| server.budget.used() == 0).await;
}

#[tokio::test]
async fn who_holds_the_room_and_hardly_sends_is_told_to_go() {
    let mut server = start(TlsMode::Off, |config| {
        (config.limits.in_flight, config.limits.message_size) = (400 * 1024, 400 * 1024);
        config.session.message_timeout = Duration::from_secs(4);
    });
    let mut client = Client::greeted(server.address()).await;
    client.begin_data("ann@example.com").await;
    client.send("x".repeat(300_000).as_bytes()).await;
    assert!(client.reply().await.starts_with("421 4.4.2 Closing: the message came in at less than 1024 octets"));
    assert!(server.dropped().await.1.contains("while memory is short"));
    until(|| server.budget.used() == 0).await;
}

#[tokio::test]
async fn a_large_message_is_handed_on_as_it_comes_and_given_up_with_its_session() {
    let server = start(TlsMode::Off, |_| {});
    let (block, parts) = ("x".repeat(998) + "\r\n", || server.table.parts.load(Ordering::SeqCst));
    let mut client = Client::greeted(server.address()).await;
    assert!(client.message("ann@example.com", &block.repeat(200)).await.starts_with("250"));
    assert_eq!(parts(), 0, "a small one isn't");
    client.begin_data("ann@example.com").await;
    client.send(block.repeat(1000).as_bytes()).await;
    until(|| parts() >= 700_000).await;
    let used = server.budget.used();
    assert!((350_000..600_000).contains(&used), "what was handed on counts a quarter, the rest as it is: {used}");
    assert!(client.command(".").await.starts_with("250"));
    until(|| server.budget.used() == 0).await;
    assert!(parts() <= 1_000_000, "the rest comes with the question");

    client.begin_data("ann@example.com").await;
    client.send(block.repeat(1000).as_bytes()).await;
    until(|| parts() >= 1_400_000).await;
    drop(client);
    until(|| server.listeners.open() == 0 && server.budget.used() == 0).await;
}

#[tokio::test]
async fn a_large_message_without_a_place_is_put_off_at_its_end_and_the_session_goes_on() {
    let mut server = start(TlsMode::Off, |_| {});
    server.table.no_parts.store(true, Ordering::SeqCst);
    let block = "x".repeat(998) + "\r\n";
    let mut client = Client::greeted(server.address()).await;
    assert!(client.message("ann@example.com", &block.repeat(1000)).await.starts_with("452 4.3.1 no disk"));
    assert_eq!(server.refusal().await.0, "data");
    assert!(client.message("ann@example.com", &block.repeat(100)).await.starts_with("250"));
    assert_eq!(server.budget.used(), 0);
}

#[tokio::test]
async fn a_message_is_in_the_budget_until_it_is_answered() {
    let server = start(TlsMode::Off, |_| {});
    let mut client = Client::greeted(server.address()).await;
    client.begin_data("slow@example.com").await;
    client.send(b"hello\r\n.\r\n").await;
    until(|| server.budget.used() > 0).await;
    server.table.slow.add_permits(1);
    assert!(client.reply().await.starts_with("250"));
    until(|| server.budget.used() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_message_leaves_nothing_behind() {
    let mut server = start(TlsMode::Off, |_| {});
    let mut client = Client::greeted(server.address()).await;
    client.begin_data("ann@example.com").await;
    client.send("y".repeat(100_000).as_bytes()).await;
    until(|| server.budget.used() > 0).await;
    drop(client);
    let (phase, reason) = server.dropped().await;
    assert_eq!(phase, "data");
    assert!(reason.contains("mid-message") || reason.contains("reading from the peer"), "{reason}");
    until(|| server.listeners.open() == 0 && server.budget.used() == 0).await;
}

#[tokio::test]
async fn fifty_sessions_at_once_are_all_served() {
    let server = start(TlsMode::Off, |config| config.limits.connections_per_ip = 100);
    let address = server.address();
    let sessions: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::greeted(address).await;
                for _ in 0..5 {
                    assert!(client.message("ann@example.com", "hello").await.starts_with("250"));
                }
                client.command("QUIT").await
            })
        })
        .collect();
    for session in sessions {
        assert!(session.await.unwrap().starts_with("221"));
    }
    let gate = Arc::clone(&server.listeners.gate());
    until(|| gate.open() == 0).await;
    assert_eq!(server.budget.used(), 0);
}
