//! The directory a store lives in: its layout, its modes, its lock, the file systems it can be trusted to.
//!
//! `mailworker.db` (SQLite), `spool/<16 hex>.seg` (octets of mail), `lock` (names the process that has the store open).
//! What we make is closed to others (directories 0700, files 0600): mail is nobody else's business. What was there keeps
//! its mode: `data_dir = "/srv"` must not shut everybody out of it.
//! What root makes in a store (a repair, `kv put`) belongs to whom the directory around it belongs to: the service that
//! owns the store is to read it.
//! Network file systems are refused: their locks and syncs don't hold what 250 promises.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;

/// Magic numbers of statfs(2) whose file systems lie on another machine.
const NETWORK: [(u32, &str); 13] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x0102_1997, "9p"),
    (0x6B41_4653, "AFS"),
    (0x786F_4256, "vboxsf"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
];

pub(super) fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("mailworker.db")
}

pub(super) fn spool(data_dir: &Path) -> PathBuf {
    data_dir.join("spool")
}

/// Makes the directory of a store where it isn't there yet, closed to others.
pub(super) fn prepare_data(data_dir: &Path) -> Result<(), StoreError> {
    prepare_one(data_dir)?;
    refuse_network(data_dir)
}

/// Makes the spool of a store that is new. It may be a link to another disk: what holds for the one holds for the other.
pub(super) fn prepare_spool(data_dir: &Path) -> Result<(), StoreError> {
    prepare_within(&spool(data_dir))?;
    refuse_network(&spool(data_dir))
}

/// A database whose spool isn't there has lost its mail: a fresh one would hide that.
pub(super) fn require_spool(data_dir: &Path) -> Result<(), StoreError> {
    let spool = spool(data_dir);
    if spool.is_dir() {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{} isn't there, and the database beside it belongs to mail that lies in it: mount its file system or restore it \
         from a backup. To go on without that mail, make the directory, empty, and run `mailworker store check --repair`.",
        spool.display()
    )))
}

/// Makes a directory of a store, owned as the one around it.
pub(super) fn prepare_within(directory: &Path) -> Result<(), StoreError> {
    if prepare_one(directory)?
        && let Ok(made) = File::open(directory)
    {
        adopt(&made, directory);
    }
    Ok(())
}

/// Makes a directory and those above it, and makes the entries that lead to it durable. Whether it wasn't there.
pub(super) fn prepare_one(directory: &Path) -> Result<bool, StoreError> {
    let above = |path: &Path| path.parent().map(|parent| parent.join("."));
    let mut leading = vec![above(directory)];
    let mut missing = directory.parent();
    while let Some(path) = missing.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
        leading.push(above(path));
        missing = path.parent();
    }
    let made = !directory.exists();
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| unusable(directory, &e))?;
    // Who may write in it may put another file in the place of ours. The sticky bit: /tmp and its like.
    if fs::metadata(directory).map_err(|e| unusable(directory, &e))?.permissions().mode() & 0o1002 != 0 {
        let name = directory.display();
        return Err(StoreError::Unusable(format!(
            "{name} can't be the store's directory: all users share it (one that is the store's alone: chmod 0700)"
        )));
    }
    for path in leading.iter().flatten() {
        match File::open(path) {
            Ok(_) => sync(path)?,
            // Not ours to read, so not made by us either.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(unusable(path, &error)),
        }
    }
    sync(directory)?;
    Ok(made)
}

