//! One of `message.attachments`: what its header fields say of it, and its content, decoded when it is asked for.
//!
//! What a sender wrote is handed on as it is: a file name is no path to be trusted, a content type no promise.
//! Decoded once for each run, whatever a script does with it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rhai::{Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};

use super::bounds::Bounds;
use super::octets::{Octets, sha256};
use crate::mail::draft::Enclosure;
use crate::mail::{Message, Part};

/// Characters of a name that goes along.
const MAX_NAME: usize = 200;

/// An attachment of one message. Cheap to clone.
#[derive(Clone)]
pub struct AttachmentView(Arc<Attachment>);

struct Attachment {
    message: Arc<Message>,
    part: Part,
    content: OnceLock<Bytes>,
    sha256: OnceLock<ImmutableString>,
    text: OnceLock<ImmutableString>,
}

impl std::fmt::Debug for AttachmentView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "attachment({:?})", self.0.part.filename.as_deref().unwrap_or_default())
    }
}

impl AttachmentView {
    /// Every attachment of a message, in order.
    pub fn all(message: &Arc<Message>) -> impl Iterator<Item = Self> {
        message.attachments().iter().map(|part| {
            Self(Arc::new(Attachment {
                message: Arc::clone(message),
                part: part.clone(),
                content: OnceLock::new(),
                sha256: OnceLock::new(),
                text: OnceLock::new(),
            }))
        })
    }

    fn content(&self) -> &Bytes {
        self.0.content.get_or_init(|| self.0.part.content(self.0.message.raw()))
    }

    fn size(&self) -> INT {
        INT::try_from(self.content().len()).unwrap_or(INT::MAX)
    }

    fn sha256(&self) -> ImmutableString {
        self.0.sha256.get_or_init(|| sha256(self.content())).clone()
    }

    fn text(&self, bounds: Bounds) -> ImmutableString {
        self.0.text.get_or_init(|| bounds.cut(self.0.part.decode(self.content()))).clone()
    }

    /// The same once more, to go along with a mail of the worker's. What its sender wrote of it goes along only where it
    /// can stand in a header field.
    #[must_use]
    pub fn enclosure(&self) -> Enclosure {
        let part = &self.0.part;
        let name = |text: &String| text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect::<String>();
        let is_plain = |text: &str| text.len() <= MAX_NAME && text.bytes().all(|octet| octet.is_ascii_graphic());
        let content_type = Some(part.content_type.clone()).filter(|kind| is_plain(kind) && kind.contains('/'));
        Enclosure {
            filename: part.filename.as_ref().map(name).filter(|name| !name.is_empty()),
            content_type: content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            content: self.content().clone(),
            content_id: part.content_id.clone().filter(|id| is_plain(id) && !id.is_empty() && !id.contains(['<', '>'])),
            inline: part.inline,
        }
    }

    /// What stands for it where only data can go, as in the payload of a webhook: all but the content.
    #[must_use]
    pub fn to_map(&self) -> Map {
        let part = &self.0.part;
        [
            ("filename", text(part.filename.as_deref())),
            ("content_type", part.content_type.clone().into()),
            ("size", self.size().into()),
            ("content_id", text(part.content_id.as_deref())),
            ("inline", part.inline.into()),
            ("sha256", self.sha256().into()),
        ]
        .map(|(name, value)| (name.into(), value))
        .into()
    }
}

/// What isn't there is empty.
fn text(text: Option<&str>) -> Dynamic {
    text.unwrap_or_default().to_owned().into()
}

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<AttachmentView>("attachment")
        .register_get("filename", |view: &mut AttachmentView| text(view.0.part.filename.as_deref()))
        .register_get("content_type", |view: &mut AttachmentView| view.0.part.content_type.clone())
        .register_get("content_id", |view: &mut AttachmentView| text(view.0.part.content_id.as_deref()))
        .register_get("inline", |view: &mut AttachmentView| view.0.part.inline)
        .register_get("size", |view: &mut AttachmentView| view.size())
        .register_get("sha256", |view: &mut AttachmentView| view.sha256())
        .register_get("content", |view: &mut AttachmentView| Octets::new(view.content().clone()))
        .register_get("text", |context: NativeCallContext, view: &mut AttachmentView| view.text(Bounds::of(&context)))
        .register_fn("to_map", |view: &mut AttachmentView| view.to_map())
        .register_fn("to_debug", |view: &mut AttachmentView| format!("{view:?}"));
}

#[cfg(test)]
impl AttachmentView {
    /// Where the decoded content lies.
    pub(super) fn content_at(&self) -> *const u8 {
        self.content().as_ptr()
    }
}
