//! `deploy`: the rules' files compiled, tested, and put in force as a release; and who waits for a server to take it up.

use std::sync::Arc;
use std::time::Duration;

use super::access::{self, Server, Writer};
use super::args::{Common, Deploy, Test};
use super::print::{self, GOOD, Painted, plain};
use super::{Done, Failure, configured, replay, test};
use crate::admin::api::InForce;
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::config::load::{self, Reading};
use crate::config::route::Pattern;
use crate::diagnostic::Diagnostic;
use crate::reload;
use crate::rules::Release;
use crate::store::releases::{Change, Deployed, Files, NewRelease, Trial};

/// Octets of all files, and of what is said of them.
const MOST: usize = 16 << 20;
const MESSAGE: usize = 1000;
/// How long a running server may take to take it up: it waits until files have been quiet, and compiles.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn run(common: &Common, options: Deploy) -> Done {
    let (config, files) = compiled(common)?;
    access::made(&config).await?;
    let seen = access::reader(&config)?.deployed(&config.env_name)?;
    let trial = trial(&options, &seen)?;
    let version = Release::version_of(&files);
    if trial.is_none() && seen.canary.is_none() && runs_already(&config, &seen, &version)? {
        return print::line(format_args!("nothing to deploy: these files run already (version {version})"));
    }
    let ended = seen.canary.as_ref().filter(|_| trial.is_none()).map(|canary| canary.release);
    let tests = tested(common, &config, options.force)?;
    if let Some(age) = options.replay {
        replayed(common, age, options.yes)?;
    }
    if reload::files(&config).map_err(Failure::Configuration)? != files {
        return Err(Failure::Failed("the rules were changed while they were tested: deploy again".to_owned()));
    }
    let new = NewRelease {
        env: config.env_name.clone(),
        version: version.clone(),
        author: author(options.author),
        message: short(&options.message),
        tests: tests.to_owned(),
        files,
        at: clock::now(),
        seen,
        trial: trial.clone(),
    };
    let writer = Writer::open(&config).await?;
    let deployed = writer.change_release(Change::Deploy(Box::new(new))).await;
    writer.close().await;
    let id = deployed?;
    let on = trial.map(|trial| format!(", tried on {}", trial.share())).unwrap_or_default();
    print::line(format_args!("{} release {id} (version {version}{on})", Painted(GOOD, "deployed")))?;
    if let Some(ended) = ended {
        print::remark(&format!("release {ended} was on trial, which this ends"));
    }
    taken_up(&config, |running| running.active == Some(id) || running.canary == Some(id)).await
}

/// The configuration, and the files of its rules, which compile.
fn compiled(common: &Common) -> Result<(Arc<Config>, Files), Failure> {
    let options = load::Options { secrets: Reading::Unread, ..configured::with_secrets(common) };
    let loaded = Config::load(&options).map_err(|findings| reload::telling_of_release(&options, findings));
    let config = loaded.map_err(Failure::Configuration)?.config;
    let files = reload::files(&config).map_err(Failure::Configuration)?;
    let octets: usize = files.iter().map(|(path, text)| path.len() + text.len()).sum();
    if octets > MOST {
        return Err(Failure::Failed(format!("the rules have {octets} octets, and a release at most {MOST}")));
    }
    fits(Release::compile(&files, &config.rules_mains(), reload::bindings(&config)))?;
    Ok((Arc::new(config), files))
}

/// Whether what was compiled with the configuration as it is can run.
pub fn fits(compiled: Result<(Release, Vec<Diagnostic>), Vec<Diagnostic>>) -> Result<(), Failure> {
    let (_, warnings) = compiled.map_err(Failure::Configuration)?;
    print::diagnostics(&warnings);
    Ok(())
}

