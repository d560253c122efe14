//! From files to a snapshot, at the start and again whenever they change: start is a reload from empty.
//!
//! Reads configuration and rules, compiles, and hands over a [`Built`] that is whole or the findings that say why not;
//! what was in force before stays in force then. Watches the files (and SIGHUP, through [`Watcher::nudge`]).
//! Input: files. Output: a new snapshot in [`Current`], a new certificate in `TlsState`, an Event either way.
//! `reload/watch.rs` knows in which places a change shows.

mod deployed;
mod watch;

pub use deployed::{Stored, is_by_store_alone, telling_of_release};
pub use watch::Watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock;
use crate::config::{Config, load};
use crate::diagnostic::{Diagnostic, Severity};
use crate::event::{Bus, Event, Kind};
use crate::intake::{Current, Snapshot};
use crate::listener::TlsState;
use crate::rules::engine::Budget;
use crate::rules::{Bindings, Release, Secrets};

use watch::{Places, Told, notifier};

/// Bounds on what is read below `rules/`.
const MAX_FILES: usize = 5_000;
const MAX_DEPTH: usize = 16;
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// What lies in a folder of this name is no part of the rules.
const TESTS: &str = "tests";
/// Editors write a file in several steps: how long it must have been quiet.
const QUIET: Duration = Duration::from_millis(150);
/// As many changes are waited out.
const MAX_STEPS: usize = 20;
/// How often the files are looked at whether or not a change was told of.
const LOOK_EVERY: Duration = Duration::from_hours(1);

/// A change to the configuration that a command makes (`dev` puts its own addresses).
pub type Adjust = Arc<dyn Fn(&mut Config) + Send + Sync>;

/// Where configuration and rules come from.
#[derive(Clone)]
pub enum Source {
    Files(load::Options),
    /// The same, but for the rules where a release of them was deployed to the store.
    Server(load::Options),
    /// Built into the program: what `dev` runs by where there is no file.
    Embedded {
        config: &'static str,
        rules: &'static [(&'static str, &'static str)],
    },
}

impl Source {
    /// Where the process' environment is, and what is done about secrets.
    #[must_use]
    pub fn options(&self) -> load::Options {
        match self {
            Self::Files(options) | Self::Server(options) => options.clone(),
            Self::Embedded { .. } => load::Options::default(),
        }
    }
}

/// A snapshot with what was found on the way to it.
pub struct Built {
    pub snapshot: Snapshot,
    pub tls: TlsState,
    pub warnings: Vec<Diagnostic>,
    pub origins: Vec<(String, String, String)>,
    /// Which deployed release runs in place of the files, in words; `None`: the files run.
    pub deployed: Option<String>,
    /// Files and folders whose change calls for a reload.
    pub watched: Vec<PathBuf>,
}

/// Reads and compiles everything.
///
/// # Errors
/// Every finding, each with its place. Nothing is in force by this alone.
pub fn build(source: &Source, adjust: Option<&Adjust>) -> Result<Built, Vec<Diagnostic>> {
    build_after(source, adjust, None)
}

