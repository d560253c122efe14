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
    ("limit", &["allowed", "remaining", "reset_at"]),
    ("response", &["status", "ok", "headers", "body", "json"]),
    ("dnsbl", &["listed", "codes", "text", "error"]),
    ("kv_value", &["value", "metadata"]),
    ("kv_list", &["keys", "list_complete", "cursor"]),
    ("kv_key", &["name", "expiration", "metadata"]),
    ("dsn", &["reporting_mta", "envelope_id", "message_id", "subject", "recipients"]),
    ("dsn_recipient", &["recipient", "original_recipient", "action", "status", "diagnostic", "remote_mta"]),
    (
        "invitation",
        &["method", "uid", "summary", "location", "status", "start", "end", "timezone", "organizer", "attendees"],
    ),
    ("participant", &["name", "address", "status"]),
    ("url", &["scheme", "user", "host", "port", "path", "query", "params", "fragment"]),
    (
        "date_parts",
        &["year", "month", "day", "hour", "minute", "second", "millisecond", "weekday", "week", "day_of_year"],
    ),
];
/// Which member is one of these, or a list of them or of another kind.
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
    ("message", "attachments", "[attachment]"),
    ("message", "header_from", "[mailbox]"),
    ("message", "header_to", "[mailbox]"),
    ("message", "header_cc", "[mailbox]"),
    ("message", "reply_to", "[mailbox]"),
    ("message", "dsn", "dsn"),
    ("message", "calendar", "[invitation]"),
    ("dsn", "recipients", "[dsn_recipient]"),
    ("invitation", "organizer", "participant"),
    ("invitation", "attendees", "[participant]"),
    ("auth", "dkim", "[dkim]"),
    ("env", "limit", "limit"),
    ("kv", "get_with_metadata", "kv_value"),
    ("kv", "list", "kv_list"),
    ("kv_list", "keys", "[kv_key]"),
    ("ctx", "fetch", "response"),
    ("ctx", "dnsbl", "dnsbl"),
    ("session", "fetch", "response"),
    ("session", "dnsbl", "dnsbl"),
];
/// Which function makes one of these.
const FUNCTIONS: &[(&str, &str)] = &[
    ("url_parse", "url"),
    ("parse_address", "mailbox"),
    ("parse_addresses", "[mailbox]"),
    ("date_parts", "date_parts"),
];

/// The keys of a map of ours.
pub fn of(kind: &str) -> Option<&'static [&'static str]> {
    FIELDS.iter().find(|(name, _)| *name == kind).map(|(_, keys)| *keys)
}

/// What a member is, where that is a map of ours, or stands in one.
pub fn within(kind: &str, member: &str) -> Option<&'static str> {
    MEMBERS.iter().find(|(of, name, _)| *of == kind && *name == member).map(|(.., kind)| *kind)
}

/// What a function of ours makes, where that is a map of ours.
pub fn made_by(function: &str) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(name, _)| *name == function).map(|(_, kind)| *kind)
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
        let pages = ["README.md", "parsed.md", "outside.md", "effects.md", "functions.md"]
            .map(|page| std::fs::read_to_string(format!("{}/rules/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap())
            .concat();
        let written = |kind: &str| {
            let nested = [("recipients", "dsn_recipient"), ("keys", "kv_key")];
            let key = |key: &&str| match nested.iter().find(|(name, of)| name == key && *of != kind) {
                Some((name, within)) => format!("{name}: [#{{ {} }}]", of(within).unwrap().join(", ")),
                None => (*key).to_owned(),
            };
            format!("#{{ {} }}", of(kind).unwrap().iter().map(key).collect::<Vec<_>>().join(", "))
        };
        let documented = ["limit", "response", "dnsbl", "kv_value", "kv_list", "dsn", "invitation", "participant"];
        for kind in documented.into_iter().chain(["url", "date_parts", "mailbox", "spam", "tls"]) {
            assert!(pages.contains(&written(kind)), "{kind}: the reference has no {}", written(kind));
        }
        let mut known = of("dkim").unwrap().to_vec();
        known.sort_unstable();
        assert_eq!(keys(&map["dkim"].clone().into_array().unwrap()[0]), known);
    }
}
