//! `dev --demo`: the sample messages go in by SMTP, and what became of each is shown: the server's answer, the decision
//! with its line, the webhook and the forward as they were captured. What doesn't arrive in time fails the command.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::time::Instant;

use super::capture::{Caught, Sink};
use crate::app::App;
use crate::cli::args::SendTls;
use crate::cli::dialogue::{self, Handed, Letter, Peer};
use crate::cli::print::{self, BAD, BOLD, DIM, GOOD, Painted, plain, short};
use crate::cli::{Done, Failure, show};
use crate::event::{Event, Kind};
use crate::mail::{Address, MessageId, Reply};

/// For all of it. Each step takes milliseconds; a machine that is busy gets more.
const TIME: Duration = Duration::from_secs(8);

/// One message, and what is to become of it by the built-in rules.
struct Sample {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    octets: &'static [u8],
    fate: Fate,
}

enum Fate {
    /// A webhook tells of it, and it goes on to this address.
    Forwarded(&'static str),
    /// The worker refuses the message.
    Rejected,
    /// The server refuses the recipient before there is a message.
    Refused,
}

const SAMPLES: [Sample; 6] = [
    Sample {
        what: "a customer asks for help",
        from: "ann@customer.example",
        to: "support@example.com",
        octets: include_bytes!("../demo/support.eml"),
        fate: Fate::Forwarded("team@example.net"),
    },
    Sample {
        what: "a buyer asks for a price, in UTF-8 and with an attachment",
        from: "jorg@buyer.example",
        to: "sales@example.com",
        octets: include_bytes!("../demo/sales.eml"),
        fate: Fate::Forwarded("sales@example.net"),
    },
    Sample {
        what: "a question to the general address",
        from: "press@paper.example",
        to: "info@example.com",
        octets: include_bytes!("../demo/info.eml"),
        fate: Fate::Forwarded("office@example.net"),
    },
    Sample {
        what: "an address that no rule names",
        from: "ben@friend.example",
        to: "whoever@example.com",
        octets: include_bytes!("../demo/unnamed.eml"),
        fate: Fate::Forwarded("office@example.net"),
    },
    Sample {
        what: "spam",
        from: "winner@prizes.example",
        to: "info@example.com",
        octets: include_bytes!("../demo/spam.eml"),
        fate: Fate::Rejected,
    },
    Sample {
        what: "mail for a domain that isn't ours",
        from: "ann@customer.example",
        to: "someone@elsewhere.example",
        octets: include_bytes!("../demo/relay.eml"),
        fate: Fate::Refused,
    },
];

/// What is known of one sample so far.
#[derive(Default)]
struct Story {
    id: Option<MessageId>,
    decided: Vec<String>,
    forward: Option<String>,
    webhook: Option<String>,
}

pub async fn run(app: &App, mut events: Receiver<Arc<Event>>, sink: &mut Sink) -> Done {
    let listening = app.listening();
    let address = listening.first().and_then(|listening| listening.address.parse().ok());
    let address = address.ok_or_else(|| Failure::Failed("no listener".to_owned()))?;
    let peer = Peer { address, tls: SendTls::Off, timeout: TIME };
    let end = Instant::now() + TIME;
    let mut missing = 0;
    for (sample, number) in SAMPLES.iter().zip(1..) {
        print::line(format_args!("{}", Painted(BOLD, format!("{number}. {}", sample.what))))?;
        field("mail", format_args!("{} → {}  {:?}", sample.from, sample.to, subject(sample)))?;
        let handed = dialogue::hand_over(&peer, &letter(sample)?, &mut |_, _| Ok(())).await?;
        field("answer", format_args!("{}", answer(&handed)))?;
        let story = follow(sample, &mut events, sink, end).await;
        missing += tell(sample, &handed, &story)?;
        print::line("")?;
    }
    if missing > 0 {
        return Err(Failure::Failed(format!("{missing} of the things that should have happened did not")));
    }
    let sent = SAMPLES.len();
    print::line(format_args!(
        "{}: {sent} messages sent; each was answered, decided, told of and forwarded as rules/main.rhai says.",
        Painted(GOOD, "done")
    ))?;
    print::line("Next: `mailworker init mail && cd mail && mailworker dev`, then change rules/main.rhai and watch.")
}

fn letter(sample: &Sample) -> Result<Letter, Failure> {
    let address = |text: &str| Address::parse(text).map_err(Failure::failed);
    Ok(Letter {
        sender: Some(address(sample.from)?),
        recipients: vec![address(sample.to)?],
        octets: dialogue::with_crlf(sample.octets),
    })
}

fn subject(sample: &Sample) -> &str {
    header(sample, "Subject")
}

/// A field of a sample, which none of them folds.
fn header(sample: &Sample, name: &str) -> &'static str {
    let text = std::str::from_utf8(sample.octets).unwrap_or_default();
    let fields = text.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(": "));
    fields.filter(|(field, _)| *field == name).map(|(_, value)| value).next().unwrap_or_default()
}

