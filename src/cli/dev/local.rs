//! `dev`'s HTTP port: mail by POST, as Cloudflare's local simulator takes it, so that scripts written for that one serve.
//!
//! `/cdn-cgi/local/email` and its older name `/cdn-cgi/handler/email` take the raw message as the body and the envelope
//! as `from` and `to`, and as `dmarc` what its author is to have proved (`pass` otherwise); the message is decided on, kept and sent on (into the capture) as one that came by SMTP. Only on
//! loopback, and only for who names it so: a page in a browser that was led here by a name of its own is turned away.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::planned;
use crate::admin::http::{self, Bounds, CONTROL};
use crate::app::Answering;
use crate::cli::Failure;
use crate::event::Kind;
use crate::intake::{Handed, Heard, Written};
use crate::listener::Answerer as _;
use crate::mail::authentication::{Authentication, Check, Dmarc, Spf};
use crate::mail::{Address, Client, Message, Reply, Timestamp};
use crate::store::Task;

/// The names of this machine that lead nowhere else.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];
/// Sessions of this port are numbered from here on: SMTP's own never come so far.
const SESSIONS: u64 = 1 << 48;
/// Octets above the largest message that are read, so that it can be said what is wrong.
const SLACK: usize = 64 * 1024;
const PATHS: [&str; 2] = ["/cdn-cgi/local/email", "/cdn-cgi/handler/email"];

/// The running port; dropped, it is gone.
pub struct Local {
    pub address: SocketAddr,
    _server: JoinSet<()>,
}

#[derive(Clone)]
pub(super) struct Taking {
    pub(super) answering: Arc<Answering>,
    session: Arc<AtomicU64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    from: String,
    to: String,
    format: String,
    dmarc: String,
}

impl Local {
    pub async fn start(address: SocketAddr, answering: Arc<Answering>) -> Result<Self, Failure> {
        let named = |error: std::io::Error| Failure::Failed(format!("--http {address}: {error}"));
        let listener = TcpListener::bind(address).await.map_err(named)?;
        let address = listener.local_addr().map_err(named)?;
        let largest = usize::try_from(answering.config().limits.message_size).unwrap_or(usize::MAX);
        let bounds = Bounds { body: largest.saturating_add(SLACK), ..CONTROL };
        let state = Taking { answering, session: Arc::new(AtomicU64::new(SESSIONS)) };
        let router = PATHS.iter().fold(Router::new(), |router, path| router.route(path, post(email)));
        let router = planned::PATHS
            .iter()
            .fold(router, |router, path| router.route(path, get(planned::scheduled).post(planned::scheduled)));
        let router = router.fallback(nothing_there).with_state(state).layer(middleware::from_fn(from_here));
        let mut server = JoinSet::new();
        server.spawn(http::serve(listener, router, bounds, std::future::pending()));
        Ok(Self { address, _server: server })
    }
}

/// A name in DNS can be made to lead to this machine (DNS rebinding); what the browser was asked for stands in `Host`.
async fn from_here(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !headers.get(header::HOST).is_some_and(|host| is_ours(host.to_str().unwrap_or_default())) {
        return (StatusCode::FORBIDDEN, "Invalid Host header").into_response();
    }
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let is_foreign = |origin: &str| !origin.split_once("://").is_some_and(|(_, host)| is_ours(host));
    if origin.is_some_and(is_foreign) {
        return (StatusCode::FORBIDDEN, "Invalid Origin header").into_response();
    }
    // A page elsewhere can have a picture fetched from here, for which there is no Origin.
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return (StatusCode::FORBIDDEN, "Invalid Sec-Fetch-Site header").into_response();
    }
    next.run(request).await
}

/// With any port.
fn is_ours(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|octet| octet.is_ascii_digit()) => name,
        _ => host,
    };
    NAMES.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

