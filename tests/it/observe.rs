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

/// Also for a recipient that is decided again, a webhook that is tried again, and a bounce that isn't sent.
#[test]
fn the_story_is_told_in_order_to_its_end() {
    let (sink, hook) = (SmtpSink::start(), crate::harness::HttpSink::start());
    sink.always("RCPT TO:<gone@", "550 5.1.1 no such user");
    hook.script(["503 Busy"]);
    let webhook = format!(
        "[[webhook]]\nbinding = \"HOOK\"\nurl = \"{}\"\nsecret = {{ env = \"HOOK_SECRET\" }}",
        hook.url("/services/T0KEN")
    );
    let rules = |for_busy: &str| {
        format!(
            "fn email(message, env, ctx) {{\n    if message.to.local == \"busy\" {{ {for_busy}; return; }}\n    \
             ctx.webhook(\"HOOK\", #{{ a: 1 }});\n}}"
        )
    };
    let server = Setup::relaying_to(&sink)
        .toml(&webhook)
        .rules(&rules("throw \"not now\""))
        .environment("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .start();
    server.send("ann@example.org", &["ready@example.com", "busy@example.com"], &mail("story", "x")).expect(250);
    hook.wait(2);
    server.wait_until("the webhook is settled", || (server.newest()["queued"] == 1).then_some(()));
    let mark = server.log.mark();
    server.write("rules/main.rhai", &rules("message.forward(\"gone@example.net\")"));
    server.wait_event(mark, "reloaded", |_| true);
    server.stdout(&["queue", "retry", "--all"]);
    server.wait_event(mark, "notice_suppressed", |_| true);
    let newest = server.newest_settled();
    let shown = server.stdout(&["messages", "show", newest["id"].as_str().unwrap()]);
    let mut rest = shown.as_str();
    for step in [
        "received  ann@example.org → ready@example.com, busy@example.com",
        "decided   accept for ready@example.com by worker rules/main.rhai at rules/main.rhai:3",
        "· webhook to HOOK",
        "failed    email: rules/main.rhai:2:",
        "     2 |     if message.to.local == \"busy\" { throw \"not now\"; return; }\n                    |                                     ^\n",
        "decided   fail for busy@example.com by worker rules/main.rhai",
        "accepted  250",
        "later     webhook to HOOK",
        "attempt 1",
        "503",
        "again at",
        "delivered webhook to HOOK at ",
        "admin     retry",
        "decided   accept for busy@example.com by worker rules/main.rhai at rules/main.rhai:2",
        "· forward to gone@example.net",
        "delivered decide to busy@example.com",
        "failed    relay to gone@example.net",
        "550 5.1.1 no such user",
        "given up  gone@example.net",
        "no notice to ann@example.org",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step:?} is not where it should be:\n{shown}"));
        rest = &rest[at + step.len()..];
    }
    assert!(!shown.contains("T0KEN"), "{shown}");
    // The log tells each step once.
    for line in [" accepted session=", " script failed ", " delivery failed ", " received "] {
        let of = |log: &[String]| log.iter().filter(|text| !text.starts_with('{') && text.contains(line)).count();
        let log = server.wait_until(line, || Some(server.log.all()).filter(|log| of(log) > 0));
        assert_eq!(of(&log), 1, "{line}\n{}", log.join("\n"));
    }
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
    let windows = usize::try_from(begun.elapsed().as_secs()).unwrap() / 10 + 2;
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

/// What a person sees, narrowed: the message is followed from its recipient to its delivery.
#[test]
fn tail_shows_a_person_what_was_asked_for() {
    use std::process::Stdio;
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let arguments = ["tail", "--recipient", "SUPPORT@", "--sender", "ann@", "--outcome", "delivered"];
    let mut tail = server.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (printed, said) = (crate::harness::lines::Lines::default(), crate::harness::lines::Lines::default());
    printed.collect(tail.stdout.take().unwrap());
    said.collect(tail.stderr.take().unwrap());
    // From this remark on nothing is missed.
    server.wait_until("tail says that it follows", || {
        said.all().iter().any(|line| line.contains("tailing")).then_some(())
    });
    for (from, to) in [
        ("bob@example.org", "support@example.com"),
        ("ann@example.org", "sales@example.com"),
        ("ann@example.org", "support@example.com"),
    ] {
        server.send(from, &[to], &mail("tailed", "x")).expect(250);
        server.settled();
    }
    server.wait_until("tail shows a delivery", || (printed.mark() > 0).then_some(()));
    tail.kill().unwrap();
    tail.wait().unwrap();
    let [line] = printed.all().try_into().unwrap_or_else(|lines| panic!("{lines:#?}"));
    assert!(line.contains("delivered relay to team@example.net") && line.contains("250"), "{line}");
}

/// A webhook's URL that a script made may be a key as a whole.
#[test]
fn a_webhooks_login_path_and_query_are_shown_nowhere() {
    let hook = crate::harness::HttpSink::start();
    let url = hook.url("/services/T0SECRET?token=T0KEN");
    let rules = format!("fn email(message, env, ctx) {{ ctx.webhook(\"{url}\", #{{ a: 1 }}); }}");
    hook.script(["503 Busy", "503 Busy", "503 Busy", "503 Busy"]);
    let mut server = Setup::new().rules(&rules).start();
    server.leaves_queue();
    server.send("ann@example.org", &["support@example.com"], &mail("hooked", "x")).expect(250);
    hook.wait(1);
    server.wait_until("an attempt is told", || {
        let newest = server.newest();
        newest["trace"].as_array().unwrap().iter().any(|event| event["event"] == "attempted").then_some(())
    });
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let mut said = String::new();
    for arguments in [
        ["queue", "list", "-n", "9"].as_slice(),
        &["queue", "list", "--json"],
        &["queue", "retry", "--id", &id],
        &["messages", "show", &id],
        &["messages", "show", &id, "--json"],
        &["queue", "drop", "--id", &id],
        &["messages", "show", &id, "--json"],
        &["log", "list", "--json"],
    ] {
        said += &server.stdout(arguments);
    }
    said += &server.log.all().join("\n");
    assert!(said.contains(&hook.address.to_string()), "{said}");
    for private in ["T0SECRET", "T0KEN"] {
        assert!(!said.contains(private), "{said}");
    }
}

/// A disk or a right that fails keeps mail back: that is a fault, and the server isn't ready.
#[test]
fn a_segment_that_cannot_be_read_is_a_fault_and_unready() {
    let sink = SmtpSink::start();
    sink.always("MAIL", "450 4.7.1 not now");
    let mut server = Setup::relaying_to(&sink).toml("[relay]\nretry = [\"1 h\"]").start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("kept", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    assert!(server.stop().success());
    sink.as_usual();

    // No right, however high, opens a link to itself.
    let spool = server.path().join("data/spool");
    let segment = std::fs::read_dir(&spool).unwrap().next().unwrap().unwrap().path();
    let aside = server.path().join("aside.seg");
    std::fs::rename(&segment, &aside).unwrap();
    std::os::unix::fs::symlink(&segment, &segment).unwrap();
    server.run();
    server.stdout(&["queue", "retry", "--all"]);
    let fault = server.wait_event(0, "fault", |event| event["what"] == "a segment can't be read");
    assert!(fault["detail"].as_str().unwrap().contains("spool/"), "{fault}");
    let (status, reasons) = server.get("/readyz");
    assert_eq!(status, 503, "{reasons}");
    assert!(reasons.contains("store: ") && reasons.contains("spool/"), "{reasons}");
    server.wait_until("the fault is in the log", || {
        server.json(&["log", "list"]).iter().any(|event| event["what"] == "a segment can't be read").then_some(())
    });

    std::fs::remove_file(&segment).unwrap();
    std::fs::rename(&aside, &segment).unwrap();
    server.stdout(&["queue", "retry", "--all"]);
    sink.wait(1);
    server.settled();
    assert_eq!(server.get("/readyz").0, 200);
}

/// The way in for the command line is its owner's alone.
#[test]
fn the_control_socket_and_its_directory_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Setup::new().start();
    let mode = |path: &str| std::fs::metadata(server.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("data"), mode("data/control.sock")), (0o700, 0o600));
}

#[test]
fn limits_in_use_are_gauges() {
    let sink = SmtpSink::start();
    sink.hold();
    let server = Setup::relaying_to(&sink).start();
    server.send("ann@example.org", &["support@example.com"], &mail("held", "x")).expect(250);
    sink.wait_command(".");
    let _open = server.client();
    assert!((server.metric("mailworker_delivery_attempts_open", &[]) - 1.0).abs() < 0.1);
    assert!((server.metric("mailworker_sessions_open", &[]) - 1.0).abs() < 0.1);
    sink.release();
    server.wait_until("no attempt is under way", || {
        (server.metric("mailworker_delivery_attempts_open", &[]) < 0.1).then_some(())
    });
    let (_, metrics) = server.get("/metrics");
    for name in ["worker_runs_open", "store_reads_open", "store_waiting", "in_flight_bytes"] {
        assert!(metrics.lines().any(|line| line.starts_with(&format!("mailworker_{name} "))), "{name}\n{metrics}");
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
