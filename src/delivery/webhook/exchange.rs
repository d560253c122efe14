//! One request and its answer, within one limit of time; what goes wrong is said by phase.
//!
//! Of an answer at most 4 KiB are read; a longer one costs its connection. Once the status is there it stands, whatever
//! becomes of the rest.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use reqwest::header::HeaderMap;
use reqwest::{Body, Method, Response};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::Sent;
use super::answer::{MAX_READ, clean, judge};
use super::client::{Client, Unreachable};
use crate::delivery::relay::seconds;
use crate::delivery::{Failure, Side};
use crate::mail::Timestamp;

/// What is asked, of whom.
pub(super) struct Exchange<'a> {
    pub client: &'a Client,
    pub url: &'a Url,
    pub method: Method,
    pub headers: HeaderMap,
    /// As in `hooks.example.net:443`.
    pub host: String,
    pub timeout: Duration,
    pub now: Timestamp,
}

impl Exchange<'_> {
    pub(super) async fn run(self, body: Bytes) -> Sent {
        let deadline = Instant::now() + self.timeout;
        let connected = Arc::new(AtomicBool::new(false));
        let body = Body::wrap(Observed { content: Some(body), taken: Arc::clone(&connected) });
        let request = self.client.request(self.method.clone(), self.url.clone()).headers(self.headers.clone());
        let failure = match timeout_at(deadline, self.client.send(request.body(body))).await {
            Ok(Ok(response)) => return self.answered(response, deadline).await,
            Ok(Err(error)) => self.failed(error.as_ref(), connected.load(Ordering::Relaxed)),
            Err(_) => {
                self.broken(connected.load(Ordering::Relaxed), &format!("{} without an answer", seconds(self.timeout)))
            }
        };
        Sent::unsent(failure, self.host)
    }

    async fn answered(self, mut response: Response, deadline: Instant) -> Sent {
        let mut content = Vec::new();
        while content.len() < MAX_READ {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => content.extend_from_slice(&chunk),
                Ok(Ok(None) | Err(_)) | Err(_) => break,
            }
        }
        content.truncate(MAX_READ);
        let host = match response.remote_addr() {
            Some(address) => {
                let name = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
                format!("{name} [{}]:{}", address.ip(), address.port())
            }
            None => self.host,
        };
        let status = response.status().as_u16();
        let verdict = judge(status, response.headers(), &content, &host, self.url, self.now);
        Sent {
            result: verdict.result,
            retry_after: verdict.retry_after,
            pauses: verdict.pauses,
            disables: None,
            host,
            status: Some(status),
        }
    }

    /// The innermost cause is what a person needs; the outer ones would quote the URL.
    fn failed(&self, error: &(dyn Error + Send + Sync), connected: bool) -> Failure {
        let mut cause = error.source();
        let mut reason = "it failed".to_owned();
        while let Some(error) = cause {
            match error.downcast_ref::<Unreachable>() {
                Some(found @ Unreachable::Forbidden { .. }) => {
                    return Failure::never(Side::Ours, "5.4.4", found.to_string());
                }
                Some(found) => return Failure::later(Side::Network, "4.4.3", found.to_string()),
                None => {}
            }
            reason = clean(&error.to_string(), 300);
            cause = error.source();
        }
        self.broken(connected, &reason)
    }

    fn broken(&self, connected: bool, reason: &str) -> Failure {
        let (status, phase) = if connected { ("4.4.2", "answer from") } else { ("4.4.1", "connect to") };
        Failure::later(Side::Network, status, format!("{phase} {}: {reason}", self.host))
    }
}

/// A body that says when it was first asked for: by then the connection stands.
struct Observed {
    content: Option<Bytes>,
    taken: Arc<AtomicBool>,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.store(true, Ordering::Relaxed);
        Poll::Ready(self.content.take().filter(|content| !content.is_empty()).map(|content| Ok(Frame::data(content))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.as_ref().map_or(0, |content| content.len() as u64))
    }
}
