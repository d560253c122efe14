//! The field `Authentication-Results`: as we write it, and as much of others' as has to be read.
//!
//! Written: what each check came to, its values safe to stand there whatever a peer put into them. Read: whose field it is
//! (one that bears our name and isn't ours is forged), and whether a chain's first link says that DMARC passed.
//! Standards: RFC 8601 §2.2 (form), §2.7 (methods), §5 (forged fields), RFC 8617 §4.1.1 (`ARC-Authentication-Results`).

use std::fmt::Write as _;

use super::authentication::{Authentication, Check, Spf};
use super::{Address, Client};

/// The field's name.
pub const FIELD: &str = "Authentication-Results";
/// Octets of a value: an address has no more.
const MAX_VALUE: usize = 320;
/// Octets of a line, where there is white space to fold at (RFC 5322 §2.1.1).
const MAX_LINE: usize = 78;

/// The field, to stand before all that was received.
#[must_use]
pub fn written(authserv_id: &str, client: &Client, sender: Option<&Address>, auth: &Authentication) -> String {
    let mut field = format!("{FIELD}: {authserv_id}");
    // Writing to a String can't fail.
    let _ = write!(field, ";\r\n\tiprev={} policy.iprev={}", auth.iprev.result.word(), value(&client.ip.to_string()));
    if !auth.iprev.name.is_empty() {
        let _ = write!(field, " ({})", comment(&auth.iprev.name));
    }
    spf(&mut field, &auth.spf_helo, "smtp.helo", client.helo.as_deref().unwrap_or_default());
    spf(&mut field, &auth.spf, "smtp.mailfrom", sender.map_or(auth.spf.domain.as_str(), Address::as_str));
    for signature in &auth.dkim {
        result(&mut field, "dkim", signature.result, &signature.reason);
        property(&mut field, "header.d", &signature.domain);
        property(&mut field, "header.i", &signature.identity);
        property(&mut field, "header.s", &signature.selector);
        property(&mut field, "header.a", &signature.algorithm);
        property(&mut field, "header.b", &signature.b);
    }
    if auth.dkim.is_empty() {
        result(&mut field, "dkim", Check::None, "");
    }
    result(&mut field, "dmarc", auth.dmarc.result, &auth.dmarc.reason);
    property(&mut field, "header.from", &auth.dmarc.domain);
    property(&mut field, "policy.dmarc", &auth.dmarc.policy);
    if auth.arc.result != Check::None {
        result(&mut field, "arc", auth.arc.result, &auth.arc.reason);
    }
    folded(&field)
}

/// Its lines no longer than they should be. White space stays, so what is unfolded again is the same (RFC 5322 §2.2.3).
fn folded(field: &str) -> String {
    let mut folded = String::with_capacity(field.len() + 64);
    for line in field.split("\r\n") {
        let mut length = 0;
        for (at, word) in line.split(' ').enumerate() {
            if at > 0 {
                if length + 1 + word.len() > MAX_LINE {
                    folded.push_str("\r\n");
                    length = 0;
                }
                folded.push(' ');
                length += 1;
            }
            folded.push_str(word);
            length += word.len();
        }
        folded.push_str("\r\n");
    }
    folded
}

fn spf(field: &mut String, spf: &Spf, property_of: &str, whose: &str) {
    result(field, "spf", spf.result, &spf.reason);
    property(field, property_of, whose);
}

fn result(field: &mut String, method: &str, result: Check, reason: &str) {
    let _ = write!(field, ";\r\n\t{method}={}", result.word());
    if !reason.is_empty() {
        let _ = write!(field, " reason={}", quoted(reason));
    }
}

fn property(field: &mut String, name: &str, what: &str) {
    if !what.is_empty() {
        let _ = write!(field, " {name}={}", value(what));
    }
}

