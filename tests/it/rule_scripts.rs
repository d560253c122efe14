//! `mailworker test`: tests that are written in Rhai, and which lines of the rules tests reach.

use crate::harness::Setup;
use crate::harness::command::{exits, run};
use crate::harness::setup::write_file;

const WORKER: &str = r#"import "lib/spam" as spam;

fn email(message, env, ctx) {
    let to = switch message.to.local {
        "sales" => "sales@example.net",
        "help" => env.HELP,
        "broken" => throw "out of paper",
        _ => "team@example.net",
    };
    env.SEEN.increment(to);
    if spam::is_spam(message.subject) {
        message.set_reject("No, thank you");
        return;
    }
    if !env.limit("mail", message.from, "2/hour").allowed { message.tag("often"); }
    message.forward(to);
}

fn scheduled(event, env, ctx) {
    let rate = ctx.fetch("https://rates.example.net/eur").json.rate;
    ctx.send(#{ from: "reports@example.com", to: "boss@example.net", subject: "Rate", text: `${rate}` });
}
"#;

const SPAM: &str = r#"fn is_spam(subject) {
    let words = ["win", "prize"];
    words.some(|word| subject.contains(word))
}

fn never_called(a) {
    a + 1
}
"#;

const SETTINGS: &str = "[vars]\nHELP = \"help@example.net\"\n[triggers]\ncrons = [\"0 9 * * MON\"]\n\
                        [[kv_namespaces]]\nbinding = \"SEEN\"\n";

const DESCRIBED: &str = r#"[[test]]
name = "sales"
raw = "From: a@example.org\nSubject: hi\n\nx\n"
to = "sales@example.com"
expect.forward = "sales@example.net"
"#;

const PARTS: &str = "fn mail(local, subject) { #{ raw: `From: a@example.org\nSubject: ${subject}\n\nx\n`, to: local + \"@example.com\" } }\n";

const SCRIPT: &str = r#"// What the rules are to do.
import "lib/spam" as spam;
import "parts" as parts;

fn test_the_words_of_spam() {
    assert(spam::is_spam("you win"));
    assert(!spam::is_spam("hi"), "a greeting is none");
}