/// The same in place of what is in force.
fn build_after(source: &Source, adjust: Option<&Adjust>, before: Option<&Snapshot>) -> Result<Built, Vec<Diagnostic>> {
    let loaded = match source {
        Source::Files(options) => Config::load(options)?,
        Source::Server(options) => deployed::load(options)?,
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
    let config = Arc::new(config);
    let (compiled, folders) = compile(source, &config, before)?;
    let Compiled { snapshot, mut warnings, deployed } = compiled;
    warnings.splice(0..0, loaded.warnings);
    warnings.extend(unanswered(&config, &snapshot.release));
    let tls = TlsState::load(&config).map_err(|error| {
        vec![match loaded.tls {
            Some(place) => Diagnostic { message: error, ..place },
            None => Diagnostic::unplaced("[tls]", error),
        }]
    })?;
    let mut watched = loaded.watched;
    watched.extend(folders);
    if let Some(files) = &config.tls {
        watched.extend([files.certificate.clone(), files.key.clone()]);
        watched.extend(files.sni.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
    }
    Ok(Built { snapshot, tls, warnings, origins: loaded.origins, deployed, watched })
}

/// Rules compiled for a configuration.
struct Compiled {
    snapshot: Snapshot,
    warnings: Vec<Diagnostic>,
    deployed: Option<String>,
}

/// The rules that run, and what is to be watched for them.
fn compile(
    source: &Source,
    config: &Arc<Config>,
    before: Option<&Snapshot>,
) -> Result<(Compiled, Vec<PathBuf>), Vec<Diagnostic>> {
    let mains = config.rules_mains();
    if let Source::Server(_) = source
        && let Some(stored) = Stored::read(config)?
    {
        let (mut told, has_canary) = (stored.told(config), stored.deployed.canary.is_some());
        let (snapshot, warnings) = stored.compile(Arc::clone(config), before)?;
        if has_canary && snapshot.canary().is_none() {
            told.push_str("; the one on trial doesn't fit the configuration, and isn't tried");
        }
        let deployed = Some(told);
        // Who changes them is to be told that they don't run.
        let folders = read_rules(&config.base_dir, &mains).map(|found| found.links).unwrap_or_default();
        return Ok((Compiled { snapshot, warnings, deployed }, folders));
    }
    let Found { sources, links, warnings: of_links } = match source {
        Source::Files(_) | Source::Server(_) => read_rules(&config.base_dir, &mains)?,
        Source::Embedded { rules, .. } => Found { sources: embedded(rules), ..Found::default() },
    };
    let (release, mut warnings) = Release::compile(&sources, &mains, bindings(config))?;
    warnings.splice(0..0, of_links);
    let snapshot = Snapshot::new(Arc::clone(config), Arc::new(release));
    Ok((Compiled { snapshot, warnings, deployed: None }, links))
}

/// The rules' files, as they would be deployed.
///
/// # Errors
/// What can't be read.
pub fn files(config: &Config) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    read_rules(&config.base_dir, &config.rules_mains()).map(|found| found.sources)
}

/// Every script of `folder` and below it, by the path that `name` begins: what lies beside a file of tests.
///
/// # Errors
/// What can't be read.
pub fn beside(folder: &Path, name: &str) -> Result<BTreeMap<String, String>, Vec<Diagnostic>> {
    let mut found = Found::default();
    read_folder(folder, name, 0, &mut found).map_err(|finding| vec![*finding])?;
    Ok(found.sources)
}

/// What a server would decide by now, certificates apart.
///
/// # Errors
/// As [`build`].
pub fn in_force(options: &load::Options) -> Result<Snapshot, Vec<Diagnostic>> {
    let config = Arc::new(deployed::load(options)?.config);
    compile(&Source::Server(options.clone()), &config, None).map(|(compiled, _)| compiled.snapshot)
}

/// Reads configuration and rules alone, for who asks what would be decided: certificates stay unread.
///
/// # Errors
/// As [`build`].
pub fn snapshot(options: &load::Options) -> Result<Snapshot, Vec<Diagnostic>> {
    snapshot_with(options, |_| ())
}

/// The same with a change to the configuration, which is made before the rules are bound to it.
///
/// # Errors
/// As [`build`].
pub fn snapshot_with(options: &load::Options, change: impl FnOnce(&mut Config)) -> Result<Snapshot, Vec<Diagnostic>> {
    let mut config = Config::load(options).map_err(|findings| telling_of_release(options, findings))?.config;
    change(&mut config);
    let mains = config.rules_mains();
    let Found { sources, .. } = read_rules(&config.base_dir, &mains)?;
    let (release, _warnings) = Release::compile(&sources, &mains, bindings(&config))?;
    Ok(Snapshot::new(Arc::new(config), Arc::new(release)))
}

/// The same with the rules of `folder` in place of those that the configuration's `main` stands among. Where workers stand
/// in several folders, `folder` holds all of these.
///
/// # Errors
/// As [`build`].
pub fn snapshot_by(options: &load::Options, folder: &Path) -> Result<Snapshot, Vec<Diagnostic>> {
    let config = Config::load(&load::Options { without_rules: true, ..options.clone() })?.config;
    let mains = config.rules_mains();
    let place = |main: &str| Path::new(main).parent().unwrap_or(Path::new("")).to_owned();
    let only = mains.first().map(|main| place(main)).filter(|first| mains.iter().all(|main| place(main) == *first));
    let only = only.filter(|_| mains.iter().any(|main| !folder.join(main).is_file()));
    let sources = match &only {
        None => read_rules(folder, &mains)?.sources,
        Some(name) => {
            let mut found = Found::default();
            read_folder(folder, &name.to_string_lossy(), 0, &mut found).map_err(|finding| vec![*finding])?;
            found.sources
        }
    };
    let missing = mains.iter().filter(|main| !sources.contains_key(*main));
    let missing: Vec<_> = missing
        .map(|main| Diagnostic {
            help: Some(format!("{main} is what the configuration names; --rules gives the folder it is read from")),
            ..Diagnostic::unplaced(main, format!("no such file in {}", folder.display()))
        })
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let here = |finding: Diagnostic| {
        let path =
            only.as_ref().map_or(Ok(Path::new(&finding.file)), |name| Path::new(&finding.file).strip_prefix(name));
        let file = path.map_or_else(|_| finding.file.clone(), |path| folder.join(path).display().to_string());
        Diagnostic { file, ..finding }
    };
    let compiled = Release::compile(&sources, &mains, bindings(&config));
    let (release, _warnings) = compiled.map_err(|findings| findings.into_iter().map(here).collect::<Vec<_>>())?;
    Ok(Snapshot::new(Arc::new(config), Arc::new(release)))
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
        secrets: Secrets(
            config.secrets.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())).collect(),
        ),
        concealed: Secrets(concealed(config).map(|key| ("ai.api_key".to_owned(), key)).into_iter().collect()),
        kv_namespaces: config.kv_namespaces.clone(),
        webhooks: config.webhooks.iter().map(|webhook| webhook.binding.clone()).collect(),
        destinations: config.destinations.iter().map(|destination| destination.name.clone()).collect(),
        senders: config.senders(),
        clock: Some(clock::run_clock()),
        budget: Some(Budget {
            operations: budget.operations,
            wall_clock: budget.wall_clock,
            string_size: budget.string_size,
            array_size: budget.array_size,
            map_size: budget.map_size,
            call_depth: budget.call_depth,
            actions: budget.actions,
            requests: budget.requests,
        }),
        ai: config.ai.as_ref().map(|ai| crate::rules::Ai { model: ai.model.clone() }),
    }
}

