//! What each command does, in the order in which a client says them.
//!
//! Every branch ends in exactly one reply, one question, or a stage that ends in one. A BDAT's octets are consumed
//! whatever is thought of it, so that none is ever taken for a command (RFC 3030 §2).

use super::{Action, Body, Closed, Command, Question, Reply, Session, Stage, Waiting, Wrong};
use crate::mail::{Envelope, Recipient};
use crate::smtp::command::envelope::needs_smtputf8;

/// So many NOOP, RSET, VRFY, HELP, EHLO and empty chunks without a message are free; each further one is an error.
const FREE_IDLE_COMMANDS: usize = 100;

impl Session {
    pub(super) fn carry_out(&mut self, parsed: Result<Command, Wrong>) -> Option<Action> {
        let command = match parsed {
            Ok(command) => command,
            Err(Wrong { reply, close }) => {
                self.refuse(None, &reply, None);
                if let Some(why) = close {
                    self.close_for(why);
                }
                return None;
            }
        };
        if self.is_idling(&command) && self.is_one_error_too_many() {
            return None;
        }
        if let Some(reply) = self.out_of_place(&command) {
            match command {
                Command::Bdat { size, last } => self.refuse_chunk(size, last, reply),
                Command::Rcpt(recipient) => {
                    if let Some(mail) = &mut self.mail {
                        mail.refused_recipients = true;
                    }
                    self.refuse(Some("rcpt"), &reply, Some(&recipient));
                }
                other => self.refuse(other.phase(), &reply, None),
            }
            return None;
        }
        match command {
            Command::Helo { name, esmtp } => {
                return Some(self.ask(Waiting::Helo { esmtp }, Question::Helo { name, esmtp }));
            }
            Command::Mail { envelope, size, prdr } => return Some(self.mail(envelope, size, prdr)),
            Command::Rcpt(recipient) => return Some(self.rcpt(recipient)),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.bdat(size, last),
            Command::Rset => {
                self.reset();
                self.say(&Reply::new(250, 0, 0, "Reset"));
            }
            Command::Noop => self.say(&Reply::new(250, 0, 0, "Done")),
            // RFC 5321 §3.5.3: who is here isn't told.
            Command::Vrfy => self.say(&Reply::new(252, 0, 0, "Not verified; RCPT tells")),
            Command::Help => self.say(&Reply::new(
                214,
                0,
                0,
                "EHLO HELO STARTTLS MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT\nRFC 5321 says what they do",
            )),
            Command::StartTls => self.start_tls(),
            Command::Quit => {
                self.say(&Reply::new(221, 0, 0, format!("{} Goodbye", self.settings.hostname)));
                self.close(Closed::Quit);
            }
        }
        None
    }

    /// Keeps a reason that came first: too many errors may have closed it already.
    fn close_for(&mut self, why: Closed) {
        if !matches!(self.stage, Stage::Closed(_)) {
            self.close(why);
        }
    }

    fn is_idling(&mut self, command: &Command) -> bool {
        let idle = matches!(
            command,
            Command::Helo { .. }
                | Command::Rset
                | Command::Noop
                | Command::Vrfy
                | Command::Help
                | Command::Bdat { size: 0, last: false }
        );
        self.idle_commands += usize::from(idle);
        idle && self.idle_commands > FREE_IDLE_COMMANDS
    }

    /// Whether the command may come now (RFC 5321 §4.1.4); the reply where it may not.
    fn out_of_place(&self, command: &Command) -> Option<Reply> {
        let secured = self.encrypted || !self.settings.tls_required;
        let before_tls =
            matches!(command, Command::Helo { esmtp: true, .. } | Command::Noop | Command::Quit | Command::StartTls);
        if !secured && !before_tls {
            // RFC 3207 §4
            return Some(Reply::new(530, 7, 0, "STARTTLS comes first"));
        }
        match command {
            Command::Mail { size, .. } => self.mail_out_of_place(*size),
            Command::Rcpt(recipient) => self.rcpt_out_of_place(recipient),
            Command::Data | Command::Bdat { .. } => self.data_out_of_place(matches!(command, Command::Data)),
            Command::StartTls if self.encrypted => Some(Reply::new(503, 5, 1, "TLS stands already")),
            Command::StartTls if !self.settings.starttls => Some(Reply::new(502, 5, 1, "STARTTLS is not offered")),
            // RFC 3207 §4
            Command::StartTls if !self.has_certificate => {
                Some(Reply::new(454, 7, 0, "TLS is not available now; there is no certificate"))
            }
            _ => None,
        }
    }

