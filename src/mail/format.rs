//! The formats in which a webhook carries a message.

use serde::{Deserialize, Serialize};

/// Whose names its fields have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum PayloadFormat {
    /// Our own.
    #[default]
    Standard,
    Mailgun,
    /// The message itself, in a form.
    MailgunMime,
    Sendgrid,
    SendgridRaw,
    Postmark,
    Cloudmailin,
}

impl PayloadFormat {
    pub const ALL: [Self; 7] = [
        Self::Standard,
        Self::Mailgun,
        Self::MailgunMime,
        Self::Sendgrid,
        Self::SendgridRaw,
        Self::Postmark,
        Self::Cloudmailin,
    ];

    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Mailgun => "mailgun",
            Self::MailgunMime => "mailgun-mime",
            Self::Sendgrid => "sendgrid",
            Self::SendgridRaw => "sendgrid-raw",
            Self::Postmark => "postmark",
            Self::Cloudmailin => "cloudmailin",
        }
    }

    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.word() == word)
    }
}
