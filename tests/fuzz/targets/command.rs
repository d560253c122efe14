//! One command line: it parses or is refused in words of our own; what it names stays within its line; and an envelope
//! written for a next hop is read there as the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::delivery::relay::letter::{Content, Letter, Rcpt};
use mailworker::delivery::relay::reply::Offers;
use mailworker::mail::{Envelope, Recipient};
use mailworker::smtp::Closed;
use mailworker::smtp::command::{self, Command};

const ALL: Offers = Offers { pipelining: true, size: Some(0), eight_bit: true, utf8: true, dsn: true, starttls: true };

fn is_one_line(text: &str) -> bool {
    !text.bytes().any(|octet| octet < b' ' || octet == 0x7f)
}

/// Written as our own client does, and read again.
fn mail_again(envelope: Envelope) {
    let letter = Letter {
        envelope,
        recipients: Vec::new(),
        content: Content {
            added: Vec::new(),
            head: Bytes::new(),
            raw: Bytes::from_static(b"x\r\n").into(),
            removed: Vec::new(),
        },
    };
    let mut line = Vec::new();
    letter.mail(&ALL, letter.envelope.smtputf8, &mut line);
    match command::parse(&line) {
        Ok(Command::Mail { envelope, size: 3, prdr: false }) => assert_eq!(*envelope, letter.envelope),
        other => panic!("{:?} comes to {other:?}", String::from_utf8_lossy(&line)),
    }
}

fn rcpt_again(mut recipient: Recipient) {
    let Recipient { address, notify, orcpt, .. } = recipient.clone();
    let mut line = Vec::new();
    Rcpt { address, notify, orcpt }.write(&ALL, true, &mut line);
    // One beyond ASCII isn't handed on.
    recipient.orcpt = recipient.orcpt.filter(|orcpt| orcpt.is_ascii());
    match command::parse(&line) {
        Ok(Command::Rcpt(again)) => assert_eq!(*again, recipient),
        other => panic!("{:?} comes to {other:?}", String::from_utf8_lossy(&line)),
    }
}

/// The size in the words of RFC 3030 §2, where it can be counted.
fn chunk(line: &[u8]) -> Option<(u64, bool)> {
    let text = std::str::from_utf8(line).ok()?.to_ascii_uppercase();
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["BDAT", size] => Some((size.parse().ok()?, false)),
        ["BDAT", size, "LAST"] => Some((size.parse().ok()?, true)),
        _ => None,
    }
}

fuzz_target!(|line: &[u8]| {
    let line = [line, b"\r\n"].concat();
    let wrong = match command::parse(&line) {
        Err(wrong) => wrong,
        Ok(Command::Mail { envelope, size, .. }) => {
            assert!(envelope.sender.iter().all(|sender| is_one_line(sender.as_str())), "{envelope:?}");
            assert!(envelope.envid.iter().all(|text| is_one_line(text) && text.is_ascii()), "{envelope:?}");
            assert!(envelope.smtputf8 || envelope.sender.as_ref().is_none_or(|sender| sender.is_ascii()));
            assert!(envelope.recipients.is_empty());
            assert!(size == 0 || line.to_ascii_uppercase().windows(5).any(|word| word == b"SIZE="));
            return mail_again(*envelope);
        }
        Ok(Command::Rcpt(recipient)) => {
            assert!(is_one_line(recipient.address.as_str()), "{recipient:?}");
            assert!(recipient.orcpt.iter().all(|text| is_one_line(text) && !text.contains(' ')), "{recipient:?}");
            return rcpt_again(*recipient);
        }
        Ok(Command::Helo { name, .. }) => {
            assert!(
                name.bytes().all(|octet| octet.is_ascii_graphic()) && !name.contains(['(', ')', '<', '>']),
                "{name}"
            );
            return;
        }
        Ok(Command::Bdat { size, last }) => return assert_eq!(Some((size, last)), chunk(&line)),
        Ok(_) => return,
    };
    assert!((400..600).contains(&wrong.reply.code), "{:?}", wrong.reply);
    assert!(wrong.reply.text.is_ascii() && is_one_line(&wrong.reply.text), "{:?}", wrong.reply);
    // What follows a BDAT must not be taken for commands.
    if line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
        && line.get(4).is_some_and(|next| *next == b' ')
    {
        let is_a_line = std::str::from_utf8(&line[..line.len() - 2]).is_ok_and(is_one_line) && line.len() <= 512;
        assert!(!is_a_line || wrong.close == Some(Closed::OutOfStep), "{wrong:?}");
    }
});
