//! `versions` and `rollback`: releases that are there, what differs between them, and which of them runs.

use serde_json::json;
use similar::TextDiff;

use super::access::{self, Writer};
use super::args::{Common, Rollback, Versions};
use super::deploy::{author, fits, taken_up};
use super::print::{self, BAD, BOLD, DIM, GOOD, NOTE, Painted, plain};
use super::{Done, Failure, configured};
use crate::clock;
use crate::config::Config;
use crate::config::load::{self, Reading};
use crate::reload;
use crate::rules;
use crate::store::Reader;
use crate::store::releases::{Activation, Change, Deployed, Files, Release, Stop};

/// Releases among which one is looked for by how its version begins: all that are kept.
const ALL: usize = 1000;
/// What the files below the configuration are called.
const FILES: &str = "files";

pub async fn run(common: &Common, verb: Versions) -> Done {
    let config = configured::load(common)?.config;
    let reader = access::reader(&config)?;
    match verb {
        Versions::List { limit, machine } => list(&config, &reader, limit, machine.json),
        Versions::Show { release, file, machine } => {
            let (found, files) = reader.release(find(&config, &reader, &release)?)?;
            match file {
                Some(path) => one_file(&files, &path),
                None => show(&config, &reader, &found, &files, machine.json),
            }
        }
        Versions::Diff { from, to } => {
            let (old, new) = (files_of(&config, &reader, &from)?, files_of(&config, &reader, &to)?);
            diff((&from, &old), (&to, &new))
        }
        Versions::Promote { author: by } => {
            let seen = reader.deployed(&config.env_name)?;
            let canary = seen.canary.as_ref().ok_or_else(|| {
                Failure::Failed("no release is on trial: `mailworker deploy --percent 10` begins one".to_owned())
            })?;
            let release = canary.release;
            activate(common, &config, Some(release), "promote", by, seen).await
        }
    }
}

pub async fn rollback(common: &Common, options: Rollback) -> Done {
    let config = configured::load(common)?.config;
    let reader = access::reader(&config)?;
    let seen = reader.deployed(&config.env_name)?;
    let Some(wanted) = options.release else {
        return match (&seen.canary, seen.active) {
            (Some(canary), _) => {
                let release = canary.release;
                end_trial(&config, release, &author(options.author)).await
            }
            (None, Some(active)) => {
                let before = reader.release_before(&config.env_name, active)?.ok_or_else(|| {
                    Failure::Failed(format!(
                        "no release ran before release {active}: `mailworker rollback files` runs the files again"
                    ))
                })?;
                activate(common, &config, Some(before.id), "rollback", options.author, seen).await
            }
            (None, None) => Err(Failure::Failed("nothing is deployed: the files run".to_owned())),
        };
    };
    let release = if wanted == FILES { None } else { Some(find(&config, &reader, &wanted)?) };
    if release == seen.active && seen.canary.is_none() {
        let what = release.map_or_else(|| "the files run".to_owned(), |id| format!("release {id} runs"));
        return print::line(format_args!("nothing to do: {what} already"));
    }
    activate(common, &config, release, "rollback", options.author, seen).await
}

async fn activate(
    common: &Common,
    config: &Config,
    release: Option<i64>,
    verb: &str,
    by: Option<String>,
    seen: Deployed,
) -> Done {
    // With its secrets' names, as a server compiles it.
    let options = load::Options { secrets: Reading::Unread, without_rules: true, ..configured::with_secrets(common) };
    let whole = Config::load(&options).map_err(Failure::Configuration)?.config;
    let (mains, bindings) = (whole.rules_mains(), reload::bindings(&whole));
    fits(match release {
        Some(id) => rules::Release::compile_deployed(&access::reader(config)?.release(id)?.1, &mains, bindings),
        None => rules::Release::compile(&reload::files(&whole).map_err(Failure::Configuration)?, &mains, bindings),
    })?;
    let change = Activation {
        env: config.env_name.clone(),
        release,
        verb: verb.to_owned(),
        author: author(by),
        at: clock::now(),
        seen,
    };
    change_release(config, Change::Activate(change)).await?;
    let what = release.map_or_else(|| "the files".to_owned(), |id| format!("release {id}"));
    print::line(format_args!("{} {what} from now on", Painted(GOOD, "runs")))?;
    taken_up(config, |running| running.active == release && running.canary.is_none()).await
}

async fn end_trial(config: &Config, release: i64, by: &str) -> Done {
    let reason = format!("rolled back by {by}");
    let stop = Stop { env: config.env_name.clone(), release, reason, at: clock::now() };
    change_release(config, Change::Stop(stop)).await?;
    print::line(format_args!("{} release {release} is tried no more", Painted(GOOD, "ended")))?;
    taken_up(config, |running| running.canary.is_none()).await
}

async fn change_release(config: &Config, change: Change) -> Result<(), Failure> {
    let writer = Writer::open(config).await?;
    let changed = writer.change_release(change).await;
    writer.close().await;
    changed.map(drop)
}

