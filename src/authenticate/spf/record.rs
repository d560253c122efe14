//! An SPF record, read as RFC 7208's grammar has it: whoever breaks it anywhere gets a permerror, not a guess.
//!
//! Pure. Terms in their order, modifiers apart; names stay macro strings, to be expanded when they are asked for.
//! Standards: RFC 7208 §4.6.1, §5, §6, §7.1, §12.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One that can be evaluated.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub directives: Vec<Directive>,
    pub redirect: Option<Name>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Directive {
    pub qualifier: Qualifier,
    pub mechanism: Mechanism,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// `None` stands for the domain that is asked about.
#[derive(Debug, PartialEq, Eq)]
pub enum Mechanism {
    All,
    Include(Name),
    A(Option<Name>, Prefixes),
    Mx(Option<Name>, Prefixes),
    Ptr(Option<Name>),
    Ip(IpAddr, u8),
    Exists(Name),
}

/// Of the two kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    pub v4: u8,
    pub v6: u8,
}

/// A `domain-spec` (RFC 7208 §7.1), piece by piece.
#[derive(Debug, PartialEq, Eq)]
pub struct Name(pub Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Macro(Macro),
}

/// `%{ir.}` and the like.
#[derive(Debug, PartialEq, Eq)]
pub struct Macro {
    /// In lower case.
    pub letter: char,
    /// Written in upper case: what comes of it is escaped.
    pub escaped: bool,
    /// How many parts from the right; 0: all.
    pub parts: usize,
    pub reversed: bool,
    /// What parts are split at.
    pub delimiters: String,
}

impl Record {
    /// Reads what follows `v=spf1`; `None` where it breaks the grammar.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Printable ASCII alone, parted by blanks.
        if !text.bytes().all(|octet| (0x20..0x7f).contains(&octet)) {
            return None;
        }
        let (mut record, mut explains) = (Self::default(), false);
        for term in text.split(' ').filter(|term| !term.is_empty()) {
            // The first of these characters tells: `name=` begins a modifier, `name:` and `name/` a mechanism.
            let end = term.find([':', '/', '=']).unwrap_or(term.len());
            let (name, rest) = term.split_at_checked(end)?;
            if let Some(value) = rest.strip_prefix('=') {
                record.modifier(name, value, &mut explains)?;
            } else {
                record.directives.push(Directive::parse(name, rest)?);
            }
        }
        Some(record)
    }

    /// RFC 7208 §6: one that isn't known is passed over, if it is well formed.
    fn modifier(&mut self, name: &str, value: &str, explains: &mut bool) -> Option<()> {
        let mut characters = name.chars();
        let begins = characters.next().is_some_and(|first| first.is_ascii_alphabetic());
        if !begins || !characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            return None;
        }
        if name.eq_ignore_ascii_case("redirect") {
            let once = self.redirect.replace(Name::domain(value)?).is_none();
            return once.then_some(());
        }
        if name.eq_ignore_ascii_case("exp") {
            Name::domain(value)?;
            return (!std::mem::replace(explains, true)).then_some(());
        }
        Name::pieces(value).map(|_| ())
    }
}

impl Directive {
    fn parse(name: &str, rest: &str) -> Option<Self> {
        let (qualifier, name) = match name.chars().next()? {
            '+' => (Qualifier::Pass, name.get(1..)?),
            '-' => (Qualifier::Fail, name.get(1..)?),
            '~' => (Qualifier::SoftFail, name.get(1..)?),
            '?' => (Qualifier::Neutral, name.get(1..)?),
            _ => (Qualifier::Pass, name),
        };
        let named = |rest: &str| Name::domain(rest.strip_prefix(':')?);
        let mechanism = match name.to_ascii_lowercase().as_str() {
            "all" if rest.is_empty() => Mechanism::All,
            "include" => Mechanism::Include(named(rest)?),
            "exists" => Mechanism::Exists(named(rest)?),
            "ptr" => Mechanism::Ptr(if rest.is_empty() { None } else { Some(named(rest)?) }),
            "a" => {
                let (name, prefixes) = host(rest)?;
                Mechanism::A(name, prefixes)
            }
            "mx" => {
                let (name, prefixes) = host(rest)?;
                Mechanism::Mx(name, prefixes)
            }
            "ip4" => {
                let (ip, length) = network(rest)?;
                Mechanism::Ip(IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), prefix(length.unwrap_or("32"), 32)?)
            }
            "ip6" => {
                let (ip, length) = network(rest)?;
                Mechanism::Ip(IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), prefix(length.unwrap_or("128"), 128)?)
            }
            _ => return None,
        };
        Some(Self { qualifier, mechanism })
    }
}

