//! Sessions with servers on loopback that turn us away, or ask for a login.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::RootCertStore;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::config::Secret;

/// A server that greets so, takes this AUTH command, and counts its sessions.
struct Server {
    address: SocketAddr,
    sessions: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Script {
    greeting: &'static str,
    /// What AUTH is answered.
    login: &'static str,
    /// Offers STARTTLS, and AUTH behind it.
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Script {
    fn greeting(greeting: &'static str) -> Self {
        Self { greeting, login: "235 2.7.0 come in", tls: None }
    }
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sessions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&sessions);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                sessions.spawn(session(stream, script.clone()));
            }
        });
        Self { address, sessions, _tasks: tasks }
    }

    fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

async fn session(mut stream: TcpStream, script: Script) {
    let _gone = stream.write_all(format!("{}\r\n", script.greeting).as_bytes()).await;
    let begun = talk(&mut stream, &script, script.tls.is_some()).await;
    if let (true, Some(acceptor)) = (begun, &script.tls)
        && let Ok(mut secured) = acceptor.accept(stream).await
    {
        talk(&mut secured, &script, false).await;
    }
}

/// True: TLS begins.
async fn talk(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), script: &Script, clear: bool) -> bool {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let answer = match line.split_whitespace().next().unwrap_or_default() {
            "EHLO" if clear => "250-relay\r\n250 STARTTLS",
            "EHLO" => "250-relay\r\n250-PIPELINING\r\n250 AUTH PLAIN",
            "STARTTLS" => "220 go on",
            // \0me\0hush
            "AUTH" if line.trim_end() == "AUTH PLAIN AG1lAGh1c2g=" => script.login,
            _ => "500 what?",
        };
        if stream.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
            return false;
        }
        if line.starts_with("STARTTLS") {
            return true;
        }
        line.clear();
    }
    false
}

/// A certificate for `relay.example` by itself, and the roots that trust it.
fn certified() -> (tokio_rustls::TlsAcceptor, Arc<RootCertStore>) {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
    let made = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (Arc::new(config).into(), Arc::new(roots))
}

fn host() -> Host {
    Host { name: "relay.example".to_owned(), port: 25, trusted: true }
}

fn submission() -> Smarthost {
    let login = Some(Login { user: "me".to_owned(), password: Secret::new("hush".to_owned()) });
    Smarthost { scheme: Scheme::SmtpStarttls, host: "relay.example".to_owned(), port: 587, login }
}

async fn opened(
    smarthost: Option<&Smarthost>,
    roots: Option<Arc<RootCertStore>>,
    addresses: &[SocketAddr],
) -> Result<Connection, Failure> {
    opened_by(&configured(), smarthost, roots, addresses).await
}

fn configured() -> Config {
    let mut config = Config::default();
    "mx.example.com".clone_into(&mut config.hostname);
    config
}

async fn opened_by(
    config: &Config,
    smarthost: Option<&Smarthost>,
    roots: Option<Arc<RootCertStore>>,
    addresses: &[SocketAddr],
) -> Result<Connection, Failure> {
    let tls = Tls::new(roots).unwrap();
    open(&Manner { config, tls: &tls, smarthost, network: &Network::default() }, &host(), addresses).await
}

/// Nobody listens there.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// RFC 5321 §5.1, §3.1 (554): whatever the first address says, the second is asked.
#[tokio::test]
async fn a_server_that_turns_us_away_gives_way_to_the_next_address() {
    for greeting in ["421 4.3.2 not now", "554 5.3.2 no service", "521 5.3.2 never", "HTTP/1.1 400 what"] {
        let (bad, good) =
            (Server::start(Script::greeting(greeting)).await, Server::start(Script::greeting("220 hi")).await);
        let connection = opened(None, None, &[bad.address, good.address]).await.unwrap();
        assert!(connection.peer.ends_with(&good.address.port().to_string()), "{}", connection.peer);
        assert_eq!((bad.sessions(), good.sessions()), (1, 1), "{greeting}");
    }
}

#[tokio::test]
async fn as_few_as_three_servers_of_a_host_turn_us_away_and_who_may_take_us_later_counts() {
    let (never, not_now) =
        (Server::start(Script::greeting("521 5.3.2 never")).await, Server::start(Script::greeting("421 busy")).await);
    let (other, spared) =
        (Server::start(Script::greeting("521 never")).await, Server::start(Script::greeting("220 hi")).await);
    let failure =
        opened(None, None, &[never.address, not_now.address, other.address, spared.address]).await.unwrap_err();
    assert_eq!((failure.retry, failure.reply.unwrap().code), (Retry::Later, 421));
    assert_eq!(spared.sessions(), 0);
}

#[tokio::test]
async fn a_login_goes_over_tls_to_the_address_that_is_there() {
    let (acceptor, roots) = certified();
    let server = Server::start(Script { tls: Some(acceptor), ..Script::greeting("220 hi") }).await;
    let addresses = [refusing().await, server.address];
    let connection = opened(Some(&submission()), Some(roots), &addresses).await.unwrap();
    assert!(connection.offers.pipelining && !connection.offers.starttls);
    assert!(connection.tls.is_some_and(|tls| !tls.contains("unverified")));
}

/// One that is refused for good isn't sent to every address; nor is any sent in the clear, or to whom nobody vouches for.
#[tokio::test]
async fn a_login_that_is_refused_is_refused_once_and_never_sent_in_the_clear() {
    let (acceptor, roots) = certified();
    let refusal = Script { login: "535 5.7.8 no", tls: Some(acceptor.clone()), ..Script::greeting("220 hi") };
    let (one, two) = (Server::start(refusal.clone()).await, Server::start(refusal).await);
    let failure = opened(Some(&submission()), Some(roots), &[one.address, two.address]).await.unwrap_err();
    assert_eq!((failure.retry, failure.side, failure.status.as_str()), (Retry::Later, Side::Ours, "5.7.8"));
    assert_eq!((one.sessions(), two.sessions()), (1, 0));

    let plain = Server::start(Script::greeting("220 hi")).await;
    let failure = opened(Some(&submission()), None, &[plain.address]).await.unwrap_err();
    assert!(failure.detail.contains("doesn't offer STARTTLS"), "{}", failure.detail);
    let unknown = Server::start(Script { tls: Some(acceptor), ..Script::greeting("220 hi") }).await;
    let failure = opened(Some(&submission()), None, &[unknown.address]).await.unwrap_err();
    assert!(failure.detail.contains("certificate"), "{}", failure.detail);
}

#[tokio::test]
async fn require_tls_demands_a_certificate_of_an_mx() {
    let mut config = configured();
    config.relay.require_tls = true;
    let (acceptor, roots) = certified();
    let secured = Server::start(Script { tls: Some(acceptor), ..Script::greeting("220 hi") }).await;
    let connection = opened_by(&config, None, Some(roots), &[secured.address]).await.unwrap();
    assert!(connection.tls.is_some_and(|tls| !tls.contains("unverified")));
    let failure = opened_by(&config, None, None, &[secured.address]).await.unwrap_err();
    assert_eq!((failure.retry, failure.status.as_str()), (Retry::Later, "4.7.5"));
    let plain = Server::start(Script::greeting("220 hi")).await;
    let failure = opened_by(&config, None, None, &[plain.address]).await.unwrap_err();
    assert_eq!((failure.retry, failure.status.as_str()), (Retry::Later, "4.7.4"));
    // What the configuration names says by its scheme.
    let hop = Smarthost { scheme: Scheme::Smtp, login: None, ..submission() };
    opened_by(&config, Some(&hop), None, &[plain.address]).await.unwrap();
}
