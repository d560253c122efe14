//! Between the listener's visits and intake's, and between delivery's second runs and intake's.
//!
//! Input: questions, tasks, what an admin asks for. Output: intake's answers, in the words of who asked.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::admin::api::{ReplayOf, Replayed, TriggerOf, Triggered};
use crate::admin::control::Redecide;
use crate::clock;
use crate::config::Config;
use crate::delivery::{self, Decide, Decided};
use crate::dns::Dns;
use crate::event::Bus;
use crate::intake::decide::Fate;
use crate::intake::{self, Anew, Current, Intake, Ran};
use crate::listener::{Answerer, End, Visit};
use crate::mail::{Address, Reply};
use crate::reach::Outside;
use crate::rules::Happening;
use crate::smtp::{Answer, Closed, Question};
use crate::store::{self, DecideTask, Decider, DeliveryKey, Keep, Store, StoreError, TellTask};

/// Between the listener's visits and intake's, and between delivery's second runs and intake's.
pub struct Answering {
    pub intake: Intake,
    current: Current,
}

impl Answering {
    #[must_use]
    pub fn new(store: &Store, bus: &Bus, current: &Current, dns: &Arc<Dns>, outside: Option<Arc<Outside>>) -> Self {
        let intake = Intake::new(store.clone(), bus.clone(), current.clone(), Arc::clone(dns), outside);
        Self { intake, current: current.clone() }
    }
}

impl Answerer for Answering {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.current.load().config)
    }

    fn open(&self, visit: &mut Visit) -> Arc<Config> {
        let own = self.intake.open(visit.session);
        let config = own.config();
        visit.put(own);
        config
    }

    fn answer<'a>(&'a self, visit: &'a mut Visit, question: Question) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let (client, acknowledged) = (visit.client.clone(), visit.acknowledged);
            let Some(own) = visit.own_mut::<intake::Visit>() else {
                return Answer::Reply(Reply::new(451, 3, 0, "Something failed here, try again later"));
            };
            if acknowledged {
                self.intake.acknowledged(own);
            }
            self.intake.answer(own, &client, question).await
        })
    }

    fn said(&self, visit: &mut Visit) {
        if let Some(own) = visit.own_mut::<intake::Visit>() {
            self.intake.said(own);
        }
    }

    fn take_part<'a>(&'a self, visit: &'a mut Visit, octets: Vec<u8>) -> BoxFuture<'a, Result<(), Reply>> {
        Box::pin(async move {
            match visit.own_mut::<intake::Visit>() {
                Some(own) => self.intake.take_part(own, octets).await,
                None => Err(Reply::new(451, 3, 0, "Something failed here, try again later")),
            }
        })
    }

    fn give_up_parts(&self, visit: &mut Visit) {
        if let Some(own) = visit.own_mut::<intake::Visit>() {
            self.intake.give_up_parts(own);
        }
    }

    fn closed(&self, visit: &mut Visit, end: &End) {
        let has_read = visit.acknowledged || *end == End::Closed(Closed::Quit);
        if let Some(own) = visit.own_mut::<intake::Visit>() {
            self.intake.closed(own, has_read);
        }
    }
}

impl Decide for Answering {
    fn decide(&self, key: DeliveryKey, body: Arc<store::Body>, task: DecideTask) -> delivery::Deciding<'_> {
        Box::pin(async move {
            match self.intake.decide_again(key, &body, task).await {
                Ok(judged) => decided(judged),
                Err(error) => Decided::Later { error, events: Vec::new() },
            }
        })
    }

    fn hears(&self, by: Option<&Decider>, recipient: &Address, delivered: bool) -> bool {
        self.intake.hears(by, recipient, if delivered { Happening::Delivered } else { Happening::Failed })
    }

    fn tell(&self, key: DeliveryKey, task: TellTask) -> delivery::Deciding<'_> {
        Box::pin(async move {
            match self.intake.tell(key, task).await {
                Ok(intake::Told { failed: Some(error), events, .. }) => Decided::Later { error, events },
                Ok(told) => Decided::Done {
                    deliveries: told.deliveries,
                    authored: Vec::new(),
                    quarantined: false,
                    keep: None,
                    kv_reads: told.reads,
                    kv_writes: told.writes,
                    events: told.events,
                },
                Err(error) => Decided::Later { error, events: Vec::new() },
            }
        })
    }
}

impl Redecide for Answering {
    fn trigger(&self, asked: TriggerOf) -> BoxFuture<'_, Result<Triggered, StoreError>> {
        Box::pin(async move {
            let at = asked.time.unwrap_or_else(clock::now);
            let Ran { id, failed, deliveries, mails, events } = self.intake.trigger(&asked.cron, at).await?;
            Ok(Triggered { id: Some(id), deliveries: deliveries as u64, mails: mails as u64, failed, events })
        })
    }

    fn redecide(&self, asked: ReplayOf) -> BoxFuture<'_, Result<Replayed, StoreError>> {
        Box::pin(async move {
            let Anew { deliveries, refused, events } = self.intake.decide_anew(asked.id, asked.known).await?;
            Ok(Replayed { deliveries, refused, events })
        })
    }
}

/// A second run's outcome, as delivery settles it.
fn decided(judged: intake::decide::Judged) -> Decided {
    match &judged.fate {
        Fate::Accept => Decided::Done {
            deliveries: judged.deliveries,
            authored: judged.authored,
            quarantined: judged.outcome == store::MessageOutcome::Quarantined,
            keep: Some(Keep { until: judged.keep_until, mailbox: judged.mailbox })
                .filter(|keep| *keep != Keep::default()),
            kv_reads: judged.reads,
            kv_writes: judged.writes,
            events: judged.events,
        },
        // The sender has read 250 long since: a notice is the only way left to tell it.
        Fate::Reject(reply) => Decided::Done {
            deliveries: vec![intake::notice(&judged.recipient, reply, clock::now())],
            authored: Vec::new(),
            quarantined: false,
            keep: None,
            kv_reads: judged.reads,
            kv_writes: judged.writes,
            events: judged.events,
        },
        Fate::Defer(reply) => Decided::Later { error: reply.to_string(), events: judged.events },
    }
}
