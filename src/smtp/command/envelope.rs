//! MAIL and RCPT: the path and the parameters.
//!
//! The path is read here: smtp-proto gives `""` for both `<Postmaster>` and `<>`, refuses address literals and drops
//! quotes. It is handed the parameters alone, after their form, their number and what it would let through are checked.
//! Standards: RFC 5321 §4.1.1.2, §4.1.1.3, §4.1.2; RFC 1870 (SIZE), 3461 (DSN), 6152 (8BITMIME), 6531 (SMTPUTF8),
//! 6533 (utf-8 in ORCPT), PRDR (draft-hall-prdr-00 §4.2).

use smtp_proto::{
    Error, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, MailFrom,
    RCPT_NOTIFY_DELAY, RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS, Request,
};

use super::{Command, Wrong};
use crate::mail::{Address, BodyKind, Envelope, Notify, Recipient, Reply, Ret};

/// What is said of a MAIL that can't be read.
const MAIL_SYNTAX: &str = "Syntax: MAIL FROM:<address> [parameters]";
/// What is said of an RCPT that can't be read.
const RCPT_SYNTAX: &str = "Syntax: RCPT TO:<address> [parameters]";
/// RFC 1870 §4: a size has up to 20 digits; more than this is more than any limit.
const COUNTABLE_DIGITS: usize = 18;
/// RFC 3461 §4.4 and §4.2.
const MAX_ENVID: usize = 100;
const MAX_ORCPT: usize = 500;

/// Reads what follows MAIL.
pub(super) fn mail(argument: &str) -> Result<Command, Wrong> {
    let (path, after) = split_path(argument, "FROM:").ok_or_else(|| Reply::new(501, 5, 4, MAIL_SYNTAX))?;
    let sender = match without_route(path) {
        Some("") if path.is_empty() => None,
        Some(mailbox) => Some(Address::parse(mailbox).map_err(|error| Reply::new(501, 1, 7, sentence(&error)))?),
        None => return Err(Reply::new(501, 1, 7, "The source route is malformed").into()),
    };
    let parameters = Parameters::read(after, &["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "PRDR"])?;
    let prdr = parameters.flag("PRDR")?;
    parameters.flag("SMTPUTF8")?;
    let size = parameters.value("SIZE").map_or(Ok(0), declared_size)?;
    if parameters.value("ENVID").is_some_and(|envid| envid.len() > 3 * MAX_ENVID || !is_xtext(envid)) {
        return Err(bad_value("ENVID").into());
    }
    let given = parameters.interpret_mail()?;
    if given.flags & MAIL_BODY_BINARYMIME != 0 {
        return Err(Reply::new(555, 5, 4, "BODY=BINARYMIME is not implemented").into());
    }
    let smtputf8 = given.flags & MAIL_SMTPUTF8 != 0;
    if !smtputf8 && sender.as_ref().is_some_and(|sender| !sender.is_ascii()) {
        return Err(needs_smtputf8().into());
    }
    let envid = given.env_id;
    // RFC 3461 §4.4: printable ASCII once decoded; nothing that could end a header field.
    if envid.as_ref().is_some_and(|envid| envid.len() > MAX_ENVID || !envid.bytes().all(|b| (b' '..=b'~').contains(&b)))
    {
        return Err(bad_value("ENVID").into());
    }
    let ret = match given.flags & (MAIL_RET_FULL | MAIL_RET_HDRS) {
        0 => None,
        MAIL_RET_FULL => Some(Ret::Full),
        _ => Some(Ret::Hdrs),
    };
    let body = if given.flags & MAIL_BODY_8BITMIME == 0 { BodyKind::SevenBit } else { BodyKind::EightBit };
    let envelope = Box::new(Envelope { sender, recipients: Vec::new(), smtputf8, body, ret, envid });
    Ok(Command::Mail { envelope, size, prdr })
}

/// Reads what follows RCPT.
pub(super) fn rcpt(argument: &str) -> Result<Command, Wrong> {
    let (path, after) = split_path(argument, "TO:").ok_or_else(|| Reply::new(501, 5, 4, RCPT_SYNTAX))?;
    let Some(mailbox) = without_route(path) else {
        return Err(Reply::new(501, 1, 3, "The source route is malformed").into());
    };
    // RFC 5321 §4.5.1: postmaster needs no domain, and nobody else may be without.
    let address = Address::bare_postmaster(mailbox)
        .map_or_else(|| Address::parse(mailbox), Ok)
        .map_err(|error| Reply::new(501, 1, 3, sentence(&error)))?;
    let parameters = Parameters::read(after, &["NOTIFY", "ORCPT"])?;
    let orcpt = parameters.value("ORCPT");
    if orcpt.is_some_and(|orcpt| !is_original_recipient(orcpt)) {
        return Err(bad_value("ORCPT").into());
    }
    let notify = parameters.interpret_notify()?;
    let orcpt = orcpt.map(str::to_owned);
    Ok(Command::Rcpt(Box::new(Recipient { notify, orcpt, ..Recipient::new(address) })))
}

/// RFC 6531 §3.5
pub(crate) fn needs_smtputf8() -> Reply {
    Reply::new(553, 6, 7, "An address beyond ASCII needs SMTPUTF8 at MAIL")
}

fn bad_value(keyword: &str) -> Reply {
    Reply::new(501, 5, 4, format!("{keyword} has a bad value"))
}

/// An error's text, as a sentence of a reply.
fn sentence(error: &crate::mail::address::AddressError) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

/// `KEYWORD:<path> rest`: what stands within the brackets, and what follows them.
fn split_path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let after = argument.get(..keyword.len()).filter(|start| start.eq_ignore_ascii_case(keyword))?;
    let bracketed = argument.get(after.len()..)?.trim_start_matches(' ').strip_prefix('<')?;
    let end = end_of_path(bracketed)?;
    let rest = bracketed.get(end + 1..)?;
    (rest.is_empty() || rest.starts_with([' ', '\t'])).then_some((bracketed.get(..end)?, rest))
}

/// Where the `>` stands that isn't within quotes (RFC 5321 §4.1.2, Quoted-string).
fn end_of_path(path: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    path.bytes().position(|octet| {
        let is_end = octet == b'>' && !quoted;
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        is_end
    })
}

/// `@a,@b:mailbox` to `mailbox` (RFC 5321 §4.1.1.3, appendix C: a source route is read and ignored).
fn without_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let mut within_literal = false;
    let colon = path.bytes().position(|octet| {
        match octet {
            b'[' => within_literal = true,
            b']' => within_literal = false,
            _ => {}
        }
        octet == b':' && !within_literal
    })?;
    let (route, mailbox) = (path.get(..colon)?, path.get(colon + 1..)?);
    let well_formed = route
        .split(',')
        .all(|hop| hop.strip_prefix('@').is_some_and(|domain| Address::parse(&format!("a@{domain}")).is_ok()));
    (well_formed && !mailbox.is_empty()).then_some(mailbox)
}

