//! `message`: what a script reads of the message. What it asks to be done with it is in `actions`.
//!
//! Everything is read from the message's one lazy parse; what has to be decoded is decoded once for each run. A text
//! that isn't there is empty, so that a script can look into it without a test first; only `headers.get`,
//! `headers.raw` and `date` answer `()`. What is longer than the script's budget allows is cut (see [`super::bounds`]).
//! Standards: RFC 5322, RFC 2045 to 2047, RFC 3834 and RFC 3464 (`is_auto`, `is_bounce`).

use std::sync::{Arc, OnceLock};

use rhai::{Array, Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};

use super::address;
use super::attachment::AttachmentView;
use super::auth::AuthView;
use super::bounds::Bounds;
use super::headers::{HeadersView, texts};
use super::octets::Octets;
use super::run::Run;
use super::session::SessionView;
use super::value;
use crate::mail::message::{calendar, quoted, report, spam};
use crate::mail::{Mailbox, Message};
use crate::rules::EmailCall;
use crate::rules::engine::charge;

/// Addresses of one field that a script is given.
const MAX_MAILBOXES: usize = 1_000;

/// `message` of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MessageView {
    call: Arc<EmailCall>,
    run: Arc<Run>,
    decoded: Arc<Decoded>,
}

/// What was decoded for this run, as the script was given it.
#[derive(Debug, Default)]
struct Decoded {
    text: OnceLock<ImmutableString>,
    html: OnceLock<ImmutableString>,
    reply_text: OnceLock<ImmutableString>,
    attachments: OnceLock<Vec<AttachmentView>>,
}

impl MessageView {
    #[must_use]
    pub fn new(call: Arc<EmailCall>, run: Arc<Run>) -> Self {
        Self { call, run, decoded: Arc::default() }
    }

    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    #[must_use]
    pub fn call(&self) -> &EmailCall {
        &self.call
    }

    fn message(&self) -> &Arc<Message> {
        &self.call.message
    }

    fn text(&self, bounds: Bounds) -> ImmutableString {
        let read = || bounds.cut(with_bare_ends(self.message().text()));
        self.decoded.text.get_or_init(read).clone()
    }

    fn reply_text(&self, bounds: Bounds) -> ImmutableString {
        let read = || {
            let text = self.message().text().unwrap_or_default();
            charge(text.len());
            bounds.cut(quoted::strip(&text).text)
        };
        self.decoded.reply_text.get_or_init(read).clone()
    }

    fn html(&self, bounds: Bounds) -> ImmutableString {
        let read = || bounds.cut(with_bare_ends(self.message().html()));
        self.decoded.html.get_or_init(read).clone()
    }

    fn attachments(&self, bounds: Bounds) -> Array {
        let all = self.decoded.attachments.get_or_init(|| AttachmentView::all(self.message()).collect());
        bounds.take(0, |_| 0, all.iter().cloned()).into_iter().map(Dynamic::from).collect()
    }

    /// What only SPF proves is proved no longer where we send it, and then the policy of its domain counts (RFC 7960);
    /// what was here already goes in circles.
    fn can_be_forwarded(&self) -> bool {
        let auth = self.call.session.client.auth.as_deref();
        let is_refused_elsewhere = auth.is_some_and(|auth| {
            matches!(auth.dmarc.policy.as_str(), "quarantine" | "reject") && !auth.dmarc.aligned_dkim
        });
        let here = self.call.recipient.as_str();
        let was_here = || self.message().delivered_to().iter().any(|address| address.eq_ignore_ascii_case(here));
        !is_refused_elsewhere && !was_here()
    }

    /// The null sender is the surest sign of a bounce, and no answer may go to it (RFC 5321 §4.5.5, RFC 3834 §2).
    fn has_null_sender(&self) -> bool {
        self.call.session.sender.is_none()
    }
}

/// Lines end with LF, as a script's own strings do.
fn with_bare_ends(text: Option<String>) -> String {
    match text {
        Some(text) if text.contains("\r\n") => text.replace("\r\n", "\n"),
        text => text.unwrap_or_default(),
    }
}

