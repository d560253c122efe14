//! `dev`'s HTTP port for `scheduled`: `/cdn-cgi/handler/scheduled`, its older name `/cdn-cgi/mf/scheduled` and
//! `/__scheduled`, as Cloudflare's local simulator has them. `cron` and `time` (Unix milliseconds) are what the handler
//! reads; without them an empty text, and now.

use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use serde::Deserialize;
use serde_json::json;

use super::local::Taking;
use crate::clock;
use crate::mail::Timestamp;
use crate::store::StoreError;

/// The newest first.
pub const PATHS: [&str; 3] = ["/cdn-cgi/handler/scheduled", "/cdn-cgi/mf/scheduled", "/__scheduled"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    cron: String,
    time: String,
    format: String,
}

pub async fn scheduled(State(taking): State<Taking>, Query(asked): Query<Asked>, uri: Uri) -> Response {
    let Asked { cron, time, format } = asked;
    let at = match time.parse::<i64>() {
        Ok(millis) => Timestamp::from_millis(millis),
        Err(_) if time.is_empty() => clock::now(),
        Err(_) => return (StatusCode::BAD_REQUEST, "`time` is in Unix milliseconds").into_response(),
    };
    // What was begun is done, whether or not somebody waits for the answer.
    let running = tokio::spawn(async move { taking.answering.intake.trigger(&cron, at).await });
    let (failed, status) = match running.await {
        Ok(Ok(ran)) => {
            let status = if ran.failed.is_some() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
            (ran.failed, status)
        }
        Ok(Err(error @ StoreError::Conflict(_))) => (Some(error.to_string()), StatusCode::BAD_REQUEST),
        Ok(Err(error)) => (Some(error.to_string()), StatusCode::INTERNAL_SERVER_ERROR),
        Err(panic) => (Some(format!("a fault of our own: {panic}")), StatusCode::INTERNAL_SERVER_ERROR),
    };
    let outcome = if failed.is_some() { "exception" } else { "ok" };
    if format == "json" {
        let mut told = json!({ "outcome": outcome, "noRetry": false });
        if let (Some(error), Some(told)) = (failed, told.as_object_mut()) {
            told.insert("error".to_owned(), json!(error));
        }
        return (status, Json(told)).into_response();
    }
    match failed {
        Some(error) => (status, format!("{outcome}: {error}")).into_response(),
        None if uri.path() == "/__scheduled" => (status, "Ran scheduled event").into_response(),
        None => (status, outcome).into_response(),
    }
}
