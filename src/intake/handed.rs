//! A message that is handed in by another way than a session: the same questions in the same order, the same answers,
//! kept and sent as any other. `dev` takes mail over HTTP so.

use bytes::Bytes;

use super::Intake;
use super::combine::Combined;
use crate::event::{Event, Kind};
use crate::mail::{Address, Client, Envelope, MessageId, Recipient, Reply};
use crate::smtp::{Answer, Question, Transaction};
use crate::store::NewDelivery;

/// What it came to.
#[derive(Debug, Clone)]
pub struct Handed {
    /// What an SMTP client would have read last.
    pub reply: Reply,
    /// `None`: it was refused before it was a message.
    pub kept: Option<Heard>,
}

/// What was decided on a message and committed.
#[derive(Debug, Clone)]
pub struct Heard {
    pub id: MessageId,
    pub deliveries: Vec<NewDelivery>,
    /// Answers to its sender that the worker wrote.
    pub replies: Vec<Written>,
    pub events: Vec<Event>,
}

/// A mail that a worker wrote.
#[derive(Debug, Clone)]
pub struct Written {
    pub id: MessageId,
    pub from: String,
    pub raw: Bytes,
}

impl Heard {
    pub(super) fn of(id: MessageId, combined: &Combined) -> Self {
        let is_reply = |mail: MessageId| {
            let is_it = |event: &Event| matches!(&event.kind, Kind::Written { what, mail: of, .. } if *of == mail && what == "reply");
            combined.events.iter().any(is_it)
        };
        let written = combined.authored.iter().filter(|mail| is_reply(mail.id)).map(|mail| Written {
            id: mail.id,
            from: mail.header_from.clone().unwrap_or_default(),
            raw: mail.body.here().cloned().unwrap_or_default(),
        });
        let (deliveries, events) = (combined.deliveries.clone(), combined.events.clone());
        Self { id, deliveries, replies: written.collect(), events }
    }
}

impl Intake {
    /// Takes `raw`, with CRLF line ends, for one recipient. Runs to its end once begun.
    pub async fn hand_in(
        &self,
        session: u64,
        client: &Client,
        sender: Option<Address>,
        to: Address,
        raw: Bytes,
    ) -> Handed {
        let mut visit = self.open(session);
        visit.listens = true;
        let mut recipient = Recipient::new(to);
        let envelope = Envelope { sender, ..Envelope::default() };
        let name = client.helo.clone().unwrap_or_default();
        let questions = [
            Question::Connect,
            Question::Helo { name, esmtp: client.esmtp },
            Question::MailFrom { envelope: Box::new(envelope.clone()), size: raw.len() as u64 },
            Question::RcptTo { recipient: Box::new(recipient.clone()) },
        ];
        let mut limit = visit.config().limits.message_size;
        for question in questions {
            match self.answer(&mut visit, client, question).await {
                Answer::Reply(reply) if !reply.is_positive() => return Handed { reply, kept: None },
                Answer::Within(limits) => limit = limits.message_size.map_or(limit, |most| most.min(limit)),
                Answer::Redirect(address) => {
                    recipient.original = Some(std::mem::replace(&mut recipient.address, address));
                }
                _ => {}
            }
        }
        if raw.len() as u64 > limit {
            let reply = Reply::new(552, 3, 4, format!("The message is larger than {limit} octets"));
            return Handed { reply, kept: None };
        }
        let envelope = Envelope { recipients: vec![recipient], ..envelope };
        let transaction = Transaction { envelope, body: raw, handed_on: 0, prdr: false };
        let answer = self.answer(&mut visit, client, Question::Message(Box::new(transaction))).await;
        let kept = visit.heard.take();
        // Whoever handed it in reads the answer: nothing of it comes again.
        self.closed(&mut visit, true);
        let reply = match answer {
            Answer::Reply(reply) | Answer::Each { last: reply, .. } => reply,
            Answer::Accept | Answer::Within(_) | Answer::Redirect(_) => Reply::new(250, 0, 0, "Ok"),
        };
        Handed { reply, kept }
    }
}
