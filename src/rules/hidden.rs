//! Values that nobody is to read: what a script says goes to the log and into traces with their names in their place.
//!
//! Found as they are, and as `debug`, JSON and an error write them, one of these within another too, or a name of DNS in
//! lower case; what a script makes of one (Base64, a part of it) is its own affair. Whoever cuts a text hides first: of a
//! value that was cut the rest is found no more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Secrets by name, as they are bound.
#[derive(Clone, Default)]
pub struct Secrets(pub BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Octets below which a value isn't looked for: half of all words would hold it.
const SHORTEST: usize = 4;
/// The same for a value in another case than its own.
const SHORTEST_LOWERED: usize = 8;

/// What is looked for, each once, with what stands in its place.
#[derive(Default)]
pub struct Hidden(Vec<(String, String)>);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden")
    }
}

impl Hidden {
    /// `others`: what no script is handed, and an answer from outside may repeat.
    #[must_use]
    pub fn new(secrets: &Secrets, others: &Secrets) -> Self {
        let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
        for (name, value) in secrets.0.iter().chain(&others.0).filter(|(_, value)| value.len() >= SHORTEST) {
            for form in forms(value) {
                if seen.insert(form.clone()) {
                    all.push((form, format!("[secret {name}]")));
                }
            }
        }
        Self(all)
    }

    /// The text, without any of them.
    #[must_use]
    pub fn hide(&self, text: String) -> String {
        let mut found: Vec<(usize, Reverse<usize>, &str)> = Vec::new();
        for (value, place) in &self.0 {
            found.extend(text.match_indices(value).map(|(at, value)| (at, Reverse(at + value.len()), place.as_str())));
        }
        if found.is_empty() {
            return text;
        }
        // Where two overlap, both are named, and nothing of either is left.
        found.sort_unstable();
        let (mut shown, mut done) = (String::with_capacity(text.len()), 0);
        for (start, Reverse(end), place) in found {
            if end > done {
                shown.push_str(text.get(done..start).unwrap_or_default());
                shown.push_str(place);
                done = end;
            }
        }
        shown.push_str(text.get(done..).unwrap_or_default());
        shown
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// As it may stand in a text: plain, escaped, and escaped again where what it stood in was.
fn forms(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([value.to_owned()]);
    for once in escaped(value) {
        forms.extend(escaped(&once));
        forms.insert(once);
    }
    if value.len() >= SHORTEST_LOWERED {
        forms.insert(value.to_lowercase());
    }
    forms
}

/// As a string is written in a script, in JSON, and in an error.
fn escaped(text: &str) -> [String; 3] {
    let in_script = format!("{text:?}");
    let in_json = serde_json::Value::from(text).to_string();
    let bare = |quoted: &str| quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned();
    [bare(&in_script), bare(&in_json), text.escape_debug().to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(values: &[(&str, &str)]) -> Hidden {
        let all = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Hidden::new(&Secrets(all), &Secrets::default())
    }

    #[test]
    fn the_longest_goes_first_and_short_ones_stay() {
        let hidden = hidden(&[("A", "hunter"), ("B", "hunter2"), ("C", "the"), ("D", "two\nlines")]);
        let shown = hidden.hide("the hunter2, hunter and \"two\\nlines\" or two\nlines".to_owned());
        assert_eq!(shown, "the [secret B], [secret A] and \"[secret D]\" or [secret D]");
    }

    #[test]
    fn of_two_that_overlap_nothing_is_left_and_a_name_is_no_value() {
        let hidden = hidden(&[("A", "abcdef"), ("B", "defghi"), ("C", "secret")]);
        assert_eq!(hidden.hide("abcdefghi, secret".to_owned()), "[secret A][secret B], [secret C]");
    }

    #[test]
    fn a_value_is_found_however_it_is_escaped() {
        for value in
            ["a'b\"c", "back\\slash", "tab\tand\u{1}", "\u{200b}unseen'\"", "line\r\nfeed\u{8}\u{c}", "ümläut\u{301}"]
        {
            let hidden = hidden(&[("KEY", value)]);
            let json = |text: &str| serde_json::to_string(text).unwrap();
            let debug = |text: &str| format!("{text:?}");
            let error = |text: &str| text.escape_debug().to_string();
            let written: [&dyn Fn(&str) -> String; 3] = [&json, &debug, &error];
            let mut all = vec![value.to_owned()];
            for inner in written {
                all.push(inner(value));
                all.extend(written.map(|outer| outer(&format!("{{\"key\":{}}}", inner(value)))));
            }
            for text in all {
                let shown = hidden.hide(format!("it is {text}"));
                let rest = shown.replace("[secret KEY]", "").replace("it is", "").replace("key", "");
                assert!(shown.contains("[secret KEY]") && !rest.contains(char::is_alphanumeric), "{text}: {shown}");
            }
        }
    }

    #[test]
    fn a_name_of_dns_has_it_in_lower_case() {
        let hidden = hidden(&[("KEY", "AbCdEf1234"), ("WORD", "Test")]);
        assert_eq!(hidden.hide("a test of abcdef1234.zen.example".to_owned()), "a test of [secret KEY].zen.example");
    }

    #[test]
    fn what_no_script_is_handed_is_hidden_too() {
        let others = Secrets([("[ai] api_key".to_owned(), "sk-1234".to_owned())].into());
        let hidden = Hidden::new(&Secrets::default(), &others);
        assert_eq!(hidden.hide("no such key: sk-1234".to_owned()), "no such key: [secret [ai] api_key]");
    }
}
