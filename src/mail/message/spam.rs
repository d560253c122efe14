//! What the header section alone says against a message: cheap tests, each with its points.
//!
//! No test of these is a proof; together they tell what programs that write mail badly have in common. From
//! [`SUSPECT`] on a message is `suspect`, from [`SPAM`] on `spam`, below it `ham`.
//! Standards: RFC 5322 §3.6 (which fields there must be, and how often), §3.6.4.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Message;
use crate::mail::{Address, Timestamp};

pub const SUSPECT: f64 = 3.0;
pub const SPAM: f64 = 6.0;

/// Name, points, what it means.
pub const TESTS: &[(&str, f64, &str)] = &[
    ("MISSING_FROM", 2.5, "no From with an address"),
    ("SEVERAL_FROM", 2.5, "more than one From"),
    ("FROM_NAME_IS_OTHER_ADDRESS", 2.5, "the author's name is an address of another domain"),
    ("MISSING_DATE", 1.5, "no Date, or none that is one"),
    ("DATE_IN_FUTURE", 2.0, "Date is more than a day ahead"),
    ("DATE_LONG_AGO", 1.0, "Date is more than 30 days back"),
    ("MISSING_MESSAGE_ID", 1.0, "no Message-ID"),
    ("MESSAGE_ID_WITHOUT_DOMAIN", 0.5, "a Message-ID without a domain"),
    ("MISSING_SUBJECT", 0.5, "no Subject"),
    ("MISSING_TO", 0.5, "neither To nor Cc"),
    ("REPEATED_FIELD", 1.5, "Subject, Date, To, Cc, Message-ID or Reply-To more than once"),
    ("REPLY_TO_OTHER_DOMAIN", 0.5, "answers go to another domain, and it is no list"),
    ("HELO_IS_NO_NAME", 1.0, "the client calls itself by an address without brackets, or localhost"),
];

const DAY: i64 = 86_400_000;

/// What they come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spam {
    pub score: f64,
    /// Name ─► points.
    pub symbols: BTreeMap<&'static str, f64>,
    pub verdict: &'static str,
}

/// `helo`: what the client calls itself.
#[must_use]
pub fn judge(message: &Message, received: Timestamp, helo: Option<&str>) -> Spam {
    let mut symbols = BTreeMap::new();
    for name in found(message, received, helo) {
        if let Some((name, points, _)) = TESTS.iter().find(|(test, ..)| *test == name) {
            symbols.insert(*name, *points);
        }
    }
    // The sum of nothing is -0.0.
    let score = symbols.values().sum::<f64>() + 0.0;
    let verdict = match score {
        score if score >= SPAM => "spam",
        score if score >= SUSPECT => "suspect",
        _ => "ham",
    };
    Spam { score, symbols, verdict }
}

