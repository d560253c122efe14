//! `message.reply`: one answer to the sender, threaded; and whether there may be one.
//!
//! What lies in the message (a machine wrote it, nothing proves its sender, that one has had its answer) is no fault of the
//! script's: no answer is written then, `reply` says false, and the trace says why. So mail is never put off for it.
//! Must never: answer a machine, a list, the null sender or somebody who didn't write (RFC 3834 §2, RFC 5321 §4.5.5), or
//! one sender twice within a period, over all messages: that is kept in a namespace that no worker can name.
//! Standards: RFC 3834 §3, §4 (where to, who from); RFC 5322 §3.6.4 (In-Reply-To, References).

use rhai::{Dynamic, Engine, Map, NativeCallContext};

use super::drafts::{self, is_id};
use super::message::MessageView;
use super::octets::hexadecimal;
use super::options::{self, Options};
use super::run::{ScriptResult, refuse};
use crate::kv::{self, REPLIES};
use crate::mail::authentication::Check;
use crate::mail::draft::{Named, Once, Purpose};
use crate::mail::{Address, Message};
use crate::rules::EmailCall;

/// Seconds between two answers to one sender: a week unless the script says otherwise (RFC 5230 §4.1), an hour at least.
const EVERY: i64 = 7 * 86_400;
const LEAST: i64 = 3_600;
const MOST: i64 = 366 * 86_400;
/// Messages that a thread's fields name: its first, and the newest.
const MAX_REFERENCES: usize = 20;
/// A thread of so many has nobody who reads it.
const TOO_LONG: usize = 100;
/// Local parts of whom nobody reads (RFC 3834 §2), as they begin and end.
const NOBODY: &[&str] = &["noreply", "no-reply", "no_reply", "donotreply", "do-not-reply", "do_not_reply", "bounce"];
const MACHINES: &[&str] = &["mailer-daemon", "postmaster", "listserv", "majordomo", "daemon", "nobody", "root"];

pub(super) fn register(engine: &mut Engine) {
    engine.register_get("can_reply", |context: NativeCallContext, view: &mut MessageView| {
        Ok::<_, Box<rhai::EvalAltResult>>(why_not(&context, view)?.is_none())
    });
    engine.register_fn("reply", reply);
}

/// Whether an answer is written.
fn reply(context: NativeCallContext, view: &mut MessageView, answer: Map) -> ScriptResult<bool> {
    let wrong = |why: String| refuse(&context, format!("reply: {why}"));
    if view.run().state().replied {
        return Err(wrong("a message has one answer, and this has one already".to_owned()));
    }
    let mut options = Options::new(answer, options::REPLY).map_err(wrong)?;
    let every = options.integer("every").map_err(wrong)?.unwrap_or(EVERY);
    if !(LEAST..=MOST).contains(&every) {
        return Err(wrong(format!("every is in seconds, {LEAST} (an hour) to {MOST} (a year)")));
    }
    let from = options.take("from").unwrap_or_else(|| Dynamic::from(view.call().recipient.to_string()));
    let subject = options.text("subject").map_err(wrong)?;
    let subject =
        subject.map(|own| drafts::clipped("subject", &own, drafts::MAX_SUBJECT)).transpose().map_err(wrong)?;
    let mut draft = drafts::written(view.run(), from, options).map_err(wrong)?;
    draft.subject = subject.unwrap_or_else(|| answered(view.call().message.subject().unwrap_or_default().as_str()));
    if let Some(why) = why_not(&context, view)? {
        view.run().log(view.run().place(&context), &format!("no reply: {why}"));
        return Ok(false);
    }
    let Some(sender) = view.call().session.sender.clone() else { return Ok(false) };
    let message = &view.call().message;
    let (mut in_reply_to, mut references) = thread(message);
    // Each stands there once (RFC 5322 §3.6): what the script says is in place of ours.
    let says = |name: &str| draft.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    if says("In-Reply-To") {
        in_reply_to = None;
    }
    if says("References") {
        references.clear();
    }
    draft.to = vec![Named { name: author_name(message, &sender), address: sender.clone() }];
    draft.null_sender = true;
    let once = Once { key: key(view.call(), &sender), every: u64::try_from(every).unwrap_or_default() };
    draft.purpose = Purpose::Reply { in_reply_to, references, once };
    drafts::stage(&context, view.run(), draft)?;
    view.run().state().replied = true;
    Ok(true)
}

