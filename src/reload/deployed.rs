//! What was deployed to the store, as a part of the snapshot: a server runs that, and the files only where nothing is.

use std::path::Path;
use std::sync::Arc;

use super::{Found, bindings, read_rules};
use crate::config::Config;
use crate::config::load::{self, Loaded};
use crate::config::route::Pattern;
use crate::diagnostic::{Diagnostic, Severity};
use crate::intake::Snapshot;
use crate::intake::canary::{Canary, Deployed, Share};
use crate::rules::Release;
use crate::store::Reader;
use crate::store::releases::{self, Files};

/// The configuration of a server. Where a release is deployed, the rules' files needn't be there.
///
/// # Errors
/// As [`Config::load`].
pub(super) fn load(options: &load::Options) -> Result<Loaded, Vec<Diagnostic>> {
    Config::load(options).or_else(|findings| match by_store(options) {
        Some(_) => Config::load(&without_rules(options)),
        None => Err(findings),
    })
}

fn without_rules(options: &load::Options) -> load::Options {
    load::Options { without_rules: true, ..options.clone() }
}

/// The release that is deployed, with the configuration as far as its errors let it be told: these are another matter.
fn by_store(options: &load::Options) -> Option<(i64, Config)> {
    let config = Config::surmised(&without_rules(options))?;
    let release = Reader::if_there(&config.data_dir).ok()??.deployed(&config.env_name).ok()?.active?;
    Some((release, config))
}

/// Whether what runs lies in the store alone: a release is deployed, and none of the files is there.
#[must_use]
pub fn is_by_store_alone(options: &load::Options) -> bool {
    by_store(options).is_some_and(|(_, config)| has_no_files(&config))
}

/// What was found by a command that wants the rules' files; where what runs lies in the store alone, with that beside it.
#[must_use]
pub fn telling_of_release(options: &load::Options, mut findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let Some((release, _)) = by_store(options).filter(|(_, config)| has_no_files(config)) else { return findings };
    let of_the_rest = Config::load(&without_rules(options)).err().unwrap_or_default();
    for missing in findings.iter_mut().filter(|finding| !of_the_rest.contains(finding)) {
        let runs = format!(
            "release {release} is deployed and runs without it: `mailworker versions show {release}` shows its files"
        );
        missing.help = Some(missing.help.take().map_or(runs.clone(), |help| format!("{help}; {runs}")));
    }
    findings
}

fn has_no_files(config: &Config) -> bool {
    config.rules_mains().iter().all(|main| !config.base_dir.join(main).exists())
}

/// What the store says is to run.
pub struct Stored {
    pub deployed: releases::Deployed,
    active: (releases::Release, Files),
    canary: Option<(releases::Canary, releases::Release, Files)>,
}

impl Stored {
    /// `None`: nothing is deployed in this environment, or its rules are files again.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn read(config: &Config) -> Result<Option<Self>, Vec<Diagnostic>> {
        let place = config.data_dir.display().to_string();
        let read = || {
            let Some(reader) = Reader::if_there(&config.data_dir)? else { return Ok(None) };
            let deployed = reader.deployed(&config.env_name)?;
            let Some(active) = deployed.active else { return Ok(None) };
            let active = reader.release(active)?;
            let on_trial = deployed.canary.clone().map(|canary| {
                let (release, files) = reader.release(canary.release)?;
                Ok::<_, crate::store::StoreError>((canary, release, files))
            });
            Ok(Some(Self { canary: on_trial.transpose()?, deployed, active }))
        };
        read().map_err(|error: crate::store::StoreError| {
            vec![Diagnostic::unplaced(place, format!("what is deployed can't be read: {error}"))]
        })
    }

    /// Whether it is what this snapshot runs.
    #[must_use]
    pub fn is_in_force(&self, snapshot: &Snapshot) -> bool {
        let canary = self.deployed.canary.as_ref().map(|canary| canary.release);
        let running = snapshot.deployed.as_ref();
        running.is_some_and(|running| {
            Some(running.active) == self.deployed.active && running.canary.as_ref().map(|canary| canary.id) == canary
        })
    }

    /// Compiled for this configuration. Counts go on where the same release is on trial in `before`.
    ///
    /// # Errors
    /// The active release doesn't compile. One on trial that doesn't isn't tried, which is among the warnings.
    pub fn compile(
        self,
        config: Arc<Config>,
        before: Option<&Snapshot>,
    ) -> Result<(Snapshot, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mains = config.rules_mains();
        let (active, files) = &self.active;
        let id = active.id;
        let (release, mut warnings) = Release::compile_deployed(files, &mains, bindings(&config)).map_err(|mut findings| {
            let help = "these are the files of that release, not those below the configuration: `mailworker rollback`, \
                        `mailworker deploy`, or give the configuration what it needs";
            let which = Diagnostic::unplaced("", format!("the deployed release {id} doesn't fit the configuration"));
            findings.push(Diagnostic { help: Some(help.to_owned()), ..which });
            findings
        })?;
        let canary = self.canary.and_then(|(canary, stored, files)| {
            let same = before.and_then(Snapshot::canary).filter(|known| known.id == stored.id);
            let counts = same.map(|known| Arc::clone(&known.counts)).unwrap_or_default();
            match on_trial(canary, &files, &config, counts) {
                Ok(canary) => Some(canary),
                Err(why) => {
                    let what = format!("release {} isn't tried: {why}", stored.id);
                    warnings.push(Diagnostic { severity: Severity::Warning, ..Diagnostic::unplaced("", what) });
                    None
                }
            }
        });
        let deployed = Some(Deployed { active: id, canary });
        Ok((Snapshot { config, release: Arc::new(release), deployed }, warnings))
    }

    /// What runs, in words, with what an admin must know who looks at the files.
    #[must_use]
    pub fn told(&self, config: &Config) -> String {
        let (active, files) = &self.active;
        let mut told = format!("release {} ({}) by {}: {}", active.id, active.version, active.author, active.message);
        if let Some((canary, release, _)) = &self.canary {
            told = format!("{told}; release {} ({}) on {}", release.id, release.version, canary.trial.share());
        }
        let found = read_rules(&config.base_dir, &config.rules_mains());
        if has_no_files(config) || found.is_ok_and(|Found { sources, .. }| sources == *files) {
            return told;
        }
        let folder = Path::new(&config.main).parent().unwrap_or(Path::new("")).display().to_string();
        format!(
            "{told}; what is in {folder}/ is not what runs: `mailworker deploy` puts it in force, `mailworker rollback files` \
             goes back to running files"
        )
    }
}

fn on_trial(
    canary: releases::Canary,
    files: &Files,
    config: &Config,
    counts: Arc<crate::intake::canary::Counts>,
) -> Result<Canary, String> {
    let trial = canary.trial;
    let share = match &trial.recipients {
        Some(text) => Share::Recipients(Box::new(Pattern::parse(text)?)),
        None => Share::Percent(trial.percent.unwrap_or_default()),
    };
    let compiled = Release::compile_deployed(files, &config.rules_mains(), bindings(config));
    let (release, _) =
        compiled.map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let (max_errors, min_runs) = (trial.max_errors, trial.min_runs);
    Ok(Canary { id: canary.release, release: Arc::new(release), share, max_errors, min_runs, counts })
}
