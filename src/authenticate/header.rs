//! A message's header as its signatures are verified by it, and who wrote it.
//!
//! mail-auth reads a header by rules of its own: it stops at a line without a colon, where everybody else reads on. What a
//! signature holds counts only where both read the same, or a signed From would speak for another one that is shown.
//! Bounds: a header that is verified has [`MAX_HEADER`] octets, and a body is hashed once for each of the four ways there
//! are (mail-auth takes no `l=`, RFC 6376 §8.2); what takes its time is done aside.

use std::sync::Arc;

use bytes::Bytes;
use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::dkim::Canonicalization;

use super::authors::Authors;
use crate::aside::{self, Unfinished};
use crate::mail::Message;

/// Octets of a header that is verified.
pub(super) const MAX_HEADER: usize = 256 * 1024;
/// A message that is hashed where its session runs; a larger one aside.
const SMALL: usize = 64 * 1024;

/// The header of a message, and what its body hashes to: all that has to be known to look into it.
#[derive(Default)]
pub struct Header {
    pub(super) octets: Bytes,
    pub(super) hashes: Hashes,
    pub(super) authors: Authors,
    /// mail-auth reads the same From as everybody else, and ends the header where they do.
    pub(super) is_read_alike: bool,
    /// So large that no signature is looked at.
    pub(super) is_too_large: bool,
}

pub(super) type Hashes = Vec<(Canonicalization, HashAlgorithm, u64, Vec<u8>)>;

impl Header {
    /// What of a message is needed to look into it.
    ///
    /// # Errors
    /// [`Unfinished`]
    pub async fn of(message: &Arc<Message>) -> Result<Self, Unfinished> {
        if message.raw().len() <= SMALL {
            return Ok(Self::read(message));
        }
        let whole = Arc::clone(message);
        aside::run(move || Self::read(&whole)).await
    }

    /// Hashes the body, as the signatures would have it: for a large message this takes its time.
    pub(super) fn read(own: &Message) -> Self {
        let authors = Authors::of(own);
        if own.headers_end() > MAX_HEADER || own.has_unseen_fields() {
            let is_too_large = own.has_header("DKIM-Signature");
            return Self { authors, is_too_large, ..Self::default() };
        }
        let Some(message) = AuthenticatedMessage::parse(own.raw()) else { return Self { authors, ..Self::default() } };
        let octets = Bytes::copy_from_slice(message.raw_headers());
        let is_read_alike = is_read_alike(&message, own);
        Self { octets, hashes: message.body_hashes, authors, is_read_alike, is_too_large: false }
    }

    /// What holds From holds the author: there is one, whoever reads it.
    pub(super) fn has_one_author(&self) -> bool {
        self.is_read_alike && self.authors.is_one_field && self.authors.doubt.is_none()
    }
}

fn is_read_alike(seen: &AuthenticatedMessage<'_>, own: &Message) -> bool {
    let theirs = seen.raw_parsed_headers().iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"from"));
    let is_same = theirs.map(|(_, value)| value.trim_ascii()).eq(own.header_values("From").map(<[u8]>::trim_ascii));
    is_same && seen.body_offset() == own.headers_end()
}
