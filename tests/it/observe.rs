//! What happened can be seen: health, metrics, the log, a message's trace.

use crate::harness::{Setup, SmtpSink, mail};

#[test]
fn health_and_readiness_are_told_over_http() {
    let server = Setup::new().start();
    assert_eq!(server.get("/healthz").0, 200);
    assert_eq!(server.get("/readyz").0, 200);
    assert_eq!(server.get("/nothing/here").0, 404);
}

#[test]
fn metrics_count_what_happened() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { if message.subject == \"bad\" { message.set_reject(\"no\") } \
                 else { message.forward(\"team@example.net\") } }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    for subject in ["good", "bad", "good"] {
        server.send("ann@example.org", &["support@example.com"], &mail(subject, subject));
    }
    server.settled();
    for (name, labels, expected) in [
        ("mailworker_messages_total", "outcome=\"accepted\"", 2.0),
        ("mailworker_messages_total", "outcome=\"rejected\"", 1.0),
        ("mailworker_deliveries_total", "outcome=\"delivered\"", 2.0),
        ("mailworker_sessions_total", "", 3.0),
    ] {
        let value = server.metric(name, &[labels]);
        assert!(
            (value - expected).abs() < 0.1,
            "{name} {labels}: {value}, not {expected}\n{}",
            server.get("/metrics").1
        );
    }
}

#[test]
fn the_trace_tells_the_whole_story() {
    let sink = SmtpSink::start();
    let rules =
        "fn email(message, env, ctx) {\n    print(\"thinking\");\n    message.forward(\"team@example.net\");\n}";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], &mail("story", "x")).expect(250);
    sink.wait_one();
    let newest = server.newest_settled();
    let events: Vec<&str> =
        newest["trace"].as_array().unwrap().iter().filter_map(|event| event["event"].as_str()).collect();
    for event in ["received", "script_log", "decided", "accepted", "attempted"] {
        assert!(events.contains(&event), "{event}: {newest:#}");
    }
    let id = newest["id"].as_str().unwrap();
    let shown = server.stdout(&["messages", "show", id]);
    for part in
        [id, "ann@example.org", "support@example.com", "rules/main.rhai:3", "thinking", "team@example.net", "250"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let listed = server.stdout(&["messages", "list"]);
    assert!(listed.contains(id) && listed.contains("story"), "{listed}");
}

/// Refusals need no login: each is counted, and what a flood of them leaves in the log is bounded.
#[test]
fn a_flood_of_refused_recipients_is_counted_and_is_no_flood_of_lines() {
    let server = Setup::new().start();
    let begun = std::time::Instant::now();
    let mut refused = 0;
    for session in 0..30 {
        let mut client = server.client();
        client.command("MAIL FROM:<>").expect(250);
        for n in 0..10 {
            refused += u64::from(client.command(&format!("RCPT TO:<u{session}.{n}@example.net>")).code == 550);
        }
    }
    assert!(refused >= 200, "{refused}");
    let counted = server.metric("mailworker_refused_total", &["phase=\"rcpt\"", "code=\"550\""]);
    assert!((counted - f64::from(u32::try_from(refused).unwrap())).abs() < 0.1, "{counted}");
    assert!(server.metric("mailworker_unlogged_total", &["why=\"flood\""]) > 100.0);
    // What was kept back is told at the end of a window, whether or not anything else happens then.
    let told = server.log.find("kept_back", 0, |line| line.contains("kept_back=").then(|| line.to_owned()));
    assert!(told.contains("most_ip=127.0.0.1"), "{told}");
    let windows = begun.elapsed().as_secs() as usize / 10 + 2;
    let written = server.log.all().iter().filter(|line| line.contains(" refused session=")).count();
    assert!(written <= 20 * windows, "{written}");
    let null = server.log.all().iter().any(|line| line.contains(" refused session=") && line.contains("sender=\"<>\""));
    assert!(null, "the null sender is named");
}

