//! A worker that runs by itself: each time once, over restarts, and what it asked for is there with it.

use serde_json::Value;

use crate::harness::{HttpSink, Says, Server, Setup, SmtpSink, Web};

const MESSAGE: &[u8] = b"From: ann@example.org\r\nSubject: Order\r\n\r\nTwo, please.\r\n";

fn rules(hook: &HttpSink) -> String {
    r#"
fn email(message, env, ctx) { message.forward("team@example.net"); }
fn scheduled(event, env, ctx) {
    env.RUNS.increment(event.cron);
    ctx.log(`${event.cron} it is`);
    ctx.webhook("HOOK/ran", event);
    ctx.send(#{ from: "reports@example.com", to: "boss@example.net", subject: "Report", text: "All is well." });
}
"#
    .replace("HOOK", hook.url("").trim_end_matches('/'))
}

/// Once a year, so that no test meets it.
fn setup(sink: &SmtpSink, rules: &str) -> Setup {
    Setup::relaying_to(sink)
        .rules(rules)
        .toml("kv_namespaces = [{ binding = \"RUNS\" }]\n[triggers]\ncrons = [\"0  0 1 JAN *\"]")
}

fn store(server: &Server) -> rusqlite::Connection {
    rusqlite::Connection::open(server.path().join("data/mailworker.db")).unwrap()
}

/// When it ran last, as the store has it.
fn mark(server: &Server) -> Option<String> {
    let sql = "SELECT CAST(value AS TEXT) FROM kv WHERE namespace = 'mailworker/scheduled' AND key = '0 0 1 JAN *'";
    store(server).query_row(sql, [], |row| row.get(0)).ok()
}

/// As if the server had been away since the year 2001.
fn long_away(server: &mut Server) {
    server.wait_until("the first look", || mark(server));
    server.kill();
    let sql = "UPDATE kv SET value = CAST('1000000000000' AS BLOB) WHERE namespace = 'mailworker/scheduled'";
    assert_eq!(store(server).execute(sql, []).unwrap(), 1);
    server.run();
}

#[test]
fn of_the_missed_times_the_last_runs_once() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let mut server = setup(&sink, &rules(&hook)).start();
    long_away(&mut server);
    let event: Value = serde_json::from_slice(&hook.wait(1)[0].body).unwrap();
    assert_eq!(event["cron"], "0 0 1 JAN *", "{event}");
    let time = event["scheduled_time"].as_i64().unwrap();
    assert!(time > 1_760_000_000_000 && time % 86_400_000 == 0, "{event}");
    assert!(sink.wait_one().text().contains("Subject: Report"));
    server.settled();
    assert_eq!(mark(&server), Some(time.to_string()));
    assert_eq!(server.stdout(&["kv", "get", "RUNS", "0 0 1 JAN *"]).trim(), "1");
    let run = server.messages().into_iter().find(|message| message["subject"] == "Scheduled: 0 0 1 JAN *").unwrap();
    let shown = server.stdout(&["messages", "show", run["id"].as_str().unwrap()]);
    for part in ["scheduled by rules/main.rhai", "0 0 1 JAN * it is", "increment RUNS"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // Not again, after a stop that nobody foresaw.
    server.kill();
    server.run();
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    sink.wait(2);
    server.settled();
    assert_eq!((hook.requests().len(), sink.mails().len()), (1, 2));
    assert_eq!(server.stdout(&["kv", "get", "RUNS", "0 0 1 JAN *"]).trim(), "1");
}

/// What it asks outside is within its run, and told in its trace.
#[test]
fn it_asks_outside_and_goes_on_with_the_answer() {
    let web = Web::start(|request| match request.path.as_str() {
        "/v1/chat/completions" => Says::ok(r#"{"choices": [{"message": {"role": "assistant", "content": "quiet"}}]}"#),
        _ => Says::ok("{\"rate\": 2}"),
    });
    let sink = SmtpSink::start();
    let rules = r#"
fn email(message, env, ctx) { message.drop(); }
fn scheduled(event, env, ctx) {
    let rate = ctx.fetch("WEB/rate").json.rate;
    let mood = ctx.ai(#{ messages: [#{ role: "user", content: "How was the week?" }] }).text;
    ctx.send(#{ from: "reports@example.com", to: "boss@example.net", subject: `${rate} ${mood}`, text: "." });
}
"#
    .replace("WEB", web.url("").trim_end_matches('/'));
    let settings = format!("[ai]\nurl = \"{}\"\nmodel = \"small\"", web.url("/v1"));
    let mut server = setup(&sink, &rules).toml(&settings).start();
    long_away(&mut server);
    assert!(sink.wait_one().text().contains("Subject: 2 quiet"));
    server.settled();
    let mut asked: Vec<String> = web.requests().iter().map(|request| request.path.clone()).collect();
    asked.sort();
    assert_eq!(asked, ["/rate", "/v1/chat/completions"]);
    let run = server.messages().into_iter().find(|message| message["subject"] == "Scheduled: 0 0 1 JAN *").unwrap();
    let shown = server.stdout(&["messages", "show", run["id"].as_str().unwrap()]);
    for part in ["asked", "rules/main.rhai:4", "ai small", "rules/main.rhai:5"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn one_that_fails_is_told_and_has_done_nothing() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let failing = rules(&hook).replace("ctx.send(", "throw \"no report today\"; ctx.send(");
    let mut server = setup(&sink, &failing).start();
    let from = server.log.mark();
    long_away(&mut server);
    let failed = server.wait_event(from, "script_failed", |_| true);
    assert_eq!(failed["handler"], "scheduled", "{failed}");
    assert!(failed["error"].as_str().unwrap().ends_with("no report today"), "{failed}");
    server.settled();
    assert_ne!(mark(&server).as_deref(), Some("1000000000000"), "the next is the one that comes");
    assert_eq!(server.cli(&["kv", "get", "RUNS", "0 0 1 JAN *"]).status.code(), Some(1));
    assert!(hook.requests().is_empty());
}

/// A clock that was years ahead when a cron ran, and is right again.
#[test]
fn what_ran_in_times_to_come_holds_nothing_up() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let mut server = setup(&sink, &rules(&hook)).start();
    let first: i64 = server.wait_until("the first look", || mark(&server)).parse().unwrap();
    server.kill();
    let sql = "UPDATE kv SET value = CAST('32503680000000' AS BLOB) WHERE namespace = 'mailworker/scheduled'";
    assert_eq!(store(&server).execute(sql, []).unwrap(), 1);
    let from = server.log.mark();
    server.run();
    let fault = server.wait_event(from, "fault", |event| event["what"] == "scheduled");
    assert!(fault["detail"].as_str().unwrap().contains("`0 0 1 JAN *` ran last at 3000-01-01T00:00:00"), "{fault}");
    let day = 86_400_000;
    server.wait_until("a mark of now", || {
        mark(&server)?.parse().ok().filter(|at: &i64| (first..first + day).contains(at))
    });
    long_away(&mut server);
    assert_eq!(hook.wait(1).len(), 1, "it runs again");
    server.settled();
}

#[test]
fn a_cron_that_is_gone_leaves_no_mark() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let mut server = setup(&sink, &rules(&hook)).start();
    server.wait_until("the first look", || mark(&server));
    server.kill();
    let sql = "UPDATE kv SET key = '5 5 5 5 *' WHERE namespace = 'mailworker/scheduled'";
    assert_eq!(store(&server).execute(sql, []).unwrap(), 1);
    server.run();
    let marks = || {
        let store = store(&server);
        let mut asked = store.prepare("SELECT key FROM kv WHERE namespace = 'mailworker/scheduled'").unwrap();
        let keys: Vec<String> = asked.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        keys
    };
    server.wait_until("the marks of what is planned", || (marks() == ["0 0 1 JAN *"]).then_some(()));
}

#[test]
fn crons_without_a_handler_are_warned_of() {
    let sink = SmtpSink::start();
    let server = setup(&sink, "fn email(message, env, ctx) { message.drop(); }").start();
    let checked = server.cli(&["check"]);
    let text = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains("the worker has no handler `scheduled`"), "{text}");
}
