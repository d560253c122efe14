//! What a seed draws: who sends what and when, how next hops and endpoints behave and from when to when, which hosts are
//! cut off, when the server dies and when it is restarted. Pure: the same seed, the same plan.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

use crate::mail::{self, Mail};
use crate::pipe::Line;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;

/// Where the server listens.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), 25);
/// Always well, never cut off: what goes there must not wait for others.
pub const QUICK: usize = 0;

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// From when on nothing is out of order any more.
    pub calm_from: u64,
    pub clients: Vec<Client>,
    pub mails: Vec<Mail>,
    pub hops: Vec<Hop>,
    pub ears: Vec<Ear>,
    cuts: Vec<(IpAddr, u64, u64)>,
    /// After how many steps each process dies; those behind the last of them live on.
    pub deaths: Vec<u64>,
    /// When the server is stopped in order, and for how long.
    pub stops: Vec<(u64, u64)>,
    pub settings: Settings,
}

/// The server's own, where they make a difference.
#[derive(Debug, Clone)]
pub struct Settings {
    pub deliveries: usize,
    pub concurrency: usize,
    pub messages_per_connection: usize,
    pub in_flight: u64,
    pub greet_delay: u64,
    pub runs: usize,
}

/// How somebody sends.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// Between two commands.
    pub pause: u64,
    pub pipelines: bool,
    pub chunks: bool,
    /// Messages over one connection.
    pub at_once: usize,
    /// How long an answer after the dot is waited for.
    pub patience: u64,
    /// In percent: it goes away after the dot without waiting.
    pub vanishes: u8,
    /// In percent: it goes away after 250 without a word.
    pub rude: u8,
    /// Before it tries again.
    pub again: u64,
}

#[derive(Debug, Clone)]
pub struct Hop {
    pub pipelines: bool,
    pub spells: Vec<Spell<Mood>>,
}

#[derive(Debug, Clone)]
pub struct Ear {
    pub spells: Vec<Spell<Hearing>>,
}

/// From when to when.
#[derive(Debug, Clone, Copy)]
pub struct Spell<T> {
    pub from: u64,
    pub until: u64,
    pub mood: T,
}

/// What a session with a next hop has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Greeting,
    Hello,
    Mail,
    Rcpt,
    Data,
    Content,
    Dot,
}

/// How a next hop is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Well,
    /// Nothing listens there.
    Refusing,
    /// Nobody answers there.
    Silent,
    Hang(Phase),
    Reset(Phase),
    Close(Phase),
    Late(Phase, u64),
    Garbage(Phase),
    Says(Phase, &'static str),
    /// No such user: every second one.
    Refuses,
    RefusesContent,
    /// Takes so many recipients at once.
    Few(usize),
    /// Takes the message; and then nothing, a reset, an answer too late.
    TakesAndHangs,
    TakesAndResets,
    TakesLate(u64),
}

/// How an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hearing {
    Well,
    Refusing,
    Silent,
    /// With this `Retry-After`.
    Status(u16, Option<u64>),
    Hang,
    Reset,
    Garbage,
    Late(u64),
    TakesAndResets,
    TakesAndHangs,
}

pub fn hop_address(hop: usize) -> SocketAddr {
    SocketAddr::from(([11, 1, 0, u8::try_from(hop + 1).unwrap()], 25))
}

pub fn ear_address(ear: usize) -> SocketAddr {
    SocketAddr::from(([11, 2, 0, u8::try_from(ear + 1).unwrap()], 80))
}

pub fn client_ip(client: usize) -> IpAddr {
    IpAddr::from([11, 3, 0, u8::try_from(client + 1).unwrap()])
}