/// What root has just made at `path` gets the owner and the group of the directory around it.
fn adopt(made: &File, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (Some(around), Ok(ours)) = (path.parent().and_then(|parent| fs::metadata(parent).ok()), made.metadata()) else {
        return;
    };
    if (around.uid(), around.gid()) != (ours.uid(), ours.gid()) {
        let owner = (rustix::fs::Uid::from_raw(around.uid()), rustix::fs::Gid::from_raw(around.gid()));
        // A root that may give nothing away (a container's) keeps it.
        let _not_allowed = rustix::fs::fchown(made, Some(owner.0), Some(owner.1));
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> StoreError {
    match StoreError::io(&path.display().to_string(), error) {
        StoreError::Full(text) => StoreError::Full(text),
        _ if error.kind() == std::io::ErrorKind::AlreadyExists => StoreError::Unusable(format!(
            "the store's directory {} is no directory: `data_dir` names another",
            path.display()
        )),
        _ => StoreError::Unusable(format!("the store's directory {} can't be used: {error}", path.display())),
    }
}

/// Makes a directory's entries durable.
pub(super) fn sync(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(|e| StoreError::io(&format!("sync {}", directory.display()), &e))
}

/// Creates a file of a store that no one else reads, owned as the directory around it; it must not be there yet.
pub(super) fn create(path: &Path) -> std::io::Result<File> {
    let file = create_alone(path)?;
    adopt(&file, path);
    Ok(file)
}

/// Creates a file that no one but this process's user reads; it must not be there yet.
pub(super) fn create_alone(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a file of a store to write at its end, created where it isn't there.
pub(super) fn append(path: &Path) -> std::io::Result<File> {
    match create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => OpenOptions::new().append(true).open(path),
        created => created,
    }
}

#[cfg(target_os = "linux")]
fn refuse_network(directory: &Path) -> Result<(), StoreError> {
    let found = rustix::fs::statfs(directory).map_err(|e| unusable(directory, &e.into()))?;
    // The kernel's word is 32 bits wide; some architectures hand it out sign-extended.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = found.f_type as u32;
    network_name(magic).map_or(Ok(()), |name| {
        Err(StoreError::Unusable(format!(
            "{} lies on a network file system ({name}), which can't be trusted to keep mail: locks and syncs don't hold \
             there. Set data_dir to a local disk.",
            directory.display()
        )))
    })
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_directory: &Path) -> Result<(), StoreError> {
    Ok(())
}

fn network_name(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

/// Octets free to us on the store's disk: the fuller one, where the spool lies on another.
///
/// # Errors
/// The file system doesn't say.
pub fn free_bytes(data_dir: &Path) -> std::io::Result<u64> {
    let free = |path: &Path| {
        let found = rustix::fs::statvfs(path)?;
        Ok::<_, std::io::Error>(found.f_bavail.saturating_mul(found.f_frsize))
    };
    Ok(free(data_dir)?.min(free(&spool(data_dir)).unwrap_or(u64::MAX)))
}

/// How long a start waits for a process that is about to let go of the store: a command, or the server before this one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Held by the one process that writes. The kernel lets go of it when the process ends, however it ends.
///
/// It lies on the directory itself, which nobody deletes from under a server; the file `lock` only tells whose it is.
#[derive(Debug)]
pub(super) struct Lock {
    _directory: File,
}

impl Lock {
    /// # Errors
    /// `Locked`, naming the process that has it.
    pub(super) fn take(data_dir: &Path) -> Result<Self, StoreError> {
        let directory = File::open(data_dir).map_err(|e| unusable(data_dir, &e))?;
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(held_by(data_dir))),
            Err(TryLockError::Error(error)) => return Err(unusable(data_dir, &error)),
        }
        // For the reader of an error message, who goes without it where it can't be written.
        let path = data_dir.join("lock");
        let note = create(&path).or_else(|_there| OpenOptions::new().write(true).open(&path));
        let _no_name = note.and_then(|mut note| note.set_len(0).and_then(|()| write!(note, "{}", std::process::id())));
        Ok(Self { _directory: directory })
    }

    /// As [`Lock::take`], but waits some seconds for who has it, after `say` was told.
    pub(super) fn wait(data_dir: &Path, say: impl FnOnce(&str)) -> Result<Self, StoreError> {
        let end = Instant::now() + PATIENCE;
        let mut say = Some(say);
        loop {
            match Self::take(data_dir) {
                Err(StoreError::Locked(text)) if Instant::now() < end => {
                    if let Some(say) = say.take() {
                        say(&text);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                taken => return taken,
            }
        }
    }

    /// Whether a process has it now.
    pub(super) fn is_taken(data_dir: &Path) -> Result<bool, StoreError> {
        let directory = File::open(data_dir).map_err(|e| unusable(data_dir, &e))?;
        match directory.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(unusable(data_dir, &error)),
        }
    }
}

fn held_by(data_dir: &Path) -> String {
    let mut text = String::new();
    let read = File::open(data_dir.join("lock")).and_then(|note| note.take(20).read_to_string(&mut text));
    let holder = match text.trim().parse::<u32>() {
        Ok(pid) if read.is_ok() => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    format!(
        "the store {} is in use by {holder}. One process at a time: stop that one, or give this one a data_dir of its own.",
        data_dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::network_name;

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(network_name(0x6969), Some("NFS"));
        assert_eq!(network_name(0xFF53_4D42), Some("CIFS"));
        assert_eq!(network_name(0x0102_1997), Some("9p"));
        assert_eq!(network_name(0x6B41_4653), Some("AFS"));
        // ext4, tmpfs and FUSE are local, or for the admin to judge.
        for local in [0xEF53, 0x0102_1994, 0x6573_5546] {
            assert_eq!(network_name(local), None);
        }
    }
}
