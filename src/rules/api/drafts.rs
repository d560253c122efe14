//! What a worker writes: `ctx.send`. A map of the script's becomes a [`Draft`], checked in all its parts.
//!
//! Nothing is sent here: the draft is an effect. It comes from the worker's own domains alone. Loops have three bars: what
//! a machine wrote says so, a bounce is answered with the null sender, and workers that write because of each other's
//! mail are counted in the mail itself. Bounds: recipients, fields, octets, mails of one run.
//! Standards: RFC 5322 §3.4, §3.6; RFC 5321 §4.5.5; RFC 3834 §2.

use rhai::{Array, Dynamic, Engine, Map, NativeCallContext};

use super::actions::{field_name, field_value};
use super::address;
use super::context::ContextView;
use super::octets::Octets;
use super::options::{self, Options};
use super::run::{Handler, Run, ScriptResult, refuse};
use super::value::article;
use crate::mail::draft::{Enclosure, HOPS, Named, Purpose};
use crate::mail::field::{is_among, is_structured};
use crate::mail::{Address, Draft, Message};
use crate::rules::Happening;
use crate::rules::outcome::Effect;

/// Recipients of one mail; characters of a name and a subject; fields; attachments.
const MAX_RECIPIENTS: usize = 50;
pub(super) const MAX_NAME: usize = 200;
pub(super) const MAX_SUBJECT: usize = 500;
const MAX_FIELDS: usize = 50;
const MAX_ATTACHMENTS: usize = 20;
/// Octets of all that one run writes, and how many mails.
const MAX_WRITTEN: usize = 10 << 20;
const MAX_MAILS: usize = 20;
/// Workers that may write because of each other's mail.
const MAX_HOPS: u32 = 5;

/// What the reference says of them.
pub const LIMITS: [(&str, usize); 8] = [
    ("recipients", MAX_RECIPIENTS),
    ("subject", MAX_SUBJECT),
    ("fields", MAX_FIELDS),
    ("attachments", MAX_ATTACHMENTS),
    ("mails", MAX_MAILS),
    ("written", MAX_WRITTEN >> 20),
    ("hops", MAX_HOPS as usize),
    ("name", MAX_NAME),
];

/// Made by us, or not for a script to say. In lower case; a name that ends with `-` is every one that begins so.
const PROTECTED: &[&str] = &[
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "received",
    "return-path",
    "delivered-to",
    "auto-submitted",
    "dkim-signature",
    "authentication-results",
    "arc-",
    "mime-version",
    "content-",
    "resent-",
    "x-mailworker-",
];

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("send", |context: NativeCallContext, ctx: &mut ContextView, mail: Map| {
        let draft = new(ctx, mail).map_err(|why| refuse(&context, format!("send: {why}")))?;
        let workers = ctx.about().map_or(0, |call| hops(&call.message));
        if workers >= MAX_HOPS {
            // A sender's word, and no fault of the script's: an error would put the message off for ever.
            let why = format!(
                "no mail: this message goes in circles: {workers} workers have written because of each other's mail"
            );
            ctx.run().log(ctx.run().place(&context), &why);
            return Ok(false);
        }
        stage(&context, ctx.run(), Draft { hops: workers, ..draft })?;
        Ok::<_, Box<rhai::EvalAltResult>>(true)
    });
}

fn new(ctx: &ContextView, mail: Map) -> Result<Draft, String> {
    let (run, about) = (ctx.run(), ctx.about());
    if let Handler::Happening(Happening::Delivered | Happening::Failed) = run.handler {
        let handler = run.handler.name();
        return Err(format!("{handler} writes no mail, whose end it would be told again: use ctx.webhook"));
    }
    let mut options = Options::new(mail, options::SEND)?;
    let from = options.take("from").ok_or("`from` is missing: an address of one of this worker's domains")?;
    let to = people(options.take("to").as_ref()).map_err(|why| format!("to: {why}"))?;
    if to.is_empty() {
        return Err("`to` is missing: an address, or an array of them".to_owned());
    }
    let mut draft = written(run, from, options)?;
    draft.to = to;
    let count = draft.recipients().count();
    if count > MAX_RECIPIENTS {
        return Err(format!("at most {MAX_RECIPIENTS} recipients of one mail, these are {count}"));
    }
    if let Some(call) = about {
        draft.null_sender = call.session.sender.is_none() || call.message.is_bounce();
    }
    Ok(draft)
}

