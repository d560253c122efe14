//! Which fields the DKIM signatures of a message hold. Nothing is verified here: it tells what a change would break.
//!
//! Standards: RFC 6376 §3.2 (tag lists), §3.5 (`d=`, `h=`), §5.4.2 (fields that aren't there can be signed).
//! Bounds: so many signatures, so much of each.

/// Signatures that are looked at.
const MOST: usize = 20;
/// Octets of one.
const MAX_VALUE: usize = 16 * 1024;

/// The domains of those that list `name`.
pub(super) fn signers<'a>(signatures: impl Iterator<Item = &'a [u8]>, name: &str) -> Vec<String> {
    let mut domains: Vec<String> = Vec::new();
    for signature in signatures.take(MOST) {
        let text = String::from_utf8_lossy(signature.get(..MAX_VALUE).unwrap_or(signature));
        let holds = tag(&text, "h")
            .is_some_and(|names| names.split(':').any(|held| held.trim_matches(is_space).eq_ignore_ascii_case(name)));
        let domain = tag(&text, "d").map(|domain| domain.trim_matches(is_space).to_ascii_lowercase());
        domains.extend(domain.filter(|domain| holds && is_domain(domain) && !domains.contains(domain)));
    }
    domains
}

/// What stands behind `name=`; white space around it is none of it (RFC 6376 §3.2).
fn tag<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.split(';').find_map(|tag| {
        let (found, value) = tag.split_once('=')?;
        (found.trim_matches(is_space) == name).then_some(value)
    })
}

/// Folding included.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// Fit to be shown.
fn is_domain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.chars().all(|character| character.is_alphanumeric() || matches!(character, '.' | '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_what_its_h_tag_lists() {
        let one = b" v=1; a=rsa-sha256; d=Example.ORG; s=a;\r\n\th=From : To:\r\n\t Subject;b=h=date:".as_slice();
        let other = b"h=subject:from; d=list.example".as_slice();
        let of = |name| signers([one, other].into_iter(), name);
        assert_eq!(of("subject"), ["example.org", "list.example"]);
        assert_eq!(of("To"), ["example.org"]);
        assert_eq!(of("Date"), [""; 0]);
        assert_eq!(signers([one, one].into_iter(), "From"), ["example.org"]);
    }

    #[test]
    fn garbage_signs_nothing() {
        for garbage in ["", ";;;=", "h=subject", "h=subject; d=", "h=subject; d=a\u{7}b", "d=a.example; h"] {
            assert!(signers([garbage.as_bytes()].into_iter(), "Subject").is_empty(), "{garbage:?}");
        }
        let many = std::iter::repeat_n(b"h=subject; d=a.example".as_slice(), 1000);
        assert_eq!(signers(many, "Subject"), ["a.example"]);
    }
}
