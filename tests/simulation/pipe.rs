//! A connection of the simulated network: two directions with latency, a rate, a window, and an end of some kind.
//!
//! Each end knows how many octets it has written and how many of them the other one has read: who has heard what is
//! what most promises turn on.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use mailworker::listener::socket::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::world::World;

/// Octets on their way in one direction before a writer has to wait.
const WINDOW: usize = 64 * 1024;

/// How a connection behaves.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Milliseconds one way.
    pub latency: u64,
    /// Octets a second.
    pub rate: u64,
    /// It is reset when so many octets have been sent, both directions together.
    pub breaks_after: Option<u64>,
    /// What is written comes in pieces, of no more than this.
    pub piece: usize,
}

#[derive(Default)]
struct Direction {
    chunks: VecDeque<(u64, Bytes)>,
    on_their_way: usize,
    /// When the last of them arrives.
    last: u64,
    /// When the end arrives, if it was written.
    end: Option<u64>,
    reader_gone: bool,
    written: u64,
    read: u64,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct State {
    /// From who dialled, and from who accepted.
    directions: [Direction; 2],
    broken: bool,
}

/// What both ends share.
pub struct Link {
    world: Arc<World>,
    line: Line,
    number: u64,
    hosts: [IpAddr; 2],
    /// The end that is the server's.
    server: usize,
    state: Mutex<State>,
}

/// One end.
pub struct Pipe {
    pub link: Arc<Link>,
    side: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The end of who dials, and of who is dialled. `server`: which of them is the server's.
pub fn pair(world: &Arc<World>, manner: Line, from: SocketAddr, to: SocketAddr, server: usize) -> (Pipe, Pipe) {
    let link = Arc::new(Link {
        world: Arc::clone(world),
        line: manner,
        number: world.next_link(),
        hosts: [from.ip(), to.ip()],
        server,
        state: Mutex::default(),
    });
    let end = |side| Pipe { link: Arc::clone(&link), side, timer: None };
    (end(0), end(1))
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The network or a host of it resets the connection: what is on its way is lost.
    pub fn reset(&self) {
        let mut state = self.state();
        if state.broken || self.world.is_frozen() {
            return;
        }
        state.broken = true;
        for direction in &mut state.directions {
            direction.chunks.clear();
            direction.wake();
        }
        drop(state);
        self.world.note(self.number, "reset", &[]);
    }

    /// When what arrives at `due` gets through: a partition holds it up.
    fn gets_through(&self, due: u64) -> u64 {
        let due = due.max(self.world.now());
        self.hosts.iter().filter_map(|host| self.world.plan.cut_until(*host, due)).fold(due, u64::max)
    }
}

impl Direction {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl Pipe {
    /// Octets written so far.
    pub fn written(&self) -> u64 {
        self.link.state().directions[self.side].written
    }

    /// The mark of this moment: whether the other end has read more than was written until now, or all of it.
    pub fn mark(&self) -> Mark {
        Mark { link: Arc::clone(&self.link), side: self.side, at: self.written() }
    }

    fn is_servers(&self) -> bool {
        self.side == self.link.server
    }

    /// Something or the end is there to be read.
    fn is_readable(&self) -> bool {
        let state = self.link.state();
        let incoming = &state.directions[1 - self.side];
        let now = self.link.world.now();
        let there = |due: u64| due <= now && self.link.gets_through(due) <= now;
        state.broken || incoming.chunks.front().map(|(due, _)| *due).or(incoming.end).is_some_and(there)
    }

    fn poll_until(&mut self, due: u64, cx: &mut Context<'_>) -> Poll<()> {
        let wait = due.saturating_sub(self.link.world.now()).max(1);
        let mut timer = Box::pin(tokio::time::sleep(Duration::from_millis(wait)));
        let ready = timer.as_mut().poll(cx);
        self.timer = Some(timer);
        ready
    }
}

/// What had been written by one end at a moment.
#[derive(Clone)]
pub struct Mark {
    link: Arc<Link>,
    side: usize,
    at: u64,
}

impl Mark {
    /// The other end has read something that was written later.
    pub fn is_passed(&self) -> bool {
        self.link.state().directions[self.side].read > self.at
    }