/// All but whom it goes to.
pub(super) fn written(run: &Run, from: Dynamic, mut options: Options) -> Result<Draft, String> {
    let from = person(&from).map_err(|why| format!("from: {why}"))?;
    is_ours(run, &from.address)?;
    let mut list = |name: &str| people(options.take(name).as_ref()).map_err(|why| format!("{name}: {why}"));
    let (cc, bcc, reply_to) = (list("cc")?, list("bcc")?, list("reply_to")?);
    let subject = options.text("subject")?.unwrap_or_default();
    let subject = clipped("subject", &subject, MAX_SUBJECT)?;
    let (text, html) = (options.text("text")?, options.text("html")?);
    if text.is_none() && html.is_none() {
        return Err("a mail has `text`, `html` or both".to_owned());
    }
    if [&text, &html].into_iter().flatten().any(|text| text.contains('\0')) {
        return Err("a text has no NUL".to_owned());
    }
    let headers = options.map("headers")?.unwrap_or_default();
    if headers.len() > MAX_FIELDS {
        return Err(format!("at most {MAX_FIELDS} header fields, these are {}", headers.len()));
    }
    let is_given = |(_, value): &(_, Dynamic)| !value.is_unit();
    let headers =
        headers.into_iter().filter(is_given).map(|(name, value)| field(&name, &value)).collect::<Result<_, _>>()?;
    let attachments = enclosures(options.take("attachments").as_ref())?;
    Ok(Draft {
        purpose: Purpose::New,
        from,
        to: Vec::new(),
        cc,
        bcc,
        reply_to,
        subject,
        text,
        html,
        headers,
        attachments,
        null_sender: false,
        hops: 0,
    })
}

/// Whether a worker may write under this address.
fn is_ours(run: &Run, address: &Address) -> Result<(), String> {
    let key = address.domain_key();
    let own = run.environment.senders.get(&run.main).map(Vec::as_slice).unwrap_or_default();
    let is_it = |domain: &String| match domain.strip_prefix('*') {
        Some(parent) => key.len() > parent.len() && key.ends_with(parent),
        None => *domain == key,
    };
    if own.iter().any(is_it) {
        return Ok(());
    }
    let own = if own.is_empty() { "no domain".to_owned() } else { own.join(", ") };
    Err(format!("from: {address} is none of this worker's: it writes for {own}"))
}

/// How many workers have written before, one because of the other.
fn hops(message: &Message) -> u32 {
    message.header(HOPS).map_or(0, |hops| hops.trim().parse().unwrap_or(MAX_HOPS))
}

/// Stages the draft, if there is room for it.
pub(super) fn stage(context: &NativeCallContext, run: &Run, draft: Draft) -> ScriptResult<()> {
    let weight = draft.weight();
    let mut state = run.state();
    let (octets, mails) = (state.written.0.saturating_add(weight), state.written.1 + 1);
    state.written = (octets, mails);
    drop(state);
    if octets > MAX_WRITTEN || mails > MAX_MAILS {
        let text = format!("one run writes at most {MAX_MAILS} mails, and {} MiB of them", MAX_WRITTEN >> 20);
        return Err(refuse(context, text));
    }
    run.stage(context, Effect::Mail(Box::new(draft)))
}

/// `ann@example.org`, `Ann <ann@example.org>` or `#{ name, address }`, or an array of such.
fn people(value: Option<&Dynamic>) -> Result<Vec<Named>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    match value.as_array_ref() {
        Ok(array) => array.iter().map(person).collect(),
        Err(_) => person(value).map(|one| vec![one]),
    }
}

fn person(value: &Dynamic) -> Result<Named, String> {
    let (name, address) = match value.as_map_ref() {
        Ok(map) => {
            let mut options = Options::new(map.clone(), &["name", "address"])?;
            let address = options.take("address").ok_or("`address` is missing")?;
            (options.text("name")?, address)
        }
        Err(_) => apart(value),
    };
    let address = address::from_dynamic(&address)?;
    if address.domain().is_empty() {
        return Err(format!("{address} has no domain"));
    }
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let name = name.map(|name| clipped("a name", &name, MAX_NAME)).transpose()?;
    Ok(Named { name, address })
}