/// The key of `[ai]`, which an endpoint may quote where it refuses it.
fn concealed(config: &Config) -> Option<String> {
    let key = config.ai.as_ref()?.api_key.as_ref()?;
    (!key.is_placeholder()).then(|| key.expose().to_owned())
}

/// Workers that mail goes to, and that have no answer to it.
fn unanswered(config: &Config, release: &Release) -> Vec<Diagnostic> {
    let silent = config.mail_mains().into_iter().filter(|(main, _)| !release.has(main, "email"));
    let warning = |(main, whose): (String, String)| Diagnostic {
        severity: Severity::Warning,
        help: Some("add fn email(message, env, ctx) { … }; until then senders are told to try again later".to_owned()),
        ..Diagnostic::unplaced(main, format!("the worker has no handler `email`, and mail for {whose} goes to it"))
    };
    silent.map(warning).chain(unscheduled(config, release)).collect()
}

/// Crons that nothing answers, or a handler that no cron calls.
fn unscheduled(config: &Config, release: &Release) -> Option<Diagnostic> {
    let main = config.main_for(None, None);
    let (message, help) = match (config.crons.is_empty(), release.has(&main, "scheduled")) {
        (false, false) => (
            "[triggers] has crons, and the worker has no handler `scheduled`",
            "add fn scheduled(event, env, ctx) { … }",
        ),
        (true, true) => {
            ("the handler `scheduled` is never called: there are no crons", "add [triggers] crons = [\"0 9 * * MON\"]")
        }
        _ => return None,
    };
    Some(Diagnostic {
        severity: Severity::Warning,
        help: Some(help.to_owned()),
        ..Diagnostic::unplaced(main, message.to_owned())
    })
}

/// What was found below the folders of the mains.
#[derive(Default)]
struct Found {
    sources: BTreeMap<String, String>,
    /// What is to be watched: the folders, and links among what is in them, which lead elsewhere.
    links: Vec<PathBuf>,
    warnings: Vec<Diagnostic>,
}

