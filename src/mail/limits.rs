//! What one session may, where that is less than what all sessions may.

use std::fmt;

/// `None`: what the configuration says of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Of one transaction.
    pub recipients: Option<u32>,
    /// Octets; what SIZE says (RFC 1870).
    pub message_size: Option<u64>,
    /// Refused commands before the end.
    pub errors: Option<u32>,
}

impl SessionLimits {
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for SessionLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recipients, message_size, errors } = self;
        let each = [
            ("recipients", recipients.map(u64::from)),
            ("message_size", *message_size),
            ("errors", errors.map(u64::from)),
        ];
        for (at, (name, most)) in each.iter().filter_map(|(name, most)| Some((name, (*most)?))).enumerate() {
            write!(f, "{}{name} {most}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}
