//! All that takes the processor: fingerprint, parsing, the worker's runs. Where it is short at once, else on a thread that
//! may block.
//!
//! Input: a [`Case`]. Output: a [`Judgement`], which commits nothing yet.

use std::sync::Arc;

use super::decide::{self, Case, Judged};
use super::under_way::{Mark, UnderWay};
use super::{Intake, Trouble, clip, headers, in_place};
use crate::mail::{MessageId, Reply};
use crate::store::Store;

/// What a message comes to.
pub(super) enum Judgement {
    /// Not to be taken, whoever it is for: it loops, or it is being taken already.
    Refused(Reply),
    Resent {
        original: MessageId,
        fingerprint: [u8; 16],
    },
    Verdicts(Verdicts),
}

pub(super) struct Verdicts {
    pub judged: Vec<Judged>,
    pub subject: Option<String>,
    pub header_from: Option<String>,
}

impl Intake {
    /// Judges, and leaves `mark` for as long as the message is under way. A further run begins with the first one's.
    pub(super) async fn judge(
        &self,
        case: &Arc<Case>,
        run: u32,
        mark: &mut Option<Mark>,
    ) -> Result<Judgement, Trouble> {
        if let Some(done) = self.judge_in_place(case, run, mark) {
            return done;
        }
        let _permit = Arc::clone(&self.runs).acquire_owned().await.map_err(|_| Trouble::Closing)?;
        let (case, kv, store) = (Arc::clone(case), self.store.kv(), self.store.clone());
        let (under_way, marked) = (self.under_way.clone(), mark.take());
        let task = tokio::task::spawn_blocking(move || {
            let marked = match marked.map_or_else(|| looked_at(&case, &store, &under_way), Ok) {
                Ok(marked) => marked,
                Err(judgement) => return (None, judgement),
            };
            (Some(marked), verdicts(&case, decide::decide_all(&case, &kv, run, decide::DECIDING)))
        });
        // A panic stays on that thread; the message is the sender's still.
        let (marked, judgement) = task.await.map_err(|error| Trouble::Panic(error.to_string()))?;
        *mark = marked;
        Ok(judgement)
    }

    /// A small message for one recipient, whose worker decides in a moment.
    fn judge_in_place(&self, case: &Case, run: u32, mark: &mut Option<Mark>) -> Option<Result<Judgement, Trouble>> {
        let [only] = case.envelope.recipients.as_slice() else { return None };
        if case.message.raw().len() > in_place::SMALL {
            return None;
        }
        let judged = self.in_place.attempt(|patience| {
            if mark.is_none() {
                match looked_at(case, &self.store, &self.under_way) {
                    Ok(marked) => *mark = Some(marked),
                    Err(judgement) => return Some(judgement),
                }
            }
            let judged = decide::decide_within(patience, case, only, &self.store.kv(), run)?;
            Some(verdicts(case, vec![judged]))
        });
        judged.map(|judged| judged.map_err(Trouble::Panic))
    }
}

/// Marks the message as under way; or what becomes of it before a worker is asked.
fn looked_at(case: &Case, store: &Store, under_way: &UnderWay) -> Result<Mark, Judgement> {
    if let Some(reply) = headers::refusal(case) {
        return Err(Judgement::Refused(reply));
    }
    let fingerprint = headers::fingerprint(&case.envelope, case.message.raw());
    if let Some(original) = store.take_unread(&fingerprint) {
        return Err(Judgement::Resent { original, fingerprint });
    }
    under_way.begin(case.facts.client.ip, fingerprint).ok_or_else(|| {
        let text = format!("This message is being received already, try again later ({})", case.id);
        Judgement::Refused(Reply::new(451, 3, 0, text))
    })
}

fn verdicts(case: &Case, judged: Vec<Judged>) -> Judgement {
    let subject = case.message.subject().map(|subject| clip(&subject));
    let header_from = case.message.header_from().map(|from| clip(&from));
    Judgement::Verdicts(Verdicts { judged, subject, header_from })
}