async fn nothing_there(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(100).collect();
    let text = format!(
        "{path:?} answers nothing here. Did you mean {}?",
        [PATHS[0], PATHS[1], planned::PATHS[0]].join(" or ")
    );
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn email(State(taking): State<Taking>, Query(asked): Query<Asked>, body: Bytes) -> Response {
    let (sender, to) = match envelope(&asked, &body) {
        Ok(envelope) => envelope,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    let raw = with_line_ends(&body);
    let message = Message::new(raw.clone());
    if message.message_id().is_none() {
        let text = "Email could not be parsed: invalid or no message id provided";
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let auth = match taken_as(&asked.dmarc, sender.as_ref(), &message) {
        Ok(auth) => auth,
        Err(text) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let client = Client {
        ip,
        port: 0,
        listener: "http".to_owned(),
        helo: Some("localhost".to_owned()),
        esmtp: true,
        tls: None,
        ptr: None,
        auth: Some(Arc::new(auth)),
        origin: crate::mail::Origin::default(),
    };
    let session = taking.session.fetch_add(1, Ordering::Relaxed);
    // What was begun is done, whether or not somebody waits for the answer.
    let handing = tokio::spawn(async move { taking.answering.intake.hand_in(session, &client, sender, to, raw).await });
    match handing.await {
        Ok(handed) if asked.format == "json" => as_json(&handed),
        Ok(handed) => as_text(&handed),
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("a fault of our own: {panic}")).into_response(),
    }
}

fn envelope(asked: &Asked, body: &[u8]) -> Result<(Option<Address>, Address), String> {
    if asked.from.is_empty() || asked.to.is_empty() || body.is_empty() {
        return Err(
            "Invalid email. Your request must include URL parameters specifying the `from` and `to` addresses, as \
                    well as an email in the body"
                .to_owned(),
        );
    }
    let parsed =
        |name: &str, text: &str| Address::parse(text).map_err(|error| format!("Invalid email. `{name}`: {error}"));
    let sender = if asked.from == "<>" { None } else { Some(parsed("from", &asked.from)?) };
    Ok((sender, parsed("to", &asked.to)?))
}

/// What the sender proved, where this machine isn't looked into: all, as with the simulator, so that a worker which answers
/// does so here; or what the request says.
fn taken_as(dmarc: &str, sender: Option<&Address>, message: &Message) -> Result<Authentication, String> {
    let result = if dmarc.is_empty() { Some(Check::Pass) } else { Check::of_word(dmarc) };
    let words = || Check::ALL.map(Check::word).join(", ");
    let result = result.ok_or_else(|| format!("`dmarc` is one of {}", words()))?;
    let author = message.header_from().and_then(|author| Address::parse(&author).ok());
    let domain = author.as_ref().map_or_else(String::new, Address::domain_key);
    let spf = Spf { result, domain: sender.map_or_else(String::new, Address::domain_key), ..Spf::default() };
    let dmarc = Dmarc { result, domain, aligned_spf: result == Check::Pass, ..Dmarc::default() };
    Ok(Authentication { spf, dmarc, ..Authentication::default() })
}

/// Files and shells end lines with LF alone; mail doesn't (RFC 5322 §2.3).
fn with_line_ends(octets: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    let mut before = 0;
    for octet in octets {
        if *octet == b'\n' && before != b'\r' {
            out.push(b'\r');
        }
        out.push(*octet);
        before = *octet;
    }
    out.into()
}

/// The error of a worker that failed.
fn failure(handed: &Handed) -> Option<String> {
    let mut events = handed.kept.iter().flat_map(|kept| &kept.events);
    events.find_map(|event| if let Kind::ScriptFailed { error, .. } = &event.kind { Some(error.clone()) } else { None })
}

fn as_text(handed: &Handed) -> Response {
    let Reply { text, .. } = &handed.reply;
    if handed.reply.is_positive() {
        return (StatusCode::OK, "Worker successfully processed email").into_response();
    }
    if handed.reply.is_permanent() {
        let text = format!("Worker rejected email with the following reason: {text}");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let text = failure(handed).unwrap_or_else(|| handed.reply.to_string());
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

/// `outcome`, `rejectReason`, `forwards`, `replies` and `events` as the simulator names them; `reply` and `error` are ours.
fn as_json(handed: &Handed) -> Response {
    let (is_exception, is_rejected) = (handed.reply.is_temporary(), handed.reply.is_permanent());
    let at = handed.kept.as_ref().map_or_else(crate::clock::now, |kept| kept.id.timestamp());
    let forwards: Vec<Value> = handed.kept.iter().flat_map(forwards).collect();
    let replies: Vec<Value> = handed.kept.iter().flat_map(|kept| &kept.replies).map(reply).collect();
    let mut events = vec![event("received", at, None)];
    events.extend(forwards.iter().map(|forward| event("forward", at, forward.get("messageId"))));
    events.extend(replies.iter().map(|reply| event("reply", at, reply.get("messageId"))));
    events.extend(is_rejected.then(|| event("reject", at, None)));
    let told = Told {
        outcome: if is_exception { "exception" } else { "ok" },
        reject_reason: is_rejected.then(|| handed.reply.text.to_string()),
        forwards,
        replies,
        events,
        reply: handed.reply.to_string(),
        error: failure(handed),
    };
    let status = if is_exception { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    (status, Json(told)).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reject_reason: Option<String>,
    forwards: Vec<Value>,
    replies: Vec<Value>,
    events: Vec<Value>,
    reply: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn event(kind: &str, at: Timestamp, message: Option<&Value>) -> Value {
    match message {
        Some(message) => json!({ "type": kind, "timestamp": at.to_string(), "messageId": message }),
        None => json!({ "type": kind, "timestamp": at.to_string() }),
    }
}

fn reply(written: &Written) -> Value {
    let raw = String::from_utf8_lossy(&written.raw);
    json!({ "messageId": format!("{}@localhost", written.id), "sender": written.from, "raw": raw })
}

/// Each with the fields that the worker asked for, and not those that are ours.
fn forwards(kept: &Heard) -> Vec<Value> {
    let of = |(n, task): (usize, &Task)| {
        let Task::Relay(relay) = task else { return None };
        let fields: Vec<_> = relay.headers.iter().filter(|(name, _)| name != "Delivered-To").collect();
        let id = format!("{}.{n}@localhost", kept.id);
        Some(json!({ "messageId": id, "recipient": relay.recipient, "headers": fields }))
    };
    kept.deliveries.iter().map(|delivery| &delivery.task).enumerate().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_ours() {
        for host in ["localhost", "LOCALHOST:8787", "127.0.0.1:8787", "[::1]:8787", "[::1]"] {
            assert!(is_ours(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8787", "evil.example:80", "::1"]
        {
            assert!(!is_ours(host), "{host}");
        }
    }

    #[test]
    fn lines_end_as_mail_wants_them() {
        assert_eq!(with_line_ends(b"a\nb\r\n\n"), "a\r\nb\r\n\r\n");
    }
}
