//! Workers that burn, grow or pile up without end, in a server that runs: each ends within its budget with an error that
//! says what to do, has done nothing, and others' mail is answered meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::lines::event;
use crate::harness::watched::Watched;
use crate::harness::{Client, Says, Server, Setup, Web, mail};

const TO: &[&str] = &["support@example.com"];

/// What the sender reads, and what the trace tells of it.
#[track_caller]
fn failed(server: &Server, mark: usize) -> String {
    let told = server.wait_event(mark, "script_failed", |_| true);
    let error = told["error"].as_str().unwrap().to_owned();
    let shown = server.stdout(&["messages", "show", told["message"].as_str().unwrap()]);
    assert!(shown.contains(&error), "{error} is not in\n{shown}");
    error
}

/// By the budget that there is where nobody says another, but for the clock: a busy machine's is another limit.
#[test]
fn each_overrun_is_put_off_with_an_error_that_teaches() {
    let rules = r#"fn deeper(n) { deeper(n + 1) }
fn email(message, env, ctx) {
    switch message.subject {
        "million" => { let a = []; for i in 0..1000000 { a.push(1000000 - i); } a.sort(); },
        "sorts" => { let a = []; for i in 0..9000 { a.push(i * 7919 % 9001); } loop { a.sort(|x, y| x - y); a.reverse(); } },
        "string" => { let s = "x"; loop { s += s; } },
        "array" => { let a = [1]; loop { a += a; } },
        "map" => { let m = #{}; for i in 0..1000000 { m[`k${i}`] = i; } },
        "pattern" => regex_match(message.text, "((a{100}){100}){" + 100 + "}"),
        "recursion" => deeper(0),
        "actions" => for i in 0..101 { env.STATE.put(`k${i}`, i); },
        "loop" => loop { },
        _ => (),
    }
    message.drop();
}
"#;
    let settings = "[budget]\nwall_clock = \"25 s\"\n[[kv_namespaces]]\nbinding = \"STATE\"";
    let server = Setup::new().toml(settings).rules(rules).start();
    for (subject, line, words) in [
        ("million", 4, "an array or blob of more than 10000 elements"),
        ("sorts", 5, "more than 1000000 operations"),
        ("string", 6, "a string longer than 1048576 octets"),
        ("array", 7, "an array or blob of more than 10000 elements"),
        ("map", 8, "a map of more than 10000 entries"),
        ("pattern", 9, "with its repetitions written out, 2000 at most"),
        ("recursion", 10, "calls nested deeper than 64"),
        ("actions", 11, "more than 100 actions in one run (forward, webhook, store, put, …)"),
        ("loop", 12, "more than 1000000 operations"),
    ] {
        let mark = server.log.mark();
        server.send("ann@example.org", TO, &mail(subject, "x")).expect_status(451, "4.3.0");
        let error = failed(&server, mark);
        assert!(error.starts_with(&format!("rules/main.rhai:{line}:")) && error.contains(words), "{subject}: {error}");
    }
    // Nothing of it was done, and the next one is decided on.
    assert_eq!(server.json(&["kv", "list", "STATE"]).len(), 0);
    server.send("ann@example.org", TO, &mail("good", "x")).expect(250);
}

/// Each says by a request that it begins; the clock alone ends it, but for the one with too many actions, which are had
/// while it is held.
fn burns(begun: &str) -> String {
    format!(
        r#"fn deeper(n) {{ if n == 0 {{ 0 }} else {{ deeper(n - 1) + deeper(n - 1) }} }}
fn email(message, env, ctx) {{
    let what = message.subject;
    if what == "quick" {{ message.drop(); return; }}
    if what == "actions" {{ for i in 0..100 {{ env.STATE.put(`k${{i}}`, i); }} }}
    ctx.fetch(`{begun}${{what}}`);
    switch what {{
        "sorts" => {{ let a = []; for i in 0..9000 {{ a.push(i * 7919 % 9001); }} loop {{ a.sort(|x, y| x - y); a.reverse(); }} }},
        "strings" => loop {{ let s = ""; s.pad(1000000, "x"); s.replace("x", "y"); }},
        "regex" => {{ let text = ""; text.pad(4000, "a"); loop {{ regex_find_all(text, ".*b|a"); }} }},
        "recursion" => deeper(60),
        "loop" => loop {{ }},
        "actions" => env.STATE.put("one more", 1),
    }}
}}
"#
    )
}

/// The places in the log of the first events of these names after `mark`.
fn order(server: &Server, mark: usize, names: [&str; 2]) -> [usize; 2] {
    names.map(|name| {
        server.wait_event(mark, name, |_| true);
        let is = |line: &String| event(line).is_some_and(|event| event["event"] == name);
        server.log.all().iter().skip(mark).position(is).unwrap()
    })
}

#[test]
fn while_a_worker_burns_others_are_answered_and_it_ends_by_its_clock() {
    let gate = Arc::new(Watched::new(false));
    let opens = Arc::clone(&gate);
    let web = Web::start(move |request| {
        if request.path == "/actions" {
            opens.wait(|open| open.then_some(()));
        }
        Says::ok("go on")
    });
    let settings = "[budget]\noperations = 1000000000000\nwall_clock = \"3 s\"\n[[kv_namespaces]]\nbinding = \"STATE\"";
    let server = Setup::new().toml(settings).rules(&burns(&web.url("/"))).start();
    let clock = "time";
    let cases = [
        ("sorts", 8, clock),
        ("strings", 9, clock),
        ("regex", 10, clock),
        ("recursion", 11, clock),
        ("loop", 12, "more than 3s of time"),
        ("actions", 13, "more than 100 actions in one run"),
    ];
    for (nth, (what, line, words)) in cases.into_iter().enumerate() {
        let mut quick = Client::greeted(server.smtp());
        let before = server.log.mark();
        quick.send("bob@example.org", TO, &mail("quick", "first")).expect(250);
        server.wait_event(before, "accepted", |_| true);
        let mark = server.log.mark();
        std::thread::scope(|scope| {
            let began = Instant::now();
            let burns = scope.spawn(|| server.send("ann@example.org", TO, &mail(what, "x")));
            web.wait(nth + 1);
            quick.send("bob@example.org", TO, &mail("quick", "meanwhile")).expect(250);
            server.wait_event(mark, "accepted", |_| true);
            assert!(!burns.is_finished(), "{what}");
            if what == "actions" {
                gate.change(|open| *open = true);
            }
            burns.join().unwrap().expect_status(451, "4.3.0");
            // Three seconds, and whatever a busy machine adds.
            assert!(began.elapsed() < Duration::from_secs(15), "{what}: {:?}", began.elapsed());
        });
        quick.command("QUIT").expect(221);
        let [accepted, ended] = order(&server, mark, ["accepted", "script_failed"]);
        assert!(accepted < ended, "{what}: {accepted}, {ended}");
        let error = failed(&server, mark);
        assert!(error.starts_with(&format!("rules/main.rhai:{line}:")) && error.contains(words), "{what}: {error}");
    }
    assert_eq!(server.json(&["kv", "list", "STATE"]).len(), 0);
}
