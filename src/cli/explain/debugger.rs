//! `explain --step`: the run stops at lines, and standard input says how it goes on.
//!
//! A command is a word or its first letter. What is read from a pipe is echoed by nobody; when it ends, the run goes on
//! to its end.

use std::io::{BufRead as _, IsTerminal as _};
use std::sync::{Mutex, PoisonError};

use super::recorder::Sources;
use crate::cli::args::Break;
use crate::cli::print::{self, BOLD, DIM, NOTE, Painted, plain};
use crate::cli::{Done, Failure};
use crate::rules::outcome::Place;
use crate::rules::step::Step;

const HELP: &str = "\
step (s)               to the next line, into functions
next (n)               to the next line of this function
out (o)                until this function returns
continue (c)           to the next breakpoint
break [FILE:]LINE (b)  stop there; without an argument, list them
delete [FILE:]LINE     stop there no more
print EXPRESSION (p)   its value here
vars (v)               what this function holds
where (w)              the line and the calls that led here
list (l)               the lines around it
quit (q)               end the run here";
/// Lines before and behind that `list` shows.
const AROUND: u32 = 4;

/// How a run is to go on until it stops the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Line,
    /// A line of a function that is no deeper.
    Next(usize),
    /// A line of a function that is less deep.
    Out(usize),
    Breakpoint,
}

/// The debugger of one explanation.
pub struct Debugger {
    state: Mutex<State>,
}

struct State {
    until: Until,
    breakpoints: Vec<Break>,
    /// Those that no step has come to.
    missed: Vec<Break>,
    /// The line that the run is in, and how deep.
    at: Option<(String, u32, usize)>,
    has_ended: bool,
}

impl Debugger {
    /// It stops at the first line, or, where there are breakpoints, at the first of them.
    #[must_use]
    pub fn new(breakpoints: Vec<Break>) -> Self {
        let until = if breakpoints.is_empty() { Until::Line } else { Until::Breakpoint };
        let missed = breakpoints.clone();
        Self { state: Mutex::new(State { until, breakpoints, missed, at: None, has_ended: false }) }
    }

    /// What it was to stop at, and no run came to.
    #[must_use]
    pub fn missed(&self) -> Vec<Break> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).missed.clone()
    }

    /// A step of a run of these sources. An error ends it.
    ///
    /// # Errors
    /// It was quit, or nobody reads what is printed any more.
    pub fn at(&self, step: &Step<'_>, sources: &Sources) -> Result<(), String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let here = (step.place.file.clone(), step.place.line, step.depth);
        if state.at.as_ref() == Some(&here) {
            return Ok(());
        }
        state.at = Some(here);
        state.missed.retain(|at| !at.is_at(&step.place));
        if !state.stops(step) {
            return Ok(());
        }
        show(sources, &step.place).map_err(|_| "nobody reads any more".to_owned())?;
        match talk(&mut state, step, sources) {
            Ok(true) => Ok(()),
            Ok(false) => Err("ended by the debugger".to_owned()),
            Err(_) => Err("nobody reads any more".to_owned()),
        }
    }
}

fn show(sources: &Sources, place: &Place) -> Done {
    let text = sources.line(&place.file, place.line);
    print::line(format_args!(
        "{}  {}",
        Painted(NOTE, format!("{}:{}", place.file, place.line)),
        plain(text.trim_start())
    ))
}

/// Commands until one says how to go on; `false`: not at all.
fn talk(state: &mut State, step: &Step<'_>, sources: &Sources) -> Result<bool, Failure> {
    loop {
        if std::io::stdin().is_terminal() {
            print::prompt("> ")?;
        }
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            state.has_ended = true;
            return Ok(true);
        }
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match word {
            "" | "s" | "step" => state.until = Until::Line,
            "n" | "next" => state.until = Until::Next(step.depth),
            "o" | "out" => state.until = Until::Out(step.depth),
            "c" | "continue" => state.until = Until::Breakpoint,
            "q" | "quit" => return Ok(false),
            _ => {
                answer(state, (step, sources), word, rest.trim())?;
                continue;
            }
        }
        return Ok(true);
    }
}

/// Commands after which it still stands where it did.
fn answer(state: &mut State, (step, sources): (&Step<'_>, &Sources), word: &str, rest: &str) -> Done {
    match word {
        "b" | "break" if rest.is_empty() => state.breakpoints.iter().try_for_each(print::line),
        "b" | "break" => match rest.parse::<Break>() {
            Ok(at) => {
                let at = Break { file: at.file.or_else(|| Some(step.place.file.clone())), ..at };
                print::line(format_args!("stops at {at}"))?;
                state.breakpoints.push(at);
                Ok(())
            }
            Err(error) => print::line(error),
        },
        "delete" => match rest.parse::<Break>() {
            Ok(at) => {
                let file = at.file.as_ref().unwrap_or(&step.place.file);
                state.breakpoints.retain(|known| known.line != at.line || known.file.as_ref() != Some(file));
                Ok(())
            }
            Err(error) => print::line(error),
        },
        "p" | "print" => {
            let value = step.evaluate(rest).unwrap_or_else(|error| format!("error: {error}"));
            print::line(plain(&value))
        }
        "v" | "vars" => {
            let mut variables = step.variables().into_iter();
            variables.try_for_each(|(name, value)| print::line(format_args!("{name} = {}", plain(&value))))
        }
        "w" | "where" => {
            show(sources, &step.place)?;
            let mut calls = step.calls().into_iter();
            calls.try_for_each(|(name, at)| print::line(Painted(DIM, format!("  in {name}, called at {at}"))))
        }
        "l" | "list" => list(sources, &step.place),
        _ => print::line(HELP),
    }
}

fn list(sources: &Sources, place: &Place) -> Done {
    for line in place.line.saturating_sub(AROUND).max(1)..=place.line + AROUND {
        let text = sources.line(&place.file, line);
        let style = if line == place.line { BOLD } else { DIM };
        print::line(Painted(style, format!("{line:>6}  {}", plain(&text))))?;
    }
    Ok(())
}

impl State {
    fn stops(&self, step: &Step<'_>) -> bool {
        let is_break = self.breakpoints.iter().any(|at| at.is_at(&step.place));
        let by_step = match self.until {
            Until::Line => true,
            Until::Next(depth) => step.depth <= depth,
            Until::Out(depth) => step.depth < depth,
            Until::Breakpoint => false,
        };
        (is_break || by_step) && !self.has_ended
    }
}
