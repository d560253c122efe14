//! `log`: what belongs to no message (refusals, faults, the server's own doings), read beside the running server.

use super::args::{Common, LogList, Logged};
use super::print::{self, DIM, Painted};
use super::{Done, access, configured, show};
use crate::clock;
use crate::store::{LogFilter, Logged as Entry};

pub fn run(common: &Common, verb: Logged) -> Done {
    let config = configured::load(common)?.config;
    let reader = access::reader(&config)?;
    let Logged::List(options) = verb;
    let page = reader.logged(&filter(&options))?;
    if options.machine.json {
        page.events.iter().try_for_each(print::json)?;
    } else if page.events.is_empty() {
        print::line("no events")?;
    } else {
        page.events.iter().try_for_each(one)?;
    }
    if let Some(before) = page.more_before {
        print::remark(&format!("no further back was looked: `--before {before}` goes on from there"));
    }
    Ok(())
}

fn filter(options: &LogList) -> LogFilter {
    LogFilter {
        sender: options.sender.clone(),
        recipient: options.recipient.clone(),
        ip: options.ip.clone(),
        phase: options.phase.clone(),
        since: options.since.map(|age| clock::now().minus(age)),
        before: options.before,
        limit: Some(options.limit),
    }
}

fn one(entry: &Entry) -> Done {
    let head = format!("{}  {}", print::time(entry.event.at), entry.id);
    let mut lines = show::event(&entry.event).into_iter();
    let first = lines.next().unwrap_or_default();
    print::line(format_args!("{}  {first}", Painted(DIM, head)))?;
    lines.try_for_each(|line| print::line(format_args!("{:21}{line}", "")))
}
