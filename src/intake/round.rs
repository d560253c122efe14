//! The recipients of one message in turn: each run sees what the ones before it wrote.
//!
//! Goes on for as long as its thread's turn lasts, and later where it stopped, so that messages of others come between.
//! Whoever isn't reached in time is put off, as if its run had failed. Blocks: called where blocking is allowed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::decide::{Case, Judged, decide};
use super::overlay::Overlay;
use crate::clock::Instant;
use crate::mail::Recipient;
use crate::rules::{KvView, Lent};

/// For all recipients of one message together, from its last octet on: the sender waits for the answer (RFC 5321
/// §4.5.3.2.6), and an answer that comes late makes duplicates (RFC 1047 §2).
pub(super) const DECIDING: Duration = Duration::from_secs(30);

/// Octets of mail that the workers of one message write before its further recipients are put off: one run writes no
/// more than that much again.
const MOST_WRITTEN: usize = 16 << 20;

/// How far it has come.
pub(super) struct Round {
    run: u32,
    view: KvView,
    reach: Lent,
    /// With a single recipient there is nothing to lay over the keys.
    overlay: Option<Arc<Overlay>>,
    judged: Vec<Judged>,
    /// The mailboxes among them, each where it was judged first.
    known: HashMap<String, usize>,
}

impl Round {
    pub(super) fn new(case: &Case, kv: KvView, reach: Lent, run: u32) -> Self {
        let overlay = (case.envelope.recipients.len() > 1).then(|| Arc::new(Overlay::new(Arc::clone(&kv))));
        let view = overlay.clone().map_or(kv, |overlay| overlay as KvView);
        let judged = Vec::with_capacity(case.envelope.recipients.len());
        Self { run, view, reach, overlay, judged, known: HashMap::new() }
    }

    pub(super) fn has_begun(&self) -> bool {
        !self.judged.is_empty()
    }

    pub(super) fn judged(self) -> Vec<Judged> {
        self.judged
    }

    /// At least one recipient, then as many as there is time for until `pause`. True: all are decided. Whoever's turn
    /// doesn't come before `latest` is put off; the first one always has its run.
    pub(super) fn go_on(&mut self, case: &Case, pause: Instant, latest: Instant) -> bool {
        while let Some(recipient) = case.envelope.recipients.get(self.judged.len()) {
            let first = self.first_of_the_same(case, recipient);
            let judged = match first.and_then(|first| self.judged.get(first)) {
                Some(first) => first.again(case, recipient),
                None if self.has_begun() && Instant::now() >= latest => {
                    Judged::of(case, recipient).put_off(case, "the time for one message")
                }
                None if self.has_begun() && self.is_full() => {
                    Judged::of(case, recipient).put_off(case, "the mail that one message may cause")
                }
                None => self.run(case, recipient),
            };
            self.judged.push(judged);
            if Instant::now() >= pause && Instant::now() < latest {
                break;
            }
        }
        self.judged.len() >= case.envelope.recipients.len()
    }

