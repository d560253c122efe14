//! A command of the program's that runs to its end.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::server::PROGRAM;

/// In `dir`, with nothing to read and nothing of the program's in the environment.
pub fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MAILWORKER") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

/// What it printed; it must have exited with `code`.
#[track_caller]
pub fn exits(output: &Output, code: i32) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    format!("{out}{err}")
}
