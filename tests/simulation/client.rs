//! Senders: each brings its mails in by its own manner, again and again until it has read what became of them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::{Promise, Sent};
use crate::lines::Lines;
use crate::plan::{self, SERVER};
use crate::world::World;

/// For a reply to anything but the dot.
const PATIENCE: Duration = Duration::from_mins(5);

pub struct Client {
    world: Arc<World>,
    number: usize,
    manner: plan::Client,
    rng: fastrand::Rng,
    /// What was tried comes after all that wasn't, and not before this.
    put_off: BTreeMap<usize, u64>,
}

/// How one mail ended this time.
enum End {
    /// The session goes on.
    Next,
    /// The sender has gone without a word.
    Gone,
}

impl Client {
    pub fn new(world: &Arc<World>, number: usize) -> Self {
        Self {
            world: Arc::clone(world),
            number,
            manner: world.plan.clients[number],
            rng: world.fork(),
            put_off: BTreeMap::new(),
        }
    }

    pub async fn run(mut self) {
        while let Some((mail, at)) = self.next() {
            let now = self.world.now();
            if at > now {
                tokio::time::sleep(Duration::from_millis(at - now)).await;
            }
            if !self.session(mail).await.unwrap_or(false) {
                tokio::time::sleep(Duration::from_millis(self.rng.u64(500..5000))).await;
            }
        }
    }

    /// The mail that is due first and that nothing has become of yet.
    fn next(&self) -> Option<(usize, u64)> {
        let ledger = self.world.ledger();
        let mails = self.world.plan.mails.iter().enumerate();
        let waiting = mails.filter(|(n, mail)| mail.client == self.number && matches!(ledger.mails[*n], Sent::Waiting));
        let due = |n: usize, at: u64| self.put_off.get(&n).copied().unwrap_or(at);
        waiting.map(|(n, mail)| (n, due(n, mail.at))).min_by_key(|(n, at)| (*at, *n))
    }

    /// One connection. True: something was done for good.
    async fn session(&mut self, first: usize) -> io::Result<bool> {
        self.try_again_later(first);
        let from = SocketAddr::new(plan::client_ip(self.number), self.rng.u16(1024..));
        let line = self.world.plan.line(&mut self.rng, self.world.is_calm());
        let pipe = self.world.dial(from, SERVER, line, 1).await?;
        let mut lines = Lines::new(pipe);
        if lines.reply(PATIENCE).await?.0 != 220 {
            return Ok(false);
        }
        self.pause().await;
        let hello = if self.manner.pipelines || self.manner.chunks || self.rng.bool() { "EHLO" } else { "HELO" };
        lines.send(format!("{hello} client{}.example\r\n", self.number).as_bytes()).await?;
        if lines.reply(PATIENCE).await?.0 != 250 {
            return Ok(false);
        }
        let (mut mail, mut done) = (first, false);
        for _ in 0..self.manner.at_once {
            self.try_again_later(mail);
            match self.bring(&mut lines, mail).await? {
                End::Gone => return Ok(done),
                End::Next => {}
            }
            done |= !matches!(self.world.ledger().mails[mail], Sent::Waiting);
            match self.next() {
                Some((next, at)) if at <= self.world.now() && next != mail => mail = next,
                _ => break,
            }
        }
        if !self.one_in(self.manner.rude) {
            lines.send(b"QUIT\r\n").await?;
            lines.reply(PATIENCE).await?;
        }
        Ok(done)
    }

    fn try_again_later(&mut self, mail: usize) {
        let wait = self.rng.u64(self.manner.again / 2..=self.manner.again);
        self.put_off.insert(mail, self.world.now() + wait);
    }

