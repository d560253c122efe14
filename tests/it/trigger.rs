//! `mailworker trigger`: `scheduled` by hand, against a running server, without one, and without effects.

use serde_json::Value;

use crate::harness::{HttpSink, Server, Setup, SmtpSink};

const CRON: &str = "0 0 1 JAN *";

fn rules(hook: &HttpSink) -> String {
    r#"
fn email(message, env, ctx) { message.drop(); }
fn scheduled(event, env, ctx) {
    let runs = env.RUNS.get(event.cron) ?? 0;
    if runs == 7 { throw "enough"; }
    env.RUNS.put(event.cron, runs + 1);
    ctx.log(`run ${runs}`);
    ctx.webhook("HOOK/ran", event);
    ctx.send(#{ from: "reports@example.com", to: "boss@example.net", subject: "Report", text: "All is well." });
}
"#
    .replace("HOOK", hook.url("").trim_end_matches('/'))
}

fn setup(sink: &SmtpSink, rules: &str, crons: &str) -> Setup {
    let settings = format!("kv_namespaces = [{{ binding = \"RUNS\" }}]\n[triggers]\ncrons = {crons}");
    Setup::relaying_to(sink).rules(rules).toml(&settings)
}

/// When it ran last as planned.
fn mark(server: &Server) -> Option<String> {
    let store = rusqlite::Connection::open(server.path().join("data/mailworker.db")).unwrap();
    let sql = "SELECT CAST(value AS TEXT) FROM kv WHERE namespace = 'mailworker/scheduled' AND key = '0 0 1 JAN *'";
    store.query_row(sql, [], |row| row.get(0)).ok()
}

fn failing(server: &Server, arguments: &[&str], code: i32) -> String {
    let output = server.cli(arguments);
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

#[test]
fn it_runs_in_the_server_that_runs_and_leaves_what_is_planned() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = setup(&sink, &rules(&hook), "[\"0  0 1 JAN *\"]").start();
    let before = server.wait_until("the first look", || mark(&server));
    let told = server.stdout(&["trigger", "--time", "2026-01-01T00:00:00Z"]);
    for part in ["scheduled by rules/main.rhai", "run 0", "put RUNS", "ran: 1 webhook, 1 mail queued"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let event: Value = serde_json::from_slice(&hook.wait(1)[0].body).unwrap();
    assert_eq!(event, serde_json::json!({ "cron": CRON, "scheduled_time": 1_767_225_600_000_i64 }));
    assert!(sink.wait_one().text().contains("Subject: Report"));
    server.settled();
    assert_eq!(mark(&server), Some(before), "the next is the one that is planned");
    assert_eq!(server.stdout(&["kv", "get", "RUNS", CRON]).trim(), "1");
    let run = server.messages().into_iter().find(|one| one["subject"] == format!("Scheduled by hand: {CRON}")).unwrap();
    assert!(server.stdout(&["messages", "show", run["id"].as_str().unwrap()]).contains("run 0"));
    assert!(server.stdout(&["log", "list"]).contains("trigger"), "who did it is told");

    // Once more, for programs, and then by a handler that fails.
    let told: Value = serde_json::from_str(&server.stdout(&["trigger", "0 0 1  JAN *", "--json"])).unwrap();
    assert_eq!((&told["deliveries"], &told["mails"], &told["failed"]), (&1.into(), &1.into(), &Value::Null), "{told}");
    server.stdout(&["kv", "put", "RUNS", CRON, "7"]);
    let told = failing(&server, &["trigger"], 1);
    assert!(told.contains("enough") && told.contains("failed: nothing was done"), "{told}");
    hook.wait(2);
    server.settled();
    assert_eq!(hook.requests().len(), 2);
}

#[test]
fn a_dry_run_shows_what_it_would_do_and_does_nothing() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = setup(&sink, &rules(&hook), "[\"0  0 1 JAN *\"]").start();
    let told = server.stdout(&["trigger", "--dry-run"]);
    for part in ["run 0", "webhook to http://127.0.0.1", "put RUNS", "would queue 1 webhook, 1 mail; nothing was done"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told: Value = serde_json::from_str(&server.stdout(&["trigger", "--dry-run", "--json"])).unwrap();
    assert_eq!((&told["id"], &told["mails"]), (&Value::Null, &1.into()), "{told}");
    server.settled();
    assert!(hook.requests().is_empty() && sink.mails().is_empty() && server.messages().is_empty());
    assert_eq!(server.cli(&["kv", "get", "RUNS", CRON]).status.code(), Some(1));
}

#[test]
fn where_no_server_runs_the_command_does_it_and_the_server_sends_it_later() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let mut server = setup(&sink, &rules(&hook), "[\"0 0 1 JAN *\"]").start();
    server.kill();
    assert!(server.stdout(&["trigger"]).contains("ran: 1 webhook, 1 mail queued"));
    assert_eq!(server.stdout(&["kv", "get", "RUNS", CRON]).trim(), "1");
    assert!(hook.requests().is_empty());
    server.run();
    hook.wait(1);
    assert!(sink.wait_one().text().contains("Subject: Report"));
}

#[test]
fn a_cron_is_one_of_the_configurations() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = setup(&sink, &rules(&hook), "[\"0 0 1 JAN *\", \"0 9 * * MON\"]").start();
    let told = failing(&server, &["trigger"], 2);
    assert!(told.contains("\"0 0 1 JAN *\", \"0 9 * * MON\""), "{told}");
    let told = failing(&server, &["trigger", "0 9 * * TUE"], 1);
    assert!(told.contains("did you mean \"0 9 * * MON\"?"), "{told}");
    assert!(failing(&server, &["trigger", "0 9 * * MON", "--time", "soon"], 2).contains("this is no time"));
    drop(server);
    let server = setup(&sink, "fn email(message, env, ctx) { message.drop(); }", "[\"0 9 * * MON\"]").start();
    for arguments in [&["trigger"][..], &["trigger", "--dry-run"]] {
        assert!(failing(&server, arguments, 1).contains("has no handler `scheduled`"), "{arguments:?}");
    }
    drop(server);
    let server = setup(&sink, &rules(&hook), "[]").start();
    assert!(failing(&server, &["trigger"], 1).contains("add [triggers] crons"));
}
