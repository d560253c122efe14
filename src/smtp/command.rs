//! One line to one command: which verb, and whether its argument is good.
//!
//! smtp-proto, known to this module and to `envelope` below it alone, reads verbs and arguments. What it lets through is
//! checked here first: bare CR and NUL, octets that aren't UTF-8, arguments where none belong, numbers it would wrap.
//! Never changes a session; never echoes a client's words. Input: a line with its CRLF. Output: [`Command`] or [`Wrong`].
//! Standards: RFC 5321 §4.1, RFC 3030 §2 (BDAT), RFC 3207 §4 (STARTTLS).

pub mod envelope;

use smtp_proto::{Error, Request};

use super::Closed;
use crate::mail::{Envelope, Recipient, Reply};

/// RFC 5321 §4.5.3.1.4; MAIL and RCPT may be longer, for their parameters.
const MAX_PLAIN_LINE: usize = 512;
/// A chunk's size has at most so many digits; more can't be meant.
const MAX_DIGITS: usize = 18;

/// What the client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Helo {
        name: String,
        esmtp: bool,
    },
    /// The envelope's fields but its recipients; `size` as declared (0: not).
    Mail {
        envelope: Box<Envelope>,
        size: u64,
        prdr: bool,
    },
    Rcpt(Box<Recipient>),
    Data,
    Bdat {
        size: u64,
        last: bool,
    },
    Rset,
    Noop,
    Vrfy,
    Help,
    StartTls,
    Quit,
}

/// Why a line is no command.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub reply: Reply,
    /// The session can't go on after it.
    pub close: Option<Closed>,
}

impl From<Reply> for Wrong {
    fn from(reply: Reply) -> Self {
        Self { reply, close: None }
    }
}

impl Command {
    /// The phase of the session that it belongs to.
    #[must_use]
    pub fn phase(&self) -> Option<&'static str> {
        match self {
            Self::Helo { .. } => Some("helo"),
            Self::Mail { .. } => Some("mail"),
            Self::Rcpt(_) => Some("rcpt"),
            Self::Data | Self::Bdat { .. } => Some("data"),
            _ => None,
        }
    }
}

/// Reads one line, CRLF included.
///
/// # Errors
/// The reply it deserves.
pub fn parse(line: &[u8]) -> Result<Command, Wrong> {
    let content = line.strip_suffix(b"\r\n").unwrap_or(line);
    if memchr::memchr3(b'\r', b'\n', 0, content).is_some() {
        return Err(Reply::new(500, 5, 2, "A command holds no bare CR or LF and no NUL").into());
    }
    let Ok(text) = std::str::from_utf8(content) else {
        return Err(Reply::new(500, 5, 2, "A command is ASCII or UTF-8").into());
    };
    let text = text.trim_matches(' ');
    let (verb, argument) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let argument = argument.trim_matches([' ', '\t']);
    if is_foreign(verb) {
        let reply = Reply::new(554, 7, 0, "This is an SMTP server");
        return Err(Wrong { reply, close: Some(Closed::NotSmtp) });
    }
    if verb.eq_ignore_ascii_case("MAIL") {
        return envelope::mail(argument);
    }
    if verb.eq_ignore_ascii_case("RCPT") {
        return envelope::rcpt(argument);
    }
    if line.len() > MAX_PLAIN_LINE {
        return Err(too_long().into());
    }
    if verb.eq_ignore_ascii_case("BDAT") {
        return chunk(argument).ok_or_else(no_chunk);
    }
    request(line, argument)
}

