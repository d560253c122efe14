//! Every statement of the store goes by an index: all SQL in these sources is planned, and what scans or sorts is named here.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::{DeliveryKey, MessageFilter, MessageOutcome, QueueFilter, messages, migrate, queue};
use crate::mail::{MessageId, Timestamp};

/// Statements that may go over a whole table, by how they begin.
const WHOLE: &[(&str, &str)] = &[
    ("SELECT state, count(*)", "counts what is queued, which is little, when a store is opened or asked from outside"),
    ("SELECT coalesce(max(version), 0)", "where the counter of versions is gone"),
    ("SELECT segment, max(start", "a backup reads everything anyway"),
    ("SELECT count(*) FROM sqlite_schema", "a dozen rows"),
    ("SELECT name, type, sql FROM sqlite_schema", "a dozen rows"),
    ("SELECT name, rootpage FROM sqlite_schema", "a dozen rows"),
    ("SELECT count(*) = 0 FROM sqlite_schema", "a dozen rows"),
    ("SELECT event FROM log ORDER BY id DESC LIMIT", "by the key, to its limit"),
    ("SELECT id, at FROM log", "by the key, to its limit"),
    ("DELETE FROM log WHERE id IN (SELECT id FROM log ORDER BY id LIMIT", "by the key, to its limit"),
    ("SELECT queued_at FROM deliveries WHERE state = 0 ORDER BY message, n LIMIT 1", "by the key, past the dead alone"),
    ("SELECT m.id, m.sender, m.recipients", "the beginning of a list, which is planned whole below"),
    ("SELECT d.message, d.n, d.task, d.destination", "the beginning of a list, which is planned whole below"),
];

fn fresh() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    migrate::migrate(&mut connection, Path::new("fresh")).unwrap();
    connection
}

/// What the planner says it does, a line for each step.
fn plan(connection: &Connection, sql: &str, values: Vec<Value>) -> Vec<String> {
    let mut statement =
        connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap_or_else(|e| panic!("{e}: {sql}"));
    let missing = statement.parameter_count().saturating_sub(values.len());
    let values = values.into_iter().chain(std::iter::repeat_n(Value::Null, missing));
    let steps = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
    steps.collect::<Result<_, _>>().unwrap()
}

fn is_whole(step: &str) -> bool {
    let scans = step
        .strip_prefix("SCAN ")
        .is_some_and(|what| !["refinery_schema_history", "CONSTANT ROW"].iter().any(|small| what.starts_with(small)));
    scans || step.contains("TEMP B-TREE")
}

/// The string literals in the sources of the store that are SQL of rows.
fn statements() -> Vec<String> {
    let literal = regex::Regex::new(r#"(?s)"((?:SELECT|INSERT|UPDATE|DELETE) (?:[^"\\]|\\.)*)""#).unwrap();
    let joint = regex::Regex::new(r"\\\n\s*").unwrap();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if !["plans.rs", "tests.rs"].iter().any(|name| path.ends_with(name)) {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let all = literal.captures_iter(code).map(|each| joint.replace_all(&each[1], "").into_owned());
                // What has a hole for a table is a repair's, which reads them all.
                found.extend(all.filter(|sql| !sql.contains("{table}")));
            }
        }
    }
    found
}

#[test]
fn every_statement_goes_by_an_index_or_says_why_not() {
    let connection = fresh();
    let statements = statements();
    assert!(statements.len() > 55, "the sources are read: {}", statements.len());
    let mut wrong = Vec::new();
    for sql in &statements {
        let whole = plan(&connection, sql, Vec::new()).into_iter().find(|step| is_whole(step));
        let named = WHOLE.iter().any(|(begins, _)| sql.starts_with(begins));
        if let Some(step) = whole.filter(|_| !named) {
            wrong.push(format!("{step}: {sql}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (begins, _) in WHOLE {
        assert!(statements.iter().any(|sql| sql.starts_with(begins)), "nothing begins like this any more: {begins}");
    }
}

#[test]
fn what_is_due_is_found_by_the_index_of_due_times() {
    let connection = fresh();
    for sql in [queue::DUE, queue::NEXT_DUE] {
        let plan = plan(&connection, sql, Vec::new()).join("; ");
        assert!(plan.contains("INDEX deliveries_due") && !plan.contains("B-TREE"), "{plan}");
    }
}

#[test]
fn a_list_is_read_in_its_order_and_never_sorted() {
    let connection = fresh();
    let (at, id) = (Timestamp::from_millis(1), MessageId::new(Timestamp::from_millis(1), 1));
    let some = || Some("x".to_owned());
    let all = MessageFilter {
        sender: some(),
        recipient: some(),
        subject: some(),
        outcome: Some(MessageOutcome::Stored),
        since: Some(at),
        before: Some(id),
        limit: Some(1),
    };
    let range = MessageFilter { since: Some(at), before: Some(id), ..MessageFilter::default() };
    for (filter, searched) in [(MessageFilter::default(), false), (all, true), (range, true)] {
        let (sql, values) = messages::select(&filter);
        let plan = plan(&connection, &sql, values).join("; ");
        assert!(!plan.contains("B-TREE") && plan.contains("SEARCH m ") == searched, "{plan}");
        assert_eq!(plan.matches("SEARCH d USING PRIMARY KEY").count(), 2, "{plan}");
    }
    let one = QueueFilter { message: Some(id), ..QueueFilter::default() };
    let narrow = QueueFilter { sender: some(), recipient: some(), dead: Some(true), ..QueueFilter::default() };
    let key = DeliveryKey { message: id, n: 3 };
    for (filter, after, searched) in [(one, None, true), (narrow.clone(), None, false), (narrow, Some(key), true)] {
        let (sql, values) = queue::select(&filter, after, 10);
        let plan = plan(&connection, &sql, values).join("; ");
        assert!(!plan.contains("B-TREE") && plan.contains("SEARCH d ") == searched, "{plan}");
        assert!(plan.contains("SEARCH m USING PRIMARY KEY"), "{plan}");
    }
    assert!(plan(&connection, &messages::one(), Vec::new()).join("; ").contains("SEARCH m USING PRIMARY KEY"));
}
