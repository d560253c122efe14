//! A mailbox as SMTP writes it: `local@domain`, checked once, kept as written.
//!
//! Standards: RFC 5321 §4.1.2 (Mailbox), §4.5.3.1 (64 and 255 octets), RFC 6531 §3.3 (UTF-8), RFC 5233 (subaddress).
//! A bare `postmaster` (RFC 5321 §4.5.1) is an `Address` without a domain.

use std::borrow::Cow;
use std::fmt;
use std::slice::SliceIndex;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A checked mailbox. Comparison is by octet; [`Address::same_mailbox`] compares as mail does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    text: String,
    /// Where the `@` stands; `text.len()` where there is no domain.
    at: usize,
}

/// Why a text is no mailbox. The text says what is wrong in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the address is empty")]
    Empty,
    #[error("the address has no @domain")]
    NoDomain,
    #[error("the local part is longer than 64 octets")]
    LocalTooLong,
    #[error("the domain is longer than 255 octets")]
    DomainTooLong,
    #[error("the local part is malformed")]
    Local,
    #[error("the domain is malformed")]
    Domain,
}

impl Address {
    /// Parses `local@domain`; quoted local parts, address literals and UTF-8 included.
    ///
    /// # Errors
    /// [`AddressError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let at = text.rfind('@').ok_or(AddressError::NoDomain)?;
        let (local, domain) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        check_local(local)?;
        check_domain(domain)?;
        Ok(Self { text: text.to_owned(), at })
    }

    /// The one mailbox that needs no domain (RFC 5321 §4.5.1), in the case it was written.
    #[must_use]
    pub fn bare_postmaster(text: &str) -> Option<Self> {
        text.eq_ignore_ascii_case("postmaster").then(|| Self { text: text.to_owned(), at: text.len() })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Before the `@`, as written, quotes included.
    #[must_use]
    pub fn local(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// After the `@`, as written; empty for a bare postmaster.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.text.get(self.at + 1..).unwrap_or_default()
    }

    /// The subaddress: what follows the first `separator` of the local part (RFC 5233 §4). `None` where there is none.
    #[must_use]
    pub fn tag(&self, separator: &str) -> Option<Cow<'_, str>> {
        let local = self.unquoted_local();
        let at = tag_at(&local, separator)?;
        Some(part(local, at + separator.len()..))
    }

    /// The local part without its subaddress and its quotes.
    #[must_use]
    pub fn base(&self, separator: &str) -> Cow<'_, str> {
        let local = self.unquoted_local();
        match tag_at(&local, separator) {
            Some(at) => part(local, ..at),
            None => local,
        }
    }

    /// The domain in the form in which domains are compared: A-labels in lower case (RFC 5890 §2.3.2.1).
    #[must_use]
    pub fn domain_key(&self) -> String {
        domain_key(self.domain())
    }

    /// Whether any octet is beyond ASCII, so that the next hop needs SMTPUTF8 (RFC 6531 §3.1).
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The local part as it is meant: without the quotes and backslashes it may be written with (RFC 5321 §4.1.2).
    #[must_use]
    pub fn unquoted_local(&self) -> Cow<'_, str> {
        let local = self.local();
        let Some(content) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Cow::Borrowed(local);
        };
        if !content.contains('\\') {
            return Cow::Borrowed(content);
        }
        let mut escaped = false;
        let meant = |character: &char| {
            escaped = *character == '\\' && !escaped;
            !escaped
        };
        Cow::Owned(content.chars().filter(meant).collect())
    }

    /// Both domains the same in either form of IDN, and the local parts without regard to ASCII case and quoting.
    #[must_use]
    pub fn same_mailbox(&self, other: &Self) -> bool {
        self.unquoted_local().eq_ignore_ascii_case(&other.unquoted_local()) && self.domain_key() == other.domain_key()
    }
}

/// Where the separator stands that a subaddress follows.
fn tag_at(local: &str, separator: &str) -> Option<usize> {
    local.find(separator).filter(|at| *at > 0 && !separator.is_empty())
}

fn part<R: SliceIndex<str, Output = str>>(text: Cow<'_, str>, range: R) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(range).unwrap_or_default()),
        Cow::Owned(text) => Cow::Owned(text.get(range).unwrap_or_default().to_owned()),
    }
}

/// A domain's A-labels in lower case; a literal or a name IDNA refuses is lower-cased as it is.
#[must_use]
pub fn domain_key(domain: &str) -> String {
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.to_lowercase())
}

fn check_local(local: &str) -> Result<(), AddressError> {
    if local.len() > 64 {
        return Err(AddressError::LocalTooLong);
    }
    let well_formed = match local.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').is_some_and(is_quoted_content),
        None => local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext)),
    };
    if well_formed { Ok(()) } else { Err(AddressError::Local) }
}