/// The answer that settled it.
fn answer(handed: &Handed) -> String {
    let settled = handed.message.as_ref().or(handed.recipients.last());
    let Some(reply) = settled else { return "none".to_owned() };
    let style = if reply.is_positive() { GOOD } else { BAD };
    Painted(style, plain(&reply.to_string())).to_string()
}

/// Collects events and captures until all that should happen has, or time is up.
async fn follow(sample: &Sample, events: &mut Receiver<Arc<Event>>, sink: &mut Sink, end: Instant) -> Story {
    let mut story = Story::default();
    // By its Message-ID, which our own trace fields leave alone: a capture can come before the event that tells its id.
    let own = header(sample, "Message-ID").trim_matches(['<', '>']);
    let mut calls = Vec::new();
    while !story.is_told(sample) {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => story.hear(sample, &event),
                // Those that were missed show as what is missing.
                Err(_lagged) => {}
            },
            Some(caught) = sink.caught.recv() => match caught {
                Caught::Mail { ref octets, .. } if memchr::memmem::find(octets, own.as_bytes()).is_some() => {
                    story.forward = Some(caught.to_string());
                }
                Caught::Call { ref body, .. } => calls.push((body.clone(), caught.to_string())),
                Caught::Mail { .. } => {}
            },
            () = tokio::time::sleep_until(end) => break,
        }
        if let Some(id) = story.id {
            let id = id.to_string();
            let about = calls.iter().find(|(body, _)| memchr::memmem::find(body, id.as_bytes()).is_some());
            if let Some((body, line)) = about {
                story.webhook = Some(format!("{line}\n            {}", short(&String::from_utf8_lossy(body), 160)));
            }
        }
    }
    story
}

impl Story {
    fn hear(&mut self, sample: &Sample, event: &Event) {
        match &event.kind {
            Kind::Received { sender: Some(sender), recipients, .. }
                if sender.as_str() == sample.from && recipients.iter().any(|to| to.as_str() == sample.to) =>
            {
                self.id = event.message;
            }
            Kind::Decided(decision) if decision.recipient.as_str() == sample.to => self.decided = show::event(event),
            _ => {}
        }
    }

    fn is_told(&self, sample: &Sample) -> bool {
        match sample.fate {
            Fate::Forwarded(_) => !self.decided.is_empty() && self.forward.is_some() && self.webhook.is_some(),
            Fate::Rejected => !self.decided.is_empty(),
            Fate::Refused => true,
        }
    }
}

/// Prints the story; how much of it is missing or other than it should be.
fn tell(sample: &Sample, handed: &Handed, story: &Story) -> Result<u32, Failure> {
    let mut missing = 0;
    let mut lines = story.decided.iter();
    if let Some(first) = lines.next() {
        print::line(format_args!("  {first}"))?;
    }
    lines.try_for_each(|line| print::line(format_args!("          {line}")))?;
    let mut expect = |name: &str, found: Option<&str>| {
        missing += u32::from(found.is_none());
        field(name, format_args!("{}", found.unwrap_or("missing")))
    };
    match sample.fate {
        Fate::Forwarded(to) => {
            expect("webhook", story.webhook.as_deref())?;
            expect("forward", story.forward.as_deref().filter(|line| line.contains(to)))?;
            missing += u32::from(!handed.is_complete());
        }
        Fate::Rejected => {
            missing += u32::from(story.decided.is_empty());
            missing += u32::from(!handed.message.as_ref().is_some_and(Reply::is_permanent));
        }
        Fate::Refused => {
            missing += u32::from(!handed.recipients.iter().all(Reply::is_permanent) || handed.message.is_some());
        }
    }
    Ok(missing)
}

fn field(name: &str, value: std::fmt::Arguments<'_>) -> Done {
    print::line(format_args!("  {} {value}", Painted(DIM, format_args!("{name:<9}"))))
}
