//! Health, metrics and control over real sockets, on a store of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mailworker::admin::api::{self, TailFilter};
use mailworker::admin::{self, Control, Health, Readiness};
use mailworker::cli::access::{Server, Writer};
use mailworker::config::Config;
use mailworker::config::load::Options as LoadOptions;
use mailworker::event::{Bus, Event, Kind};
use mailworker::kv::{Value, View as _, Write};
use mailworker::mail::Timestamp;
use mailworker::store::{self, QueueFilter, Store};
use mailworker::vault::Sealer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Running {
    dir: TempDir,
    store: Store,
    bus: Bus,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn open() -> (TempDir, Store, Bus) {
    let dir = tempfile::tempdir().unwrap();
    let bus = Bus::new(64);
    let options = store::Options {
        data_dir: dir.path().join("data"),
        segment_size: 1 << 20,
        raw_retention: Duration::from_hours(1),
        log_retention: Duration::from_hours(1),
        free_space: 0,
    };
    let store = Store::open(options, bus.clone()).unwrap();
    (dir, store, bus)
}

/// Decides on nothing: there is no intake here.
struct Nobody;

impl admin::control::Redecide for Nobody {
    fn trigger(&self, asked: api::TriggerOf) -> BoxFuture<'_, Result<api::Triggered, store::StoreError>> {
        Box::pin(async move { Err(store::StoreError::NotFound(format!("nobody runs {}", asked.cron))) })
    }

    fn redecide(&self, asked: api::ReplayOf) -> BoxFuture<'_, Result<api::Replayed, store::StoreError>> {
        Box::pin(async move { Err(store::StoreError::NotFound(format!("no message {}", asked.id))) })
    }
}

/// A server's control socket, and the command line's way to it.
async fn control() -> (Running, Server) {
    let (dir, store, bus) = open();
    let data_dir = dir.path().join("data");
    let listener = admin::bind_control(&data_dir).unwrap();
    let listening =
        api::Listening { protocol: "smtp".into(), address: "127.0.0.1:2525".into(), tls: "starttls".into() };
    let in_force = admin::Asking::new(|| api::InForce { env: String::new(), active: None, canary: None });
    let sealer = Sealer::new(LoadOptions::default(), || std::sync::Arc::new(Config::default()));
    let (store_of_it, bus_of_it, redecider) = (store.clone(), bus.clone(), Arc::new(Nobody));
    let control =
        Control { redecider, store: store_of_it, bus: bus_of_it, listeners: vec![listening], sealer, in_force };
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(admin::serve_control(listener, control, async { drop(stopped.await) }));
    let server = Server::required(&data_dir).await.unwrap();
    (Running { dir, store, bus, stop, task }, server)
}

#[tokio::test]
async fn a_running_server_says_where_it_listens() {
    let (_running, server) = control().await;
    let status = server.status().await.unwrap();
    assert_eq!(status.listeners[0].to_string(), "listening smtp 127.0.0.1:2525 starttls");
    assert_eq!(status.pid, std::process::id());
}

#[tokio::test]
async fn keys_and_queue_are_changed_through_the_server() {
    let (running, server) = control().await;
    let writer = Writer::Server(server);
    let put = Write::Put {
        namespace: "EMAILS".into(),
        key: "k".into(),
        value: Value::Blob(vec![0, 255]),
        metadata: None,
        expires_at: None,
    };
    writer.kv_write(put).await.unwrap();
    let entry = running.store.reader().get("EMAILS", "k", Timestamp::from_millis(0)).unwrap().unwrap();
    assert_eq!(entry.value, Value::Blob(vec![0, 255]));
    assert_eq!(writer.queue_retry(QueueFilter::default(), true).await.unwrap(), 0);
    assert_eq!(writer.queue_drop(QueueFilter::default(), true).await.unwrap(), 0);
}

/// A request over the control socket; its answer, which ends the connection.
async fn over_socket(running: &Running, request: &str) -> String {
    let path = admin::control_path(&running.dir.path().join("data"));
    let mut stream = tokio::net::UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

/// What a newer command line narrows by and this server doesn't know must not become the whole queue.
#[tokio::test]
async fn a_change_of_the_whole_queue_must_be_asked_for_and_a_refusal_is_json() {
    let (running, _server) = control().await;
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (body, code) in [
        ("{}", 422),
        ("{\"filter\":{}}", 422),
        ("{\"filter\":{\"sender\":\"\"}}", 422),
        ("{\"filter\":{\"limit\":5}}", 422),
        ("{\"queued_before_new_field\":\"x\"}", 422),
        ("{\"filter\":{\"queued_before_new_field\":\"x\"},\"all\":true}", 422),
        ("{\"filter\":", 400),
        ("{\"filter\":{},\"all\":true}", 200),
        ("{\"filter\":{\"dead\":true}}", 200),
    ] {
        for path in [api::QUEUE_DROP, api::QUEUE_RETRY] {
            let said = over_socket(&running, &post(path, body)).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {code}")), "{body}: {said}");
            assert!(said.contains("application/json"), "{said}");
            assert_eq!(said.contains("\"error\":"), code != 200, "{said}");
        }
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (path, code) in [("/v1/tail?outcom=rejected", 400), (api::QUEUE_DROP, 405), ("/v2", 404)] {
        let said = over_socket(&running, &get(path)).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {code}")) && said.contains("\"error\":"), "{said}");
    }
}

