//! What a run may ask of the world outside, in words: a request, its answer, and who is asked.
//!
//! Rules ask and never connect: the caller lends a [`Reach`], as it lends the keys. All that is asked is a read. A run that
//! is tried for a moment has nobody to ask: it ends at its first request, and is made anew where it may wait.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;

use super::outcome::Place;
use crate::diagnostic::shown_url;

/// One request. Equal ones of one message are one and the same to whoever keeps their answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    Fetch(Fetch),
    /// To the endpoint of `[ai]`: the model, for the trace; the body as it is sent; the largest answer.
    Ai {
        model: String,
        body: String,
        most: usize,
    },
    Dns {
        name: String,
        kind: Record,
    },
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fetch {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Of its own; without one the configuration's.
    pub timeout: Option<Duration>,
    /// The largest answer, in octets.
    pub most: usize,
}

/// Types of records that can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Record {
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Srv,
    Txt,
}

impl Record {
    pub const ALL: [Self; 8] = [Self::A, Self::Aaaa, Self::Cname, Self::Mx, Self::Ns, Self::Ptr, Self::Srv, Self::Txt];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }

    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

impl Request {
    /// About how much memory it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        EACH + match self {
            Self::Fetch(fetch) => fetch.url.len() + octets_of(&fetch.headers) + fetch.body.len(),
            Self::Ai { model, body, .. } => model.len() + body.len(),
            Self::Dns { name, .. } => name.len(),
        }
    }

    /// As it may stand in a trace: of a URL its host alone. `hide` takes secrets out of a text, before it is cut.
    #[must_use]
    pub fn shown(&self, hide: impl Fn(&str) -> String) -> String {
        match self {
            Self::Fetch(fetch) => format!("{} {}", fetch.method, hide(&shown_url(&fetch.url))),
            Self::Ai { model, .. } if model.is_empty() => "ai".to_owned(),
            Self::Ai { model, .. } => format!("ai {}", clipped(&hide(model))),
            Self::Dns { name, kind } => format!("DNS {} {}", kind.name(), clipped(&hide(name))),
        }
    }
}

/// Octets that each thing takes beside what it holds, about.
const EACH: usize = 64;

fn octets_of(headers: &[(String, String)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + EACH).sum()
}

fn clipped(text: &str) -> String {
    const MOST: usize = 255;
    let cut = text.floor_char_boundary(MOST);
    text.get(..cut).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What came of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Http {
        status: u16,
        /// Names in lower case.
        headers: Vec<(String, String)>,
        body: Bytes,
    },
    /// Strings; of MX `{ preference, host }`, of SRV `{ priority, weight, port, target }`. None where there is none.
    Records(Vec<Json>),
}

impl Answer {
    /// About how much memory it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        EACH + match self {
            Self::Http { headers, body, .. } => octets_of(headers) + body.len(),
            Self::Records(records) => records.iter().map(|record| record.to_string().len() * 2 + EACH).sum(),
        }
    }

    /// As it stands in a trace.
    #[must_use]
    pub fn shown(&self, hide: impl Fn(&str) -> String) -> String {
        match self {
            Self::Http { status, body, .. } => format!("{status}, {} octets", body.len()),
            Self::Records(records) => match records.as_slice() {
                [] => "no records".to_owned(),
                [only] => clipped(&hide(&only.to_string())),
                [first, more @ ..] => format!("{} and {} more", clipped(&hide(&first.to_string())), more.len()),
            },
        }
    }
}

/// Why there is no answer, in words for the script's author. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// An error that a script may catch: whoever was asked gave no answer.
    #[error("{0}")]
    Unanswered(String),
    /// One of our own making, which a script may catch likewise: it isn't allowed, or there was no place or time left for
    /// it. It says nothing of whoever was to be asked.
    #[error("{0}")]
    Limited(String),
    /// The run ends here: it has no right to ask, no room, no fixture.
    #[error("{0}")]
    Ends(String),
}

/// What asking came to.
#[derive(Debug, Clone)]
pub struct Asked {
    pub result: Result<Answer, Failed>,
    pub took: Duration,
    /// It was asked before, in an earlier run for the same message.
    pub kept: bool,
}

/// Whoever asks for a run. Called from a thread that may block.
pub trait Reach: Send + Sync {
    /// Asks, and waits for at most `within`. `nth`: how many equal requests this run has made before.
    fn ask(&self, request: &Request, nth: usize, within: Duration) -> Asked;
}

/// The one who asks, lent to a run; or nobody.
#[derive(Clone, Default)]
pub struct Lent(Option<Arc<dyn Reach>>);

impl Lent {
    #[must_use]
    pub fn new(reach: Arc<dyn Reach>) -> Self {
        Self(Some(reach))
    }

    pub(super) fn ask(&self, request: &Request, nth: usize, within: Duration) -> Asked {
        if let Some(reach) = &self.0 {
            return reach.ask(request, nth, within);
        }
        let why = "nothing outside can be reached from here".to_owned();
        Asked { result: Err(Failed::Ends(why)), took: Duration::ZERO, kept: false }
    }
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Lent(…)" } else { "Lent(nobody)" })
    }
}

/// One request that a run made, for the trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    pub at: Place,
    pub what: String,
    /// What was answered, or why nothing was.
    pub answer: String,
    pub failed: bool,
    pub took: Duration,
    pub kept: bool,
}

/// The name that a list of addresses is asked by (RFC 5782 §2.1 and §2.4).
#[must_use]
pub fn listed_name(ip: IpAddr, zone: &str) -> String {
    let zone = zone.trim_matches('.');
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.{zone}")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            let mut labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            labels.push(zone.to_owned());
            labels.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_asked_by_the_address_turned_round() {
        assert_eq!(listed_name("192.0.2.99".parse().unwrap(), "bad.example.com."), "99.2.0.192.bad.example.com");
        assert_eq!(listed_name("::ffff:192.0.2.99".parse().unwrap(), "l.example"), "99.2.0.192.l.example");
        assert_eq!(
            listed_name("2001:db8:1:2:3:4:567:89ab".parse().unwrap(), "ugly.example.com"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example.com"
        );
    }

    #[test]
    fn a_trace_shows_no_key() {
        let fetch = |url: &str| {
            let fetch = Fetch {
                method: "GET".into(),
                url: url.into(),
                headers: vec![("authorization".into(), "key".into())],
                body: Bytes::new(),
                timeout: None,
                most: 1,
            };
            Request::Fetch(fetch).shown(str::to_owned)
        };
        assert_eq!(fetch("https://user:key@api.example.net/key?key=key"), "GET https://api.example.net/…");
        let name = Request::Dns { name: "a\r\nb".into(), kind: Record::Txt };
        assert_eq!(name.shown(str::to_owned), "DNS TXT a  b");
    }
}
