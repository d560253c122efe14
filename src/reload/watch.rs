//! Which places a change of the files shows in, and who tells of it.
//!
//! A path is followed link by link: `tls/cert.pem` may lead over `..data` (as Kubernetes mounts secrets) or into another
//! folder (as certbot keeps them), and each link, each file at an end and the folder that holds it may be replaced.
//! Input: the paths that were read. Output: a nudge; a [`Stamp`] for what no nudge tells of (network file systems).

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use notify::event::ModifyKind;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender};

use crate::clock;
use crate::event::{Bus, Event, Kind};

/// As many links are followed on one path, as the kernel does.
const MAX_LINKS: usize = 40;

/// Watches files from before they are read, so that no change falls between.
pub struct Watch {
    pub(super) guard: Option<notify::RecommendedWatcher>,
    pub(super) places: Places,
    pub(super) told: Told,
    pub(super) nudge: Sender<()>,
    pub(super) receiver: Receiver<()>,
}

impl Watch {
    /// Begins to watch what it was built from.
    #[must_use]
    pub fn begin(built: &super::Built, bus: &Bus) -> Self {
        let (nudge, receiver) = tokio::sync::mpsc::channel(1);
        let places = Places::of(built);
        let told = Told::of(&places);
        Self { guard: notifier(&told, nudge.clone(), bus), places, told, nudge, receiver }
    }
}

/// What is watched, and where the server itself writes.
#[derive(Clone)]
pub(super) struct Places {
    files: Vec<PathBuf>,
    data_dir: PathBuf,
}

/// What the files looked like: device, inode, length and time of each.
pub(super) type Stamp = Vec<Option<(u64, u64, u64, i64, i64)>>;

impl Places {
    pub(super) fn of(built: &super::Built) -> Self {
        Self { files: built.watched.clone(), data_dir: built.snapshot.config.data_dir.clone() }
    }

    pub(super) fn stamp(&self) -> Stamp {
        let look = |path: &PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        };
        self.files.iter().map(look).collect()
    }
}

/// What is told of. All paths are real ones, since a folder that is watched has one name.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Links on the way to the files, the files themselves, and the folders of those that links lead to.
    hops: BTreeSet<PathBuf>,
    /// Folders that scripts lie below.
    roots: BTreeSet<PathBuf>,
    data_dir: PathBuf,
}

impl Told {
    pub(super) fn of(places: &Places) -> Self {
        Self {
            hops: places.files.iter().flat_map(|file| hops(file)).collect(),
            roots: places.files.iter().filter(|file| file.is_dir()).map(|folder| real(folder)).collect(),
            data_dir: real(&places.data_dir),
        }
    }

    /// Whether a change of this file calls for a reload; `moved`: it came or went as a whole, as a folder may. A worker
    /// beside the configuration has the store, and perhaps the log, in its folder: what is written there is not read.
    fn concerns(&self, path: &Path, moved: bool) -> bool {
        let script = path.extension().is_some_and(|extension| extension == "rhai");
        let may_hold_scripts = moved && !path.starts_with(&self.data_dir);
        let within = |folder: &PathBuf| (script || may_hold_scripts) && path.starts_with(folder);
        self.hops.contains(path) || self.roots.iter().any(within)
    }

    /// The folders to watch by themselves: editors replace a file by renaming another over it.
    fn folders(&self) -> BTreeSet<&Path> {
        let folders = self.hops.iter().filter_map(|hop| hop.parent());
        folders.filter(|folder| folder.is_dir() && !self.roots.contains(*folder)).collect()
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Every link on the way along `path`, and what is at its end; where there was a link, the folder that holds it, too.
fn hops(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut real = PathBuf::new();
    // What is still to be gone along, the next step last.
    let mut ahead: Vec<PathBuf> = steps(path);
    while let Some(step) = ahead.pop() {
        if step.as_os_str() == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&step);
        match std::fs::read_link(&next) {
            Ok(target) if found.len() < MAX_LINKS => {
                // A target from the root replaces what was gone along when it is joined to it.
                ahead.extend(steps(&target));
                found.push(next);
            }
            _ => real = next,
        }
    }
    if !found.is_empty() {
        found.extend(real.parent().map(Path::to_owned));
    }
    found.push(real);
    found
}

fn steps(path: &Path) -> Vec<PathBuf> {
    let step = |component: Component<'_>| match component {
        Component::CurDir => None,
        other => Some(PathBuf::from(other.as_os_str())),
    };
    path.components().rev().filter_map(step).collect()
}

