//! A message of any octets: everything that a worker may read of it, reports, invitations and answers too, is there
//! without a panic, the same each time, free of NUL, and in proportion to what came.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::mail::message::{calendar, quoted, report, spam};
use mailworker::mail::{Message, Timestamp};
use serde_json::Value;

const NOW: Timestamp = Timestamp::from_millis(1_795_511_702_123);

/// All texts in it.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| texts(value, found)),
        Value::Object(object) => object.values().for_each(|value| texts(value, found)),
        other => found.push(other.to_string()),
    }
}

/// What is read of parts and texts for a worker.
fn parsed(message: &Message, found: &mut Vec<String>) {
    let report = report::read(message);
    assert!(report.iter().all(|report| report.recipients.len() <= 100), "{report:?}");
    let events = calendar::read(message);
    let attendees: usize = events.iter().map(|event| event.attendees.len()).sum();
    assert!(events.len() <= 20 && attendees <= 500, "{} events, {attendees} attendees", events.len());
    let spam = spam::judge(message, NOW, message.subject().as_deref());
    assert!(spam.score >= 0.0 && spam.score.is_finite(), "{spam:?}");
    let text = message.text().unwrap_or_default();
    let answer = quoted::strip(&text);
    // It is taken apart by lines; nothing is made up, and none is in two parts.
    let trimmed = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    let lines = trimmed(&text);
    let parts = [&answer.text, &answer.signature, &answer.quoted];
    assert!(parts.iter().flat_map(|part| trimmed(part)).all(|line| lines.contains(&line)), "{answer:?} of {text:?}");
    assert!(parts.iter().map(|part| trimmed(part).len()).sum::<usize>() <= lines.len(), "{answer:?} of {text:?}");
    for value in [serde_json::to_value(report), serde_json::to_value(events), serde_json::to_value(spam)] {
        texts(&value.expect("it is data"), found);
    }
    found.extend(parts.into_iter().cloned());
}

/// Everything, as one text.
fn read(message: &Message) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (name, value, raw) in message.decoded_headers() {
        assert!(!name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic()), "{name:?}");
        assert_eq!(Message::decode(raw), value);
        assert!(message.has_header(name) && message.count_header(name) > 0, "{name:?}");
        found.push(value);
    }
    for name in ["From", "To", "Cc", "Reply-To"] {
        for mailbox in message.addresses(name) {
            found.extend(mailbox.name);
            found.extend(mailbox.address);
        }
    }
    for name in ["References", "In-Reply-To", "Message-ID"] {
        found.extend(message.ids(name));
    }
    found.extend([message.subject(), message.header_from(), message.message_id()].into_iter().flatten());
    found.extend(message.delivered_to());
    found.push(format!("{:?} {} {} {}", message.date(), message.is_auto(), message.is_bounce(), message.is_list()));
    found.extend([message.text(), message.html()].into_iter().flatten());
    parsed(message, &mut found);
    for mailbox in message.authors().into_iter().flatten() {
        found.extend(mailbox.name);
        found.extend(mailbox.address);
    }
    found.extend(message.signers("From"));
    for part in message.attachments() {
        found.push(part.content_type.clone());
        found.extend(part.filename.clone());
        found.extend(part.content_id.clone());
        found.push(part.text(message.raw()));
    }
    found
}

fuzz_target!(|raw: &[u8]| {
    let message = Message::new(Bytes::copy_from_slice(raw));
    assert_eq!(message.raw(), raw);
    assert!(message.headers_end() <= raw.len());
    let found = read(&message);
    assert!(found.iter().all(|text| !text.contains('\0')), "{found:?}");
    assert_eq!(found, read(&Message::new(Bytes::copy_from_slice(raw))));
    // A name and a value are slices of what came, one behind the other.
    let place = |slice: &[u8]| slice.as_ptr() as usize - message.raw().as_ptr() as usize;
    let mut at = 0;
    for (name, value) in message.headers() {
        assert!(at <= place(name.as_bytes()) && place(name.as_bytes()) + name.len() < place(value), "{name:?}");
        at = place(value) + value.len();
    }
    assert!(at <= message.headers_end(), "{at}");
    // No decoding makes much of little: an octet is at most one character of three octets.
    let most = raw.len() * 4 + 64;
    assert!(message.text().unwrap_or_default().len() <= most && message.html().unwrap_or_default().len() <= most);
    // Parts don't overlap, so that they are no more than the message together.
    let parts: usize = message.attachments().iter().map(|part| part.content(message.raw()).len()).sum();
    assert!(parts <= raw.len() && message.attachments().len() <= 1000, "{parts} of {}", raw.len());
    assert_eq!(message.has_plain_text() || message.html().is_some(), message.text().is_some());
});