    /// Where the earlier recipient stands that is the same mailbox.
    fn first_of_the_same(&mut self, case: &Case, recipient: &Recipient) -> Option<usize> {
        self.overlay.as_ref()?;
        match self.known.entry(case.snapshot.config.mailbox_key(&recipient.address)) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(place) => {
                place.insert(self.judged.len());
                None
            }
        }
    }

    /// There is no time left for the others.
    pub(super) fn put_off_the_rest(&mut self, case: &Case) {
        let now = Instant::now();
        let _all_of_them = self.go_on(case, now, now);
    }

    fn run(&self, case: &Case, recipient: &Recipient) -> Judged {
        let mut judged = decide(case, recipient, &self.view, &self.reach, self.run);
        if let Some(overlay) = &self.overlay {
            judged.reads = overlay.settle_reads(std::mem::take(&mut judged.reads));
            overlay.add(&judged.writes);
        }
        judged
    }

    /// Whether its workers have written as much as is held in memory for one message.
    fn is_full(&self) -> bool {
        let authored = self.judged.iter().flat_map(|judged| &judged.authored);
        authored.map(|mail| mail.body.len()).sum::<usize>() >= MOST_WRITTEN
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::clock;
    use crate::config::Config;
    use crate::config::load::Options;
    use crate::intake::Snapshot;
    use crate::intake::decide::Fate;
    use crate::kv::{self, Page, View, ViewError};
    use crate::mail::{Address, BodyKind, Client, Envelope, Message, Timestamp};
    use crate::rules::{Bindings, Release, SessionFacts};

    struct Empty;
    impl View for Empty {
        fn get(&self, _: &str, _: &str, _: Timestamp) -> Result<Option<kv::Entry>, ViewError> {
            Ok(None)
        }
        fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<Page, ViewError> {
            Ok(Page { keys: Vec::new(), cursor: None })
        }
    }

    fn case(recipients: &[&str]) -> Case {
        let text = "[[domain]]\nname = \"example.com\"\npostmaster = \"a@example.net\"";
        let config = Config::from_toml(text, "mailworker.toml", Path::new("/"), &Options::default()).unwrap().config;
        let mains = config.rules_mains();
        let worker = "fn email(message, env, ctx) { message.store(); }".to_owned();
        let sources = mains.iter().map(|main| (main.clone(), worker.clone())).collect();
        let (release, _) = Release::compile(&sources, &mains, Bindings::default()).unwrap();
        let recipients = recipients.iter().map(|to| Recipient::new(Address::parse(to).unwrap())).collect();
        let envelope =
            Envelope { sender: None, recipients, smtputf8: false, body: BodyKind::SevenBit, ret: None, envid: None };
        let client = Client {
            ip: std::net::Ipv4Addr::LOCALHOST.into(),
            port: 1,
            listener: "127.0.0.1:25".into(),
            helo: None,
            esmtp: true,
            tls: None,
            ptr: None,
            auth: None,
            origin: crate::mail::Origin::default(),
        };
        let now = Timestamp::default();
        Case {
            id: clock::message_id(now),
            received_at: now,
            snapshot: Arc::new(Snapshot::new(Arc::new(config), Arc::new(release))),
            envelope,
            facts: Arc::new(SessionFacts { client, sender: None, notes: BTreeMap::new() }),
            message: Arc::new(Message::new(bytes::Bytes::from_static(b"Subject: x\r\n\r\nhi\r\n"))),
            seed: crate::rules::Seed::default(),
            told: None,
            is_judged_again: false,
        }
    }

    fn fates(round: Round) -> Vec<bool> {
        round.judged().into_iter().map(|judged| judged.fate == Fate::Accept).collect()
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_mins(10)
    }

    #[test]
    fn who_has_no_turn_in_time_is_put_off_and_the_first_always_has_one() {
        let case = case(&["a@example.com", "b@example.com", "c@example.com"]);
        let mut round = Round::new(&case, Arc::new(Empty), Lent::default(), 1);
        assert!(round.go_on(&case, Instant::now(), Instant::now()));
        assert_eq!(fates(round), [true, false, false]);
    }

    #[test]
    fn it_pauses_after_a_recipient_and_goes_on_with_the_next() {
        let case = case(&["a@example.com", "b@example.com", "c@example.com", "d@example.com"]);
        let mut round = Round::new(&case, Arc::new(Empty), Lent::default(), 1);
        assert!(!round.has_begun());
        assert!(!round.go_on(&case, Instant::now(), far()));
        assert!(!round.go_on(&case, Instant::now(), far()));
        assert!(round.has_begun());
        round.put_off_the_rest(&case);
        assert_eq!(fates(round), [true, true, false, false]);
        let mut round = Round::new(&case, Arc::new(Empty), Lent::default(), 1);
        assert!(round.go_on(&case, far(), far()));
        assert_eq!(fates(round), [true; 4]);
    }

    #[test]
    fn a_domain_that_is_gone_is_decided_by_no_other_ones_worker() {
        let case = case(&["a@gone.example", "b@example.com"]);
        let mut round = Round::new(&case, Arc::new(Empty), Lent::default(), 1);
        assert!(round.go_on(&case, far(), far()));
        let [gone, ours] = round.judged().try_into().unwrap();
        assert!(matches!(gone.fate, Fate::Defer(_)) && ours.fate == Fate::Accept, "{gone:?}");
    }
}
