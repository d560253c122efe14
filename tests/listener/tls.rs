//! STARTTLS, TLS from the first octet, the choice of certificates, and handshakes that fail.

use std::time::Duration;

use mailworker::config::TlsMode;
use mailworker::event::Kind;
use mailworker::listener::TlsState;
use tokio::time::timeout;

use super::client::{Client, PATIENCE};
use super::server::{Server, certificate, config, start, tls_files, until};

#[tokio::test]
async fn starttls_encrypts_and_forgets_what_was_said_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let (root, pair) = certificate(directory.path(), "mx.example.com");
    let mut server = start(TlsMode::Starttls, |config| config.tls = Some(tls_files(&pair, &[])));
    let mut client = Client::connect(server.address()).await;
    client.reply().await;
    assert!(client.command("EHLO in.the.clear").await.contains("STARTTLS"));

    let injected = "MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.com>\r\n";
    let mut client = client.start_tls("mx.example.com", &root, injected).await;
    assert!(client.command("RCPT TO:<ann@example.com>").await.starts_with("503"), "nothing injected was run");
    assert!(!client.command("EHLO client.example").await.contains("STARTTLS"));
    assert!(client.message("ann@example.com", "hello").await.starts_with("250"));

    let asked = server.asked("mail").await;
    assert_eq!(asked.helo.as_deref(), Some("client.example"));
    let tls = asked.tls.unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(tls.cipher.starts_with("TLS13_"), "{}", tls.cipher);
    assert_eq!(tls.sni.as_deref(), Some("mx.example.com"));
}

#[tokio::test]
async fn implicit_tls_speaks_from_the_first_octet() {
    let directory = tempfile::tempdir().unwrap();
    let (root, pair) = certificate(directory.path(), "mx.example.com");
    let mut server = start(TlsMode::Implicit, |config| config.tls = Some(tls_files(&pair, &[])));
    let mut client = Client::implicit(server.address(), "mx.example.com", &root).await.unwrap();
    assert!(client.reply().await.starts_with("220 mx.example.com"));
    assert!(!client.command("EHLO client.example").await.contains("STARTTLS"));
    assert!(client.message("ann@example.com", "hello").await.starts_with("250"));
    assert!(server.asked("connect").await.tls.is_some());
}

#[tokio::test]
async fn required_tls_refuses_mail_in_the_clear() {
    let directory = tempfile::tempdir().unwrap();
    let (root, pair) = certificate(directory.path(), "mx.example.com");
    let server = start(TlsMode::Required, |config| config.tls = Some(tls_files(&pair, &[])));
    let mut client = Client::greeted(server.address()).await;
    assert!(client.command("MAIL FROM:<ann@example.org>").await.starts_with("530 5.7.0"));
    let mut client = client.start_tls("mx.example.com", &root, "").await;
    client.command("EHLO client.example").await;
    assert!(client.message("ann@example.com", "hello").await.starts_with("250"));
}

#[tokio::test]
async fn without_a_certificate_starttls_is_not_offered() {
    let server = start(TlsMode::Starttls, |_| {});
    let mut client = Client::connect(server.address()).await;
    client.reply().await;
    assert!(!client.command("EHLO client.example").await.contains("STARTTLS"));
    assert!(client.command("STARTTLS").await.starts_with("502"));
}

#[tokio::test]
async fn sni_chooses_the_certificate_and_the_default_serves_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let (one, one_pair) = certificate(directory.path(), "mx.example.com");
    let (two, two_pair) = certificate(directory.path(), "mx.example.net");
    let server = start(TlsMode::Implicit, |config| config.tls = Some(tls_files(&one_pair, &[&two_pair])));
    for (name, expected) in [("mx.example.com", &one), ("mx.example.net", &two)] {
        let client = Client::implicit(server.address(), name, expected).await.unwrap();
        assert_eq!(client.certificate.as_ref(), Some(expected), "{name}");
    }
    let error = Client::implicit(server.address(), "mx.example.org", &one).await.err().unwrap();
    assert!(error.to_string().contains("not valid for name"), "the default one was shown: {error}");
}

#[tokio::test]
async fn a_swapped_certificate_serves_new_handshakes_and_harms_no_session() {
    let directory = tempfile::tempdir().unwrap();
    let (old, pair) = certificate(directory.path(), "mx.example.com");
    let server = start(TlsMode::Implicit, |config| config.tls = Some(tls_files(&pair, &[])));
    let mut before = Client::implicit(server.address(), "mx.example.com", &old).await.unwrap();
    before.reply().await;

    let (new, _) = certificate(directory.path(), "mx.example.com");
    server.tls.store(TlsState::load(&server.config).unwrap().into());
    let after = Client::implicit(server.address(), "mx.example.com", &new).await.unwrap();
    assert_eq!(after.certificate, Some(new));
    assert!(before.command("NOOP").await.starts_with("250"));
}

async fn why_tls_failed(server: &mut Server) -> String {
    server.event(|kind| if let Kind::TlsFailed { error } = kind { Some(error.clone()) } else { None }).await
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_told_of_in_plain_words() {
    let directory = tempfile::tempdir().unwrap();
    let (root, pair) = certificate(directory.path(), "mx.example.com");
    let mut server = start(TlsMode::Implicit, |config| config.tls = Some(tls_files(&pair, &[])));
    let mut http = Client::connect(server.address()).await;
    http.send(b"GET / HTTP/1.1\r\nHost: mx.example.com\r\n\r\n").await;
    assert_eq!(why_tls_failed(&mut server).await, "the peer did not speak TLS [127.0.0.1]");

    drop(Client::connect(server.address()).await);
    assert_eq!(why_tls_failed(&mut server).await, "the peer left during the handshake [127.0.0.1]");

    let mut honest = Client::implicit(server.address(), "mx.example.com", &root).await.unwrap();
    assert!(honest.reply().await.starts_with("220"), "nobody else is harmed");
}

#[test]
fn files_that_do_not_serve_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (_, one) = certificate(directory.path(), "mx.example.com");
    let (_, two) = certificate(directory.path(), "mx.example.net");
    let mut config = config(TlsMode::Starttls);
    let mut error = |pair: &(std::path::PathBuf, std::path::PathBuf)| {
        config.tls = Some(tls_files(pair, &[]));
        TlsState::load(&config).unwrap_err()
    };
    let mixed = error(&(one.0.clone(), two.1.clone()));
    assert!(mixed.contains("mx.example.com.pem and ") && mixed.contains("mx.example.net.key"), "{mixed}");
    let missing = error(&(directory.path().join("none.pem"), one.1.clone()));
    assert!(missing.contains("none.pem"), "{missing}");
    let swapped = error(&(one.1.clone(), one.0.clone()));
    assert!(swapped.contains("no certificate in it"), "{swapped}");
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_holds_up_no_stop() {
    let directory = tempfile::tempdir().unwrap();
    let (_, pair) = certificate(directory.path(), "mx.example.com");
    let server = start(TlsMode::Implicit, |config| config.tls = Some(tls_files(&pair, &[])));
    let mut stalled = Client::connect(server.address()).await;
    until(|| server.listeners.open() == 1).await;
    timeout(PATIENCE, server.listeners.drain(Duration::from_hours(1))).await.expect("the stop not to wait for it");
    assert!(stalled.is_closed().await);
}
