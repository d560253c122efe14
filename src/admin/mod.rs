//! What an admin sees and changes over HTTP: health and metrics on a loopback port, control on a Unix socket.
//!
//! Two servers, one set of bounds ([`http`]): [`serve_http`] answers `/healthz`, `/readyz` and `/metrics` and changes
//! nothing; [`serve_control`] is the command line's way into a running server, and is guarded by the file system alone:
//! its socket lies in the data directory (0700) and is its owner's (0600).
//! Never touches `delivery`: it changes rows, and the dispatcher notices. Never shows a secret or a body.
//! Input: the store, the bus, [`Readiness`]. Output: the types of [`api`].

pub mod api;
pub mod control;
pub mod health;
pub mod http;
mod patience;
pub mod tail;

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpListener, UnixListener};

pub use control::{Asking, Control};
pub use health::Health;

/// What still stands between this server and being ready, part by part. Cheap to clone; clones share.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    unready: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// `part` isn't ready, and why.
    pub fn hold(&self, part: &'static str, reason: impl Into<String>) {
        self.unready.lock().unwrap_or_else(PoisonError::into_inner).insert(part, reason.into());
    }

    /// `part` is ready.
    pub fn clear(&self, part: &'static str) {
        self.unready.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// One line for each part that isn't ready.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let unready = self.unready.lock().unwrap_or_else(PoisonError::into_inner);
        unready.iter().map(|(part, reason)| format!("{part}: {reason}")).collect()
    }
}

/// `/healthz`, `/readyz`, `/metrics`, until `shutdown`.
pub async fn serve_http(listener: TcpListener, health: Health, shutdown: impl Future<Output = ()> + Send) {
    http::serve(listener, health::router(health), http::PUBLIC, shutdown).await;
}

/// The control socket's answers, until `shutdown`; the socket's file is removed then.
pub async fn serve_control(listener: UnixListener, control: Control, shutdown: impl Future<Output = ()> + Send) {
    let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    http::serve(listener, control::router(control), http::CONTROL, shutdown).await;
    if let Some(path) = path {
        // Left behind it does no harm: the next start replaces it.
        let _already_gone = std::fs::remove_file(path);
    }
}

/// Where a running server takes control of the store in `data_dir`.
#[must_use]
pub fn control_path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Binds the control socket. The caller holds the store's lock, so a socket that is there already is a dead one's.
///
/// # Errors
/// The socket can't be made there: the path is too long for one (108 octets), or not ours to write.
pub fn bind_control(data_dir: &Path) -> std::io::Result<UnixListener> {
    let path = control_path(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_each_part_that_is_not() {
        let readiness = Readiness::default();
        readiness.hold("rules", "rules/main.rhai:3:1: syntax error");
        readiness.hold("listeners", "not bound yet");
        readiness.clone().clear("listeners");
        assert_eq!(readiness.reasons(), ["rules: rules/main.rhai:3:1: syntax error"]);
    }

    #[tokio::test]
    async fn control_socket_is_its_owners_alone_and_replaces_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(bind_control(dir.path()).unwrap());
        let _listener = bind_control(dir.path()).unwrap();
        let mode = std::fs::metadata(control_path(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
