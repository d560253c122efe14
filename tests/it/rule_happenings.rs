//! `mailworker test` of handlers without a message: `scheduled`, `delivered`, `failed`.

use std::path::Path;
use std::process::Output;

use crate::harness::Setup;
use crate::harness::command::{self, exits};
use crate::harness::setup::write_file;

const WORKER: &str = r#"
fn email(message, env, ctx) { message.store(); }
fn scheduled(event, env, ctx) {
    let orders = env.COUNTS.get("orders") ?? 0;
    if orders < 0 { throw "less than none"; }
    let rate = ctx.fetch("https://rates.example.net/eur").json.rate;
    ctx.log(`${event.cron} at ${event.scheduled_time}`);
    ctx.send(#{ from: "reports@example.com", to: env.BOSS, subject: "Orders", text: `${orders} at ${rate}` });
    env.COUNTS.put("last", event.scheduled_time);
    env.COUNTS.delete("orders");
}
fn delivered(event, env, ctx) { env.COUNTS.increment(`${event.kind}:${event.status}`); }
fn failed(event, env, ctx) {
    ctx.webhook("TICKETS", event);
    print(`${event.destination.domain}: ${event.reply}`);
}
"#;

const SETTINGS: &str = r#"
[vars]
BOSS = "boss@example.net"

[triggers]
crons = ["0  9 * * MON", "0 0 1 * *"]

[[kv_namespaces]]
binding = "COUNTS"

[[webhook]]
binding = "TICKETS"
url = "http://127.0.0.1:9/hook"
"#;

const TESTS: &str = r#"
[[test]]
name = "the weekly report"
scheduled = "0 9 * * MON"
now = "2026-11-30T09:00:00Z"
vars.BOSS = "chief@example.net"
kv.COUNTS = { orders = 3 }
fetch = [{ url = "https://rates.example.net/*", json = { rate = 1.5 } }]
expect.send = [{ to = "chief@example.net", from = "reports@example.com", text = "3 at 1.5" }]
expect.kv.COUNTS = { last = 1796029200000 }
expect.deleted.COUNTS = ["orders"]
expect.log = "0 9 * * MON at 1796029200000"
expect.webhook = false

[[test]]
name = "no report of a wrong count"
scheduled = "0 0 1 * *"
kv.COUNTS = { orders = -1 }
expect.error = "less than none"
expect.send = []

[[test]]
name = "what came through is counted"
delivered = { to = "support@example.com" }
expect.kv.COUNTS."forward:2.0.0" = 1

[[test]]
name = "a webhook came through"
delivered = { kind = "webhook", to = "support@example.com", destination = "TICKETS", status = "204" }
kv.COUNTS."webhook:204" = 6
expect.kv.COUNTS."webhook:204" = 7

[[test]]
name = "what was given up opens a ticket"
now = "2026-11-30T09:00:00Z"
failed = { to = "support@example.com", destination = "ann@example.org", status = "4.4.1", reply = "no route", attempts = 9, message_id = "01KBX3V1Q00000000000000007", at = "2026-11-30T08:00:00Z" }
expect.webhook = [{ target = "TICKETS", payload = { kind = "forward", message_id = "01KBX3V1Q00000000000000007", to = "support@example.com", destination = "ann@example.org", status = "4.4.1", reply = "no route", attempts = 9, at = 1796025600000 } }]
expect.log = "example.org: no route"
"#;

fn setup(tests: &str) -> Setup {
    let setup = Setup::new().rules(WORKER).toml(SETTINGS).file("rules/tests/a.toml", tests);
    setup.write();
    setup
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command::run(dir, &[&["test"], arguments].concat())
}

#[test]
fn what_handlers_without_a_message_do_can_be_expected() {
    let setup = setup(TESTS);
    let told = exits(&run(setup.dir.path(), &[]), 0);
    assert!(told.ends_with("5 passed\n"), "{told}");
}

#[test]
fn what_they_did_otherwise_is_shown_and_written() {
    let tests = TESTS
        .replace("3 at 1.5", "4 at 1.5")
        .replace("\"4.4.1\", reply = \"no route\", attempts = 9, at", "\"5\", reply = \"no\", attempts = 9, at");
    let setup = setup(&tests);
    let told = exits(&run(setup.dir.path(), &[]), 1);
    for words in [
        "failed    the weekly report",
        "- text = \"4 at 1.5\"",
        "+ text = \"3 at 1.5\"  rules/main.rhai:8:9",
        "2 failed",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(exits(&run(setup.dir.path(), &["--update"]), 0).ends_with("3 passed, 2 updated\n"));
    let updated = std::fs::read_to_string(setup.dir.path().join("rules/tests/a.toml")).unwrap();
    assert_eq!(updated, TESTS);
    // Nobody answers for whoever isn't there, and a handler that isn't there is an error.
    write_file(
        &setup.dir.path().join("rules/tests/a.toml"),
        TESTS.replace("https://rates.example.net/*", "https://x.example/").as_bytes(),
    );
    let told = exits(&run(setup.dir.path(), &["--filter", "weekly"]), 1);
    assert!(told.contains("has no answer to GET https://rates.example.net/eur"), "{told}");
    let without = WORKER.replace("fn delivered(", "fn not_delivered(");
    write_file(&setup.dir.path().join("rules/main.rhai"), without.as_bytes());
    let told = exits(&run(setup.dir.path(), &["--filter", "came through"]), 1);
    assert!(told.contains("the worker has no delivered"), "{told}");
}

/// All of these words are told of the tests, and none is run.
#[track_caller]
fn is_refused(tests: &str, words: &[&str]) {
    let told = exits(&run(setup(tests).dir.path(), &[]), 78);
    for words in words {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn slips_are_told_with_their_places() {
    let tests = r#"[[test]]
name = "a"
scheduled = "0 9 * * TUE"
expect.kv = {}
[[test]]
name = "b"
scheduled = "0 9 * *"
expect.kv = {}
[[test]]
name = "c"
failed = { to = "support@exampel.com" }
expect.forward = []
[[test]]
name = "d"
failed = { kind = "fax", to = "support@example.com" }
expect.kv = {}
[[test]]
name = "e"
delivered = { destination = "a@example.org" }
scheduled = "0 0 1 * *"
to = "support@example.com"
expect.kv = {}
"#;
    let first = r#"[[test]]
name = "b"
scheduled = "0 9 * *"
expect.kv = {}
[[test]]
name = "d"
failed = { kind = "fax", to = "support@example.com" }
expect.kv = {}
"#;
    is_refused(
        first,
        &[
            "rules/tests/a.toml:3:13",
            "five fields, this has 4",
            "rules/tests/a.toml:7:19",
            "nothing ends that is called `fax`",
        ],
    );
    let rest: Vec<&str> = tests.split_inclusive("expect.kv = {}\n").collect();
    let rest = [rest[0], rest[2], rest[3]]
        .concat()
        .replace("name = \"d\"\nfailed = { kind = \"fax\"", "name = \"d\"\nfailed = { kind = \"mail\"");
    is_refused(
        &rest,
        &[
            "rules/tests/a.toml:3:13",
            "no cron `0 9 * * TUE` is configured",
            "did you mean `0 9 * * MON`?",
            "`support@exampel.com` is in none of our domains",
            "did you mean `example.com`?",
            "without a message there is no `forward`",
            "one test is of one handler",
            "make one test of `scheduled`, another of `delivered`",
            "a test of `scheduled` has no message",
            "leave out `to`",
        ],
    );
}
