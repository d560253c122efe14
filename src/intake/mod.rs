//! Answers the session's questions: may this one speak, is this recipient ours, what becomes of this message.
//!
//! The answer is always words for the peer, never an error: what is wrong on our side is a 4xx, and the log says why.
//! Input: [`Question`]s of `smtp::Session`, facts about the client. Output: [`Answer`]s; for a message, one
//! [`crate::store::Acceptance`], committed before the 250 is said (RFC 5321 §6.1).
//! Must never: accept mail for a domain that isn't configured, do half of what a worker asked for.

mod anew;
mod author;
mod by_hand;
pub mod canary;
mod changes;
mod combine;
pub mod decide;
mod decider;
mod errand;
pub mod foresee;
pub mod forward;
mod handed;
mod happened;
pub mod headers;
mod hook;
mod in_place;
mod judge;
mod large;
mod overlay;
mod policy;
mod recipient;
mod round;
mod routed;
mod scheduled;
mod sender;
pub mod snapshot;
mod stages;
mod turns;
mod under_way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::aside::{self, Unfinished};
use crate::authenticate::Header;
use crate::clock::{self, Instant};
use crate::config::Config;
use crate::dns::Dns;
use crate::event::{Bus, Event, Kind};
use crate::mail::{Address, Client, Message, MessageId, Origin, Reply};
use crate::reach::Outside;
use crate::rules::SessionFacts;
use crate::smtp::{Answer, Question, Transaction};
use crate::store::{Acceptance, Accepted, DecideTask, DeliveryKey, Incoming, MessageOutcome, Raw, Store, StoreError};

pub use anew::Anew;
pub use by_hand::Ran;
pub use combine::notice;
use combine::{Combined, combine};
use decide::{Case, Judged};
use errand::{Errand, Ways};
pub use handed::{Handed, Heard, Written};
pub use happened::Told;
use in_place::InPlace;
use judge::{Judgement, Verdicts};
pub use sender::look_into;
use sender::{Found, Looks};
pub use snapshot::{Current, Snapshot};
use turns::Turns;
use under_way::{Mark, UnderWay};

/// How often a worker runs again because a key it had read was changed meanwhile, before the sender is told 451.
const MAX_RUNS: u32 = 3;

/// How long a worker's run may wait for its turn before the sender is told 451.
const PATIENCE: Duration = Duration::from_secs(10);

/// Messages of one session whose 250 waits to be read: a client may send many before it reads.
const MAX_UNREAD: usize = 256;

/// The intake of one process.
pub struct Intake {
    store: Store,
    bus: Bus,
    current: Current,
    dns: Arc<Dns>,
    /// Bounds how many workers run at once, so that slow ones can't take every thread.
    turns: Turns,
    ways: Ways,
    in_place: InPlace,
    under_way: UnderWay,
}

/// `session.notes`.
type Notes = BTreeMap<String, serde_json::Value>;

/// What intake remembers of one session.
pub struct Visit {
    session: u64,
    snapshot: Arc<Snapshot>,
    sender: Option<Address>,
    /// What the transaction's handlers left on `session.notes`.
    notes: Notes,
    /// The same as the last greeting left it, with which a transaction begins.
    greeted: Notes,
    /// The same as `connect` left it, with which a greeting begins.
    connected: Notes,
    /// The messages for which 250 was said, by fingerprint, until the client is seen to have read on.
    unread: Vec<([u8; 16], MessageId)>,
    /// What came of the message that was just answered, to be told when its sender waits no longer.
    untold: Vec<Event>,
    /// What has come of a large message.
    incoming: Option<Incoming>,
    /// Whoever has it wants to hear what its message comes to; what that was.
    listens: bool,
    heard: Option<Heard>,
    looks: Looks,
    /// Where the client's address is.
    origin: Origin,
}

impl Visit {
    /// The client, with where it is.
    fn located(&self, client: &Client) -> Client {
        Client { origin: self.origin.clone(), ..client.clone() }
    }

    /// What this session runs by.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.snapshot.config)
    }

    fn promise(&mut self, fingerprint: [u8; 16], id: MessageId) {
        if self.unread.len() >= MAX_UNREAD {
            // The oldest's duplicate would be taken for a new message, which is the lesser harm.
            self.unread.remove(0);
        }
        self.unread.push((fingerprint, id));
    }
}

