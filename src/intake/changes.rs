//! What a worker changed of the message for its next hops: fields taken out of the octets as received, others put before.
//!
//! The octets themselves are never changed: a task names the places that relay leaves out.

use crate::mail::Message;

/// Domains of signatures that a line of the trace names.
const MAX_SHOWN: usize = 3;

/// So far; what is forwarded takes it along as it is then.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// The last word on each name.
    fields: Vec<(String, Option<String>)>,
    /// Where the fields of these names stand: from, and up to.
    pub removed: Vec<(usize, usize)>,
}

impl Changes {
    /// None yet, but that what was forged in our name doesn't go on (RFC 8601 §5).
    pub fn of(message: &Message) -> Self {
        Self { fields: Vec::new(), removed: pairs(message.forged().to_vec()) }
    }

    pub fn add(&mut self, message: &Message, name: String, value: Option<String>) {
        self.fields.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
        self.fields.push((name, value));
        let names: Vec<String> = self.fields.iter().map(|(name, _)| name.clone()).collect();
        // A message with more fields than are looked at was refused to the script.
        let mut places = message.places(&names).unwrap_or_default();
        places.extend_from_slice(message.forged());
        places.sort_by_key(|place| place.start);
        self.removed = pairs(places);
    }

    /// What stands in their places, before the message.
    pub fn added(&self) -> impl Iterator<Item = (String, String)> {
        self.fields.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
    }
}

fn pairs(places: Vec<std::ops::Range<usize>>) -> Vec<(usize, usize)> {
    places.into_iter().map(|place| (place.start, place.end)).collect()
}

/// Whose DKIM signature the change breaks, in words; empty where it breaks none. To put a field where none is breaks one
/// that holds the name, too (RFC 6376 §5.4.2).
pub(super) fn broken(message: &Message, name: &str, is_set: bool) -> String {
    if !is_set && !message.has_header(name) {
        return String::new();
    }
    let mut signers = message.signers(name);
    if signers.is_empty() {
        return String::new();
    }
    let more = signers.len().saturating_sub(MAX_SHOWN);
    signers.truncate(MAX_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(", which breaks the DKIM signature of {}{more}", signers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let text = "DKIM-Signature: d=example.org; h=from:subject:cc\r\nFrom: a@example.org\r\nSubject: one\r\n two\r\n\
                    subject: again\r\nX-A: 1\r\n\r\nSubject: no field\r\n";
        Message::new(bytes::Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_last_word_on_a_name_counts_and_all_its_fields_go() {
        let (message, mut changes) = (message(), Changes::default());
        changes.add(&message, "X-B".into(), Some("new".into()));
        assert!(changes.removed.is_empty());
        changes.add(&message, "SUBJECT".into(), None);
        changes.add(&message, "Subject".into(), Some("three".into()));
        changes.add(&message, "X-B".into(), None);
        assert_eq!(changes.added().collect::<Vec<_>>(), [("Subject".to_owned(), "three".to_owned())]);
        let removed: Vec<&[u8]> = changes.removed.iter().map(|(from, to)| &message.raw()[*from..*to]).collect();
        assert_eq!(removed, [b"Subject: one\r\n two\r\nsubject: again\r\n"]);
        changes.add(&message, "x-a".into(), None);
        assert_eq!(changes.removed.len(), 1, "what follows each other is one place");
    }

    #[test]
    fn what_is_forged_in_our_name_goes_whatever_else_is_changed() {
        let text = "Authentication-Results: mx.example.com; dmarc=pass\r\nX-A: 1\r\nAuthentication-Results: other; none\r\n\
                    authentication-results : MX.EXAMPLE.COM 1;\r\n spf=pass\r\nX-B: 1\r\n\r\nwords\r\n";
        let message = Message::received_by("mx.example.com", bytes::Bytes::from_static(text.as_bytes()));
        assert_eq!(message.count_header("Authentication-Results"), 1, "the other's is seen");
        let mut changes = Changes::of(&message);
        let shown = |changes: &Changes| -> Vec<String> {
            let text = |(from, to): &(usize, usize)| String::from_utf8_lossy(&message.raw()[*from..*to]).into_owned();
            changes.removed.iter().map(text).collect()
        };
        assert_eq!(shown(&changes).len(), 2);
        changes.add(&message, "x-a".into(), None);
        changes.add(&message, "x-c".into(), Some("1".into()));
        let removed = shown(&changes);
        assert_eq!(removed.len(), 3);
        assert_eq!(removed[0], "Authentication-Results: mx.example.com; dmarc=pass\r\n");
        assert_eq!(removed[1], "X-A: 1\r\n");
        assert_eq!(removed[2], "authentication-results : MX.EXAMPLE.COM 1;\r\n spf=pass\r\n");
    }

    #[test]
    fn a_change_breaks_the_signatures_that_hold_the_name() {
        let message = message();
        assert_eq!(broken(&message, "Subject", true), ", which breaks the DKIM signature of example.org");
        assert_eq!(broken(&message, "subject", false), ", which breaks the DKIM signature of example.org");
        assert_eq!(broken(&message, "X-A", true), "");
        assert_eq!(
            broken(&message, "Cc", true),
            ", which breaks the DKIM signature of example.org",
            "it holds that none is"
        );
        assert_eq!(broken(&message, "Cc", false), "");
    }
}
