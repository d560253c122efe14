//! The results as the XML of `JUnit`, which forges and build servers read.

use std::fmt::Write as _;
use std::time::Duration;

/// The tests of one file.
pub struct Suite<'a> {
    pub name: &'a str,
    pub results: Vec<Outcome<'a>>,
}

/// How one test came out.
pub struct Outcome<'a> {
    pub name: &'a str,
    pub line: usize,
    pub took: Duration,
    /// What it says, where it failed.
    pub failure: Option<String>,
}

/// The whole document.
#[must_use]
pub fn xml(suites: &[Suite<'_>]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"mailworker test\"");
    let all = || suites.iter().flat_map(|suite| &suite.results);
    totals(&mut out, all());
    for suite in suites {
        let name = escaped(suite.name);
        let _infallible = write!(out, "  <testsuite name=\"{name}\"");
        totals(&mut out, suite.results.iter());
        for Outcome { name: case, line, took, failure } in &suite.results {
            let (case, took) = (escaped(case), took.as_secs_f64());
            let _infallible = write!(
                out,
                "    <testcase classname=\"{name}\" name=\"{case}\" file=\"{name}\" line=\"{line}\" time=\"{took:.6}\""
            );
            match failure {
                None => out.push_str("/>\n"),
                Some(text) => {
                    out.push_str(">\n      <failure message=\"decided otherwise\">");
                    out.push_str(&escaped(text));
                    out.push_str("</failure>\n    </testcase>\n");
                }
            }
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

/// The rest of an element's start: what comes to how many of its tests.
fn totals<'a>(out: &mut String, results: impl Iterator<Item = &'a Outcome<'a>>) {
    let (mut tests, mut failures, mut took) = (0, 0, Duration::ZERO);
    for result in results {
        tests += 1;
        failures += u32::from(result.failure.is_some());
        took += result.took;
    }
    let took = took.as_secs_f64();
    let _infallible =
        writeln!(out, " tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\" time=\"{took:.6}\">");
}

/// Fit for text and attributes; what XML can't hold is replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(character),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_obeys_is_escaped_and_what_it_cannot_hold_replaced() {
        let results = vec![
            Outcome { name: "a \"<b>\"", line: 3, took: Duration::from_millis(2), failure: None },
            Outcome { name: "c", line: 9, took: Duration::ZERO, failure: Some("- \"x\" & \u{1b}[2J\n+ y".to_owned()) },
        ];
        let xml = xml(&[Suite { name: "rules/tests/a.toml", results }]);
        assert!(xml.contains("name=\"a &quot;&lt;b&gt;&quot;\" file=\"rules/tests/a.toml\" line=\"3\""), "{xml}");
        assert!(xml.contains("- &quot;x&quot; &amp; \u{fffd}[2J\n+ y</failure>"), "{xml}");
        assert_eq!(xml.matches("tests=\"2\" failures=\"1\"").count(), 2, "{xml}");
    }
}