impl Intake {
    /// `outside`: who asks for its workers what they read from outside; without one nobody does.
    #[must_use]
    pub fn new(store: Store, bus: Bus, current: Current, dns: Arc<Dns>, outside: Option<Arc<Outside>>) -> Self {
        let config = Arc::clone(&current.load().config);
        let configured = config.limits.runs;
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let runs = if configured == 0 { processors * 2 } else { configured };
        Self {
            store,
            bus,
            current,
            dns,
            turns: Turns::new(runs),
            ways: Ways::new(outside, config.fetch.concurrency),
            in_place: InPlace::default(),
            under_way: UnderWay::default(),
        }
    }

    /// How many runs have a place among those that may take long.
    pub fn runs_open(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let turns = self.turns.clone();
        move || turns.taken()
    }

    /// How many of their requests outside are under way.
    pub fn requests_open(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let ways = self.ways.clone();
        move || ways.taken()
    }

    /// A session begins: it keeps the snapshot it began with.
    #[must_use]
    pub fn open(&self, session: u64) -> Visit {
        Visit {
            session,
            snapshot: self.current.load(),
            sender: None,
            notes: Notes::new(),
            greeted: Notes::new(),
            connected: Notes::new(),
            unread: Vec::new(),
            untold: Vec::new(),
            incoming: None,
            listens: false,
            heard: None,
            looks: Looks::default(),
            origin: Origin::default(),
        }
    }

    /// The client went on speaking, so it has read our 250: the same message again would be a new one (RFC 1047).
    pub fn acknowledged(&self, visit: &mut Visit) {
        visit.unread.clear();
    }

    /// A session is over. Where its client hasn't read all it was told, it may come again with the same (RFC 1047).
    pub fn closed(&self, visit: &mut Visit, has_read: bool) {
        self.said(visit);
        for (fingerprint, id) in visit.unread.drain(..).filter(|_| !has_read) {
            self.store.put_unread(fingerprint, id);
        }
    }

    /// The sender of the last message has its answer: what came of it is told to everybody else.
    pub fn said(&self, visit: &mut Visit) {
        for event in std::mem::take(&mut visit.untold) {
            self.bus.publish(event);
        }
    }

    /// What to say. Runs to its end once begun: a message must not be half accepted.
    pub async fn answer(&self, visit: &mut Visit, client: &Client, question: Question) -> Answer {
        self.said(visit);
        match question {
            Question::Connect => self.connect(visit, client).await,
            Question::Helo { .. } => self.helo(visit, client).await,
            Question::MailFrom { envelope, .. } => self.mail_from(visit, client, *envelope).await,
            Question::RcptTo { recipient } => self.rcpt_to(visit, client, *recipient).await,
            Question::Message(transaction) => self.message(visit, client, *transaction).await,
        }
    }

    /// A refusal before there is a message, under no message's id.
    fn refused(
        &self,
        visit: &Visit,
        client: &Client,
        phase: &str,
        sender: Option<&Address>,
        recipient: Option<&Address>,
        reply: &Reply,
    ) {
        let kind = Kind::Refused {
            phase: phase.to_owned(),
            ip: client.ip,
            // From MAIL on there is always one, be it the null sender.
            sender: (!matches!(phase, "connect" | "helo"))
                .then(|| sender.map_or_else(|| "<>".to_owned(), ToString::to_string)),
            recipient: recipient.map(ToString::to_string),
            reply: visit.snapshot.shown(reply),
        };
        self.bus.publish(Event::new(clock::now(), kind).in_session(visit.session));
    }

    async fn message(&self, visit: &mut Visit, client: &Client, transaction: Transaction) -> Answer {
        let now = clock::now();
        let id = clock::message_id(now);
        let Transaction { envelope, body, handed_on, prdr } = transaction;
        let (sender, recipients) = (envelope.sender.clone(), envelope.recipients.len());
        let answer = match self.known(visit, client, body, handed_on).await {
            Ok(Known { message, incoming, client, told }) => {
                let case = Case {
                    id,
                    received_at: now,
                    snapshot: Arc::clone(&visit.snapshot),
                    message,
                    facts: Arc::new(SessionFacts { client, sender: sender.clone(), notes: visit.notes.clone() }),
                    envelope,
                    seed: clock::seed(),
                    told,
                    is_judged_again: false,
                };
                self.settle(visit, &Arc::new(case), incoming, prdr).await
            }
            Err(trouble) => Err(trouble),
        };
        let answer = answer.unwrap_or_else(|trouble| {
            let reply = self.trouble(visit, id, &trouble);
            if let Trouble::TooBusy = trouble {
                self.refused(visit, client, "data", sender.as_ref(), None, &reply);
            }
            Answer::Reply(reply)
        });
        match answer {
            // A refusal of the whole message keeps its words, but each recipient is owed an answer.
            Answer::Reply(last) if prdr => Answer::Each { replies: vec![last.clone(); recipients], last },
            other => other,
        }
    }

