//! From files to a snapshot, at the start and again whenever they change: start is a reload from empty.
//!
//! Reads configuration and rules, compiles, and hands over a [`Built`] that is whole or the findings that say why not;
//! what was in force before stays in force then. Watches the files (and SIGHUP, through [`Watcher::nudge`]).
//! Input: files. Output: a new snapshot in [`Current`](crate::intake::Current), a new certificate in `TlsState`, an Event
//! either way. `reload/folder.rs` reads the rules, `reload/watch.rs` knows in which places a change shows, and
//! `reload/watcher.rs` acts on it.

mod deployed;
mod folder;
mod watch;
mod watcher;

pub use deployed::{Stored, is_by_store_alone, telling_of_release};
pub use watch::Watch;
pub use watcher::{Swapped, Watched, Watcher};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock;
use crate::config::{Config, load};
use crate::diagnostic::{Diagnostic, Severity};
use crate::intake::Snapshot;
use crate::listener::TlsState;
use crate::rules::engine::Budget;
use crate::rules::{Bindings, Release, Secrets};

use folder::{Found, read_folder, read_rules};

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
