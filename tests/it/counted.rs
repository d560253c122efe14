//! `env.limit`: counted at once, in each handler, whatever becomes of the message; and nothing is counted in dry runs.

use crate::harness::{Client, Says, Setup, Web};

const MESSAGE: &[u8] = b"From: ann@example.org\r\nSubject: x\r\n\r\nx\r\n";

#[test]
fn what_a_limit_counts_counts_though_the_message_was_put_off() {
    let rules = r#"
fn email(message, env, ctx) {
    let limit = env.limit("mail", message.from, "2/day");
    ctx.log(`left ${limit.remaining}`);
    if !limit.allowed { message.set_reject("Too many"); return; }
    message.defer("Later");
}
"#;
    let server = Setup::new().rules(rules).start();
    // Looked at, and not counted.
    for _ in 0..3 {
        let told = server.stdout(&["explain", "support@example.com", "--from", "ann@example.org"]);
        assert!(told.contains("left 1"), "{told}");
    }
    for code in [451, 451, 550] {
        server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(code);
    }
    server.send("bob@example.org", &["support@example.com"], MESSAGE).expect(451);
    // Rules that are read anew count on.
    server.takes_up("rules/main.rhai", &rules.replace("Too many", "Far too many"));
    let refused = server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(550);
    assert!(refused.text().contains("Far too many"), "{refused:?}");
}

/// An explanation counts by itself, from nothing.
#[test]
fn what_is_explained_is_counted_from_nothing() {
    let rules = r#"
fn email(message, env, ctx) {
    let allowed = [];
    for n in 0..3 { allowed.push(env.limit("n", "k", "2/day").allowed); }
    ctx.log(`allowed ${allowed}`);
    message.drop();
}
"#;
    let server = Setup::new().rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
    server.settled();
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    for arguments in [&["explain", "support@example.com"][..], &["explain", &id]] {
        let told = server.stdout(arguments);
        assert!(told.contains("allowed [true, true, false]"), "{told}");
        assert!(told.contains(r#"limit "n" "k" → allowed, 1 remaining (limits start empty here)"#), "{told}");
    }
}

#[test]
fn a_connection_is_counted_before_it_is_greeted() {
    let rules = r#"
fn connect(session, env) { if !env.limit("connections", session.ip, "2/day").allowed { session.defer("Slower"); } }
fn email(message, env, ctx) { message.drop(); }
"#;
    let server = Setup::new().rules(rules).start();
    for code in [220, 220, 421] {
        Client::connect(server.smtp()).unwrap().reply().expect(code);
    }
}

/// Each recipient has its run, and each run its count.
#[test]
fn each_recipient_s_run_counts() {
    let rules = r#"
fn email(message, env, ctx) { if !env.limit("mail", "all", "2/day").allowed { message.set_reject("no"); } else { message.drop(); } }
"#;
    let server = Setup::new().rules(rules).start();
    let to: Vec<String> = (0..3).map(|n| format!("a{n}@example.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    server.send("ann@example.org", &to, MESSAGE).expect(250);
    server.settled();
    let newest = server.newest();
    let verdicts: Vec<&str> = newest["trace"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"] == "decided")
        .filter_map(|event| event["verdict"].as_str())
        .collect();
    assert_eq!(verdicts, ["drop", "drop", "reject"]);
}

/// A run that asks outside is first tried in place and then made anew: what it asked before that counts once.
#[test]
fn a_run_that_asks_outside_counts_once() {
    let web = Web::start(|_| Says::ok("{}"));
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    let left = [];
    for n in 0..6 {{ left.push(env.limit("n", "k", "100/hour").remaining); }}
    ctx.log(`left ${{left}} ${{ctx.fetch("{}").status}}`);
    message.drop();
}}
"#,
        web.url("/")
    );
    let server = Setup::new().rules(&rules).start();
    for left in ["left [99, 98, 97, 96, 95, 94] 200", "left [93, 92, 91, 90, 89, 88] 200"] {
        server.send("ann@example.org", &["support@example.com"], MESSAGE).expect(250);
        server.settled();
        let trace = server.newest()["trace"].to_string();
        assert!(trace.contains(left), "{trace}");
    }
}
