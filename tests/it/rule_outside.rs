//! `[[test.dns]]`: what look-ups are answered in a test of rules; nobody is asked, and what is missing is told.

use crate::harness::command::{exits, run};
use crate::harness::{Dns, Setup};

/// Decides by each kind of look-up there is.
const RULES: &str = r#"
fn connect(session, env) {
    let found = session.dnsbl("list.example");
    if found.listed { session.reject(`${found.codes[0]} ${found.text}`); }
}
fn email(message, env, ctx) {
    let name = `_team.${message.from.domain}`;
    try {
        let records = ctx.dns_lookup(name, "TXT");
        message.forward(if records.is_empty() { "nobody@example.net" } else { records[0] });
    } catch (why) {
        ctx.log(`away: ${why}`);
        message.store();
    }
}
"#;

const NOT_LISTED: &str = "[[test.dns]]\ndnsbl = \"list.example\"\nanswer = []\n";

fn test(name: &str, expect: &str, fixtures: &str) -> String {
    format!(
        "[[test]]\nname = \"{name}\"\nraw = \"From: ann@example.org\\n\\nx\\n\"\nto = \"support@example.com\"\n\
         {expect}\n{fixtures}\n"
    )
}

fn with_tests(tests: &str) -> Setup {
    // What the real DNS would say is something else.
    let setup = Setup::new().rules(RULES).file("rules/tests/dns.toml", tests);
    setup.dns.txt("_team.example.org", "real@example.net");
    setup.write();
    setup
}

fn nobody_asked(dns: &Dns) {
    assert_eq!(dns.asked("_team.example.org") + dns.asked("1.2.0.192.list.example"), 0);
}

#[test]
fn what_a_fixture_says_of_dns_reaches_the_script_and_nobody_is_asked() {
    let txt = "[[test.dns]]\nname = \"_team.example.org\"\ntype = \"TXT\"\n";
    let tests = [
        test(
            "answered",
            "expect.forward = \"blue@example.net\"",
            &format!("{NOT_LISTED}{txt}answer = [\"blue@example.net\"]"),
        ),
        test("of another type", "expect.forward = \"blue@example.net\"", &{
            let other = txt.replace("\"TXT\"", "\"A\"");
            format!("{NOT_LISTED}{other}answer = [\"192.0.2.9\"]\n{txt}answer = [\"blue@example.net\"]")
        }),
        test("none", "expect.forward = \"nobody@example.net\"", &format!("{NOT_LISTED}{txt}answer = []")),
        test(
            "fails",
            "expect.log = \"away: dns_lookup: SERVFAIL\"\nexpect.store = true",
            &format!("{NOT_LISTED}{txt}error = \"SERVFAIL\""),
        ),
        test(
            "listed",
            "expect.connect = \"127.0.0.4 A spammer\"",
            "[[test.dns]]\ndnsbl = \"list.example\"\nanswer = [\"127.0.0.4\"]\ntext = \"A spammer\"",
        ),
    ];
    let setup = with_tests(&tests.concat());
    let told = exits(&run(setup.dir.path(), &["test"]), 0);
    assert!(told.contains("5 passed"), "{told}");
    nobody_asked(&setup.dns);
    // The answer decides: another one fails the same test.
    std::fs::write(
        setup.dir.path().join("rules/tests/dns.toml"),
        tests[0].replace("answer = [\"blue@", "answer = [\"red@"),
    )
    .unwrap();
    let told = exits(&run(setup.dir.path(), &["test"]), 1);
    assert!(told.contains("red@example.net") && told.contains("1 failed"), "{told}");
}

/// What is told to be written is what helps.
#[test]
fn a_look_up_without_a_fixture_fails_the_test_and_says_what_to_write() {
    let bare = test("bare", "expect.forward = \"blue@example.net\"", NOT_LISTED);
    let setup = with_tests(&bare);
    let told = exits(&run(setup.dir.path(), &["test"]), 1);
    let written = "[[test.dns]] with name = \"_team.example.org\", type = \"TXT\", answer = […]";
    assert!(told.contains("a test asks nobody outside") && told.contains(written), "{told}");
    assert!(told.contains("rules/main.rhai:9:"), "{told}");
    nobody_asked(&setup.dns);
    let path = setup.dir.path().join("rules/tests/dns.toml");
    let followed = "[[test.dns]]\nname = \"_team.example.org\"\ntype = \"TXT\"\nanswer = [\"blue@example.net\"]\n";
    std::fs::write(&path, format!("{bare}{followed}")).unwrap();
    assert!(exits(&run(setup.dir.path(), &["test"]), 0).contains("1 passed"));

    for (fixture, words) in [
        ("name = \"a.example\"\ntype = \"TXTT\"\nanswer = []", "there is no type `TXTT`"),
        ("name = \"a.example\"\nanswer = []", "it is asked by `name` and `type`, or by `dnsbl`"),
        ("name = \"a.example\"\ntype = \"A\"", "it has an `answer` or an `error`"),
    ] {
        std::fs::write(&path, format!("{bare}[[test.dns]]\n{fixture}\n")).unwrap();
        let told = exits(&run(setup.dir.path(), &["test"]), 78);
        assert!(told.contains(words) && told.contains("rules/tests/dns.toml:"), "{fixture}: {told}");
    }
}
