//! Webhooks against a server on loopback that answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::config::{Secret, Webhook};
use crate::delivery::Retry;
use crate::dns::Table;
use crate::mail::{Address, Envelope, MessageId};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);
const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the server does with one request.
enum Script {
    Answer(String),
    /// A head, and then octets until the client has had enough.
    Endless,
    Silent,
    Close,
}

#[derive(Default)]
struct Seen {
    requests: Vec<(String, Vec<u8>)>,
    connections: usize,
    /// Endless answers that the client has ended.
    ended: usize,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    tasks: JoinSet<()>,
}

impl Server {
    async fn start(script: impl IntoIterator<Item = Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let mut tasks = JoinSet::new();
        let known = Arc::clone(&seen);
        tasks.spawn(async move {
            let mut sessions = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                known.lock().unwrap().connections += 1;
                sessions.spawn(session(stream, Arc::clone(&known), Arc::clone(&script)));
            }
        });
        Self { address, seen, tasks }
    }

    async fn answering(status: &str, fields: &str, body: &str) -> Self {
        Self::start([Script::Answer(answer(status, fields, body))]).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Head in lower case, and body.
    fn request(&self, index: usize) -> (String, Vec<u8>) {
        self.seen.lock().unwrap().requests[index].clone()
    }

    fn count(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.connections, seen.requests.len())
    }
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

async fn session(mut stream: TcpStream, seen: Arc<Mutex<Seen>>, script: Arc<Mutex<VecDeque<Script>>>) {
    let mut input = Vec::new();
    while let Some(request) = read(&mut stream, &mut input).await {
        seen.lock().unwrap().requests.push(request);
        let next = script.lock().unwrap().pop_front();
        match next {
            Some(Script::Answer(text)) => stream.write_all(text.as_bytes()).await.unwrap(),
            Some(Script::Endless) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
                while stream.write_all(b"8\r\n\x1b[31mabc\r\n").await.is_ok() {}
                seen.lock().unwrap().ended += 1;
                return;
            }
            Some(Script::Silent) => {
                let _until_the_client_goes = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            Some(Script::Close) | None => return,
        }
    }
}

