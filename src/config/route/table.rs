//! Routes by whom they are for: a message looks at those that may be its own, however many there are.
//!
//! Addresses, local parts and domains are found by hash, all regular expressions in one pass. What is found is looked at by
//! its whole conditions; here it is only never left out.

use std::collections::HashMap;

use super::super::Domain;
use super::pattern::Candidate;
use super::{Pattern, Route};
use crate::mail::Address;

/// Places of routes in the list.
type Places = Vec<u32>;

/// The enabled routes of one configuration.
#[derive(Debug, Default)]
pub struct Table {
    anybody: Places,
    /// `local@domain` in lower case.
    addresses: HashMap<String, Places>,
    locals: HashMap<String, Places>,
    domains: HashMap<String, Places>,
    /// Of `*.example.com`, by `example.com`.
    parents: HashMap<String, Places>,
    regexes: regex::RegexSet,
    /// Of which route each of them is.
    of_regexes: Places,
}

impl Table {
    #[must_use]
    pub fn new(routes: &[Route]) -> Self {
        let mut table = Self::default();
        let mut regexes: Vec<&str> = Vec::new();
        for (at, route) in routes.iter().enumerate().filter(|(_, route)| route.enabled) {
            let Ok(at) = u32::try_from(at) else { break };
            if route.when.recipients.is_empty() {
                table.anybody.push(at);
            }
            for one in &route.when.recipients {
                match &one.pattern {
                    Pattern::Anybody => table.anybody.push(at),
                    Pattern::Address(address) => {
                        let key = format!("{}@{}", address.unquoted_local().to_lowercase(), address.domain_key());
                        table.addresses.entry(key).or_default().push(at);
                    }
                    Pattern::Local(local) => table.locals.entry(local.to_lowercase()).or_default().push(at),
                    Pattern::Domain(name) => match name.strip_prefix("*.") {
                        Some(parent) => table.parents.entry(parent.to_owned()).or_default().push(at),
                        None => table.domains.entry(name.clone()).or_default().push(at),
                    },
                    Pattern::Regex(regex) => {
                        regexes.push(regex.as_str());
                        table.of_regexes.push(at);
                    }
                }
            }
        }
        // In either case, as each of them alone.
        match regex::RegexSetBuilder::new(&regexes).case_insensitive(true).size_limit(64 << 20).build() {
            Ok(set) => table.regexes = set,
            // Too large together: each is looked at by itself.
            Err(_) => table.anybody.append(&mut table.of_regexes),
        }
        table
    }

    /// The places of those that may be for this recipient, in order, each once.
    #[must_use]
    pub fn candidates(&self, address: &Address, key: &str, domain: Option<&Domain>) -> Places {
        let mut found = self.anybody.clone();
        if !self.addresses.is_empty() || !self.locals.is_empty() {
            let locals = [address.unquoted_local(), address.base(Domain::separator(domain))];
            for local in locals.iter().map(|local| local.to_lowercase()) {
                found.extend(self.locals.get(&local).into_iter().flatten());
                found.extend(self.addresses.get(&format!("{local}@{key}")).into_iter().flatten());
            }
        }
        found.extend(self.domains.get(key).into_iter().flatten());
        let mut rest = key;
        while let Some((_, parent)) = rest.split_once('.').filter(|_| !self.parents.is_empty()) {
            found.extend(self.parents.get(parent).into_iter().flatten());
            rest = parent;
        }
        if !self.of_regexes.is_empty() {
            let text = Candidate { address, key, domain }.text();
            found.extend(self.regexes.matches(&text).into_iter().filter_map(|at| self.of_regexes.get(at)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{AtRcpt, Facts, Whence};
    use super::*;
    use crate::config::{Config, load};
    use crate::mail::Origin;

    const ROUTES: &str = r#"
hostname = "mx.example.com"
[[domain]]
name = "example.com"
postmaster = "admin@example.net"
[[route]]
match = "/^Billing-[A-F]+@Example\\.com$/"
action = "store"
[[route]]
sender = "/^MAILER@/"
action = "reject"
"#;

    fn facts<'a>(recipient: &'a Address, sender: Option<&'a Address>) -> Facts<'a> {
        static NOWHERE: Origin = Origin { asn: None, country: None };
        let client = Whence { ip: [127, 0, 0, 1].into(), origin: &NOWHERE };
        Facts { recipient, sender, client, message: None, auth: None }
    }

    #[test]
    fn a_regular_expression_with_capitals_takes_addresses_in_either_case() {
        let options = load::Options::default();
        let config = Config::from_toml(ROUTES, "test.toml", Path::new("/"), &options).unwrap().config;
        let sender = Address::parse("Mailer@example.org").unwrap();
        for recipient in ["billing-a@example.com", "BILLING-F@example.com", "Billing-c@EXAMPLE.com"] {
            let recipient = Address::parse(recipient).unwrap();
            let taken = config.routes_for(&facts(&recipient, None));
            assert_eq!(taken.iter().map(|taken| taken.at).collect::<Vec<_>>(), [0], "{recipient}");
        }
        let other = Address::parse("billing-g@example.com").unwrap();
        assert!(config.routes_for(&facts(&other, None)).is_empty());
        assert!(matches!(config.route_at_rcpt(&facts(&other, Some(&sender))), AtRcpt::Refuse(_)));
    }
}
