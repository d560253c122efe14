//! Releases: deployed while mail comes in, gone back from, tried on a part of the mail; what is refused changes nothing.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::sink::Mail;
use crate::harness::{Client, Server, Setup, SmtpSink, mail};

fn forwards_to(local: &str) -> String {
    format!("fn email(message, env, ctx) {{ message.forward(`{local}-${{ctx.version}}@example.net`); }}")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn refused(server: &Server, arguments: &[&str], why: &str) {
    let output = server.cli(arguments);
    let said = said(&output);
    assert!(!output.status.success() && said.contains(why), "{arguments:?}: {}: {said}", output.status);
}

/// Writes these rules and deploys them.
#[track_caller]
fn deploy(server: &Server, rules: &str, arguments: &[&str]) -> String {
    server.write("rules/main.rhai", rules);
    server.stdout(&[&["deploy", "--author", "ann"], arguments].concat())
}

/// Where the next message is sent on to.
#[track_caller]
fn next_goes_to(server: &Server, sink: &SmtpSink) -> String {
    let before = sink.each(|_| ()).len();
    server.send("ann@example.org", &["support@example.com"], &mail("next", &before.to_string())).expect(250);
    let mail = sink.wait(before + 1).remove(before);
    mail.recipients()[0].split('@').next().unwrap().to_owned()
}

fn version(server: &Server, id: &str) -> String {
    server.json(&["versions", "show", id])[0]["version"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_deployed_runs_and_the_files_no_longer_do() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).rules(&forwards_to("files")).start();
    assert!(next_goes_to(&server, &sink).starts_with("files-"));
    let printed = deploy(&server, &forwards_to("one"), &["--message", "the first"]);
    assert!(printed.contains("deployed release 1") && printed.contains("has taken it up"), "{printed}");
    let one = version(&server, "1");
    assert_eq!(next_goes_to(&server, &sink), format!("one-{one}"));

    // Each trace names it.
    let trace = server.newest_settled();
    let decided = trace["trace"].as_array().unwrap().iter().find(|event| event["event"] == "decided").unwrap();
    assert_eq!(decided["version"], one.as_str(), "{decided}");

    // Who edits the files is told, at the reload, by `check` and at the next start.
    let mark = server.log.mark();
    server.write("rules/main.rhai", &forwards_to("edited"));
    let differs = "what is in rules/ is not what runs";
    let reloaded = server.wait_event(mark, "reloaded", |event| event["what"].as_str().unwrap().contains(differs));
    assert!(reloaded["what"].as_str().unwrap().contains("release 1 ("), "{reloaded}");
    assert!(next_goes_to(&server, &sink).starts_with("one-"));
    let checked = server.stdout(&["check"]);
    assert!(checked.contains("deployed: release 1") && checked.contains("is not what runs"), "{checked}");
    assert!(server.stdout(&["explain", "support@example.com"]).contains("one-"));
    server.settled();
    assert!(server.stop().success());
    server.run();
    assert!(server.log.all().iter().any(|line| line.contains("is not what runs")), "{:?}", server.log.all());
    assert!(next_goes_to(&server, &sink).starts_with("one-"));

    server.stdout(&["rollback", "files"]);
    assert!(next_goes_to(&server, &sink).starts_with("edited-"));
    server.settled();
    let log = serde_json::Value::from(server.json(&["log", "list"])).to_string();
    assert!(log.contains("release 1") && log.contains("by ann: the first") && log.contains("rollback"), "{log}");
}

#[test]
fn it_switches_between_two_messages_of_open_sessions() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(&forwards_to("zero")).start();
    let stop = AtomicBool::new(false);
    let address = server.smtp();
    let sent = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|sender| {
                let stop = &stop;
                scope.spawn(move || {
                    // One connection each, all the time.
                    let mut client = Client::greeted(address);
                    let mut sent = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let mail = mail("x", &format!("{sender}-{sent}"));
                        client.send("ann@example.org", &["support@example.com"], &mail).expect(250);
                        sent += 1;
                    }
                    client.command("QUIT").expect(221);
                    sent
                })
            })
            .collect();
        let _ends_them = Ends(&stop);
        let mut client = server.client();
        let mut owns = 0;
        let mut own = |client: &mut Client| {
            owns += 1;
            client.send("ben@example.org", &["support@example.com"], &mail("own", &owns.to_string())).expect(250);
            let to = || {
                let own = |mail: &Mail| mail.from.starts_with("<ben@").then(|| mail.recipients()[0].to_owned());
                let own: Vec<String> = sink.each(own).into_iter().flatten().collect();
                (own.len() == owns).then(|| own.last().unwrap().clone())
            };
            server.wait_until("it is sent on", to)
        };
        for round in 1..=4 {
            deploy(&server, &forwards_to(&format!("round{round}")), &[]);
            // A session that was open before has the new rules, too.
            assert!(own(&mut client).starts_with(&format!("round{round}-")));
        }
        server.stdout(&["rollback"]);
        assert!(own(&mut client).starts_with("round3-"));
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().map(|sender| sender.join().unwrap()).sum::<usize>()
    });
    server.settled();
    assert_eq!(sink.each(|mail| mail.text().contains("Subject: x\r\n")).into_iter().filter(|is| *is).count(), sent);
}