    fn mail_out_of_place(&self, size: u64) -> Option<Reply> {
        if !self.greeted {
            return Some(Reply::new(503, 5, 1, "EHLO or HELO comes first"));
        }
        if self.mail.is_some() {
            return Some(Reply::new(503, 5, 1, "MAIL was said already; RSET ends it"));
        }
        // RFC 1870 §6.1
        (size > self.settings.message_size).then(|| self.too_large())
    }

    fn rcpt_out_of_place(&self, recipient: &Recipient) -> Option<Reply> {
        let Some(mail) = &self.mail else {
            return Some(Reply::new(503, 5, 1, "MAIL comes first"));
        };
        if mail.body.is_some() {
            return Some(Reply::new(503, 5, 1, "The message has begun; it takes no more recipients"));
        }
        if mail.envelope.recipients.len() >= self.settings.recipients {
            // RFC 5321 §4.5.3.1.10
            return Some(Reply::new(452, 5, 3, "Too many recipients; send the rest in another transaction"));
        }
        (!recipient.address.is_ascii() && !mail.envelope.smtputf8).then(needs_smtputf8)
    }

    fn data_out_of_place(&self, is_data: bool) -> Option<Reply> {
        let Some(mail) = &self.mail else {
            return Some(Reply::new(503, 5, 1, "MAIL comes first"));
        };
        if mail.body.is_some() && is_data {
            // RFC 3030 §2: one message is all DATA or all BDAT.
            return Some(Reply::new(503, 5, 1, "The message has begun with BDAT"));
        }
        if !mail.envelope.recipients.is_empty() {
            return None;
        }
        // RFC 5321 §3.3
        Some(if mail.refused_recipients {
            Reply::new(554, 5, 1, "No valid recipients")
        } else {
            Reply::new(503, 5, 1, "RCPT comes first")
        })
    }

    fn mail(&mut self, envelope: Box<Envelope>, size: u64, prdr: bool) -> Action {
        self.failed_chunks = None;
        let question = Question::MailFrom { envelope: envelope.clone(), size };
        self.ask(Waiting::Mail { envelope, size, prdr }, question)
    }

    fn rcpt(&mut self, recipient: Box<Recipient>) -> Action {
        let question = Question::RcptTo { recipient: recipient.clone() };
        self.ask(Waiting::Rcpt(recipient), question)
    }

    fn data(&mut self) {
        let Some(mail) = &mut self.mail else { return };
        mail.body = Some(Body::of_data(self.settings.message_size, mail.size, self.settings.repair_line_ends));
        self.stage = Stage::Data;
        self.say(&Reply::bare(354, "Go on; CRLF.CRLF ends it"));
    }

    fn bdat(&mut self, size: u64, last: bool) {
        let Some(mail) = &mut self.mail else { return };
        let settings = &self.settings;
        let body = mail
            .body
            .get_or_insert_with(|| Body::of_chunks(settings.message_size, mail.size, settings.repair_line_ends));
        body.expect(size);
        self.stage = Stage::Chunk { left: size, last, refusal: None };
    }

    /// RFC 3030 §2: the octets of a chunk that isn't wanted are read first, then it is refused.
    fn refuse_chunk(&mut self, size: u64, last: bool, refusal: Reply) {
        self.stage = Stage::Chunk { left: size, last, refusal: Some(refusal) };
    }

    /// A chunk's last octet was read.
    pub(super) fn end_chunk(&mut self) {
        let Stage::Chunk { last, refusal, .. } = std::mem::replace(&mut self.stage, Stage::Command) else { return };
        if let Some(reply) = refusal {
            match self.failed_chunks.clone() {
                // Sent before the client could know that the message is lost: the same answer, and no new error.
                Some(failed) if self.mail.is_none() => {
                    if last {
                        self.failed_chunks = None;
                    }
                    self.say(&failed);
                }
                _ => self.refuse(Some("data"), &reply, None),
            }
            return;
        }
        let fault = self.mail.as_ref().and_then(|mail| mail.body.as_ref()).and_then(Body::fault).cloned();
        match fault {
            _ if last => self.stage = Stage::Received,
            Some(fault) => {
                let reply = self.fault_reply(&fault);
                self.refuse(Some("data"), &reply, None);
                self.mail = None;
                self.failed_chunks = Some(reply);
            }
            None => self.say(&Reply::new(250, 0, 0, "Go on")),
        }
    }

    fn start_tls(&mut self) {
        self.say(&Reply::new(220, 0, 0, "Go on"));
        // RFC 3207 §4.2: what was sent along in the clear is dropped, unread.
        self.input.clear();
        self.reset();
        self.greeted = false;
        self.stage = Stage::Handshake;
    }
}
