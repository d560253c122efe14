//! `country` and `asn` of a route: where the client's address is, as the databases of `[geoip]` say it.
//!
//! Pure. What no database says of an address is `unknown`, which a condition can name as it names a country: by nothing else
//! would a route know who isn't from elsewhere from whom nobody can tell.

use std::fmt;

use super::super::leaf::Leaf;
use crate::mail::Origin;

/// What stands for what no database says.
const UNKNOWN: &str = "unknown";

/// A country's code (ISO 3166-1 alpha-2); `None`: it is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Country(pub Option<String>);

/// An autonomous system's number; `None`: it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System(pub Option<u32>);

/// Where the client has to be: in one of these countries, and one of these systems. What is empty says nothing.
#[derive(Debug, Clone, Default)]
pub struct Somewhere {
    pub countries: Vec<Country>,
    pub systems: Vec<System>,
}

impl Somewhere {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.countries.is_empty() && self.systems.is_empty()
    }

    pub(super) fn holds(&self, origin: &Origin) -> bool {
        self.is_in_country(origin) && self.is_in_system(origin)
    }

    fn is_in_country(&self, origin: &Origin) -> bool {
        self.countries.is_empty() || self.countries.iter().any(|one| one.0 == origin.country)
    }

    fn is_in_system(&self, origin: &Origin) -> bool {
        self.systems.is_empty() || self.systems.iter().any(|one| one.0 == origin.asn)
    }

    /// What held, in words.
    pub(super) fn why(&self, origin: &Origin) -> Vec<String> {
        let country = self.countries.iter().find(|one| one.0 == origin.country).map(|one| format!("country {one}"));
        let system = self.systems.iter().find(|one| one.0 == origin.asn).map(|one| format!("asn {one}"));
        country.into_iter().chain(system).collect()
    }

    /// What didn't.
    pub(super) fn against(&self, origin: &Origin) -> Option<String> {
        let found = |told: &dyn fmt::Display, what: &str, wanted: String| {
            format!("the client's {what} is {told}, not {wanted}")
        };
        if !self.is_in_country(origin) {
            return Some(found(&Country(origin.country.clone()), "country", listed(&self.countries)));
        }
        (!self.is_in_system(origin)).then(|| found(&System(origin.asn), "asn", listed(&self.systems)))
    }
}

fn listed<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or(UNKNOWN))
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str(UNKNOWN),
        }
    }
}

impl Leaf for Country {
    const WHAT: &'static str = "a country's code";
    const EXAMPLE: &'static str = "SE";

    fn parse(text: &str) -> Result<Self, String> {
        if text == UNKNOWN {
            return Ok(Self(None));
        }
        let is_code = |code: &str| code.len() == 2 && code.bytes().all(|octet| octet.is_ascii_uppercase());
        let capitals = text.to_ascii_uppercase();
        match text {
            // Reserved in ISO 3166-1, and in no database.
            "UK" => Err("no address is in `UK`: ISO 3166-1 has the United Kingdom as GB\nwrite \"GB\"".to_owned()),
            code if is_code(code) => Ok(Self(Some(code.to_owned()))),
            _ if is_code(&capitals) => Err(format!("this is no country's code\ndid you mean \"{capitals}\"?")),
            _ => Err(
                "this is no country's code\nwrite its two capital letters (ISO 3166-1), as in \"SE\", or \"unknown\""
                    .to_owned(),
            ),
        }
    }
}

impl Leaf for System {
    const WHAT: &'static str = "the number of an autonomous system";
    const EXAMPLE: &'static str = "AS64500";
    const IS_NUMBER: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        if text == UNKNOWN {
            return Ok(Self(None));
        }
        let number = text.strip_prefix("AS").unwrap_or(text);
        let number = number.parse().ok().filter(|_| !number.starts_with('+'));
        number.map(|number| Self(Some(number))).ok_or_else(|| {
            "this is no autonomous system\nwrite its number, as in 64500 or \"AS64500\", or \"unknown\"".to_owned()
        })
    }
}
