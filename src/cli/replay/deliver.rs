//! `replay ID --deliver`: a message is decided on once more, for real. Shown and asked before it is done.

use crate::admin::api::ReplayOf;
use crate::cli::access::{self, Server, Writer};
use crate::cli::args::Replay;
use crate::cli::print::{self, BOLD, Painted, plain};
use crate::cli::{Done, Failure, show};
use crate::config::Config;
use crate::config::load::{self, Reading};
use crate::mail::MessageId;
use crate::reload;
use crate::store::MessageDetail;

pub async fn run(own: &load::Options, id: MessageId, options: &Replay) -> Done {
    let of_store = load::Options { without_rules: true, ..own.clone() };
    let config = Config::load(&of_store).map_err(Failure::Configuration)?.config;
    // A server decides by what it has itself. Where none runs it is done here, and never with a placeholder.
    let own_rules = if Server::find(&config.data_dir).await?.is_some() {
        None
    } else {
        let needed = load::Options { secrets: Reading::Needed, ..own.clone() };
        Some(reload::in_force(&needed).map_err(Failure::Configuration)?)
    };
    let reader = access::reader(&config)?;
    let (detail, known) = (reader.message(id)?, reader.deliveries(id)?);
    drop(reader);
    if !options.yes {
        ask(&detail, known)?;
    }
    let writer = Writer::open(&config).await?;
    let replayed = writer.redecide(ReplayOf { id, known }, own_rules).await;
    writer.close().await;
    let replayed = replayed?;
    if options.machine.json {
        print::json(&replayed)?;
    } else {
        for event in &replayed.events {
            show::event(event).iter().try_for_each(print::line)?;
        }
        print::line(format_args!("replayed: {} queued", print::count(replayed.deliveries, "delivery")))?;
        if replayed.refused > 0 {
            let whom = print::count(replayed.refused, "recipient");
            print::warning(&format!("{whom} refused by the rules in force: nothing was done, nobody is told"));
        }
    }
    if replayed.refused > 0 { Err(Failure::Said) } else { Ok(()) }
}

/// Whether it is to be done; that nobody can be asked is an error.
fn ask(detail: &MessageDetail, known: u32) -> Done {
    let message = &detail.summary;
    let subject = plain(message.subject.as_deref().unwrap_or("(no subject)")).into_owned();
    print::remark(&format!("{}  {} {subject}", Painted(BOLD, message.id), print::sender(message.sender.as_ref())));
    if known > 0 {
        let (had, waits) = (print::count(u64::from(known), "delivery"), message.queued);
        print::remark(&format!("it has had {had}, of which {waits} still wait: whoever has it gets it again"));
    }
    let unasked = "--deliver sends the message again and asks first: say --yes where nobody can be";
    let question = "decide on it by the rules in force, and send and write what they ask for?";
    print::confirm(question, Failure::Usage(unasked.to_owned()), "nothing was done")
}
