//! Help that flows as wide as the terminal is: in the source its paragraphs are broken where the source's lines end.

use clap::{Command, CommandFactory, FromArgMatches};

use super::Arguments;

/// What was typed; help, version and wrong usage end the process here.
#[must_use]
pub fn parse() -> Arguments {
    Arguments::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit())
}

/// The commands, as they are parsed and shown.
#[must_use]
pub fn command() -> Command {
    flowing(Arguments::command())
}

fn flowing(command: Command) -> Command {
    let help = command.get_after_help().map(|help| flow(&help.to_string()));
    let command = command.mut_subcommands(flowing);
    match help {
        Some(help) => command.after_help(help),
        None => command,
    }
}

/// Lines of one paragraph become one line. What is indented, and what stands above it, stays as it is.
fn flow(text: &str) -> String {
    let mut flown = String::with_capacity(text.len());
    for line in text.split('\n') {
        let goes_on = !line.is_empty() && !line.starts_with(' ') && !flown.is_empty() && !flown.ends_with('\n');
        let last = flown.rsplit('\n').next().unwrap_or_default();
        match goes_on && !last.starts_with(' ') {
            true => flown.push(' '),
            false if flown.is_empty() => {}
            false => flown.push('\n'),
        }
        flown.push_str(line);
    }
    flown
}

#[cfg(test)]
mod tests {
    use super::flow;

    #[test]
    fn a_paragraph_is_one_line_and_examples_stay_lines() {
        assert_eq!(flow("one\ntwo\n\nthree:\n  a\n  b\nfour\nfive"), "one two\n\nthree:\n  a\n  b\nfour five");
    }
}