/// `:192.0.2.0/24`
fn network(rest: &str) -> Option<(&str, Option<&str>)> {
    let rest = rest.strip_prefix(':')?;
    Some(rest.split_once('/').map_or((rest, None), |(ip, length)| (ip, Some(length))))
}

/// No sign, no leading zero, within the address.
fn prefix(text: &str, most: u8) -> Option<u8> {
    let plain = text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|length| plain && *length <= most)
}

/// `[ ":" domain-spec ] [ dual-cidr-length ]` (RFC 7208 §5.3): a slash may be part of a name, if no number ends it.
fn host(rest: &str) -> Option<(Option<Name>, Prefixes)> {
    let (rest, v6) = length_after(rest, "//");
    let (name, v4) = length_after(rest, "/");
    let prefixes = Prefixes { v4: prefix(v4.unwrap_or("32"), 32)?, v6: prefix(v6.unwrap_or("128"), 128)? };
    let name = if name.is_empty() { None } else { Some(Name::domain(name.strip_prefix(':')?)?) };
    Some((name, prefixes))
}

/// What stands before `slash` and a number at the end, and that number.
fn length_after<'a>(text: &'a str, slash: &str) -> (&'a str, Option<&'a str>) {
    let parted = text.rsplit_once(slash);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    parted.filter(|(_, length)| is_number(length)).map_or((text, None), |(rest, length)| (rest, Some(length)))
}

impl Name {
    /// A `domain-spec`: it ends in a label that could be a top-level domain's, or in a macro.
    fn domain(text: &str) -> Option<Self> {
        let name = Self::pieces(text)?;
        let is_one = match name.0.last()? {
            Piece::Macro(_) => true,
            Piece::Text(text) => {
                let text = text.strip_suffix('.').unwrap_or(text);
                let (before, top) = text.rsplit_once('.')?;
                let well = !top.starts_with('-') && !top.ends_with('-') && !top.is_empty();
                let is_word = top.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
                let has_letter = top.bytes().any(|octet| octet.is_ascii_alphabetic() || octet == b'-');
                (!before.is_empty() || name.0.len() > 1) && well && is_word && has_letter
            }
        };
        is_one.then_some(name)
    }

    /// A `macro-string`.
    fn pieces(text: &str) -> Option<Self> {
        let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find('%') {
            plain.push_str(rest.get(..at)?);
            let after = rest.get(at + 1..)?;
            rest = after.get(1..)?;
            match after.chars().next()? {
                '%' => plain.push('%'),
                '_' => plain.push(' '),
                '-' => plain.push_str("%20"),
                '{' => {
                    let (inner, further) = rest.split_once('}')?;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Macro(Macro::parse(inner)?));
                    rest = further;
                }
                _ => return None,
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Some(Self(pieces))
    }

    /// Whether the client's own names have to be known for it.
    #[must_use]
    pub fn needs_names(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Macro(Macro { letter: 'p', .. })))
    }
}

impl Macro {
    /// Whether the client says what stands for it: its names, and what it calls itself and its sender.
    #[must_use]
    pub fn is_clients(&self) -> bool {
        matches!(self.letter, 'h' | 'l' | 'p' | 's')
    }

    /// RFC 7208 §7.1: a letter, how many parts, `r`, delimiters.
    fn parse(text: &str) -> Option<Self> {
        let letter = text.chars().next()?;
        let lower = letter.to_ascii_lowercase();
        // `c`, `r` and `t` are for explanations alone, which are not fetched.
        if !"slodiphv".contains(lower) {
            return None;
        }
        let rest = text.get(1..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = rest.split_at_checked(digits)?;
        let parts = if number.is_empty() { 0 } else { number.parse().ok().filter(|parts| *parts > 0)? };
        let (reversed, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return None;
        }
        let delimiters = if delimiters.is_empty() { "." } else { delimiters };
        let escaped = letter.is_ascii_uppercase();
        Some(Self { letter: lower, escaped, parts, reversed, delimiters: delimiters.to_owned() })
    }

    /// What stands for it (RFC 7208 §7.3).
    #[must_use]
    pub fn expand(&self, value: &str) -> String {
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.reversed {
            parts.reverse();
        }
        let surplus = if self.parts == 0 { 0 } else { parts.len().saturating_sub(self.parts) };
        let text = parts.get(surplus..).unwrap_or_default().join(".");
        if !self.escaped {
            return text;
        }
        let mut escaped = String::with_capacity(text.len());
        for octet in text.bytes() {
            if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
                escaped.push(char::from(octet));
            } else {
                // Writing to a String can't fail.
                let _ = write!(escaped, "%{octet:02X}");
            }
        }
        escaped
    }
}