/// Why there is to be no answer, if so.
fn why_not(context: &NativeCallContext, view: &MessageView) -> ScriptResult<Option<String>> {
    let call = view.call();
    let Some(sender) = &call.session.sender else { return Ok(Some("it came from the null sender".to_owned())) };
    if let Some(why) = unanswerable(sender, &call.message) {
        return Ok(Some(why.to_owned()));
    }
    if let Some(why) = unproved(view, sender) {
        return Ok(Some(why));
    }
    let (run, key) = (view.run(), key(call, sender));
    let found = run.keys(|keys| keys.get(REPLIES, &key, run.now));
    let found = found.map_err(|error| run.overrun(context, format!("reply: {error}")))?;
    let read = kv::Read::Key { namespace: REPLIES.to_owned(), key, version: found.as_ref().map(|entry| entry.version) };
    run.state().kv.record(read);
    Ok(found
        .and_then(|entry| entry.expires_at)
        .map(|until| format!("{sender} has had an answer, the next is due {until}")))
}

/// What of a message itself speaks against an answer.
fn unanswerable(sender: &Address, message: &Message) -> Option<&'static str> {
    let local = sender.unquoted_local().to_ascii_lowercase();
    let is_nobody = NOBODY.iter().any(|word| local.starts_with(word))
        || MACHINES.contains(&local.as_str())
        || local.starts_with("owner-")
        || local.ends_with("-request")
        || local.ends_with("-owner");
    if sender.domain().is_empty() {
        Some("its sender has no domain")
    } else if message.is_list() {
        Some("it came by a mailing list")
    } else if message.is_auto() {
        Some("it was sent by a machine (Auto-Submitted, Precedence or the like)")
    } else if is_nobody {
        Some("nobody reads what is sent to its sender")
    } else if message.ids("References").len() >= TOO_LONG {
        Some("its thread is too long for people")
    } else {
        None
    }
}

/// An answer goes to the envelope's sender, so that one has to be proved: SPF speaks for it, or it is the author, for whom
/// DMARC does. Another mailbox of the author's domain is another person's.
fn unproved(view: &MessageView, sender: &Address) -> Option<String> {
    let call = view.call();
    let auth = call.session.client.auth.as_deref();
    if !auth.is_some_and(crate::mail::Authentication::passed) {
        return Some("nothing proves who sent it (message.auth.passed is false)".to_owned());
    }
    let by_spf = auth.is_some_and(|auth| auth.spf.result == Check::Pass);
    let is_proved = by_spf || call.message.is_by(sender);
    (!is_proved).then(|| format!("nothing proves that {sender} sent it, only that its author did"))
}

/// The name by which the author calls itself, where it is the sender.
fn author_name(message: &Message, sender: &Address) -> Option<String> {
    let author = message.addresses("From").into_iter().next()?;
    let address = Address::parse(author.address.as_deref()?).ok()?;
    let name: String = author.name?.chars().filter(|c| !c.is_control()).take(drafts::MAX_NAME).collect();
    (address.same_mailbox(sender) && !name.is_empty()).then_some(name)
}

/// `Re:` before it, once.
fn answered(subject: &str) -> String {
    let subject: String = subject.trim().chars().filter(|c| !c.is_control()).take(drafts::MAX_SUBJECT - 4).collect();
    if subject.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("re:")) {
        subject
    } else {
        format!("Re: {subject}")
    }
}

/// In-Reply-To, and References in their order: what the message refers to, then itself.
fn thread(message: &Message) -> (Option<String>, Vec<String>) {
    let plain = |field: &str| message.ids(field).into_iter().filter(|id| is_id(id)).collect::<Vec<_>>();
    let own = plain("Message-ID").into_iter().next();
    let mut references = plain("References");
    if references.is_empty() {
        // One alone is the message's parent; of several nobody knows which (RFC 5322 §3.6.4).
        references = Some(plain("In-Reply-To")).filter(|ids| ids.len() == 1).unwrap_or_default();
    }
    references.extend(own.clone());
    if references.len() > MAX_REFERENCES {
        let newest = references.split_off(references.len() - (MAX_REFERENCES - 1));
        references.truncate(1);
        references.extend(newest);
    }
    (own, references)
}

/// Who has had an answer from whom, whatever tag the mail came in for.
fn key(call: &EmailCall, sender: &Address) -> String {
    let recipient = call.recipient.base(&call.subaddress).to_lowercase();
    let (ours, local) = (call.recipient.domain_key(), sender.unquoted_local().to_lowercase());
    let about = format!("{recipient}@{ours}\0{local}@{}", sender.domain_key());
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, about.as_bytes()).as_ref()).to_string()
}
