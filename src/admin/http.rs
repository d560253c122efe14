//! HTTP/1.1 with bounds: connections at once and their age, head, body and time of a request. One loop for both servers.
//!
//! A peer that sends slowly, much or nothing, or that doesn't read, holds one of a few places for a while, and never the
//! process; where all places of the public port are taken, the oldest makes room.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::serve::Listener;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::api::ApiError;
use super::patience::Patient;

/// What one server grants.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// At once.
    pub connections: usize,
    /// Where there are as many: the oldest is cut off for the next; otherwise that waits in the kernel's backlog.
    pub oldest_yields: bool,
    /// Of a connection, whatever it does.
    pub age: Duration,
    /// For the peer to read something of what it asked for.
    pub write_timeout: Duration,
    /// Octets of a body.
    pub body: usize,
    /// For a request's head, from its first octet or from the last answer.
    pub head_timeout: Duration,
    /// For the head of the answer; a stream may go on longer.
    pub answer_timeout: Duration,
}

/// The loopback port: whoever scrapes or probes sends no bodies.
pub const PUBLIC: Bounds = Bounds {
    connections: 64,
    oldest_yields: true,
    age: Duration::from_mins(2),
    write_timeout: Duration::from_secs(10),
    body: 16 * 1024,
    head_timeout: Duration::from_secs(10),
    answer_timeout: Duration::from_secs(30),
};

/// The control socket: the owner's. A value of 25 MiB is at most four times as long in JSON; a backup takes its time.
pub const CONTROL: Bounds = Bounds {
    connections: 32,
    oldest_yields: false,
    // A tail goes on for as long as somebody looks.
    age: Duration::MAX,
    write_timeout: Duration::from_mins(10),
    body: 128 * 1024 * 1024,
    head_timeout: Duration::from_secs(10),
    answer_timeout: Duration::from_hours(1),
};

/// Octets of a request's head.
const HEAD: usize = 16 * 1024;
/// Fields of a request's head.
const FIELDS: usize = 64;
/// What answers under way get once shutdown is asked for.
const GRACE: Duration = Duration::from_secs(2);

/// Accepts and answers until `shutdown`; then answers under way end, those that don't are cut off.
pub async fn serve<L>(mut listener: L, router: Router, bounds: Bounds, shutdown: impl Future<Output = ()> + Send)
where
    L: Listener,
{
    let router = router
        .layer(DefaultBodyLimit::max(bounds.body))
        .layer(middleware::from_fn(move |request, next| timely(bounds.answer_timeout, request, next)));
    let (stop, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    // The oldest first.
    let mut order: VecDeque<AbortHandle> = VecDeque::with_capacity(bounds.connections);
    tokio::pin!(shutdown);
    loop {
        order.retain(|connection| !connection.is_finished());
        let is_full = order.len() >= bounds.connections;
        tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = open.join_next() => {}
            (io, _) = listener.accept(), if bounds.oldest_yields || !is_full => {
                if is_full && let Some(oldest) = order.pop_front() {
                    oldest.abort();
                }
                order.push_back(open.spawn(connection(io, router.clone(), bounds, stopped.clone())));
            }
        }
    }
    drop(listener);
    let _nobody_connected = stop.send(true);
    let ended = async { while open.join_next().await.is_some() {} };
    // What is still open after the grace is cut off when the set is dropped.
    let _late = tokio::time::timeout(GRACE, ended).await;
}

async fn connection<I>(io: I, router: Router, bounds: Bounds, mut stopped: watch::Receiver<bool>)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_headers(FIELDS)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(Patient::new(io, bounds.write_timeout)), TowerToHyperService::new(router));
    tokio::pin!(served);
    // How a connection ends is its peer's business: an error here is a peer that went, or was too slow or too long.
    tokio::select! {
        _ended = &mut served => {}
        () = async { drop(stopped.wait_for(|stop| *stop).await) } => {
            served.as_mut().graceful_shutdown();
            let _ended = served.await;
        }
        () = tokio::time::sleep(bounds.age) => {
            served.as_mut().graceful_shutdown();
            let _late = tokio::time::timeout(GRACE, served).await;
        }
    }
}

async fn timely(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let error = format!("no answer was found within {} s", limit.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, Json(ApiError { error })).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const BRIEF: Duration = Duration::from_millis(20);

    /// Waits for the end of a connection whose peer behaves like `peer`.
    async fn ends<F: Future<Output = DuplexStream>>(bounds: Bounds, peer: impl FnOnce(DuplexStream) -> F) {
        let (ours, theirs) = duplex(1024);
        let router = Router::new().route("/", get(|| async { "x".repeat(4096) }));
        let (_stop, stopped) = watch::channel(false);
        let served = tokio::spawn(connection(ours, router, bounds, stopped));
        let _held_open = peer(theirs).await;
        tokio::time::timeout(Duration::from_secs(30), served).await.expect("it ends").unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_asks_and_never_reads_is_cut_off() {
        ends(Bounds { write_timeout: BRIEF, ..PUBLIC }, |mut peer| async {
            peer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            peer
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_has_an_age_and_silence_an_end() {
        ends(Bounds { age: BRIEF, ..PUBLIC }, |peer| async { peer }).await;
        ends(Bounds { head_timeout: BRIEF, ..PUBLIC }, |mut peer| async {
            peer.write_all(b"GET / HT").await.unwrap();
            peer
        })
        .await;
    }
}
