//! Who wrote a message, by the fields From as everybody else here reads them: scripts, routes, notices.
//!
//! The domain that is asked for its policy has to be the one that a reader sees, so each field is read a second time,
//! strictly. Where the two readings differ, or a domain is none that DNS could be asked for, nobody speaks for the author. The
//! policy is that of the one domain which the field can be read as; where that, too, isn't known, the message is judged as if
//! its author's domain had it refused: otherwise a From that is written badly enough would be anybody's.
//! Standards: RFC 5322 §3.4 and §4.4 (addresses), §3.6.2 (From), RFC 1035 §2.3.4 (names), RFC 9989 §4.10.

use super::clipped;
use crate::mail::address::{self, Address};
use crate::mail::{Mailbox, Message};

mod only;

/// Domains of From that are judged; nobody writes from more.
const MAX_DOMAINS: usize = 5;
/// Octets of a name, and of what is put before one to ask for its policy.
const MAX_NAME: usize = 253;
const ASKED: &str = "_dmarc.";
/// Octets of an encoded word that is looked for: no line has more.
const MAX_WORD: usize = 998;
/// Characters of a From in doubt that are shown.
const MAX_SHOWN: usize = 120;

#[derive(Debug, Default)]
pub(super) struct Authors {
    /// Each once, as DNS has it; a literal has no policy, and isn't among them. In doubt: the one that it has to be, if any.
    pub domains: Vec<String>,
    /// Why the authors aren't known for sure.
    pub doubt: Option<Doubt>,
    /// There is one field From.
    pub is_one_field: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// In our words alone, which the sender may read.
    pub what: String,
    /// The same with the fields, for the trace.
    pub told: String,
}

impl Authors {
    pub(super) fn of(message: &Message) -> Self {
        let is_one_field = message.count_header("From") == 1;
        let unread = |what: &str| {
            let doubt = Doubt { what: what.to_owned(), told: what.to_owned() };
            Self { domains: Vec::new(), doubt: Some(doubt), is_one_field }
        };
        if message.has_unseen_fields() {
            return unread("its header has more fields than are read");
        }
        let Some(mailboxes) = message.authors() else {
            return unread("its From is too long to be read to its end");
        };
        match domains(message, &mailboxes) {
            Ok(domains) => Self { domains, doubt: None, is_one_field },
            Err(what) => {
                let only = only::domain(message.header_values("From"));
                let told = format!("{what}: {}", shown(message));
                Self { domains: only.into_iter().collect(), doubt: Some(Doubt { what, told }), is_one_field }
            }
        }
    }
}

/// The fields From as far as there is room for them, in one line.
fn shown(message: &Message) -> String {
    let fields = message.header_values("From").map(|field| String::from_utf8_lossy(field).trim().to_owned());
    clipped(&fields.take(MAX_DOMAINS).collect::<Vec<_>>().join(" and ")).chars().take(MAX_SHOWN).collect()
}

fn domains(message: &Message, mailboxes: &[Mailbox]) -> Result<Vec<String>, String> {
    let fields = || message.header_values("From");
    if !fields().any(|field| field.contains(&b'@') || Message::decode(field).contains('@')) {
        return Ok(Vec::new());
    }
    let addresses = mailboxes.iter().filter_map(|mailbox| mailbox.address.as_deref());
    let read: Vec<String> = addresses.filter_map(|address| address.rsplit_once('@')).map(|(_, it)| plain(it)).collect();
    let strictly: Option<Vec<Vec<String>>> = fields().map(written).collect();
    if read.is_empty() || strictly.is_none_or(|strictly| strictly.concat() != read) {
        return Err("its From can be read in more than one way".to_owned());
    }
    let mut domains = Vec::new();
    for domain in read.into_iter().filter(|domain| !is_literal(domain)) {
        if !is_name(&format!("{ASKED}{domain}")) {
            return Err("its From names a domain that can't be".to_owned());
        }
        if !domains.contains(&domain) {
            domains.push(domain);
        }
        if domains.len() > MAX_DOMAINS {
            return Err(format!("it is from more than {MAX_DOMAINS} domains"));
        }
    }
    Ok(domains)
}

/// As DNS has it: the final dot says nothing.
fn plain(domain: &str) -> String {
    let domain = address::domain_key(domain.trim());
    domain.strip_suffix('.').map(str::to_owned).unwrap_or(domain)
}

fn is_literal(domain: &str) -> bool {
    domain.starts_with('[') && Address::parse(&format!("author@{domain}")).is_ok()
}

/// A name that DNS can be asked for.
pub(super) fn is_name(domain: &str) -> bool {
    let is_letter = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-');
    domain.len() <= MAX_NAME && domain.split('.').all(|label| is_label(label) && label.bytes().all(is_letter))
}

/// A mailbox while it is read: without white space, comments and what stands in quotes.
#[derive(Default)]
struct Written {
    bare: String,
    /// Between `<` and `>`, which is then the address.
    angle: Option<String>,
    is_open: bool,
}