/// What smtp-proto makes of the line, for every verb but MAIL and RCPT.
fn request(line: &[u8], argument: &str) -> Result<Command, Wrong> {
    let command = match Request::parse(&mut line.iter()) {
        Ok(Request::Ehlo { .. }) => helo(argument, true)?,
        Ok(Request::Helo { .. }) => helo(argument, false)?,
        Ok(Request::Noop { .. }) => Command::Noop,
        Ok(Request::Vrfy { .. }) => Command::Vrfy,
        Ok(Request::Help { .. }) => Command::Help,
        Ok(Request::Data) => alone(Command::Data, argument)?,
        Ok(Request::Rset) => alone(Command::Rset, argument)?,
        Ok(Request::StartTls) => alone(Command::StartTls, argument)?,
        Ok(Request::Quit) => alone(Command::Quit, argument)?,
        // RFC 5321 §4.2.4: known, and not offered.
        Ok(_) => return Err(not_offered().into()),
        // It takes two blanks for an empty name, and says the same of every bad one.
        Err(Error::SyntaxError { syntax }) if syntax.starts_with("EHLO") => helo(argument, true)?,
        Err(Error::SyntaxError { syntax }) if syntax.starts_with("HELO") => helo(argument, false)?,
        Err(Error::SyntaxError { syntax }) if syntax.starts_with("EXPN") || syntax.starts_with("AUTH") => {
            return Err(not_offered().into());
        }
        Err(Error::SyntaxError { syntax }) => return Err(syntax_is(syntax).into()),
        Err(_) if is_unoffered(line) => return Err(not_offered().into()),
        Err(_) => return Err(Reply::new(500, 5, 1, "Command not recognized").into()),
    };
    Ok(command)
}

/// `501 5.5.4`, with what would have been right.
fn syntax_is(syntax: &'static str) -> Reply {
    Reply::new(501, 5, 4, format!("Syntax: {syntax}"))
}

/// What a line too long gets, whoever notices.
#[must_use]
pub fn too_long() -> Reply {
    Reply::new(500, 5, 2, "Line too long")
}

fn not_offered() -> Reply {
    Reply::new(502, 5, 1, "Command not implemented")
}

/// RFC 5321 §4.1.1: a verb that takes no argument has none (RFC 3207 §4 for STARTTLS).
fn alone(command: Command, argument: &str) -> Result<Command, Reply> {
    if argument.is_empty() { Ok(command) } else { Err(Reply::new(501, 5, 4, "This command takes no argument")) }
}

/// A name as hosts in the wild give it: bare names, underscores and literals too, but nothing that could end or
/// confuse the comment of a trace field it is written into (RFC 5321 §4.1.4, §4.4).
fn helo(name: &str, esmtp: bool) -> Result<Command, Reply> {
    let good = (1..=255).contains(&name.len())
        && name.bytes().all(|octet| octet.is_ascii_graphic() && !b"()<>\"\\,;@`".contains(&octet));
    if good {
        Ok(Command::Helo { name: name.to_owned(), esmtp })
    } else {
        Err(Reply::new(501, 5, 4, if esmtp { "Syntax: EHLO hostname" } else { "Syntax: HELO hostname" }))
    }
}

/// `SIZE` or `SIZE LAST` (RFC 3030 §2), the size within what can be counted. Read here: smtp-proto starts from 0 again
/// beyond, and takes a LAST behind several blanks for none.
fn chunk(argument: &str) -> Option<Command> {
    let mut words = argument.split_ascii_whitespace();
    let size =
        words.next().filter(|size| size.len() <= MAX_DIGITS && size.bytes().all(|digit| digit.is_ascii_digit()))?;
    let last = words.next();
    let well_formed = last.is_none_or(|word| word.eq_ignore_ascii_case("LAST")) && words.next().is_none();
    well_formed.then_some(Command::Bdat { size: size.parse().ok()?, last: last.is_some() })
}

/// What follows a BDAT whose size can't be read are octets of a message, and they must never be taken for commands.
fn no_chunk() -> Wrong {
    let reply = Reply::new(501, 5, 4, "Syntax: BDAT size [LAST]; closing, for what follows can't be told apart");
    Wrong { reply, close: Some(Closed::OutOfStep) }
}

/// Verbs of HTTP, and the greeting of SSH: a browser or scanner was led here (cross-protocol attacks).
fn is_foreign(verb: &str) -> bool {
    ["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI"]
        .iter()
        .any(|foreign| verb.eq_ignore_ascii_case(foreign))
        || verb.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SSH-"))
}