/// qtextSMTP and quoted-pairSMTP (RFC 5321 §4.1.2).
fn is_quoted_content(content: &str) -> bool {
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        let good = match character {
            '\\' => characters.next().is_some_and(|escaped| (' '..='~').contains(&escaped)),
            '"' => false,
            other => other == ' ' || other.is_ascii_graphic() || is_utf8_text(other),
        };
        if !good {
            return false;
        }
    }
    true
}

/// atext (RFC 5322 §3.2.3) and UTF-8 beyond ASCII (RFC 6532 §3.2).
fn is_atext(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(character) || is_utf8_text(character)
}

fn is_utf8_text(character: char) -> bool {
    !character.is_ascii() && !character.is_control() && !character.is_whitespace()
}

/// A domain name or an address literal (RFC 5321 §4.1.3).
fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.len() > 255 {
        return Err(AddressError::DomainTooLong);
    }
    let well_formed = match domain.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(is_literal),
        None => domain.split('.').all(is_label),
    };
    if well_formed { Ok(()) } else { Err(AddressError::Domain) }
}

fn is_literal(inner: &str) -> bool {
    let ipv6 = inner.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).and_then(|_| inner.get(5..));
    match ipv6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => inner.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// A label of letters, digits, hyphens and underscores (seen in the wild), or a U-label; to 63 octets.
fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || is_utf8_text(c))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::bare_postmaster(&text)
            .map_or_else(|| Self::parse(&text), Ok)
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is no mail address: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn what_the_standard_allows_is_kept_as_written() {
        for text in [
            "a@b",
            "User.Name+tag@Example.COM",
            "!#$%&'*+-/=?^_`{|}~@x.example",
            "\"a b\"@x.example",
            "\"a@b\"@x.example",
            "\"\\\"\"@x.example",
            "\"\"@x.example",
            "a@[192.0.2.1]",
            "a@[ipv6:2001:db8::1]",
            "j\u{fc}rgen@b\u{fc}cher.example",
            "a@x_y.example",
        ] {
            assert_eq!(address(text).as_str(), text);
        }
    }

    #[test]
    fn each_fault_is_named() {
        use AddressError::{Domain, DomainTooLong, Empty, Local, LocalTooLong, NoDomain};
        let long_local = format!("{}@x", "a".repeat(65));
        let long_domain = format!("a@{}x", "a.".repeat(130));
        for (text, error) in [
            ("", Empty),
            ("a", NoDomain),
            ("@x", Local),
            ("a@", Domain),
            (".a@x", Local),
            ("a..b@x", Local),
            ("a b@x", Local),
            ("a\r\n@x", Local),
            ("a\u{85}@x", Local),
            ("a@b@x", Local),
            ("\"a\"b\"@x", Local),
            ("\"a\\\"@x", Local),
            ("\"@x", Local),
            ("a@x.", Domain),
            ("a@-x", Domain),
            ("a@x y", Domain),
            ("a@x\n", Domain),
            ("a@[192.0.2]", Domain),
            ("a@[::1]", Domain),
            ("a@[IPv6:192.0.2.1]", Domain),
            ("a@[192.0.2.1", Domain),
            (long_local.as_str(), LocalTooLong),
            (long_domain.as_str(), DomainTooLong),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn only_postmaster_may_be_without_a_domain() {
        let postmaster = Address::bare_postmaster("PostMaster").unwrap();
        assert_eq!((postmaster.local(), postmaster.domain()), ("PostMaster", ""));
        assert_eq!(Address::bare_postmaster("root"), None);
        assert_eq!(serde_json::from_str::<Address>("\"postmaster\"").unwrap().domain(), "");
        assert!(serde_json::from_str::<Address>("\"root\"").is_err());
    }

    #[test]
    fn a_subaddress_follows_the_first_separator() {
        let given = address("user+a+b@x.example");
        assert_eq!((&*given.base("+"), given.tag("+").as_deref()), ("user", Some("a+b")));
        assert_eq!((&*given.base(""), given.tag("")), ("user+a+b", None));
        assert_eq!(address("+a@x.example").tag("+"), None);
        for quoted in [address("\"u+a\"@x.example"), address("\"\\u\\+\\a\"@x.example")] {
            assert_eq!((&*quoted.base("+"), quoted.tag("+").as_deref()), ("u", Some("a")), "{quoted}");
        }
    }

    #[test]
    fn mailboxes_are_compared_as_mail_does() {
        assert!(address("User@EXAMPLE.com").same_mailbox(&address("user@example.COM")));
        assert!(address("a@b\u{fc}cher.example").same_mailbox(&address("a@XN--bcher-kva.example")));
        assert!(address("\"user\"@x").same_mailbox(&address("user@x")));
        assert!(address("\"us\\er\"@x").same_mailbox(&address("user@x")));
        assert_eq!(address("\"a\\\\\\\"b\"@x").unquoted_local(), "a\\\"b");
        assert!(!address("user@x").same_mailbox(&address("user@y")));
    }
}