    /// The other end has read all that had been written then.
    pub fn is_reached(&self) -> bool {
        self.link.state().directions[self.side].read >= self.at
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let link = Arc::clone(&self.link);
        let world = &link.world;
        if world.is_frozen() {
            return Poll::Pending;
        }
        loop {
            let mut state = link.state();
            if state.broken {
                return Poll::Ready(Err(reset()));
            }
            let incoming = &mut state.directions[1 - self.side];
            let due = incoming.chunks.front().map(|(due, _)| *due).or(incoming.end);
            let Some(due) = due.map(|due| link.gets_through(due)) else {
                incoming.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if due > world.now() {
                incoming.reader = Some(cx.waker().clone());
                drop(state);
                if self.poll_until(due, cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            if self.is_servers() {
                drop(state);
                if world.step() {
                    return Poll::Pending;
                }
                state = link.state();
            }
            let incoming = &mut state.directions[1 - self.side];
            let Some((_, chunk)) = incoming.chunks.front_mut() else { return Poll::Ready(Ok(())) };
            let count = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..count]);
            chunk.advance(count);
            if chunk.is_empty() {
                incoming.chunks.pop_front();
            }
            incoming.on_their_way -= count;
            incoming.read += count as u64;
            if let Some(writer) = incoming.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let (link, side) = (&self.link, self.side);
        if link.world.is_frozen() || (self.is_servers() && link.world.step()) {
            return Poll::Pending;
        }
        let mut state = link.state();
        if state.broken {
            return Poll::Ready(Err(reset()));
        }
        let total: u64 = state.directions.iter().map(|direction| direction.written).sum();
        let outgoing = &mut state.directions[side];
        if outgoing.reader_gone || outgoing.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = buf.len().min(WINDOW.saturating_sub(outgoing.on_their_way));
        if count == 0 && !buf.is_empty() {
            outgoing.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for piece in buf[..count].chunks(link.line.piece.max(1)) {
            let sent = outgoing.last.max(link.world.now() + link.line.latency);
            outgoing.last = sent + piece.len() as u64 * 1000 / link.line.rate.max(1);
            outgoing.chunks.push_back((outgoing.last, Bytes::copy_from_slice(piece)));
        }
        outgoing.on_their_way += count;
        outgoing.written += count as u64;
        if let Some(reader) = outgoing.reader.take() {
            reader.wake();
        }
        drop(state);
        link.world.note(link.number, if side == 0 { ">" } else { "<" }, &buf[..count]);
        if link.line.breaks_after.is_some_and(|limit| total + count as u64 >= limit) {
            link.world.fault();
            link.reset();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.link.world.is_frozen() {
            self.end();
        }
        Poll::Ready(Ok(()))
    }
}

impl Pipe {
    fn end(&self) {
        let mut state = self.link.state();
        let latency = self.link.line.latency;
        let outgoing = &mut state.directions[self.side];
        if outgoing.end.is_none() {
            outgoing.end = Some(outgoing.last.max(self.link.world.now() + latency));
            outgoing.wake();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.link.world.is_frozen() {
            return;
        }
        // As the kernel has it: who closes without having read what came resets the connection.
        if self.is_readable() && !self.link.state().directions[1 - self.side].chunks.is_empty() {
            return self.link.reset();
        }
        self.end();
        let mut state = self.link.state();
        state.directions[1 - self.side].reader_gone = true;
        state.directions[1 - self.side].wake();
        drop(state);
        self.link.world.note(self.link.number, "end", &[u8::try_from(self.side).unwrap()]);
    }
}

impl Socket for Pipe {
    fn prepare(&self) {}

    fn has_octets(&self) -> bool {
        self.is_readable() && !self.link.state().directions[1 - self.side].chunks.is_empty()
    }

    async fn heard(&self) {
        while !self.is_readable() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn say(&self, line: &[u8]) {
        let mut state = self.link.state();
        let due = self.link.world.now() + self.link.line.latency;
        let outgoing = &mut state.directions[self.side];
        outgoing.chunks.push_back((due, Bytes::copy_from_slice(line)));
        outgoing.on_their_way += line.len();
        outgoing.written += line.len() as u64;
        outgoing.last = due;
        outgoing.wake();
        drop(state);
        self.link.world.note(self.link.number, "<", line);
    }
}
