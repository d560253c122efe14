//! Past messages through other rules, without effects: which of them would have another fate, and how.
//!
//! Reads the store beside whoever has it open. Each message is judged as it came: by the time of its arrival, its client,
//! its envelope. Keys are read as they are now, and what `random_id` drew then is drawn otherwise. Either two sets of
//! rules are held against each other over the same message, or one against what was decided then, as the trace has it.
//! Threads take pages of the list in turn; what they find comes to the caller in order. Of large messages one is in
//! memory at a time. Blocks.

mod fate;
mod order;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regex::Regex;
use serde::Serialize;

pub use fate::Fate;
use order::{Ahead, Ordered};

use crate::clock;
use crate::event::Event;
use crate::intake::Snapshot;
use crate::intake::foresee::{Foresight, Past, again};
use crate::mail::{Address, Message, MessageId, Timestamp};
use crate::rules::reach::{Asked, Failed, Request};
use crate::rules::{KvView, Lent, Reach, Seed, THREAD_STACK};
use crate::store::{LARGE, MessageFilter, MessageOutcome, MessageSummary, Reader, StoreError};

/// Messages of one page.
const PAGE: usize = 64;
/// Pages that are judged or wait for the caller, for each thread: one that takes long holds the others up, and not memory.
const WAITING: usize = 8;

/// Which messages, and how many are judged at once.
#[derive(Debug, Clone)]
pub struct Range {
    pub since: Timestamp,
    pub until: Option<Timestamp>,
    pub to: Option<Wanted>,
    pub from: Option<Wanted>,
    /// 0: as many as there are processors.
    pub threads: usize,
}

/// What the decision of the rules is held against.
#[derive(Clone)]
pub enum Before {
    /// What was decided then.
    Then,
    /// What these decide on the same message now.
    Rules(Arc<Snapshot>),
}

/// An address, or part of one: `support@`, `*@example.org`, `/^sales/`.
#[derive(Debug, Clone)]
pub struct Wanted(Regex);

impl std::str::FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pattern = if let Some(inner) = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            inner.to_owned()
        } else if text.contains('*') {
            let parts: Vec<String> = text.split('*').map(regex::escape).collect();
            format!("^{}$", parts.join(".*"))
        } else {
            regex::escape(text)
        };
        let built = regex::RegexBuilder::new(&pattern).case_insensitive(true).build();
        built.map(Self).map_err(|error| format!("no regular expression: {error}"))
    }
}

impl Wanted {
    /// `None` is the null sender, which `<>` names.
    fn takes(&self, address: Option<&Address>) -> bool {
        self.0.is_match(address.map_or("<>", Address::as_str))
    }
}

/// One recipient whose fate would be another.
#[derive(Debug, Clone, Serialize)]
pub struct Changed {
    pub id: MessageId,
    pub received_at: Timestamp,
    pub sender: Option<Address>,
    pub recipient: Address,
    pub subject: Option<String>,
    /// `accept → reject`, `accept, other effects`.
    pub kind: String,
    pub before: Fate,
    pub after: Fate,
}

/// What it all comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Messages that were judged, and their recipients.
    pub messages: u64,
    pub recipients: u64,
    pub changed: u64,
    /// How many of each kind of change.
    pub kinds: BTreeMap<String, u64>,
    /// Recipients whose rules read keys, which are what they are now.
    pub read_keys: u64,
    /// Messages not judged: their rules ask somebody outside (`fetch`, `ai`, DNS), which a replay doesn't.
    pub asked_outside: u64,
    /// Messages whose octets retention has taken.
    pub gone: u64,
    /// Messages that were put off then: of those no octets are kept, they came again.
    pub put_off: u64,
    /// Recipients of whom the trace has no decision.
    pub unrecorded: u64,
    /// Messages that can't be read; the first one's error.
    pub unreadable: u64,
    pub first_error: Option<String>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Messages that were looked at.
    pub looked_at: u64,
    pub changed: u64,
    /// Newest first: all from here on have been.
    pub back_to: Timestamp,
}

/// What the caller is told while it goes on; an error ends it.
pub trait Listener<E> {
    /// # Errors
    /// Whatever is to end it.
    fn changed(&mut self, changed: &Changed) -> Result<(), E>;
    /// # Errors
    /// Whatever is to end it.
    fn progress(&mut self, progress: Progress) -> Result<(), E>;
}

/// Why it didn't come to its end.
#[derive(Debug)]
pub enum Stopped<E> {
    Store(StoreError),
    Listener(E),
}

