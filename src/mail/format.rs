//! The formats in which a webhook carries a message.

use serde::{Deserialize, Serialize};

/// Whose names its fields have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PayloadFormat {
    /// Our own.
    #[default]
    Standard,
    Mailgun,
    Sendgrid,
    Postmark,
    Cloudmailin,
}

impl PayloadFormat {
    pub const ALL: [Self; 5] = [Self::Standard, Self::Mailgun, Self::Sendgrid, Self::Postmark, Self::Cloudmailin];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Mailgun => "mailgun",
            Self::Sendgrid => "sendgrid",
            Self::Postmark => "postmark",
            Self::Cloudmailin => "cloudmailin",
        }
    }

    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.word() == word)
    }
}