fn found(message: &Message, received: Timestamp, helo: Option<&str>) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut note = |is_so: bool, name: &'static str| found.extend(is_so.then_some(name));
    let from = message.addresses("From");
    let author = from.first().and_then(|one| Address::parse(one.address.as_deref()?).ok());
    note(author.is_none(), "MISSING_FROM");
    note(message.count_header("From") > 1, "SEVERAL_FROM");
    let domain = author.as_ref().map(Address::domain_key);
    let name = from.first().and_then(|one| one.name.as_deref()).and_then(|name| Address::parse(name.trim()).ok());
    note(name.is_some_and(|name| Some(name.domain_key()) != domain), "FROM_NAME_IS_OTHER_ADDRESS");
    match message.date() {
        None => note(true, "MISSING_DATE"),
        Some(date) => {
            let ahead = date.as_millis().saturating_sub(received.as_millis());
            note(ahead > DAY, "DATE_IN_FUTURE");
            note(ahead < -30 * DAY, "DATE_LONG_AGO");
        }
    }
    match message.message_id() {
        None => note(true, "MISSING_MESSAGE_ID"),
        Some(id) => note(id.rsplit_once('@').is_none_or(|(_, domain)| domain.is_empty()), "MESSAGE_ID_WITHOUT_DOMAIN"),
    }
    note(!message.has_header("Subject"), "MISSING_SUBJECT");
    note(!message.has_header("To") && !message.has_header("Cc"), "MISSING_TO");
    let once = ["Subject", "Date", "To", "Cc", "Message-ID", "Reply-To"];
    note(once.iter().any(|name| message.count_header(name) > 1), "REPEATED_FIELD");
    let answers = message.addresses("Reply-To").into_iter().find_map(|one| Address::parse(&one.address?).ok());
    let elsewhere = answers.is_some_and(|to| domain.as_ref().is_some_and(|domain| to.domain_key() != *domain));
    note(elsewhere && !message.is_list(), "REPLY_TO_OTHER_DOMAIN");
    let is_no_name = |helo: &str| helo.parse::<std::net::IpAddr>().is_ok() || helo.eq_ignore_ascii_case("localhost");
    note(helo.is_some_and(is_no_name), "HELO_IS_NO_NAME");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(raw: &str, helo: &str) -> Spam {
        // 2026-11-24T10:00:00Z
        let received = Timestamp::from_millis(1_795_514_400_000);
        judge(&Message::new(raw.replace('\n', "\r\n").into()), received, Some(helo))
    }

    const GOOD: &str = "From: Ann <ann@example.org>\nTo: b@example.com\nSubject: Hi\nDate: Tue, 24 Nov 2026 09:00:00 +0000\n\
                        Message-ID: <1@example.org>\n\nhi\n";

    #[test]
    fn good_mail_has_nothing_against_it() {
        let spam = judged(GOOD, "mail.example.org");
        assert_eq!((spam.score, spam.verdict, spam.symbols.len()), (0.0, "ham", 0));
        let list = GOOD.replace("To:", "Reply-To: l@lists.example\nList-Id: <l.lists.example>\nTo:");
        assert_eq!(judged(&list, "mail.example.org").symbols.len(), 0);
    }

    #[test]
    fn each_test_finds_what_it_is_named_for() {
        for (from, to, name) in [
            ("From: Ann <ann@example.org>\n", "", "MISSING_FROM"),
            ("From: Ann <ann@example.org>", "From: Ann", "MISSING_FROM"),
            ("Subject: Hi", "Subject: Hi\nFrom: eve@evil.test", "SEVERAL_FROM"),
            ("Ann <ann@", "\"ceo@bank.example\" <ann@", "FROM_NAME_IS_OTHER_ADDRESS"),
            ("Date: Tue, 24 Nov 2026 09:00:00 +0000", "Date: soon", "MISSING_DATE"),
            ("24 Nov 2026", "26 Nov 2026", "DATE_IN_FUTURE"),
            ("24 Nov 2026", "24 Sep 2026", "DATE_LONG_AGO"),
            ("Message-ID: <1@example.org>\n", "", "MISSING_MESSAGE_ID"),
            ("<1@example.org>", "<1>", "MESSAGE_ID_WITHOUT_DOMAIN"),
            ("Subject: Hi\n", "", "MISSING_SUBJECT"),
            ("To: b@example.com\n", "", "MISSING_TO"),
            ("Subject: Hi", "Subject: Hi\nSubject: Ho", "REPEATED_FIELD"),
            ("Subject: Hi", "Subject: Hi\nReply-To: eve@evil.test", "REPLY_TO_OTHER_DOMAIN"),
        ] {
            let spam = judged(&GOOD.replace(from, to), "mail.example.org");
            assert_eq!(spam.symbols.keys().copied().collect::<Vec<_>>(), [name], "{to}");
        }
        assert_eq!(judged(GOOD, "192.0.2.1").symbols.keys().copied().collect::<Vec<_>>(), ["HELO_IS_NO_NAME"]);
        assert_eq!(judged("\n\nbuy", "localhost").verdict, "spam");
        assert_eq!(judged("From: a@b.example\nSubject: x\nTo: c@d.example\n\nbuy", "localhost").verdict, "suspect");
    }
}
