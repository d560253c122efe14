//! The state machine of one session: octets in, actions out, and a question wherever policy has to decide.
//!
//! This file: what the driver calls, and the loop. `session/verbs.rs`: what each command does. `session/answers.rs`:
//! what each answer of intake's does. One rule holds them together: every command gets exactly one reply, in order,
//! and after every error the session is in step with the peer. It never waits, reads a clock or does I/O.
//! Standards: RFC 5321 §3, §4.1.4 (order), §4.3 (sequence); RFC 2920 (pipelining); RFC 3030 §2 (BDAT).
//! Input: the peer's octets and intake's answers. Output: replies as octets, and [`Action`]s.

mod answers;
mod verbs;

use super::command::{self, Command, Wrong};
use super::data::{Body, Fault};
use super::input::{Input, Line};
use super::{Action, Answer, Closed, Question, Refusal, Settings, Transaction};
use crate::mail::{Envelope, Recipient, Reply};

/// Input that waits for an answer: beyond it the driver should stop reading.
const INPUT_LIMIT: usize = 64 * 1024;
/// Output that waits to be sent: beyond it no further command is carried out.
const OUTPUT_LIMIT: usize = 16 * 1024;
/// So many answers that put something off are free, or four times the recipients of one transaction, since each of these
/// may be put off; each further one is an error.
const FREE_PUT_OFFS: usize = 1_000;
/// Refusals kept for the log between two looks at them.
const MAX_REFUSALS: usize = 64;

/// One SMTP session, without its socket.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    input: Input,
    output: Vec<u8>,
    stage: Stage,
    /// The client has said who it is.
    greeted: bool,
    encrypted: bool,
    stopping: bool,
    mail: Option<Mail>,
    /// What a chunk was refused with: further ones of the same message, already on their way, get it too.
    failed_chunks: Option<Reply>,
    errors: usize,
    /// Commands that moved no mail since the last message.
    idle_commands: usize,
    /// Answers that put something off (4xx) since the last message.
    put_off: usize,
    /// There is a certificate; where it has gone since STARTTLS was offered, there is none to shake hands with.
    has_certificate: bool,
    acknowledgement: Acknowledgement,
    refusals: Vec<Refusal>,
}

/// What the session does next with what comes in.
#[derive(Debug)]
enum Stage {
    /// Nobody was asked whether this client may speak.
    New,
    /// Until [`Session::answer`].
    Waiting(Waiting),
    Command,
    /// DATA, up to its end.
    Data,
    /// So many more octets of BDAT, and what is said then.
    Chunk {
        left: u64,
        last: bool,
        refusal: Option<Reply>,
    },
    /// The message's last octet is there.
    Received,
    Handshake,
    Closed(Closed),
}

/// Which question is open, and what its answer needs.
#[derive(Debug)]
enum Waiting {
    Connect,
    Helo { esmtp: bool },
    Mail { envelope: Box<Envelope>, size: u64, prdr: bool },
    Rcpt(Box<Recipient>),
    Message { recipients: usize },
}

/// A transaction under way: MAIL was accepted (RFC 5321 §3.3).
#[derive(Debug)]
struct Mail {
    envelope: Envelope,
    /// SIZE=, 0 where it wasn't given.
    size: u64,
    prdr: bool,
    refused_recipients: bool,
    /// From 354 or the first BDAT on.
    body: Option<Body>,
}

/// Whether the client is known to have read our last final reply to a message (RFC 1047).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acknowledgement {
    /// There was none.
    Nothing,
    Unsent,
    Sent,
    Known,
}