/// Every `.rhai` below the folders of the mains, by the path the configuration would name it by; and what to watch.
fn read_rules(base: &Path, mains: &[String]) -> Result<Found, Vec<Diagnostic>> {
    let mut found = Found::default();
    let mut folders = Vec::new();
    let mut findings = Vec::new();
    for main in mains {
        let folder = Path::new(main).parent().unwrap_or(Path::new(""));
        let absolute = base.join(folder);
        if folders.contains(&absolute) {
            continue;
        }
        folders.push(absolute.clone());
        if let Err(finding) = read_folder(&absolute, &folder.to_string_lossy(), 0, &mut found) {
            findings.push(*finding);
        }
    }
    for main in mains {
        if !found.sources.contains_key(main) {
            findings.push(Diagnostic {
                help: Some("name a worker by `main`, or write this one; `mailworker init` makes an example".into()),
                ..Diagnostic::unplaced(main, format!("no such file below {}", base.display()))
            });
        }
    }
    folders.append(&mut found.links);
    found.links = folders;
    if findings.is_empty() { Ok(found) } else { Err(findings) }
}

fn read_folder(folder: &Path, name: &str, depth: usize, found: &mut Found) -> Result<(), Box<Diagnostic>> {
    let trouble = |path: &str, error: &dyn std::fmt::Display| {
        Box::new(Diagnostic::unplaced(path, format!("can't be read: {error}")))
    };
    if depth > MAX_DEPTH {
        return Err(Box::new(Diagnostic::unplaced(name, format!("folders are nested deeper than {MAX_DEPTH}"))));
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(|error| trouble(name, &error))?;
        let file_name = entry.file_name();
        // Hidden ones are editors' own: locks that are links to nowhere, copies half written.
        let Some(file_name) = file_name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let path = if name.is_empty() { file_name.to_owned() } else { format!("{name}/{file_name}") };
        let metadata = match std::fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                leads_nowhere(&entry, path, found);
                continue;
            }
            Err(error) => return Err(trouble(&path, &error)),
        };
        let is_script = is_script(&entry.path());
        let is_read = metadata.is_dir() || is_script;
        if is_read && entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            found.links.push(entry.path());
        }
        if metadata.is_dir() && file_name == TESTS {
            continue;
        }
        if metadata.is_dir() {
            read_folder(&entry.path(), &path, depth + 1, found)?;
        } else if is_read {
            if metadata.len() > MAX_FILE || found.sources.len() >= MAX_FILES {
                let limits = format!("more than {MAX_FILES} files or {MAX_FILE} bytes in one");
                return Err(Box::new(Diagnostic::unplaced(&path, limits)));
            }
            let text = std::fs::read_to_string(entry.path()).map_err(|error| trouble(&path, &error))?;
            found.sources.insert(path, text);
        }
    }
    Ok(())
}

/// `main.rhai`, but not `mailworker.d.rhai`, in which editors read the API.
fn is_script(path: &Path) -> bool {
    let has = |path: &Path, wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    has(path, "rhai") && !path.file_stem().is_some_and(|stem| has(Path::new(stem), "d"))
}

/// Who imports it is told that there is no such module; nobody else misses it.
fn leads_nowhere(entry: &std::fs::DirEntry, path: String, found: &mut Found) {
    // Gone since the folder was read.
    let Ok(target) = std::fs::read_link(entry.path()) else { return };
    found.links.push(entry.path());
    let message = format!("this link leads nowhere: {} isn't there", target.display());
    found.warnings.push(Diagnostic { severity: Severity::Warning, ..Diagnostic::unplaced(path, message) });
}

