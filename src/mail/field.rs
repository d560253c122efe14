//! Fields of a header section that somebody wants put there: what they may be called and hold. One rule for scripts,
//! routes and the mail that is written here.
//!
//! Standards: RFC 5322 §2.2 (header fields), §3.6.8 (field names); RFC 2047 §5 (where encoded words may stand).

/// Octets of a name and of a value: with both a line has room before its limit (RFC 5322 §2.1.1).
pub const MAX_NAME: usize = 76;
pub const MAX_VALUE: usize = 900;

/// Addresses, ids and dates: no encoded word stands for the whole of them. In lower case, as in [`is_among`].
const STRUCTURED: &[&str] = &[
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "resent-",
    "list-",
];

/// Whether a field can be called that.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let well_formed = name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':');
    !name.is_empty() && name.len() <= MAX_NAME && well_formed
}

/// Whether a field of that name may be put before what is forwarded: it says nothing that others go by.
#[must_use]
pub fn is_free(name: &str) -> bool {
    name.len() > 2 && name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("X-"))
}

/// Whether a field holds that on one line, however long.
#[must_use]
pub fn is_line(value: &str) -> bool {
    !value.chars().any(|character| character.is_control() && character != '\t')
}

/// Whether it is made of addresses, ids or dates: encoded words in it are its writer's, and stand where they may.
#[must_use]
pub fn is_structured(name: &str) -> bool {
    is_among(STRUCTURED, name)
}

/// Whether a list has it: names in lower case, of which one that ends with `-` is every one that begins so.
#[must_use]
pub fn is_among(names: &[&str], name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    names.iter().any(|known| if known.ends_with('-') { name.starts_with(known) } else { name == *known })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_only_those_with_x_are_free() {
        for name in ["X-Team", "x-a", "Subject", "List-Id"] {
            assert!(is_name(name), "{name}");
        }
        let long = "X".repeat(MAX_NAME + 1);
        for name in ["", "X Y", "X:", "Ü", "X\r\nBcc", long.as_str()] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_free("X-A") && is_free("x-a") && !is_free("X-") && !is_free("Subject") && !is_free("Ü-A"));
        assert!(is_structured("List-Id") && is_structured("TO") && !is_structured("Subject") && !is_structured("X-To"));
        assert!(is_line("a\tb ü") && !is_line("a\nb") && !is_line("a\0"));
    }
}
