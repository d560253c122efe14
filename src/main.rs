//! Command line ─► command ─► exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailworker::cli::main()
}
