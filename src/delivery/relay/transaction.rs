//! One message over one connection: MAIL, RCPT for each recipient, DATA, content; and each recipient's own answer.
//!
//! Pipelined where offered (RFC 2920): envelope and DATA in one write. Standards: RFC 5321 §3.3, §4.2; RFC 2033 (LMTP).

use std::ops::Range;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::aside::{self, Unfinished};
use crate::config::RelayTimeouts;
use crate::delivery::{Failure, Side};
use crate::mail::Reply;
use crate::store::{Raw, Stored};

use super::connection::Connection;
use super::letter::{Letter, Stuffing};
use super::reply::{is_done, refused};

/// Content is gathered up to this many octets before it is written; a longer slice is written as it lies.
const WRITE: usize = 64 * 1024;
/// Octets read at once of a content that lies in its segment; the next are read while these are written.
const BLOCK: usize = 128 * 1024;
/// After a write broke: how long the peer's last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The phase, as errors name it.
const CONTENT: &str = "the content";

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
            if failure.side == Side::Ours {
                return Err(failure);
            }
            // A server that has seen enough often says why before it closes.
            let last_words = self.connection.receive(CONTENT, LAST_WORDS).await;
            let said = last_words.ok().filter(|reply| !reply.is_positive());
            return Err(said.map_or(failure, |reply| refused(reply, CONTENT, &self.connection.peer)));
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
        let content = &self.letter.content;
        let gathered = Vec::with_capacity(content.size().min(WRITE) + 64);
        let (connection, limit) = (&mut *self.connection, self.limits.data);
        let mut writing = Writing { connection, limit, stuffing: Stuffing::default(), gathered };
        writing.piece(&content.added).await?;
        writing.piece(&content.head).await?;
        for kept in content.kept() {
            match &content.raw {
                Raw::Here(octets) => writing.piece(octets.get(kept).unwrap_or_default()).await?,
                Raw::Stored(stored) => writing.stored(stored, kept).await?,
            }
        }
        writing.end().await
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

/// The content on its way.
struct Writing<'a> {
    connection: &'a mut Connection,
    limit: Duration,
    stuffing: Stuffing,
    gathered: Vec<u8>,
}