/// Tells of changes below the folders that hold the files and what they lead to.
pub(super) fn notifier(told: &Told, nudge: Sender<()>, bus: &Bus) -> Option<notify::RecommendedWatcher> {
    let told = told.clone();
    let mut folders: Vec<_> =
        told.folders().into_iter().map(|folder| (folder.to_owned(), RecursiveMode::NonRecursive)).collect();
    // Last, so that a folder below one of these is watched with all that is in it.
    folders.extend(told.roots.iter().map(|root| (root.clone(), RecursiveMode::Recursive)));
    let tell = move |result: notify::Result<notify::Event>| {
        let Ok(event) = result else { return };
        let moved = !matches!(event.kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)));
        if event.paths.iter().any(|path| told.concerns(path, moved)) && !matches!(event.kind, EventKind::Access(_)) {
            let _one_is_waiting_already = nudge.try_send(());
        }
    };
    let fault = |error: notify::Error| {
        let detail = format!("files can't be watched, send SIGHUP after a change: {error}");
        bus.publish(Event::new(clock::now(), Kind::Fault { what: "watch".into(), detail }));
    };
    let mut watcher = notify::recommended_watcher(tell).map_err(fault).ok()?;
    for (folder, mode) in folders {
        if let Err(error) = watcher.watch(&folder, mode) {
            fault(error);
        }
    }
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_the_server_writes_beside_a_worker_calls_for_no_reload() {
        let hops = ["/etc/mw/mailworker.toml", "/etc/mw", "/etc/mw/data/cert.pem"].map(PathBuf::from).into();
        let told = Told { hops, roots: [PathBuf::from("/etc/mw")].into(), data_dir: "/etc/mw/data".into() };
        for path in ["mailworker.toml", "main.rhai", "lib/a.rhai", "data/cert.pem", "data/a.rhai"] {
            assert!(told.concerns(&Path::new("/etc/mw").join(path), false), "{path}");
        }
        for path in ["/etc/mw/data/mailworker.db-wal", "/etc/mw/mailworker.log", "/etc/other/main.rhai"] {
            assert!(!told.concerns(Path::new(path), false), "{path}");
        }
        for (path, expected) in [("/etc/mw/lib", true), ("/etc/mw/..data", true), ("/etc/mw/data/spool/1.seg", false)] {
            assert_eq!(told.concerns(Path::new(path), true), expected, "{path}");
        }
    }

    #[test]
    fn a_path_is_followed_over_each_of_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().canonicalize().unwrap().join(path);
        std::fs::create_dir_all(at("tls/..1")).unwrap();
        std::fs::write(at("tls/..1/cert.pem"), "").unwrap();
        symlink("..1", at("tls/..data")).unwrap();
        symlink("..data/cert.pem", at("tls/cert.pem")).unwrap();
        let expected = ["tls/cert.pem", "tls/..data", "tls/..1", "tls/..1/cert.pem"].map(at);
        assert_eq!(hops(&at("tls/cert.pem")), expected);

        std::fs::create_dir(at("live")).unwrap();
        std::fs::write(at("live/key.pem"), "").unwrap();
        symlink(at("live"), at("keys")).unwrap();
        symlink("../keys/./key.pem", at("tls/key.pem")).unwrap();
        assert_eq!(hops(&at("tls/key.pem")), ["tls/key.pem", "keys", "live", "live/key.pem"].map(at));
        assert_eq!(hops(&at("tls/../live/key.pem")), ["live/key.pem"].map(at));
        symlink("round", at("round")).unwrap();
        assert_eq!(hops(&at("round")).len(), MAX_LINKS + 2);
    }
}