/// The addresses of a field as `#{ name, address }`.
pub(super) fn mailboxes(message: &Message, field: &str, bounds: Bounds) -> Array {
    let size = |found: &Mailbox| [&found.name, &found.address].into_iter().flatten().map(String::len).sum::<usize>();
    let found = message.addresses(field).into_iter().take(MAX_MAILBOXES);
    let map = |found: Mailbox| {
        let text = |text: Option<String>| Dynamic::from(text.unwrap_or_default());
        Dynamic::from(Map::from([("name".into(), text(found.name)), ("address".into(), text(found.address))]))
    };
    bounds.take(2, size, found).into_iter().map(map).collect()
}

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<MessageView>("message")
        .register_get("from", |view: &mut MessageView| address::to_dynamic(view.call.session.sender.as_ref()))
        .register_get("to", |view: &mut MessageView| address::to_dynamic(Some(&view.call.recipient)))
        .register_get("id", |view: &mut MessageView| view.call.id.to_string())
        .register_get("received_at", |view: &mut MessageView| view.call.received_at.as_millis())
        .register_get("raw", |view: &mut MessageView| Octets::new(view.message().raw().clone()))
        .register_get("raw_size", |view: &mut MessageView| {
            INT::try_from(view.message().raw().len()).unwrap_or(INT::MAX)
        })
        .register_get("headers", |view: &mut MessageView| HeadersView::new(Arc::clone(view.message())))
        .register_get("session", |view: &mut MessageView| {
            SessionView::new(Arc::clone(&view.call.session), Arc::clone(&view.run))
        })
        .register_get("auth", |view: &mut MessageView| AuthView::new(view.call.session.client.auth.as_ref()))
        .register_get("is_auto", |view: &mut MessageView| view.has_null_sender() || view.message().is_auto())
        .register_get("is_bounce", |view: &mut MessageView| view.has_null_sender() || view.message().is_bounce())
        .register_get("is_list", |view: &mut MessageView| view.message().is_list())
        .register_get("can_be_forwarded", |view: &mut MessageView| view.can_be_forwarded());
    register_fields(engine);
    register_content(engine);
}

/// What the header section says.
fn register_fields(engine: &mut Engine) {
    engine
        .register_get("subject", |context: NativeCallContext, view: &mut MessageView| {
            Bounds::of(&context).cut(view.message().subject().unwrap_or_default())
        })
        .register_get("message_id", |context: NativeCallContext, view: &mut MessageView| {
            Bounds::of(&context).cut(view.message().message_id().unwrap_or_default())
        })
        .register_get("in_reply_to", |context: NativeCallContext, view: &mut MessageView| {
            let ids = view.message().ids("In-Reply-To");
            Bounds::of(&context).cut(ids.into_iter().next().unwrap_or_default())
        })
        .register_get("references", |context: NativeCallContext, view: &mut MessageView| {
            texts(Bounds::of(&context), view.message().ids("References").into_iter())
        })
        .register_get("date", |view: &mut MessageView| {
            view.message().date().map_or(Dynamic::UNIT, |date| Dynamic::from(date.as_millis()))
        });
    for (member, field) in [("header_from", "From"), ("header_to", "To"), ("header_cc", "Cc"), ("reply_to", "Reply-To")]
    {
        engine.register_get(member, move |context: NativeCallContext, view: &mut MessageView| {
            mailboxes(view.message(), field, Bounds::of(&context))
        });
    }
}

/// What the body holds.
fn register_content(engine: &mut Engine) {
    engine
        .register_get("text", |context: NativeCallContext, view: &mut MessageView| view.text(Bounds::of(&context)))
        .register_get("html", |context: NativeCallContext, view: &mut MessageView| view.html(Bounds::of(&context)))
        .register_get("attachments", |context: NativeCallContext, view: &mut MessageView| {
            view.attachments(Bounds::of(&context))
        })
        .register_get("reply_text", |context: NativeCallContext, view: &mut MessageView| {
            view.reply_text(Bounds::of(&context))
        })
        .register_get("calendar", |view: &mut MessageView| -> Array {
            let events = calendar::read(view.message());
            events.iter().map(as_map).collect()
        })
        .register_get("dsn", |view: &mut MessageView| {
            report::read(view.message()).as_ref().map_or(Dynamic::UNIT, as_map)
        })
        .register_get("spam", |view: &mut MessageView| {
            let helo = view.call.session.client.helo.as_deref();
            as_map(&spam::judge(view.message(), view.call.received_at, helo))
        });
}

/// What has a form of its own in JSON, which is bounded where it is read.
fn as_map(read: &impl serde::Serialize) -> Dynamic {
    serde_json::to_value(read).map_or(Dynamic::UNIT, |json| value::from_json(&json))
}

#[cfg(test)]
mod tests;
