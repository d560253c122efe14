//! From files to a snapshot, at the start and again whenever they change: start is a reload from empty.
//!
//! Reads configuration and rules, compiles, and hands over a [`Built`] that is whole or the findings that say why not;
//! what was in force before stays in force then. Watches the files (and SIGHUP, through [`Watcher::nudge`]).
//! Input: files. Output: a new snapshot in [`Current`], a new certificate in `TlsState`, an Event either way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::event::ModifyKind;
use notify::{EventKind, Watcher as _};

use crate::clock;
use crate::config::{Config, load};
use crate::diagnostic::{Diagnostic, Severity};
use crate::event::{Bus, Event, Kind};
use crate::intake::{Current, Snapshot};
use crate::listener::TlsState;
use crate::rules::engine::Budget;
use crate::rules::{Bindings, Release};

/// Bounds on what is read below `rules/`.
const MAX_FILES: usize = 5_000;
const MAX_DEPTH: usize = 16;
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Editors write a file in several steps: how long it must have been quiet.
const QUIET: Duration = Duration::from_millis(150);
/// As many changes are waited out.
const MAX_STEPS: usize = 20;

/// A change to the configuration that a command makes (`dev` puts its own addresses).
pub type Adjust = Arc<dyn Fn(&mut Config) + Send + Sync>;

/// Where configuration and rules come from.
#[derive(Clone)]
pub enum Source {
    Files(load::Options),
    /// Built into the program: what `dev` runs by where there is no file.
    Embedded {
        config: &'static str,
        rules: &'static [(&'static str, &'static str)],
    },
}

/// A snapshot with what was found on the way to it.
pub struct Built {
    pub snapshot: Snapshot,
    pub tls: TlsState,
    pub warnings: Vec<Diagnostic>,
    pub origins: Vec<(String, String, String)>,
    /// Files and folders whose change calls for a reload.
    pub watched: Vec<PathBuf>,
}

