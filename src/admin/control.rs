//! The control socket's routes: changes that only the process that holds the store can make, and the live tail.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Json, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;

use super::api::{
    self, ApiError, BackupTo, Changed, InForce, KvWrites, Listening, QueueChange, Released, ReplayOf, Replayed,
    SecretDelete, SecretPut, Status, TailFilter, TriggerOf, Triggered,
};
use super::tail::Follow;
use crate::clock;
use crate::event::{Bus, Event, Kind};
use crate::store::releases::Change;
use crate::store::{Discharge, QueueFilter, Store, StoreError};
use crate::vault::Sealer;

/// Has the rules run: on a kept message once more, or for a time of `scheduled`. Intake does.
pub trait Redecide: Send + Sync {
    fn trigger(&self, asked: TriggerOf) -> BoxFuture<'_, Result<Triggered, StoreError>>;

    fn redecide(&self, asked: ReplayOf) -> BoxFuture<'_, Result<Replayed, StoreError>>;
}

/// What the routes work on.
#[derive(Clone)]
pub struct Control {
    pub redecider: Arc<dyn Redecide>,
    pub store: Store,
    pub bus: Bus,
    pub listeners: Vec<Listening>,
    pub sealer: Sealer,
    pub in_force: Asking,
}

/// Asks what runs. Cheap to clone.
#[derive(Clone)]
pub struct Asking(Arc<dyn Fn() -> InForce + Send + Sync>);

impl Asking {
    #[must_use]
    pub fn new(ask: impl Fn() -> InForce + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asking")
    }
}

pub fn router(control: Control) -> Router {
    Router::new()
        .route(api::STATUS, get(status))
        .route(api::TAIL, get(tail))
        .route(api::QUEUE_RETRY, post(queue_retry))
        .route(api::QUEUE_DROP, post(queue_drop))
        .route(api::RELEASE, post(release))
        .route(api::REPLAY, post(replay))
        .route(api::TRIGGER, post(trigger))
        .route(api::KV, post(kv_write))
        .route(api::RELEASES, post(change_release))
        .route(api::SECRET_PUT, post(secret_put))
        .route(api::SECRET_DELETE, post(secret_delete))
        .route(api::BACKUP, post(backup))
        .fallback(nothing_there)
        .method_not_allowed_fallback(not_that_way)
        .with_state(control)
}

/// Why something wasn't done, as the command line prints it. Always JSON.
enum Refused {
    Store(StoreError),
    /// The request itself is wrong.
    Asked(StatusCode, String),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (code, error) = match self {
            Self::Asked(code, text) => (code, text),
            Self::Store(error) => {
                let code = match error {
                    StoreError::NotFound(_) => StatusCode::NOT_FOUND,
                    StoreError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
                    StoreError::Unusable(_) | StoreError::Conflict(_) => StatusCode::CONFLICT,
                    StoreError::Failed(_) | StoreError::Broken(_) | StoreError::Locked(_) | StoreError::Closed => {
                        StatusCode::INTERNAL_SERVER_ERROR
                    }
                };
                (code, error.to_string())
            }
        };
        (code, Json(ApiError { error })).into_response()
    }
}

/// A body that is what it should be.
struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let read = Json::<T>::from_request(request, state).await;
        read.map(|Json(body)| Self(body)).map_err(|refusal| Refused::Asked(refusal.status(), refusal.body_text()))
    }
}

