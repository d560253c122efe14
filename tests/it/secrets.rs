//! Secrets: put by standard input, found by workers and the configuration, kept as nobody can read them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use crate::harness::sink::Mail;
use crate::harness::stranger::{PROXIED, STRANGER, greeted};
use crate::harness::{HttpSink, Reply, Server, Setup, SmtpSink, contains, mail};

const VALUE: &str = "hunter2-hunter2-hunter2";

/// Tells what it found, by a header field.
const TELLS: &str = r#"
fn email(message, env, ctx) {
    ctx.log(`the token is ${env.TOKEN}`);
    message.forward("team@example.net", #{ "X-Token": env.TOKEN });
}
"#;

fn put(server: &Server, arguments: &[&str], value: &str) -> Output {
    server.read_by(&[&["secret", "put"], arguments].concat(), value)
}

#[track_caller]
fn must_put(server: &Server, arguments: &[&str], value: &str) {
    let output = put(server, arguments, value);
    assert!(output.status.success(), "{}", said(&output));
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every octet that lies below a directory.
fn everything_below(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(everything_below(&entry.path())),
            kind if kind.is_file() => all.extend(std::fs::read(entry.path()).unwrap()),
            _ => {}
        }
    }
    all
}

#[test]
fn a_running_server_takes_up_what_is_put_and_what_is_put_anew() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    must_put(&server, &["TOKEN"], &format!("{VALUE}\n"));
    server.wait_event(mark, "reloaded", |_| true);
    server.takes_up("rules/main.rhai", TELLS);
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    assert!(contains(&sink.wait(1)[0].data, format!("X-Token: {VALUE}\r\n").as_bytes()));

    let mark = server.log.mark();
    must_put(&server, &["TOKEN"], "another-value");
    server.wait_event(mark, "reloaded", |_| true);
    server.send("ann@example.org", &["support@example.com"], &mail("two", "x")).expect(250);
    assert!(contains(&sink.wait(2)[1].data, b"X-Token: another-value\r\n"));

    // The script's own words have it, and neither trace nor log shows it.
    server.settled();
    let trace = server.newest().to_string();
    assert!(trace.contains("the token is [secret TOKEN]") && !trace.contains("another-value"), "{trace}");
    let log = server.log.all().join("\n");
    assert!(!log.contains(VALUE) && !log.contains("another-value"), "{log}");
    let events = serde_json::Value::from(server.json(&["log", "list"])).to_string();
    assert!(events.contains("secret put") && events.contains("TOKEN") && !events.contains("another-value"), "{events}");
}