/// Ends the senders, however the test goes on.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const TEST: &str = "[[test]]\nname = \"goes to the team\"\nraw = \"Subject: x\\n\\nx\"\nto = \"support@example.com\"\n\
                    expect.forward = [\"team@example.net\"]\n";

#[test]
fn what_does_not_compile_or_fails_its_tests_is_not_deployed() {
    let server = Setup::new().file("rules/tests/a.toml", TEST).start();
    let good = "fn email(message, env, ctx) { message.forward(\"team@example.net\"); }";
    assert!(deploy(&server, good, &[]).contains("1 passed"));
    server.write("rules/main.rhai", "fn email(message, env, ctx) { message.forward( }");
    refused(&server, &["deploy"], "rules/main.rhai:1:");
    refused(&server, &["deploy", "--force"], "rules/main.rhai:1:");
    server.write("rules/main.rhai", "fn email(message, env, ctx) { message.drop(); }");
    refused(&server, &["deploy"], "tests fail: nothing was deployed");
    assert_eq!(server.json(&["versions", "list"]).len(), 1);

    server.stdout(&["deploy", "--force", "--message", "in a hurry"]);
    let newest = server.json(&["versions", "list"]).remove(0);
    assert_eq!((newest["id"].as_i64(), newest["state"].as_str()), (Some(2), Some("active")), "{newest}");
    assert!(newest["tests"].as_str().unwrap().contains("--force"), "{newest}");
    let log = serde_json::Value::from(server.json(&["log", "list"])).to_string();
    assert!(log.contains("failed, deployed with --force"), "{log}");
    assert!(server.stdout(&["deploy", "--force"]).contains("nothing to deploy"));
}

#[test]
fn releases_are_listed_shown_compared_and_gone_back_to() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).toml("[env.staging]\nvars = { A = 1 }").start();
    deploy(&server, &forwards_to("one"), &["--message", "the first"]);
    deploy(&server, &forwards_to("two"), &["--message", "the second"]);
    server.write("rules/lib/more.rhai", "fn more() { 1 }\n");
    deploy(&server, &forwards_to("three"), &[]);
    let (one, two) = (version(&server, "1"), version(&server, "2"));
    let listed = server.stdout(&["versions", "list"]);
    assert!(listed.contains("the first") && listed.contains("active") && listed.contains(&one), "{listed}");
    let shown = server.stdout(&["versions", "show", &two[..6]]);
    assert!(shown.contains("the second") && shown.contains("rules/main.rhai") && shown.contains("by ann"), "{shown}");
    assert_eq!(server.stdout(&["versions", "show", "1", "--file", "rules/main.rhai"]).trim(), forwards_to("one"));
    let diff = server.stdout(&["versions", "diff", "2", "3"]);
    assert!(diff.contains("-fn email") && diff.contains("+fn more() { 1 }") && diff.contains("+++ 3/rules/"), "{diff}");
    assert!(server.stdout(&["versions", "diff", "3", "files"]).contains("no file differs"));
    refused(&server, &["versions", "show", "9"], "the newest are 3, 2, 1");
    assert_eq!(server.json(&["versions", "list", "--env", "staging"]).len(), 0);
    refused(&server, &["rollback", "3", "--env", "staging"], "there is no release");

    // Back by one, by one more, to a named one; there is no further back.
    server.stdout(&["rollback"]);
    assert!(next_goes_to(&server, &sink).starts_with("two-"));
    server.stdout(&["rollback"]);
    assert!(next_goes_to(&server, &sink).starts_with("one-"));
    refused(&server, &["rollback"], "no release ran before release 1");
    server.stdout(&["rollback", "3"]);
    assert!(next_goes_to(&server, &sink).starts_with("three-"));

    // Without a server, the next start takes it up; with a broken configuration a running one does.
    server.settled();
    assert!(server.stop().success());
    assert!(server.stdout(&["rollback", "2"]).contains("no server runs"));
    server.run();
    assert!(next_goes_to(&server, &sink).starts_with("two-"));
    let toml = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let mark = server.log.mark();
    std::fs::write(server.path().join("good.toml"), &toml).unwrap();
    server.write("mailworker.toml", &format!("no_such_key = 1\n{toml}"));
    server.wait_event(mark, "reload_failed", |_| true);
    let good = server.path().join("good.toml");
    let mut command = std::process::Command::new(crate::harness::server::PROGRAM);
    let output = command.args(["rollback", "1", "--config"]).arg(good).current_dir(server.path()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(next_goes_to(&server, &sink).starts_with("one-"));
    server.write("mailworker.toml", &toml);
}