async fn read(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..end]).to_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |value| value.trim().parse().unwrap());
            if input.len() >= end + 4 + length {
                let body = input[end + 4..end + 4 + length].to_vec();
                input.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

fn task(binding: Option<&str>, url: &str) -> WebhookTask {
    WebhookTask {
        binding: binding.map(str::to_owned),
        url: url.to_owned(),
        method: "POST".to_owned(),
        headers: vec![("X-Script".to_owned(), "one".to_owned())],
        body: WebhookBody::Json("{\"a\":1}".to_owned()),
        recipient: Address::parse("to@example.com").unwrap(),
        quiet: false,
        by: None,
    }
}

/// A configuration that names `url` as HOOK.
fn config(url: &str) -> Config {
    let mut config = Config::default();
    config.webhooks.push(Webhook {
        binding: "HOOK".to_owned(),
        url: url.parse().unwrap(),
        secrets: vec![Secret::new(KEY.to_owned())],
        headers: vec![("Authorization".to_owned(), "Bearer hush-token".to_owned())],
        timeout: Duration::from_secs(20),
        concurrency: 1,
        format: crate::mail::PayloadFormat::default(),
    });
    config
}

fn webhooks(table: Table) -> Webhooks {
    Webhooks::new(Arc::new(Dns::table(table).unwrap()), None, &Network::default()).unwrap()
}

fn this() -> Try {
    Try { key: DeliveryKey { message: MessageId::floor(NOW), n: 2 }, attempt: 1, now: NOW }
}

/// One call of HOOK.
async fn called(config: &Config) -> Sent {
    webhooks(Table::default()).send(config, this(), &task(Some("HOOK"), "http://old.example/"), None, None).await
}

async fn by_script(hooks: &Webhooks, config: &Config, url: &str) -> Sent {
    hooks.send(config, this(), &task(None, url), None, None).await
}

#[tokio::test]
async fn a_request_is_signed_as_it_is_sent() {
    let server = Server::answering("200 OK", "", "thanks").await;
    let sent = called(&config(&server.url("/in"))).await;
    assert_eq!(sent.result.unwrap().to_string(), "200: thanks");
    assert_eq!(sent.host, format!("127.0.0.1 [127.0.0.1]:{}", server.address.port()));
    let (head, body) = server.request(0);
    assert_eq!(body, b"{\"a\":1}");
    let id = format!("msg_{}_2", this().key.message);
    let signature = sign::signature(&[Secret::new(KEY.to_owned())], &id, NOW, &body).unwrap();
    for field in [
        "post /in http/1.1".to_owned(),
        format!("webhook-id: {id}").to_lowercase(),
        "webhook-timestamp: 1800000000".to_owned(),
        format!("webhook-signature: {signature}").to_lowercase(),
        "content-type: application/json".to_owned(),
        format!("user-agent: mailworker/{}", env!("CARGO_PKG_VERSION")),
        "x-script: one".to_owned(),
        "authorization: bearer hush-token".to_owned(),
        "content-length: 7".to_owned(),
    ] {
        assert!(head.lines().any(|line| line == field), "{field} in\n{head}");
    }
}

#[tokio::test]
async fn a_url_that_the_configuration_names_gets_its_key_and_goes_where_it_says() {
    let server = Server::answering("204 No Content", "", "").await;
    let config = config(&server.url("/in?tenant=7"));
    let sent = by_script(&webhooks(Table::default()), &config, &server.url("/in?tenant=7")).await;
    assert_eq!(sent.result.unwrap().status, 204);
    assert!(server.request(0).0.contains("webhook-signature: v1,"));
}

#[tokio::test]
async fn any_other_url_is_signed_with_the_default_key_and_not_sent_the_logins_of_others() {
    let server = Server::answering("200 OK", "", "").await;
    let mut config = config("https://hooks.example.net/");
    config.egress = vec!["127.0.0.0/8".parse().unwrap()];
    let hooks = webhooks(Table::default());
    by_script(&hooks, &config, &server.url("/")).await.result.unwrap();
    let (head, _) = server.request(0);
    assert!(!head.contains("webhook-signature") && !head.contains("authorization"), "{head}");
    assert!(head.contains("webhook-id: msg_"), "{head}");

    let server = Server::answering("200 OK", "", "").await;
    config.webhook_defaults.secrets = vec![Secret::new(KEY.to_owned())];
    by_script(&hooks, &config, &server.url("/")).await.result.unwrap();
    assert!(server.request(0).0.contains("webhook-signature: v1,"));
}

#[tokio::test]
async fn a_url_of_a_scripts_leads_to_no_private_address_unless_egress_allows_it() {
    let server = Server::start([Script::Answer(answer("200 OK", "", ""))]).await;
    let port = server.address.port();
    let ip = server.address.ip();
    let table = Table::default().with_address("inside.example", ip).with_address("mixed.example", ip);
    let hooks = webhooks(table.with_address("mixed.example", "::1".parse().unwrap()));
    let mut config = Config::default();
    for host in ["127.0.0.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "inside.example", "mixed.example"]
    {
        let sent = by_script(&hooks, &config, &format!("http://{host}:{port}/")).await;
        let failure = sent.result.unwrap_err();
        assert_eq!((failure.retry, failure.status.as_str(), sent.pauses), (Retry::Never, "5.4.4", false), "{host}");
        assert!(failure.detail.contains("[egress] allow"), "{}", failure.detail);
    }
    assert_eq!(server.count(), (0, 0));
    config.egress = vec!["127.0.0.0/8".parse().unwrap()];
    by_script(&hooks, &config, &format!("http://inside.example:{port}/")).await.result.unwrap();
    assert!(server.request(0).0.contains(&format!("host: inside.example:{port}")));
}

#[tokio::test]
async fn a_connection_that_is_no_longer_allowed_is_not_used_again() {
    let answers = || Script::Answer(answer("200 OK", "", ""));
    let server = Server::start([answers(), answers()]).await;
    let hooks = webhooks(Table::default().with_address("inside.example", server.address.ip()));
    let url = format!("http://inside.example:{}/", server.address.port());
    let mut config = Config::default();
    config.egress = vec!["127.0.0.0/8".parse().unwrap()];
    by_script(&hooks, &config, &url).await.result.unwrap();
    config.egress.clear();
    assert_eq!(by_script(&hooks, &config, &url).await.result.unwrap_err().status, "5.4.4");
    assert_eq!(server.count(), (1, 1));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let server = Server::start((0..3).map(|_| Script::Answer(answer("200 OK", "", "ok")))).await;
    let (config, hooks) = (config(&server.url("/")), webhooks(Table::default()));
    for _ in 0..3 {
        hooks.send(&config, this(), &task(Some("HOOK"), ""), None, None).await.result.unwrap();
    }
    assert_eq!(server.count(), (1, 3));
}

#[tokio::test]
async fn an_endless_answer_is_read_a_little_and_hung_up_on() {
    let mut server = Server::start([Script::Endless]).await;
    let seen = Arc::clone(&server.seen);
    let sent = called(&config(&server.url("/"))).await;
    let text = sent.result.unwrap().text;
    assert!(text.starts_with("[31mabc[31mabc") && text.len() <= 1024, "{text}");
    // The server notices by a write that fails.
    server.tasks.spawn(async move {
        while seen.lock().unwrap().ended == 0 {
            tokio::task::yield_now().await;
        }
    });
    server.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_silent_endpoint_is_left_at_the_limit_that_the_error_names() {
    let server = Server::start([Script::Silent]).await;
    let mut config = config(&server.url("/?key=query-key"));
    config.webhooks[0].timeout = Duration::from_millis(100);
    let sent = called(&config).await;
    assert!(sent.pauses && sent.status.is_none());
    let failure = sent.result.unwrap_err();
    assert_eq!((failure.retry, failure.side), (Retry::Later, Side::Network));
    assert_eq!(failure.detail, format!("answer from {}: 100 ms without an answer", server.address));
}

#[tokio::test]
async fn what_cannot_be_reached_is_tried_later_and_rested() {
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = refusing.local_addr().unwrap();
    drop(refusing);
    let sent = called(&config(&format!("http://{address}/"))).await;
    assert!(sent.pauses);
    let failure = sent.result.unwrap_err();
    assert!(failure.detail.starts_with(&format!("connect to {address}: Connection refused")), "{}", failure.detail);

    let server = Server::start([Script::Close]).await;
    let sent = called(&config(&server.url("/"))).await;
    assert!(sent.pauses && sent.result.unwrap_err().detail.starts_with(&format!("answer from {}", server.address)));
}

#[tokio::test]
async fn a_name_that_is_not_there_and_a_dns_that_fails_are_told_apart() {
    let hooks = webhooks(Table::default().with_failure("down.example", "SERVFAIL"));
    let absent = by_script(&hooks, &Config::default(), "https://absent.example/").await.result.unwrap_err();
    assert!(absent.detail.contains("absent.example: no such host"), "{}", absent.detail);
    let down = by_script(&hooks, &Config::default(), "https://down.example/").await.result.unwrap_err();
    assert!(down.detail.contains("SERVFAIL") && down.retry == Retry::Later, "{}", down.detail);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Server::answering("200 OK", "", "").await;
    let server = Server::answering("307 Moved", &format!("Location: {}\r\n", target.url("/new?k=v")), "").await;
    let sent = called(&config(&server.url("/"))).await;
    let failure = sent.result.unwrap_err();
    assert!(failure.detail.contains(&format!("a redirect to {}", target.url("/…,"))), "{}", failure.detail);
    assert_eq!((failure.retry, target.count()), (Retry::Later, (0, 0)));
}

#[tokio::test]
async fn an_endpoint_that_is_busy_says_for_how_long() {
    let server = Server::answering("503 Busy", "Retry-After: 90\r\n", "later\u{7}").await;
    let sent = called(&config(&server.url("/"))).await;
    assert_eq!((sent.retry_after, sent.pauses, sent.status), (Some(Duration::from_secs(90)), true, Some(503)));
    assert!(sent.result.unwrap_err().detail.ends_with("answered 503: later"));
}

#[tokio::test]
async fn gone_disables_the_endpoint_and_no_other() {
    let answers = ["410 Gone", "200 OK"].map(|status| Script::Answer(answer(status, "", "")));
    let server = Server::start(answers).await;
    let hooks = webhooks(Table::default());
    let asked =
        async |path: &str| hooks.send(&config(&server.url(path)), this(), &task(Some("HOOK"), ""), None, None).await;
    let first = asked("/hush").await;
    let stored = format!("{:?}", first.disables.unwrap());
    assert!(first.result.unwrap_err().retry == Retry::Never && !stored.contains("hush"), "{stored}");
    let again = asked("/hush").await;
    let failure = again.result.unwrap_err();
    assert!(again.disables.is_none() && failure.detail.contains("it answered 410 at"), "{}", failure.detail);
    assert_eq!((failure.retry, server.count().1), (Retry::Never, 1));
    asked("/other").await.result.unwrap();
}

fn message() -> Body {
    let raw = "Subject: x\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment\r\n\r\nhush\r\n";
    Body {
        envelope: Envelope::default(),
        client: None,
        head: Bytes::new(),
        raw: Bytes::from_static(raw.as_bytes()).into(),
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_goes_again_without_its_contents_under_the_same_id() {
    let answers = ["413 Too Large", "200 OK"].map(|status| Script::Answer(answer(status, "", "")));
    let server = Server::start(answers).await;
    let mut task = task(Some("HOOK"), "");
    task.body = WebhookBody::Message;
    let hooks = webhooks(Table::default());
    let sent = hooks.send(&config(&server.url("/")), this(), &task, Some(&message()), None).await;
    assert_eq!(sent.result.unwrap().status, 200);
    let ((first_head, full), (second_head, thin)) = (server.request(0), server.request(1));
    let content = |body: &[u8]| {
        let all: serde_json::Value = serde_json::from_slice(body).unwrap();
        all["data"]["attachments"][0].get("content").cloned()
    };
    assert_eq!(content(&full).unwrap(), "aHVzaA0K");
    assert_eq!(content(&thin), None);
    let id = |head: &str| head.lines().find(|line| line.starts_with("webhook-id")).unwrap().to_owned();
    let signature = |head: &str| head.lines().find(|line| line.starts_with("webhook-sig")).unwrap().to_owned();
    assert_eq!(id(&first_head), id(&second_head));
    assert_ne!(signature(&first_head), signature(&second_head));
}

#[tokio::test]
async fn what_cannot_be_made_smaller_is_never_sent_again() {
    let server = Server::answering("413 Too Large", "", "").await;
    let failure = called(&config(&server.url("/"))).await.result.unwrap_err();
    assert_eq!((failure.retry, failure.status.as_str(), server.count()), (Retry::Never, "5.3.4", (1, 1)));
    assert!(failure.detail.ends_with("answered 413 (a script's own JSON can't be made smaller)"), "{}", failure.detail);

    let answers = ["413 Too Large", "413 Too Large"].map(|status| Script::Answer(answer(status, "", "")));
    let server = Server::start(answers).await;
    let mut task = task(Some("HOOK"), "");
    task.body = WebhookBody::Message;
    let sent = webhooks(Table::default()).send(&config(&server.url("/")), this(), &task, Some(&message()), None).await;
    assert_eq!((sent.result.unwrap_err().retry, server.count().1), (Retry::Never, 2));
}

#[tokio::test]
async fn a_message_whose_octets_are_gone_is_never_sent() {
    let mut task = task(Some("HOOK"), "");
    task.body = WebhookBody::Message;
    let config = config("https://hooks.example.net/");
    let sent = webhooks(Table::default()).send(&config, this(), &task, None, None).await;
    assert_eq!(sent.result.unwrap_err().retry, Retry::Never);
}

#[tokio::test]
async fn a_binding_that_is_gone_may_come_back() {
    let sent = called(&Config::default()).await;
    let failure = sent.result.unwrap_err();
    assert_eq!((failure.retry, failure.status.as_str()), (Retry::Later, "4.3.5"));
}

#[tokio::test]
async fn capture_takes_the_request_in_the_endpoints_place() {
    let sink = Server::answering("200 OK", "", "").await;
    let capture: Url = sink.url("/").parse().unwrap();
    let task = task(None, "https://user:hush@hooks.example.net/in?a=b");
    let hooks = webhooks(Table::default());
    hooks.send(&Config::default(), this(), &task, None, Some(&capture)).await.result.unwrap();
    assert!(sink.request(0).0.contains("x-original-url: https://hooks.example.net/in?a=b\r\n"));
}

#[tokio::test]
async fn no_error_holds_a_login_a_query_or_a_key() {
    let hooks = webhooks(Table::default().with_failure("down.example", "SERVFAIL"));
    let config = Config::default();
    let mut failures = Vec::new();
    for url in [
        "https://user:hush@down.example/in?key=hush#hush",
        "https://user:hush@absent.example/hush?key=hush",
        "https://user:hush@127.0.0.1/?key=hush",
        "https://user:hush@[::1/?key=hush",
        "ftp://user:hush@down.example/?key=hush",
    ] {
        failures.push(by_script(&hooks, &config, url).await.result.unwrap_err());
    }
    let mut injected = task(None, "https://down.example/");
    injected.headers = vec![("X-Key".to_owned(), "hush\r\nX: y".to_owned())];
    failures.push(hooks.send(&config, this(), &injected, None, None).await.result.unwrap_err());
    injected.headers = vec![("Webhook-Id".to_owned(), "hush".to_owned())];
    failures.push(hooks.send(&config, this(), &injected, None, None).await.result.unwrap_err());
    for failure in failures {
        assert!(!format!("{failure:?}").contains("hush"), "{failure:?}");
    }
}

/// A server for `hooks.example` whose certificate is its own, and the roots that trust it.
async fn secured() -> (SocketAddr, Arc<RootCertStore>, JoinSet<()>) {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
    let made = rcgen::generate_simple_self_signed(["hooks.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _request = stream.read(&mut [0; 4096]).await;
                let _gone = stream.write_all(answer("200 OK", "", "").as_bytes()).await;
            }
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (address, Arc::new(roots), tasks)
}

#[tokio::test]
async fn a_certificate_is_checked_by_name_and_authority() {
    let (address, roots, _tasks) = secured().await;
    let table =
        Table::default().with_address("hooks.example", address.ip()).with_address("other.example", address.ip());
    let trusting =
        Webhooks::new(Arc::new(Dns::table(table.clone()).unwrap()), Some(roots), &Network::default()).unwrap();
    let task = task(Some("HOOK"), "");
    let url = |host: &str| format!("https://{host}:{}/", address.port());
    trusting.send(&config(&url("hooks.example")), this(), &task, None, None).await.result.unwrap();
    for (hooks, host) in [(&trusting, "other.example"), (&webhooks(table), "hooks.example")] {
        let failure = hooks.send(&config(&url(host)), this(), &task, None, None).await.result.unwrap_err();
        let told = failure.detail.starts_with(&format!("connect to {host}:{}: ", address.port()));
        assert!(told && failure.detail.contains("certificate"), "{}", failure.detail);
        assert_eq!(failure.retry, Retry::Later);
    }
}
