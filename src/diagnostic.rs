//! An error that points: file, line, column, the source line with a caret, and what to do.
//!
//! Pure. Made by `config` (from TOML spans) and `rules` (from script positions); printed by `cli`, logged by `reload`.

/// One finding in a file that a person wrote.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// As the person would name it: relative to where they stand or to the configuration.
    pub file: String,
    /// From 1; 0 where the finding has no place in the file.
    pub line: usize,
    /// From 1, in characters; 0 where there is none.
    pub column: usize,
    /// How many characters the caret spans; at least 1.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// What to do: «did you mean …?», the names that would do.
    pub help: Option<String>,
    /// The line of source at `line`.
    pub source_line: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

impl Diagnostic {
    /// An error about all of a file, or about nothing that has a place.
    #[must_use]
    pub fn unplaced(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            width: 1,
            message: message.into(),
            help: None,
            source_line: None,
        }
    }

    /// `mailworker.toml:14:9`; the file alone where the finding has no place in it.
    #[must_use]
    pub fn place(&self) -> String {
        if self.line == 0 { self.file.clone() } else { format!("{}:{}:{}", self.file, self.line, self.column) }
    }
}

/// In one line, for a log: `mailworker.toml:14:9: unknown key … (did you mean …?)`.
impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}: ", self.place())?;
        }
        f.write_str(&self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

/// The finding as compilers show it: what, where, the source line with a caret, and help. Ends with a line break.
#[must_use]
pub fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
    match diagnostic.source_line.as_deref().filter(|_| diagnostic.line > 0) {
        Some(source) => {
            let span = span_of(source, diagnostic.column, diagnostic.width);
            let snippet = Snippet::source(source)
                .path(diagnostic.file.as_str())
                .line_start(diagnostic.line)
                .annotation(AnnotationKind::Primary.span(span));
            group = group.element(snippet);
        }
        None if diagnostic.line > 0 => {
            let origin = Origin::path(diagnostic.file.as_str()).line(diagnostic.line).char_column(diagnostic.column);
            group = group.element(origin);
        }
        None if diagnostic.file.is_empty() => {}
        None => group = group.element(Origin::path(diagnostic.file.as_str())),
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    format!("{}\n", renderer.render(&[group]))
}

/// Octets of the line that `width` characters from `column` on take; the line's end where they are past it.
fn span_of(line: &str, column: usize, width: usize) -> std::ops::Range<usize> {
    let offset = |characters: usize| line.char_indices().nth(characters).map_or(line.len(), |(at, _)| at);
    let start = column.saturating_sub(1);
    offset(start)..offset(start.saturating_add(width.max(1)))
}

/// The candidate that was probably meant, if one is near enough.
#[must_use]
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR: f64 = 0.75;
    let wanted = name.to_lowercase();
    // Letters in common make a word of half its length no likelier: `now` isn't what `unknown` meant.
    let is_as_long = |candidate: &&str| 2 * candidate.len() >= name.len();
    candidates
        .into_iter()
        .filter(is_as_long)
        .map(|candidate| (strsim::jaro_winkler(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(near, _)| *near >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// A URL as it may stand in an event, a list or an error: whose it is. All that follows the host may be a key, and with
/// the hooks of Slack, Discord and Teams the path is the key.
#[must_use]
pub fn shown_url(text: &str) -> String {
    let Ok(url) = url::Url::parse(text) else { return "(no URL)".to_owned() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let rest = if bare { "" } else { "/…" };
    format!("{}://{}{port}{rest}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(line: &str, column: usize, width: usize) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "rules/main.rhai".to_owned(),
            line: 14,
            column,
            width,
            message: "no variable SUPORT".to_owned(),
            help: Some("did you mean SUPPORT?".to_owned()),
            source_line: Some(line.to_owned()),
        }
    }

    #[test]
    fn what_is_of_no_file_names_none() {
        let finding = Diagnostic { help: Some("go back".to_owned()), ..Diagnostic::unplaced("", "it doesn't fit") };
        assert_eq!(finding.to_string(), "it doesn't fit (go back)");
        let shown = render(&finding, false);
        assert!(shown.starts_with("error: it doesn't fit\n") && shown.contains("help: go back"), "{shown}");
        assert!(!shown.contains("-->"), "{shown}");
    }

    #[test]
    fn the_caret_stands_under_what_is_meant() {
        let shown = render(&finding("  let ü = env.SUPORT;", 15, 6), false);
        assert_eq!(
            shown,
            "error: no variable SUPORT\n  --> rules/main.rhai:14:15\n   |\n14 |   let ü = env.SUPORT;\n   |               ^^^^^^\n   |\n   = help: did you mean SUPPORT?\n"
        );
        assert!(render(&finding("x", 1, 1), true).contains("\u{1b}["), "colour is asked for");
    }

    #[test]
    fn a_place_past_the_line_is_its_end() {
        for (column, width) in [(0, 0), (400, 1), (1, usize::MAX), (usize::MAX, usize::MAX)] {
            assert!(render(&finding("x = 1", column, width), false).contains("x = 1"), "{column} {width}");
        }
        assert!(render(&finding("", 1, 1), false).contains("no variable"));
    }

    #[test]
    fn escapes_of_a_hostile_file_are_not_obeyed() {
        assert!(!render(&finding("x = \"\u{1b}[31m\u{202e}\"", 1, 1), false).contains(['\u{1b}', '\u{202e}']));
    }

    #[test]
    fn what_is_near_is_suggested_and_nothing_else() {
        let names = ["connections", "message_size", "in_flight"];
        assert_eq!(suggest("conections", names), Some("connections"));
        assert_eq!(suggest("MESSAGE_SIZ", names), Some("message_size"));
        assert_eq!(suggest("zebra", names), None);
        assert_eq!(suggest("", names), None);
    }
}
