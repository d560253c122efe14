//! The command line: arguments ─► command ─► exit code. One file for each group of commands.
//!
//! What is printed for people goes through `print`, which neutralises whatever came from a peer; what is printed for
//! programs is JSON. Standard output is for the answer, standard error for what went wrong and for the log.
//! A command reads the store by itself. It writes through a running server's control socket, or, where none runs, by
//! opening the store itself ([`access`]).
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 78 (`EX_CONFIG`) wrong configuration or rules.

pub mod access;
pub mod args;
pub mod check;
pub mod configured;
pub mod deploy;
pub mod dev;
pub mod dialogue;
pub mod explain;
pub mod generate;
pub mod import;
pub mod init;
pub mod kv;
pub mod log;
pub mod messages;
pub mod pages;
pub mod print;
pub mod progress;
pub mod queue;
pub mod replay;
pub mod secret;
pub mod send;
pub mod serve;
pub mod session;
pub mod show;
pub mod store;
pub mod tail;
pub mod test;
pub mod trigger;
pub mod versions;

use std::process::ExitCode;

use crate::diagnostic::Diagnostic;
use crate::rules::THREAD_STACK;
use crate::telemetry;
use args::{Arguments, Command};

/// The configuration, or the rules, are wrong (`EX_CONFIG` of sysexits).
const EX_CONFIG: u8 = 78;

/// Why a command didn't do what it was asked to.
#[derive(Debug)]
pub enum Failure {
    /// 1: one line for a person.
    Failed(String),
    /// 1: everything that is to be said was printed.
    Said,
    /// 2: the arguments contradict each other or the configuration.
    Usage(String),
    /// 78: what is wrong with configuration or rules, each with its place.
    Configuration(Vec<Diagnostic>),
    /// Whoever read our output went away: nothing to say, and nobody to say it to.
    Unread,
}

impl Failure {
    pub fn failed(text: impl std::fmt::Display) -> Self {
        Self::Failed(text.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::Unread } else { Self::Failed(error.to_string()) }
    }
}

impl From<crate::store::StoreError> for Failure {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What every command comes to.
pub type Done = Result<(), Failure>;

/// Parses the arguments, runs the command, says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = args::parse();
    print::choose_color(arguments.common.color);
    // The one TLS provider of the process: reqwest looks for it here.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let done = run(arguments);
    telemetry::flush();
    match done {
        Ok(()) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Err(Failure::Said) => ExitCode::FAILURE,
        Err(Failure::Failed(text)) => {
            print::error(&text);
            ExitCode::FAILURE
        }
        Err(Failure::Usage(text)) => {
            print::error(&text);
            ExitCode::from(2)
        }
        Err(Failure::Configuration(findings)) => {
            print::diagnostics(&findings);
            ExitCode::from(EX_CONFIG)
        }
    }
}

fn run(arguments: Arguments) -> Done {
    let common = &arguments.common;
    match arguments.command {
        Command::Init(options) => init::run(&options),
        Command::Import(options) => import::run(common, &options),
        Command::Check(options) => check::run(common, options),
        Command::Serve(options) => runtime()?.block_on(serve::run(common, &options)),
        Command::Dev(options) => runtime()?.block_on(dev::run(common, &options)),
        Command::Completions { shell } => generate::completions(shell),
        Command::Definitions => generate::definitions(),
        Command::Man => generate::man(),
        Command::Explain(options) => explain::run(common, &options),
        Command::Trigger(options) => runtime()?.block_on(trigger::run(common, &options)),
        Command::Session(options) => session::run(common, &options),
        Command::Test(options) => test::run(common, &options),
        Command::Replay(options) => replay::run(common, &options),
        Command::Deploy(options) => runtime()?.block_on(deploy::run(common, options)),
        Command::Versions(verb) => runtime()?.block_on(versions::run(common, verb)),
        Command::Rollback(options) => runtime()?.block_on(versions::rollback(common, options)),
        Command::Send(options) => runtime()?.block_on(send::run(common, &options)),
        Command::Messages(verb) => messages::run(common, verb),
        Command::Log(verb) => log::run(common, verb),
        Command::Queue(verb) => runtime()?.block_on(queue::run(common, verb)),
        Command::Kv(verb) => runtime()?.block_on(kv::run(common, verb)),
        Command::Secret(verb) => runtime()?.block_on(secret::run(common, verb)),
        Command::Tail(options) => runtime()?.block_on(tail::run(common, &options)),
        Command::Backup(options) => runtime()?.block_on(store::backup(common, &options)),
        Command::Store(args::Store::Check { repair, machine }) => store::check(common, repair, machine),
    }
}

/// Its threads have room for a worker's run.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_stack_size(THREAD_STACK).build().map_err(Failure::from)
}