/// Judges every message of `range` by `after` and holds it against `before`.
///
/// # Errors
/// The list can't be read, or the listener ended it.
pub fn replay<E>(
    reader: &Reader,
    range: &Range,
    before: &Before,
    after: &Arc<Snapshot>,
    listener: &mut impl Listener<E>,
) -> Result<Summary, Stopped<E>> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if range.threads == 0 { processors } else { range.threads };
    let kv: KvView = Arc::new(reader.clone());
    let list = Mutex::new(List { next: range.until.map(MessageId::floor), number: 0, ended: false });
    let ahead = Ahead::new(threads * WAITING);
    let work = Work { reader, range, before, after, kv, list, large: Mutex::default(), ahead };
    std::thread::scope(|scope| {
        let ordered = Ordered::new(&work.ahead);
        let (sender, pages) = sync_channel(threads * WAITING);
        for _ in 0..threads {
            let (work, sender) = (&work, sender.clone());
            let thread = std::thread::Builder::new().name("replay".to_owned()).stack_size(THREAD_STACK);
            thread.spawn_scoped(scope, move || work.go_on(&sender)).map_err(|error| {
                Stopped::Store(StoreError::Failed(format!("no thread to judge messages on: {error}")))
            })?;
        }
        drop(sender);
        collect(&pages, ordered, listener)
    })
}

/// Judges one message.
///
/// # Errors
/// `NotFound` where its octets are gone; `Failed` where they can't be read now.
pub fn one(
    reader: &Reader,
    id: MessageId,
    before: &Before,
    after: &Arc<Snapshot>,
) -> Result<(Vec<Changed>, Summary), StoreError> {
    let summary = reader.message(id)?.summary;
    let range = Range { since: id.timestamp(), until: None, to: None, from: None, threads: 1 };
    let (list, large) = (Mutex::new(List { next: None, number: 0, ended: true }), Mutex::default());
    let (kv, ahead) = (Arc::new(reader.clone()), Ahead::new(1));
    let work = Work { reader, range: &range, before, after, kv, list, large, ahead };
    let mut page = Page::default();
    work.message(&summary, &mut page)?;
    Ok((page.changed, page.summary))
}

/// How what was decided on a message then differs from what is seen now, for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    Same,
    /// The trace has no decision.
    Unrecorded,
    /// As in [`Changed::kind`].
    Changed(String),
}

/// Holds what was seen now against the trace, for each recipient in order.
#[must_use]
pub fn since(trace: &[Event], past: &Past, seen: &[Foresight]) -> Vec<(Address, Since)> {
    let then = fate::recorded(trace, &past.envelope);
    let each = past.envelope.recipients.iter().zip(then).zip(seen);
    let held = each.map(|((recipient, then), seen)| {
        let since = match (then, Fate::foreseen(seen)) {
            (Some(then), Some(now)) => then.change_to(&now).map_or(Since::Same, Since::Changed),
            (_, None) => Since::Same,
            (None, Some(_)) => Since::Unrecorded,
        };
        (recipient.address.clone(), since)
    });
    held.collect()
}

/// Pages as they come, in the order of the list.
fn collect<E>(
    pages: &Receiver<(u64, Result<Page, StoreError>)>,
    mut ordered: Ordered<'_, Page>,
    listener: &mut impl Listener<E>,
) -> Result<Summary, Stopped<E>> {
    let mut all = Summary::default();
    for (number, page) in pages {
        ordered.put(number, page.map_err(Stopped::Store)?);
        while let Some(page) = ordered.take() {
            page.changed.iter().try_for_each(|changed| listener.changed(changed)).map_err(Stopped::Listener)?;
            all.add(page.summary);
            let looked_at = all.messages + all.asked_outside + all.gone + all.put_off + all.unreadable;
            let progress = Progress { looked_at, changed: all.changed, back_to: page.oldest };
            listener.progress(progress).map_err(Stopped::Listener)?;
        }
    }
    Ok(all)
}

/// What the threads share.
struct Work<'a> {
    reader: &'a Reader,
    range: &'a Range,
    before: &'a Before,
    after: &'a Arc<Snapshot>,
    kv: KvView,
    list: Mutex<List>,
    /// Whoever has a large message in memory.
    large: Mutex<()>,
    ahead: Ahead,
}

/// How far the list was read.
struct List {
    next: Option<MessageId>,
    number: u64,
    ended: bool,
}

/// What one page of the list comes to.
#[derive(Default)]
struct Page {
    changed: Vec<Changed>,
    summary: Summary,
    oldest: Timestamp,
}

