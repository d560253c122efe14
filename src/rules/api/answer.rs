//! What a script wants the sender to read: code, enhanced status and text, checked.
//!
//! RFC 5321 §4.2 (codes), RFC 3463 §2 and RFC 2034 §4 (the status' class is the code's).

use crate::mail::Reply;

/// Characters of a text: one line of a reply.
const MAX_TEXT: usize = 400;

/// `set_reject(text)`.
///
/// # Errors
/// What is wrong with the text.
pub fn rejection(text: &str) -> Result<Reply, String> {
    Ok(Reply::new(550, 7, 1, checked(text)?))
}

/// `defer(text)`.
///
/// # Errors
/// What is wrong with the text.
pub fn deferral(text: &str) -> Result<Reply, String> {
    Ok(Reply::new(451, 7, 1, checked(text)?))
}

/// `session.reject(text)` in place of the greeting (RFC 5321 §3.1).
///
/// # Errors
/// What is wrong with the text.
pub fn no_greeting(text: &str) -> Result<Reply, String> {
    Ok(Reply::new(554, 7, 1, checked(text)?))
}

/// `session.defer(text)` in place of the greeting: of the 4xx only 421 may stand there (RFC 5321 §4.3.2).
///
/// # Errors
/// What is wrong with the text.
pub fn no_greeting_yet(text: &str) -> Result<Reply, String> {
    Ok(Reply::new(421, 7, 1, checked(text)?))
}

/// `session.reject(code, enhanced, text)` in place of the greeting.
///
/// # Errors
/// Another code than 554 or 521 (RFC 7504 §3), and as [`rejection_with`].
pub fn no_greeting_with(code: i64, enhanced: &str, text: &str) -> Result<Reply, String> {
    match rejection_with(code, enhanced, text)? {
        reply if matches!(reply.code, 554 | 521) => Ok(reply),
        reply => Err(format!("in place of the greeting stands 554 or 521, not {}", reply.code)),
    }
}

/// `set_reject(code, enhanced, text)`.
///
/// # Errors
/// A code that isn't 5xx, a status of another class, what is wrong with the text.
pub fn rejection_with(code: i64, enhanced: &str, text: &str) -> Result<Reply, String> {
    let code = u16::try_from(code).ok().filter(|code| (500..=599).contains(code));
    let code = code.ok_or("the code of a rejection is from 500 to 599; use defer(text) for a temporary one")?;
    let (subject, detail) = status(enhanced)?;
    Ok(Reply::new(code, subject, detail, checked(text)?))
}

/// Subject and detail of `5.X.Y`.
fn status(enhanced: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        let well_formed = (1..=3).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| well_formed)
    };
    let parts: Vec<&str> = enhanced.split('.').collect();
    let [class, subject, detail] = parts.as_slice() else {
        return Err(format!("{enhanced:?} is no enhanced status: expected one like \"5.7.1\""));
    };
    match (*class, number(subject), number(detail)) {
        ("5", Some(subject), Some(detail)) => Ok((subject, detail)),
        (_, Some(_), Some(_)) => Err(format!("the enhanced status of a rejection begins with 5, not as {enhanced:?}")),
        _ => Err(format!("{enhanced:?} is no enhanced status: expected one like \"5.7.1\"")),
    }
}

fn checked(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("the text is empty: say what the sender shall read".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("the text has a line break or another control character".to_owned());
    }
    match text.chars().count() {
        length if length > MAX_TEXT => Err(format!("the text has {length} characters, at most {MAX_TEXT} are sent")),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_status_are_of_one_class() {
        assert_eq!(rejection_with(554, "5.7.26", "no").unwrap(), Reply::new(554, 7, 26, "no"));
        for (code, enhanced) in [(450, "4.7.1"), (600, "5.7.1"), (-1, "5.7.1"), (i64::MAX, "5.7.1")] {
            assert!(rejection_with(code, enhanced, "no").unwrap_err().contains("500 to 599"), "{code}");
        }
        assert!(rejection_with(550, "4.7.1", "no").unwrap_err().contains("begins with 5"));
        for enhanced in ["", "5", "5.7", "5.7.1.1", "5.7.x", "5.+7.1", "5.7.1000", "5..1", "5. 7.1"] {
            assert!(rejection_with(550, enhanced, "no").unwrap_err().contains("no enhanced status"), "{enhanced}");
        }
    }

    #[test]
    fn in_place_of_the_greeting_stand_few_codes() {
        assert_eq!(no_greeting("no").unwrap(), Reply::new(554, 7, 1, "no"));
        assert_eq!(no_greeting_yet("later").unwrap(), Reply::new(421, 7, 1, "later"));
        assert_eq!(no_greeting_with(521, "5.3.2", "no mail here").unwrap().code, 521);
        assert!(no_greeting_with(550, "5.7.1", "no").unwrap_err().contains("554 or 521, not 550"));
        assert!(no_greeting_with(450, "4.7.1", "no").unwrap_err().contains("500 to 599"));
    }

    #[test]
    fn a_text_is_one_line_and_not_too_long() {
        for bad in ["", "  ", "a\r\n250 ok", "a\nb", "a\u{0}", "a\u{85}", &"x".repeat(401)] {
            assert!(rejection(bad).is_err(), "{bad:?}");
            assert!(deferral(bad).is_err(), "{bad:?}");
        }
        assert_eq!(deferral(&"x".repeat(400)).unwrap().code, 451);
    }
}
