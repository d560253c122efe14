//! Next hops: mail servers that take what they are given, or do one of the many other things that mail servers do.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mailworker::mail::MessageId;

use crate::ledger::Take;
use crate::lines::Lines;
use crate::pipe::{Mark, Pipe};
use crate::plan::{Mood, Phase, hop_address};
use crate::world::{Arrivals, World};

/// Nobody waits longer than this for a command.
const IDLE: Duration = Duration::from_mins(10);
const LARGEST: usize = 1 << 20;

/// Serves one hop for ever; `None`: the senders' own mail server, which is always well.
pub async fn run(world: Arc<World>, hop: Option<usize>, mut arrivals: Arrivals) {
    while let Some((pipe, _)) = arrivals.recv().await {
        let mood = hop.map_or(Mood::Well, |hop| world.plan.mood(hop, world.now()));
        let pipelines = hop.is_none_or(|hop| world.plan.hops[hop].pipelines);
        tokio::spawn(serve(Arc::clone(&world), pipe, mood, pipelines));
    }
}

pub fn listen(world: &Arc<World>, hop: usize) {
    tokio::spawn(run(Arc::clone(world), Some(hop), world.listen(hop_address(hop))));
}

async fn serve(world: Arc<World>, pipe: Pipe, mood: Mood, pipelines: bool) {
    if mood != Mood::Well {
        world.fault();
    }
    let session = Session { lines: Lines::new(pipe), world, mood, pipelines, recipients: Vec::new() };
    let _it_went = session.run().await;
}

struct Session {
    lines: Lines,
    world: Arc<World>,
    mood: Mood,
    pipelines: bool,
    recipients: Vec<String>,
}

