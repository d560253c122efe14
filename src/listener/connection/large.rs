//! A large message doesn't lie in memory while it comes in: its octets are handed to the answerer as they come.
//!
//! Only what has come since the last time is held here, so that many large messages at once cost little memory, and none
//! of them has to be written all at once at its end.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::{Connection, Socket};
use crate::mail::Reply;

/// What comes in of a message between two times that it is handed on; a message shorter than this never is.
const PART: usize = 256 * 1024;

impl<S: Socket> Connection<'_, S> {
    /// Hands on what has come of the message, where that is much. Never cut short, as an answer isn't.
    pub(super) async fn hand_on(&mut self) {
        if self.session.handed_on() == 0 {
            // It was refused, or is another one.
            self.parts_are_given_up();
        }
        if self.session.to_hand_on() < PART {
            return;
        }
        let part = self.session.hand_on(PART + super::DATA_BUFFER);
        self.handed_on = true;
        let taking = AssertUnwindSafe(self.shared.parts.answerer.take_part(&mut self.visit, part));
        let taken = taking.catch_unwind().await.unwrap_or_else(|panic| {
            self.fault("a part of a message", panic.as_ref());
            Err(Reply::new(451, 3, 0, "Internal error, try again later"))
        });
        if let Err(reply) = taken {
            self.session.refuse_body(reply);
            self.reservation.release();
            self.parts_are_given_up();
        }
    }

    /// No message is coming in that parts were taken of, if any were.
    pub(super) fn parts_are_given_up(&mut self) {
        if std::mem::take(&mut self.handed_on) {
            self.shared.parts.answerer.give_up_parts(&mut self.visit);
        }
    }
}
