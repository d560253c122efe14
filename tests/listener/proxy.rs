//! The PROXY protocol: required of those who are named, taken from nobody else.

use mailworker::config::{Config, TlsMode};

use super::client::Client;
use super::server::{start, until};

fn behind_proxy(config: &mut Config) {
    config.listeners[0].proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn the_client_is_whom_the_proxy_speaks_for() {
    let mut server = start(TlsMode::Off, behind_proxy);
    let mut client = Client::connect(server.address()).await;
    client.send(b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 25\r\n").await;
    assert!(client.reply().await.starts_with("220"));
    let asked = server.asked("connect").await;
    assert_eq!((asked.ip.to_string().as_str(), asked.port), ("192.0.2.9", 4711));

    let mut client = Client::connect(server.address()).await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    header.extend_from_slice(&"2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
    header.extend_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    header.extend_from_slice(&[0x12, 0x67, 0, 25]);
    client.send(&header).await;
    assert!(client.reply().await.starts_with("220"));
    let asked = server.asked("connect").await;
    assert_eq!((asked.ip.to_string().as_str(), asked.port), ("2001:db8::9", 4711));
}

#[tokio::test]
async fn a_proxy_without_its_header_is_sent_away() {
    let mut server = start(TlsMode::Off, behind_proxy);
    let mut client = Client::connect(server.address()).await;
    client.send(b"EHLO client.example\r\n").await;
    assert!(client.reply().await.starts_with("421 4.3.5"));
    assert!(client.is_closed().await);
    let (phase, reason) = server.dropped().await;
    assert_eq!(phase, "connect");
    assert!(reason.contains("a PROXY header is required"), "{reason}");
}

#[tokio::test]
async fn the_limit_for_one_address_counts_the_clients_and_not_the_proxy() {
    let mut server = start(TlsMode::Off, |config| {
        behind_proxy(config);
        config.limits.connections_per_ip = 1;
    });
    let mut clients = Vec::new();
    for (ip, expected) in [("192.0.2.1", "220"), ("192.0.2.2", "220"), ("192.0.2.1", "421 4.7.0")] {
        let mut client = Client::connect(server.address()).await;
        client.send(format!("PROXY TCP4 {ip} 198.51.100.1 4711 25\r\n").as_bytes()).await;
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{ip}: {reply}");
        clients.push(client);
    }
    assert_eq!(server.refusal().await.0, "connect");
}

#[tokio::test]
async fn a_header_from_anybody_else_is_no_header() {
    let mut server = start(TlsMode::Off, |config| {
        config.listeners[0].proxy_protocol = vec!["192.0.2.0/24".parse().unwrap()];
    });
    let mut client = Client::connect(server.address()).await;
    client.reply().await;
    assert!(client.command("PROXY TCP4 192.0.2.9 198.51.100.1 4711 25").await.starts_with("500"));
    assert_eq!(server.asked("connect").await.ip.to_string(), "127.0.0.1");
}

#[tokio::test]
async fn a_header_that_does_not_come_holds_up_no_stop() {
    let server = start(TlsMode::Off, behind_proxy);
    let mut client = Client::connect(server.address()).await;
    until(|| server.listeners.open() == 1).await;
    let drained = tokio::spawn(server.listeners.drain(std::time::Duration::from_hours(1)));
    assert!(client.reply().await.starts_with("421 4.3.2"));
    drained.await.unwrap();
}