fn test_sales_mail_goes_to_sales() {
    let decided = decide(parts::mail("sales", "hi"));
    assert_eq(decided.forward, [#{ to: "sales@example.net" }]);
    assert_eq(decided.reject.len, 0);
    assert_ne(decided.rcpt[0].code, 550);
    assert_like(decided.kv, #{ SEEN: #{ "sales@example.net": 1 } });
    assert_eq(decided.drop, false);
}

fn test_expectations_are_those_of_a_table() {
    let asked = parts::mail("other", "win a prize");
    asked.expect = #{ reject: #{ code: 550, text: "No, thank you" }, forward: false };
    decide(asked);
    decide(#{ message: "hi.eml", from: "<>", to: ["help@example.com"], vars: #{ HELP: "b@example.net" }, expect: #{ forward: "b@example.net" } });
    decide(#{ message: "hi.eml", to: "broken@example.com", expect: #{ error: "out of paper" } });
}

fn test_mails_of_one_test_come_one_after_the_other() {
    let counts = [];
    for n in 0..3 {
        let decided = decide(parts::mail("sales", "hi"));
        counts.push(decided.kv.SEEN["sales@example.net"]);
        assert_eq(decided.tag.len > 0, n == 2);
    }
    assert_eq(counts, [1, 2, 3]);
    let asked = parts::mail("sales", "hi");
    asked.kv = #{ SEEN: #{ "sales@example.net": 40 } };
    assert_eq(decide(asked).kv.SEEN["sales@example.net"], 41);
}

fn test_a_function_is_handed_a_message() {
    let asked = parts::mail("sales", "win a prize");
    asked.session = #{ helo: "out.example.org" };
    let message = mail(asked);
    assert(spam::is_spam(message.subject));
    assert_eq([message.from, message.to.local, message.session.helo], ["a@example.org", "sales", "out.example.org"]);
    assert_eq(message.text.len, 2);
}

fn test_what_happens_by_the_clock() {
    let decided = decide(#{
        scheduled: "0 9 * * MON", now: "2026-11-30T09:00:00Z",
        fetch: [#{ url: "https://rates.example.net/*", json: #{ rate: 1.5 } }],
    });
    assert_like(decided.send, [#{ to: "boss@example.net", text: "1.5" }]);
}
"#;

fn setup(script: &str) -> Setup {
    let setup = Setup::new().rules(WORKER).toml(SETTINGS).file("rules/lib/spam.rhai", SPAM);
    let setup = setup.file("rules/tests/b.rhai", script).file("rules/tests/parts.rhai", PARTS);
    let setup = setup.file("rules/tests/hi.eml", "From: ann@example.org\nSubject: hi\n\nx\n");
    setup.write();
    setup
}

#[test]
fn tests_in_rhai_ask_what_is_decided_and_look_at_it() {
    let setup = setup(SCRIPT);
    let told = exits(&run(setup.dir.path(), &["test"]), 0);
    assert!(told.ends_with("6 passed\n"), "{told}");
    // Beside those of tables, by name, by file, and from anywhere.
    write_file(&setup.dir.path().join("rules/tests/a.toml"), DESCRIBED.as_bytes());
    assert!(exits(&run(setup.dir.path(), &["test"]), 0).ends_with("7 passed\n"));
    assert!(exits(&run(setup.dir.path(), &["test", "--filter", "words"]), 0).ends_with("1 passed, 6 left out\n"));
    let (config, file) = (setup.dir.path().join("mailworker.toml"), setup.dir.path().join("rules/tests/b.rhai"));
    let elsewhere = tempfile::tempdir().unwrap();
    let named = ["test", "--config", config.to_str().unwrap(), file.to_str().unwrap()];
    assert!(exits(&run(elsewhere.path(), &named), 0).ends_with("6 passed\n"));
    // They are no part of the rules: what only a test may call disturbs nobody.
    let checked = exits(&run(setup.dir.path(), &["check"]), 0);
    assert!(!checked.contains("tests/b.rhai") && !checked.contains("warning"), "{checked}");
}

const FAILING: &str = r#"fn test_a_sum() {
    assert_eq([1 + 1, #{ a: 2.0 }], [3, #{ a: 2 }]);
}
fn test_b_decision() {
    decide(#{ message: "hi.eml", to: "sales@example.com", expect: #{ forward: ["x@example.net"] } });
}
fn test_c_slips() {
    decide(#{ mesage: "hi.eml", to: "sales@example.com" });
}
fn test_d_nothing_is_caught() {
    try { assert(false, "never mind"); } catch {}
}
fn test_e_without_end() {
    decide(#{ message: "hi.eml", to: "sales@example.com" });
    loop {}
}
fn test_f_a_script_that_fails() {
    decide(#{ message: "hi.eml", to: "broken@example.com" });
}
fn test_g_by_itself() {
    print("on the way");
    throw "no more";
}
fn test_h_likeness() {
    assert_like(#{ a: [1, 2] }, #{ a: [1] });
}
fn test_i_no_message() {
    mail(#{ scheduled: "0 9 * * MON" });
}
"#;

#[test]
fn what_fails_is_told_with_its_line_and_what_was_decided() {
    let setup = setup(FAILING);
    let told = exits(&run(setup.dir.path(), &["test", "--junit", "report.xml"]), 1);
    let expected = r#"failed    test_a_sum  rules/tests/b.rhai:1
  rules/tests/b.rhai:2:5: assert_eq: it isn't [3,{"a":2}]
  it is [2,{"a":2.0}]
failed    test_b_decision  rules/tests/b.rhai:4
  rules/tests/b.rhai:5:5: decide: decided otherwise
  forward
    - "x@example.net"
    + "sales@example.net"  rules/main.rhai:16:13
failed    test_c_slips  rules/tests/b.rhai:7
  rules/tests/b.rhai:8:5: decide: unknown key `mesage` (did you mean `message`?)"#;
    assert!(told.starts_with(expected), "{told}\n{expected}");
    for words in [
        "rules/tests/b.rhai:11:11: assert: never mind",
        "more than 1000000 operations",
        "rules/tests/b.rhai:18:5: decide: decided otherwise\n  the script failed: rules/main.rhai:7:21: out of paper",
        "rules/tests/b.rhai:22:5: no more\n  rules/tests/b.rhai:21:5: on the way",
        "assert_like: it isn't like {\"a\":[1]}\n  it is {\"a\":[1,2]}",
        "rules/tests/b.rhai:28:5: mail: that is no message: give `message` or `raw`",
        "0 passed, 9 failed",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let xml = std::fs::read_to_string(setup.dir.path().join("report.xml")).unwrap();
    assert!(xml.contains("name=\"test_b_decision\" file=\"rules/tests/b.rhai\" line=\"4\""), "{xml}");
    assert!(xml.contains("- &quot;x@example.net&quot;"), "{xml}");
}

#[test]
fn what_is_wrong_with_a_file_of_tests_is_told_before_any_runs() {
    for (script, words) in [
        ("fn test_x() { assrt(true); }", ["rules/tests/b.rhai:1:15", "did you mean assert?"]),
        ("fn test_x(a) { assert(a); }", ["the test test_x has parameters", "write fn test_x()"]),
        ("import \"lib/spm\" as spam; fn test_x() {}", ["no module \"lib/spm\"", "did you mean \"lib/spam\"?"]),
        ("fn test_x() { assert(true; }", ["rules/tests/b.rhai:1:26", ""]),
    ] {
        let told = exits(&run(setup(script).dir.path(), &["test"]), 78);
        assert!(words.iter().all(|words| told.contains(words)), "{script}: {told}");
    }
    let told = exits(&run(setup("fn helps() {}").dir.path(), &["test"]), 1);
    assert!(told.contains("no function `test_"), "{told}");
}

#[test]
fn the_lines_that_tests_reach_are_told() {
    let setup = setup("fn helps() {}").file("rules/tests/a.toml", DESCRIBED);
    let told = exits(&run(setup.dir.path(), &["test", "--coverage", "--lcov", "lcov.info"]), 0);
    let expected = "\
1 passed

rules/lib/spam.rhai   66 %  2 of 3 lines; never reached: 7
rules/main.rhai       50 %  7 of 14 lines; never reached: 6-8, 12-13, 20-21
all                   52 %  9 of 17 lines
";
    assert!(told.ends_with(expected), "{told}\n{expected}");
    let lcov = std::fs::read_to_string(setup.dir.path().join("lcov.info")).unwrap();
    assert!(
        lcov.starts_with("TN:\nSF:rules/lib/spam.rhai\nDA:2,1\nDA:3,1\nDA:7,0\nLF:3\nLH:2\nend_of_record\n"),
        "{lcov}"
    );
    assert!(lcov.contains("SF:rules/main.rhai\nDA:1,1\n") && lcov.contains("\nDA:7,0\n"), "{lcov}");
    // Each test counts, and those in Rhai reach a module's lines by themselves.
    write_file(&setup.dir.path().join("rules/tests/b.rhai"), SCRIPT.as_bytes());
    let told = exits(&run(setup.dir.path(), &["test", "--coverage"]), 0);
    assert!(told.contains("rules/main.rhai      100 %") && told.contains("rules/lib/spam.rhai   66 %"), "{told}");
    let told = exits(&run(setup.dir.path(), &["test", "--coverage", "--filter", "words_of_spam"]), 0);
    assert!(told.contains("rules/main.rhai        0 %") && told.contains("rules/lib/spam.rhai   66 %"), "{told}");
    // Of tests that fail, too.
    write_file(
        &setup.dir.path().join("rules/tests/a.toml"),
        DESCRIBED.replace("\"sales@example.net\"", "\"x@example.net\"").as_bytes(),
    );
    let told = exits(&run(setup.dir.path(), &["test", "--coverage", "--filter", "sales"]), 1);
    assert!(told.contains("1 failed") && told.contains(" % "), "{told}");
}

#[test]
fn each_result_is_an_object_for_programs() {
    let described = format!(
        "{DESCRIBED}\n{}",
        DESCRIBED.replace("\"sales\"", "\"slip\"").replace("sales@example.net", "a@example.net")
    );
    let failing = "fn test_a_slip() { assert_eq(1, 2); }\nfn test_good() { assert(true); }\n";
    let setup = setup(failing).file("rules/tests/a.toml", &described);
    setup.write();
    let results = |arguments: &[&str], code: i32| -> Vec<serde_json::Value> {
        let output = run(setup.dir.path(), &[&["test", "--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let told = |all: &[serde_json::Value]| -> Vec<String> {
        all.iter()
            .map(|one| format!("{}:{} {} {}", one["file"], one["line"], one["name"], one["result"]).replace('"', ""))
            .collect()
    };
    let all = results(&[], 1);
    assert_eq!(
        told(&all),
        [
            "rules/tests/a.toml:1 sales passed",
            "rules/tests/a.toml:7 slip failed",
            "rules/tests/b.rhai:1 test_a_slip failed",
            "rules/tests/b.rhai:2 test_good passed",
        ]
    );
    assert!(all.iter().all(|one| one["duration_ms"].as_f64().unwrap() >= 0.0), "{all:?}");
    assert_eq!(all[0]["why"], serde_json::Value::Null);
    let why = all[1]["why"].as_str().unwrap();
    assert!(
        why.contains("- \"a@example.net\"") && why.contains("+ \"sales@example.net\"") && !why.contains('\u{1b}'),
        "{why}"
    );
    // What a test in Rhai expects nobody rewrites, and that is said.
    let all = results(&["--update"], 1);
    assert_eq!(told(&all)[1..3], ["rules/tests/a.toml:7 slip updated", "rules/tests/b.rhai:1 test_a_slip failed"]);
    assert!(all[2]["why"].as_str().unwrap().contains("--update rewrites *.toml alone"), "{}", all[2]["why"]);
    let human = exits(&run(setup.dir.path(), &["test", "--update"]), 1);
    assert!(human.contains("--update rewrites *.toml alone: what this one expects stands in its code"), "{human}");
    assert_eq!(std::fs::read_to_string(setup.dir.path().join("rules/tests/b.rhai")).unwrap(), failing);
    let both = run(setup.dir.path(), &["test", "--json", "--coverage"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
}
