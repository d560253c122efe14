//! The rules as they lie in folders: every script below those of the workers, within bounds, and the links among them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Severity};

/// Bounds on what is read below `rules/`.
const MAX_FILES: usize = 5_000;
const MAX_DEPTH: usize = 16;
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// What lies in a folder of this name is no part of the rules.
const TESTS: &str = "tests";

/// What was found below the folders of the mains.
#[derive(Default)]
pub(super) struct Found {
    pub sources: BTreeMap<String, String>,
    /// What is to be watched: the folders, and links among what is in them, which lead elsewhere.
    pub links: Vec<PathBuf>,
    pub warnings: Vec<Diagnostic>,
}

/// Every `.rhai` below the folders of the mains, by the path the configuration would name it by; and what to watch.
pub(super) fn read_rules(base: &Path, mains: &[String]) -> Result<Found, Vec<Diagnostic>> {
    let mut found = Found::default();
    let mut folders = Vec::new();
    let mut findings = Vec::new();
    for main in mains {
        let folder = Path::new(main).parent().unwrap_or(Path::new(""));
        let absolute = base.join(folder);
        if folders.contains(&absolute) {
            continue;
        }
        folders.push(absolute.clone());
        if let Err(finding) = read_folder(&absolute, &folder.to_string_lossy(), 0, &mut found) {
            findings.push(*finding);
        }
    }
    for main in mains {
        if !found.sources.contains_key(main) {
            findings.push(Diagnostic {
                help: Some("name a worker by `main`, or write this one; `mailworker init` makes an example".into()),
                ..Diagnostic::unplaced(main, format!("no such file below {}", base.display()))
            });
        }
    }
    folders.append(&mut found.links);
    found.links = folders;
    if findings.is_empty() { Ok(found) } else { Err(findings) }
}

pub(super) fn read_folder(folder: &Path, name: &str, depth: usize, found: &mut Found) -> Result<(), Box<Diagnostic>> {
    let trouble = |path: &str, error: &dyn std::fmt::Display| {
        Box::new(Diagnostic::unplaced(path, format!("can't be read: {error}")))
    };
    if depth > MAX_DEPTH {
        return Err(Box::new(Diagnostic::unplaced(name, format!("folders are nested deeper than {MAX_DEPTH}"))));
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(|error| trouble(name, &error))?;
        let file_name = entry.file_name();
        // Hidden ones are editors' own: locks that are links to nowhere, copies half written.
        let Some(file_name) = file_name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let path = if name.is_empty() { file_name.to_owned() } else { format!("{name}/{file_name}") };
        let metadata = match std::fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                leads_nowhere(&entry, path, found);
                continue;
            }
            Err(error) => return Err(trouble(&path, &error)),
        };
        let is_script = is_script(&entry.path());
        let is_read = metadata.is_dir() || is_script;
        if is_read && entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            found.links.push(entry.path());
        }
        if metadata.is_dir() && file_name == TESTS {
            continue;
        }
        if metadata.is_dir() {
            read_folder(&entry.path(), &path, depth + 1, found)?;
        } else if is_read {
            if metadata.len() > MAX_FILE || found.sources.len() >= MAX_FILES {
                let limits = format!("more than {MAX_FILES} files or {MAX_FILE} bytes in one");
                return Err(Box::new(Diagnostic::unplaced(&path, limits)));
            }
            let text = std::fs::read_to_string(entry.path()).map_err(|error| trouble(&path, &error))?;
            found.sources.insert(path, text);
        }
    }
    Ok(())
}

/// `main.rhai`, but not `mailworker.d.rhai`, in which editors read the API.
fn is_script(path: &Path) -> bool {
    let has = |path: &Path, wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
    has(path, "rhai") && !path.file_stem().is_some_and(|stem| has(Path::new(stem), "d"))
}

/// Who imports it is told that there is no such module; nobody else misses it.
fn leads_nowhere(entry: &std::fs::DirEntry, path: String, found: &mut Found) {
    // Gone since the folder was read.
    let Ok(target) = std::fs::read_link(entry.path()) else { return };
    found.links.push(entry.path());
    let message = format!("this link leads nowhere: {} isn't there", target.display());
    found.warnings.push(Diagnostic { severity: Severity::Warning, ..Diagnostic::unplaced(path, message) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_editors_lock_beside_a_worker_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("main.rhai"), "fn email(m, e, c) {}").unwrap();
        std::os::unix::fs::symlink("ann@host.4711", dir.path().join(".#main.rhai")).unwrap();
        let Found { sources, .. } = read_rules(dir.path(), &["main.rhai".to_owned()]).unwrap();
        assert_eq!(sources.keys().collect::<Vec<_>>(), ["main.rhai"]);
    }
}