fn trial(options: &Deploy, seen: &Deployed) -> Result<Option<Trial>, Failure> {
    if options.percent.is_none() && options.recipients.is_none() {
        return Ok(None);
    }
    if let Some(pattern) = &options.recipients {
        let parsed = Pattern::parse(pattern);
        parsed.map_err(|why| Failure::Usage(format!("--recipients {pattern:?}: {}", why.replace('\n', "; "))))?;
    }
    if seen.active.is_none() {
        let text = "there is no release to try it beside: the first `mailworker deploy` is for all mail";
        return Err(Failure::Usage(text.to_owned()));
    }
    let (percent, recipients) = (options.percent, options.recipients.clone());
    Ok(Some(Trial { percent, recipients, max_errors: options.max_errors, min_runs: options.min_runs }))
}

fn runs_already(config: &Config, seen: &Deployed, version: &str) -> Result<bool, Failure> {
    let Some(active) = seen.active else { return Ok(false) };
    Ok(access::reader(config)?.release(active)?.0.version == version)
}

/// How the tests came out, in words; that they fail ends it unless it is forced.
fn tested(common: &Common, config: &Config, force: bool) -> Result<&'static str, Failure> {
    if !test::are_there(config) {
        print::remark("there are no tests of these rules: `mailworker test --help`");
        return Ok("none");
    }
    match test::run(common, &Test::default()) {
        Ok(()) => Ok("passed"),
        Err(_) if force => {
            print::warning("tests fail, and it is deployed nevertheless (--force)");
            Ok("failed, deployed with --force")
        }
        Err(Failure::Said) => {
            Err(Failure::Failed("tests fail: nothing was deployed (--force goes past them)".to_owned()))
        }
        Err(other) => Err(other),
    }
}

/// What it would have changed is shown, and whoever deploys is asked; nobody is where nothing would.
fn replayed(common: &Common, age: Duration, yes: bool) -> Done {
    let summary = replay::before_deploy(common, age)?;
    if yes || summary.changed == 0 {
        return Ok(());
    }
    let unasked =
        "--replay shows what would change and asks: say --yes where nobody can be asked; nothing was deployed";
    print::confirm("deploy it?", Failure::Failed(unasked.to_owned()), "nothing was deployed")
}

/// Who does it, for the record.
#[must_use]
pub fn author(given: Option<String>) -> String {
    let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok();
    short(&given.or_else(user).filter(|name| !name.is_empty()).unwrap_or_else(|| "somebody".to_owned()))
}

fn short(text: &str) -> String {
    text.get(..text.floor_char_boundary(MESSAGE)).unwrap_or_default().trim().to_owned()
}

/// Waits until the server that runs there, if one does, runs by what was changed.
pub async fn taken_up(config: &Config, is_so: impl Fn(&InForce) -> bool) -> Done {
    let Some(server) = Server::find(&config.data_dir).await? else {
        return print::line("no server runs on this store: its next start takes it up");
    };
    let (mut pause, since) = (tokio::time::interval(Duration::from_millis(50)), Instant::now());
    while since.elapsed() < PATIENCE {
        pause.tick().await;
        let running = server.status().await?.in_force;
        if running.env != config.env_name {
            let shown = |env: &str| if env.is_empty() { "no environment".to_owned() } else { format!("--env {env}") };
            let (theirs, ours) = (shown(&running.env), shown(&config.env_name));
            return print::line(format_args!("the running server has {theirs}: this is for {ours}"));
        }
        if is_so(&running) {
            return print::line("the running server has taken it up");
        }
        let stored = access::reader(config)?.deployed(&config.env_name)?;
        let canary = stored.canary.map(|canary| canary.release);
        if !is_so(&InForce { env: running.env, active: stored.active, canary }) {
            return print::line("somebody has changed what runs again since: `mailworker versions list`");
        }
    }
    let text = format!(
        "the running server hasn't taken it up within {} s: its log says why (`mailworker log list`)",
        PATIENCE.as_secs()
    );
    print::line(plain(&text))?;
    Err(Failure::Said)
}