    fn one_in(&mut self, percent: u8) -> bool {
        let so = !self.world.is_calm() && self.rng.u8(0..100) < percent;
        if so {
            self.world.fault();
        }
        so
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(0..=self.manner.pause))).await;
    }

    /// One transaction.
    async fn bring(&mut self, lines: &mut Lines, number: usize) -> io::Result<End> {
        let mail = self.world.plan.mails[number].clone();
        let mut commands = vec![format!("MAIL FROM:<{}>\r\n", mail.sender())];
        commands.extend(mail.recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>\r\n")));
        if self.manner.pipelines {
            lines.send(commands.concat().as_bytes()).await?;
        }
        let (mut taken, mut refused) = (0, 0);
        for (n, command) in commands.iter().enumerate() {
            if !self.manner.pipelines {
                self.pause().await;
                lines.send(command.as_bytes()).await?;
            }
            let (code, said) = lines.reply(PATIENCE).await?;
            match code {
                250 => taken += usize::from(n > 0),
                550 if n > 0 && mail.recipients[n - 1].starts_with("nobody") => refused += 1,
                421 => return Ok(End::Gone),
                // All of them or none: one that is put off puts off the whole.
                400..500 => return self.give_up(lines).await,
                _ => {
                    self.world.ledger().violation(format!("{command:?} was answered {said}"));
                    return Ok(End::Gone);
                }
            }
        }
        if refused == mail.recipients.len() {
            self.world.ledger().mails[number] = Sent::Refused;
        }
        if taken == 0 {
            return self.give_up(lines).await;
        }
        if self.manner.chunks {
            self.chunks(lines, number).await?;
        } else {
            self.data(lines, number).await?;
        }
        if self.one_in(self.manner.vanishes) {
            return Ok(End::Gone);
        }
        let patience =
            if self.world.is_calm() { Duration::from_mins(10) } else { Duration::from_millis(self.manner.patience) };
        let (code, said) = lines.reply(patience).await?;
        self.answered(lines, number, code, &said);
        Ok(if code == 421 { End::Gone } else { End::Next })
    }

    async fn give_up(&mut self, lines: &mut Lines) -> io::Result<End> {
        lines.send(b"RSET\r\n").await?;
        let code = lines.reply(PATIENCE).await?.0;
        Ok(if code == 250 { End::Next } else { End::Gone })
    }

    async fn data(&mut self, lines: &mut Lines, number: usize) -> io::Result<()> {
        lines.send(b"DATA\r\n").await?;
        let (code, _) = lines.reply(PATIENCE).await?;
        if code != 354 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut text = Vec::new();
        for line in self.world.plan.mails[number].octets.split_inclusive(|octet| *octet == b'\n') {
            if line.starts_with(b".") {
                text.push(b'.');
            }
            text.extend_from_slice(line);
        }
        lines.send(&text).await?;
        self.pause().await;
        self.ends(number);
        lines.send(b".\r\n").await
    }

    async fn chunks(&mut self, lines: &mut Lines, number: usize) -> io::Result<()> {
        let octets = self.world.plan.mails[number].octets.clone();
        let half = self.rng.usize(0..octets.len());
        let mut first = format!("BDAT {half}\r\n").into_bytes();
        first.extend_from_slice(&octets[..half]);
        lines.send(&first).await?;
        if lines.reply(PATIENCE).await?.0 != 250 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut last = format!("BDAT {} LAST\r\n", octets.len() - half).into_bytes();
        last.extend_from_slice(&octets[half..]);
        self.ends(number);
        lines.send(&last).await
    }

    /// From here on the server may have taken it.
    fn ends(&self, number: usize) {
        self.world.ledger().open_ends[self.world.plan.mails[number].group] += 1;
    }

    fn answered(&self, lines: &Lines, number: usize, code: u16, said: &str) {
        let mail = &self.world.plan.mails[number];
        let mut ledger = self.world.ledger();
        ledger.open_ends[mail.group] -= 1;
        match code {
            250 => match said.rsplit(' ').next().and_then(|id| id.parse().ok()) {
                Some(id) => ledger.mails[number] = Sent::Promised(Promise { id, went_on: lines.mark() }),
                None => ledger.violation(format!("250 without an id: {said}")),
            },
            550 if mail.is_refused() => ledger.mails[number] = Sent::Refused,
            400..500 => {}
            _ => ledger.violation(format!("a message of {:?} was answered {said}", mail.recipients)),
        }
    }
}
