//! One message over one connection: MAIL, RCPT for each recipient, DATA, content; and each recipient's own answer.
//!
//! Pipelined where offered (RFC 2920): envelope and DATA in one write. Standards: RFC 5321 §3.3, §4.2; RFC 2033 (LMTP).

use std::time::Duration;

use crate::config::RelayTimeouts;
use crate::delivery::{Failure, Side};
use crate::mail::Reply;

use super::connection::Connection;
use super::letter::{Letter, Stuffed};
use super::reply::{is_done, refused};

/// Content is gathered up to this many octets before it is written; a longer slice is written as it lies.
const WRITE: usize = 64 * 1024;
/// After a write broke: how long the peer's last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What became of it.
#[derive(Debug)]
pub struct Sent {
    /// For each recipient, in order.
    pub results: Vec<Result<Reply, Failure>>,
    /// Why the connection is good for nothing more.
    pub broken: Option<Failure>,
    /// The content's end was sent: the peer may have taken the message, whatever came after.
    pub content_sent: bool,
    /// MAIL was answered: the peer has heard of the message.
    pub begun: bool,
    /// The whole transaction was refused, at MAIL or DATA.
    pub refused: Option<Failure>,
}

/// Carries `letter` over `connection`.
pub async fn send(connection: &mut Connection, letter: &Letter, limits: &RelayTimeouts) -> Sent {
    let utf8 = letter.needs_utf8();
    if let Some(unfit) = unfit(connection, letter, utf8) {
        let results = letter.recipients.iter().map(|_| Err(unfit.clone())).collect();
        return Sent { results, broken: None, content_sent: false, begun: false, refused: None };
    }
    let results = letter.recipients.iter().map(|_| None).collect();
    let mut exchange =
        Exchange { connection, letter, utf8, limits, results, content_sent: false, begun: false, refused: None };
    let broken = exchange.run().await.err();
    let unanswered = broken.clone().unwrap_or_else(|| Failure::later(Side::Ours, "4.3.0", "no answer was read"));
    let results = exchange.results.into_iter().map(|result| result.unwrap_or_else(|| Err(unanswered.clone())));
    let (content_sent, begun, refused) = (exchange.content_sent, exchange.begun, exchange.refused);
    Sent { results: results.collect(), broken, content_sent, begun, refused }
}

/// What the next hop can't take, known before anything is said.
fn unfit(connection: &Connection, letter: &Letter, utf8: bool) -> Option<Failure> {
    let peer = &connection.peer;
    // RFC 6531 §3.2 (5.6.7 by RFC 5248): never down-graded on the way.
    if utf8 && !connection.offers.utf8 {
        return Some(Failure::never(
            Side::Remote,
            "5.6.7",
            format!("{peer} doesn't offer SMTPUTF8, which the message needs"),
        ));
    }
    let size = letter.content.size();
    let limit = connection.offers.size.filter(|limit| *limit > 0)?;
    // RFC 1870 §6.1
    (u64::try_from(size).unwrap_or(u64::MAX) > limit)
        .then(|| Failure::never(Side::Remote, "5.3.4", format!("{peer} takes {limit} octets, the message has {size}")))
}

struct Exchange<'a> {
    connection: &'a mut Connection,
    letter: &'a Letter,
    /// It goes by SMTPUTF8, which the server offers.
    utf8: bool,
    limits: &'a RelayTimeouts,
    results: Vec<Option<Result<Reply, Failure>>>,
    content_sent: bool,
    begun: bool,
    refused: Option<Failure>,
}

