//! What is read of the messages in `tests/messages`: each `.eml` with, beside it, what the program makes of it.
//!
//! `UPDATE=1` rewrites the readings; the difference is reviewed as code is. The messages are ours, made for this; they
//! look like what is on the wire, and some like what shouldn't be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mailworker::mail::message::{calendar, quoted, report};
use mailworker::mail::{Mailbox, Message};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages")
}

/// Everything that is read, one line each; line ends within a text are shown.
fn reading(message: &Message) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Debug| writeln!(out, "{name}: {value:?}").unwrap();
    for (name, value) in message.headers() {
        line("field", &(name, Message::decode(value)));
    }
    let mailbox = |found: Mailbox| (found.name.unwrap_or_default(), found.address.unwrap_or_default());
    for name in ["From", "To", "Cc", "Reply-To"] {
        for found in message.addresses(name) {
            line(name, &mailbox(found));
        }
    }
    line("subject", &message.subject());
    line("date", &message.date().map(mailworker::mail::Timestamp::as_millis));
    line("message id", &message.message_id());
    line("in reply to", &message.ids("In-Reply-To"));
    line("references", &message.ids("References"));
    line("auto, bounce, list", &(message.is_auto(), message.is_bounce(), message.is_list()));
    line("text", &message.text());
    line("html", &message.html());
    line("stripped", &quoted::strip(&message.text().unwrap_or_default()));
    line("report", &report::read(message));
    line("calendar", &calendar::read(message));
    for part in message.attachments() {
        line("attachment", &(&part.content_type, &part.filename, &part.content_id, part.inline));
        line("  content", &part.content(message.raw()));
        line("  text", &part.text(message.raw()));
    }
    out
}

#[test]
fn every_message_is_read_as_its_file_says() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    paths.sort();
    assert!(paths.len() > 20, "found only {} messages", paths.len());
    let mut different = Vec::new();
    for path in paths {
        let found = reading(&Message::new(std::fs::read(&path).unwrap().into()));
        let beside = path.with_extension("txt");
        if update {
            std::fs::write(&beside, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if expected != found {
            different.push(format!("{}\n{found}", path.display()));
        }
    }
    assert!(different.is_empty(), "UPDATE=1 accepts these readings:\n{}", different.join("\n"));
}

#[test]
fn a_message_cut_anywhere_or_with_any_octet_changed_is_still_read() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "eml") {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] = [b'\n', 0, 0xff, b'"', b'=', b'(', b'<'][at % 7];
            for octets in [&whole[..at], &changed[..]] {
                let message = Message::new(octets.to_vec().into());
                assert!(!reading(&message).is_empty());
            }
        }
    }
}
