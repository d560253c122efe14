//! What can go wrong with the store, by what a caller can do about it.

/// A caller knows what to do by the variant; the text is for the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// `452 4.3.1`
    #[error("the store is full: {0}")]
    Full(String),
    /// `451 4.3.0`
    #[error("the store failed: {0}")]
    Failed(String),
    /// As `Failed`: reading, writing or syncing the database's files. What is in memory of them is no longer trusted.
    #[error("the store failed: {0}")]
    Broken(String),
    /// Another process holds it.
    #[error("{0}")]
    Locked(String),
    /// Not a store, or a newer one, or on a file system that can't be trusted.
    #[error("{0}")]
    Unusable(String),
    #[error("the store is closed")]
    Closed,
    #[error("{0}")]
    NotFound(String),
    /// What is there now forbids it.
    #[error("{0}")]
    Conflict(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::from_sqlite_code(&error).unwrap_or_else(|| Self::Failed(error.to_string()))
    }
}

impl StoreError {
    /// `Full` or `Broken`, where SQLite means that.
    pub(super) fn from_sqlite_code(error: &rusqlite::Error) -> Option<Self> {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::OutOfMemory) => {
                Some(Self::Full(error.to_string()))
            }
            Some(rusqlite::ErrorCode::SystemIoFailure) => Some(Self::Broken(error.to_string())),
            _ => None,
        }
    }

    /// An I/O error, and what was being done: `write spool/0000000000000001.seg`.
    pub(super) fn io(doing: &str, error: &std::io::Error) -> Self {
        let text = format!("{doing}: {error}");
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full(text),
            _ => Self::Failed(text),
        }
    }

    /// JSON that couldn't be made; never seen, and not worth a panic.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        Self::Failed(format!("JSON: {error}"))
    }
}
