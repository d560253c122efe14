//! HTTP/1.1 with bounds: connections at once, head, body and time of a request. One loop for both servers.
//!
//! A peer that sends slowly, much or nothing holds one of a few slots for a few seconds, and never the process.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// What one server grants.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// At once; more wait in the kernel's backlog.
    pub connections: usize,
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
    body: 16 * 1024,
    head_timeout: Duration::from_secs(10),
    answer_timeout: Duration::from_secs(30),
};

/// The control socket: the owner's. A value of 25 MiB is at most four times as long in JSON; a backup takes its time.
pub const CONTROL: Bounds = Bounds {
    connections: 32,
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
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let (stop, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await.0)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_ended) = open.join_next() => {}
            (slot, io) = accepted => {
                let answered = connection(io, router.clone(), bounds, stopped.clone());
                open.spawn(async move {
                    answered.await;
                    drop(slot);
                });
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
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    tokio::pin!(served);
    // How a connection ends is its peer's business: an error here is a peer that went, or was too slow or too long.
    tokio::select! {
        _ended = &mut served => {}
        () = async { drop(stopped.wait_for(|stop| *stop).await) } => {
            served.as_mut().graceful_shutdown();
            let _ended = served.await;
        }
    }
}

async fn timely(limit: Duration, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
