//! One process owns a store; it can be copied while it is used, and proved sound.

use std::process::Stdio;

use crate::harness::lines::event;
use crate::harness::{Server, Setup, SmtpSink, mail};

#[test]
fn a_second_server_on_one_store_is_refused() {
    let server = Setup::new().start();
    let second = server.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&[second.stdout, second.stderr].concat()).into_owned();
    assert!(!second.status.success(), "{said}");
    assert!(said.contains("another process") || said.contains("in use") || said.contains("locked"), "{said}");
    server.client().command("NOOP").expect(250);
}

#[test]
fn a_backup_of_a_running_store_is_a_store() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let message = mail("backed-up", "x");
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    server.settled();
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    server.stdout(&["backup", "copy"]);
    server.send("ann@example.org", &["support@example.com"], &mail("afterwards", "x")).expect(250);
    server.settled();

    let old = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let copied = old.replace("data_dir = \"data\"", "data_dir = \"copy\"");
    assert_ne!(old, copied);
    let elsewhere = Setup::new();
    let config = elsewhere.dir.path().join("mailworker.toml");
    std::fs::rename(server.path().join("copy"), elsewhere.dir.path().join("copy")).unwrap();
    let elsewhere = elsewhere.file("mailworker.toml", &copied);
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::server::PROGRAM);
        command.args(arguments).arg("--config").arg(&config).output().unwrap()
    };
    let check = run(&["store", "check"]);
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&[check.stdout, check.stderr].concat()));
    let raw = run(&["messages", "raw", &id]);
    assert!(raw.stdout.ends_with(&message), "{}", String::from_utf8_lossy(&[raw.stdout, raw.stderr].concat()));
    let list = run(&["messages", "list", "--json"]);
    assert!(!String::from_utf8_lossy(&list.stdout).contains("afterwards"), "as of one moment");
    drop(elsewhere);
}

/// As deploy/README.md says it: a copy of the backup is the new `data_dir`.
#[test]
fn a_backup_is_restored_and_what_was_queued_goes_on() {
    let sink = SmtpSink::start();
    sink.always("RCPT", "451 4.3.0 later");
    let mut server = Setup::relaying_to(&sink).toml("[relay]\nretry = [\"1 h\"]").start();
    server.leaves_queue();
    let message = mail("queued", "x");
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    server.wait_until("it is put off", || (server.newest()["deliveries"][0]["attempts"] == 1).then_some(()));
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    server.stdout(&["backup", "copy"]);
    server.kill();

    sink.as_usual();
    let setup = Setup::relaying_to(&sink);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(server.path().join("copy"))
        .arg(setup.dir.path().join("data"))
        .status();
    assert!(copied.unwrap().success());
    setup.write();
    let restored = setup.start();
    assert!(restored.stdout(&["messages", "raw", &id]).as_bytes().ends_with(&message));
    restored.stdout(&["queue", "retry", "--all"]);
    assert!(sink.wait_one().text().contains("queued"));
    restored.settled();
    restored.stdout(&["store", "check"]);
}

/// Runs `mailworker backup copy` where no file may grow past two MiB, which a process is killed by, or told.
fn backup_with_little_room(server: &Server, first: &str) -> std::process::Output {
    let command = server.command(&["backup", "copy"]);
    let mut limited = std::process::Command::new("bash");
    limited.args(["-c", &format!("{first}; ulimit -c 0; ulimit -f 2048; exec \"$@\""), "bash"]);
    limited.arg(command.get_program()).args(command.get_args()).current_dir(server.path()).output().unwrap()
}

#[test]
fn a_backup_without_room_leaves_nothing_and_one_that_is_killed_nothing_that_is_taken_for_a_store() {
    let mut server = Setup::new().rules("fn email(message, env, ctx) { }").start();
    server
        .send("ann@example.org", &["support@example.com"], &mail("large", &"0123456789\r\n".repeat(400_000)))
        .expect(250);
    assert!(server.stop().success());
    let told = backup_with_little_room(&server, "trap '' XFSZ");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("copy spool/"), "{said}");
    assert!(!server.path().join("copy").exists());

    let killed = backup_with_little_room(&server, ":");
    assert!(killed.status.code().is_none_or(|code| code > 128), "{:?}", killed.status);
    let old = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    server.write("mailworker.toml", &old.replace("data_dir = \"data\"", "data_dir = \"copy\""));
    for arguments in [&["store", "check"][..], &["messages", "list"], &["serve"]] {
        let refused = server.cli(arguments);
        let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
        assert!(!refused.status.success() && said.contains("didn't come to its end"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_damaged_store_is_told() {
    let server = {
        let mut server = Setup::new().rules("fn email(message, env, ctx) { }").start();
        server.send("ann@example.org", &["support@example.com"], &mail("soon-damaged", "x")).expect(250);
        assert!(server.stop().success());
        server
    };
    let sound = server.cli(&["store", "check"]);
    assert!(sound.status.success(), "{}", String::from_utf8_lossy(&[sound.stdout, sound.stderr].concat()));
    let segment = segments(&server.path().join("data")).pop().expect("a segment file");
    let mut octets = std::fs::read(&segment).unwrap();
    let found = octets.windows(12).position(|window| window == b"soon-damaged").expect("the message's octets");
    octets[found] ^= 0xff;
    std::fs::write(&segment, octets).unwrap();
    let check = server.cli(&["store", "check"]);
    let said = String::from_utf8_lossy(&[check.stdout, check.stderr].concat()).into_owned();
    assert_eq!(check.status.code(), Some(1), "{said}");
}

/// A database older than the spool, and a script that reads `serve --json`.
#[test]
fn what_is_found_at_a_start_is_told_with_all_other_events() {
    let mut server = Setup::new().start();
    server.stdout(&["backup", "copy"]);
    server.send("ann@example.org", &["support@example.com"], &mail("left alone", "x")).expect(250);
    server.settled();
    server.kill();
    for write_ahead in ["data/mailworker.db-wal", "data/mailworker.db-shm"] {
        std::fs::remove_file(server.path().join(write_ahead)).unwrap();
    }
    std::fs::copy(server.path().join("copy/mailworker.db"), server.path().join("data/mailworker.db")).unwrap();
    let from = server.log.mark();
    server.run();
    let fault = server.wait_event(from, "fault", |_| true);
    assert!(fault["what"].as_str().unwrap().contains("holds mail that the database knows nothing of"), "{fault}");
    let events: Vec<_> = server.log.all().iter().filter_map(|line| event(line)).collect();
    let place = |name: &str| events.iter().position(|event| event["event"] == name).unwrap();
    assert!(place("fault") < place("listening") && place("listening") < place("started"), "{events:?}");
}

/// All files below `dir` that aren't the database's.
fn segments(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if std::fs::read(&path).unwrap().windows(12).any(|window| window == b"soon-damaged")
            && !std::fs::read(&path).unwrap().starts_with(b"SQLite format 3")
            && !path.to_string_lossy().ends_with("-wal")
        {
            found.push(path);
        }
    }
    found
}

/// The disk's reserve: below it MAIL is refused, before anything is lost.
#[test]
fn a_disk_below_its_reserve_refuses_at_mail() {
    let server = Setup::new().toml("[limits]\nfree_space = \"1000 TiB\"").start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect_status(452, "4.3.1");
    client.command("NOOP").expect(250);
}