/// A name before an address in angle brackets.
fn apart(value: &Dynamic) -> (Option<String>, Dynamic) {
    let Ok(text) = value.as_immutable_string_ref() else { return (None, value.clone()) };
    match text.trim().strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((name, address)) => {
            let name = name.trim();
            let bare = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
            (Some(bare.unwrap_or(name).replace("\\\"", "\"")), address.trim().to_owned().into())
        }
        None => (None, value.clone()),
    }
}

/// One line, cut where it is too long: mostly a part of it is a sender's word, for which no mail is to be put off.
pub(super) fn clipped(what: &str, text: &str, most: usize) -> Result<String, String> {
    let is_long = text.chars().nth(most).is_some();
    let text: String = if is_long { text.chars().take(most - 1).chain(['…']).collect() } else { text.to_owned() };
    one_line(what, &text, most).map(|()| text)
}

fn one_line(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err(format!("{what} has a line break or another control character"));
    }
    let length = text.chars().count();
    if length > most { Err(format!("{what} is at most {most} characters, this has {length}")) } else { Ok(()) }
}

fn field(name: &str, value: &Dynamic) -> Result<(String, String), String> {
    field_name(name)?;
    if is_among(PROTECTED, name) {
        return Err(format!(
            "the header field {name:?} is protected: it is made from the other options, or on the way"
        ));
    }
    let text = field_value(name, value)?;
    if is_structured(name) && !text.is_ascii() {
        return Err(format!("the header field {name} is ASCII: write a name in it as an encoded word (RFC 2047)"));
    }
    Ok((name.to_owned(), text))
}

fn enclosures(value: Option<&Dynamic>) -> Result<Vec<Enclosure>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let Ok(array) = value.as_array_ref().map(|array| Array::clone(&array)) else {
        return Err(format!("attachments is an array, not {}", article(value.type_name())));
    };
    if array.len() > MAX_ATTACHMENTS {
        return Err(format!("at most {MAX_ATTACHMENTS} attachments, these are {}", array.len()));
    }
    array.iter().map(|one| enclosure(one).map_err(|why| format!("attachments: {why}"))).collect()
}

/// `#{ filename, content_type, content, content_id, inline }`, or one of `message.attachments`.
fn enclosure(value: &Dynamic) -> Result<Enclosure, String> {
    if let Some(attachment) = value.read_lock::<super::attachment::AttachmentView>() {
        return Ok(attachment.enclosure());
    }
    let Ok(map) = value.as_map_ref().map(|map| Map::clone(&map)) else {
        return Err(format!("each is a map or one of message.attachments, not {}", article(value.type_name())));
    };
    let mut options = Options::new(map, &["filename", "content_type", "content", "content_id", "inline"])?;
    let content = options.take("content").ok_or("`content` is missing: a string, a blob or octets")?;
    let (content, is_text) = match (content.as_immutable_string_ref(), Octets::from_dynamic(&content)) {
        (Ok(text), _) => (bytes::Bytes::copy_from_slice(text.as_bytes()), true),
        (Err(_), Some(octets)) => (octets.bytes().clone(), false),
        (Err(_), None) => {
            return Err(format!("content is a string, a blob or octets, not {}", article(content.type_name())));
        }
    };
    let usual = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    let content_type = options.text("content_type")?.unwrap_or_else(|| usual.to_owned());
    let is_kind = content_type.split(';').next().is_some_and(|kind| {
        let token = |part: &str| {
            !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&octet))
        };
        kind.trim().split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
    });
    if !is_kind || !content_type.bytes().all(|octet| (b' '..=b'~').contains(&octet)) || content_type.len() > 200 {
        return Err(format!("{content_type:?} is no content type, as in \"application/pdf\""));
    }
    let content_id = options.text("content_id")?;
    if content_id.as_ref().is_some_and(|id| !is_id(id)) {
        return Err("content_id is 1 to 200 characters of ASCII without blanks and angle brackets".to_owned());
    }
    let inline = match options.take("inline") {
        None => content_id.is_some(),
        Some(value) => value.as_bool().map_err(|_| "inline is true or false")?,
    };
    let filename = options.text("filename")?;
    if let Some(filename) = &filename {
        one_line("filename", filename, MAX_NAME)?;
    }
    Ok(Enclosure { filename, content_type, content, content_id, inline })
}

pub(super) fn is_id(id: &str) -> bool {
    (1..=200).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'>'))
}
