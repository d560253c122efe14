//! One connection to a next hop: octets out, replies in, each with a limit of time and a phase to name in errors.
//!
//! Knows nothing of messages. After an error it is good for nothing more. Standards: RFC 5321 §4.5.3.2 (time-outs).

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time;

use crate::delivery::{Failure, Side};
use crate::mail::Reply;

use super::reply::{NoReply, Offers, Replies};
use super::seconds;

/// Waiting for the answer to QUIT, which matters to nobody.
const QUIT_LIMIT: Duration = Duration::from_secs(2);

/// A stream, in the clear or not.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open connection, greeted.
pub struct Connection {
    stream: Box<dyn Duplex>,
    input: Vec<u8>,
    /// How much of `input` is used up.
    used: usize,
    replies: Replies,
    /// As in `mx1.example.net [192.0.2.1]:25`.
    pub peer: String,
    pub offers: Offers,
    pub tls: Option<String>,
    /// LMTP: an answer for each recipient after the dot (RFC 2033 §4.2).
    pub lmtp: bool,
    /// Messages it has carried.
    pub carried: usize,
    /// A transaction was left half done: RSET comes first.
    pub dirty: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).field("carried", &self.carried).finish_non_exhaustive()
    }
}

impl Connection {
    #[must_use]
    pub fn new(stream: Box<dyn Duplex>, peer: String) -> Self {
        Self {
            stream,
            input: Vec::with_capacity(1024),
            used: 0,
            replies: Replies::default(),
            peer,
            offers: Offers::default(),
            tls: None,
            lmtp: false,
            carried: 0,
            dirty: false,
        }
    }

    /// The stream alone, for TLS. What the peer sent ahead in the clear is dropped with the rest (RFC 3207 §4.2).
    #[must_use]
    pub fn into_stream(self) -> Box<dyn Duplex> {
        self.stream
    }

    /// Writes all of `octets`.
    ///
    /// # Errors
    /// The connection broke or `limit` passed.
    pub async fn send(&mut self, octets: &[u8], phase: &str, limit: Duration) -> Result<(), Failure> {
        let writing = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        match time::timeout(limit, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken("write of", phase, &error.to_string())),
            Err(_) => Err(self.broken("write of", phase, &format!("{} without progress", seconds(limit)))),
        }
    }

    /// The next reply, all its lines within `limit`.
    ///
    /// # Errors
    /// The connection broke, `limit` passed, or what came is no reply.
    pub async fn receive(&mut self, phase: &str, limit: Duration) -> Result<Reply, Failure> {
        if let Some(reply) = self.buffered(phase)? {
            return Ok(reply);
        }
        let Ok(read) = time::timeout(limit, self.read_reply(phase)).await else {
            return Err(self.broken("read after", phase, &format!("{} without an answer", seconds(limit))));
        };
        read
    }

    async fn read_reply(&mut self, phase: &str) -> Result<Reply, Failure> {
        loop {
            self.input.clear();
            self.used = 0;
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => return Err(self.broken("read after", phase, "the connection was closed")),
                Ok(_) => {}
                Err(error) => return Err(self.broken("read after", phase, &error.to_string())),
            }
            if let Some(reply) = self.buffered(phase)? {
                return Ok(reply);
            }
        }
    }

    /// A reply that is complete in what was read already.
    fn buffered(&mut self, phase: &str) -> Result<Option<Reply>, Failure> {
        let rest = self.input.get(self.used..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        match self.replies.push(rest) {
            Ok((reply, used)) => {
                self.used += used;
                Ok(reply)
            }
            Err(NoReply::Malformed) => Err(self.broken("read after", phase, "what came is no SMTP reply")),
            Err(NoReply::TooLong) => Err(self.broken("read after", phase, "the reply is too long")),
        }
    }

    /// Whether nothing came that nobody asked for: an answer too many would be taken for that of the next command.
    /// Looks at what is there already and doesn't wait.
    #[must_use]
    pub fn is_in_step(&mut self) -> bool {
        if self.used < self.input.len() || self.replies.is_partial() {
            return false;
        }
        self.input.clear();
        self.used = 0;
        self.stream.read_buf(&mut self.input).now_or_never().is_none()
    }

    /// Says goodbye and closes.
    pub async fn quit(mut self) {
        if self.send(b"QUIT\r\n", "QUIT", QUIT_LIMIT).await.is_ok() {
            let _answer = self.receive("QUIT", QUIT_LIMIT).await;
        }
        let _closed = time::timeout(QUIT_LIMIT, self.stream.shutdown()).await;
    }

    /// The host, the phase, the limit: what is to be known of a connection that broke.
    #[must_use]
    pub fn broken(&self, doing: &str, phase: &str, reason: &str) -> Failure {
        let direction = if doing.starts_with("write") { "to" } else { "from" };
        let detail = format!("{doing} {phase} {direction} {}: {reason}", self.peer);
        Failure::later(Side::Network, "4.4.2", detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn after(wire: &[u8]) -> bool {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut connection = Connection::new(Box::new(ours), "peer".to_owned());
        theirs.write_all(wire).await.unwrap();
        connection.receive("the end of data", LIMIT).await.unwrap();
        connection.is_in_step()
    }

    #[tokio::test]
    async fn an_answer_too_many_puts_a_connection_out_of_step() {
        assert!(after(b"250 ok\r\n").await);
        assert!(!after(b"250 ok\r\n550 5.7.1 for nobody\r\n").await);
        assert!(!after(b"250 ok\r\n55").await);
    }

    #[tokio::test]
    async fn what_comes_while_idle_and_a_close_put_it_out_of_step() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut connection = Connection::new(Box::new(ours), "peer".to_owned());
        assert!(connection.is_in_step());
        theirs.write_all(b"554 idle too long\r\n").await.unwrap();
        assert!(!connection.is_in_step());
        let (ours, theirs) = tokio::io::duplex(1024);
        drop(theirs);
        assert!(!Connection::new(Box::new(ours), "peer".to_owned()).is_in_step());
    }
}