/// Where the senders' own mail goes: the notices.
pub const POST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 4, 0, 1)), 25);

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let rng = &mut fastrand::Rng::with_seed(seed);
        let calm_from = rng.u64(HOUR / 4..3 * HOUR);
        let hops = rng.usize(3..7);
        let ears = rng.usize(2..5);
        let clients: Vec<Client> = (0..rng.usize(2..6)).map(|_| client(rng)).collect();
        let mut plan = Self {
            seed,
            calm_from,
            mails: Vec::new(),
            hops: (0..hops).map(|hop| self::hop(rng, hop, calm_from)).collect(),
            ears: (0..ears).map(|_| Ear { spells: spells(rng, calm_from, hearing) }).collect(),
            cuts: Vec::new(),
            deaths: (0..rng.usize(0..4)).map(|_| death(rng)).collect(),
            stops: Vec::new(),
            settings: settings(rng),
            clients,
        };
        for _ in 0..rng.usize(0..6) {
            let host = match rng.usize(0..10) {
                0..5 => hop_address(rng.usize(1..hops)).ip(),
                5..8 => ear_address(rng.usize(0..ears)).ip(),
                _ => client_ip(rng.usize(0..plan.clients.len())),
            };
            let from = rng.u64(0..calm_from);
            plan.cuts.push((host, from, (from + rng.u64(SECOND..HOUR)).min(calm_from)));
        }
        let mut at = 0;
        for _ in 0..rng.usize(0..3) {
            at += rng.u64(MINUTE..calm_from);
            if at < calm_from {
                plan.stops.push((at, rng.u64(SECOND..10 * MINUTE)));
            }
        }
        plan.mails = mail::draw(rng, &plan);
        plan
    }

    /// Half of all places is for destinations that have none: with so many, slow ones can't take them all.
    pub fn is_fair(&self) -> bool {
        let destinations = self.hops.len() + self.ears.len() + 2;
        self.settings.deliveries / 2 > destinations
    }

    /// Until when this host is cut off, if it is at `now`.
    pub fn cut_until(&self, host: IpAddr, now: u64) -> Option<u64> {
        self.cuts
            .iter()
            .filter(|(cut, from, until)| *cut == host && (*from..*until).contains(&now))
            .map(|cut| cut.2)
            .max()
    }

    pub fn mood(&self, hop: usize, now: u64) -> Mood {
        at(&self.hops[hop].spells, now).unwrap_or(Mood::Well)
    }

    pub fn hearing(&self, ear: usize, now: u64) -> Hearing {
        at(&self.ears[ear].spells, now).unwrap_or(Hearing::Well)
    }

    pub fn is_silent(&self, host: IpAddr, now: u64) -> bool {
        self.who(host).is_some_and(|who| match who {
            Who::Hop(hop) => self.mood(hop, now) == Mood::Silent,
            Who::Ear(ear) => self.hearing(ear, now) == Hearing::Silent,
        })
    }

    pub fn is_refusing(&self, host: IpAddr, now: u64) -> bool {
        self.who(host).is_some_and(|who| match who {
            Who::Hop(hop) => self.mood(hop, now) == Mood::Refusing,
            Who::Ear(ear) => self.hearing(ear, now) == Hearing::Refusing,
        })
    }

    fn who(&self, host: IpAddr) -> Option<Who> {
        let hop = (0..self.hops.len()).find(|hop| hop_address(*hop).ip() == host).map(Who::Hop);
        hop.or_else(|| (0..self.ears.len()).find(|ear| ear_address(*ear).ip() == host).map(Who::Ear))
    }

    /// How a connection between these behaves.
    pub fn line(&self, rng: &mut fastrand::Rng, steady: bool) -> Line {
        let latency = rng.u64(1..120);
        if steady {
            return Line { latency, rate: 1_000_000, breaks_after: None, piece: 1460 };
        }
        Line {
            latency,
            rate: if rng.u8(0..10) == 0 { rng.u64(200..5000) } else { rng.u64(20_000..2_000_000) },
            breaks_after: (rng.u8(0..12) == 0).then(|| 1 << rng.u32(3..17)).map(|most| rng.u64(1..=most)),
            piece: if rng.u8(0..8) == 0 { rng.usize(1..40) } else { 1460 },
        }
    }
}

enum Who {
    Hop(usize),
    Ear(usize),
}

fn at<T: Copy>(spells: &[Spell<T>], now: u64) -> Option<T> {
    spells.iter().find(|spell| (spell.from..spell.until).contains(&now)).map(|spell| spell.mood)
}

fn settings(rng: &mut fastrand::Rng) -> Settings {
    Settings {
        deliveries: if rng.u8(0..3) == 0 { rng.usize(4..24) } else { rng.usize(28..60) },
        concurrency: rng.usize(1..5),
        messages_per_connection: rng.usize(1..10),
        in_flight: rng.u64(400_000..2_000_000),
        greet_delay: if rng.bool() { 0 } else { rng.u64(1..2000) },
        runs: rng.usize(1..4),
    }
}

fn client(rng: &mut fastrand::Rng) -> Client {
    Client {
        pause: if rng.u8(0..4) == 0 { rng.u64(1..20_000) } else { rng.u64(1..50) },
        pipelines: rng.bool(),
        chunks: rng.u8(0..3) == 0,
        at_once: rng.usize(1..6),
        patience: if rng.u8(0..3) == 0 { rng.u64(50..2000) } else { 10 * MINUTE },
        vanishes: if rng.u8(0..3) == 0 { rng.u8(1..40) } else { 0 },
        rude: if rng.u8(0..3) == 0 { rng.u8(1..60) } else { 0 },
        again: rng.u64(SECOND..20 * MINUTE),
    }
}