impl Written {
    /// It ends: its domain, if it has one, goes to the others; `None` where it has several.
    fn end(&mut self, domains: &mut Vec<String>) -> Option<()> {
        let Self { bare, angle, .. } = std::mem::take(self);
        let address = angle.unwrap_or(bare);
        let Some((_, domain)) = address.split_once('@') else { return Some(()) };
        domains.push(plain(domain));
        (!domain.contains('@')).then_some(())
    }
}

/// The domains of a field's mailboxes; `None` where it breaks off, or says two things.
fn written(field: &[u8]) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(field);
    let (mut domains, mut mailbox) = (Vec::new(), Written::default());
    let (mut depth, mut in_quotes, mut in_brackets) = (0_usize, false, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if let Some(rest) =
            (character == '=' && depth == 0 && !in_quotes).then(|| encoded(characters.as_str())).flatten()
        {
            characters = rest.chars();
            continue;
        }
        match character {
            '\\' if depth > 0 || in_quotes => drop(characters.next()),
            '(' if !in_quotes => depth += 1,
            ')' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            '"' => in_quotes = !in_quotes,
            _ if in_quotes || character.is_ascii_whitespace() => {}
            '<' if mailbox.angle.is_some() => return None,
            '<' => (mailbox.angle, mailbox.is_open) = (Some(String::new()), true),
            '>' if !mailbox.is_open => return None,
            '>' => mailbox.is_open = false,
            ',' | ';' if !mailbox.is_open => mailbox.end(&mut domains)?,
            // What stood there was a group's name.
            ':' if !mailbox.is_open && !in_brackets => {
                if mailbox.angle.is_some() || mailbox.bare.contains('@') {
                    return None;
                }
                mailbox.bare.clear();
            }
            other => {
                let address = mailbox.angle.as_mut().filter(|_| mailbox.is_open).unwrap_or(&mut mailbox.bare);
                in_brackets = other != ']' && (in_brackets || (other == '[' && address.ends_with('@')));
                address.push(other);
            }
        }
    }
    if depth > 0 || in_quotes || mailbox.is_open {
        return None;
    }
    mailbox.end(&mut domains)?;
    Some(domains)
}

