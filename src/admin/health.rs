//! `/healthz`: the process lives. `/readyz`: it can take mail, or 503 and why not. `/metrics`: Prometheus' text format.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Readiness;
use crate::store::Store;

/// What the answers are made from.
#[derive(Debug, Clone)]
pub struct Health {
    pub store: Store,
    pub readiness: Readiness,
    /// The registry, rendered.
    pub metrics: fn() -> String,
}

pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> Response {
    let mut reasons = health.readiness.reasons();
    if !health.store.has_room() {
        reasons.push("store: too little room on its disk".to_owned());
    }
    reasons.extend(health.store.troubles().into_iter().map(|trouble| format!("store: {trouble}")));
    if let Err(error) = health.store.gauges().await {
        reasons.push(format!("store: {error}"));
    }
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", reasons.join("\n"))).into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (health.metrics)()).into_response()
}
