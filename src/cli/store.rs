//! `backup` and `store check`: a copy of the store, and proof that it is sound, or its repair.

use super::access::{self, Writer};
use super::args::{Backup, Common, Machine};
use super::print::{self, BAD, DIM, GOOD, Painted, WAIT};
use super::{Done, Failure, configured};
use crate::clock;
use crate::store::{CheckReport, Finding, RepairReport, Store, StoreError};

pub async fn backup(common: &Common, options: &Backup) -> Done {
    let config = configured::load(common)?.config;
    let dir = std::path::absolute(&options.dir)?;
    let writer = Writer::open(&config).await?;
    let copied = writer.backup(&dir).await;
    writer.close().await;
    copied?;
    print::line(format_args!("{} {}", Painted(GOOD, "copied to"), dir.display()))
}

pub fn check(common: &Common, repair: bool, machine: Machine) -> Done {
    let config = configured::load(common)?.config;
    access::exists(&config)?;
    if repair {
        let report = Store::repair(&config.data_dir, clock::now()).map_err(|error| match error {
            StoreError::Locked(text) => Failure::Failed(format!("{text} A repair needs the store for itself.")),
            other => other.into(),
        })?;
        let clean = report.left.findings.is_empty();
        if machine.json {
            print::json(&report)?;
        } else {
            show_repair(&report)?;
        }
        return if clean { Ok(()) } else { Err(Failure::Said) };
    }
    let report = Store::check(&config.data_dir)?;
    let clean = report.findings.is_empty();
    if machine.json {
        print::json(&report)?;
    } else {
        show(&report)?;
        if !clean {
            print::line(format_args!(
                "Nothing was changed. Stop the server, copy {} as it is, then: mailworker store check --repair",
                config.data_dir.display()
            ))?;
        }
    }
    if clean { Ok(()) } else { Err(Failure::Said) }
}

fn show_repair(report: &RepairReport) -> Done {
    show(&report.found)?;
    if let Some(directory) = &report.quarantine {
        print::line(format_args!(
            "What was damaged lies in {}: look into it before you delete it.",
            directory.display()
        ))?;
    }
    if report.found.findings.is_empty() {
        return Ok(());
    }
    if report.left.findings.is_empty() {
        return print::line(format_args!("{}: a second check finds nothing", Painted(GOOD, "mended")));
    }
    print::line("What is left:")?;
    show(&report.left)
}

/// The findings, then what was looked at.
fn show(report: &CheckReport) -> Done {
    report.findings.iter().try_for_each(finding)?;
    if report.unlisted > 0 {
        print::line(format_args!("… and {}", print::count(report.unlisted, "further finding")))?;
    }
    let number = print::count(report.findings.len() as u64 + report.unlisted, "finding");
    let state = match report.findings.iter().filter(|finding| finding.serious).count() {
        _ if report.findings.is_empty() => Painted(GOOD, "nothing is wrong".to_owned()),
        0 => Painted(WAIT, number),
        serious => Painted(BAD, format!("{number}, {serious} of those listed serious")),
    };
    let running = if report.running { " (a server runs on it: what it is writing was left out)" } else { "" };
    print::line(format_args!(
        "{}, {}, {}, {} octets{running}: {state}",
        print::count(report.messages, "message"),
        print::count(report.deliveries, "delivery"),
        print::count(report.segments, "segment"),
        report.bytes,
    ))
}

fn finding(finding: &Finding) -> Done {
    let style = if finding.serious { BAD } else { WAIT };
    let problem = print::plain(&finding.problem);
    print::line(format_args!("{}: {problem}\n    {}", Painted(style, &finding.kind), Painted(DIM, &finding.repair)))
}