impl Session {
    /// Before the greeting: the first action is the question Connect.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            input: Input::default(),
            output: Vec::new(),
            stage: Stage::New,
            greeted: false,
            encrypted: false,
            stopping: false,
            mail: None,
            failed_chunks: None,
            errors: 0,
            idle_commands: 0,
            put_off: 0,
            has_certificate: true,
            acknowledgement: Acknowledgement::Nothing,
            refusals: Vec::new(),
        }
    }

    /// Takes octets from the peer, at any time. Then [`Session::poll`].
    pub fn push(&mut self, octets: &[u8]) {
        if octets.is_empty() || matches!(self.stage, Stage::Closed(_) | Stage::Handshake) {
            // RFC 3207 §4.2: what comes in the clear after STARTTLS was never said.
            return;
        }
        if self.acknowledgement == Acknowledgement::Sent {
            self.acknowledgement = Acknowledgement::Known;
        }
        // A body goes where it belongs without a stop in the buffer.
        let used = if self.input.is_empty() { self.receive(octets) } else { 0 };
        self.input.push(octets.get(used..).unwrap_or_default());
    }

    /// Whether more octets should be read now; `false` while enough are buffered that wait for an answer.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.input.len() < INPUT_LIMIT && self.output.len() < OUTPUT_LIMIT
    }

    /// What to do next. To be called after each `push`, `answer`, `tls_started`, `time_out`, `shut_down`, `early_talk`
    /// and `refuse_body`, and after what `Flush` asks for is done. With a question open it says `Read`.
    pub fn poll(&mut self) -> Action {
        loop {
            match &self.stage {
                Stage::Closed(why) => return Action::Close(*why),
                Stage::Handshake => return Action::StartTls,
                Stage::Waiting(_) => return self.read_on(),
                _ if self.output.len() >= OUTPUT_LIMIT => return Action::Flush,
                Stage::New | Stage::Command if self.stopping && !self.is_receiving_data() => {
                    self.say(&Reply::new(421, 3, 2, "This server is shutting down; try again soon"));
                    self.close(Closed::Told);
                }
                Stage::New => return self.ask(Waiting::Connect, Question::Connect),
                Stage::Command => {
                    let Some(parsed) = self.next_command() else { return self.read_on() };
                    if let Some(action) = self.carry_out(parsed) {
                        return action;
                    }
                }
                Stage::Data | Stage::Chunk { left: 1.., .. } if self.input.is_empty() => return self.read_on(),
                Stage::Data | Stage::Chunk { left: 1.., .. } => self.receive_buffered(),
                Stage::Chunk { .. } => self.end_chunk(),
                Stage::Received => {
                    if let Some(action) = self.end_message() {
                        return action;
                    }
                }
            }
        }
    }

    fn read_on(&self) -> Action {
        let within_message = matches!(self.stage, Stage::Data | Stage::Chunk { .. });
        let timeout = if within_message { self.settings.data_timeout } else { self.settings.command_timeout };
        Action::Read { timeout }
    }

    fn ask(&mut self, waiting: Waiting, question: Question) -> Action {
        self.stage = Stage::Waiting(waiting);
        Action::Ask(question)
    }

    /// Cuts the next command out of the input; `None` while its line isn't whole.
    fn next_command(&mut self) -> Option<Result<Command, Wrong>> {
        self.input.next_line().map(|line| match line {
            Line::Text(line) => command::parse(line),
            Line::TooLong => Err(command::too_long().into()),
            Line::Handshake => {
                let reply = Reply::new(554, 7, 0, "TLS starts after STARTTLS here");
                Err(Wrong { reply, close: Some(Closed::NotSmtp) })
            }
            Line::BareLf => Err(Reply::new(500, 5, 2, "A line ends in CRLF").into()),
        })
    }

    /// Hands octets to the message being received. How many it took.
    fn receive(&mut self, octets: &[u8]) -> usize {
        let body = self.mail.as_mut().and_then(|mail| mail.body.as_mut());
        match (&mut self.stage, body) {
            (Stage::Data, Some(body)) => {
                let (used, ended) = body.data(octets);
                if ended {
                    self.stage = Stage::Received;
                }
                used
            }
            (Stage::Chunk { left, refusal, .. }, body) => {
                let used = octets.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                if let (Some(body), None) = (body, refusal) {
                    body.chunk(octets.get(..used).unwrap_or_default());
                }
                *left -= used as u64;
                used
            }
            _ => 0,
        }
    }

    fn receive_buffered(&mut self) {
        let mut input = std::mem::take(&mut self.input);
        let used = self.receive(input.octets());
        input.consume(used);
        self.input = input;
    }

    /// Answers the question that `poll` asked. Without an open question: nothing.
    pub fn answer(&mut self, answer: Answer) {
        match std::mem::replace(&mut self.stage, Stage::Command) {
            Stage::Waiting(waiting) => self.take_answer(waiting, answer),
            other => self.stage = other,
        }
    }

    /// Answers the question with a refusal of the driver's own, which is noted for the log as the session's are.
    pub fn turn_down(&mut self, reply: &Reply) {
        let recipient = match &self.stage {
            Stage::Waiting(Waiting::Rcpt(recipient)) => Some(recipient.clone()),
            _ => None,
        };
        self.note_refusal(self.phase(), reply, recipient.as_deref());
        self.answer(Answer::Reply(reply.clone()));
    }

    /// TLS stands: back to before EHLO, and STARTTLS is no longer offered (RFC 3207 §4.2).
    /// Also to be called before the first `poll` where TLS is implicit.
    pub fn tls_started(&mut self) {
        self.encrypted = true;
        self.input.clear();
        self.reset();
        self.greeted = false;
        if matches!(self.stage, Stage::Handshake) {
            self.stage = Stage::Command;
        }
    }

    /// What is to be sent to the peer.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The first `count` octets of the output are on their way.
    pub fn sent(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
        self.all_sent();
    }

    /// All the output at once, in place of `output` and `sent`; `into` is appended to.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        into.append(&mut self.output);
        self.all_sent();
    }

    fn all_sent(&mut self) {
        if self.output.is_empty() && self.acknowledgement == Acknowledgement::Unsent {
            self.acknowledgement = Acknowledgement::Sent;
        }
    }

    /// It took too long, as `why` says: 421 4.4.2, and over.
    pub fn time_out(&mut self, why: &str) {
        self.tell(&Reply::new(421, 4, 2, why.to_owned()));
    }

    /// The server stops: 421 4.3.2 as soon as no message is on its way, and over.
    pub fn shut_down(&mut self) {
        self.stopping = true;
    }

    /// Whether there still is a certificate: to be said before octets are pushed in which STARTTLS may stand.
    pub fn has_certificate(&mut self, is_there: bool) {
        self.has_certificate = is_there;
    }

    /// STARTTLS was offered and may still come.
    #[must_use]
    pub fn may_start_tls(&self) -> bool {
        self.settings.starttls && !self.encrypted
    }

    /// The peer spoke before the greeting: 554 in its place (RFC 5321 §3.1), and over.
    /// The open question needs no answer any more.
    pub fn early_talk(&mut self) {
        if matches!(self.stage, Stage::New | Stage::Waiting(Waiting::Connect)) {
            let reply = Reply::bare(554, format!("{} A client waits for the greeting", self.settings.hostname));
            self.note_refusal("connect", &reply, None);
            self.say(&reply);
            self.close(Closed::Refused);
        }
    }

    fn tell(&mut self, reply: &Reply) {
        match self.stage {
            Stage::Closed(_) => {}
            // Plain octets would break the handshake that is under way.
            Stage::Handshake => self.close(Closed::Told),
            _ => {
                self.say(reply);
                self.close(Closed::Told);
            }
        }
    }

    /// There is no memory for the message being received: the rest of it is read and thrown away, then `reply` is said,
    /// and the session goes on. Nothing where no body is being received.
    pub fn refuse_body(&mut self, reply: Reply) {
        if let Some(body) = self.mail.as_mut().and_then(|mail| mail.body.as_mut()) {
            body.spoil(Fault::Refused(reply));
        }
    }

    /// How many octets of memory the message being received holds.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.mail.as_ref().and_then(|mail| mail.body.as_ref()).map_or(0, Body::memory)
    }

    /// The same once `count` more octets have come in: to be asked before they are pushed.
    #[must_use]
    pub fn body_len_after(&self, count: usize) -> usize {
        self.mail.as_ref().and_then(|mail| mail.body.as_ref()).map_or(0, |body| body.memory_after(count))
    }

    /// How many octets [`Self::hand_on`] would give now.
    #[must_use]
    pub fn to_hand_on(&self) -> usize {
        let body = self.mail.as_ref().and_then(|mail| mail.body.as_ref()).filter(|body| body.fault().is_none());
        body.map_or(0, Body::buffered)
    }

    /// What has come of the message being received so far, so that it needn't lie in memory: to be kept in order until
    /// the message is asked about, or until nothing of it is wanted any more ([`Session::handed_on`] is 0).
    /// `again`: about how much will come until this is called the next time.
    pub fn hand_on(&mut self, again: usize) -> Vec<u8> {
        let body = self.mail.as_mut().and_then(|mail| mail.body.as_mut()).filter(|body| body.fault().is_none());
        body.map_or_else(Vec::new, |body| body.hand_on(again))
    }

    /// Octets of the message being received that were handed on; 0 where it was refused or given up.
    #[must_use]
    pub fn handed_on(&self) -> u64 {
        let body = self.mail.as_ref().and_then(|mail| mail.body.as_ref()).filter(|body| body.fault().is_none());
        body.map_or(0, Body::handed_on)
    }

    /// Where the session stands, as events name it: connect, helo, mail, rcpt, data.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        match &self.stage {
            Stage::New | Stage::Waiting(Waiting::Connect) => "connect",
            Stage::Waiting(Waiting::Helo { .. }) => "helo",
            Stage::Waiting(Waiting::Message { .. }) | Stage::Data | Stage::Chunk { .. } | Stage::Received => "data",
            _ if self.is_receiving_data() => "data",
            _ if self.mail.is_some() => "rcpt",
            _ if self.greeted => "mail",
            _ => "helo",
        }
    }

    /// A message's octets are on their way: after DATA's 354, or within or between the chunks of BDAT, wanted or not.
    #[must_use]
    pub fn is_receiving_data(&self) -> bool {
        matches!(self.stage, Stage::Chunk { .. }) || self.mail.as_ref().is_some_and(|mail| mail.body.is_some())
    }

    /// The client has gone on speaking after our last final reply to a message was sent, so it has read it (RFC 1047).
    #[must_use]
    pub fn acknowledged(&self) -> bool {
        self.acknowledgement == Acknowledgement::Known
    }

    /// What the session refused by itself since the last call.
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }

    fn say(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
    }

    fn close(&mut self, why: Closed) {
        self.stage = Stage::Closed(why);
        self.mail = None;
        self.input.clear();
    }

    /// Nothing of a transaction is left (RSET, EHLO, the end of a message).
    fn reset(&mut self) {
        self.mail = None;
        self.failed_chunks = None;
    }

    /// Refuses a command by the session's own judgement.
    fn refuse(&mut self, phase: Option<&'static str>, reply: &Reply, recipient: Option<&Recipient>) {
        self.note_refusal(phase.unwrap_or_else(|| self.phase()), reply, recipient);
        self.decline(reply);
    }

    /// Says no, and counts it where it is for good: a peer that goes on guessing is shown out. One that is put off may
    /// go on trying for long, but not without end.
    fn decline(&mut self, reply: &Reply) {
        self.put_off += usize::from(!reply.is_permanent());
        let free = FREE_PUT_OFFS.max(self.settings.recipients.saturating_mul(4));
        if (reply.is_permanent() || self.put_off > free) && self.is_one_error_too_many() {
            return;
        }
        self.say(reply);
    }

    fn is_one_error_too_many(&mut self) -> bool {
        self.errors += 1;
        let too_many = self.errors > self.settings.errors;
        if too_many {
            self.say(&Reply::new(421, 7, 0, "Too many errors; closing"));
            self.close(Closed::TooManyErrors);
        }
        too_many
    }

    fn note_refusal(&mut self, phase: &'static str, reply: &Reply, recipient: Option<&Recipient>) {
        if self.refusals.len() < MAX_REFUSALS {
            let sender = self.mail.as_ref().map(|mail| {
                mail.envelope.sender.as_ref().map_or_else(|| "<>".to_owned(), |sender| sender.as_str().to_owned())
            });
            let recipient = recipient.map(|recipient| recipient.address.as_str().to_owned());
            self.refusals.push(Refusal { phase, sender, recipient, reply: reply.clone() });
        }
    }

    /// The message's last octet was read: a question, or the refusal it deserves.
    fn end_message(&mut self) -> Option<Action> {
        self.stage = Stage::Command;
        let mail = self.mail.take()?;
        self.failed_chunks = None;
        let handed_on = mail.body.as_ref().map_or(0, Body::handed_on);
        let fault = match mail.body.map(Body::finish) {
            Some(Ok(body)) => {
                let waiting = Waiting::Message { recipients: mail.envelope.recipients.len() };
                let transaction = Transaction { envelope: mail.envelope, body, handed_on, prdr: mail.prdr };
                return Some(self.ask(waiting, Question::Message(Box::new(transaction))));
            }
            Some(Err(fault)) => fault,
            None => return None,
        };
        let reply = self.fault_reply(&fault);
        let sender = mail.envelope.sender.map(|sender| sender.to_string());
        if self.refusals.len() < MAX_REFUSALS {
            let sender = Some(sender.unwrap_or_else(|| "<>".to_owned()));
            self.refusals.push(Refusal { phase: "data", sender, recipient: None, reply: reply.clone() });
        }
        self.decline(&reply);
        self.final_reply_said();
        None
    }

    fn final_reply_said(&mut self) {
        self.acknowledgement = Acknowledgement::Unsent;
    }

    fn fault_reply(&self, fault: &Fault) -> Reply {
        match fault {
            // RFC 1870 §6.3
            Fault::TooLarge => self.too_large(),
            Fault::BareLineEnd => Reply::new(550, 6, 0, "A bare CR or LF: lines of a message end in CRLF"),
            Fault::Nul => Reply::new(550, 6, 0, "A NUL has no place in a message"),
            Fault::Refused(reply) => reply.clone(),
        }
    }

    fn too_large(&self) -> Reply {
        Reply::new(552, 3, 4, format!("A message has at most {} octets here", self.settings.message_size))
    }
}
