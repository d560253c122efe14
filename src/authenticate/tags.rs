//! The tags of signatures and seals, read to the letter.
//!
//! mail-auth takes the last of two tags of one name, one in another case for the tag itself, and a default where a tag has
//! to be: so it would hold what other verifiers refuse. What has a fault here is verified by nobody.
//! Standards: RFC 6376 §3.2 (lists of tags), §3.5 (those of a signature), §6.1.1 (they are read meticulously),
//! RFC 8617 §4.1 (those of a chain), §5.2 (whether it is whole).

use std::collections::BTreeMap;

use super::clipped;
use crate::mail::results;

const SEAL: &str = "ARC-Seal";
const SIGNATURE: &str = "ARC-Message-Signature";
const RESULTS: &str = "ARC-Authentication-Results";

/// Each name in lower case ─► as it is written, and its value.
struct Tags<'a>(BTreeMap<String, (&'a [u8], &'a [u8])>);

impl<'a> Tags<'a> {
    fn read(field: &'a [u8]) -> Result<Self, String> {
        let list = field.trim_ascii();
        let list = list.strip_suffix(b";").unwrap_or(list);
        let mut tags = BTreeMap::new();
        for part in list.split(|octet| *octet == b';') {
            let at = part.iter().position(|octet| *octet == b'=');
            let Some((name, value)) = at.and_then(|at| part.split_at_checked(at)) else {
                return Err("between two semicolons there is no tag".to_owned());
            };
            let (name, value) = (name.trim_ascii(), value.trim_ascii_start());
            let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
            if !is_name(name) {
                return Err("a tag has a name that can't be".to_owned());
            }
            if value.iter().any(|octet| octet.is_ascii_control() && !octet.is_ascii_whitespace()) {
                return Err(format!("the tag {}= holds a control character", shown(name)));
            }
            let key = String::from_utf8_lossy(name).to_ascii_lowercase();
            if tags.insert(key, (name, value)).is_some() {
                return Err(format!("the tag {}= is there twice", shown(name)));
            }
        }
        Ok(Self(tags))
    }

    /// Names are case-sensitive (RFC 6376 §3.2).
    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.get(name).filter(|(written, _)| *written == name.as_bytes()).map(|(_, value)| *value)
    }

    fn need(self, names: &[&str]) -> Result<Self, String> {
        let lacking = |name: &&&str| self.get(name).is_none_or(<[u8]>::is_empty);
        match names.iter().find(lacking) {
            Some(name) => Err(format!("the tag {name}= is missing or empty")),
            None => Ok(self),
        }
    }

    /// Those that are there are numbers of so many digits at most.
    fn count(self, names: &[(&str, usize)]) -> Result<Self, String> {
        let is_number =
            |value: &[u8], most: usize| (1..=most).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let wrong = |(name, most): &&(&str, usize)| self.get(name).is_some_and(|value| !is_number(value, *most));
        match names.iter().find(wrong) {
            Some((name, most)) => Err(format!("the tag {name}= is no number of {most} digits at most")),
            None => Ok(self),
        }
    }

    /// Who says how the octets are made the same has said it.
    fn says_how(self) -> Result<Self, String> {
        if self.get("c").is_some_and(<[u8]>::is_empty) { Err("the tag c= is empty".to_owned()) } else { Ok(self) }
    }
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'_')
}

fn shown(name: &[u8]) -> String {
    clipped(&String::from_utf8_lossy(name))
}

/// What is wrong with a DKIM-Signature.
pub(super) fn fault_of_signature(field: &[u8]) -> Option<String> {
    let tags = Tags::read(field).and_then(|tags| tags.need(&["v", "a", "b", "bh", "d", "h", "s"]));
    tags.and_then(|tags| tags.count(&[("t", 12), ("x", 12), ("l", 76)])).and_then(Tags::says_how).err()
}

/// What is wrong with the fields of a chain, before any of its signatures is looked at.
pub(super) fn fault_of_chain<'a>(header: &[(&'a [u8], &'a [u8])]) -> Option<String> {
    let all = |name: &'static str| {
        let is_it = move |field: &&[u8]| field.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        header.iter().filter(move |(field, _)| is_it(field)).map(|(_, value)| *value)
    };
    let count = |name: &'static str| all(name).count();
    let (seals, signatures, seen) = (count(SEAL), count(SIGNATURE), count(RESULTS));
    if seals != signatures || seals != seen {
        return Some(format!("it is not whole: {seals} {SEAL}, {signatures} {SIGNATURE}, {seen} {RESULTS}"));
    }
    let told = |name: &str, fault: String| format!("{name}: {fault}");
    let seal = all(SEAL).find_map(|field| seal(field).err()).map(|fault| told(SEAL, fault));
    let signature = || all(SIGNATURE).find_map(|field| signature(field).err()).map(|fault| told(SIGNATURE, fault));
    let seen = || {
        let begins = all(RESULTS).all(|field| results::instance(field).is_some());
        (!begins).then(|| told(RESULTS, "it doesn't begin with i= from 1 to 50".to_owned()))
    };
    seal.or_else(signature).or_else(seen)
}

