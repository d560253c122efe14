//! Who is let in, how much may be in memory, and that all of it is given back.

use std::sync::Arc;

use mailworker::config::TlsMode;

use super::client::Client;
use super::server::{start, until};

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
