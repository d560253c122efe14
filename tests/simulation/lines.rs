//! Lines and octets over a connection, for the parts that speak with the server.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pipe::{Mark, Pipe};

/// Longer than any that is waited for here.
const LONGEST: usize = 64 * 1024;

pub struct Lines {
    pipe: Pipe,
    read: Vec<u8>,
}

impl Lines {
    pub fn new(pipe: Pipe) -> Self {
        Self { pipe, read: Vec::new() }
    }

    pub fn mark(&self) -> Mark {
        self.pipe.mark()
    }

    pub fn reset(self) {
        self.pipe.link.reset();
    }

    pub async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.pipe.write_all(octets).await
    }

    /// With its CRLF cut off.
    pub async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = self.until(b"\r\n", LONGEST).await?;
        line.truncate(line.len() - 2);
        Ok(line)
    }

    /// Up to and with `end`.
    pub async fn until(&mut self, end: &[u8], longest: usize) -> io::Result<Vec<u8>> {
        let mut from = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&self.read[from..], end) {
                let rest = self.read.split_off(from + at + end.len());
                return Ok(std::mem::replace(&mut self.read, rest));
            }
            from = self.read.len().saturating_sub(end.len());
            if self.read.len() > longest {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.more().await?;
        }
    }

    pub async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.read.len() < count {
            self.more().await?;
        }
        let rest = self.read.split_off(count);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.pipe.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// A whole reply: its code, and the text of its last line.
    pub async fn reply(&mut self, patience: Duration) -> io::Result<(u16, String)> {
        let reply = async {
            loop {
                let line = String::from_utf8_lossy(&self.line().await?).into_owned();
                let code = line.get(..3).and_then(|code| code.parse().ok());
                let code = code.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Ok((code, line));
                }
            }
        };
        tokio::time::timeout(patience, reply).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Until the other end has gone.
    pub async fn wait_for_end(&mut self) {
        while self.more().await.is_ok() {
            self.read.clear();
        }
    }
}
