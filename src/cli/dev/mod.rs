//! `dev`: the whole server, with a capture sink in place of the world.
//!
//! Runs by ./mailworker.toml, or by what is built in where there is none: nothing needs to be set up. Decisions and
//! deliveries are printed as they happen. Configuration and rules are read again when they change; an error is shown,
//! and what was in force before stays.

mod capture;
mod demo;
mod local;
mod planned;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::args::{Common, Dev};
use super::print::{self, BOLD, DIM, GOOD, Painted, plain};
use super::serve::{self, Asked, Signals};
use super::{Done, Failure, configured, init, tail};
use crate::app::{self, App};
use crate::config::load::{self, Reading};
use crate::config::{Config, ListenAddress, Listener, Secret, TlsMode};
use crate::delivery;
use crate::event::{Bus, Event, Kind};
use crate::reload::{Adjust, Source};
use capture::{Caught, Sink};
use local::Local;

/// Signs what has no key of its own, so that what is captured looks as it would in the world. No secret: it is here.
const KEY: &str = "whsec_bWFpbHdvcmtlciBkZXYgc2lnbmluZyBrZXk=";

pub async fn run(common: &Common, options: &Dev) -> Done {
    // What the log would tell is printed already.
    serve::start_log(&options.log, "off")?;
    let place = Place::choose(options)?;
    let signals = Signals::listen()?;
    let mut sink = Sink::start(&place.dir.join("captured")).await?;
    let source = if options.demo { built_in() } else { source(common) };
    let is_built_in = matches!(source, Source::Embedded { .. });
    let address = if options.demo { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) } else { free("--smtp", options.smtp)? };
    let bus = Bus::new(app::BUS_CAPACITY);
    // Before anything starts: a fault of the start is told too.
    let events = bus.subscribe();
    let app = serve::start(app::Options {
        bus,
        source,
        adjust: Some(adjusted(address, place.dir.join("data"))),
        capture: Some(delivery::Capture { smtp: sink.smtp, http: sink.http.clone() }),
    })
    .await?;
    let done = if options.demo {
        demo::run(&app, events, &mut sink).await
    } else {
        match greeted(&app, &place.dir, is_built_in, options).await {
            Ok(_answering_http) => watch(&app, events, &mut sink, signals).await,
            Err(failure) => Err(failure),
        }
    };
    app.stop().await;
    done
}

/// By HTTP too from here on.
async fn greeted(app: &App, dir: &Path, is_built_in: bool, options: &Dev) -> Result<Local, Failure> {
    let local = Local::start(free("--http", options.http)?, app.answering()).await?;
    greet(app, &local, dir, is_built_in)?;
    Ok(local)
}

/// Where store and captured mail lie; a temporary directory goes when this does.
struct Place {
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl Place {
    fn choose(options: &Dev) -> Result<Self, Failure> {
        if let Some(dir) = &options.data {
            let named = |error| Failure::Failed(format!("--data {}: {error}", dir.display()));
            std::fs::create_dir_all(dir).map_err(named)?;
            return Ok(Self { dir: std::path::absolute(dir)?, _temporary: None });
        }
        let temporary = tempfile::Builder::new().prefix("mailworker-dev-").tempdir()?;
        Ok(Self { dir: temporary.path().to_owned(), _temporary: Some(temporary) })
    }
}

fn built_in() -> Source {
    Source::Embedded { config: init::CONFIG, rules: &init::RULES }
}

/// A configuration that was named or stands here; never one of the machine's own server.
fn source(common: &Common) -> Source {
    let options = configured::for_development(common, Reading::Wanted);
    let by_variable = options.environment.get("MAILWORKER_CONFIG").is_some_and(|name| !name.is_empty());
    if common.config.is_none() && !by_variable && !Path::new("mailworker.toml").is_file() {
        return built_in();
    }
    // Nothing leaves this machine: what only a service can read isn't needed, and is told.
    Source::Files(load::Options { without_tls: true, ..options })
}

/// The address asked for, or another port where that one is taken.
fn free(option: &str, wanted: SocketAddr) -> Result<SocketAddr, Failure> {
    match TcpListener::bind(wanted) {
        Ok(_closed_again) => Ok(wanted),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            print::warning(&format!("{wanted} is in use: another port is taken"));
            Ok(SocketAddr::new(wanted.ip(), 0))
        }
        Err(error) => Err(Failure::Failed(format!("{option} {wanted}: {error}"))),
    }
}

/// What differs from the configuration: where it listens and keeps its store; that nothing goes unsigned.
fn adjusted(address: SocketAddr, data_dir: PathBuf) -> Adjust {
    Arc::new(move |config: &mut Config| {
        let address = ListenAddress::Socket(address);
        config.listeners = vec![Listener { address, tls: TlsMode::Off, proxy_protocol: Vec::new() }];
        config.http.address = None;
        config.data_dir.clone_from(&data_dir);
        if config.webhook_defaults.secrets.is_empty() {
            config.webhook_defaults.secrets = vec![Secret::new(KEY.to_owned())];
        }
    })
}

fn greet(app: &App, local: &Local, dir: &Path, is_built_in: bool) -> Done {
    if is_built_in {
        print::line("built-in configuration and rules; `mailworker init` writes them here to be changed")?;
    }
    for listening in app.listening() {
        print::line(format_args!("{}", Painted(GOOD, listening)))?;
    }
    let http = format!("listening http {} (POST /cdn-cgi/local/email?from=…&to=…)", local.address);
    print::line(format_args!("{}", Painted(GOOD, http)))?;
    let domains = app.config().domains.iter().map(|domain| domain.name.clone()).collect::<Vec<_>>().join(", ");
    print::line(format_args!("takes mail for {}", Painted(BOLD, plain(&domains))))?;
    let kept = dir.join("captured");
    print::line(format_args!("nothing leaves this machine: what would go out lands in {}", kept.display()))?;
    print::line(Painted(DIM, "Ctrl-C ends it"))
}

/// Prints what happens until it is told to stop.
async fn watch(app: &App, mut events: Receiver<Arc<Event>>, sink: &mut Sink, mut signals: Signals) -> Done {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) if tells(&event.kind) => tail::live(&event)?,
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => print::warning(&format!("{missed} events were not shown")),
                Err(RecvError::Closed) => return Ok(()),
            },
            Some(caught) = sink.caught.recv() => shown(&caught)?,
            asked = signals.next() => match asked {
                Asked::Stop => return Ok(()),
                Asked::Reload => app.reload(),
            },
        }
    }
}

/// Each connection by itself tells nothing that the mail in it doesn't; that it runs and where was its greeting.
fn tells(kind: &Kind) -> bool {
    !matches!(kind, Kind::Connected { .. } | Kind::Listening { .. } | Kind::Started { .. })
}

fn shown(caught: &Caught) -> Done {
    print::line(format_args!("{:19}  {caught}", ""))
}
