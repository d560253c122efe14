//! What intake's answers do: a step on, or a refusal, and always the one reply that the command waits for.

use std::fmt::Write as _;

use super::{Answer, Closed, Mail, Reply, Session, Waiting};
use crate::mail::{Envelope, Recipient};

impl Session {
    pub(super) fn take_answer(&mut self, waiting: Waiting, answer: Answer) {
        match waiting {
            Waiting::Connect => self.connected(answer),
            Waiting::Helo { esmtp } => self.helo_answered(esmtp, answer),
            Waiting::Mail { envelope, size, prdr } => self.mail_answered(*envelope, size, prdr, answer),
            Waiting::Rcpt(recipient) => self.rcpt_answered(*recipient, answer),
            Waiting::Message { recipients } => self.message_answered(recipients, answer),
        }
    }

    /// RFC 5321 §3.1: 220, or 554 or 421 and over. RFC 2034 §3: the greeting has no enhanced status.
    fn connected(&mut self, answer: Answer) {
        if let Answer::Within(limits) = answer {
            self.settings.narrow(limits);
        }
        match words_of(answer) {
            Some(reply) if !reply.is_positive() => {
                self.say(&Reply { status: None, ..reply });
                self.close(Closed::Refused);
            }
            Some(reply) => self.say(&Reply::bare(220, reply.text)),
            None => self.say(&Reply::bare(220, format!("{} ESMTP", self.settings.hostname))),
        }
    }

    fn helo_answered(&mut self, esmtp: bool, answer: Answer) {
        if let Some(reply) = words_of(answer).filter(|reply| !reply.is_positive()) {
            return self.turned_down(&reply);
        }
        // RFC 5321 §4.1.4: as RSET does.
        self.reset();
        self.greeted = true;
        let reply = if esmtp { self.extensions() } else { Reply::bare(250, self.settings.hostname.clone()) };
        self.say(&reply);
    }

    /// RFC 5321 §4.1.1.1
    fn extensions(&self) -> Reply {
        let mut text = self.settings.hostname.clone();
        text.push_str("\nPIPELINING");
        let _infallible = write!(text, "\nSIZE {}", self.settings.message_size);
        text.push_str("\n8BITMIME\nENHANCEDSTATUSCODES\nCHUNKING\nDSN\nSMTPUTF8\nPRDR");
        if self.may_start_tls() && self.has_certificate {
            text.push_str("\nSTARTTLS");
        }
        text.push_str("\nHELP");
        Reply::bare(250, text)
    }

    fn mail_answered(&mut self, envelope: Envelope, size: u64, prdr: bool, answer: Answer) {
        let words = words_of(answer);
        if let Some(reply) = words.as_ref().filter(|reply| !reply.is_positive()) {
            return self.turned_down(reply);
        }
        self.mail = Some(Mail { envelope, size, prdr, refused_recipients: false, body: None });
        self.say(&words.unwrap_or_else(|| Reply::new(250, 1, 0, "Sender ok")));
    }

    fn rcpt_answered(&mut self, mut recipient: Recipient, answer: Answer) {
        let Some(mail) = &mut self.mail else { return };
        let words = match answer {
            Answer::Redirect(address) => {
                recipient.original = Some(std::mem::replace(&mut recipient.address, address));
                None
            }
            other => words_of(other),
        };
        if let Some(reply) = words.as_ref().filter(|reply| !reply.is_positive()) {
            mail.refused_recipients = true;
            return self.turned_down(reply);
        }
        mail.envelope.recipients.push(recipient);
        self.say(&words.unwrap_or_else(|| Reply::new(250, 1, 5, "Recipient ok")));
    }

    fn message_answered(&mut self, recipients: usize, answer: Answer) {
        let last = match answer {
            Answer::Each { replies, last } => {
                // draft-hall-prdr-00 §4.5: one for each recipient that was accepted, in order, then the last.
                self.say(&Reply::bare(353, "What follows is for each recipient, then for all"));
                let missing = recipients.saturating_sub(replies.len());
                for reply in replies.iter().take(recipients).chain(std::iter::repeat_n(&last, missing)) {
                    self.say(reply);
                }
                last
            }
            other => words_of(other).unwrap_or_else(|| Reply::new(250, 0, 0, "Accepted")),
        };
        if last.is_positive() {
            self.errors = 0;
            self.idle_commands = 0;
            self.put_off = 0;
        }
        // A message that a rule refuses is no error of the protocol: it isn't counted.
        self.say(&last);
        self.final_reply_said();
        self.close_if_told(&last);
    }

    /// Intake said no.
    fn turned_down(&mut self, reply: &Reply) {
        self.decline(reply);
        self.close_if_told(reply);
    }

    /// RFC 5321 §3.8: 421 is the last that is said.
    fn close_if_told(&mut self, reply: &Reply) {
        if reply.code == 421 {
            self.close(Closed::Refused);
        }
    }
}

/// Intake's own words, where it has any.
fn words_of(answer: Answer) -> Option<Reply> {
    match answer {
        Answer::Reply(reply) => Some(reply),
        Answer::Each { last, .. } => Some(last),
        Answer::Accept | Answer::Within(_) | Answer::Redirect(_) => None,
    }
}
