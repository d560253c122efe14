//! What a next hop answers: the same replies however their octets are split, bounded, and fit to be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailworker::delivery::relay::reply::{Offers, Replies};

fn read(input: &[u8], size: usize) -> Vec<String> {
    let (mut replies, mut found) = (Replies::default(), Vec::new());
    for piece in input.chunks(size.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            match replies.push(rest) {
                Ok((reply, used)) => {
                    assert!(used > 0 || reply.is_some());
                    rest = &rest[used..];
                    if let Some(reply) = reply {
                        assert!(reply.text.chars().count() <= 1024);
                        assert!(!reply.text.contains(|c: char| c.is_control() && c != '\n'), "{reply:?}");
                        let _ = Offers::parse(&reply.text);
                        found.push(reply.to_string());
                    }
                }
                Err(error) => {
                    found.push(format!("{error:?}"));
                    return found;
                }
            }
        }
    }
    found
}

fuzz_target!(|input: &[u8]| {
    let whole = read(input, usize::MAX);
    assert_eq!(whole, read(input, 1));
    assert_eq!(whole, read(input, 7));
});
