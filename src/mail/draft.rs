//! A mail that a worker wants written: data, checked where it was asked for; `compose` makes octets of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Address;

/// The field that counts workers that wrote because of each other.
pub const HOPS: &str = "X-Mailworker-Hops";

/// All that is said of one new mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    pub purpose: Purpose,
    pub from: Named,
    pub to: Vec<Named>,
    pub cc: Vec<Named>,
    pub bcc: Vec<Named>,
    pub reply_to: Vec<Named>,
    pub subject: String,
    pub text: Option<String>,
    pub html: Option<String>,
    /// Further fields, in order.
    pub headers: Vec<(String, String)>,
    pub attachments: Vec<Enclosure>,
    /// It goes out with the null sender: nothing that comes of it comes back (RFC 5321 §4.5.5).
    pub null_sender: bool,
    /// Workers that have written before it, one because of the other.
    pub hops: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// `ctx.send`
    New,
    /// `message.reply`
    Reply {
        in_reply_to: Option<String>,
        /// The oldest first.
        references: Vec<String>,
        once: Once,
    },
}

/// Whom no second answer goes to for a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Once {
    /// Of the two that write to each other.
    pub key: String,
    /// Seconds.
    pub every: u64,
}

/// An address with the name of whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    pub name: Option<String>,
    pub address: Address,
}

/// Something that goes along.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enclosure {
    pub filename: Option<String>,
    pub content_type: String,
    pub content: Bytes,
    /// What the HTML calls it: `<img src="cid:…">`.
    pub content_id: Option<String>,
    pub inline: bool,
}

impl Draft {
    /// Everybody that it goes to.
    pub fn recipients(&self) -> impl Iterator<Item = &Address> {
        self.to.iter().chain(&self.cc).chain(&self.bcc).map(|named| &named.address)
    }

    /// About as many octets as it has before they are encoded.
    #[must_use]
    pub fn weight(&self) -> usize {
        let texts = [&self.text, &self.html].into_iter().flatten().map(String::len).sum::<usize>();
        let fields = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.subject.len() + texts + fields + self.attachments.iter().map(|one| one.content.len()).sum::<usize>()
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}