impl Work<'_> {
    /// Page after page, until there is none or nobody wants to know.
    fn go_on(&self, pages: &SyncSender<(u64, Result<Page, StoreError>)>) {
        let _working = self.ahead.working();
        loop {
            let (number, listed) = match self.next_page() {
                Ok(Some(page)) => page,
                Ok(None) => return,
                Err(error) => return drop(pages.send((u64::MAX, Err(error)))),
            };
            if !self.ahead.may_begin(number) || pages.send((number, Ok(self.page(&listed)))).is_err() {
                return;
            }
        }
    }

    fn next_page(&self) -> Result<Option<(u64, Vec<MessageSummary>)>, StoreError> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.ended {
            return Ok(None);
        }
        let (since, before) = (Some(self.range.since), list.next);
        let filter = MessageFilter { since, before, limit: Some(PAGE), ..MessageFilter::default() };
        let page = self.reader.messages(&filter).inspect_err(|_| list.ended = true)?;
        let Some(oldest) = page.last() else {
            list.ended = true;
            return Ok(None);
        };
        list.next = Some(oldest.id);
        let number = list.number;
        list.number += 1;
        Ok(Some((number, page)))
    }

    fn page(&self, listed: &[MessageSummary]) -> Page {
        let oldest = listed.last().map(|last| last.received_at).unwrap_or_default();
        let mut page = Page { oldest, ..Page::default() };
        for message in listed.iter().filter(|message| self.is_wanted(message)) {
            if let Err(error) = self.message(message, &mut page) {
                page.summary.unreadable += 1;
                page.summary.first_error.get_or_insert(error.to_string());
            }
        }
        page
    }

    /// What we have written ourselves came in by no rule.
    fn is_wanted(&self, message: &MessageSummary) -> bool {
        let Range { to, from, .. } = self.range;
        message.outcome != MessageOutcome::Authored
            && from.as_ref().is_none_or(|from| from.takes(message.sender.as_ref()))
            && to.as_ref().is_none_or(|to| message.recipients.iter().any(|recipient| to.takes(Some(recipient))))
    }

    fn message(&self, listed: &MessageSummary, page: &mut Page) -> Result<(), StoreError> {
        if !listed.raw {
            let put_off = listed.outcome == MessageOutcome::Deferred;
            *(if put_off { &mut page.summary.put_off } else { &mut page.summary.gone }) += 1;
            return Ok(());
        }
        let body = self.reader.body(listed.id)?;
        let _alone = (body.raw.len() > LARGE).then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        let Some(client) = body.client else { return Ok(()) };
        let message = Arc::new(Message::new(body.raw.load()?));
        // The same for both sides.
        let seed = Seed::default().of(&listed.id);
        let nobody = Arc::new(Nobody::default());
        let reach = Lent::new(Arc::clone(&nobody) as Arc<dyn Reach>);
        let past = Past { id: listed.id, envelope: body.envelope, client, message, seed, reach };
        let _then = clock::stop(listed.received_at);
        let before = match self.before {
            Before::Then => fate::recorded(&self.reader.trace(listed.id)?, &past.envelope),
            Before::Rules(rules) => again(rules, &past, &self.kv).iter().map(Fate::foreseen).collect(),
        };
        let after = again(self.after, &past, &self.kv);
        if nobody.was_asked.load(Ordering::Relaxed) {
            page.summary.asked_outside += 1;
            return Ok(());
        }
        page.summary.messages += 1;
        for (at, seen) in after.iter().enumerate() {
            let Some(recipient) = past.envelope.recipients.get(at).map(|recipient| &recipient.address) else { break };
            if self.range.to.as_ref().is_some_and(|to| !to.takes(Some(recipient))) {
                continue;
            }
            let Some(after) = Fate::foreseen(seen) else { continue };
            page.summary.recipients += 1;
            page.summary.read_keys += u64::from(seen.judged.as_ref().is_some_and(|judged| !judged.reads.is_empty()));
            match before.get(at).cloned().flatten() {
                None => page.summary.unrecorded += 1,
                Some(before) => page.compare(listed, recipient, before, after),
            }
        }
        Ok(())
    }
}

/// Thousands of messages would be as many calls, and what is answered today says little of then.
#[derive(Default)]
struct Nobody {
    was_asked: AtomicBool,
}

impl Reach for Nobody {
    fn ask(&self, _: &Request, _: usize, _: Duration) -> Asked {
        self.was_asked.store(true, Ordering::Relaxed);
        Asked {
            result: Err(Failed::Ends("a replay asks nobody outside".to_owned())),
            took: Duration::ZERO,
            kept: false,
        }
    }
}

impl Page {
    fn compare(&mut self, listed: &MessageSummary, recipient: &Address, before: Fate, after: Fate) {
        let Some(kind) = before.change_to(&after) else { return };
        self.summary.changed += 1;
        *self.summary.kinds.entry(kind.clone()).or_default() += 1;
        self.changed.push(Changed {
            id: listed.id,
            received_at: listed.received_at,
            sender: listed.sender.clone(),
            recipient: recipient.clone(),
            subject: listed.subject.clone(),
            kind,
            before,
            after,
        });
    }
}

impl Summary {
    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.changed += other.changed;
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.read_keys += other.read_keys;
        self.asked_outside += other.asked_outside;
        self.gone += other.gone;
        self.put_off += other.put_off;
        self.unrecorded += other.unrecorded;
        self.unreadable += other.unreadable;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_wanted_by_part_pattern_or_expression() {
        let takes = |wanted: &str, address: &str| {
            wanted.parse::<Wanted>().unwrap().takes(Address::parse(address).ok().as_ref())
        };
        for (wanted, address, is) in [
            ("support@", "Support@example.com", true),
            ("support@", "sales@example.com", false),
            ("*@example.com", "a.b@example.com", true),
            ("*@example.com", "a@example.com.net", false),
            ("a.b@*", "axb@example.com", false),
            ("/^s(ales|upport)@/", "sales@example.com", true),
            ("<>", "", true),
        ] {
            assert_eq!(takes(wanted, address), is, "{wanted} {address}");
        }
        assert!("/(/".parse::<Wanted>().unwrap_err().contains("regular expression"));
    }
}
