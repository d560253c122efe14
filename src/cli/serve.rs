//! `serve`: runs the server until it is told to stop. One line for each listener once it listens, and word to systemd.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::args::{Common, Log, LogFormat, Serve};
use super::{Done, Failure, configured, print};
use crate::app::{self, App, StartError};
use crate::event::{Bus, Event};
use crate::reload::Source;
use crate::telemetry;

pub async fn run(common: &Common, options: &Serve) -> Done {
    start_log(&options.log, "info")?;
    raise_open_files();
    let mut signals = Signals::listen()?;
    let source = Source::Server(configured::with_secrets(common));
    let bus = Bus::new(app::BUS_CAPACITY);
    if options.machine.json {
        // Before anything starts: what happens while it does is told too.
        print_each(bus.subscribe());
    }
    let app = start(app::Options { source, adjust: None, capture: None, bus }).await?;
    if !options.machine.json {
        announce(&app).unwrap_or_else(|failure| unread(&failure));
    }
    tell(&[NotifyState::Ready]);
    while let Asked::Reload = signals.next().await {
        // Told before it starts; its end can't be told of: it goes on in the background (sd_notify(3)).
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        app.reload();
        tell(&[NotifyState::Ready]);
    }
    tell(&[NotifyState::Stopping]);
    tokio::select! {
        () = app.stop() => Ok(()),
        () = signals.stop() => Err(Failure::Failed("stopped before open sessions and deliveries had ended".to_owned())),
    }
}

/// As many open files as the system grants: each connection is one, and the 1,024 that a process begins with would be
/// gone before `[limits] connections` is reached; a store that can't open its own files puts all mail off.
fn raise_open_files() {
    let granted = getrlimit(Resource::Nofile).maximum;
    let _what_there_was_stays = setrlimit(Resource::Nofile, Rlimit { current: granted, maximum: granted });
}

/// Mail goes on, whoever has ceased to read what is printed.
fn unread(failure: &Failure) {
    let why = match failure {
        Failure::Failed(text) => text.as_str(),
        _ => "nobody reads it",
    };
    print::warning(&format!("standard output is gone ({why}): nothing more is printed there, the server goes on"));
}

/// One line for each listener, and one for the release in force.
fn announce(app: &App) -> Done {
    app.listening().into_iter().chain(app.http()).try_for_each(|listening| print::line(&listening))?;
    app.deployed().map_or(Ok(()), |rules| print::line(format_args!("running {}", print::plain(rules))))
}

/// As JSON, on a thread of its own, so that whoever reads slowly loses events and holds up nothing.
fn print_each(mut events: Receiver<Arc<Event>>) {
    std::thread::spawn(move || {
        loop {
            match events.blocking_recv().map(|event| print::json(&*event)) {
                Ok(Ok(())) | Err(RecvError::Lagged(_)) => {}
                Ok(Err(failure)) => return unread(&failure),
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Starts every part; warnings are shown, errors told apart by whose they are.
pub async fn start(options: app::Options) -> Result<App, Failure> {
    match App::start(options).await {
        Ok(app) => {
            print::diagnostics(app.warnings());
            Ok(app)
        }
        Err(StartError::Config(findings)) => Err(Failure::Configuration(findings)),
        Err(error) => Err(Failure::failed(error)),
    }
}

/// The log goes to standard error, in the form and at the level asked for.
pub fn start_log(log: &Log, level: &str) -> Result<(), Failure> {
    let level = log.log_level.as_deref().filter(|level| !level.is_empty()).unwrap_or(level);
    let format = match log.log {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::init(format, level, print::colour()).map_err(Failure::Usage)
}

fn tell(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell; with it, a failure shows as a start that never ends.
    let _nobody_listens = sd_notify::notify(states);
}

/// What a signal asks for.
pub enum Asked {
    Reload,
    Stop,
}

/// SIGTERM, SIGINT, SIGHUP.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// The next signal that asks for a stop.
    pub async fn stop(&mut self) {
        while let Asked::Reload = self.next().await {}
    }
}