#[tokio::test]
async fn a_backup_through_the_server_is_a_store_and_a_refusal_is_told() {
    let (running, server) = control().await;
    let writer = Writer::Server(server);
    let copy = running.dir.path().join("copy");
    writer.backup(&copy).await.unwrap();
    assert!(Store::open_readonly(&copy).is_ok());
    let again = writer.backup(&copy).await.unwrap_err();
    assert!(format!("{again:?}").contains("empty"), "the store's own words: {again:?}");
}

#[tokio::test]
async fn tail_sends_each_event_that_its_filter_leaves() {
    let (running, server) = control().await;
    let filter = TailFilter { sender: Some("ann@".into()), ..TailFilter::default() };
    let mut answer = server.tail(&filter).await.unwrap();
    for sender in ["bob@example.org", "ann@example.org"] {
        let kind = Kind::Refused {
            phase: "rcpt".into(),
            ip: [192, 0, 2, 1].into(),
            sender: Some(sender.into()),
            recipient: None,
            reply: mailworker::mail::Reply::new(550, 5, 1, "no"),
        };
        running.bus.publish(Event::new(Timestamp::from_millis(1), kind));
    }
    let line = answer.chunk().await.unwrap().unwrap();
    let event: Event = serde_json::from_slice(&line).unwrap();
    assert!(matches!(event.kind, Kind::Refused { sender: Some(sender), .. } if sender == "ann@example.org"));
}

#[tokio::test]
async fn a_stop_ends_the_tails_and_removes_the_socket() {
    let (running, server) = control().await;
    let mut answer = server.tail(&TailFilter::default()).await.unwrap();
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
    while let Ok(Some(_)) = answer.chunk().await {}
    let data_dir = running.dir.path().join("data");
    assert!(!admin::control_path(&data_dir).exists());
    assert!(Server::find(&data_dir).await.unwrap().is_none());
}

async fn health() -> (TempDir, Readiness, SocketAddr) {
    let (dir, store, _bus) = open();
    let readiness = Readiness::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let health =
        Health { store, readiness: readiness.clone(), metrics: || format!("{}metric 1\n", "# filler\n".repeat(8192)) };
    tokio::spawn(admin::serve_http(listener, health, std::future::pending()));
    (dir, readiness, address)
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut said = Vec::new();
    let _ended = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn ready_is_503_with_reasons_until_every_part_is() {
    let (_dir, readiness, address) = health().await;
    readiness.hold("listeners", "not bound yet");
    let said = get(address, "/readyz").await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("listeners: not bound yet"), "{said}");
    readiness.clear("listeners");
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/healthz").await.ends_with("ok\n"));
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let (_dir, _readiness, address) = health().await;
    let said = get(address, "/metrics").await;
    assert!(said.contains("text/plain; version=0.0.4") && said.ends_with("metric 1\n"), "{said}");
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_the_next_is_served() {
    let (_dir, _readiness, address) = health().await;
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    assert!(!ask(address, long.as_bytes()).await.contains(" 200 "));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(1000));
    assert!(!ask(address, many.as_bytes()).await.contains(" 200 "));
    assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
}

/// Neither those who ask and don't read nor those who stay silent take the port away from whoever probes.
#[tokio::test]
async fn a_probe_is_answered_while_others_hold_all_connections() {
    let (_dir, _readiness, address) = health().await;
    let mut greedy = Vec::new();
    for n in 0..100 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        greedy.push(tokio::spawn(async move {
            let requests =
                if n % 2 == 0 { "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000) } else { String::new() };
            let _cut_off = stream.write_all(requests.as_bytes()).await;
            std::future::pending::<()>().await;
        }));
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let said = tokio::time::timeout(Duration::from_secs(30), get(address, path)).await.expect("it is answered");
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
    greedy.iter().for_each(JoinHandle::abort);
}
