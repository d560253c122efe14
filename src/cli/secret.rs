//! `secret`: values that go into the store sealed, and never come out of a command again.

use std::io::{IsTerminal as _, Read as _};
use std::sync::Arc;

use serde_json::json;

use super::access::{self, Writer};
use super::args::{Common, Secret};
use super::print::{self, DIM, GOOD, Painted};
use super::{Done, Failure, configured, show};
use crate::admin::api::{SecretDelete, SecretPut};
use crate::config::Config;
use crate::config::load::{self, Reading};
use crate::diagnostic::suggest;
use crate::reload;
use crate::store::within;
use crate::vault::{MOST, Sealer, hex};

pub async fn run(common: &Common, verb: Secret) -> Done {
    let config = Arc::new(configured::load(common)?.config);
    let env = common.env.clone().unwrap_or_default();
    match verb {
        Secret::Put { name } => {
            free(&config, &name)?;
            let value = value(&name)?;
            access::made(&config).await?;
            let writer = Writer::open(&config).await?;
            let sealer = Sealer::new(configured::options(common), move || Arc::clone(&config));
            let put = writer.secret_put(SecretPut { env: env.clone(), name: name.clone(), value }, &sealer).await;
            writer.close().await;
            put?;
            print::line(show::told(GOOD, "put", &format!("{name}{}", within(&env))))
        }
        Secret::List { machine } => list(&config, &env, machine.json),
        Secret::Delete { name, force } => {
            known(&config, &env, &name)?;
            if !force {
                is_needed_by_none(common, &name)?;
            }
            let writer = Writer::open(&config).await?;
            let deleted = writer.secret_delete(SecretDelete { env: env.clone(), name: name.clone() }).await;
            writer.close().await;
            deleted?;
            print::line(show::told(GOOD, "deleted", &format!("{name}{}", within(&env))))
        }
    }
}

/// A worker finds one thing by one name.
fn free(config: &Config, name: &str) -> Result<(), Failure> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    if !begins || name.len() > 64 || !bytes.all(|octet| octet.is_ascii_alphanumeric() || octet == b'_') {
        let text = "a secret's name is letters, digits and `_`, not beginning with a digit: a script says env.NAME";
        return Err(Failure::Usage(text.to_owned()));
    }
    let what = if config.vars.contains_key(name) {
        "a variable of [vars]"
    } else if config.kv_namespaces.iter().any(|known| known == name) {
        "a KV namespace"
    } else if config.webhook(name).is_some() {
        "a webhook"
    } else if config.destination(name).is_some() {
        "a destination"
    } else {
        return Ok(());
    };
    Err(Failure::Usage(format!("{name} is {what} already, and a worker finds both as env.{name}: choose another name")))
}

/// A slip in a name is answered with the one that was meant.
fn known(config: &Config, env: &str, name: &str) -> Result<(), Failure> {
    let names: Vec<String> = access::reader(config)?.secrets(env)?.into_iter().map(|sealed| sealed.name).collect();
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let hint = match suggest(name, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant}?"),
        None if names.is_empty() => "none is kept".to_owned(),
        None => format!("there are: {}", names.join(", ")),
    };
    Err(Failure::Failed(format!("there is no secret {name:?}{}: {hint}", within(env))))
}

/// What a server that runs has, its next start would lack, mostly in the middle of some night.
fn is_needed_by_none(common: &Common, name: &str) -> Done {
    for secrets in [Reading::Needed, Reading::Unread] {
        let with = load::Options { secrets, without_tls: true, ..configured::with_secrets(common) };
        // A shell that has none of the service's own secrets can tell of the rules alone.
        if reload::in_force(&with).is_err() {
            continue;
        }
        let kept = with.kept.clone().map(|kept| kept.without(name.to_owned()));
        if let Err(findings) = reload::in_force(&load::Options { kept, ..with }) {
            print::diagnostics(&findings);
            let text = format!("{name} is needed, so it wasn't deleted: change what names it first, or --force");
            return Err(Failure::Failed(text));
        }
        return Ok(());
    }
    Ok(())
}

/// From a terminal without echo, else all of standard input but a line end at its end.
fn value(name: &str) -> Result<String, Failure> {
    let mut value = String::new();
    if std::io::stdin().is_terminal() {
        value = rpassword::prompt_password(format!("{name} (what you type isn't shown): "))?;
    } else {
        let most = MOST as u64 + 2;
        let read = std::io::stdin().take(most + 1).read_to_string(&mut value);
        read.map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
        if let Some(shorter) = value.strip_suffix('\n') {
            value.truncate(shorter.strip_suffix('\r').unwrap_or(shorter).len());
        }
    }
    match value.len() {
        0 => Err(Failure::Usage(format!(
            "no value came for {name}: type it at a terminal, or redirect standard input from a file"
        ))),
        1..=MOST => Ok(value),
        _ => Err(Failure::Usage(format!("a secret has at most {MOST} octets"))),
    }
}

fn list(config: &Config, env: &str, json: bool) -> Done {
    let kept = access::reader(config)?.secrets(env)?;
    let width = kept.iter().map(|sealed| sealed.name.len()).max().unwrap_or_default();
    for sealed in kept {
        let (name, key) = (&sealed.name, hex(&sealed.key_id));
        if json {
            print::json(&json!({ "name": name, "env": env, "set_at": sealed.set_at, "key": key }))?;
        } else {
            let set = Painted(DIM, format!("set {}, key {key}", print::time(sealed.set_at)));
            print::line(format_args!("{name:width$}  {set}"))?;
        }
    }
    Ok(())
}