    /// The message as a whole, with all that is known of who sent it. While that is looked up, a large one isn't in memory.
    async fn known(&self, visit: &mut Visit, client: &Client, body: Bytes, handed_on: u64) -> Result<Known, Trouble> {
        let (raw, incoming) = self.whole(visit, body, handed_on).await?;
        let config = Arc::clone(&visit.snapshot.config);
        let read = |raw| Arc::new(Message::received_by(&config.hostname, raw));
        let mut message = read(raw);
        if !config.authentication.concerns(client.ip) || message.has_unseen_fields() {
            return Ok(Known { message, incoming, client: visit.located(client), told: None });
        }
        let header = Header::of(&message).await?;
        if incoming.is_some() {
            message = read(Bytes::new());
        }
        let found = self.looked_into(visit, client, header).await;
        let mut client = self.named(visit, client).await;
        let told = found.map(|Found { auth, told }| {
            client.auth = Some(auth);
            told
        });
        if let Some(incoming) = &incoming {
            message = read(self.again(incoming).await?);
        }
        Ok(Known { message, incoming, client, told })
    }

    /// Judge, commit; again where a key that was read was overtaken meanwhile.
    async fn settle(
        &self,
        visit: &mut Visit,
        case: &Arc<Case>,
        mut incoming: Option<Incoming>,
        prdr: bool,
    ) -> Result<Answer, Trouble> {
        let (since, mut mark, mut errand) = (Instant::now(), None, None);
        for run in 1..=MAX_RUNS {
            let Verdicts { judged, subject, header_from } =
                match self.judge(case, run, since, (&mut mark, &mut errand)).await? {
                    Judgement::Verdicts(verdicts) => verdicts,
                    Judgement::Refused(reply) => {
                        self.refused(visit, &case.facts.client, "data", case.envelope.sender.as_ref(), None, &reply);
                        return Ok(Answer::Reply(reply));
                    }
                    Judgement::Resent { original, fingerprint } => {
                        visit.promise(fingerprint, original);
                        self.publish(visit, original, vec![Event::new(case.received_at, Kind::Resent { original })]);
                        let text = format!("Received already, queued as {original}");
                        return Ok(Answer::Reply(Reply::new(250, 0, 0, text)));
                    }
                };
            let mut combined = combine(case, judged, prdr, clock::now());
            // A resend may be answered "received already" only where that is true for each recipient.
            let fingerprint = mark.as_ref().filter(|_| !combined.partial).map(Mark::fingerprint);
            let fingerprint = fingerprint.unwrap_or_else(|| headers::never_again(case.id));
            combined.events.insert(0, received(case, subject.clone()));
            if let Some(told) = &case.told {
                combined.events.insert(1, Event::new(case.received_at, told.clone()));
            }
            for event in &mut combined.events {
                event.session = Some(visit.session);
                event.message = Some(case.id);
            }
            let answer = std::mem::replace(&mut combined.answer, Answer::Accept);
            let (outcome, mut events) = (combined.outcome, combined.events.clone());
            if visit.listens {
                visit.heard = Some(Heard::of(case.id, &combined));
            }
            let mut acceptance = acceptance(case, fingerprint, subject, header_from, combined);
            if let Some(incoming) = &mut incoming {
                acceptance.body = placed(incoming, &acceptance).await?;
            }
            if self.store.accept(acceptance).await? == Accepted::Committed {
                if outcome.promised() {
                    visit.promise(fingerprint, case.id);
                }
                // Told as of now, so that a slow disk shows; the stored one is part of what was committed.
                if let Some(last) = events.last_mut() {
                    last.at = clock::now();
                }
                visit.untold = events;
                return Ok(answer);
            }
        }
        Err(Trouble::Overtaken)
    }

    /// Runs the worker again for a recipient whose first run failed, after the message was accepted for others.
    ///
    /// # Errors
    /// Where it can't be run at all now; try later.
    pub async fn decide_again(
        &self,
        key: DeliveryKey,
        body: &crate::store::Body,
        task: DecideTask,
    ) -> Result<Judged, String> {
        let (id, DecideTask { recipient, notes }) = (key.message, task);
        let client = body.client.clone().ok_or("the message has no client to speak of")?;
        let turn = self.turns.take(client.ip, Instant::now() + PATIENCE).await;
        let turn = turn.ok_or_else(|| too_busy().to_string())?;
        let raw = body.raw.whole().await.map_err(|error| error.to_string())?;
        let snapshot = self.current.load();
        let case = Case {
            id,
            received_at: id.timestamp(),
            message: Arc::new(Message::received_by(&snapshot.config.hostname, raw)),
            snapshot,
            facts: Arc::new(SessionFacts { client, sender: body.envelope.sender.clone(), notes }),
            envelope: body.envelope.clone(),
            seed: clock::seed_of(&("decide", key)),
            told: None,
            is_judged_again: true,
        };
        let kv = self.store.kv();
        let errand = Errand::new(&self.ways, &self.turns, &case.snapshot.config, case.facts.client.ip);
        let task = aside::run(move || {
            let reach = errand.lent();
            errand.within(turn, || decide::decide(&case, &recipient, &kv, &reach, 1))
        });
        task.await.map_err(|error| error.to_string())
    }

