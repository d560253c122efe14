//! `replay`: what other rules would have made of past messages. Nothing is sent, kept or written.

mod deliver;

use std::sync::Arc;

use serde_json::json;

use super::args::{Common, Replay};
use super::print::{self, BAD, BOLD, DIM, GOOD, Painted, WAIT, plain, short};
use super::progress::Bar;
use super::{Done, Failure, access, configured};
use crate::clock;
use crate::config::load::{self, Reading};
use crate::intake::Snapshot;
use crate::mail::Timestamp;
use crate::reload;
use crate::replay::{self, Before, Changed, Fate, Listener, Progress, Range, Stopped, Summary};
use crate::store::Reader;

pub fn run(common: &Common, options: &Replay) -> Done {
    let own = load::Options { secrets: Reading::Wanted, ..configured::with_secrets(common) };
    if let Some(id) = options.id.filter(|_| options.deliver) {
        return super::runtime()?.block_on(deliver::run(&own, id, options));
    }
    let (before, after) = sides(options, &own)?;
    // Another configuration brings its rules along, never its store.
    let config = configured::load(common)?.config;
    let reader = access::reader(&config)?;
    let summary = if let Some(id) = options.id {
        let (changed, summary) = replay::one(&reader, id, &before, &after)?;
        changed.iter().try_for_each(|changed| tell(options, changed))?;
        summary
    } else {
        judged(options, &reader, &before, &after)?
    };
    sum_up(options, &before, &summary)?;
    if summary.changed > 0 || summary.unreadable > 0 { Err(Failure::Said) } else { Ok(()) }
}

/// What the files would change against what is in force, on mail of the last `age`: shown, before they are deployed. How
/// much that is.
pub fn before_deploy(common: &Common, age: std::time::Duration) -> Result<Summary, Failure> {
    let own = load::Options { secrets: Reading::Wanted, ..configured::with_secrets(common) };
    let before = Before::Rules(Arc::new(reload::in_force(&own).map_err(Failure::Configuration)?));
    let after = Arc::new(reload::snapshot(&own).map_err(Failure::Configuration)?);
    let options = Replay { since: Some(age), diff: true, ..Replay::default() };
    let reader = access::reader(&after.config)?;
    let summary = judged(&options, &reader, &before, &after)?;
    sum_up(&options, &before, &summary)?;
    Ok(summary)
}

/// All that the range holds, told as it is found.
fn judged(options: &Replay, reader: &Reader, before: &Before, after: &Arc<Snapshot>) -> Result<Summary, Failure> {
    let range = range(options);
    // The line says how far it is through the time from which there is mail.
    let until = range.until.unwrap_or_else(clock::now);
    let since = reader.oldest_message(range.since)?.map_or(range.since, |oldest| oldest.min(until));
    let mut screen = Screen { options, bar: Bar::new(), since, until };
    let done = replay::replay(reader, &range, before, after, &mut screen);
    screen.bar.clear();
    done.map_err(|stopped| match stopped {
        Stopped::Store(error) => Failure::from(error),
        Stopped::Listener(failure) => failure,
    })
}

fn range(options: &Replay) -> Range {
    let now = clock::now();
    Range {
        since: options.since.map_or(now, |age| now.minus(age)),
        until: options.until.map(|age| now.minus(age)),
        to: options.to.clone(),
        from: options.from.clone(),
        threads: options.threads,
    }
}

/// What is held against what.
fn sides(options: &Replay, own: &load::Options) -> Result<(Before, Arc<Snapshot>), Failure> {
    let configuration = match &options.with {
        Some(file) => load::Options { file: Some(file.clone()), ..own.clone() }.pinned(),
        None => own.clone(),
    };
    let after = match &options.rules {
        Some(folder) if !folder.is_dir() => {
            return Err(Failure::Usage(format!("--rules {}: no such folder", folder.display())));
        }
        Some(folder) => reload::snapshot_by(&configuration, folder),
        // The rules as they are: the files, or where there are none what was deployed.
        None if reload::is_by_store_alone(&configuration) => reload::in_force(&configuration),
        None => reload::snapshot(&configuration),
    };
    let after = Arc::new(after.map_err(Failure::Configuration)?);
    if options.then || options.rules.is_none() && options.with.is_none() {
        return Ok((Before::Then, after));
    }
    let before = reload::in_force(own).map_err(Failure::Configuration)?;
    Ok((Before::Rules(Arc::new(before)), after))
}