impl Exchange<'_> {
    /// Errors where the connection broke.
    async fn run(&mut self) -> Result<(), Failure> {
        self.connection.carried += 1;
        let data = if self.connection.offers.pipelining { self.pipelined().await? } else { self.stepwise().await? };
        let Some(data) = data else { return Ok(()) };
        if data.code == 354 {
            return self.content().await;
        }
        self.connection.dirty = true;
        // RFC 5321 §4.3.2: DATA is answered by 354, 4xx or 5xx; what else it is answers another command.
        let out_of_step = data.code < 400;
        let failure = refused(data, "DATA", &self.connection.peer);
        // Where no recipient was taken it only follows from that.
        self.refused =
            self.refused.take().or_else(|| self.results.iter().any(Option::is_none).then(|| failure.clone()));
        self.settle_rest(&Err(failure.clone()));
        if out_of_step { Err(failure) } else { Ok(()) }
    }

    /// The whole envelope and DATA in one write; the reply to DATA.
    async fn pipelined(&mut self) -> Result<Option<Reply>, Failure> {
        let mut wire = Vec::with_capacity(256);
        let reset = std::mem::take(&mut self.connection.dirty);
        if reset {
            wire.extend_from_slice(b"RSET\r\n");
        }
        self.letter.mail(&self.connection.offers, self.utf8, &mut wire);
        for recipient in &self.letter.recipients {
            recipient.write(&self.connection.offers, self.utf8, &mut wire);
        }
        wire.extend_from_slice(b"DATA\r\n");
        self.connection.send(&wire, "MAIL FROM", self.limits.command).await?;
        if reset {
            self.answer("RSET", self.limits.command).await?;
        }
        let mail = self.answer("MAIL FROM", self.limits.command).await?;
        self.begun = true;
        let begun = is_done(&mail);
        if !begun {
            // Whatever is said of the rest, or if nothing more is: this is why.
            self.refuse_all(mail);
        }
        for index in 0..self.letter.recipients.len() {
            let reply = self.answer("RCPT TO", self.limits.command).await?;
            if begun {
                self.recipient_answered(index, reply);
            }
        }
        self.data_answer().await.map(Some)
    }

    /// One command at a time (RFC 2920 isn't offered); `None` where DATA was not reached.
    async fn stepwise(&mut self) -> Result<Option<Reply>, Failure> {
        let mut wire = Vec::with_capacity(256);
        if std::mem::take(&mut self.connection.dirty) {
            self.command(b"RSET\r\n", "RSET").await?;
        }
        self.letter.mail(&self.connection.offers, self.utf8, &mut wire);
        let mail = self.command(&wire, "MAIL FROM").await?;
        self.begun = true;
        if !is_done(&mail) {
            self.connection.dirty = true;
            self.refuse_all(mail);
            return Ok(None);
        }
        for (index, recipient) in self.letter.recipients.iter().enumerate() {
            wire.clear();
            recipient.write(&self.connection.offers, self.utf8, &mut wire);
            let reply = self.command(&wire, "RCPT TO").await?;
            self.recipient_answered(index, reply);
        }
        if self.results.iter().all(Option::is_some) {
            self.connection.dirty = true;
            return Ok(None);
        }
        self.connection.send(b"DATA\r\n", "DATA", self.limits.command).await?;
        self.data_answer().await.map(Some)
    }

    async fn content(&mut self) -> Result<(), Failure> {
        if self.results.iter().all(Option::is_some) {
            // RFC 2920 §3.1: the server said 354 though it took no recipient: an empty message, whose answer says no.
            self.connection.send(b".\r\n", "the end of data", self.limits.data).await?;
            if self.connection.lmtp {
                // RFC 2033 §4.2 gives no answer for no recipient; there is no telling what comes next.
                return Err(self.connection.broken("read after", "the end of data", "354 without a recipient"));
            }
            self.answer("the end of data", self.limits.data_end).await?;
            return Ok(());
        }
        if let Err(failure) = self.write_content().await {
            // A server that has seen enough often says why before it closes.
            let last_words = self.connection.receive("the content", LAST_WORDS).await;
            let said = last_words.ok().filter(|reply| !reply.is_positive());
            return Err(said.map_or(failure, |reply| refused(reply, "the content", &self.connection.peer)));
        }
        self.content_sent = true;
        if !self.connection.lmtp {
            let reply = self.answer("the end of data", self.limits.data_end).await?;
            let result = self.judged(reply, "the end of data");
            self.settle_rest(&result);
            return Ok(());
        }
        for index in 0..self.results.len() {
            if self.results.get(index).is_some_and(Option::is_none) {
                let reply = self.answer("the end of data", self.limits.data_end).await?;
                let result = self.judged(reply, "the end of data");
                self.settle(index, result);
            }
        }
        Ok(())
    }

    async fn write_content(&mut self) -> Result<(), Failure> {
        let mut gathered = Vec::with_capacity(self.letter.content.size().min(WRITE) + 64);
        for slice in Stuffed::new(&self.letter.content) {
            if gathered.len() + slice.len() > WRITE && !gathered.is_empty() {
                self.connection.send(&gathered, "the content", self.limits.data).await?;
                gathered.clear();
            }
            if slice.len() > WRITE {
                for block in slice.chunks(4 * WRITE) {
                    self.connection.send(block, "the content", self.limits.data).await?;
                }
            } else {
                gathered.extend_from_slice(slice);
            }
        }
        self.connection.send(&gathered, "the content", self.limits.data).await
    }

    async fn command(&mut self, wire: &[u8], phase: &str) -> Result<Reply, Failure> {
        self.connection.send(wire, phase, self.limits.command).await?;
        self.answer(phase, self.limits.command).await
    }

    /// A reply; 421 is the connection's end, whatever it answers (RFC 5321 §3.8), and so is a 3xx: it waits for
    /// something that doesn't come, and took nothing.
    async fn answer(&mut self, phase: &str, limit: Duration) -> Result<Reply, Failure> {
        let reply = self.connection.receive(phase, limit).await?;
        let ends = reply.code == 421 || (300..400).contains(&reply.code);
        if ends { Err(refused(reply, phase, &self.connection.peer)) } else { Ok(reply) }
    }

    /// The reply to DATA, of which alone 354 is the answer hoped for.
    async fn data_answer(&mut self) -> Result<Reply, Failure> {
        let reply = self.connection.receive("DATA", self.limits.data).await?;
        if reply.code == 421 { Err(refused(reply, "DATA", &self.connection.peer)) } else { Ok(reply) }
    }

    fn judged(&self, reply: Reply, phase: &str) -> Result<Reply, Failure> {
        if is_done(&reply) { Ok(reply) } else { Err(refused(reply, phase, &self.connection.peer)) }
    }

    fn recipient_answered(&mut self, index: usize, reply: Reply) {
        if !is_done(&reply) {
            let failure = refused(reply, "RCPT TO", &self.connection.peer);
            self.settle(index, Err(failure));
        }
    }

    fn refuse_all(&mut self, mail: Reply) {
        let failure = refused(mail, "MAIL FROM", &self.connection.peer);
        for result in &mut self.results {
            *result = Some(Err(failure.clone()));
        }
        self.refused = Some(failure);
    }

    fn settle(&mut self, index: usize, result: Result<Reply, Failure>) {
        if let Some(slot) = self.results.get_mut(index) {
            *slot = Some(result);
        }
    }

    fn settle_rest(&mut self, result: &Result<Reply, Failure>) {
        for slot in self.results.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(result.clone());
        }
    }
}