    fn publish(&self, visit: &Visit, message: MessageId, events: Vec<Event>) {
        for mut event in events {
            event.session = Some(visit.session);
            event.message = Some(message);
            self.bus.publish(event);
        }
    }

    /// What the peer may read of our own trouble (never a 5xx), and what the log says of it.
    fn trouble(&self, visit: &Visit, id: MessageId, trouble: &Trouble) -> Reply {
        let reply = match trouble {
            Trouble::Store(StoreError::Full(_)) => {
                Reply::new(452, 3, 1, format!("Not enough space here for more mail; try again later ({id})"))
            }
            Trouble::Store(StoreError::Closed) => Reply::new(421, 3, 2, "Shutting down, try again"),
            Trouble::TooBusy => return too_busy(),
            Trouble::Overtaken => Reply::new(451, 3, 0, format!("Busy, try again later ({id})")),
            Trouble::Store(_) | Trouble::Parts | Trouble::Panic(_) | Trouble::Unfinished(_) => {
                Reply::new(451, 3, 0, format!("Something failed here, try again later ({id})"))
            }
        };
        let fault = Kind::Fault { what: "accept".into(), detail: trouble.to_string() };
        let at = clock::now();
        self.publish(visit, id, vec![Event::new(at, fault), Event::new(at, Kind::Deferred { reply: reply.clone() })]);
        reply
    }
}

/// A message that is there, and who sent it.
struct Known {
    message: Arc<Message>,
    incoming: Option<Incoming>,
    client: Client,
    told: Option<Kind>,
}

/// The other workers' runs take all the time there is.
fn too_busy() -> Reply {
    let text = format!("Too busy now: no turn to decide came within {} s; try again later", PATIENCE.as_secs());
    Reply::new(451, 3, 2, text)
}

/// Why a message could not be accepted, on our side.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a key the worker reads was changed by other messages in each of {MAX_RUNS} runs")]
    Overtaken,
    #[error("the parts of a large message don't make a whole")]
    Parts,
    #[error("too much mail is being decided")]
    TooBusy,
    #[error("panicked: {0}")]
    Panic(String),
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
}

fn received(case: &Case, subject: Option<String>) -> Event {
    let kind = Kind::Received {
        // Who it is was told by itself.
        client: Box::new(Client { auth: None, ..case.facts.client.clone() }),
        sender: case.envelope.sender.clone(),
        recipients: case.envelope.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        size: case.message.raw().len() as u64,
        subject,
    };
    Event::new(case.received_at, kind)
}

fn acceptance(
    case: &Case,
    fingerprint: [u8; 16],
    subject: Option<String>,
    header_from: Option<String>,
    combined: Combined,
) -> Acceptance {
    // A deferred message comes again: the store keeps its size, not its octets.
    let kept = combined.outcome != MessageOutcome::Deferred;
    Acceptance {
        id: case.id,
        received_at: case.received_at,
        envelope: case.envelope.clone(),
        client: Some(case.facts.client.clone()),
        head: if kept { headers::head(case).into() } else { Bytes::new() },
        body: case.message.raw().clone().into(),
        fingerprint,
        subject,
        header_from,
        outcome: combined.outcome,
        keep_until: combined.keep_until,
        mailbox: combined.mailbox,
        deliveries: combined.deliveries,
        kv_reads: combined.reads,
        kv_writes: combined.writes,
        events: combined.events,
        authored: combined.authored,
    }
}

/// Where the octets of a large message lie once it is decided; one that comes again isn't kept.
async fn placed(incoming: &mut Incoming, acceptance: &Acceptance) -> Result<Raw, StoreError> {
    if acceptance.outcome != MessageOutcome::Deferred {
        incoming.seal(acceptance.id, acceptance.head.clone()).await?;
    }
    incoming.raw()
}

/// As much of a header's text as a list shows.
fn clip(text: &str) -> String {
    text.chars().take(250).collect()
}