/// The session is over, by whomever.
enum Over {
    Broken,
    /// By us, with a reset.
    Reset,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl Session {
    async fn run(mut self) {
        if matches!(self.talk().await, Err(Over::Reset)) {
            self.lines.reset();
        }
    }

    async fn talk(&mut self) -> Result<(), Over> {
        self.say(Phase::Greeting, "220 hop.example ESMTP").await?;
        loop {
            let line = tokio::time::timeout(IDLE, self.lines.line()).await.map_err(|_| Over::Broken)??;
            let line = String::from_utf8_lossy(&line).into_owned();
            match line.get(..4).unwrap_or_default() {
                "EHLO" if self.pipelines => self.say(Phase::Hello, "250-hop\r\n250-PIPELINING\r\n250 8BITMIME").await?,
                "EHLO" => self.say(Phase::Hello, "250-hop\r\n250-SIZE 0\r\n250 8BITMIME").await?,
                "HELO" => self.say(Phase::Hello, "250 hop").await?,
                "MAIL" => {
                    self.recipients.clear();
                    self.say(Phase::Mail, "250 2.1.0 go on").await?;
                }
                "RCPT" => self.recipient(&line).await?,
                "DATA" if self.recipients.is_empty() => self.lines.send(b"554 5.5.1 for whom?\r\n").await?,
                "DATA" => self.data().await?,
                "RSET" => {
                    self.recipients.clear();
                    self.lines.send(b"250 2.0.0 forgotten\r\n").await?;
                }
                "QUIT" => return Ok(self.lines.send(b"221 2.0.0 bye\r\n").await?),
                _ => self.lines.send(b"500 5.5.1 what?\r\n").await?,
            }
        }
    }

    /// The answer at this point, or what comes in its place. `good`: what one says who is well.
    async fn say(&mut self, phase: Phase, good: &str) -> Result<(), Over> {
        let said = match self.mood {
            Mood::Hang(at) if at == phase => return self.hang().await,
            Mood::Reset(at) if at == phase => return Err(Over::Reset),
            Mood::Close(at) if at == phase => return Err(Over::Broken),
            Mood::Late(at, wait) if at == phase => {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                good
            }
            Mood::Garbage(at) if at == phase => "\u{1}\u{2}what a day\u{7f}",
            Mood::Says(at, words) if at == phase => words,
            _ => good,
        };
        self.lines.send(format!("{said}\r\n").as_bytes()).await?;
        if said.starts_with("421") { Err(Over::Broken) } else { Ok(()) }
    }

    async fn hang(&mut self) -> Result<(), Over> {
        self.lines.wait_for_end().await;
        Err(Over::Broken)
    }

    async fn recipient(&mut self, line: &str) -> Result<(), Over> {
        let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        match self.mood {
            Mood::Refuses if address.bytes().map(usize::from).sum::<usize>().is_multiple_of(2) => {
                self.world.ledger().refused.insert(address);
                return Ok(self.lines.send(b"550 5.1.1 nobody of that name\r\n").await?);
            }
            Mood::Few(most) if self.recipients.len() >= most => {
                return Ok(self.lines.send(b"452 4.5.3 too many\r\n").await?);
            }
            Mood::Says(Phase::Rcpt, words) => return self.say(Phase::Rcpt, words).await,
            _ => {}
        }
        self.say(Phase::Rcpt, "250 2.1.5 go on").await?;
        self.recipients.push(address);
        Ok(())
    }

    async fn data(&mut self) -> Result<(), Over> {
        if let Mood::Says(Phase::Data, _) | Mood::Garbage(Phase::Data) = self.mood {
            self.recipients.clear();
            return self.say(Phase::Data, "").await;
        }
        self.say(Phase::Data, "354 go on").await?;
        match self.mood {
            // Some of it is read.
            Mood::Hang(Phase::Content) => {
                self.lines.line().await?;
                std::future::pending::<()>().await;
            }
            Mood::Reset(Phase::Content) => {
                self.lines.line().await?;
                return Err(Over::Reset);
            }
            Mood::Close(Phase::Content) => {
                self.lines.line().await?;
                return Err(Over::Broken);
            }
            Mood::Says(Phase::Content, words) => {
                self.lines.line().await?;
                self.lines.send(format!("{words}\r\n").as_bytes()).await?;
                return Err(Over::Broken);
            }
            _ => {}
        }
        let content = tokio::time::timeout(IDLE, self.content()).await.map_err(|_| Over::Broken)??;
        let recipients = std::mem::take(&mut self.recipients);
        match self.mood {
            Mood::RefusesContent => {
                self.world.ledger().refused.extend(recipients);
                return Ok(self.lines.send(b"554 5.6.0 not that\r\n").await?);
            }
            // It isn't taken.
            Mood::Hang(Phase::Dot) | Mood::Reset(Phase::Dot) | Mood::Close(Phase::Dot) => {
                return self.say(Phase::Dot, "").await;
            }
            Mood::Says(Phase::Dot, _) | Mood::Garbage(Phase::Dot) => return self.say(Phase::Dot, "").await,
            _ => {}
        }
        self.take(recipients, content).await
    }

    async fn take(&mut self, recipients: Vec<String>, content: Vec<u8>) -> Result<(), Over> {
        let (id, octets, at) = (id_of(&content), Bytes::from(content), self.world.now());
        let first = self.world.ledger().takes.len();
        for recipient in &recipients {
            let take =
                Take { recipient: recipient.clone(), id, octets: octets.clone(), at, answered: None, excused: false };
            self.world.ledger().takes.push(take);
        }
        match self.mood {
            Mood::TakesAndHangs => return self.hang().await,
            Mood::TakesAndResets => return Err(Over::Reset),
            Mood::TakesLate(wait) | Mood::Late(Phase::Dot, wait) => {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            _ => {}
        }
        self.lines.send(b"250 2.0.0 taken\r\n").await?;
        let mark: Mark = self.lines.mark();
        let mut ledger = self.world.ledger();
        // Others have taken some meanwhile: ours are told by their content.
        let ours = ledger.takes.iter_mut().skip(first).filter(|take| take.octets.as_ptr() == octets.as_ptr());
        ours.for_each(|take| take.answered = Some(mark.clone()));
        Ok(())
    }

    /// Up to the dot, without the dots that were put before others.
    async fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let line = self.lines.until(b"\r\n", LARGEST).await?;
            match line.strip_prefix(b".") {
                Some(b"\r\n") => return Ok(content),
                Some(rest) => content.extend_from_slice(rest),
                None => content.extend_from_slice(&line),
            }
        }
    }
}

/// By the server's own trace field, which stands first among those of its kind. A notice has none.
fn id_of(content: &[u8]) -> Option<MessageId> {
    let at = memchr::memmem::find(content, b" id ")? + 4;
    let rest = &content[at..];
    let end = rest.iter().position(|octet| !octet.is_ascii_alphanumeric())?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}
