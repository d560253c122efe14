//! The id of a message: a ULID, so that ids sort by the time of arrival.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use super::Timestamp;

/// A ULID: 48 bits of Unix milliseconds, 80 bits of randomness; 26 characters of Crockford's base 32 in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Ulid);

impl MessageId {
    /// The id of a message that arrived at `now`; `random` gives its low 80 bits.
    #[must_use]
    pub fn new(now: Timestamp, random: u128) -> Self {
        Self(Ulid::from_parts(now.as_millis().unsigned_abs(), random))
    }

    /// The smallest id of that millisecond: a lower bound for ranges over time.
    #[must_use]
    pub fn floor(at: Timestamp) -> Self {
        Self::new(at, 0)
    }

    /// When the message arrived, to the millisecond.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX))
    }

    /// Big-endian, so that byte order is time order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_bytes()
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Ulid::from_bytes(bytes))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; ulid::ULID_LEN];
        f.write_str(self.0.array_to_str(&mut buffer))
    }
}

/// The text is no ULID.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a message id: expected 26 characters of 0-9 and A-Z without I, L, O, U")]
pub struct ParseIdError(String);

impl FromStr for MessageId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self).map_err(|_| ParseIdError(text.chars().take(64).collect()))
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
