//! What can be seen of the command line only beside a running server: its file while it is away, signals, standard
//! output that nobody reads, lists longer than a screen.

use std::process::{Child, Command, Output, Stdio};

use crate::harness::lines::{self, Lines};
use crate::harness::server::PROGRAM;
use crate::harness::setup::write_file;
use crate::harness::{DEADLINE, Server, Setup, SmtpSink, mail};

/// `serve` in a folder, by the file that it finds; its drop kills it.
struct Found {
    dir: tempfile::TempDir,
    log: Lines,
    child: Child,
}

impl Found {
    /// `mailworker.toml` takes example.com; `$MAILWORKER_CONFIG` names another file, which doesn't.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, domain) in [("mailworker.toml", "example.com"), ("other/other.toml", "example.org")] {
            let text = format!(
                "hostname = \"mx.example.com\"\ndata_dir = \"{}\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                 [http]\naddress = \"\"\n[[domain]]\nname = \"{domain}\"\npostmaster = \"admin@example.net\"\n",
                dir.path().join("data").display()
            );
            write_file(&dir.path().join(path), text.as_bytes());
            let rules = dir.path().join(path).with_file_name("rules/main.rhai");
            write_file(&rules, b"fn email(message, env, ctx) { message.drop(); }\n");
        }
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--json"]).current_dir(dir.path()).env("MAILWORKER_CONFIG", "other/other.toml");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::default();
        log.collect(child.stdout.take().unwrap());
        log.collect(child.stderr.take().unwrap());
        let found = Self { dir, log, child };
        found.event(0, "started");
        found
    }

    fn event(&self, mark: usize, name: &str) -> serde_json::Value {
        self.log.find(name, mark, |line| lines::event(line).filter(|event| event["event"] == name))
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[test]
fn a_file_that_is_away_is_no_other_one() {
    let found = Found::start();
    let (file, away) = (found.dir.path().join("mailworker.toml"), found.dir.path().join("mailworker.away"));
    let mark = found.log.mark();
    std::fs::rename(&file, &away).unwrap();
    let failed = found.event(mark, "reload_failed");
    assert!(failed["error"].as_str().unwrap().contains("can't be read"), "{failed}");
    let mark = found.log.mark();
    std::fs::rename(&away, &file).unwrap();
    found.event(mark, "reloaded");
    assert!(!found.log.all().iter().any(|line| line.contains("example.org")), "{:?}", found.log.all());
}

#[test]
fn sighup_reads_everything_again() {
    let found = Found::start();
    let mark = found.log.mark();
    signal(&found.child, "HUP");
    found.event(mark, "reloaded");
}

/// A pipe that nobody reads any more.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn mail_is_taken_though_nobody_reads_what_is_printed() {
    for machine in [&[][..], &["--json"]] {
        let setup = Setup::new().rules("fn email(message, env, ctx) { message.drop(); }");
        let file = setup.write();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").args(machine).arg("--config").arg(&file).stdin(Stdio::null());
        let mut child = command.stdout(unread()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::default();
        log.collect(std::io::empty());
        log.collect(child.stderr.take().unwrap());
        log.find("that standard output is gone", 0, |line| line.contains("standard output is gone").then_some(()));
        write_file(&setup.dir.path().join("mail.eml"), &mail("unread", "x"));
        let command = ["send", "mail.eml", "--from", "ann@example.org", "--to", "support@example.com", "--config"];
        let sent = Command::new(PROGRAM).args(command).arg(&file).current_dir(setup.dir.path()).output().unwrap();
        assert!(sent.status.success(), "{sent:?}\n{:?}", log.all());
        signal(&child, "TERM");
        let end = std::time::Instant::now() + DEADLINE;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if std::time::Instant::now() > end => panic!("it doesn't stop: {:?}", log.all()),
                None => log.more(log.mark()),
            }
        };
        assert_eq!(status.code(), Some(0), "{:?}", log.all());
    }
}

/// Whoever reads only the first lines of a list hears nothing of it.
#[test]
fn a_list_that_nobody_reads_to_its_end_is_no_failure() {
    let output = Command::new(PROGRAM).arg("man").stdout(unread()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

fn printed(output: &Output) -> (usize, String) {
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.starts_with(' ')).count();
    (lines, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// 60 messages, of which each waits for a next hop that refuses them all for now.
fn crowded(sink: &SmtpSink) -> Server {
    sink.always("MAIL", "450 4.7.1 not now");
    let mut server = Setup::relaying_to(sink).toml("[relay]\nretry = [\"1 h\"]").start();
    server.leaves_queue();
    let mut client = server.client();
    for number in 0..60 {
        let subject = format!("number {number}");
        client.send("ann@example.org", &["support@example.com"], &mail(&subject, &subject)).expect(250);
    }
    server.wait_until("all were tried", || {
        server.queue().iter().all(|entry| entry["last_error"].is_string() || entry["attempts"] == 0).then_some(())
    });
    server
}

#[test]
fn a_list_says_that_there_is_more_and_a_program_gets_all_of_it() {
    let server = crowded(&SmtpSink::start());
    for list in ["queue", "messages"] {
        let (lines, said) = printed(&server.cli(&[list, "list"]));
        assert_eq!(lines, 50, "{list}");
        assert!(said.contains("-n 0"), "{list}: {said}");
        assert_eq!(printed(&server.cli(&[list, "list", "-n", "0"])), (60, String::new()), "{list}");
        assert_eq!(printed(&server.cli(&[list, "list", "-n", "7"])), (7, String::new()), "{list}");
        assert_eq!(printed(&server.cli(&[list, "list", "--json"])), (60, String::new()), "{list}");
        assert_eq!(printed(&server.cli(&[list, "list", "--json", "-n", "7"])), (7, String::new()), "{list}");
    }
}

#[test]
fn the_queue_is_summed_up_by_destination() {
    let sink = SmtpSink::start();
    let server = crowded(&sink);
    let sums = server.json(&["queue", "summary"]);
    let [sum] = &sums[..] else { panic!("{sums:?}") };
    assert_eq!((&sum["queued"], &sum["dead"]), (&60.into(), &0.into()), "{sum}");
    assert!(sum["last_error"].as_str().unwrap().contains("not now"), "{sum}");
    assert!(sum["oldest"].as_i64() > Some(0) && sum["next"].as_i64() >= sum["oldest"].as_i64(), "{sum}");
    let words = server.stdout(&["queue", "summary"]);
    assert!(words.contains("60 queued, 0 dead") && words.contains("not now"), "{words}");
    assert!(words.contains(sum["destination"].as_str().unwrap()), "{words}");
    assert_eq!(server.stdout(&["queue", "summary", "--dead"]), "no deliveries\n");
}

#[test]
fn a_copy_to_a_path_that_is_no_text_is_refused_in_words() {
    use std::os::unix::ffi::OsStrExt as _;
    let server = Setup::new().start();
    let path = server.path().join(std::ffi::OsStr::from_bytes(b"copy-\xff"));
    let output = server.command(&["backup"]).arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("isn't UTF-8"), "{said}");
}