/// Reads and compiles everything.
///
/// # Errors
/// Every finding, each with its place. Nothing is in force by this alone.
pub fn build(source: &Source, adjust: Option<&Adjust>) -> Result<Built, Vec<Diagnostic>> {
    let loaded = match source {
        Source::Files(options) => Config::load(options)?,
        Source::Embedded { config, .. } => {
            // The key that it names lies beside no file; who runs by it brings one along.
            let options = load::Options { secrets: load::Reading::Unread, ..load::Options::default() };
            Config::from_toml(config, "built-in.toml", Path::new("."), &options)?
        }
    };
    let mut config = loaded.config;
    if let Some(adjust) = adjust {
        adjust(&mut config);
    }
    let mains = config.rules_mains();
    let (sources, folders) = match source {
        Source::Files(_) => read_rules(&config.base_dir, &mains)?,
        Source::Embedded { rules, .. } => (embedded(rules), Vec::new()),
    };
    let (release, mut warnings) = Release::compile(&sources, &mains, bindings(&config))?;
    warnings.splice(0..0, loaded.warnings);
    let tls = TlsState::load(&config).map_err(|error| {
        vec![match loaded.tls {
            Some(place) => Diagnostic { message: error, ..place },
            None => finding("[tls]", error),
        }]
    })?;
    let mut watched = loaded.watched;
    watched.extend(folders);
    if let Some(files) = &config.tls {
        watched.extend([files.certificate.clone(), files.key.clone()]);
        watched.extend(files.sni.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
    }
    let snapshot = Snapshot { config: Arc::new(config), release: Arc::new(release) };
    Ok(Built { snapshot, tls, warnings, origins: loaded.origins, watched })
}

/// Reads configuration and rules alone, for who asks what would be decided: certificates stay unread.
///
/// # Errors
/// As [`build`].
pub fn snapshot(options: &load::Options) -> Result<Snapshot, Vec<Diagnostic>> {
    let config = Config::load(options)?.config;
    let mains = config.rules_mains();
    let (sources, _folders) = read_rules(&config.base_dir, &mains)?;
    let (release, _warnings) = Release::compile(&sources, &mains, bindings(&config))?;
    Ok(Snapshot { config: Arc::new(config), release: Arc::new(release) })
}

fn embedded(rules: &[(&str, &str)]) -> BTreeMap<String, String> {
    rules.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// What `env` holds for a worker under this configuration.
#[must_use]
pub fn bindings(config: &Config) -> Bindings {
    let budget = &config.budget;
    Bindings {
        env_name: config.env_name.clone(),
        vars: config.vars.clone(),
        kv_namespaces: config.kv_namespaces.clone(),
        webhooks: config.webhooks.iter().map(|webhook| webhook.binding.clone()).collect(),
        destinations: config.destinations.iter().map(|destination| destination.name.clone()).collect(),
        clock: Some(clock::run_clock()),
        budget: Some(Budget {
            operations: budget.operations,
            wall_clock: budget.wall_clock,
            string_size: budget.string_size,
            array_size: budget.array_size,
            map_size: budget.map_size,
            call_depth: budget.call_depth,
            actions: budget.actions,
        }),
    }
}

type Sources = (BTreeMap<String, String>, Vec<PathBuf>);

/// Every `.rhai` below the folders of the mains, by the path the configuration would name it by.
fn read_rules(base: &Path, mains: &[String]) -> Result<Sources, Vec<Diagnostic>> {
    let mut sources = BTreeMap::new();
    let mut folders = Vec::new();
    let mut findings = Vec::new();
    for main in mains {
        let folder = Path::new(main).parent().unwrap_or(Path::new(""));
        let absolute = base.join(folder);
        if folders.contains(&absolute) {
            continue;
        }
        folders.push(absolute.clone());
        if let Err(finding) = read_folder(&absolute, &folder.to_string_lossy(), 0, &mut sources) {
            findings.push(*finding);
        }
    }
    for main in mains {
        if !sources.contains_key(main) {
            findings.push(Diagnostic {
                help: Some("name a worker by `main`, or write this one; `mailworker init` makes an example".into()),
                ..finding(main, format!("no such file below {}", base.display()))
            });
        }
    }
    if findings.is_empty() { Ok((sources, folders)) } else { Err(findings) }
}

fn read_folder(
    folder: &Path,
    name: &str,
    depth: usize,
    sources: &mut BTreeMap<String, String>,
) -> Result<(), Box<Diagnostic>> {
    let trouble =
        |path: &str, error: &dyn std::fmt::Display| Box::new(finding(path, format!("can't be read: {error}")));
    if depth > MAX_DEPTH {
        return Err(Box::new(finding(name, format!("folders are nested deeper than {MAX_DEPTH}"))));
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(|error| trouble(name, &error))?;
        let file_name = entry.file_name();
        // Hidden ones are editors' own: locks that are links to nowhere, copies half written.
        let Some(file_name) = file_name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let path = if name.is_empty() { file_name.to_owned() } else { format!("{name}/{file_name}") };
        let metadata = std::fs::metadata(entry.path()).map_err(|error| trouble(&path, &error))?;
        if metadata.is_dir() {
            read_folder(&entry.path(), &path, depth + 1, sources)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "rhai") {
            if metadata.len() > MAX_FILE || sources.len() >= MAX_FILES {
                let limits = format!("more than {MAX_FILES} files or {MAX_FILE} bytes in one");
                return Err(Box::new(finding(&path, limits)));
            }
            let text = std::fs::read_to_string(entry.path()).map_err(|error| trouble(&path, &error))?;
            sources.insert(path, text);
        }
    }
    Ok(())
}

fn finding(file: &str, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: file.to_owned(),
        line: 0,
        column: 0,
        width: 1,
        message,
        help: None,
        source_line: None,
    }
}

/// Told of each reload that succeeded, with what was built.
pub type Swapped = Arc<dyn Fn(&Arc<Config>) + Send + Sync>;

/// Watches files from before they are read, so that no change falls between.
pub struct Watch {
    guard: Option<notify::RecommendedWatcher>,
    nudge: tokio::sync::mpsc::Sender<()>,
    receiver: tokio::sync::mpsc::Receiver<()>,
}

impl Watch {
    /// Begins to watch what it was built from.
    #[must_use]
    pub fn begin(built: &Built, bus: &Bus) -> Self {
        let (nudge, receiver) = tokio::sync::mpsc::channel(1);
        Self { guard: notifier(Places::of(built), nudge.clone(), bus), nudge, receiver }
    }
}

/// What is watched, and where the server itself writes.
struct Places {
    files: Vec<PathBuf>,
    data_dir: PathBuf,
}

impl Places {
    fn of(built: &Built) -> Self {
        Self { files: built.watched.clone(), data_dir: built.snapshot.config.data_dir.clone() }
    }

    /// Whether a change of this file calls for a reload; `moved`: it came or went as a whole, as a folder may. A worker
    /// beside the configuration has the store, and perhaps the log, in its folder: what is written there is not read.
    fn concern(&self, path: &Path, moved: bool) -> bool {
        let script = path.extension().is_some_and(|extension| extension == "rhai");
        let may_hold_scripts = moved && !path.starts_with(&self.data_dir);
        let within = |folder: &PathBuf| (script || may_hold_scripts) && path.starts_with(folder);
        self.files.iter().any(|file| path == file || within(file))
    }
}

/// Watches the files and swaps what is in force.
pub struct Watcher {
    nudge: tokio::sync::mpsc::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

/// What a watcher works on.
pub struct Watched {
    pub source: Source,
    pub adjust: Option<Adjust>,
    pub current: Current,
    pub tls: Arc<ArcSwap<TlsState>>,
    pub bus: Bus,
    pub swapped: Swapped,
}

impl Watcher {
    /// Starts watching.
    #[must_use]
    pub fn start(watched: Watched, watch: Watch) -> Self {
        let nudge = watch.nudge.clone();
        Self { nudge, task: tokio::spawn(run(watched, watch)) }
    }

    /// Reload now (SIGHUP).
    pub fn nudge(&self) {
        let _one_is_waiting_already = self.nudge.try_send(());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(watched: Watched, watch: Watch) {
    let Watch { mut guard, nudge, mut receiver } = watch;
    let started = Arc::clone(&watched.current.load().config);
    loop {
        if receiver.recv().await.is_none() {
            return;
        }
        // Until it has been quiet for a while, but not for ever.
        for _ in 0..MAX_STEPS {
            if !matches!(tokio::time::timeout(QUIET, receiver.recv()).await, Ok(Some(()))) {
                break;
            }
        }
        if let Some(places) = reload(&watched, &started).await {
            // The old one watches until the new one does.
            guard = notifier(places, nudge.clone(), &watched.bus).or(guard);
        }
    }
}

/// Tells of changes below the folders that hold the files: editors replace a file by renaming another over it.
fn notifier(places: Places, nudge: tokio::sync::mpsc::Sender<()>, bus: &Bus) -> Option<notify::RecommendedWatcher> {
    let files = places.files.clone();
    let told = move |result: notify::Result<notify::Event>| {
        let Ok(event) = result else { return };
        let moved = !matches!(event.kind, EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)));
        if event.paths.iter().any(|path| places.concern(path, moved)) && !matches!(event.kind, EventKind::Access(_)) {
            let _one_is_waiting_already = nudge.try_send(());
        }
    };
    let fault = |error: notify::Error| {
        let detail = format!("files can't be watched, send SIGHUP after a change: {error}");
        bus.publish(Event::new(clock::now(), Kind::Fault { what: "watch".into(), detail }));
    };
    let mut watcher = notify::recommended_watcher(told).map_err(fault).ok()?;
    let mut folders: Vec<(PathBuf, notify::RecursiveMode)> = Vec::new();
    for file in &files {
        let entry = if file.is_dir() {
            (file.clone(), notify::RecursiveMode::Recursive)
        } else {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            (folder.to_owned(), notify::RecursiveMode::NonRecursive)
        };
        if !folders.contains(&entry) {
            folders.push(entry);
        }
    }
    for (folder, mode) in folders {
        if let Err(error) = watcher.watch(&folder, mode) {
            fault(error);
        }
    }
    Some(watcher)
}

/// What the new configuration has otherwise, and is read at the start alone.
fn waiting(started: &Config, fresh: &Config) -> Vec<&'static str> {
    let changed = [
        ("[[listener]]", started.listeners != fresh.listeners),
        ("data_dir", started.data_dir != fresh.data_dir),
        ("[http]", started.http != fresh.http),
        ("[dns]", started.dns != fresh.dns),
        ("[limits] deliveries", started.limits.deliveries != fresh.limits.deliveries),
        ("[limits] runs", started.limits.runs != fresh.limits.runs),
    ];
    changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
}

/// Builds and swaps; the files to watch from now on where that went well.
async fn reload(watched: &Watched, started: &Config) -> Option<Places> {
    let (source, adjust) = (watched.source.clone(), watched.adjust.clone());
    let built = tokio::task::spawn_blocking(move || build(&source, adjust.as_ref())).await;
    let mut what = "configuration, rules and certificates".to_owned();
    let findings = match built {
        Ok(Ok(built)) => {
            let places = Places::of(&built);
            let waiting = waiting(started, &built.snapshot.config);
            if !waiting.is_empty() {
                what = format!("{what}; {} changed, which counts from the next start", waiting.join(", "));
            }
            (watched.swapped)(&built.snapshot.config);
            watched.tls.store(Arc::new(built.tls));
            watched.current.swap(built.snapshot);
            watched.bus.publish(Event::new(clock::now(), Kind::Reloaded { what }));
            return Some(places);
        }
        Ok(Err(findings)) => findings,
        Err(panic) => vec![finding("", panic.to_string())],
    };
    // A rule that doesn't compile mustn't keep a renewed certificate out.
    if let Ok(renewed) = TlsState::load(&watched.current.load().config) {
        watched.tls.store(Arc::new(renewed));
    }
    let rendered: Vec<String> = findings.iter().map(|finding| crate::diagnostic::render(finding, false)).collect();
    watched.bus.publish(Event::new(clock::now(), Kind::ReloadFailed { what, error: rendered.join("\n") }));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_writes_beside_a_worker_calls_for_no_reload() {
        let files = ["/etc/mw/mailworker.toml", "/etc/mw", "/etc/mw/data/cert.pem"].map(PathBuf::from).to_vec();
        let places = Places { files, data_dir: "/etc/mw/data".into() };
        for path in ["mailworker.toml", "main.rhai", "lib/a.rhai", "data/cert.pem", "data/a.rhai"] {
            assert!(places.concern(&Path::new("/etc/mw").join(path), false), "{path}");
        }
        for path in ["/etc/mw/data/mailworker.db-wal", "/etc/mw/mailworker.log", "/etc/other/main.rhai"] {
            assert!(!places.concern(Path::new(path), false), "{path}");
        }
        for (path, expected) in [("/etc/mw/lib", true), ("/etc/mw/..data", true), ("/etc/mw/data/spool/1.seg", false)] {
            assert_eq!(places.concern(Path::new(path), true), expected, "{path}");
        }
    }

    #[test]
    fn an_editors_lock_beside_a_worker_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("main.rhai"), "fn email(m, e, c) {}").unwrap();
        std::os::unix::fs::symlink("ann@host.4711", dir.path().join(".#main.rhai")).unwrap();
        let (sources, _) = read_rules(dir.path(), &["main.rhai".to_owned()]).unwrap();
        assert_eq!(sources.keys().collect::<Vec<_>>(), ["main.rhai"]);
    }
}