/// As it is, where it is a token or an address; else as a quoted string (RFC 8601 §2.2).
fn value(text: &str) -> String {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.@+=/~!#$%&'*^`{|}".contains(&octet);
    if !text.is_empty() && text.len() <= MAX_VALUE && text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in clipped(text.chars()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

fn comment(text: &str) -> String {
    clipped(text.chars().filter(|character| !matches!(character, '(' | ')' | '\\'))).collect()
}

/// As much as there is room for, without control characters, and of white space one blank: no line may consist of it.
fn clipped(text: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    let (mut octets, mut was_blank) = (0, false);
    let plain = text.filter(|character| *character == '\t' || !character.is_control());
    let blank = |character: char| if character.is_whitespace() { ' ' } else { character };
    let once = plain.map(blank).filter(move |character| {
        let repeats = *character == ' ' && was_blank;
        was_blank = *character == ' ';
        !repeats
    });
    once.take_while(move |character| {
        octets += character.len_utf8();
        octets <= MAX_VALUE
    })
}

/// Whether a field's value names this server as the one that has looked.
#[must_use]
pub fn bears(value: &[u8], authserv_id: &str) -> bool {
    let text = String::from_utf8_lossy(value);
    let first = without_comments(&text);
    let first = first.split(';').next().unwrap_or_default().trim();
    // A version may follow.
    let id = match first.strip_prefix('"') {
        Some(rest) => rest.split('"').next().unwrap_or_default(),
        None => first.split_ascii_whitespace().next().unwrap_or_default(),
    };
    let plain = |name: &str| name.trim_end_matches('.').to_lowercase();
    !id.is_empty() && plain(id) == plain(authserv_id)
}

/// Whether a value says that `method` came to `result`: `dmarc=pass`.
#[must_use]
pub fn says(value: &[u8], method: &str, result: &str) -> bool {
    let text = without_comments(&String::from_utf8_lossy(value));
    let said = |statement: &str| {
        let (left, right) = statement.split_once('=')?;
        // `dmarc/1=pass`: a version of the method's.
        let name = left.split('/').next()?.trim();
        let word = right.split_ascii_whitespace().next()?;
        name.eq_ignore_ascii_case(method).then(|| word.eq_ignore_ascii_case(result))
    };
    let mut all = text.split(';').filter_map(said);
    // Said twice, it has to be said the same way.
    all.next() == Some(true) && all.all(|same| same)
}

/// The link of a chain whose results these are: they begin with it (RFC 8617 §4.1.1, §4.2.1).
#[must_use]
pub fn instance(value: &[u8]) -> Option<u8> {
    let text = without_comments(&String::from_utf8_lossy(value));
    let (name, number) = text.split_once(';')?.0.split_once('=')?;
    let number = number.trim();
    let is_number = name.trim() == "i" && number.len() <= 2 && number.bytes().all(|octet| octet.is_ascii_digit());
    number.parse().ok().filter(|number| is_number && (1..=50).contains(number))
}

/// The text on one line, without comments, which nest (RFC 5322 §3.2.2); what stands in quotes stays.
fn without_comments(text: &str) -> String {
    let (mut plain, mut depth, mut in_quotes, mut escaped) = (String::with_capacity(text.len()), 0_usize, false, false);
    for character in text.chars() {
        let was_escaped = std::mem::take(&mut escaped);
        match character {
            '\\' if !was_escaped && (in_quotes || depth > 0) => escaped = true,
            '"' if depth == 0 && !was_escaped => {
                in_quotes = !in_quotes;
                plain.push(character);
            }
            '(' if !in_quotes && !was_escaped => depth += 1,
            ')' if !in_quotes && !was_escaped && depth > 0 => depth -= 1,
            '\r' | '\n' => plain.push(' '),
            // A separator within quotes separates nothing.
            ';' if in_quotes => plain.push(' '),
            _ if depth == 0 => plain.push(character),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::authentication::{Arc, Dkim, Dmarc, Iprev, Scope};

    #[test]
    fn a_field_that_bears_our_name_is_known_however_it_is_written() {
        for ours in [
            " mx.example.com; spf=pass",
            " MX.Example.COM;dmarc=pass",
            "mx.example.com",
            " (a (nested) comment; other.example) mx.example.com 1; none",
            "\r\n\tmx.example.com\r\n ; spf=pass",
            " \"mx.example.com\"; spf=pass",
            " mx.example.com.; spf=pass",
            " mx.example.com (us); spf=pass",
        ] {
            assert!(bears(ours.as_bytes(), "mx.example.com"), "{ours:?}");
        }
        for other in
            ["", ";", " other.example; spf=pass", " xmx.example.com; none", " (mx.example.com) other.example; none"]
        {
            assert!(!bears(other.as_bytes(), "mx.example.com"), "{other:?}");
        }
    }

    #[test]
    fn what_a_link_saw_is_read_and_not_what_is_written_to_look_like_it() {
        assert!(says(
            b" i=1; mx.google.com;\r\n dkim=pass header.i=@a.example; dmarc=pass (p=REJECT) header.from=a.example",
            "dmarc",
            "pass"
        ));
        assert!(says(b"i=1; mx; DMARC/1 = PASS", "dmarc", "pass"));
        for not in [
            "i=1; mx; dmarc=fail (dmarc=pass)",
            "i=1; mx; spf=none reason=\"; dmarc=pass\"; dmarc=fail",
            "i=1; mx; dmarc=pass; dmarc=fail",
            "i=1; mx (; dmarc=pass",
            "i=1; mx; xdmarc=pass",
            "",
        ] {
            assert!(!says(not.as_bytes(), "dmarc", "pass"), "{not:?}");
        }
    }

    #[test]
    fn a_links_results_begin_with_its_number() {
        for (value, number) in [(" i=1; a", 1), ("i = 50 (last) ; a", 50), ("\r\n (x) i=09;a", 9)] {
            assert_eq!(instance(value.as_bytes()), Some(number), "{value:?}");
        }
        for not in ["", "i=1", "i=1 a; b", "a; i=1;", "i=0;", "i=51;", "i=001;", "i=+1;", "I=1;", "i=;", "i=a;", "=1;"]
        {
            assert_eq!(instance(not.as_bytes()), None, "{not:?}");
        }
    }

    fn client(helo: &str) -> Client {
        Client {
            ip: "2001:db8::1".parse().unwrap(),
            port: 25,
            listener: String::new(),
            helo: Some(helo.to_owned()),
            esmtp: true,
            tls: None,
            ptr: None,
            auth: None,
            origin: crate::mail::Origin::default(),
        }
    }

    /// RFC 5322 §2.1.1: 78 octets as far as it can be, 998 whatever comes.
    #[test]
    fn its_lines_are_short_whatever_a_peer_says() {
        let signature = |said: &str| Dkim { reason: said.into(), domain: said.into(), ..Dkim::default() };
        let long = ["ab ".repeat(2000), "\u{20ac}".repeat(2000), "\"".repeat(2000), format!("a{}b", " ".repeat(2000))];
        let auth = Authentication {
            iprev: Iprev { result: Check::Pass, name: "\u{20ac}".repeat(2000) },
            dkim: long.iter().map(|said| signature(said)).collect(),
            ..Authentication::default()
        };
        let field = written("mx.example.com", &client(&"\u{20ac}".repeat(255)), None, &auth);
        assert!(field.ends_with("\r\n") && field.contains("reason=\"ab ab ab"), "{field}");
        for line in field.split_terminator("\r\n") {
            let words = line.split(' ').filter(|word| !word.is_empty()).count();
            assert!(line.len() <= 78 || words == 1, "{} octets: {line}", line.len());
            assert!(line.len() <= 998 && !line.trim().is_empty(), "{} octets: {line}", line.len());
        }
        assert!(
            !field.contains("  ") && field.contains(&format!("\"{}\"", "\u{20ac}".repeat(MAX_VALUE / 3))),
            "{field}"
        );
    }

    #[test]
    fn no_line_is_blank_where_brackets_were_among_blanks() {
        for before in 0..80 {
            let name = format!("{} ( ( {}", "a".repeat(before), "b".repeat(MAX_LINE));
            let auth = Authentication { iprev: Iprev { result: Check::Pass, name }, ..Authentication::default() };
            let field = written("mx.example.com", &client("c"), None, &auth);
            assert!(field.split_terminator("\r\n").all(|line| !line.trim().is_empty()), "{field}");
        }
    }

    #[test]
    fn a_peers_words_make_no_field_of_their_own() {
        let client = client("x\"; dmarc=pass");
        let auth = Authentication {
            iprev: Iprev { result: Check::Pass, name: "a) (b\r\nX: y".into() },
            spf: Spf {
                result: Check::Fail,
                domain: "a.example".into(),
                scope: Scope::Mfrom,
                reason: "a \"b\"\r\n".into(),
            },
            dkim: vec![Dkim {
                result: Check::Pass,
                domain: "d;example".into(),
                b: "aB+/9==".into(),
                ..Dkim::default()
            }],
            dmarc: Dmarc {
                result: Check::Fail,
                domain: "a.example".into(),
                policy: "reject".into(),
                ..Dmarc::default()
            },
            arc: Arc { result: Check::Pass, ..Arc::default() },
            ..Authentication::default()
        };
        let sender = Address::parse("ann@a.example").unwrap();
        let field = written("mx.example.com", &client, Some(&sender), &auth);
        assert_eq!(
            field,
            "Authentication-Results: mx.example.com;\r\n\tiprev=pass policy.iprev=\"2001:db8::1\" (a bX: y);\r\n\t\
             spf=none smtp.helo=\"x\\\"; dmarc=pass\";\r\n\tspf=fail reason=\"a \\\"b\\\"\" smtp.mailfrom=ann@a.example;\r\n\t\
             dkim=pass header.d=\"d;example\" header.b=aB+/9==;\r\n\tdmarc=fail header.from=a.example \
             policy.dmarc=reject;\r\n\tarc=pass\r\n"
        );
        assert!(says(field.as_bytes(), "dmarc", "fail") && !says(field.as_bytes(), "dmarc", "pass"));
        assert!(bears(field.split_once(':').unwrap().1.as_bytes(), "mx.example.com"));
    }
}
