//! Addresses as a script sees them: strings, with `.local`, `.domain`, `.tag` and `.base`.
//!
//! A string is an address and an address a string: the four are getters of every string, so that comparison,
//! interpolation, `switch` and map values work without a word. What is no address has an empty domain. The separator
//! of subaddresses is the run's (`run::current`). `local`, `base` and `domain` come in lower case, as mail compares
//! them (RFC 5321 §2.4 leaves that to the receiving host), and without quotes; a tag often is a token and comes as
//! written.

use std::borrow::Cow;

use rhai::{Dynamic, Engine, ImmutableString};

use super::run::{self, beginning};
use crate::mail::Address;

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_get("local", |text: &mut ImmutableString| as_meant(text).to_lowercase())
        .register_get("domain", |text: &mut ImmutableString| domain(text).to_lowercase())
        .register_get("base", |text: &mut ImmutableString| with_separator(text, |base, _| base.to_lowercase()))
        .register_get("tag", |text: &mut ImmutableString| with_separator(text, |_, tag| tag.to_owned()));
}

/// The address as a script gets it; `None` is the null sender, an empty string.
pub fn to_dynamic(address: Option<&Address>) -> Dynamic {
    address.map_or_else(|| Dynamic::from(String::new()), |address| Dynamic::from(address.to_string()))
}

/// The address that a script gave.
///
/// # Errors
/// Says what was given and what is wrong with it.
pub fn from_dynamic(value: &Dynamic) -> Result<Address, String> {
    let Ok(text) = value.as_immutable_string_ref() else {
        return Err(format!("expected a mail address, got {}", value.type_name()));
    };
    Address::parse(&text).map_err(|error| format!("{:?} is no mail address: {error}", beginning(&text, 320)))
}

/// The local part without the quotes and backslashes that it may be written with (RFC 5321 §4.1.2: it is the same
/// mailbox), as a rule compares it.
fn as_meant(text: &str) -> Cow<'_, str> {
    let written = local(text);
    if !written.starts_with('"') {
        return Cow::Borrowed(written);
    }
    Address::parse(text).map_or(Cow::Borrowed(written), |address| Cow::Owned(address.unquoted_local().into_owned()))
}

/// Before the last `@`; all of it where there is none.
fn local(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(local, _)| local)
}

fn domain(text: &str) -> &str {
    text.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// The local part's base and its tag (RFC 5233 §4), empty where there is none, by the separator of this run's domain.
fn with_separator(text: &str, then: impl FnOnce(&str, &str) -> String) -> String {
    let run = run::current();
    let separator = run.as_ref().map_or("", |run| run.subaddress.as_str());
    match Address::parse(text) {
        Ok(address) => then(&address.base(separator), &address.tag(separator).unwrap_or_default()),
        Err(_) => then(local(text), ""),
    }
}