/// Verbs of RFC 821 and of extensions that smtp-proto doesn't know.
fn is_unoffered(line: &[u8]) -> bool {
    let verb = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty()).unwrap_or_default();
    [&b"TURN"[..], b"SEND", b"SOML", b"SAML", b"AUTH", b"ETRN", b"ATRN", b"BURL"]
        .iter()
        .any(|known| verb.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(line: &str) -> (u16, Option<Closed>) {
        parse(line.as_bytes()).map_or_else(|wrong| (wrong.reply.code, wrong.close), |_| (0, None))
    }

    #[test]
    fn verbs_are_known_in_any_case() {
        assert_eq!(parse(b"quit\r\n"), Ok(Command::Quit));
        assert_eq!(parse(b"QuIt  \r\n"), Ok(Command::Quit));
        assert_eq!(parse(b"eHlo a.example\r\n"), Ok(Command::Helo { name: "a.example".into(), esmtp: true }));
    }

    #[test]
    fn an_argument_where_none_belongs_is_501() {
        for line in ["DATA foo\r\n", "RSET now\r\n", "QUIT please\r\n", "STARTTLS 1.3\r\n"] {
            assert_eq!(code(line), (501, None), "{line:?}");
        }
    }

    #[test]
    fn a_size_that_cannot_be_counted_ends_the_session() {
        for line in ["BDAT\r\n", "BDAT x\r\n", "BDAT -1\r\n", "BDAT 9999999999999999999\r\n", "BDAT 1 LAST 2\r\n"] {
            assert_eq!(code(line), (501, Some(Closed::OutOfStep)), "{line:?}");
        }
        assert_eq!(parse(b"bdat 0 last\r\n"), Ok(Command::Bdat { size: 0, last: true }));
        assert_eq!(parse(b"BDAT 86\r\n"), Ok(Command::Bdat { size: 86, last: false }));
        for blanks in ["BDAT 3  LAST\r\n", "BDAT 3 \t LAST\r\n", " BDAT\t3 LAST \t\t\r\n"] {
            assert_eq!(parse(blanks.as_bytes()), Ok(Command::Bdat { size: 3, last: true }), "{blanks:?}");
        }
    }

    #[test]
    fn names_that_could_break_a_header_field_are_refused() {
        for name in ["", "a b", "a)b", "<a>", "a;b", "b\u{fc}cher.example", "\"a\"", "a\tb"] {
            assert_eq!(code(&format!("EHLO {name}\r\n")), (501, None), "{name:?}");
        }
        for name in ["localhost", "my_host", "[192.0.2.1]", "[IPv6:2001:db8::1]", "WIN-1"] {
            assert_eq!(code(&format!("HELO {name}\r\n")), (0, None), "{name:?}");
        }
    }

    #[test]
    fn known_and_not_offered_is_502_and_unknown_500() {
        for line in ["EXPN staff\r\n", "EXPN\r\n", "AUTH PLAIN AGEAYg==\r\n", "AUTH\r\n", "ETRN x\r\n", "TURN\r\n"] {
            assert_eq!(code(line), (502, None), "{line:?}");
        }
        for line in ["\r\n", "FOO\r\n", "MAILFROM:<a@b>\r\n", "QUITQUITQUIT\r\n", "\u{2603}\r\n"] {
            assert_eq!(code(line), (500, None), "{line:?}");
        }
    }

    #[test]
    fn another_protocol_is_turned_away() {
        assert_eq!(code("GET / HTTP/1.1\r\n"), (554, Some(Closed::NotSmtp)));
        assert_eq!(code("SSH-2.0-OpenSSH_9.9\r\n"), (554, Some(Closed::NotSmtp)));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _any = parse(&[&line[..], b"\r\n"].concat());
        }

        #[test]
        fn no_envelope_makes_it_panic(
            verb in "(MAIL FROM:|RCPT TO:|BDAT |EHLO |VRFY )", path in "[<>@a.\"\\\\:,\\[\\] ü]{0,20}",
            parameters in "( ?(SIZE|BODY|NOTIFY|ORCPT|RET|ENVID|SMTPUTF8|PRDR|X)=?[0-9A-Z+;,=]{0,9}){0,4}",
        ) {
            let _any = parse(format!("{verb}{path}{parameters}\r\n").as_bytes());
        }
    }
}
