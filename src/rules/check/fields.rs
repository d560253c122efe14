//! Maps that a script is handed, and what stands in each: a key that isn't there is no error when it runs, but `()`.

/// Kinds of maps by names of our own, each with its keys.
const FIELDS: &[(&str, &[&str])] = &[
    ("event", &["kind", "message_id", "to", "destination", "status", "reply", "attempts", "at"]),
    ("scheduled", &["cron", "scheduled_time"]),
    ("spf", &["result", "domain", "scope", "reason"]),
    ("dkim", &["result", "domain", "selector", "identity", "algorithm", "aligned", "b", "reason"]),
    ("dmarc", &["result", "domain", "policy", "aligned_spf", "aligned_dkim", "reason", "doubt"]),
    ("arc", &["result", "chain", "trusted", "reason"]),
    ("iprev", &["result", "name"]),
    ("spam", &["score", "symbols", "verdict"]),
    ("tls", &["version", "cipher"]),
    ("mailbox", &["name", "address"]),
];
/// Which member is one of these.
const MEMBERS: &[(&str, &str, &str)] = &[
    ("auth", "spf", "spf"),
    ("auth", "spf_helo", "spf"),
    ("auth", "dmarc", "dmarc"),
    ("auth", "arc", "arc"),
    ("auth", "iprev", "iprev"),
    ("message", "spam", "spam"),
    ("session", "tls", "tls"),
    ("mailbox", "address", "string"),
    ("event", "to", "string"),
    ("event", "destination", "string"),
];

/// The keys of a map of ours.
pub fn of(kind: &str) -> Option<&'static [&'static str]> {
    FIELDS.iter().find(|(name, _)| *name == kind).map(|(_, keys)| *keys)
}

/// What a member is, where that is a map of ours, or stands in one.
pub fn within(kind: &str, member: &str) -> Option<&'static str> {
    MEMBERS.iter().find(|(of, name, _)| *of == kind && *name == member).map(|(.., kind)| *kind)
}

#[cfg(test)]
mod tests {
    use rhai::{Dynamic, Map};

    use super::*;
    use crate::mail::Authentication;
    use crate::mail::authentication::Dkim;
    use crate::rules::api::auth::AuthView;

    #[test]
    fn what_stands_in_a_map_is_what_its_maker_puts_there() {
        let facts = Authentication { dkim: vec![Dkim::default()], ..Authentication::default() };
        let map = AuthView::new(Some(&std::sync::Arc::new(facts))).to_map();
        let keys = |value: &Dynamic| value.clone().cast::<Map>().keys().map(ToString::to_string).collect::<Vec<_>>();
        for kind in ["spf", "dmarc", "arc", "iprev"] {
            let mut known = of(kind).unwrap().to_vec();
            known.sort_unstable();
            assert_eq!(keys(&map[kind]), known, "{kind}");
        }
        let mut known = of("dkim").unwrap().to_vec();
        known.sort_unstable();
        assert_eq!(keys(&map["dkim"].clone().into_array().unwrap()[0]), known);
    }
}
