//! What an endpoint's answer comes to: done, later, never again, and how long to leave it alone. Pure.
//!
//! 2xx is success; a redirect is a failure that says where to; 410 is the end; 429, 502, 503 and 504 ask for a rest;
//! all else is tried again by the schedule. Standards: Standard Webhooks; RFC 9110 §10.2.3 (Retry-After), §15.

use std::time::{Duration, UNIX_EPOCH};

use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use url::Url;

use crate::delivery::{Failure, Retry, Side};
use crate::event::shown_url;
use crate::mail::Timestamp;

/// Octets of an answer that are read.
pub const MAX_READ: usize = 4 * 1024;
/// Characters of an answer that are kept.
const MAX_TEXT: usize = 1024;
/// However long an endpoint asks us to wait, a day is enough.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// An answer that was read, its text fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

/// As in `503: try later`.
impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

/// What the answer means for the delivery and for its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub result: Result<Answer, Failure>,
    pub retry_after: Option<Duration>,
    pub pauses: bool,
}

/// `host` as in `hooks.example.net [192.0.2.1]:443`; `url` is what was called.
#[must_use]
pub fn judge(status: u16, headers: &HeaderMap, content: &[u8], host: &str, url: &Url, now: Timestamp) -> Verdict {
    let answer = Answer { status, text: clean(&String::from_utf8_lossy(content), MAX_TEXT) };
    if (200..300).contains(&status) {
        return Verdict { result: Ok(answer), retry_after: None, pauses: false };
    }
    let gone = status == 410;
    let detail = match status {
        300..400 => format!("{host} answered {}", redirect(status, headers, url)),
        410 => format!("{host} answered {answer}; by 410 an endpoint says that it wants no more"),
        _ => format!("{host} answered {answer}"),
    };
    let failure = Failure {
        retry: if gone { Retry::Never } else { Retry::Later },
        side: Side::Remote,
        status: if gone { "5.0.0" } else { "4.0.0" }.to_owned(),
        reply: None,
        detail,
    };
    let retry_after = if gone { None } else { wait(headers, now) };
    Verdict { result: Err(failure), retry_after, pauses: matches!(status, 429 | 502..=504) }
}

/// Which host a redirect leads to; it is never followed.
fn redirect(status: u16, headers: &HeaderMap, url: &Url) -> String {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    match location.and_then(|text| url.join(text).ok()) {
        Some(target) => {
            format!("{status}, a redirect to {}, which is not followed", clean(&shown_url(target.as_str()), 300))
        }
        None => format!("{status}, a redirect, which is not followed"),
    }
}

/// Seconds or a date (RFC 9110 §10.2.3); what is neither says nothing.
fn wait(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are more than a day too.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
    let at = Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).ok()?);
    Some(at.since(now).min(LONGEST_WAIT))
}

/// One line, without control characters, of bounded length.
#[must_use]
pub fn clean(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    let mut blank = false;
    for character in text.chars().take(4 * limit) {
        if character.is_whitespace() {
            blank = !out.is_empty();
        } else if !character.is_control() {
            if std::mem::take(&mut blank) {
                out.push(' ');
            }
            out.push(character);
        }
    }
    out.chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Sun, 06 Nov 1994 08:49:37 GMT
    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);

    fn judged(status: u16, fields: &[(&'static str, &str)], content: &str) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        let url = Url::parse("https://hooks.example.net/in?key=k").unwrap();
        judge(status, &headers, content.as_bytes(), "hooks.example.net:443", &url, NOW)
    }

    #[test]
    fn every_2xx_is_success() {
        for status in [200, 201, 202, 204, 299] {
            let verdict = judged(status, &[], "ok\r\n");
            assert_eq!(verdict.result.unwrap().to_string(), format!("{status}: ok"));
            assert!(!verdict.pauses);
        }
    }

    #[test]
    fn gone_is_never_again() {
        let verdict = judged(410, &[("retry-after", "5")], "");
        assert!(!verdict.pauses && verdict.retry_after.is_none());
        assert_eq!(verdict.result.unwrap_err().retry, Retry::Never);
    }

    #[test]
    fn what_says_too_much_or_not_now_rests_the_destination() {
        for status in [429, 502, 503, 504] {
            assert!(judged(status, &[], "").pauses, "{status}");
        }
        for status in [400, 401, 404, 413, 500, 501] {
            let verdict = judged(status, &[], "");
            assert!(!verdict.pauses, "{status}");
            assert_eq!(verdict.result.unwrap_err().retry, Retry::Later, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_a_day_at_most() {
        let wait = |value: &str| judged(503, &[("retry-after", value)], "").retry_after.map(|wait| wait.as_secs());
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(wait("99999999999999999999999"), Some(86_400));
        assert_eq!(wait("Sat, 06 Nov 2094 08:49:37 GMT"), Some(86_400));
        assert_eq!([wait("soon"), wait("-5"), wait("")], [None; 3]);
    }

    #[test]
    fn a_redirect_says_where_to_and_not_with_which_key() {
        let verdict = judged(302, &[("location", "//user:pw@other.example/new?token=t#f")], "");
        let failure = verdict.result.unwrap_err();
        assert_eq!(failure.retry, Retry::Later);
        assert!(failure.detail.contains("https://other.example/…,"), "{}", failure.detail);
        for secret in ["token", "pw", "user", "new"] {
            assert!(!failure.detail.contains(secret), "{}", failure.detail);
        }
        assert!(judged(301, &[], "").result.unwrap_err().detail.contains("a redirect, which is not followed"));
    }

    #[test]
    fn an_answers_text_is_one_line_without_control_characters() {
        assert_eq!(clean(" a\r\n\tb\u{1b}[31m\u{0}c\u{9b} ", 100), "a b[31mc");
        assert_eq!(clean(&"x".repeat(10_000), 1024).len(), 1024);
        assert_eq!(clean(&"\u{0}".repeat(10_000), 1024), "");
    }
}