/// Prints what changes as it is found, and how far it has come.
struct Screen<'a> {
    options: &'a Replay,
    bar: Bar,
    since: Timestamp,
    until: Timestamp,
}

impl Listener<Failure> for Screen<'_> {
    fn changed(&mut self, changed: &Changed) -> Done {
        self.bar.clear();
        tell(self.options, changed)
    }

    fn progress(&mut self, progress: Progress) -> Done {
        let all = self.until.since(self.since);
        let done = self.until.since(progress.back_to);
        self.bar.show(done, all, progress.looked_at, |rate| {
            format!("{} messages, {rate}/s, {} changed", progress.looked_at, progress.changed)
        });
        Ok(())
    }
}

fn tell(options: &Replay, changed: &Changed) -> Done {
    if options.machine.json {
        return print::json(changed);
    }
    let id = Painted(DIM, changed.id);
    let parties = format!("{} → {}", print::sender(changed.sender.as_ref()), plain(changed.recipient.as_str()));
    let subject = short(changed.subject.as_deref().unwrap_or("(no subject)"), 40);
    let kind = Painted(style(&changed.after), &changed.kind);
    print::line(format_args!("{}  {id}  {kind}  {parties}  {subject}", print::time(changed.received_at)))?;
    if options.diff { diff(&changed.before, &changed.after) } else { Ok(()) }
}

fn style(after: &Fate) -> anstyle::Style {
    match after.verdict.as_str() {
        "reject" | "fail" => BAD,
        "defer" | "drop" | "quarantine" => WAIT,
        _ => GOOD,
    }
}

/// - what was, + what would be; what both have stands between them without a mark.
fn diff(before: &Fate, after: &Fate) -> Done {
    let gone = |text: &str| print::line(format_args!("  {}", Painted(BAD, format!("- {}", plain(text)))));
    let new = |text: &str| print::line(format_args!("  {}", Painted(GOOD, format!("+ {}", plain(text)))));
    if before.line() == after.line() {
        print::line(format_args!("    {}", plain(&before.line())))?;
    } else {
        gone(&before.line())?;
        new(&after.line())?;
    }
    let mut left: Vec<&String> = after.effects.iter().collect();
    for effect in &before.effects {
        match left.iter().position(|other| *other == effect) {
            Some(at) => {
                left.remove(at);
                print::line(format_args!("    {}", plain(effect)))?;
            }
            None => gone(effect)?,
        }
    }
    left.into_iter().try_for_each(|effect| new(effect))
}

fn sum_up(options: &Replay, before: &Before, summary: &Summary) -> Done {
    let against = match before {
        Before::Then => "then",
        Before::Rules(_) => "rules",
    };
    if options.machine.json {
        return print::json(&json!({ "summary": summary, "against": against }));
    }
    let words = match before {
        Before::Then => "what was decided then",
        Before::Rules(_) => "what the rules in force decide",
    };
    let (messages, recipients) = (summary.messages, summary.recipients);
    let judged = format!("{} for {}", print::count(messages, "message"), print::count(recipients, "recipient"));
    let changed = match summary.changed {
        0 => Painted(GOOD, "nothing would change".to_owned()),
        number => Painted(BOLD, format!("{number} would change")),
    };
    print::line(format_args!("{judged} held against {words}: {changed}"))?;
    let mut kinds: Vec<_> = summary.kinds.iter().collect();
    kinds.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
    kinds.iter().try_for_each(|(kind, count)| print::line(format_args!("{count:>8}  {kind}")))?;
    left_out(summary).iter().try_for_each(|remark| print::line(Painted(DIM, remark)))
}

/// What bears on how far the answer is to be trusted.
fn left_out(summary: &Summary) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut say = |number: u64, what: &str, why: &str| {
        if number > 0 {
            remarks.push(format!("{} {why}", print::count(number, what)));
        }
    };
    say(summary.read_keys, "decision", "read keys, which are as they are now");
    say(
        summary.asked_outside,
        "message",
        "not judged: the rules ask outside (fetch, ai, DNS), and a replay asks nobody",
    );
    say(summary.gone, "message", "not judged: retention has taken the octets");
    say(summary.put_off, "message", "not judged: put off (451) then, of which no octets are kept");
    say(summary.unrecorded, "recipient", "not compared: the trace has no decision");
    let error = summary.first_error.as_deref().unwrap_or_default();
    say(summary.unreadable, "message", &format!("not judged, unreadable: {}", plain(error)));
    remarks
}