/// An increase over 0 is one: an alarm must not miss the first fault.
#[test]
fn each_counter_is_there_before_the_first_event() {
    let server = Setup::new().start();
    let (_, metrics) = server.get("/metrics");
    for zero in [
        "mailworker_faults_total 0",
        "mailworker_reload_failures_total 0",
        "mailworker_refused_total{phase=\"rcpt\",code=\"550\"} 0",
        "mailworker_deliveries_total{kind=\"relay\",outcome=\"failed\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line == zero), "{zero}\n{metrics}");
    }
}

/// Neither bodies nor secrets reach the log.
#[test]
fn the_log_holds_neither_bodies_nor_secrets() {
    let (sink, hook) = (SmtpSink::start(), crate::harness::HttpSink::start());
    let webhook =
        format!("[[webhook]]\nbinding = \"HOOK\"\nurl = \"{}\"\nsecret = {{ env = \"HOOK_SECRET\" }}", hook.url("/"));
    let rules = "fn email(message, env, ctx) { ctx.webhook(\"HOOK\", #{ t: message.text }); message.forward(\"team@example.net\"); }";
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let server = Setup::relaying_to(&sink).toml(&webhook).rules(rules).environment("HOOK_SECRET", secret).start();
    server.send("ann@example.org", &["support@example.com"], &mail("private", "between-us-alone")).expect(250);
    sink.wait(1);
    hook.wait(1);
    let newest = server.newest_settled();
    let log = server.log.all().join("\n");
    for private in ["between-us-alone", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
        assert!(!log.contains(private), "{log}");
        assert!(!newest["trace"].to_string().contains(private), "{newest:#}");
    }
}

#[test]
fn tail_prints_what_happens() {
    use std::process::Stdio;
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mut tail = server.command(&["tail", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let printed = crate::harness::lines::Lines::default();
    printed.collect(tail.stdout.take().unwrap());
    printed.collect(tail.stderr.take().unwrap());
    // It shows what happens from when it is connected on: mail is sent until some of it is seen.
    let mut sent = 0;
    server.wait_until("tail shows a message", || {
        sent += 1;
        server.send("ann@example.org", &["support@example.com"], &mail(&format!("tailed-{sent}"), "x")).expect(250);
        printed.all().iter().any(|line| line.contains("attempted")).then_some(())
    });
    tail.kill().unwrap();
    tail.wait().unwrap();
    for line in printed.all() {
        serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[test]
fn send_prints_the_servers_answers() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let message = mail("sent", "x");
    server.write("letter.eml", &String::from_utf8(message.clone()).unwrap());
    let port = server.smtp().to_string();
    let arguments =
        ["send", "letter.eml", "--from", "ann@example.org", "--to", "support@example.com", "--server", &port];
    let printed = server.stdout(&arguments);
    assert!(printed.contains("250"), "{printed}");
    sink.wait_one().prepended_to(&message);
}

/// Wrong use is 2, a wrong configuration 78, and both teach.
#[test]
fn exit_codes_tell_what_was_wrong() {
    let setup = Setup::new();
    let config = setup.write();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::server::PROGRAM);
        command.args(arguments).arg("--config").arg(&config).output().unwrap()
    };
    assert_eq!(run(&["check"]).status.code(), Some(0), "{}", String::from_utf8_lossy(&run(&["check"]).stderr));
    assert_eq!(run(&["no-such-command"]).status.code(), Some(2));
    for level in ["warning", "verbose", "9"] {
        let refused = run(&["serve", "--log-level", level]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(level) && said.contains("error, warn, info, debug, trace"), "{said}");
    }
    let broken = setup
        .rules("fn email(message, env, ctx) { message.forward(env.SUPORT) }")
        .toml("[vars]\nSUPPORT = \"a@example.net\"");
    broken.write();
    let checked = run(&["check"]);
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("rules/main.rhai:1:") && said.contains("SUPORT") && said.contains("SUPPORT"), "{said}");
    let _kept = broken.file("mailworker.toml", "hostnam = \"mx.example.com\"\n");
    let checked = run(&["check"]);
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert_eq!(checked.status.code(), Some(78), "{said}");
    assert!(said.contains("hostnam") && said.contains("hostname"), "{said}");
}
