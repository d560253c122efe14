//! `tail`: a running server's events as they happen.

use std::collections::VecDeque;

use super::access::Server;
use super::args::{Common, Tail};
use super::print::{self, DIM, Painted};
use super::{Done, Failure, configured, show};
use crate::admin::api::TailFilter;
use crate::event::Event;

/// No event is longer than this: a line that is belongs to something else.
const LONGEST: usize = 8 << 20;

pub async fn run(common: &Common, options: &Tail) -> Done {
    let config = configured::load(common)?.config;
    let server = Server::required(&config.data_dir).await?;
    let filter = TailFilter {
        recipient: options.recipient.clone(),
        sender: options.sender.clone(),
        outcome: options.outcome.clone(),
    };
    let mut answer = server.tail(&filter).await?;
    // On standard error, so that standard output has events alone: now nothing more is missed.
    if !options.machine.json {
        print::remark("tailing; Ctrl-C ends it");
    }
    let mut waiting = VecDeque::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_cut| ended())? {
        waiting.extend(chunk);
        while let Some(end) = waiting.iter().position(|&octet| octet == b'\n') {
            let line: Vec<u8> = waiting.drain(..=end).collect();
            one(&line, options.machine.json)?;
        }
        if waiting.len() > LONGEST {
            return Err(Failure::Failed("what the server sends are no events".to_owned()));
        }
    }
    Err(ended())
}

fn ended() -> Failure {
    Failure::Failed("the server stopped".to_owned())
}

fn one(line: &[u8], json: bool) -> Done {
    if json {
        return print::bytes(line);
    }
    let event: Event = serde_json::from_slice(line).map_err(Failure::failed)?;
    live(&event)
}

/// An event with its time, and the message it belongs to.
pub fn live(event: &Event) -> Done {
    let id = event.message.map(|id| id.to_string()).unwrap_or_default();
    // The tail of an id tells messages of the same hour apart; its head is their time.
    let short = id.get(id.len().saturating_sub(6)..).unwrap_or_default();
    let head = Painted(DIM, format_args!("{} {short:6}", print::clock(event.at)));
    let mut lines = show::event(event).into_iter();
    if let Some(first) = lines.next() {
        print::line(format_args!("{head} {first}"))?;
    }
    lines.try_for_each(|line| print::line(format_args!("{:19}  {line}", "")))
}
