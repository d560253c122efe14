//! All that takes the processor: fingerprint, parsing, the worker's runs. Where it is short at once, else on a thread that
//! may block.
//!
//! Input: a [`Case`]. Output: a [`Judgement`], which commits nothing yet.

use std::sync::Arc;
use std::time::Duration;

use super::decide::{self, Case, Judged};
use super::errand::Errand;
use super::round::{DECIDING, Round};
use super::under_way::{Mark, UnderWay};
use super::{Intake, PATIENCE, Trouble, clip, headers, in_place, too_busy};
use crate::aside;
use crate::clock::Instant;
use crate::mail::{MessageId, Reply};
use crate::store::Store;

/// How long a message of several recipients keeps its turn.
const SLICE: Duration = Duration::from_millis(100);

/// What a message comes to.
pub(super) enum Judgement {
    /// Not to be taken, whoever it is for: it loops, it is being taken already, there is no time for it.
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
    /// `since`: when the message was received, from which all its time counts. What its runs ask outside is kept with `errand`.
    pub(super) async fn judge(
        &self,
        case: &Arc<Case>,
        run: u32,
        since: Instant,
        (mark, errand): (&mut Option<Mark>, &mut Option<Arc<Errand>>),
    ) -> Result<Judgement, Trouble> {
        if let Some(done) = self.judge_in_place(case, run, mark) {
            return done;
        }
        let (client, latest) = (case.facts.client.ip, since + DECIDING);
        let Some(mut turn) = self.turns.take(client, since + PATIENCE).await else {
            return Ok(Judgement::Refused(too_busy()));
        };
        let errand = errand.get_or_insert_with(|| Errand::new(&self.ways, &self.turns, &case.snapshot.config, client));
        let mut round = Round::new(case, self.store.kv(), errand.lent(), run);
        loop {
            let (store, under_way) = (self.store.clone(), self.under_way.clone());
            let (case_there, marked, errand) = (Arc::clone(case), mark.take(), Arc::clone(errand));
            let task = aside::run(move || {
                let look = || looked_at(&case_there, &store, &under_way);
                errand.within(turn, || step(&case_there, marked, round, latest, look))
            });
            // A panic stays on that thread; the message is the sender's still.
            match task.await.map_err(|error| Trouble::Panic(error.to_string()))? {
                Step::Done(judgement, marked) => {
                    *mark = marked;
                    return Ok(judgement);
                }
                Step::Paused(so_far, marked) => (round, *mark) = (so_far, Some(marked)),
            }
            if let Some(next) = self.turns.take(client, latest).await {
                turn = next;
            } else {
                round.put_off_the_rest(case);
                return Ok(verdicts(case, round.judged()));
            }
        }
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

/// What one turn came to.
enum Step {
    Done(Judgement, Option<Mark>),
    Paused(Round, Mark),
}

/// As much of the round as one turn has time for.
fn step(
    case: &Case,
    marked: Option<Mark>,
    mut round: Round,
    latest: Instant,
    look: impl FnOnce() -> Result<Mark, Judgement>,
) -> Step {
    match marked.map_or_else(look, Ok) {
        Err(judgement) => Step::Done(judgement, None),
        Ok(mark) if round.go_on(case, Instant::now() + SLICE, latest) => {
            Step::Done(verdicts(case, round.judged()), Some(mark))
        }
        Ok(mark) => Step::Paused(round, mark),
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
