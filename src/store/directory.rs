//! The directory a store lives in: its layout, its modes, its lock, the file systems it can be trusted to.
//!
//! `mailworker.db` (SQLite), `spool/<16 hex>.seg` (octets of mail), `lock` (held while a process has the store open).
//! Directories are 0700 and files 0600: mail is nobody else's business.
//! Network file systems are refused: their locks and syncs don't hold what 250 promises.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Magic numbers of statfs(2) whose file systems lie on another machine.
const NETWORK: [(u32, &str); 8] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
];

pub(super) fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("mailworker.db")
}

pub(super) fn spool(data_dir: &Path) -> PathBuf {
    data_dir.join("spool")
}

/// Makes what isn't there yet and closes it to others.
pub(super) fn prepare(data_dir: &Path) -> Result<(), StoreError> {
    prepare_one(data_dir)?;
    prepare_one(&spool(data_dir))?;
    refuse_network(data_dir)
}

/// Makes a directory and those above it, closes it to others, and makes the entries that lead to it durable.
pub(super) fn prepare_one(directory: &Path) -> Result<(), StoreError> {
    let above = |path: &Path| path.parent().map(|parent| parent.join("."));
    let mut leading = vec![above(directory)];
    let mut missing = directory.parent();
    while let Some(path) = missing.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
        leading.push(above(path));
        missing = path.parent();
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| unusable(directory, &e))?;
    let permissions = fs::metadata(directory).map_err(|e| unusable(directory, &e))?.permissions();
    // The sticky bit: /tmp and its like, which can't be closed to the others.
    if permissions.mode() & 0o1000 != 0 {
        let name = directory.display();
        return Err(StoreError::Unusable(format!("{name} can't be the store's directory: all users share it")));
    }
    if permissions.mode() & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(|e| unusable(directory, &e))?;
    }
    for path in leading.iter().flatten() {
        match File::open(path) {
            Ok(_) => sync(path)?,
            // Not ours to read, so not made by us either.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(unusable(path, &error)),
        }
    }
    sync(directory)
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

/// Creates a file that no one else reads; it must not be there yet.
pub(super) fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(target_os = "linux")]
fn refuse_network(data_dir: &Path) -> Result<(), StoreError> {
    let found = rustix::fs::statfs(data_dir).map_err(|e| unusable(data_dir, &e.into()))?;
    // The kernel's word is 32 bits wide; some architectures hand it out sign-extended.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let magic = found.f_type as u32;
    network_name(magic).map_or(Ok(()), |name| {
        Err(StoreError::Unusable(format!(
            "{} lies on a network file system ({name}), which can't be trusted to keep mail: locks and syncs don't hold \
             there. Set data_dir to a local disk.",
            data_dir.display()
        )))
    })
}

#[cfg(not(target_os = "linux"))]
fn refuse_network(_data_dir: &Path) -> Result<(), StoreError> {
    Ok(())
}

fn network_name(magic: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

/// Octets free to us on the store's disk.
///
/// # Errors
/// The file system doesn't say.
pub fn free_bytes(data_dir: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(data_dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Held by the one process that writes. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// `Locked`, naming the process that has it.
    pub(super) fn take(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| unusable(&path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(held_by(&mut file, data_dir))),
            Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
        }
        // The holder's number is for the reader of an error message; the lock itself is the kernel's.
        file.set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()))
            .map_err(|e| StoreError::io(&format!("write {}", path.display()), &e))?;
        Ok(Self { _file: file })
    }
}

fn held_by(file: &mut File, data_dir: &Path) -> String {
    let mut text = String::new();
    let read = file.take(20).read_to_string(&mut text);
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
        // ext4, tmpfs and FUSE are local, or for the admin to judge.
        for local in [0xEF53, 0x0102_1994, 0x6573_5546] {
            assert_eq!(network_name(local), None);
        }
    }
}
