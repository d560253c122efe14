//! `tests/COVERAGE.md` against the tests and the reference: what it names is there, and what is promised stands in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One row: what is promised, and the tests that show it.
struct Row {
    line: usize,
    what: String,
    tests: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rows() -> Vec<Row> {
    let row = |(at, line): (usize, &str)| {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let (what, shown) = cells.rsplit_once(" | ")?;
        let is_head = shown == "shown by" || shown.starts_with("---");
        let tests = ticked(shown).map(ToOwned::to_owned).collect();
        (!is_head).then(|| Row { line: at + 1, what: what.to_owned(), tests })
    };
    read("tests/COVERAGE.md").lines().enumerate().filter_map(row).collect()
}

/// What stands between backticks.
fn ticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Each case of `tests/rules/*.txt` with its text.
fn cases() -> BTreeMap<String, String> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(root().join("tests/rules")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let mut cases = BTreeMap::new();
    for file in files {
        for case in format!("\n{}", std::fs::read_to_string(file).unwrap()).split("\n== ").skip(1) {
            let (name, text) = case.split_once('\n').unwrap_or((case, ""));
            // What the case expects isn't what it does.
            cases.insert(name.to_owned(), text.split("\n--- outcome").next().unwrap_or_default().to_owned());
        }
    }
    cases
}

/// The text of a named test; of a function, of its whole file, for what it runs may stand in a constant.
fn text_of(test: &str, cases: &BTreeMap<String, String>) -> Option<String> {
    let Some((file, function)) = test.split_once("::") else { return cases.get(test).cloned() };
    let file = if file.starts_with("src/") { file.to_owned() } else { format!("tests/{file}.rs") };
    let whole = std::fs::read_to_string(root().join(file)).ok()?;
    let is_there = ["", "    "].iter().any(|by| whole.contains(&format!("{by}#[test]\n{by}fn {function}()")));
    is_there.then_some(whole)
}

#[test]
fn every_test_that_is_named_is_there() {
    let cases = cases();
    let all = rows();
    assert!(all.len() > 80, "{} rows", all.len());
    let bare: Vec<&str> = all.iter().filter(|row| row.tests.is_empty()).map(|row| row.what.as_str()).collect();
    assert!(bare.is_empty(), "rows of tests/COVERAGE.md that name no test: {bare:?}");
    let missing: Vec<String> = all
        .iter()
        .flat_map(|row| row.tests.iter().map(move |test| (row.line, test)))
        .filter(|(_, test)| text_of(test, &cases).is_none())
        .map(|(line, test)| format!("tests/COVERAGE.md:{line}: no test is called {test}"))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// `message.forward` of every `| `message.forward(to)` … |` of these pages.
fn members() -> Vec<String> {
    let pages = ["README", "sender", "outside", "parsed"].map(|page| read(&format!("rules/{page}.md")));
    let mut all: Vec<String> = pages
        .iter()
        .flat_map(|page| page.lines())
        .filter_map(|line| line.strip_prefix("| `").map(|_| line.split(" | ").next().unwrap_or_default()))
        .flat_map(ticked)
        .filter_map(|signature| signature.split('(').next())
        .filter(|name| name.contains('.') && !name.contains(' '))
        .map(ToOwned::to_owned)
        .collect();
    all.sort();
    all.dedup();
    all
}

/// First cells of the rows below this heading, up to their parameters.
fn first_cells(heading: &str) -> Vec<String> {
    let page = read("rules/README.md");
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let cells =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split(['(', '`']).next().map(str::to_owned));
    let cells: Vec<String> = cells.collect();
    assert!(!cells.is_empty(), "{heading} has no rows");
    cells
}

#[test]
fn every_member_of_the_reference_has_its_row_and_a_test_that_says_it() {
    let (cases, rows, members) = (cases(), rows(), members());
    assert!(members.len() > 90, "{} members", members.len());
    let mut lacking = Vec::new();
    for member in &members {
        let of: Vec<&Row> = rows.iter().filter(|row| ticked(&row.what).any(|name| name == member)).collect();
        if of.is_empty() {
            lacking.push(format!("{member} has no row in tests/COVERAGE.md"));
            continue;
        }
        let name = format!(".{}", member.rsplit('.').next().unwrap());
        let says = |test: &String| {
            text_of(test, &cases).is_some_and(|text| {
                text.match_indices(&name).any(|(at, _)| {
                    let next = text[at + name.len()..].chars().next();
                    next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
                })
            })
        };
        if !of.iter().any(|row| row.tests.iter().any(says)) {
            lacking.push(format!("{member}: no test of its row (line {}) says {name}", of[0].line));
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
}

#[test]
fn every_handler_and_limit_of_the_reference_has_its_row() {
    let rows = rows();
    let named: Vec<&str> = rows.iter().flat_map(|row| ticked(&row.what)).collect();
    let is_named = |name: &String| named.iter().any(|cell| cell.split('(').next() == Some(name.as_str()));
    let wanted = [first_cells("Handlers"), first_cells("Budget")].concat();
    let lacking: Vec<&String> = wanted.iter().filter(|name| !is_named(name)).collect();
    assert!(lacking.is_empty(), "no row in tests/COVERAGE.md: {lacking:?}");
}
