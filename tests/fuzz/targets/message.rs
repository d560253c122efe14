//! A message of any octets: everything that a worker may read of it is there without a panic, and bounded.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::mail::Message;

fuzz_target!(|raw: &[u8]| {
    let message = Message::new(Bytes::copy_from_slice(raw));
    assert_eq!(message.raw(), raw);
    assert!(message.headers_end() <= raw.len());
    for (name, value) in message.headers() {
        let _ = Message::decode(value);
        let _ = (message.count_header(name), message.header(name), message.has_header(name));
    }
    for name in ["From", "To", "Cc", "Reply-To"] {
        let _ = message.addresses(name);
    }
    for name in ["References", "In-Reply-To"] {
        let _ = message.ids(name);
    }
    let _ = (message.subject(), message.header_from(), message.date(), message.message_id(), message.delivered_to());
    let _ = (message.is_auto(), message.is_bounce(), message.is_list(), message.has_plain_text());
    let text = message.text().unwrap_or_default();
    let html = message.html().unwrap_or_default();
    // No decoding makes much of little: an octet is at most one character of three octets.
    assert!(text.len() <= raw.len() * 4 + 64 && html.len() <= raw.len() * 4 + 64, "{} {}", text.len(), html.len());
    for part in message.attachments() {
        assert!(part.content(message.raw()).len() <= raw.len());
    }
});
