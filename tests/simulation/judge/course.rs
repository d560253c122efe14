//! The course of one delivery, as its message's trace tells it: attempts in order, each when the schedule says, one end.

use std::collections::BTreeMap;

use mailworker::event::{Attempted, Event, Kind};
use mailworker::store::MessageDetail;

use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::server::{EXPIRE, HOOK_WAITS, RELAY_WAITS};
use crate::world::BEGINNING;

/// Milliseconds that something may take which waits for nothing.
pub const SOON: u64 = 60_000;
/// The longest rest of a destination, and the longest that an endpoint asks for here.
const REST: u64 = 660_000;
const ASKED: u64 = 900_000;
/// After the storm rests and time-outs of before may last for so long.
const AFTERMATH: u64 = 45 * 60_000;

/// One delivery's attempts.
pub struct Course<'a> {
    attempts: Vec<(u64, &'a Attempted)>,
}

fn at(event: &Event) -> u64 {
    u64::try_from(event.at.since(BEGINNING).as_millis()).unwrap()
}

pub fn courses(row: &MessageDetail) -> Vec<Course<'_>> {
    let mut courses: BTreeMap<u32, Course<'_>> = BTreeMap::new();
    for event in &row.trace {
        if let Kind::Attempted(attempted) = &event.kind {
            let course = courses.entry(attempted.delivery).or_insert_with(|| Course { attempts: Vec::new() });
            course.attempts.push((at(event), attempted));
        }
    }
    courses.into_values().collect()
}

/// How often a notice was sent, or it was noted why none was.
pub fn notices(row: &MessageDetail) -> usize {
    let is_one = |event: &&Event| match &event.kind {
        Kind::NoticeSent { .. } | Kind::NoticeSuppressed { .. } => true,
        Kind::Attempted(attempted) => attempted.kind == "notice" && attempted.outcome == "failed",
        _ => false,
    };
    row.trace.iter().filter(is_one).count()
}

impl<'a> Course<'a> {
    fn last(&self) -> &'a Attempted {
        self.attempts[self.attempts.len() - 1].1
    }

    pub fn n(&self) -> u32 {
        self.last().delivery
    }

    pub fn kind(&self) -> &'a str {
        &self.last().kind
    }

    pub fn target(&self) -> &'a str {
        &self.last().target
    }

    pub fn is_delivered(&self) -> bool {
        self.last().outcome == "delivered"
    }

    pub fn is_dead(&self) -> bool {
        self.last().outcome == "failed"
    }

    pub fn judge(&self, row: &MessageDetail, ledger: &Ledger, plan: &Plan, found: &mut Vec<String>) {
        let name = format!("{} delivery {} ({} to {})", row.summary.id, self.n(), self.kind(), self.target());
        let received = u64::try_from(row.summary.received_at.since(BEGINNING).as_millis()).unwrap();
        for (index, (at, attempted)) in self.attempts.iter().enumerate() {
            if usize::try_from(attempted.attempt).unwrap() != index + 1 {
                found.push(format!("{name}: attempt {} comes as number {}", attempted.attempt, index + 1));
            }
            let is_last = index + 1 == self.attempts.len();
            // A notice's end is told by what became of it.
            let ended = self.kind() == "notice" && is_last;
            if is_last == (attempted.outcome == "later") && !ended {
                found.push(format!("settled twice or never: {name}: {} as number {}", attempted.outcome, index + 1));
            }
            if let Some(next) = attempted.next {
                let next = u64::try_from(next.since(BEGINNING).as_millis()).unwrap();
                self.schedule(&name, *at, attempted, next, received, found);
                if let Some((later, again)) = self.attempts.get(index + 1) {
                    let begun = later.saturating_sub(again.millis);
                    punctual(&name, next, begun, ledger, plan, found);
                }
            }
        }
        if self.is_dead() {
            self.death(&name, received, ledger, found);
        }
    }

    /// The next try is when the schedule says: its wait, spread by a tenth; or later, where a rest is longer.
    fn schedule(&self, name: &str, at: u64, attempted: &Attempted, next: u64, received: u64, found: &mut Vec<String>) {
        let waits = if self.kind() == "webhook" { &HOOK_WAITS } else { &RELAY_WAITS };
        let index = usize::try_from(attempted.attempt - 1).unwrap();
        let Some(wait) = waits.get(index).or(waits.last().filter(|_| self.kind() != "webhook")) else {
            return found.push(format!("{name}: a try after the last of its schedule"));
        };
        let (least, most) = (at + wait * 900, at + (wait * 1100).max(REST).max(ASKED));
        let expiry = if self.kind() == "webhook" { u64::MAX } else { received + EXPIRE * 1000 };
        if next + 1 < least.min(expiry) || next > most + 1 {
            found.push(format!("off schedule: {name}: attempt {} at {at}, the next {next}", attempted.attempt));
        }
    }

    /// Nobody is given up without a reason.
    fn death(&self, name: &str, received: u64, ledger: &Ledger, found: &mut Vec<String>) {
        let (at, last) = self.attempts[self.attempts.len() - 1];
        let age = at.saturating_sub(received);
        let is_due = match self.kind() {
            "relay" => ledger.refused.contains(self.target()) || age >= EXPIRE * 1000,
            "webhook" => {
                usize::try_from(last.attempt).unwrap() > HOOK_WAITS.len()
                    || age >= HOOK_WAITS.iter().sum::<u64>() * 1000
                    || !ledger.gone.is_empty()
            }
            _ => age >= EXPIRE * 1000,
        };
        if !is_due {
            found.push(format!(
                "given up: {name} after {} attempts and {} s: {}",
                last.attempt,
                age / 1000,
                last.answer
            ));
        }
    }
}

/// Not before it was due; and once all is well, not long after it.
fn punctual(name: &str, due: u64, begun: u64, ledger: &Ledger, plan: &Plan, found: &mut Vec<String>) {
    if begun + 1 < due {
        found.push(format!("too soon: {name}: due at {due}, tried at {begun}"));
    }
    let served = ledger.up.iter().any(|(from, until)| *from <= due && until.is_none_or(|until| begun <= until));
    if due > plan.calm_from + AFTERMATH && served && begun > due + SOON {
        found.push(format!("too late: {name}: due at {due}, tried at {begun}"));
    }
}
