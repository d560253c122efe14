//! The way to the store: through a running server's control socket, or by opening it ourselves where none runs.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Failure, print};
use crate::admin::api::{
    self, ApiError, BackupTo, Changed, KvWrites, QueueChange, Released, ReplayOf, Replayed, SecretDelete, SecretPut,
    Status, TailFilter, TriggerOf, Triggered,
};
use crate::admin::control::Redecide as _;
use crate::admin::control_path;
use crate::app::Answering;
use crate::clock;
use crate::config::Config;
use crate::dns::Dns;
use crate::event::Bus;
use crate::intake::{Current, Snapshot};
use crate::kv;
use crate::mail::Timestamp;
use crate::reach::Outside;
use crate::rules::KvView;
use crate::store::releases::Change;
use crate::store::{Discharge, QueueFilter, Reader, Store};
use crate::vault::Sealer;

/// Who makes a change.
pub enum Writer {
    /// The server that runs on the store.
    Server(Server),
    /// This process, which holds the store's lock until it ends.
    Own(Store),
}

/// A running server, by its control socket.
pub struct Server {
    http: reqwest::Client,
}

impl Writer {
    /// The running server where there is one, and otherwise the store itself.
    pub async fn open(config: &Config) -> Result<Self, Failure> {
        if let Some(server) = Server::find(&config.data_dir).await? {
            return Ok(Self::Server(server));
        }
        exists(config)?;
        Ok(Self::Own(Store::open(crate::app::store_options(config), Bus::new(16))?))
    }

    /// `all`: it may be the whole queue.
    pub async fn queue_retry(&self, filter: QueueFilter, all: bool) -> Result<u64, Failure> {
        match self {
            Self::Server(server) => server.change(api::QUEUE_RETRY, QueueChange { filter, all }).await,
            Self::Own(store) => Ok(store.queue_retry(filter, clock::now()).await?),
        }
    }

    pub async fn queue_drop(&self, filter: QueueFilter, all: bool) -> Result<u64, Failure> {
        match self {
            Self::Server(server) => server.change(api::QUEUE_DROP, QueueChange { filter, all }).await,
            Self::Own(store) => Ok(store.queue_drop(filter, clock::now()).await?),
        }
    }

    pub async fn release(&self, release: Discharge) -> Result<u64, Failure> {
        match self {
            Self::Server(server) => Ok(server.post::<_, Changed>(api::RELEASE, &release).await?.deliveries),
            Self::Own(store) => Ok(store.release(release).await?),
        }
    }

    /// `own_rules` are what is decided by where no server runs that has its own.
    pub async fn redecide(&self, asked: ReplayOf, own_rules: Option<Snapshot>) -> Result<Replayed, Failure> {
        match self {
            Self::Server(server) => server.post(api::REPLAY, &asked).await,
            Self::Own(store) => Ok(answering(store, own_rules)?.redecide(asked).await?),
        }
    }

    /// Likewise for a time of `scheduled`.
    pub async fn trigger(&self, asked: TriggerOf, own_rules: Option<Snapshot>) -> Result<Triggered, Failure> {
        match self {
            Self::Server(server) => server.post(api::TRIGGER, &asked).await,
            Self::Own(store) => Ok(answering(store, own_rules)?.trigger(asked).await?),
        }
    }

    pub async fn kv_write(&self, write: kv::Write) -> Result<(), Failure> {
        let writes = vec![write];
        match self {
            Self::Server(server) => server.tell(api::KV, &KvWrites { writes }).await,
            Self::Own(store) => Ok(store.kv_write(writes, clock::now()).await?),
        }
    }

    /// The release that it is about.
    pub async fn change_release(&self, change: Change) -> Result<i64, Failure> {
        match self {
            Self::Server(server) => Ok(server.post::<_, Released>(api::RELEASES, &change).await?.release),
            Self::Own(store) => Ok(store.change_release(change).await?),
        }
    }

    /// A server seals with the key that it has itself; `sealer` is for where none runs.
    pub async fn secret_put(&self, put: SecretPut, sealer: &Sealer) -> Result<(), Failure> {
        match self {
            Self::Server(server) => server.tell(api::SECRET_PUT, &put).await,
            Self::Own(store) => {
                let kept = sealer.seal(&put.env, &put.name, &put.value).map_err(Failure::Failed)?;
                Ok(store.put_secret(kept).await?)
            }
        }
    }

    pub async fn secret_delete(&self, delete: SecretDelete) -> Result<(), Failure> {
        match self {
            Self::Server(server) => server.tell(api::SECRET_DELETE, &delete).await,
            Self::Own(store) => Ok(store.delete_secret(delete.env, delete.name, clock::now()).await?),
        }
    }

    /// `dir` is absolute: the server may stand elsewhere.
    pub async fn backup(&self, dir: &Path) -> Result<(), Failure> {
        match self {
            Self::Server(server) => {
                // It is told in JSON, which is text.
                if dir.to_str().is_none() {
                    let text = format!("{}: a running server can't be told a path that isn't UTF-8", dir.display());
                    return Err(Failure::Failed(text));
                }
                server.tell(api::BACKUP, &BackupTo { dir: dir.to_owned() }).await
            }
            Self::Own(store) => Ok(store.backup(dir).await?),
        }
    }