/// A number, or how a version begins; the newest of those that it may mean, and one of this environment.
fn find(config: &Config, reader: &Reader, text: &str) -> Result<i64, Failure> {
    let all = reader.releases(&config.env_name, ALL)?;
    let number = text.trim_start_matches('#').parse::<i64>().ok();
    let by_number = all.iter().find(|release| Some(release.id) == number);
    let by_version = || all.iter().find(|release| text.len() >= 4 && release.version.starts_with(text));
    by_number.or_else(by_version).map(|release| release.id).ok_or_else(|| {
        let known: Vec<String> = all.iter().take(5).map(|release| release.id.to_string()).collect();
        let hint = if known.is_empty() {
            "nothing was ever deployed here".to_owned()
        } else {
            format!("the newest are {}; `mailworker versions list` has all", known.join(", "))
        };
        Failure::Failed(format!("there is no release {text:?}: {hint}"))
    })
}

fn state(deployed: &Deployed, id: i64) -> Option<&'static str> {
    if deployed.active == Some(id) {
        Some("active")
    } else if deployed.canary.as_ref().is_some_and(|canary| canary.release == id) {
        Some("on trial")
    } else {
        None
    }
}

fn list(config: &Config, reader: &Reader, limit: usize, json: bool) -> Done {
    let deployed = reader.deployed(&config.env_name)?;
    let releases = reader.releases(&config.env_name, limit)?;
    if json {
        return releases.iter().try_for_each(|release| print::json(&as_json(&deployed, release)));
    }
    if deployed.active.is_none() {
        print::remark("no release runs: the files do");
    }
    for release in &releases {
        let state = state(&deployed, release.id);
        let style = match state {
            Some("active") => GOOD,
            Some(_) => NOTE,
            None => DIM,
        };
        let (id, when) = (release.id, print::time(release.at));
        let rest = format!("{when}  {}  {}", release.author, release.message);
        let tests = if release.tests == "passed" { String::new() } else { format!("  (tests: {})", release.tests) };
        let state = Painted(style, format!("{:<8}", state.unwrap_or_default()));
        print::line(format_args!(
            "{id:>4}  {}  {state}  {}{}",
            release.version,
            plain(rest.trim_end()),
            Painted(DIM, tests)
        ))?;
    }
    Ok(())
}

fn as_json(deployed: &Deployed, release: &Release) -> serde_json::Value {
    let trial = deployed.canary.as_ref().filter(|canary| canary.release == release.id).map(|canary| &canary.trial);
    let mut value = json!(release);
    if let Some(fields) = value.as_object_mut() {
        fields.insert("state".to_owned(), json!(state(deployed, release.id)));
        fields.insert("trial".to_owned(), json!(trial));
    }
    value
}

fn show(config: &Config, reader: &Reader, release: &Release, files: &Files, json: bool) -> Done {
    let deployed = reader.deployed(&config.env_name)?;
    let sizes: Vec<_> = files.iter().map(|(path, text)| json!({ "path": path, "size": text.len() })).collect();
    if json {
        let mut value = as_json(&deployed, release);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("files".to_owned(), json!(sizes));
        }
        return print::json(&value);
    }
    let since = release.active_since.map_or_else(|| "never".to_owned(), print::time);
    let trial = deployed.canary.as_ref().filter(|canary| canary.release == release.id);
    let mut lines = vec![
        ("release", release.id.to_string()),
        ("version", release.version.clone()),
        ("state", state(&deployed, release.id).unwrap_or("kept").to_owned()),
        ("deployed", format!("{} by {}", print::time(release.at), release.author)),
        ("active", since),
        ("message", release.message.clone()),
        ("tests", release.tests.clone()),
    ];
    lines.extend(trial.map(|canary| ("trial", canary.trial.share())));
    for (name, value) in lines {
        print::line(format_args!("{:<9} {}", Painted(BOLD, name), plain(&value)))?;
    }
    for (path, text) in files {
        print::line(format_args!("  {}  {}", plain(path), Painted(DIM, format!("{} bytes", text.len()))))?;
    }
    Ok(())
}

fn one_file(files: &Files, path: &str) -> Done {
    if let Some(text) = files.get(path) {
        return print::text(text);
    }
    let known = files.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    Err(Failure::Failed(format!("it has no file {path:?}: there are {known}")))
}

fn files_of(config: &Config, reader: &Reader, text: &str) -> Result<Files, Failure> {
    if text == FILES {
        return reload::files(config).map_err(Failure::Configuration);
    }
    Ok(reader.release(find(config, reader, text)?)?.1)
}

/// As `diff -u` writes it, file by file.
fn diff((from, old): (&str, &Files), (to, new): (&str, &Files)) -> Done {
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let mut differs = false;
    for path in paths {
        let (before, after) = (old.get(path).map_or("", String::as_str), new.get(path).map_or("", String::as_str));
        if before == after {
            continue;
        }
        differs = true;
        let text = TextDiff::from_lines(before, after);
        let names = (format!("{from}/{path}"), format!("{to}/{path}"));
        let unified = text.unified_diff().context_radius(3).header(&names.0, &names.1).to_string();
        for line in unified.lines() {
            let style = match line.as_bytes().first() {
                Some(b'+') => GOOD,
                Some(b'-') => BAD,
                Some(b'@') => NOTE,
                _ => DIM,
            };
            print::line(Painted(style, plain(line)))?;
        }
    }
    if differs { Ok(()) } else { print::line("no file differs") }
}
