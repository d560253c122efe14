//! What a destination's trouble comes to for a delivery that wasn't tried by itself. Pure.
//!
//! Where nothing gets through, one attempt stands for all that were due then (RFC 5321 §4.5.4.1: a site that is down is
//! not tried for each message), so that each keeps its schedule, its notices and its end. Where a destination asks for
//! less, what waits is put off and nothing is counted, but for what has waited too long.

use std::time::Duration;

use super::{Account, Judge, Relayed, correct_next, postponed};
use crate::delivery::dispatcher::destination::Resting;
use crate::delivery::relay::Extent;
use crate::mail::Timestamp;
use crate::store::{Delivery, Settled, Settlement, Task};

impl Judge<'_> {
    /// `was_due`: it waited for the destination when the trouble came.
    pub(in crate::delivery::dispatcher) fn rested(
        &self,
        delivery: &Delivery,
        resting: &Resting,
        was_due: bool,
    ) -> Settlement {
        // All at the same moment, of which one lane makes one attempt: what it meets then is met by all of them.
        let until = self.until_expiry(delivery, resting.until);
        let trouble = &resting.trouble;
        let counts = was_due && (trouble.extent == Extent::Unreachable || self.is_old(delivery));
        if !counts && !self.is_overdue(delivery) {
            return postponed(delivery.key, until);
        }
        let (answer, status) = (trouble.failure.detail.clone(), trouble.failure.status.clone());
        let account = Account { host: trouble.host.clone(), answer, tls: None, status };
        let mut settlement = self.failed(delivery, &trouble.failure, account);
        if let Task::Relay(task) = &delivery.task {
            let by = Relayed { peer: trouble.host.clone(), tls: None, passes_dsn: false };
            let notices = self.notices(delivery, task, &trouble.failure, &by, &mut settlement.result);
            settlement.then.extend(notices);
        }
        if let Settled::Later { due, .. } = &mut settlement.result {
            *due = (*due).max(until);
            let next = *due;
            correct_next(&mut settlement.events, next);
        }
        settlement
    }

    /// `at`, or when its time is up, if that is sooner and yet to come.
    fn until_expiry(&self, delivery: &Delivery, at: Timestamp) -> Timestamp {
        let expiry = delivery.queued_at.plus(self.config.relay.expire);
        if matches!(delivery.task, Task::Webhook(_)) || expiry <= self.now { at } else { at.min(expiry) }
    }

    /// A rest may last longer than it has left, or than its sender is to wait for word of it.
    fn is_overdue(&self, delivery: &Delivery) -> bool {
        let Task::Relay(task) = &delivery.task else { return false };
        let age = self.now.since(delivery.queued_at);
        age >= self.config.relay.expire || (!delivery.delay_noticed && self.is_delayed(delivery, task.notify))
    }

    /// A webhook has a number of tries, not an age; one that never has its turn is counted from when they would be over.
    fn is_old(&self, delivery: &Delivery) -> bool {
        let schedule: Duration = self.config.webhook_defaults.retry.iter().sum();
        matches!(delivery.task, Task::Webhook(_)) && self.now.since(delivery.queued_at) >= schedule
    }
}
