//! A large message: to the disk while it comes in, and into memory as a whole only while it is decided.
//!
//! Input: its parts, in order, from the listener; then its transaction, with the last of it. How many are in memory at a
//! time is bounded by the store (`Raw::whole`).

use bytes::Bytes;

use super::{Intake, PATIENCE, Trouble, Visit};
use crate::clock;
use crate::event::{Event, Kind};
use crate::mail::Reply;
use crate::store::{Incoming, StoreError};

impl Intake {
    /// Takes the next octets of a message that is coming in.
    ///
    /// # Errors
    /// What the sender is told at the message's end; nothing of it is kept.
    pub async fn take_part(&self, visit: &mut Visit, octets: Vec<u8>) -> Result<(), Reply> {
        let incoming = visit.incoming.get_or_insert_with(|| self.store.incoming());
        let Err(error) = incoming.push(octets).await else { return Ok(()) };
        visit.incoming = None;
        match error {
            StoreError::Full(_) => Err(Reply::new(452, 3, 1, "Not enough space here for more mail; try again later")),
            error => {
                let fault = Kind::Fault { what: "take a large message in".into(), detail: error.to_string() };
                self.bus.publish(Event::new(clock::now(), fault).in_session(visit.session));
                Err(Reply::new(451, 3, 0, "Something failed here, try again later"))
            }
        }
    }

    /// No message will be asked about that these parts belong to.
    pub fn give_up_parts(&self, visit: &mut Visit) {
        visit.incoming = None;
    }

    /// All of it once more.
    pub(super) async fn again(&self, incoming: &Incoming) -> Result<Bytes, Trouble> {
        Ok(tokio::time::timeout(PATIENCE, incoming.raw()?.whole()).await.map_err(|_| Trouble::TooBusy)??)
    }

    /// The message as a whole, and what the disk has of it where it is large.
    pub(super) async fn whole(
        &self,
        visit: &mut Visit,
        rest: Bytes,
        handed_on: u64,
    ) -> Result<(Bytes, Option<Incoming>), Trouble> {
        let incoming = visit.incoming.take().filter(|_| handed_on > 0);
        let Some(mut incoming) = incoming else {
            return if handed_on == 0 { Ok((rest, None)) } else { Err(Trouble::Parts) };
        };
        if incoming.size() != handed_on {
            return Err(Trouble::Parts);
        }
        if !rest.is_empty() {
            incoming.push(rest).await?;
        }
        let raw = incoming.raw()?;
        let whole = tokio::time::timeout(PATIENCE, raw.whole()).await.map_err(|_| Trouble::TooBusy)??;
        Ok((whole, Some(incoming)))
    }
}