    /// Commits what waits and lets go of the store.
    pub async fn close(self) {
        if let Self::Own(store) = self {
            store.close().await;
        }
    }
}

/// Who decides here, where no server runs.
fn answering(store: &Store, own_rules: Option<Snapshot>) -> Result<Answering, Failure> {
    let snapshot = own_rules.ok_or_else(|| {
        Failure::Failed("the server that ran has stopped meanwhile: nothing was done, try again".to_owned())
    })?;
    let dns = Arc::new(Dns::new(&snapshot.config.dns).map_err(Failure::failed)?);
    let outside = Some(Arc::new(Outside::of(&snapshot.config).map_err(Failure::Failed)?));
    Ok(Answering::new(store, &Bus::new(16), &Current::new(snapshot), &dns, outside))
}

/// The store as it is now, whoever has it open.
pub fn reader(config: &Config) -> Result<Reader, Failure> {
    exists(config)?;
    Ok(Store::open_readonly(&config.data_dir)?)
}

/// What workers read their keys from; where no store is yet, there are none.
pub fn keys(config: &Config) -> Result<KvView, Failure> {
    if exists(config).is_ok() { Ok(Arc::new(reader(config)?)) } else { Ok(Arc::new(NoStore)) }
}

struct NoStore;

impl kv::View for NoStore {
    fn get(&self, _: &str, _: &str, _: Timestamp) -> Result<Option<kv::Entry>, kv::ViewError> {
        Ok(None)
    }

    fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<kv::Page, kv::ViewError> {
        Ok(kv::Page::default())
    }
}

/// For what a server needs before its first start, the secrets that its rules name and a release of them: the store is made
/// where there is none.
pub async fn made(config: &Config) -> Result<(), Failure> {
    if exists(config).is_ok() {
        return Ok(());
    }
    Store::open(crate::app::store_options(config), Bus::new(16))?.close().await;
    let dir = config.data_dir.display();
    print::remark(&format!("the store {dir} is new: it has to belong to the user that `mailworker serve` runs as"));
    Ok(())
}

/// A command that reads or changes a store makes none.
pub fn exists(config: &Config) -> Result<(), Failure> {
    if config.data_dir.is_dir() {
        return Ok(());
    }
    let dir = config.data_dir.display();
    Err(Failure::Failed(format!("there is no store at {dir}: `mailworker serve` makes it (`data_dir` names another)")))
}

impl Server {
    /// The server that runs on the store in `data_dir`, if one does.
    pub async fn find(data_dir: &Path) -> Result<Option<Self>, Failure> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        let path = control_path(data_dir);
        match UnixStream::connect(&path).await {
            Ok(_reachable) => {}
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => return Ok(None),
            Err(error) => return Err(Failure::Failed(format!("{}: {error}", path.display()))),
        }
        // TLS is never spoken over the socket: empty roots spare reading the machine's certificates.
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).unix_socket(path);
        Ok(Some(Self { http: client.build().map_err(Failure::failed)? }))
    }

    /// As [`Server::find`]; that none runs is an error that names the store.
    pub async fn required(data_dir: &Path) -> Result<Self, Failure> {
        Self::find(data_dir).await?.ok_or_else(|| {
            Failure::Failed(format!("no server runs on the store in {}: start `mailworker serve`", data_dir.display()))
        })
    }

    pub async fn status(&self) -> Result<Status, Failure> {
        let answer = self.http.get(url(api::STATUS)).send().await.map_err(gone)?;
        good(answer).await?.json().await.map_err(gone)
    }

    /// The events as they happen: lines of JSON.
    pub async fn tail(&self, filter: &TailFilter) -> Result<reqwest::Response, Failure> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(filter.recipient.iter().map(|text| ("recipient", text)))
            .extend_pairs(filter.sender.iter().map(|text| ("sender", text)))
            .extend_pairs(filter.outcome.iter().map(|text| ("outcome", text)))
            .finish();
        let answer = self.http.get(format!("{}?{query}", url(api::TAIL))).send().await.map_err(gone)?;
        good(answer).await
    }

    async fn change(&self, path: &str, change: QueueChange) -> Result<u64, Failure> {
        Ok(self.post::<_, Changed>(path, &change).await?.deliveries)
    }

    async fn post<B: Serialize, A: DeserializeOwned>(&self, path: &str, body: &B) -> Result<A, Failure> {
        let answer = self.http.post(url(path)).json(body).send().await.map_err(gone)?;
        good(answer).await?.json().await.map_err(gone)
    }

    async fn tell<B: Serialize>(&self, path: &str, body: &B) -> Result<(), Failure> {
        let answer = self.http.post(url(path)).json(body).send().await.map_err(gone)?;
        good(answer).await.map(drop)
    }
}

fn url(path: &str) -> String {
    format!("http://mailworker{path}")
}

fn gone(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    Failure::Failed(format!("the running server didn't answer: {error}"))
}

/// The answer, or the words in which the server refused.
async fn good(answer: reqwest::Response) -> Result<reqwest::Response, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let said = answer.json::<ApiError>().await.map(|refusal| refusal.error);
    Err(Failure::Failed(said.unwrap_or_else(|_| format!("the running server answered {status}"))))
}