/// Told of each reload that succeeded, with what was built.
pub type Swapped = Arc<dyn Fn(&Arc<Config>) + Send + Sync>;

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
        (self.nudger())();
    }

    /// The same for who goes on without it. Keeps no watcher alive.
    pub fn nudger(&self) -> impl Fn() + Send + Sync + use<> {
        let nudge = self.nudge.clone();
        move || {
            let _one_is_waiting_already = nudge.try_send(());
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(watched: Watched, watch: Watch) {
    let Watch { mut guard, mut places, mut told, nudge, mut receiver } = watch;
    let started = Arc::clone(&watched.current.load().config);
    let mut stamp = places.stamp();
    loop {
        match tokio::time::timeout(LOOK_EVERY, receiver.recv()).await {
            Ok(None) => return,
            // Not every file system tells.
            Err(_) if places.stamp() == stamp => continue,
            Ok(Some(())) | Err(_) => {}
        }
        // Until it has been quiet for a while, but not for ever.
        for _ in 0..MAX_STEPS {
            if !matches!(tokio::time::timeout(QUIET, receiver.recv()).await, Ok(Some(()))) {
                break;
            }
        }
        stamp = places.stamp();
        if let Some(fresh) = reload(&watched, &started).await {
            stamp = fresh.stamp();
            places = fresh;
        }
        // Even after one that failed, links may lead elsewhere now. The old one watches until the new one does.
        let now_told = Told::of(&places);
        guard = notifier(&now_told, nudge.clone(), &watched.bus).or(guard);
        if now_told != told {
            // What is watched only from now on may have changed since it was read.
            told = now_told;
            let _one_is_waiting_already = nudge.try_send(());
        }
    }
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
        ("[fetch] concurrency", started.fetch.concurrency != fresh.fetch.concurrency),
    ];
    changed.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
}

/// Builds and swaps; the files to watch from now on where that went well.
async fn reload(watched: &Watched, started: &Config) -> Option<Places> {
    let (source, adjust, before) = (watched.source.clone(), watched.adjust.clone(), watched.current.load());
    let built = tokio::task::spawn_blocking(move || build_after(&source, adjust.as_ref(), Some(&before))).await;
    let mut what = "configuration, rules and certificates".to_owned();
    let findings = match built {
        Ok(Ok(built)) => {
            let places = Places::of(&built);
            let waiting = waiting(started, &built.snapshot.config);
            if !waiting.is_empty() {
                what = format!("{what}; {} changed, which counts from the next start", waiting.join(", "));
            }
            if let Some(deployed) = &built.deployed {
                what = format!("{what}; {deployed}");
            }
            (watched.swapped)(&built.snapshot.config);
            watched.tls.store(Arc::new(built.tls));
            watched.current.swap(built.snapshot);
            watched.bus.publish(Event::new(clock::now(), Kind::Reloaded { what }));
            return Some(places);
        }
        Ok(Err(findings)) => findings,
        Err(panic) => vec![Diagnostic::unplaced("", panic.to_string())],
    };
    // A rule that doesn't compile mustn't keep a renewed certificate out.
    if let Ok(renewed) = TlsState::load(&watched.current.load().config) {
        watched.tls.store(Arc::new(renewed));
    }
    take_deployed(watched).await;
    let rendered: Vec<String> = findings.iter().map(|finding| crate::diagnostic::render(finding, false)).collect();
    watched.bus.publish(Event::new(clock::now(), Kind::ReloadFailed { what, error: rendered.join("\n") }));
    None
}

/// A configuration with errors keeps nobody from deploying or rolling back: that is taken up beside the one in force.
async fn take_deployed(watched: &Watched) {
    if !matches!(watched.source, Source::Server(_)) {
        return;
    }
    let before = watched.current.load();
    let compiled = tokio::task::spawn_blocking(move || {
        let stored = Stored::read(&before.config).ok()??;
        if stored.is_in_force(&before) {
            return None;
        }
        let what = format!("rules alone; {}", stored.told(&before.config));
        let (snapshot, _) = stored.compile(Arc::clone(&before.config), Some(&before)).ok()?;
        Some((snapshot, what))
    });
    if let Ok(Some((snapshot, what))) = compiled.await {
        watched.current.swap(snapshot);
        watched.bus.publish(Event::new(clock::now(), Kind::Reloaded { what }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editors_lock_beside_a_worker_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("main.rhai"), "fn email(m, e, c) {}").unwrap();
        std::os::unix::fs::symlink("ann@host.4711", dir.path().join(".#main.rhai")).unwrap();
        let Found { sources, .. } = read_rules(dir.path(), &["main.rhai".to_owned()]).unwrap();
        assert_eq!(sources.keys().collect::<Vec<_>>(), ["main.rhai"]);
    }
}