fn seal(field: &[u8]) -> Result<(), String> {
    let tags = Tags::read(field)?.need(&["i", "a", "b", "cv", "d", "s"])?.count(&[("i", 2), ("t", 12)])?;
    // RFC 8617 §4.1.3
    if tags.get("h").is_some() { Err("a seal has no tag h=".to_owned()) } else { Ok(()) }
}

fn signature(field: &[u8]) -> Result<(), String> {
    let needed = Tags::read(field)?.need(&["i", "a", "b", "bh", "d", "h", "s"])?;
    let tags = needed.count(&[("i", 2), ("t", 12), ("x", 12), ("l", 76)])?.says_how()?;
    // RFC 8617 §4.1.2: the seal comes last, and holds this one.
    let names = tags.get("h").unwrap_or_default().split(|octet| *octet == b':');
    let is_seal = |name: &[u8]| {
        let octets = name.iter().filter(|octet| !octet.is_ascii_whitespace());
        octets.copied().map(|octet| octet.to_ascii_lowercase()).eq(SEAL.bytes().map(|octet| octet.to_ascii_lowercase()))
    };
    if names.into_iter().any(is_seal) { Err(format!("it signs an {SEAL}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "v=1; a=rsa-sha256; d=a.example; s=x;\r\n\th=from : to; bh=YQ==;\r\n b=Yg = =";
    const SEALED: &str = "i=1; a=rsa-sha256; cv=none; d=a.example; s=x; b=Yg==";
    const LINK: &str = "i=1; a=rsa-sha256; d=a.example; s=x; h=from; bh=YQ==; b=Yg==";
    const SAW: &str = " i=1; a.example; dmarc=pass";

    #[test]
    fn a_signature_has_each_tag_once_and_as_it_is_written() {
        let more = |tag: &str| format!("{SIGNED}; {tag}");
        for good in [
            SIGNED.to_owned(),
            more(""),
            more("\r\n "),
            more("x_1=; t = 12 "),
            more("z=\u{fc}; l=5; c=relaxed"),
            SIGNED.replace("=x;", " =\r\n x ;"),
        ] {
            assert_eq!(fault_of_signature(good.as_bytes()), None, "{good}");
        }
        for (bad, why) in [
            (more("s=y"), "s= is there twice"),
            (more("S=y"), "S= is there twice"),
            (SIGNED.replace("s=x", "S=x"), "s= is missing"),
            (SIGNED.replace("a=rsa-sha256; ", ""), "a= is missing"),
            (SIGNED.replace("v=1; ", ""), "v= is missing"),
            (SIGNED.replace("from : to", ""), "h= is missing or empty"),
            (more(";"), "no tag"),
            (more("words"), "no tag"),
            (more("==x"), "name"),
            (more("_="), "name"),
            (more("b h=YQ=="), "name"),
            (more("t="), "t= is no number"),
            (more("t=-1"), "t= is no number"),
            (more("x=1234567890123"), "x= is no number of 12"),
            (more("l=1 2"), "l= is no number"),
            (more("c="), "c= is empty"),
            (more("y=\u{1}"), "control"),
            (String::new(), "no tag"),
        ] {
            let fault = fault_of_signature(bad.as_bytes()).unwrap_or_default();
            assert!(fault.contains(why), "{bad}: {fault:?}");
        }
    }

    fn chain(fields: &[(&'static str, &str)]) -> String {
        let header: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        fault_of_chain(&header).unwrap_or_default()
    }

    #[test]
    fn a_chain_is_whole_or_has_a_fault() {
        let whole = [(SEAL, SEALED), ("arc-MESSAGE-signature", LINK), ("To", "i=0"), (RESULTS, SAW)];
        assert_eq!(chain(&whole), "");
        assert_eq!(chain(&[]), "");
        for lacking in 0..4 {
            let rest: Vec<_> =
                whole.iter().enumerate().filter(|(at, _)| *at != lacking).map(|(_, field)| *field).collect();
            assert_eq!(chain(&rest).contains("it is not whole"), lacking != 2, "without {:?}", whole[lacking].0);
        }
        for (name, value, why) in [
            (SEAL, SEALED.replace("cv=none; ", ""), "ARC-Seal: the tag cv= is missing"),
            (SEAL, SEALED.replace("i=1", "i=001"), "i= is no number of 2"),
            (SEAL, format!("{SEALED}; h=from"), "no tag h="),
            (SIGNATURE, LINK.replace("from", "from: ARC-\r\n Seal"), "it signs an ARC-Seal"),
            (SIGNATURE, LINK.replace("bh=YQ==; ", ""), "ARC-Message-Signature: the tag bh= is missing"),
            (RESULTS, "a.example; i=1; dmarc=pass".to_owned(), "ARC-Authentication-Results: it doesn't begin"),
        ] {
            let mut fields = whole.to_vec();
            fields.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
            fields.push((name, &value));
            assert!(chain(&fields).contains(why), "{value}: {:?}", chain(&fields));
        }
    }
}