#[test]
fn names_are_listed_and_values_are_nowhere_on_the_disk() {
    let mut server = Setup::new().start();
    must_put(&server, &["TOKEN"], VALUE);
    must_put(&server, &["SECOND"], "something else");
    must_put(&server, &["TOKEN"], VALUE);
    let listed = server.json(&["secret", "list"]);
    let names: Vec<&str> = listed.iter().map(|secret| secret["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["SECOND", "TOKEN"]);
    assert!(listed[0]["set_at"].as_i64().unwrap() > 1_700_000_000_000, "{listed:?}");
    assert!(!server.stdout(&["secret", "list"]).contains(VALUE));
    let checked = server.stdout(&["check"]);
    assert!(!checked.contains(VALUE), "{checked}");

    let backup = server.path().join("backup");
    server.stdout(&["backup", backup.to_str().unwrap()]);
    assert!(server.stop().success());
    for place in ["data", "backup"] {
        let octets = everything_below(&server.path().join(place));
        assert!(octets.len() > 10_000 && contains(&octets, b"SECOND"));
        assert!(!contains(&octets, VALUE.as_bytes()) && !contains(&octets, b"something else"), "{place}");
    }
    let key = server.path().join("secrets.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(key).unwrap();
    assert!(!contains(&everything_below(&backup), key.trim().as_bytes()));

    // Without a server, the command opens the store itself.
    must_put(&server, &["THIRD"], "x-x-x-x");
    server.stdout(&["secret", "delete", "TOKEN"]);
    assert_eq!(server.json(&["secret", "list"]).len(), 2);
    let slip = server.cli(&["secret", "delete", "SECON"]);
    assert!(!slip.status.success() && said(&slip).contains("did you mean SECOND?"), "{}", said(&slip));
}

#[test]
fn another_key_opens_nothing_and_loses_nothing() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).start();
    must_put(&server, &["TOKEN"], VALUE);
    server.takes_up("rules/main.rhai", TELLS);
    let right = std::fs::read_to_string(server.path().join("secrets.key")).unwrap();
    let wrong = format!("{}{}", if right.starts_with('A') { 'B' } else { 'A' }, &right[1..]);

    // A running server keeps what it has, and says why.
    let mark = server.log.mark();
    server.write("secrets.key", &wrong);
    let failed = server.wait_event(mark, "reload_failed", |_| true);
    let why = failed["error"].as_str().unwrap();
    assert!(why.contains("is sealed with the key") && why.contains("bring that key back"), "{why}");
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    assert!(contains(&sink.wait(1)[0].data, VALUE.as_bytes()));
    let refused = put(&server, &["OTHER"], "x-x-x-x");
    assert!(
        !refused.status.success() && said(&refused).contains("TOKEN is sealed with another key"),
        "{}",
        said(&refused)
    );
    server.settled();
    assert!(server.stop().success());

    // Nor does one start with it.
    let start = server.cli(&["serve"]);
    assert_eq!(start.status.code(), Some(78), "{}", said(&start));
    assert!(said(&start).contains("is sealed with the key"), "{}", said(&start));
    std::fs::remove_file(server.path().join("secrets.key")).unwrap();
    let start = server.cli(&["serve"]);
    assert!(start.status.code() == Some(78) && said(&start).contains("secrets.key"), "{}", said(&start));

    server.write("secrets.key", &right);
    server.run();
    server.send("ann@example.org", &["support@example.com"], &mail("two", "x")).expect(250);
    assert!(contains(&sink.wait(2)[1].data, VALUE.as_bytes()));
}

/// The forms of `[secrets] key`, as a service has them: the file beside the configuration is the default alone.
#[test]
fn the_key_comes_from_the_environment_a_credential_or_another_file() {
    let key = "q7Jd0pXwZk3m9vB2nT6yH8sR4cL1fGaUeOiWxQzVbN0=";
    let (of_env, of_unit, of_file) =
        ("{ env = \"SEALING_KEY\" }", "{ credential = \"secrets\" }", "{ file = \"away/sealing.key\" }");
    for (form, missing) in [(of_env, "SEALING_KEY"), (of_unit, "LoadCredential=secrets"), (of_file, "sealing.key")] {
        let sink = SmtpSink::start();
        let credentials = tempfile::tempdir().unwrap();
        let setup = Setup::relaying_to(&sink).toml(&format!("[secrets]\nkey = {form}"));
        let setup = match form {
            form if form == of_env => setup.environment("SEALING_KEY", key),
            form if form == of_unit => {
                std::fs::write(credentials.path().join("secrets"), format!("{key}\n")).unwrap();
                setup.environment("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())
            }
            _ => setup.file("away/sealing.key", &format!("{key}\n")),
        };
        let mut server = setup.start();
        must_put(&server, &["TOKEN"], VALUE);
        server.takes_up("rules/main.rhai", TELLS);
        let hands = |server: &Server, sent: usize| {
            server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
            assert!(contains(&sink.wait(sent)[sent - 1].data, format!("X-Token: {VALUE}\r\n").as_bytes()), "{form}");
            server.settled();
        };
        hands(&server, 1);
        // A shell has neither the service's variables nor its credentials: the server that runs seals.
        let in_a_shell = |arguments: &[&str]| {
            let mut command = server.command(arguments);
            command.env_remove("SEALING_KEY").env_remove("CREDENTIALS_DIRECTORY");
            command
        };
        if form != of_file {
            server.write("value", "another-value");
            let given = std::fs::File::open(server.path().join("value")).unwrap();
            let done = in_a_shell(&["secret", "put", "OTHER"]).stdin(given).output().unwrap();
            assert!(done.status.success(), "{form}: {}", said(&done));
            assert_eq!(server.json(&["secret", "list"]).len(), 2);
        }
        let mut serves_not = in_a_shell(&["serve"]);
        assert!(server.stop().success());
        server.run();
        hands(&server, 2);
        assert!(server.stop().success());
        // Neither made a key of its own, nor kept the one it was given.
        assert!(!server.path().join("secrets.key").exists(), "{form}");
        assert!(!contains(&everything_below(&server.path().join("data")), key.as_bytes()), "{form}");
        if form == of_file {
            std::fs::rename(server.path().join("away"), server.path().join("gone")).unwrap();
        }
        let start = serves_not.output().unwrap();
        assert!(start.status.code() == Some(78) && said(&start).contains(missing), "{form}: {}", said(&start));
        if form == of_env {
            let other = server.command(&["serve"]).env("SEALING_KEY", key.replace('q', "r")).output().unwrap();
            assert!(said(&other).contains("is sealed with the key") && !said(&other).contains(key), "{}", said(&other));
        }
    }
}

/// However it is written, and wherever what it stands in is cut: no part of it is left.
#[test]
fn no_part_of_a_value_is_shown_where_a_text_is_escaped_or_cut() {
    let cut_at = |octets: usize| "x".repeat(octets);
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    let token = env.TOKEN;
    let told = switch message.subject {{
        "logged" => {{
            print(token); debug(token); print(#{{ t: [token] }}); print(json_stringify(#{{ t: token }}));
            debug(json_stringify(#{{ t: token }})); print("{line}" + token);
        }}
        "thrown" => throw "{error}" + token,
        "key" => {{ env.STATE.get("{key}" + token); env.STATE.put("{key}" + token, "{value}" + token) }},
        "url" => ctx.fetch("{url}" + token),
        "hook" => ctx.webhook("{url}" + token, #{{}}),
        "address" => message.forward("{address}@" + token),
        "date" => parse_duration("{short}" + token),
        "name" => ctx.dns_lookup("{short}" + token, "A"),
        "rate" => env.limit("x", "y", "{rate}" + token),
        "model" => ctx.ai(#{{ model: "{model}" + token, messages: [#{{ role: "user", content: "x" }}] }}),
    }};
    message.drop();
}}
"#,
        line = cut_at(4080),
        error = cut_at(985),
        key = cut_at(70),
        value = cut_at(105),
        url = cut_at(90),
        address = cut_at(305),
        short = cut_at(50),
        rate = cut_at(30),
        model = cut_at(245),
    );
    let settings = "[[kv_namespaces]]\nbinding = \"STATE\"\n[ai]\nurl = \"http://127.0.0.1:9/v1\"";
    let mut server = Setup::new().toml(settings).start();
    must_put(&server, &["TOKEN"], "hunter2\t'quoted\" and\\slashed-Hunter2-hunter2");
    server.takes_up("rules/main.rhai", &rules);
    for subject in ["logged", "thrown", "key", "url", "hook", "address", "date", "name", "rate", "model"] {
        let mark = server.log.mark();
        server.send("ann@example.org", &["support@example.com"], &mail(subject, "x"));
        server.log.find(subject, mark, |line| line.contains("[secret TO").then_some(()));
        server.wait_event(mark, "decided", |_| true);
    }
    let traces: String =
        server.messages().iter().map(|one| server.stdout(&["messages", "show", one["id"].as_str().unwrap()])).collect();
    assert!(traces.contains("[secret TO") && !traces.contains("unter2"), "{traces}");
    // What the keys are and hold is explained, too.
    let keyed = server.messages().into_iter().find(|one| one["subject"] == "key").unwrap();
    for arguments in [&["--json"][..], &[]] {
        let explained = server.stdout(&[&["explain", keyed["id"].as_str().unwrap()], arguments].concat());
        let (asked, answer) = (explained.contains("get STATE"), explained.matches("[secret TO").count() > 3);
        assert!(asked && answer && !explained.contains("unter2"), "{explained}");
    }
    assert!(server.stop().success());
    let log = server.log.all().join("\n");
    assert!(!log.contains("unter2"), "{log}");
}

/// Hands the value to everybody it writes to, in one way and another.
const SAYS: &str = r#"
fn mail_from(session, sender, env) { if sender.local == "mail" { session.reject("not by " + env.TOKEN); } }
fn rcpt_to(session, rcpt, env) {
    if rcpt.local == "rcpt" { session.reject(550, "5.7.1", json_stringify(#{ t: env.TOKEN })); }
}
fn email(message, env, ctx) {
    switch message.to.local {
        "late" => message.set_reject("go away, " + env.TOKEN),
        "wait" => message.defer(`wait, ${env.TOKEN}`),
        "answers" => {
            message.reply(#{ subject: "answer " + env.TOKEN, text: "x" });
            ctx.send(#{ to: "team@example.net", from: message.to, subject: json_stringify(#{ token: env.TOKEN }), text: "x" });
            message.drop();
        },
    }
}
fn scheduled(event, env, ctx) { ctx.send(#{ to: "team@example.net", from: "a@example.com", subject: "told " + env.TOKEN, text: "x" }); }
"#;

/// The last answer to one message.
fn ask(server: &Server, from: &str, to: &str) -> Reply {
    let mut client = greeted(server, STRANGER);
    let mut last = client.command(&format!("MAIL FROM:<{from}>"));
    if last.code == 250 {
        last = client.command(&format!("RCPT TO:<{to}>"));
    }
    if last.code == 250 {
        last = client.data(&mail("hello", "x"));
    }
    client.command("QUIT").expect(221);
    last
}

/// What lists, traces, `explain` and `replay` say of all that came.
fn everything_shown(server: &Server, sender: &str) -> String {
    let listed = server.stdout(&["messages", "list"]);
    for told in ["answer [secret TOKEN]", "{\"token\":\"[secret TOKEN]\"}", "told [secret TOKEN]"] {
        assert!(listed.contains(told), "{told} is not in\n{listed}");
    }
    let mut shown = [listed, server.stdout(&["messages", "list", "--json"]), server.stdout(&["log", "list"])].concat();
    for message in server.messages() {
        let id = message["id"].as_str().unwrap();
        shown += &server.stdout(&["messages", "show", id]);
        if matches!(message["outcome"].as_str(), Some("rejected" | "dropped")) {
            shown += &server.stdout(&["explain", id, "--offline", "--json"]);
            shown += &server.stdout(&["explain", id, "--offline"]);
        }
    }
    let file = server.path().join("late.eml");
    std::fs::write(&file, mail("hello", "x")).unwrap();
    for to in ["late@example.com", "rcpt@example.com"] {
        let file = file.to_str().unwrap();
        shown += &server.stdout(&["explain", file, "--to", to, "--from", sender, "--offline"]);
    }
    // What was shown then and what is said now is the same; its sender has had an answer meanwhile.
    let replayed = said(&server.cli(&["replay", "--since", "1d", "--json"]));
    assert!(replayed.contains("other effects") && !replayed.contains("other words"), "{replayed}");
    shown += &replayed;
    shown
}

/// What a worker writes goes out as it is; nowhere is it shown.
#[test]
fn what_a_worker_writes_has_the_value_where_it_is_sent_and_nowhere_else() {
    let token = r#"hunter2\t"quoted'-Hunter2-hunter2"#;
    let sink = SmtpSink::start();
    let setup = Setup::relaying_to(&sink).toml(PROXIED).toml("[triggers]\ncrons = [\"0 9 1 1 *\"]");
    // Its author is proved, so that there is an answer.
    setup.dns.txt("example.org", "v=spf1 ip4:192.0.2.0/24 -all").txt("_dmarc.example.org", "v=DMARC1; p=none");
    let mut server = setup.start();
    must_put(&server, &["TOKEN"], token);
    server.takes_up("rules/main.rhai", SAYS);
    let asks = |from: &str, to: &str| ask(&server, from, to);
    let ann = "ann@example.org";
    let answers = [
        (asks("mail@example.org", "a@example.com"), 550),
        (asks(ann, "rcpt@example.com"), 550),
        (asks(ann, "late@example.com"), 550),
        (asks(ann, "wait@example.com"), 451),
    ];
    for (answer, code) in answers {
        assert!(answer.code == code && answer.text().contains("unter2"), "what is sent stays as written: {answer:?}");
    }
    asks(ann, "answers@example.com").expect(250);
    let triggered = server.stdout(&["trigger"]);
    let subjects: String = sink.wait(3).iter().map(Mail::text).collect();
    assert!(subjects.matches("unter2").count() >= 3, "{subjects}");
    server.settled();
    let shown = triggered + &everything_shown(&server, ann);
    assert!(shown.contains("go away, [secret TOKEN]") && shown.contains("wait, [secret TOKEN]"), "{shown}");
    assert!(!shown.contains("unter2"), "{shown}");
    let rehearsed = "EHLO a.example\nMAIL FROM:<ann@example.org>\nRCPT TO:<rcpt@example.com>\nQUIT\n";
    let rehearsed = server.fed(&["session", "--offline"], rehearsed);
    assert!(rehearsed.contains("[secret TOKEN]") && !rehearsed.contains("unter2"), "{rehearsed}");
    assert!(server.stop().success());
    let log = server.log.all().join("\n");
    assert!(log.contains("not by [secret TOKEN]") && !log.contains("unter2"), "{log}");
}

#[test]
fn without_a_server_a_message_is_decided_on_with_the_secret_or_not_at_all() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).start();
    must_put(&server, &["TOKEN"], VALUE);
    server.takes_up("rules/main.rhai", TELLS);
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    assert!(contains(&sink.wait(1)[0].data, VALUE.as_bytes()));
    server.settled();
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    assert!(server.stop().success());
    let key = server.path().join("secrets.key");
    std::fs::rename(&key, server.path().join("away.key")).unwrap();
    let refused = server.cli(&["replay", &id, "--deliver", "--yes"]);
    assert_eq!(refused.status.code(), Some(78), "{}", said(&refused));
    assert!(said(&refused).contains("secrets.key"), "{}", said(&refused));
    std::fs::rename(server.path().join("away.key"), &key).unwrap();
    let done = server.cli(&["replay", &id, "--deliver", "--yes"]);
    assert!(said(&done).contains("1 delivery queued"), "{}", said(&done));
    server.run();
    assert!(contains(&sink.wait(2)[1].data, VALUE.as_bytes()));
    server.settled();
    assert_eq!(sink.mails().len(), 2, "what was refused was not done");
}

#[test]
fn the_configuration_signs_with_a_kept_secret() {
    let hook = HttpSink::start();
    let server = Setup::new()
        .rules("fn email(message, env, ctx) { ctx.webhook(\"HOOK\", #{ a: 1 }); message.drop(); }")
        .toml(&format!("[[webhook]]\nbinding = \"HOOK\"\nurl = \"{}\"", hook.url("/in")))
        .start();
    let key = format!("whsec_{}", "QUJD".repeat(10));
    must_put(&server, &["HOOK_KEY"], &key);
    let plain = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let with = |name: &str| {
        plain.replace("binding = \"HOOK\"", &format!("binding = \"HOOK\"\nsecret = {{ secret = \"{name}\" }}"))
    };
    let mark = server.log.mark();
    server.write("mailworker.toml", &with("HOOK_KYE"));
    let failed = server.wait_event(mark, "reload_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().contains("did you mean HOOK_KEY?"), "{failed}");
    server.takes_up("mailworker.toml", &with("HOOK_KEY"));
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    let request = &hook.wait(1)[0];
    assert!(request.header("webhook-signature").starts_with("v1,"), "{}", request.header("webhook-signature"));
}

#[test]
fn each_environment_has_its_own() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).toml("[env.staging]\nvars = { NAME = \"staging\" }").start();
    must_put(&server, &["TOKEN"], "of-the-top-level");
    must_put(&server, &["TOKEN", "--env", "staging"], "of-staging");
    must_put(&server, &["ONLY", "--env", "staging"], "of-staging");
    assert_eq!(server.json(&["secret", "list"]).len(), 1);
    assert_eq!(server.json(&["secret", "list", "--env", "staging"]).len(), 2);
    assert!(server.stop().success());
    server.write("rules/main.rhai", TELLS);
    server.run();
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    assert!(contains(&sink.wait(1)[0].data, b"X-Token: of-the-top-level\r\n"));
    let unknown = put(&server, &["TOKEN", "--env", "stagin"], "x-x-x-x");
    assert!(!unknown.status.success() && said(&unknown).contains("did you mean `staging`?"), "{}", said(&unknown));
}

#[test]
fn a_name_that_is_taken_or_none_is_refused() {
    let server = Setup::new().toml("[vars]\nTEAM = \"team@example.net\"").start();
    for (name, why) in
        [("TEAM", "a variable of [vars] already"), ("2FA", "letters, digits"), ("A-B", "letters, digits")]
    {
        let refused = put(&server, &[name], VALUE);
        assert!(refused.status.code() == Some(2) && said(&refused).contains(why), "{}", said(&refused));
    }
    let nothing = put(&server, &["TOKEN"], "");
    assert!(nothing.status.code() == Some(2) && said(&nothing).contains("no value came"), "{}", said(&nothing));
    let long = put(&server, &["TOKEN"], &"x".repeat(65 * 1024));
    assert!(long.status.code() == Some(2) && said(&long).contains("at most"), "{}", said(&long));
    assert_eq!(server.json(&["secret", "list"]).len(), 0);

    // What takes the name of a secret later is told so.
    must_put(&server, &["TOKEN"], VALUE);
    let plain = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let mark = server.log.mark();
    server.write("mailworker.toml", &plain.replace("TEAM =", "TOKEN = \"1\"\nTEAM ="));
    let failed = server.wait_event(mark, "reload_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().contains("`TOKEN` is the name of a secret already"), "{failed}");
}

#[test]
fn dev_vars_stand_in_where_rules_are_tried() {
    let test = "[[test]]\nname = \"t\"\nraw = \"Subject: x\\n\\nx\"\nto = \"support@example.com\"\n\
                expect.forward = [{ to = \"team@example.net\", headers = { \"X-Token\" = \"local\" } }]\n";
    let setup = Setup::new().rules(TELLS).toml("[env.staging]\nvars = { A = 1 }").file("rules/tests/a.toml", test);
    setup.write();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::server::PROGRAM);
        command.args(arguments).current_dir(setup.dir.path()).output().unwrap()
    };
    let unbound = run(&["test"]);
    assert_eq!(unbound.status.code(), Some(78), "{}", said(&unbound));
    let setup = setup.file(".dev.vars", "TOKEN='local' # mine\n");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::server::PROGRAM);
        command.args(arguments).current_dir(setup.dir.path()).output().unwrap()
    };
    let passed = run(&["test"]);
    assert!(passed.status.success(), "{}", said(&passed));
    std::fs::write(setup.dir.path().join(".dev.vars.staging"), "TOKEN=staging\n").unwrap();
    let differs = run(&["test", "--env", "staging"]);
    assert_eq!(differs.status.code(), Some(1), "{}", said(&differs));
    std::fs::write(setup.dir.path().join(".dev.vars"), "TOKEN local\n").unwrap();
    let wrong = run(&["test"]);
    assert!(wrong.status.code() == Some(78) && said(&wrong).contains(".dev.vars:1"), "{}", said(&wrong));
    // A server never looks at them.
    let checked = run(&["check"]);
    assert!(said(&checked).contains("no variable or binding TOKEN"), "{}", said(&checked));
}
