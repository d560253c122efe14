//! `multipart/form-data`, written octet for octet the same of the same contents.
//!
//! The boundary is made of a hash over all that stands between, so that no sender can write one into a message.
//! Standards: RFC 7578; names as HTML's forms escape them.

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use std::borrow::Cow;
use std::fmt::Write as _;

use super::Payload;

#[derive(Default)]
pub struct Form {
    /// Each with its head.
    parts: Vec<(String, Bytes)>,
}

impl Form {
    pub fn text(&mut self, name: &str, text: impl Into<String>) {
        let head = format!("Content-Disposition: form-data; name=\"{}\"", escaped(name));
        self.parts.push((head, Bytes::from(text.into())));
    }

    pub fn octets(&mut self, name: &str, octets: Bytes) {
        self.parts.push((format!("Content-Disposition: form-data; name=\"{}\"", escaped(name)), octets));
    }

    pub fn json(&mut self, name: &str, value: &impl serde::Serialize) {
        // Strings, numbers and lists of them: there is nothing that JSON can't say.
        self.text(name, serde_json::to_string(value).unwrap_or_default());
    }

    pub fn file(&mut self, name: &str, filename: &str, content_type: &str, content: Bytes) {
        let (name, filename) = (escaped(name), escaped(filename));
        let kind = media_type(content_type);
        let head =
            format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\nContent-Type: {kind}");
        self.parts.push((head, content));
    }

    #[must_use]
    pub fn finish(self, id: &str) -> Payload {
        let boundary = self.boundary(id);
        let length: usize =
            self.parts.iter().map(|(head, content)| head.len() + content.len() + boundary.len() + 10).sum();
        let mut body = Vec::with_capacity(length + boundary.len() + 8);
        for (head, content) in self.parts {
            for octets in [b"--", boundary.as_bytes(), b"\r\n", head.as_bytes(), b"\r\n\r\n", &content, b"\r\n"] {
                body.extend_from_slice(octets);
            }
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        Payload { content_type: Cow::Owned(format!("multipart/form-data; boundary={boundary}")), body: body.into() }
    }

    fn boundary(&self, id: &str) -> String {
        let mut hash = Context::new(&SHA256);
        hash.update(id.as_bytes());
        for (head, content) in &self.parts {
            hash.update(head.as_bytes());
            hash.update(content);
        }
        let mut boundary = "mailworker-".to_owned();
        for octet in hash.finish().as_ref().iter().take(16) {
            let _infallible = write!(boundary, "{octet:02x}");
        }
        boundary
    }
}

fn escaped(text: &str) -> String {
    text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

/// What a sender calls a part's type, where it is one.
fn media_type(text: &str) -> &str {
    let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"/!#$&-^_.+".contains(&octet);
    if text.len() <= 127 && text.contains('/') && text.bytes().all(allowed) { text } else { "application/octet-stream" }
}