/// What follows an encoded word (RFC 2047 §2), of which `word` begins behind its `=`: some mailers leave quotes and brackets in
/// it as they are. One that has an address in it is for no reader to pass over.
fn encoded(word: &str) -> Option<&str> {
    let near = word.get(..word.floor_char_boundary(MAX_WORD))?;
    let (_, rest) = near.strip_prefix('?')?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (text, rest) = rest.split_once("?=")?;
    let is_word = encoding.len() == 1 && !text.contains(['<', '>', '@', ' ', '\t', '\r', '\n']);
    is_word.then(|| word.get(near.len() - rest.len()..)).flatten()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(from: &str) -> Authors {
        Authors::of(&Message::new(Bytes::from(format!("{from}\r\n\r\nwords\r\n"))))
    }

    #[test]
    fn a_domain_is_known_however_it_is_written() {
        for from in [
            "From: ceo@bank.example",
            "From: CEO <ceo@BANK.example.>",
            "From : all: ceo@bank.example, cfo@bank.example;",
            "To: x\r\ngarbage\r\nFrom: ceo@bank.example",
            "From: ceo@bank.example\r\nfrom: cfo@Bank.Example.",
            "From: \"a b\"@bank.example",
            "From: <\"a@b\"@bank.example>",
            "From: ceo@bank.example (the \\) (real) one, x@evil.example)",
            "From: \"ceo@evil.example, <x\" <ceo@bank.example>",
            "From: ceo@evil.example <ceo@bank.example>",
            "From: Fw: Chief, Officer <ceo@bank.example>",
            "From: =?utf-8?q?C=C3=A9o=40evil.example?= <ceo@bank.example>",
            "From: =?utf-8?q?the_\"real\"_one_:-(?= =?utf-8?q?(=C3=A9\"?= <ceo@bank.example>",
            "From: C\u{e9}o\r\n <ceo@bank\r\n .example>, root@[192.0.2.1], <root@[IPv6:2001:db8::1]>",
        ] {
            let authors = read(from);
            assert_eq!(authors.domains, ["bank.example"], "{from}");
            assert!(authors.doubt.is_none(), "{from}: {:?}", authors.doubt);
        }
    }

    /// Many that aren't ended would be looked for to the end of the field, each.
    #[test]
    fn an_encoded_word_is_looked_for_within_a_line() {
        let word = |length: usize| format!("?utf-8?q?{}?= <x@evil.example>", "\u{e9}".repeat(length));
        assert_eq!(encoded(&word(400)), Some(" <x@evil.example>"));
        assert_eq!(encoded(&word(500)), None);
        assert_eq!(encoded("?utf-8?q?a b?="), None);
    }

    #[test]
    fn who_says_nothing_of_a_domain_is_of_none() {
        for from in ["Subject: x", "From:", "From: root", "From: \"Foo", "From: list:;", "From: root@[192.0.2.1]"] {
            let authors = read(from);
            assert_eq!((authors.domains, authors.doubt), (Vec::new(), None), "{from}");
        }
    }

    #[test]
    fn what_is_no_domain_or_more_than_one_is_doubtful() {
        let long = format!("From: ceo@{}.bank.example", "x".repeat(64));
        let many = format!("From: {}ceo@bank.example", "a@evil.example, ".repeat(5000));
        let unasked = format!("From: ceo@{}bank.example", "x.".repeat(118));
        let fields = format!("{}From: ceo@bank.example", "X: y\r\n".repeat(10_000));
        for from in [
            "From: ceo@x..bank.example",
            "From: ceo@bank.example..",
            "From: ceo@.bank.example",
            "From: ceo@",
            "From: ceo@-x.bank.example",
            "From: ceo@x\u{a0}y.bank.example",
            "From: <ceo@bank.example> <x@evil.example>",
            "From: <x@evil.example> ceo@bank.example",
            "From: ceo@bank.example@evil.example",
            "From: <@evil.example:ceo@bank.example>",
            "From: ceo@bank (x) .example",
            "From: ceo@bank .example",
            "From: ceo@bank. example",
            "From: =?utf-8?q?ceo=40bank.example?= (x)",
            "From: =?utf-8?q?<ceo@bank.example>?= <x@evil.example>",
            "From: a@evil.example:c <ceo@bank.example>",
            "From: x :( <ceo@bank.example> <x@evil.example>",
            "From: \"x@evil.example \\\" <ceo@bank.example>",
            "From: x :( <ceo@bank.example>, (x@evil.example",
            "From: x :( <ceo@bank.example>.evil.example",
            "From: x :( ceo@bank.example (y) .evil.example",
            "From: x :( ceo@bank.example evil.example",
            "From: x :( ceo@bank.example\r\n .evil.example",
            "From: x :( ceo@\"bank.example\"",
            "From: x :( ceo@ba\\nk.example",
            "From: x :( ceo@bank.example\u{202e}",
            "From: x :( ceo\u{ff20}evil.example <ceo@bank.example>",
            "From: x :( =?utf-8?q?x=40evil.example?= <ceo@bank.example>",
            "From: x :( =?utf-8?b?eEBldmlsLmV4YW1wbGU=?= <ceo@bank.example>",
            "From: x :( =?utf-8?q?ceo=40bank.example?= =?utf-8?q?.evil.example?=",
            "From: x :( =?utf-7?q?x+AEA-evil.example?= <ceo@bank.example>",
            "From: x :( =?utf-8?q?x=40evil.example <ceo@bank.example>",
            "From: x :( =?utf-8?b?eEBldmlsLmV4YW1wbGU?= <ceo@bank.example>",
            "From: x :( \u{1b}$B <ceo@bank.example>",
            "From: x :( <ceo@bank.example>\r\nFrom: x@evil.example",
            "From: =?utf-8?q?(?= <ceo@bank.example> (?= <x@evil.example>",
            "From: ceo@[192.0.2]",
            "From: a@1.example, a@2.example, a@3.example, a@4.example, a@5.example, a@6.example",
            &long,
            &unasked,
            &many,
            &fields,
        ] {
            let authors = read(from);
            assert!(authors.doubt.is_some() && authors.domains.is_empty(), "{:?}: {:?}", from.get(..60), authors);
        }
    }

    #[test]
    fn who_can_be_of_one_domain_alone_is_in_doubt_and_of_that_one() {
        for from in [
            "From: Foo :( <ceo@bank.example>",
            "From: O\"Brien <ceo@Bank.example>",
            "From: \"Foo \\\" <ceo@bank.example>",
            "From: Foo <ceo@bank.example> <ceo@bank.example>",
            "From: <ceo@bank.example",
            "From: \"x <ceo@bank.example>",
            "From: x (y <ceo@bank.example>",
            "From: x ceo@bank.example>",
            "From: \"ceo@bank.example\"",
            "From: ceo@bank.example <>",
            "From: =?utf-8?q?ceo=40bank.example?=",
            "From: =?utf-8?q?C=C3=A9o?= =?ISO-8859-1?B?Q+lv?= :( <ceo@bank.example>",
            "From: C\u{e9}o :( <ceo@bank.example>,\r\n <cfo@bank.example>",
            "From: :( <ceo@bank.example>\r\nFrom: cfo@bank.example",
        ] {
            let authors = read(from);
            assert_eq!(authors.domains, ["bank.example"], "{from}: {:?}", authors.doubt);
            assert!(authors.doubt.is_some(), "{from}");
        }
        let doubt = read(&format!("From: \u{7}{}\r\n\t:( <ceo@bank.example>", "x".repeat(150))).doubt.unwrap();
        assert_eq!(doubt.what, "its From can be read in more than one way");
        assert_eq!(doubt.told, format!("its From can be read in more than one way: {}", "x".repeat(120)));
        let doubt = read("From: a@b\u{7}:c <foo@bar.com>\r\nFrom: d").doubt.unwrap();
        assert_eq!(doubt.told, "its From can be read in more than one way: a@b:c <foo@bar.com> and d");
    }
}
