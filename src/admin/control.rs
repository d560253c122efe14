//! The control socket's routes: changes that only the process that holds the store can make, and the live tail.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::Router;
use axum::body::Body;
use axum::extract::{Json, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;

use super::api::{self, ApiError, BackupTo, Changed, KvWrites, Listening, Status, TailFilter};
use super::tail::Follow;
use crate::clock;
use crate::event::{Bus, Event, Kind};
use crate::store::{QueueFilter, Store, StoreError};

/// What the routes work on.
#[derive(Debug, Clone)]
pub struct Control {
    pub store: Store,
    pub bus: Bus,
    pub listeners: Vec<Listening>,
}

pub fn router(control: Control) -> Router {
    Router::new()
        .route(api::STATUS, get(status))
        .route(api::TAIL, get(tail))
        .route(api::QUEUE_RETRY, post(queue_retry))
        .route(api::QUEUE_DROP, post(queue_drop))
        .route(api::KV, post(kv_write))
        .route(api::BACKUP, post(backup))
        .with_state(control)
}

/// The store's error, as the command line prints it.
struct Refused(StoreError);

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = match self.0 {
            StoreError::NotFound(_) => StatusCode::NOT_FOUND,
            StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Unusable(_) => StatusCode::CONFLICT,
            StoreError::Failed(_) | StoreError::Broken(_) | StoreError::Locked(_) | StoreError::Closed => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (code, Json(ApiError { error: self.0.to_string() })).into_response()
    }
}

async fn status(State(control): State<Control>) -> Json<Status> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(Status { version, pid: std::process::id(), listeners: control.listeners })
}

async fn queue_retry(
    State(control): State<Control>,
    Json(filter): Json<QueueFilter>,
) -> Result<Json<Changed>, Refused> {
    let detail = describe(&filter);
    let deliveries = control.store.queue_retry(filter, clock::now()).await?;
    control.tell("queue retry", format!("{deliveries} deliveries {detail}"));
    Ok(Json(Changed { deliveries }))
}

async fn queue_drop(State(control): State<Control>, Json(filter): Json<QueueFilter>) -> Result<Json<Changed>, Refused> {
    let detail = describe(&filter);
    let deliveries = control.store.queue_drop(filter, clock::now()).await?;
    control.tell("queue drop", format!("{deliveries} deliveries {detail}"));
    Ok(Json(Changed { deliveries }))
}

async fn kv_write(State(control): State<Control>, Json(request): Json<KvWrites>) -> Result<StatusCode, Refused> {
    let count = request.writes.len();
    control.store.kv_write(request.writes, clock::now()).await?;
    control.tell("kv write", format!("{count} keys"));
    Ok(StatusCode::NO_CONTENT)
}

async fn backup(State(control): State<Control>, Json(to): Json<BackupTo>) -> Result<StatusCode, Refused> {
    let dir: PathBuf = to.dir;
    if !dir.is_absolute() {
        return Err(Refused(StoreError::Unusable(format!("{} is not an absolute path", dir.display()))));
    }
    control.store.backup(&dir).await?;
    control.tell("backup", dir.display().to_string());
    Ok(StatusCode::NO_CONTENT)
}

/// Events as they happen, one a line, until the client goes. One that reads too slowly loses the oldest, and is told.
async fn tail(State(control): State<Control>, Query(filter): Query<TailFilter>) -> Response {
    let events = control.bus.subscribe();
    let follow = Follow::new(filter);
    let lines = futures_util::stream::unfold((events, follow), |(mut events, mut follow)| async move {
        loop {
            let event = match events.recv().await {
                Ok(event) if follow.shows(&event) => event,
                Ok(_other) => continue,
                Err(RecvError::Lagged(missed)) => std::sync::Arc::new(lagged(missed)),
                Err(RecvError::Closed) => return None,
            };
            let Ok(mut line) = serde_json::to_vec(&*event) else { continue };
            line.push(b'\n');
            return Some((Ok::<_, Infallible>(Bytes::from(line)), (events, follow)));
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn lagged(missed: u64) -> Event {
    let detail = format!("{missed} events were not shown: the reader was too slow");
    Event::new(clock::now(), Kind::Fault { what: "tail".to_owned(), detail })
}

impl Control {
    fn tell(&self, verb: &str, detail: String) {
        self.bus.publish(Event::new(clock::now(), Kind::Admin { verb: verb.to_owned(), detail }));
    }
}

/// The filters that were given, for the log.
fn describe(filter: &QueueFilter) -> String {
    serde_json::to_value(filter)
        .ok()
        .and_then(|value| value.as_object().cloned())
        .map(|fields| {
            let given = fields.iter().filter(|(_, value)| !value.is_null());
            given.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        })
        .unwrap_or_default()
}