fn hop(rng: &mut fastrand::Rng, hop: usize, calm_from: u64) -> Hop {
    let spells = if hop == QUICK { Vec::new() } else { spells(rng, calm_from, mood) };
    Hop { pipelines: rng.bool(), spells }
}

/// Some short, some long, one after the other.
fn spells<T>(rng: &mut fastrand::Rng, calm_from: u64, draw: fn(&mut fastrand::Rng) -> T) -> Vec<Spell<T>> {
    let mut spells = Vec::new();
    let mut at = if rng.bool() { 0 } else { rng.u64(0..calm_from) };
    while at < calm_from && spells.len() < 12 {
        let length = if rng.u8(0..3) == 0 { rng.u64(MINUTE..2 * HOUR) } else { rng.u64(SECOND..10 * MINUTE) };
        let until = (at + length).min(calm_from);
        spells.push(Spell { from: at, until, mood: draw(rng) });
        at = until + if rng.bool() { 0 } else { rng.u64(0..calm_from / 3) };
    }
    spells
}

fn phase(rng: &mut fastrand::Rng) -> Phase {
    use Phase::{Content, Data, Dot, Greeting, Hello, Mail, Rcpt};
    [Greeting, Hello, Mail, Rcpt, Data, Content, Dot][rng.usize(0..7)]
}

fn mood(rng: &mut fastrand::Rng) -> Mood {
    const WORDS: [&str; 7] = [
        "421 4.3.2 not now",
        "450 4.7.1 come back later",
        "451 4.3.0 something broke",
        "452 4.3.1 no room",
        "451 4.7.500 too much of you",
        "450 4.2.1 this mailbox is busy",
        "421 too many connections",
    ];
    match rng.usize(0..18) {
        0 => Mood::Refusing,
        1 => Mood::Silent,
        2 | 3 => Mood::Hang(phase(rng)),
        4 | 5 => Mood::Reset(phase(rng)),
        6 => Mood::Close(phase(rng)),
        7 | 8 => Mood::Late(phase(rng), rng.u64(SECOND..15 * MINUTE)),
        9 => Mood::Garbage(phase(rng)),
        10..13 => Mood::Says(phase(rng), WORDS[rng.usize(0..WORDS.len())]),
        13 => Mood::Refuses,
        14 => {
            if rng.bool() {
                Mood::RefusesContent
            } else {
                Mood::Few(rng.usize(1..3))
            }
        }
        15 => Mood::TakesAndHangs,
        16 => Mood::TakesAndResets,
        _ => Mood::TakesLate(rng.u64(SECOND..15 * MINUTE)),
    }
}

fn hearing(rng: &mut fastrand::Rng) -> Hearing {
    match rng.usize(0..13) {
        0 => Hearing::Refusing,
        1 => Hearing::Silent,
        2 | 3 => Hearing::Status([400, 404, 500, 302, 307][rng.usize(0..5)], None),
        4 => Hearing::Status([502, 503, 504][rng.usize(0..3)], None),
        5 | 6 => Hearing::Status([429, 503][rng.usize(0..2)], Some(rng.u64(0..900))),
        7 => Hearing::Hang,
        8 => Hearing::Reset,
        9 => Hearing::Garbage,
        10 => Hearing::Late(rng.u64(SECOND..MINUTE)),
        11 => Hearing::TakesAndResets,
        _ => {
            if rng.u8(0..4) == 0 {
                Hearing::Status(410, None)
            } else {
                Hearing::TakesAndHangs
            }
        }
    }
}

/// Most deaths come soon, some late.
fn death(rng: &mut fastrand::Rng) -> u64 {
    let most = 1 << rng.u32(4..14);
    rng.u64(1..most)
}

/// Octets of a message's text: lines of all kinds.
pub fn text(rng: &mut fastrand::Rng, size: usize) -> Bytes {
    let mut text = Vec::with_capacity(size + 80);
    while text.len() < size {
        match rng.usize(0..8) {
            0 => text.push(b'.'),
            1 => text.extend_from_slice(b".."),
            2 => text.extend_from_slice(b"From me"),
            3 => text.extend_from_slice("grüße ".as_bytes()),
            _ => {}
        }
        let most = if rng.u8(0..30) == 0 { 900 } else { 76 };
        text.extend((0..rng.usize(0..most)).map(|_| rng.u8(b' '..b'~')));
        text.extend_from_slice(b"\r\n");
    }
    text.into()
}
