//! `mailworker test`: the tests of rules that ship, and how those that fail or can't be read are told.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::Setup;
use crate::harness::command::{self, exits};
use crate::harness::server::PROGRAM;
use crate::harness::setup::write_file;

const WORKER: &str = r#"
fn rcpt_to(session, rcpt, env) {
    switch rcpt.local {
        "nobody" => session.reject(550, "5.1.1", "No such mailbox"),
        "old" => session.redirect("new@example.com"),
        _ => (),
    }
    session.notes.helo = session.helo;
}
fn email(message, env, ctx) {
    env.SEEN.increment("count");
    switch message.to.local {
        "later" => message.defer("Come back tomorrow"),
        "spam" => message.set_reject("No, thank you"),
        "broken" => throw "out of paper",
        "black" => message.drop(),
        "kept" => message.store(#{ mailbox: "archive", retention: 3600 }),
        "quiet" => (),
        "keys" => {
            let found = env.SEEN.get_with_metadata("known");
            env.SEEN.put("copy", found.value, #{ expiration_ttl: 60, metadata: found.metadata });
            env.SEEN.delete("known");
            env.SEEN.put("octets", message.raw.sha256());
            message.drop();
        }
        "held" => message.quarantine("looks odd"),
        "marked" => { message.tag("vip"); message.set_header("X-Mark", "1"); message.remove_header("X-Old"); message.forward("archive"); }
        _ => {
            ctx.log(`from ${message.session.ip} (${message.session.helo}, ${message.session.ptr})`);
            ctx.webhook("TICKETS", #{ subject: message.subject, at: ctx.now(), id: message.id, list: [1, #{ a: 2, b: 3 }] });
            message.forward(env.TEAM, #{ "X-Tls": if message.session.tls == () { "no" } else { "yes" } });
            message.forward("archive");
        }
    }
}
fn mail_from(session, sender, env) {
    print(`mail from ${sender}`);
    if sender.domain == "spam.example" { session.reject(554, "5.7.1", "Not from you"); }
}
"#;

const SETTINGS: &str = r#"
[vars]
TEAM = "team@example.net"

[[kv_namespaces]]
binding = "SEEN"

[[webhook]]
binding = "TICKETS"
url = "http://127.0.0.1:9/hook"

[[destination]]
name = "archive"
smarthost = "lmtp://127.0.0.1:9"

[[route]]
match = "billing@example.com"
action = "reject"
text = "Bills by post"

[[route]]
match = "office@example.com"
action = "forward"
to = ["archive", "boss@example.net"]
"#;

const MESSAGE: &str = "From: Ann <ann@example.org>\nTo: support@example.com\nSubject: Printer\n\nIt burns.\n";

/// A directory with a worker, a message and this file of tests.
fn setup(tests: &str) -> Setup {
    let setup = Setup::new().rules(WORKER).toml(SETTINGS).file("rules/tests/a.toml", tests);
    setup.write();
    setup.file("rules/tests/mail.eml", MESSAGE)
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command::run(dir, &[&["test"], arguments].concat())
}

fn head(name: &str, to: &str) -> String {
    format!("[[test]]\nname = {name:?}\nmessage = \"mail.eml\"\nto = {to}\n")
}

/// The example of `rules/`, as `init` writes it.
#[test]
fn the_tests_of_the_example_pass() {
    let dir = tempfile::tempdir().unwrap();
    let wrote = Command::new(PROGRAM).args(["init", "."]).current_dir(dir.path()).output().unwrap();
    assert!(wrote.status.success(), "{wrote:?}");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/tests");
    let count: usize = ["routing.toml", "spam.toml"]
        .map(|file| std::fs::read_to_string(rules.join(file)).unwrap().matches("[[test]]").count())
        .iter()
        .sum();
    assert!(count >= 8, "{count}");
    let told = exits(&run(dir.path(), &[]), 0);
    assert!(told.ends_with(&format!("{count} passed\n")), "{told}");
    // As they stand in the repository, too, and from anywhere.
    let elsewhere = tempfile::tempdir().unwrap();
    let config = dir.path().join("mailworker.toml");
    let named = run(elsewhere.path(), &["--config", config.to_str().unwrap(), rules.to_str().unwrap()]);
    assert!(exits(&named, 0).ends_with(&format!("{count} passed\n")));
    assert!(!dir.path().join("data").exists(), "it makes no store");
}

/// What is known of the sender is the test's to say, as shortly or as fully as it needs.
#[test]
fn a_test_says_who_the_sender_proved_to_be() {
    let worker = r"fn email(message, env, ctx) {
        let auth = message.auth;
        print(`${auth.passed} spf=${auth.spf.result} ${auth.spf.domain} helo=${auth.spf_helo.result}`);
        print(`dmarc=${auth.dmarc.result} ${auth.dmarc.policy} dkim=${auth.dkim.len} ${auth.iprev.name}`);
        message.drop();
    }";
    let tests = r#"
[[test]]
name = "nobody looked"
message = "mail.eml"
to = "a@example.com"
expect.log = ["false spf=none  helo=none", "dmarc=none  dkim=0 "]

[[test]]
name = "by results alone"
message = "mail.eml"
to = "a@example.com"
auth.spf = "pass"
auth.spf_helo = "softfail"
auth.dkim = "pass"
auth.dmarc = "pass"
expect.log = ["true spf=pass example.org helo=softfail", "dmarc=pass none dkim=1 "]

[[test]]
name = "in full"
message = "mail.eml"
to = "a@example.com"
auth.spf = { result = "fail", domain = "other.example" }
auth.dkim = ["pass", { result = "permerror", domain = "list.example", selector = "s" }]
auth.dmarc = { result = "fail", policy = "quarantine" }
auth.iprev = { result = "pass", name = "mx.example.org" }
auth.arc = { result = "pass", chain = ["list.example"], trusted = true }
expect.log = ["false spf=fail other.example helo=none", "dmarc=fail quarantine dkim=2 mx.example.org"]
"#;
    let setup = Setup::new().rules(worker).file("rules/tests/a.toml", tests);
    setup.write();
    let setup = setup.file("rules/tests/mail.eml", MESSAGE);
    assert!(exits(&run(setup.dir.path(), &[]), 0).ends_with("3 passed\n"));
    write_file(&setup.dir.path().join("rules/tests/a.toml"), tests.replace("\"softfail\"", "\"soft\"").as_bytes());
    let told = exits(&run(setup.dir.path(), &[]), 78);
    assert!(told.contains("this is no result") && told.contains("a.toml:13") && told.contains("\"soft\""), "{told}");
    write_file(&setup.dir.path().join("rules/tests/a.toml"), tests.replace("policy =", "polcy =").as_bytes());
    assert!(exits(&run(setup.dir.path(), &[]), 78).contains("polcy"));
}

/// A message to each of these, and all that can be said of what becomes of it.
const KINDS: &str = r#"
[[test]]
name = "all of a forward"
message = "mail.eml"
to = "support@example.com"
now = "2026-11-24T10:00:00Z"
session = { ip = "2001:db8::7", helo = "out.example.org", ptr = "ptr.example.org", tls = true }
vars.TEAM = "others@example.net"
expect.forward = [{ to = "others@example.net", headers = { X-Tls = "yes" } }, "archive"]
expect.webhook = [
    { target = "TICKETS", method = "POST", payload = { at = 1795514400000, list = [1, { b = 3 }] } },
]
expect.kv.SEEN.count = 1
expect.log = ["mail from ann@example.org", "from 2001:db8::7 (out.example.org, ptr.example.org)"]
expect.deleted = {}
expect.drop = false
expect.defer = false

[[test]]
name = "a webhook by its URL"
message = "mail.eml"
to = "support@example.com"
expect.webhook = "http://127.0.0.1:9/hook"
expect.forward = [{ headers = { X-Tls = "no" } }, true]

[[test]]
name = "deferred"
message = "mail.eml"
to = "later@example.com"
expect.defer = "Come back tomorrow"
expect.kv = {}

[[test]]
name = "rejected"
message = "mail.eml"
to = "spam@example.com"
kv.SEEN = { count = 41 }
expect.reject = { code = 550, enhanced = "5.7.1" }
expect.kv.SEEN = { count = 42 }

[[test]]
name = "failed"
message = "mail.eml"
to = "broken@example.com"
expect.error = ["out of paper"]
expect.defer = []

[[test]]
name = "dropped"
message = "mail.eml"
to = "black@example.com"
expect.drop = true

[[test]]
name = "stored"
message = "mail.eml"
to = "kept@example.com"
expect.store = { mailbox = "archive", retention = 3600 }

[[test]]
name = "kept, for nothing was decided"
message = "mail.eml"
to = "quiet@example.com"
expect.store = true

[[test]]
name = "held back"
message = "mail.eml"
to = "held@example.com"
expect.quarantine = "looks odd"

[[test]]
name = "marked"
message = "mail.eml"
to = "marked@example.com"
expect.tag = ["vip"]
expect.header = [{ name = "X-Mark", value = "1" }, { name = "X-Old", removed = true }]
expect.forward = ["archive"]

[[test]]
name = "refused at MAIL"
message = "mail.eml"
from = "ann@spam.example"
to = ["support@example.com", "held@example.com"]
expect.mail_from = { code = 554, text = "Not from you" }
expect.rcpt = []
expect.log = ["mail from ann@spam.example"]

[[test]]
name = "refused at RCPT"
message = "mail.eml"
to = "nobody@example.com"
expect.rcpt = { code = 550, text = "No such mailbox" }

[[test]]
name = "led on at RCPT"
message = "mail.eml"
to = "old@example.com"
expect.rcpt = { redirect = "new@example.com" }
expect.webhook = "TICKETS"

[[test]]
name = "refused by a route"
message = "mail.eml"
to = "billing@example.com"
expect.rcpt = "Bills by post"

[[test]]
name = "sent on by a route"
message = "mail.eml"
to = "office@example.com"
expect.forward = ["archive", "boss@example.net"]

[[test]]
name = "one after the other"
message = "mail.eml"
to = ["a@example.com", "b@example.com", "postmaster"]
expect.kv.SEEN."c*t" = 2
expect.log = ["mail from ann@example.org", true, true]
expect.rcpt = [{}, true, { code = 250 }]
expect.forward = [true, "archive", true, "archive", "admin@example.net"]

[[test]]
name = "keys"
message = "mail.eml"
to = "keys@example.com"
kv.SEEN.known = { "$value" = [1, 2], "$metadata" = "mine" }
expect.kv.SEEN.copy = { "$value" = [1, 2], "$metadata" = "mine", "$expiration_ttl" = 60 }
expect.kv.SEEN.octets = "DIGEST"
expect.kv.SEEN.count = 1
expect.deleted.SEEN = ["known"]

[[test]]
name = "the null sender"
from = "<>"
to = "support@example.com"
raw = """
Subject: Undelivered

Sorry.
"""
expect.webhook = { payload.subject = "Undelivered" }
"#;

#[test]
fn every_kind_of_decision_can_be_expected() {
    let setup = setup(&KINDS.replace("DIGEST", &sha256(MESSAGE)));
    let told = exits(&run(setup.dir.path(), &[]), 0);
    assert!(told.ends_with("18 passed\n"), "{told}");
    assert!(!setup.dir.path().join("data").exists());
}

/// Of the message as it would have come in.
fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.replace('\n', "\r\n").as_bytes());
    digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn a_test_that_fails_shows_what_was_decided_and_where() {
    let tests = head("two slips", "\"support@example.com\"")
        + "expect.forward = [\"archive\"]\n\
           expect.webhook = [{ target = \"TICKETS\", payload.subject = \"Scanner\", payload.list = [1, { a = 2 }] }]\n\n"
        + &head("refused", "\"spam@example.com\"")
        + "expect.forward = \"team@example.net\"\n\n"
        + &head("the script fails", "\"broken@example.com\"")
        + "expect.log = []\n\n"
        + &head("good", "\"black@example.com\"")
        + "expect.drop = true\n";
    let setup = setup(&tests);
    let told = exits(&run(setup.dir.path(), &[]), 1);
    let expected = r#"failed    two slips  rules/tests/a.toml:1
  forward
    + to = "team@example.net"  rules/main.rhai:31:21
    + headers = {"X-Tls":"no"}
      "archive"  rules/main.rhai:32:21
  webhook
      target = "TICKETS"
      payload.list[0] = 1
      payload.list[1].a = 2
    - payload.subject = "Scanner"
    + payload.subject = "Printer"  rules/main.rhai:30:17
failed    refused  rules/tests/a.toml:8
  forward
    - "team@example.net"
  besides: reject code = 550, enhanced = "5.7.1", text = "No, thank you"  rules/main.rhai:14:27
failed    the script fails  rules/tests/a.toml:14
  the script failed: rules/main.rhai:15:21: out of paper"#;
    assert!(told.starts_with(expected), "{told}\n{expected}");
    assert!(told.ends_with("passed    good\n1 passed, 3 failed  (- expected, + decided)\n"), "{told}");

    let coloured = exits(&run(setup.dir.path(), &["--color", "always", "--filter", "refus"]), 1);
    assert!(
        coloured.contains("\u{1b}[") && coloured.contains("1 failed") && coloured.contains("3 left out"),
        "{coloured}"
    );
    assert!(exits(&run(setup.dir.path(), &["--filter", "goo"]), 0).ends_with("1 passed, 3 left out\n"));
    assert!(exits(&run(setup.dir.path(), &["--filter", "nothing like it"]), 1).contains("no test's name contains"));
}

/// All of these words are told of the file, and no test is run.
#[track_caller]
fn is_refused(tests: &str, words: &[&str]) {
    let setup = setup(tests);
    let told = exits(&run(setup.dir.path(), &[]), 78);
    for words in words {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("passed") && !told.contains("failed "), "{told}");
}

#[test]
fn keys_and_values_that_cannot_be_are_told_with_their_places() {
    let tests = r#"[[test]]
name = "a"
mesage = "mail.eml"
to = "support@example.com"
expect.forwrd = "a@b.example"
[[test]]
name = "a"
message = "mail.eml"
to = "support@@example.com"
expect.webhook = [{ targt = "TICKETS" }]
now = "tomorrow"
session.ip = 4
"#;
    let words = [
        "--> rules/tests/a.toml:3:1",
        "unknown key `mesage`",
        "did you mean `message`?",
        "5 | expect.forwrd = \"a@b.example\"",
        "       ^^^^^^",
        "did you mean `forward`?",
        "rules/tests/a.toml:9:6",
        "unknown key `targt`",
        "this is no time",
        "expected an IP address, found a number",
    ];
    is_refused(tests, &words);
    is_refused("[[test]\n", &["rules/tests/a.toml:1:"]);
    is_refused("", &["there is no [[test]] in it"]);
}

#[test]
fn names_that_are_not_there_are_told_with_their_places() {
    let tests = r#"[[test]]
name = "a"
message = "mial.eml"
to = "support@example.com"
kv.SEN = {}
vars.TEEM = "x"
expect.webhook = "TICKET"
expect.forward = ["archiv"]
expect.kv.SEEN.a = { "$valu" = 1 }
[[test]]
name = "a"
message = "mail.eml"
raw = "x"
[[test]]
message = "mail.eml"
to = []
[[test]]
name = "b"
to = "x@example.com"
expect = {}
"#;
    let words = [
        "mial.eml can't be read",
        "no KV namespace `SEN` is bound",
        "did you mean `SEEN`?",
        "did you mean `TEAM`?",
        "did you mean `TICKETS`?",
        "did you mean `archive`?",
        "did you mean `$value`?",
        "the test of line 1 has this name, too",
        "a test has `message` or `raw`, not both",
        "`to` is missing",
        "`name` is missing",
        "a message has 1 to 1000 recipients",
        "a test expects something",
        "`message` is missing",
    ];
    is_refused(tests, &words);
}

#[test]
fn tests_that_are_not_there_fail() {
    let setup = setup("");
    std::fs::remove_file(setup.dir.path().join("rules/tests/a.toml")).unwrap();
    assert!(exits(&run(setup.dir.path(), &[]), 1).contains("there is no *.toml in rules/tests"));
    assert!(exits(&run(setup.dir.path(), &["none.toml"]), 1).contains("none.toml: no such file or folder"));
}

#[test]
fn update_rewrites_what_failing_tests_expect_and_nothing_else() {
    let tests = r#"# What the team gets.

[[test]]
name    = "moved"     # since autumn
message = "mail.eml"
to      = "support@example.com"
expect.forward = [
    "old@example.net",  # the team
    'archive',
]
expect.webhook = [{ target = "TICKETS", payload.subject = "Scanner", payload.list = [1, { a = 0x2 }] }]  # told

[[test]]
name = "refused now"
message = "mail.eml"
to = "spam@example.com"
expect.forward = "team@example.net"

[[test]]
name = "no mailbox"
message = "mail.eml"
to = "nobody@example.com"
expect = { forward = [], webhook = true }

[[test]]
name = "fails"
message = "mail.eml"
to = "broken@example.com"
expect.drop = true

[[test]]
name = "keys"
message = "mail.eml"
to = "keys@example.com"
kv.SEEN.known = { "$value" = "v", "$metadata" = 1 }
[test.expect.kv.SEEN]
copy = { "$value" = "w", "$expiration_ttl" = 60 } # a copy
"o*" = "x"
gone = true
"#;
    let setup = setup(tests);
    let told = exits(&run(setup.dir.path(), &["--update"]), 1);
    assert!(told.ends_with("0 passed, 1 failed, 4 updated  (- expected, + decided)\n"), "{told}");
    let updated = std::fs::read_to_string(setup.dir.path().join("rules/tests/a.toml")).unwrap();
    let expected = tests
        .replace("\"old@example.net\",  # the team", "\"team@example.net\",  # the team")
        .replace("\"Scanner\"", "\"Printer\"")
        .replace(
            "expect.forward = \"team@example.net\"\n",
            "expect.forward = []\nexpect.reject = { code = 550, enhanced = \"5.7.1\", text = \"No, thank you\" }\n",
        )
        .replace(
            "{ forward = [], webhook = true }",
            "{ forward = [], webhook = [] , rcpt = { code = 550, enhanced = \"5.1.1\", text = \"No such mailbox\" } }",
        )
        .replace("\"$value\" = \"w\"", "\"$value\" = \"v\"")
        .replace("\"o*\" = \"x\"", &format!("\"o*\" = \"{}\"", sha256(MESSAGE)))
        .replace("gone = true\n", "count = 1\n");
    assert_eq!(updated, expected);
    let told = exits(&run(setup.dir.path(), &["--update"]), 1);
    assert!(told.ends_with("4 passed, 1 failed  (- expected, + decided)\n"), "{told}");
    assert_eq!(std::fs::read_to_string(setup.dir.path().join("rules/tests/a.toml")).unwrap(), expected);
}

#[test]
fn the_results_are_written_for_build_servers() {
    let tests = head("good <& well>", "\"black@example.com\"")
        + "expect.drop = true\n"
        + &head("bad", "\"black@example.com\"")
        + "expect.forward = \"a@example.net\"\n";
    let setup =
        setup(&tests).file("rules/tests/b.toml", &(head("more", "\"quiet@example.com\"") + "expect.store = true\n"));
    exits(&run(setup.dir.path(), &["--junit", "report.xml", "--color", "always"]), 1);
    let xml = std::fs::read_to_string(setup.dir.path().join("report.xml")).unwrap();
    for words in [
        "<testsuites name=\"mailworker test\" tests=\"3\" failures=\"1\"",
        "<testsuite name=\"rules/tests/a.toml\" tests=\"2\" failures=\"1\"",
        "<testsuite name=\"rules/tests/b.toml\" tests=\"1\" failures=\"0\"",
        "name=\"good &lt;&amp; well&gt;\" file=\"rules/tests/a.toml\" line=\"1\"",
        "- &quot;a@example.net&quot;",
        "besides: drop true  rules/main.rhai:16:28</failure>",
    ] {
        assert!(xml.contains(words), "{words}: {xml}");
    }
    assert!(!xml.contains('\u{1b}'), "{xml}");
    let refused = run(setup.dir.path(), &["--junit", "no/such/folder.xml"]);
    assert!(exits(&refused, 1).contains("no/such/folder.xml can't be written"));
}

#[test]
fn an_environment_of_the_configuration_is_what_tests_run_by() {
    let tests = head("by the staging's team", "\"support@example.com\"")
        + "expect.forward = [\"test@example.net\", \"archive\"]\n";
    let setup = setup(&tests).toml("[env.staging.vars]\nTEAM = \"test@example.net\"");
    setup.write();
    exits(&run(setup.dir.path(), &["--env", "staging"]), 0);
    exits(&run(setup.dir.path(), &[]), 1);
    write_file(&setup.dir.path().join("rules/main.rhai"), b"fn email(message, env, ctx) { message.forward(env.TEEM) }");
    let told = exits(&run(setup.dir.path(), &[]), 78);
    assert!(told.contains("rules/main.rhai:1:") && told.contains("TEEM"), "{told}");
}
