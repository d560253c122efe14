//! What a server says: replies, bounded and cleaned, and what they come to. Pure.
//!
//! Octets are parsed by smtp-proto. Standards: RFC 5321 §4.2, RFC 2034 (enhanced codes), RFC 1869 (EHLO keywords).

use smtp_proto::Error;
use smtp_proto::response::parser::ResponseReceiver;

use crate::delivery::{Failure, Retry, Side};
use crate::mail::Reply;

/// Octets of one reply, all its lines together; longer is no reply.
const MAX_REPLY: usize = 16 * 1024;
/// Characters of a reply that are kept.
const MAX_TEXT: usize = 1024;

/// Takes octets as they come, gives replies.
#[derive(Default)]
pub struct Replies {
    parser: ResponseReceiver,
    octets: usize,
}

/// The peer doesn't speak SMTP.
#[derive(Debug, PartialEq, Eq)]
pub enum NoReply {
    Malformed,
    TooLong,
}

impl Replies {
    /// A reply has begun and not ended.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.octets > 0
    }

    /// The reply that `input` completes, and how many of its octets were used; `None`: all, and it goes on.
    ///
    /// # Errors
    /// [`NoReply`]: nothing more can be made of this connection.
    pub fn push(&mut self, input: &[u8]) -> Result<(Option<Reply>, usize), NoReply> {
        let mut rest = input.iter();
        let parsed = self.parser.parse(&mut rest);
        let used = input.len() - rest.as_slice().len();
        self.octets += used;
        if self.octets > MAX_REPLY {
            return Err(NoReply::TooLong);
        }
        match parsed {
            Ok(response) => {
                self.parser.reset();
                self.octets = 0;
                // RFC 5321 §4.3.2: the first digit says what is meant, whatever the others are (560 to 599 are used).
                if !(200..=599).contains(&response.code) {
                    return Err(NoReply::Malformed);
                }
                Ok((Some(reply(response.code, response.esc, &response.message)), used))
            }
            Err(Error::NeedsMoreData { .. }) => Ok((None, used)),
            Err(Error::ResponseTooLong) => Err(NoReply::TooLong),
            Err(_) => Err(NoReply::Malformed),
        }
    }
}

/// As the peer's text may be shown: one of ours in form, without control characters, of bounded length.
#[must_use]
pub fn reply(code: u16, enhanced: [u8; 3], message: &str) -> Reply {
    let [class, subject, detail] = enhanced;
    let fits = class != 0 && u16::from(class) == code / 100;
    let text = clean(message.trim_end(), MAX_TEXT);
    Reply { code, status: fits.then_some((u16::from(subject), u16::from(detail))), text: text.into() }
}

/// `text` without control characters but line ends, cut to `limit` characters.
#[must_use]
pub fn clean(text: &str, limit: usize) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).take(limit).collect()
}

/// What EHLO offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    pub pipelining: bool,
    /// SIZE was offered; 0: without a limit.
    pub size: Option<u64>,
    pub eight_bit: bool,
    pub utf8: bool,
    pub dsn: bool,
    pub starttls: bool,
}

impl Offers {
    /// From the lines after the first of a 250 to EHLO.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut offers = Self::default();
        for line in text.lines().skip(1) {
            let (keyword, argument) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => offers.pipelining = true,
                "SIZE" => offers.size = Some(argument.trim().parse().unwrap_or(0)),
                "8BITMIME" => offers.eight_bit = true,
                "SMTPUTF8" => offers.utf8 = true,
                "DSN" => offers.dsn = true,
                "STARTTLS" => offers.starttls = true,
                _ => {}
            }
        }
        offers
    }
}

/// 2xx: it was done. A 3xx wants more, which only DATA has to give (RFC 5321 §4.3.2).
#[must_use]
pub fn is_done(reply: &Reply) -> bool {
    (200..300).contains(&reply.code)
}

/// A refusal as a failure; `phase` as in `RCPT TO`, `peer` as in `mx1.example.net [192.0.2.1]:25`.
#[must_use]
pub fn refused(reply: Reply, phase: &str, peer: &str) -> Failure {
    let permanent = reply.is_permanent();
    let class = if permanent { 5 } else { 4 };
    let status = reply.enhanced().unwrap_or_else(|| format!("{class}.0.0"));
    Failure {
        retry: if permanent { Retry::Never } else { Retry::Later },
        side: Side::Remote,
        status,
        detail: format!("{peer} answered {phase} with {reply}"),
        reply: Some(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_whole_however_packets_split_them() {
        let wire = b"250-2.1.0 first\r\n250 2.1.0 second\r\n550 5.1.1 no such user\r\n";
        for split in 1..wire.len() {
            let mut replies = Replies::default();
            let mut found = Vec::new();
            for half in [&wire[..split], &wire[split..]] {
                let mut rest = half;
                while !rest.is_empty() {
                    let (reply, used) = replies.push(rest).unwrap();
                    rest = &rest[used..];
                    found.extend(reply.map(|reply| reply.to_string()));
                }
            }
            assert_eq!(found, ["250 2.1.0 first / second", "550 5.1.1 no such user"], "split at {split}");
        }
    }

    #[test]
    fn an_endless_reply_is_cut_off() {
        let mut replies = Replies::default();
        let endless = b"250-x\r\n".repeat(4000);
        assert!(replies.push(&endless).is_err());
        let mut replies = Replies::default();
        let long_line = [b"250-".as_slice(), &b"a".repeat(70_000)].concat();
        assert!(replies.push(&long_line).is_err());
    }

    #[test]
    fn what_is_no_reply_is_said_so() {
        assert!(Replies::default().push(b"HTTP/1.1 400 Bad Request\r\n").is_err());
        for line in ["999 what\r\n", "600 what\r\n", "199 what\r\n"] {
            assert!(Replies::default().push(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn the_first_digit_says_what_a_reply_means() {
        let (reply, _) = Replies::default().push(b"571 5.7.1 not for you\r\n").unwrap();
        let failure = refused(reply.unwrap(), "RCPT TO", "mx");
        assert_eq!((failure.retry, failure.status.as_str()), (Retry::Never, "5.7.1"));
        assert!(Replies::default().push(b"599 x\r\n").unwrap().0.is_some_and(|reply| reply.is_permanent()));
    }

    #[test]
    fn control_characters_never_reach_the_log() {
        assert_eq!(reply(550, [0; 3], "a\u{1b}[31mb\u{0}").text, "a[31mb");
    }

    #[test]
    fn a_status_of_another_class_is_not_believed() {
        assert_eq!(reply(450, [5, 1, 1], "x").status, None);
        assert_eq!(reply(450, [4, 2, 1], "x").enhanced().unwrap(), "4.2.1");
    }

    #[test]
    fn keywords_are_read_in_any_case() {
        let offers = Offers::parse("mx hello\npipelining\nSIZE 1000\nStartTLS\nX-OTHER");
        assert_eq!(offers, Offers { pipelining: true, size: Some(1000), starttls: true, ..Offers::default() });
    }
}
