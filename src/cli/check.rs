//! `check`: configuration and rules compiled, nothing started. Findings with carets, and where each setting came from.

use std::sync::Arc;

use serde_json::json;

use super::args::{Check, Common};
use super::print::{self, DIM, GOOD, NOTE, Painted, plain};
use super::{Done, Failure, configured};
use crate::config::Config;
use crate::config::load::{self, Reading};
use crate::reload::{self, Source, Stored};

pub fn run(common: &Common, options: Check) -> Done {
    let Check { secrets, machine } = options;
    let secrets = if secrets { Reading::Needed } else { Reading::Wanted };
    let found = load::Options { secrets, ..configured::with_secrets(common) };
    let source = if reload::is_by_store_alone(&found) { Source::Server(found) } else { Source::Files(found) };
    let built = match reload::build(&source, None) {
        Ok(built) => built,
        Err(findings) if machine.json => {
            print::json(&json!({ "ok": false, "findings": findings }))?;
            return Err(Failure::Configuration(Vec::new()));
        }
        Err(findings) => return Err(Failure::Configuration(findings)),
    };
    if machine.json {
        let origins: Vec<_> = built
            .origins
            .iter()
            .map(|(key, value, from)| json!({ "key": key, "value": value, "from": from }))
            .collect();
        let deployed = deployed(&built.snapshot.config)?;
        let all = json!({ "ok": true, "findings": built.warnings, "origins": origins, "deployed": deployed });
        return print::json(&all);
    }
    print::diagnostics(&built.warnings);
    let deployed = deployed(&built.snapshot.config)?;
    let width = built.origins.iter().map(|(key, ..)| key.chars().count()).max().unwrap_or_default();
    for (key, value, from) in &built.origins {
        let (key, value) = (plain(key), print::short(value, 70));
        print::line(format_args!("{key:width$} = {value}  {}", Painted(DIM, plain(from))))?;
    }
    let warnings = match built.warnings.len() as u64 {
        0 => String::new(),
        number => format!(", {}", print::count(number, "warning")),
    };
    let mains = built.snapshot.config.rules_mains().join(", ");
    print::line(format_args!("{}: configuration and {mains}{warnings}", Painted(GOOD, "good")))?;
    deployed.map_or(Ok(()), |deployed| print::line(format_args!("{}: {}", Painted(NOTE, "deployed"), plain(&deployed))))
}

/// Which release a server would run in place of the files, in words: it must fit the configuration as they do.
fn deployed(config: &Arc<Config>) -> Result<Option<String>, Failure> {
    let Some(stored) = Stored::read(config).map_err(Failure::Configuration)? else { return Ok(None) };
    let told = stored.told(config);
    stored.compile(Arc::clone(config), None).map_err(Failure::Configuration)?;
    Ok(Some(told))
}