/// The parameters of one command, each known, well formed and there once.
struct Parameters<'a>(Vec<(&'a str, Option<&'a str>)>);

impl<'a> Parameters<'a> {
    fn read(text: &'a str, known: &[&str]) -> Result<Self, Reply> {
        let mut found: Vec<(&str, Option<&str>)> = Vec::new();
        for word in text.split_ascii_whitespace() {
            let (keyword, value) = word.split_once('=').map_or((word, None), |(keyword, value)| (keyword, Some(value)));
            let well_formed = keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
                && !keyword.is_empty()
                && value.is_none_or(|value| !value.is_empty() && !value.contains(|c: char| c.is_control() || c == '='));
            if !well_formed {
                return Err(Reply::new(501, 5, 4, "A parameter is malformed"));
            }
            // RFC 5321 §4.1.1.11
            if !known.iter().any(|name| name.eq_ignore_ascii_case(keyword)) {
                return Err(Reply::new(555, 5, 4, "A parameter is not recognized or not implemented"));
            }
            if found.iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(keyword)) {
                return Err(Reply::new(501, 5, 4, "A parameter is given twice"));
            }
            found.push((keyword, value));
        }
        Ok(Self(found))
    }

    fn is_given(&self, keyword: &str) -> bool {
        self.0.iter().any(|(name, _)| name.eq_ignore_ascii_case(keyword))
    }

    /// A keyword that needs a value and has none reads as an empty one, which no check lets through.
    fn value(&self, keyword: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(keyword))?;
        Some(value.unwrap_or_default())
    }

    /// A parameter that takes no value.
    fn flag(&self, keyword: &str) -> Result<bool, Reply> {
        // A value that is given is never empty.
        if self.value(keyword).is_some_and(|value| !value.is_empty()) {
            return Err(bad_value(keyword));
        }
        Ok(self.is_given(keyword))
    }

    /// The parameters that smtp-proto reads, after a path that it reads well.
    fn line(&self, start: &str, keywords: &[&str]) -> Vec<u8> {
        let mut line = start.as_bytes().to_vec();
        for (keyword, value) in &self.0 {
            if keywords.iter().any(|name| name.eq_ignore_ascii_case(keyword)) {
                line.push(b' ');
                line.extend_from_slice(keyword.as_bytes());
                if let Some(value) = value {
                    line.push(b'=');
                    line.extend_from_slice(value.as_bytes());
                }
            }
        }
        line.extend_from_slice(b"\r\n");
        line
    }

    fn interpret_mail(&self) -> Result<MailFrom<String>, Reply> {
        if self.0.is_empty() {
            return Ok(MailFrom::default());
        }
        let line = self.line("MAIL FROM:<>", &["BODY", "SMTPUTF8", "RET", "ENVID"]);
        match Request::parse(&mut line.iter()) {
            Ok(Request::Mail { from }) => Ok(from.into_owned()),
            Err(Error::InvalidParameter { param }) => Err(bad_value(param)),
            _ => Err(Reply::new(501, 5, 4, "A parameter has a bad value")),
        }
    }

    fn interpret_notify(&self) -> Result<Notify, Reply> {
        if !self.is_given("NOTIFY") {
            return Ok(Notify::default());
        }
        let line = self.line("RCPT TO:<a@b>", &["NOTIFY"]);
        let Ok(Request::Rcpt { to }) = Request::parse(&mut line.iter()) else {
            return Err(bad_value("NOTIFY"));
        };
        let given = |flag: u64| to.flags & flag != 0;
        // RFC 3461 §4.1: NEVER stands alone.
        if given(RCPT_NOTIFY_NEVER) && to.flags != RCPT_NOTIFY_NEVER {
            return Err(bad_value("NOTIFY"));
        }
        Ok(Notify {
            success: given(RCPT_NOTIFY_SUCCESS),
            failure: given(RCPT_NOTIFY_FAILURE),
            delay: given(RCPT_NOTIFY_DELAY),
            explicit: true,
        })
    }
}