/// Which deliveries; that it is all of them must be said.
fn narrowed(change: QueueChange) -> Result<QueueFilter, Refused> {
    if change.filter.reaches_all() && !change.all {
        let text = "this would reach every delivery: give a filter, or `all`".to_owned();
        return Err(Refused::Asked(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    Ok(change.filter)
}

async fn nothing_there() -> Refused {
    Refused::Asked(StatusCode::NOT_FOUND, "nothing answers there".to_owned())
}

async fn not_that_way() -> Refused {
    Refused::Asked(StatusCode::METHOD_NOT_ALLOWED, "that isn't how it is asked for".to_owned())
}

async fn status(State(control): State<Control>) -> Json<Status> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(Status { version, pid: std::process::id(), listeners: control.listeners, in_force: (control.in_force.0)() })
}

async fn queue_retry(
    State(control): State<Control>,
    Asked(change): Asked<QueueChange>,
) -> Result<Json<Changed>, Refused> {
    let filter = narrowed(change)?;
    let detail = describe(&filter);
    let deliveries = control.store.queue_retry(filter, clock::now()).await?;
    control.tell("queue retry", format!("{deliveries} deliveries {detail}"));
    Ok(Json(Changed { deliveries }))
}

async fn queue_drop(
    State(control): State<Control>,
    Asked(change): Asked<QueueChange>,
) -> Result<Json<Changed>, Refused> {
    let filter = narrowed(change)?;
    let detail = describe(&filter);
    let deliveries = control.store.queue_drop(filter, clock::now()).await?;
    control.tell("queue drop", format!("{deliveries} deliveries {detail}"));
    Ok(Json(Changed { deliveries }))
}

async fn release(State(control): State<Control>, Asked(release): Asked<Discharge>) -> Result<Json<Changed>, Refused> {
    let id = release.id;
    let deliveries = control.store.release(release).await?;
    control.tell("release", format!("message {id}: {deliveries} deliveries"));
    Ok(Json(Changed { deliveries }))
}

async fn replay(State(control): State<Control>, Asked(asked): Asked<ReplayOf>) -> Result<Json<Replayed>, Refused> {
    let replayed = control.redecider.redecide(asked).await?;
    control.tell("replay", format!("message {}: {} deliveries", asked.id, replayed.deliveries));
    Ok(Json(replayed))
}

async fn trigger(State(control): State<Control>, Asked(asked): Asked<TriggerOf>) -> Result<Json<Triggered>, Refused> {
    let cron = asked.cron.clone();
    let ran = control.redecider.trigger(asked).await?;
    let whose = ran.id.map(|id| format!(" as message {id}")).unwrap_or_default();
    control.tell("trigger", format!("scheduled for {cron:?}{whose}"));
    Ok(Json(ran))
}

async fn kv_write(State(control): State<Control>, Asked(request): Asked<KvWrites>) -> Result<StatusCode, Refused> {
    let count = request.writes.len();
    control.store.kv_write(request.writes, clock::now()).await?;
    control.tell("kv write", format!("{count} keys"));
    Ok(StatusCode::NO_CONTENT)
}

/// The store tells of it in its log, by the same transaction; so it does of secrets.
async fn change_release(
    State(control): State<Control>,
    Asked(change): Asked<Change>,
) -> Result<Json<Released>, Refused> {
    Ok(Json(Released { release: control.store.change_release(change).await? }))
}

async fn secret_put(State(control): State<Control>, Asked(put): Asked<SecretPut>) -> Result<StatusCode, Refused> {
    let sealer = control.sealer.clone();
    let kept = tokio::task::spawn_blocking(move || sealer.seal(&put.env, &put.name, &put.value)).await;
    let kept = kept.unwrap_or_else(|panic| Err(panic.to_string()));
    control.store.put_secret(kept.map_err(|why| Refused::Asked(StatusCode::CONFLICT, why))?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn secret_delete(
    State(control): State<Control>,
    Asked(SecretDelete { env, name }): Asked<SecretDelete>,
) -> Result<StatusCode, Refused> {
    control.store.delete_secret(env, name, clock::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn backup(State(control): State<Control>, Asked(to): Asked<BackupTo>) -> Result<StatusCode, Refused> {
    let dir: PathBuf = to.dir;
    if !dir.is_absolute() {
        return Err(StoreError::Unusable(format!("{} is not an absolute path", dir.display())).into());
    }
    control.store.backup(&dir).await?;
    control.tell("backup", dir.display().to_string());
    Ok(StatusCode::NO_CONTENT)
}

/// Events as they happen, one a line, until the client goes. One that reads too slowly loses the oldest, and is told.
async fn tail(
    State(control): State<Control>,
    filter: Result<Query<TailFilter>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(filter) = filter.map_err(|refusal| Refused::Asked(refusal.status(), refusal.body_text()))?;
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
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
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
