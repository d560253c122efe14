//! Waits until the files have been quiet after a change, builds anew, and swaps what is in force; or keeps it, and says why.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::watch::{Places, Told, notifier};
use super::{Adjust, Source, Stored, Watch, build_after};
use crate::clock;
use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::event::{Bus, Event, Kind};
use crate::intake::Current;
use crate::listener::TlsState;

/// Editors write a file in several steps: how long it must have been quiet.
const QUIET: Duration = Duration::from_millis(150);
/// As many changes are waited out.
const MAX_STEPS: usize = 20;
/// How often the files are looked at whether or not a change was told of.
const LOOK_EVERY: Duration = Duration::from_hours(1);

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