/// RFC 1870 §4: digits. What no counter holds is simply too large.
fn declared_size(value: &str) -> Result<u64, Reply> {
    if !(1..=20).contains(&value.len()) || !value.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(bad_value("SIZE"));
    }
    if value.trim_start_matches('0').len() > COUNTABLE_DIGITS {
        return Ok(u64::MAX);
    }
    value.parse().map_err(|_| bad_value("SIZE"))
}

/// RFC 3461 §4: visible ASCII but `+` and `=`, or `+` and two hexadecimal digits in upper case.
/// What is escaped must be printable too, or it would come out as a control character in a notice.
fn is_xtext(text: &str) -> bool {
    let mut octets = text.bytes();
    let hexadecimal =
        |digit: Option<u8>| digit.filter(|d| !d.is_ascii_lowercase()).and_then(|d| char::from(d).to_digit(16));
    while let Some(octet) = octets.next() {
        let good = match octet {
            b'+' => match (hexadecimal(octets.next()), hexadecimal(octets.next())) {
                (Some(high), Some(low)) => (0x20..0x7f).contains(&(high * 16 + low)),
                _ => false,
            },
            other => other.is_ascii_graphic() && other != b'=',
        };
        if !good {
            return false;
        }
    }
    !text.is_empty()
}

/// `type;address` (RFC 3461 §4.2), the address as xtext, or as RFC 6533 §3 has it where the type is `utf-8`.
fn is_original_recipient(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let is_atom = !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let good = if kind.eq_ignore_ascii_case("utf-8") {
        !address.is_empty() && !address.contains(|c: char| c.is_control() || c.is_whitespace())
    } else {
        is_xtext(address)
    };
    is_atom && good && value.len() <= MAX_ORCPT
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn sender(argument: &str) -> Result<Option<String>, u16> {
        match mail(argument) {
            Ok(Command::Mail { envelope, .. }) => Ok(envelope.sender.map(|sender| sender.to_string())),
            Ok(other) => panic!("{other:?}"),
            Err(wrong) => Err(wrong.reply.code),
        }
    }

    fn recipient(argument: &str) -> Result<Recipient, u16> {
        match rcpt(argument) {
            Ok(Command::Rcpt(recipient)) => Ok(*recipient),
            Ok(other) => panic!("{other:?}"),
            Err(wrong) => Err(wrong.reply.code),
        }
    }

    fn envelope(argument: &str) -> Result<(Envelope, u64, bool), u16> {
        match mail(argument) {
            Ok(Command::Mail { envelope, size, prdr }) => Ok((*envelope, size, prdr)),
            Ok(other) => panic!("{other:?}"),
            Err(wrong) => Err(wrong.reply.code),
        }
    }

    #[test]
    fn paths_are_kept_as_written() {
        for address in
            ["a@b.example", "\"a b>\"@c.example", "\"\\\"\"@c", "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "A@B"]
        {
            assert_eq!(sender(&format!("FROM:<{address}>")), Ok(Some(address.to_owned())));
        }
        assert_eq!(sender("from: <>"), Ok(None));
    }

    #[test]
    fn source_routes_are_ignored() {
        assert_eq!(sender("FROM:<@a.example,@[IPv6:::1]:c@d.example>"), Ok(Some("c@d.example".to_owned())));
        for route in ["@a:", "@:c@d", "@a,b:c@d", "@a c@d", "@a,@:c@d"] {
            assert_eq!(sender(&format!("FROM:<{route}>")), Err(501), "{route:?}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for argument in [
            "",
            "FROM",
            "FROM:",
            "FROM:a@b",
            "FROM:<a@b",
            "FROM:<a@b>x",
            "FROM:<a>",
            "TO:<a@b>",
            "FROM:<a@b>>",
            "FROM:< >",
        ] {
            assert_eq!(sender(argument), Err(501), "{argument:?}");
        }
    }

    #[test]
    fn postmaster_alone_needs_no_domain() {
        assert_eq!(recipient("TO:<PostMaster>").unwrap().address.local(), "PostMaster");
        assert_eq!(recipient("TO:<>").unwrap_err(), 501);
        assert_eq!(recipient("TO:<root>").unwrap_err(), 501);
        assert_eq!(sender("FROM:<postmaster>"), Err(501));
    }

    #[test]
    fn every_parameter_of_mail_is_read() {
        let (envelope, size, prdr) =
            envelope("FROM:<a@b> size=77 BODY=8BitMime SMTPUTF8 RET=hdrs ENVID=QQ+2B314 PRDR").unwrap();
        assert_eq!((size, prdr, envelope.smtputf8, envelope.body), (77, true, true, BodyKind::EightBit));
        assert_eq!((envelope.ret, envelope.envid.as_deref()), (Some(Ret::Hdrs), Some("QQ+314")));
    }

    #[test]
    fn bad_parameters_are_told_apart_from_unknown_ones() {
        for (parameter, code) in [
            ("SIZE=x", 501),
            ("SIZE=", 501),
            ("SIZE", 501),
            ("SIZE=1 SIZE=2", 501),
            ("BODY=9BIT", 501),
            ("BODY=BINARYMIME", 555),
            ("RET=SOME", 501),
            ("ENVID=a+0Ab", 501),
            ("ENVID=a+0", 501),
            ("ENVID", 501),
            ("PRDR=yes", 501),
            ("SMTPUTF8=1", 501),
            ("AUTH=<>", 555),
            ("REQUIRETLS", 555),
            ("X=Y=Z", 501),
            ("=x", 501),
        ] {
            assert_eq!(envelope(&format!("FROM:<a@b> {parameter}")).unwrap_err(), code, "{parameter}");
        }
        assert_eq!(envelope("FROM:<a@b> SIZE=99999999999999999999").unwrap().1, u64::MAX);
    }

    #[test]
    fn notices_asked_for_are_read() {
        let given = recipient("TO:<a@b> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bc@b").unwrap();
        assert_eq!(given.notify, Notify { success: true, failure: false, delay: true, explicit: true });
        assert_eq!(given.orcpt.as_deref(), Some("rfc822;a+2Bc@b"));
        let never = recipient("TO:<a@b> NOTIFY=NEVER").unwrap().notify;
        assert_eq!(never, Notify { success: false, failure: false, delay: false, explicit: true });
        for bad in ["NOTIFY=NEVER,SUCCESS", "NOTIFY=", "NOTIFY=SOON", "ORCPT=a@b", "ORCPT=rfc822;a+0D+0Ab", "ORCPT=;a"]
        {
            assert_eq!(recipient(&format!("TO:<a@b> {bad}")).unwrap_err(), 501, "{bad}");
        }
        assert_eq!(recipient("TO:<a@b> SIZE=1").unwrap_err(), 555);
    }

    #[test]
    fn addresses_beyond_ascii_need_smtputf8() {
        assert_eq!(sender("FROM:<j\u{fc}rgen@b.example>"), Err(553));
        assert_eq!(sender("FROM:<j\u{fc}rgen@b.example> SMTPUTF8"), Ok(Some("j\u{fc}rgen@b.example".to_owned())));
    }

    #[test]
    fn both_are_reached_from_a_line() {
        assert!(matches!(parse(b"mail from:<a@b>\r\n"), Ok(Command::Mail { .. })));
        assert!(matches!(parse(b"RCPT TO:<a@b>\r\n"), Ok(Command::Rcpt(_))));
    }
}
