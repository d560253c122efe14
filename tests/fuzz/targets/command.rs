//! One command line: it parses or is refused in words that fit on the wire; what it names stays within one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailworker::smtp::command::{self, Command};

fuzz_target!(|line: &[u8]| {
    match command::parse(line) {
        Ok(Command::Mail { envelope, .. }) => {
            if let Some(sender) = &envelope.sender {
                assert!(!sender.as_str().bytes().any(|octet| octet < b' ' || octet == 0x7f), "{sender}");
            }
            for text in envelope.envid.iter() {
                assert!(!text.contains(['\r', '\n', '\0']), "{text:?}");
            }
        }
        Ok(Command::Rcpt(recipient)) => {
            let address = recipient.address.as_str();
            assert!(!address.bytes().any(|octet| octet < b' ' || octet == 0x7f), "{address}");
        }
        Ok(_) => {}
        Err(wrong) => {
            assert!((400..600).contains(&wrong.reply.code), "{:?}", wrong.reply);
            assert!(!wrong.reply.text.contains(['\r', '\0']), "{:?}", wrong.reply);
        }
    }
});
