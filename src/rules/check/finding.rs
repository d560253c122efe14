//! What was found, with file, line, caret and what to do.

use std::collections::BTreeMap;

use rhai::{LexError, ParseError, ParseErrorType, Position};

use super::idioms;
use crate::diagnostic::{Diagnostic, Severity};
use crate::rules::outcome::Place;

/// Findings beyond these are left out.
const MOST: usize = 200;

pub struct Findings<'a> {
    sources: &'a BTreeMap<String, String>,
    found: Vec<Diagnostic>,
    only_warn: Warned,
}

/// Which errors are only warned of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Warned {
    Nothing,
    /// All but what the configuration has to give: the rules were checked once and run since.
    Slips,
    /// The file is nobody's, so that what is wrong in it stops nothing.
    All,
}

impl<'a> Findings<'a> {
    pub fn new(sources: &'a BTreeMap<String, String>) -> Self {
        Self { sources, found: Vec::new(), only_warn: Warned::Nothing }
    }

    /// From here on these errors are warnings.
    pub fn only_warn(&mut self, only_warn: Warned) {
        self.only_warn = only_warn;
    }

    pub fn any_error(&self) -> bool {
        self.found.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// By file and place.
    pub fn sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.found.dedup();
        self.found
    }

    /// What the configuration doesn't give, and rules that run may no longer do without.
    pub fn unmet(&mut self, file: &str, at: Position, width: usize, message: String, help: Option<String>) {
        let only_warn = self.only_warn;
        if only_warn == Warned::Slips {
            self.only_warn = Warned::Nothing;
        }
        self.error(file, at, width, message, help);
        self.only_warn = only_warn;
    }

    pub fn error(&mut self, file: &str, at: Position, width: usize, message: String, help: Option<String>) {
        self.push(Severity::Error, file, at, width, message, help);
    }

    pub fn push(
        &mut self,
        severity: Severity,
        file: &str,
        at: Position,
        width: usize,
        message: String,
        help: Option<String>,
    ) {
        if self.found.len() >= MOST {
            return;
        }
        let severity = if self.only_warn == Warned::Nothing { severity } else { Severity::Warning };
        let line = at.line().unwrap_or(0);
        let source_line = line.checked_sub(1).and_then(|before| self.sources.get(file)?.lines().nth(before));
        self.found.push(Diagnostic {
            severity,
            file: file.to_owned(),
            line,
            column: if line == 0 { 0 } else { at.position().unwrap_or(1) },
            width: width.max(1),
            message,
            help,
            source_line: source_line.map(ToOwned::to_owned),
        });
    }

    pub fn whole_file(&mut self, file: &str, message: &str) {
        self.error(file, Position::NONE, 1, message.to_owned(), None);
    }

    /// An error that evaluation met.
    pub fn at_place(&mut self, place: &Place, message: String) {
        let line = u16::try_from(place.line).unwrap_or(u16::MAX);
        let column = u16::try_from(place.column).unwrap_or(u16::MAX);
        let at = if line == 0 { Position::NONE } else { Position::new(line, column) };
        self.error(&place.file, at, 1, message, None);
    }

    /// The one error that parsing a file ends with.
    pub fn syntax(&mut self, file: &str, error: &ParseError) {
        let (before, rest) = self.around(file, error.position());
        let (message, help, width) = match error.err_type() {
            ParseErrorType::VariableUndefined(name) => {
                let help = self.undefined(file, name);
                let help = help.or_else(|| idioms::variable(name, before, rest).map(ToOwned::to_owned));
                (format!("no variable {name}"), help, name.len())
            }
            ParseErrorType::ModuleUndefined(name) => {
                let help = format!("import it at the top of the file: import \"lib/{name}\" as {name};");
                (format!("no module is imported as {name}"), Some(help), name.len())
            }
            ParseErrorType::ExprTooDeep => {
                ("expressions are nested too deeply".to_owned(), Some("give parts of it names with let".to_owned()), 1)
            }
            ParseErrorType::BadInput(LexError::ImproperSymbol(word, _)) if word == "eval" => {
                ("eval is not offered: a worker's source is all there is".to_owned(), None, word.len())
            }
            other => {
                let text = other.to_string();
                let help = idioms::syntax(&text, before, rest).map(ToOwned::to_owned);
                (text, help, 1)
            }
        };
        self.error(file, error.position(), width, message, help);
    }

    /// The line of a place before it, and from it on.
    fn around(&self, file: &str, at: Position) -> (&'a str, &'a str) {
        let sources = self.sources;
        let line = at.line().and_then(|line| sources.get(file)?.lines().nth(line - 1)).unwrap_or_default();
        let column = at.position().map_or(0, |column| column.saturating_sub(1));
        let at = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        line.split_at_checked(at).unwrap_or((line, ""))
    }

    /// A constant of the file is known inside functions by another name.
    fn undefined(&self, file: &str, name: &str) -> Option<String> {
        let text = self.sources.get(file)?;
        let declares = |line: &str| {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            words.next() == Some("const") && words.next() == Some(name)
        };
        if text.lines().any(|line| declares(line.trim_start().trim_start_matches("export ").trim_start())) {
            return Some(format!("inside a function, the file's constants are global::{name}"));
        }
        None
    }
}