/// A host that was deployed to has a configuration and a store, and needs no copy of the rules.
#[test]
fn a_server_runs_what_is_deployed_without_a_file_of_the_rules() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).rules(&forwards_to("files")).start();
    deploy(&server, &forwards_to("one"), &[]);
    deploy(&server, &forwards_to("two"), &[]);
    assert!(server.stop().success());
    std::fs::rename(server.path().join("rules"), server.path().join("away")).unwrap();
    server.run();
    assert!(next_goes_to(&server, &sink).starts_with("two-"));
    let told = server.log.all().join("\n");
    assert!(told.contains("release 2 (") && !told.contains("is not what runs"), "{told}");

    // A reload, and all that looks at the store or asks what would be decided.
    let toml = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    server.takes_up("mailworker.toml", &format!("{toml}\n# changed\n"));
    server.stdout(&["rollback"]);
    assert!(next_goes_to(&server, &sink).starts_with("one-"));
    assert!(server.stdout(&["check"]).contains("deployed: release 1 ("));
    assert!(server.stdout(&["explain", "support@example.com"]).contains("one-"));
    server.settled();
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    assert!(server.stdout(&["replay", &id, "--deliver", "--yes"]).contains("1 delivery queued"));
    server.settled();
    // By release 1, as it is in force, the first would have another fate; by the folder that holds release 2's files, both.
    for (by, changed) in [(&[][..], 1), (&["--rules", "away"], 2)] {
        let output = server.cli(&[&["replay", "--since", "1d", "--json"], by].concat());
        let told = said(&output);
        assert!(output.status.code() == Some(1) && told.contains(&format!("\"changed\":{changed}")), "{by:?}: {told}");
    }
    refused(&server, &["deploy"], "rules/main.rhai isn't there");
    refused(&server, &["rollback", "files"], "no such file below");
    assert!(server.stop().success());
    assert!(server.stdout(&["replay", &id, "--deliver", "--yes"]).contains("1 delivery queued"));
    server.run();
    sink.wait(4);
}

/// What else is wrong is told alone; where files are wanted, that a release runs without them.
#[test]
fn files_that_need_not_be_there_are_not_missed() {
    let mut server = Setup::new().start();
    deploy(&server, &forwards_to("one"), &[]);
    assert!(server.stop().success());
    std::fs::rename(server.path().join("rules"), server.path().join("away")).unwrap();
    for arguments in [&["deploy"][..], &["test"]] {
        refused(&server, arguments, "release 1 is deployed and runs without it: `mailworker versions show 1`");
    }
    let toml = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    server.write("mailworker.toml", &format!("hostnme = \"mx.example.com\"\n{toml}"));
    for arguments in [&["serve"][..], &["check"], &["explain", "support@example.com"]] {
        refused(&server, arguments, "hostnme");
        let told = said(&server.cli(arguments));
        assert!(!told.contains("isn't there"), "{arguments:?}: {told}");
    }
    // Whoever wants the files hears of both.
    refused(&server, &["deploy"], "hostnme");
    refused(&server, &["deploy"], "the worker rules/main.rhai isn't there");

    let other = "\n[[domain]]\nname = \"other.example\"\npostmaster = \"a@example.net\"\nmain = \"rules/other.rhai\"\n";
    server.write("mailworker.toml", &format!("{toml}{other}"));
    for arguments in [&["serve"][..], &["check"]] {
        refused(&server, arguments, "the deployed release 1 doesn't fit the configuration");
        let told = said(&server.cli(arguments));
        assert!(told.lines().all(|line| !line.trim_end().ends_with("-->")), "{arguments:?}: {told}");
    }
}

