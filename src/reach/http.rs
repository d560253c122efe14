//! One request of a script's by HTTP, and its answer, within one limit of time and of size.
//!
//! Redirects are followed by ourselves, each asked anew whether it may be reached; what a script said in header fields goes
//! to another host no further, and a body to none (RFC 9110 §15.4). What `[ai]` names goes where it says, and nowhere that it is led to.

use std::error::Error;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode};
use tokio::time::timeout_at;
use url::Url;

use super::until::Until;
use super::{limited, unanswered};
use crate::config::{Ai, Config};
use crate::delivery::webhook::client::{Client, Clients, Unreachable, check_literal};
use crate::rules::reach::{Answer, Failed, Fetch};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Octets of the header fields that a script is given, and of one of them.
const MAX_FIELDS: usize = 16 * 1024;
/// Fields that may go to a host that another one led to.
const HARMLESS: &[&str] = &["accept", "accept-language", "content-type", "user-agent"];

/// What is asked next.
struct Step {
    url: Url,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

pub(super) async fn fetch(clients: &Clients, config: &Config, fetch: &Fetch, until: Until) -> Result<Answer, Failed> {
    let client = clients.scripted(&config.egress).map_err(|error| limited(error.to_string()))?;
    let mut step = first(fetch)?;
    for _ in 0..=MAX_REDIRECTS {
        if !config.fetch.allows(&step.url) {
            return Err(limited(format!("{} isn't in [fetch] allow", host(&step.url))));
        }
        check_literal(&step.url, &config.egress).map_err(|error| limited(error.to_string()))?;
        let response = send(&client, &step, until).await?;
        match redirected(&response, step)? {
            Ok(next) => step = next,
            Err(asked) => return answer(response, &asked, fetch.most, until).await,
        }
    }
    Err(unanswered(format!("{} leads on and on: more than {MAX_REDIRECTS} redirects", host(&step.url))))
}

/// Asks the endpoint of `[ai]`.
pub(super) async fn ai(client: &Client, ai: &Ai, body: &str, most: usize, until: Until) -> Result<Answer, Failed> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(key) = &ai.api_key {
        if key.is_placeholder() {
            return Err(limited("the key of [ai] can't be read from here"));
        }
        let bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose()));
        let mut bearer = bearer.map_err(|_| limited("[ai] api_key can't stand in a header field"))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    let step = Step { url: ai.url.clone(), method: Method::POST, headers, body };
    let response = send(client, &step, until).await?;
    answer(response, &step, most, until).await
}

fn first(fetch: &Fetch) -> Result<Step, Failed> {
    let wrong = |what: &str| limited(format!("{what} can't be sent"));
    let url = Url::parse(&fetch.url).map_err(|_| wrong("the URL"))?;
    let method = Method::from_bytes(fetch.method.as_bytes()).map_err(|_| wrong("the method"))?;
    let mut headers = HeaderMap::with_capacity(fetch.headers.len());
    for (name, value) in &fetch.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("a header"))?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| wrong("a header"))?);
    }
    Ok(Step { url, method, headers, body: fetch.body.clone() })
}

async fn send(client: &Client, step: &Step, until: Until) -> Result<Response, Failed> {
    let request = client.request(step.method.clone(), step.url.clone()).headers(step.headers.clone());
    // An empty body says so where a method may have one.
    let has_body = !matches!(step.method, Method::GET | Method::HEAD | Method::OPTIONS) || !step.body.is_empty();
    let request = if has_body { request.body(Body::from(step.body.clone())) } else { request };
    match timeout_at(until.deadline, client.send(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            let (why, is_ours) = innermost(error.as_ref());
            // Some say themselves whom they mean.
            let names_it = step.url.host_str().is_some_and(|name| why.starts_with(name));
            let why = if names_it { why } else { format!("{}: {why}", host(&step.url)) };
            Err(if is_ours { limited(why) } else { unanswered(why) })
        }
        Err(_) => Err(until.late(&host(&step.url))),
    }
}

/// What to ask next, or what was asked where this is the answer (RFC 9110 §15.4).
fn redirected(response: &Response, asked: Step) -> Result<Result<Step, Step>, Failed> {
    let status = response.status();
    let keeps = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let leads = keeps || matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER);
    let target = response.headers().get(LOCATION).filter(|_| leads).and_then(|target| target.to_str().ok());
    let Some(target) = target else { return Ok(Err(asked)) };
    let from = host(&asked.url);
    let url = asked.url.join(target).map_err(|_| unanswered(format!("{from} leads to what is no URL")))?;
    match (asked.url.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => {}
        (_, "http") => return Err(unanswered(format!("{from} leads from https to http"))),
        _ => return Err(unanswered(format!("{from} leads to what is no http(s) URL"))),
    }
    let elsewhere = url.origin() != asked.url.origin();
    let has_body = !asked.body.is_empty();
    if elsewhere && keeps && has_body && !is_secured(&asked.url, &url) {
        let (status, to) = (status.as_u16(), host(&url));
        return Err(limited(format!(
            "{from} leads to {to} ({status}), and what a request carries isn't handed on to another host: fetch it there"
        )));
    }
    let mut next = Step { url, ..asked };
    if elsewhere {
        let drop: Vec<HeaderName> =
            next.headers.keys().filter(|name| !HARMLESS.contains(&name.as_str())).cloned().collect();
        for name in drop {
            next.headers.remove(name);
        }
    }
    if !keeps && !matches!(next.method, Method::GET | Method::HEAD) {
        (next.method, next.body) = (Method::GET, Bytes::new());
        next.headers.remove(CONTENT_TYPE);
    }
    Ok(Ok(next))
}

/// The same host by HTTPS, each at its usual port.
fn is_secured(from: &Url, to: &Url) -> bool {
    let usual = from.port().is_none() && to.port().is_none();
    from.scheme() == "http" && to.scheme() == "https" && from.host() == to.host() && usual
}

async fn answer(mut response: Response, asked: &Step, most: usize, until: Until) -> Result<Answer, Failed> {
    let too_large = || unanswered(format!("{}: the answer has more than {most} octets", host(&asked.url)));
    if response.content_length().is_some_and(|length| length > most as u64) && asked.method != Method::HEAD {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    loop {
        match timeout_at(until.deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) if body.len() + chunk.len() > most => return Err(too_large()),
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => {
                let (why, _) = innermost(&error);
                return Err(unanswered(format!("{}: the answer broke off: {why}", host(&asked.url))));
            }
            Err(_) => return Err(until.late(&host(&asked.url))),
        }
    }
    let status = response.status().as_u16();
    Ok(Answer::Http { status, headers: fields(response.headers()), body: body.freeze() })
}

/// As many of them as there is room for.
fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut left = MAX_FIELDS;
    let mut fields = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let Some(rest) = left.checked_sub(name.as_str().len() + value.len()) else { break };
        left = rest;
        fields.push((name.as_str().to_owned(), value));
    }
    fields
}

/// The innermost cause is what a person needs; the outer ones would quote the URL. And whether it is ours: the address
/// isn't to be connected to.
fn innermost(error: &(dyn Error + 'static)) -> (String, bool) {
    let (mut reason, mut is_ours) = ("it failed".to_owned(), false);
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = error.to_string();
        if let Some(unreachable) = error.downcast_ref::<Unreachable>() {
            is_ours = matches!(unreachable, Unreachable::Forbidden { .. });
            break;
        }
        cause = error.source();
    }
    (reason.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect(), is_ours)
}

/// As in `api.example.net` or `127.0.0.1:8080`.
fn host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}