impl Writing<'_> {
    async fn piece(&mut self, octets: &[u8]) -> Result<(), Failure> {
        for slice in self.stuffing.runs(octets) {
            if self.gathered.len() + slice.len() > WRITE && !self.gathered.is_empty() {
                self.connection.send(&self.gathered, CONTENT, self.limit).await?;
                self.gathered.clear();
            }
            if slice.len() > WRITE {
                for block in slice.chunks(4 * WRITE) {
                    self.connection.send(block, CONTENT, self.limit).await?;
                }
            } else {
                self.gathered.extend_from_slice(slice);
            }
        }
        Ok(())
    }

    /// What can't be read ends the connection without a dot: half a message must never look like one (RFC 5321 §4.1.1.4).
    async fn stored(&mut self, stored: &Stored, piece: Range<usize>) -> Result<(), Failure> {
        let (mut at, mut spare) = (piece.start, Vec::new());
        let mut reading = Some(read(stored, at..piece.end, std::mem::take(&mut spare)));
        while let Some(block) = reading.take() {
            let block = block.await.map_err(|error| unread(&error.to_string()))?;
            let block = block.map_err(|error| unread(&error.to_string()))?;
            let block = block.map_err(|error| unread(&stored.unreadable(&error).to_string()))?;
            at += block.len();
            if at < piece.end {
                reading = Some(read(stored, at..piece.end, std::mem::take(&mut spare)));
            }
            self.piece(&block).await?;
            spare = block;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<(), Failure> {
        self.gathered.extend_from_slice(self.stuffing.end());
        self.connection.send(&self.gathered, CONTENT, self.limit).await
    }
}

fn unread(why: &str) -> Failure {
    Failure::later(Side::Ours, "4.3.0", format!("the message can't be read: {why}"))
}

/// The first octets of `piece`, into `block`.
fn read(
    stored: &Stored,
    piece: Range<usize>,
    mut block: Vec<u8>,
) -> JoinHandle<Result<std::io::Result<Vec<u8>>, Unfinished>> {
    let stored = stored.clone();
    tokio::spawn(aside::run(move || {
        block.resize(BLOCK.min(piece.len()), 0);
        stored.read_at(piece.start, &mut block)?;
        Ok(block)
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

    use super::*;
    use crate::config::Config;
    use crate::delivery::relay::letter::{Content, Rcpt};
    use crate::mail::{Address, Envelope, Notify};

    fn letter(raw: Raw, removed: Vec<(usize, usize)>) -> Letter {
        let address = Address::parse("b@example.net").unwrap();
        let head = Bytes::from_static(b"Received: x\r\n");
        let content = Content { added: b"X-A: 1\r\n".to_vec(), head, raw, removed };
        let recipients = vec![Rcpt { address, notify: Notify::default(), orcpt: None }];
        Letter { envelope: Envelope::default(), recipients, content }
    }

    /// Says yes to all; what came after 354, up to the dot or the end of the connection.
    async fn takes_all(stream: DuplexStream) -> Vec<u8> {
        let mut stream = BufReader::new(stream);
        for answer in ["250 ok", "250 ok", "354 go on"] {
            stream.read_line(&mut String::new()).await.unwrap();
            stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
        }
        let mut content = Vec::new();
        while !content.ends_with(b"\r\n.\r\n") {
            if stream.read_buf(&mut content).await.unwrap() == 0 {
                return content;
            }
        }
        stream.write_all(b"250 taken\r\n").await.unwrap();
        content
    }

    async fn sent(raw: Raw) -> (Sent, Vec<u8>) {
        sent_without(raw, Vec::new()).await
    }

    async fn sent_without(raw: Raw, removed: Vec<(usize, usize)>) -> (Sent, Vec<u8>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let peer = tokio::spawn(takes_all(theirs));
        let mut connection = Connection::new(Box::new(ours), "peer".to_owned());
        let sent = send(&mut connection, &letter(raw, removed), &Config::default().relay.timeouts).await;
        drop(connection);
        (sent, peer.await.unwrap())
    }

    #[tokio::test]
    async fn what_is_stored_goes_out_as_if_it_were_in_memory() {
        // A dot begins a line, is the first octet of a block and the last, and blocks part a line end.
        let mut octets: Vec<u8> = b"..\r\n".iter().copied().cycle().take(3 * BLOCK + 1000).collect();
        octets[BLOCK - 2..=BLOCK].copy_from_slice(b"\r\n.");
        octets[2 * BLOCK - 1..=2 * BLOCK + 1].copy_from_slice(b"\r\n.");
        let (here, expected) = sent(Bytes::from(octets.clone()).into()).await;
        let (stored, content) = sent(Raw::in_file(&octets, 0)).await;
        assert!(here.results[0].is_ok() && stored.results[0].is_ok() && stored.broken.is_none());
        assert!(content == expected && expected.len() > octets.len());
    }

    #[tokio::test]
    async fn what_was_taken_out_stays_out_wherever_it_lies() {
        let octets: Vec<u8> = b".a\r\nbc\r\n".iter().copied().cycle().take(3 * BLOCK).collect();
        let removed = vec![(0, 4), (BLOCK, BLOCK + 8), (2 * BLOCK + 4, 3 * BLOCK)];
        let (_, expected) = sent_without(Bytes::from(octets.clone()).into(), removed.clone()).await;
        let (sent, content) = sent_without(Raw::in_file(&octets, 0), removed).await;
        assert!(sent.broken.is_none() && content == expected);
        assert!(content.starts_with(b"X-A: 1\r\nReceived: x\r\nbc\r\n..a\r\n") && content.len() < 3 * BLOCK);
    }

    #[tokio::test]
    async fn one_that_cant_be_read_to_its_end_is_not_ended_by_a_dot() {
        let octets = vec![b'x'; 2 * BLOCK];
        let (sent, content) = sent(Raw::in_file(&octets, 10)).await;
        let failure = sent.results[0].as_ref().unwrap_err();
        assert_eq!((failure.side, failure.retry), (Side::Ours, crate::delivery::Retry::Later));
        assert!(sent.broken.is_some_and(|failure| failure.side == Side::Ours) && !sent.content_sent);
        assert!(!content.ends_with(b"\r\n.\r\n") && content.len() < octets.len());
    }
}