/// What a version has learnt to refuse at `check` stops no mail that the one before it took: whoever upgrades is told.
#[test]
fn a_deployed_release_that_check_would_refuse_today_runs_on_and_is_warned_of() {
    let sink = SmtpSink::start();
    let setup = Setup::relaying_to(&sink).toml("[vars]\nTEAM = \"one\"");
    let mut server = setup.start();
    let rules = "fn email(message, env, ctx) {\n    if message.raw_size > 5000000 { message.store(); }\n    \
                 message.forward(`${env.TEAM}@example.net`);\n}\n";
    deploy(&server, rules, &[]);
    deploy(&server, &forwards_to("two"), &[]);
    assert!(server.stop().success());
    let store = rusqlite::Connection::open(server.path().join("data/mailworker.db")).unwrap();
    let slip = "UPDATE release_files SET text = replace(text, 'message.store(', 'message.stoer(') WHERE release = 1";
    assert_eq!(store.execute(slip, []).unwrap(), 1);
    drop(store);

    // Gone back to at night, and started from.
    let told = said(&server.cli(&["rollback", "1"]));
    assert!(told.contains("warning") && told.contains("message.stoer") && told.contains("release 1"), "{told}");
    server.run();
    assert_eq!(next_goes_to(&server, &sink), "one");
    assert!(
        server.log.all().iter().any(|line| line.contains("warning: no method message.stoer")),
        "{:?}",
        server.log.all()
    );
    let checked = server.cli(&["check"]);
    assert!(checked.status.success(), "{}", said(&checked));
    // Nothing new becomes active with it.
    server.write("rules/main.rhai", &rules.replace("store", "stoer"));
    refused(&server, &["deploy"], "no method message.stoer");
    // What the configuration has to give it is asked of it as before.
    let toml = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    server.write("mailworker.toml", &toml.replace("TEAM", "TEAMS"));
    assert!(server.stop().success());
    refused(&server, &["serve"], "the deployed release 1 doesn't fit the configuration");
}

/// Where nothing is deployed, the rules are files, and their absence is told where the configuration names them.
#[test]
fn without_files_and_without_a_release_nothing_runs() {
    let server = Setup::new().start();
    std::fs::rename(server.path().join("rules"), server.path().join("away")).unwrap();
    for arguments in [&["check"][..], &["explain", "support@example.com"]] {
        refused(&server, arguments, "the worker rules/main.rhai isn't there");
    }
    assert_eq!(server.messages().len(), 0);
}

#[test]
fn of_two_deploys_at_once_one_is_told_that_the_other_was_faster() {
    let server = Setup::new().start();
    deploy(&server, &forwards_to("zero"), &[]);
    let folders = ["a", "b", "c", "d"].map(|name| {
        let dir = server.path().join(name);
        let toml = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
        let data = server.path().join("data");
        std::fs::create_dir_all(dir.join("rules")).unwrap();
        std::fs::write(dir.join("mailworker.toml"), toml.replace("\"data\"", &format!("{data:?}"))).unwrap();
        std::fs::write(dir.join("rules/main.rhai"), forwards_to(name)).unwrap();
        dir
    });
    let started = folders.map(|dir| {
        let mut command = std::process::Command::new(crate::harness::server::PROGRAM);
        let pipe = std::process::Stdio::piped;
        command.arg("deploy").current_dir(dir).stdout(pipe()).stderr(pipe()).spawn().unwrap()
    });
    let ended = started.map(|child| child.wait_with_output().unwrap());
    let done = ended.iter().filter(|output| output.status.success()).count();
    let releases = server.json(&["versions", "list"]);
    assert!(done >= 1 && releases.len() == done + 1, "{done}: {releases:?}");
    assert_eq!(releases.iter().filter(|release| release["state"] == "active").count(), 1, "{releases:?}");
    for output in ended.iter().filter(|output| !output.status.success()) {
        let why = said(output);
        assert!(why.contains("somebody else was faster"), "{why}");
    }
}

#[test]
fn a_kill_while_it_is_deployed_leaves_one_whole_release_in_force() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).rules(&forwards_to("round0")).start();
    for round in 1..=6 {
        server.write("rules/main.rhai", &forwards_to(&format!("round{round}")));
        let mut command = server.command(&["deploy"]);
        let null = std::process::Stdio::null;
        let mut child = command.stdout(null()).stderr(null()).spawn().unwrap();
        // Some moments later each round, so that it is met before, in and after its transaction.
        std::thread::park_timeout(std::time::Duration::from_millis(15 * round));
        server.kill();
        child.wait().unwrap();
        server.run();
        let releases = server.json(&["versions", "list"]);
        let active = releases.iter().find(|release| release["state"] == "active");
        let goes_to = next_goes_to(&server, &sink);
        match active {
            Some(active) => {
                let version = active["version"].as_str().unwrap();
                assert!(goes_to.ends_with(version), "{goes_to}: {active}");
                let id = active["id"].to_string();
                let file = server.stdout(&["versions", "show", &id, "--file", "rules/main.rhai"]);
                assert!(goes_to.starts_with("round") && file.contains(goes_to.split('-').next().unwrap()), "{file}");
            }
            None => assert!(goes_to.starts_with(&format!("round{round}-")), "{goes_to}"),
        }
        server.settled();
    }
    server.stdout(&["store", "check"]);
}
