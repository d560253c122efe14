//! The log: what belongs to no message is found again later, lines are JSON where that is asked for, and nobody waits
//! for whoever reads them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::harness::{Client, DEADLINE, Setup, mail};

#[test]
fn who_was_refused_and_why_is_found_later() {
    let mut server = Setup::new().start();
    for sender in ["ann@example.org", "bob@example.org", ""] {
        let mut client = server.client();
        client.command(&format!("MAIL FROM:<{sender}>")).expect(250);
        client.command("RCPT TO:<elsewhere@example.net>").expect(550);
        client.command("QUIT").expect(221);
    }
    let mut client = server.client();
    client.command("MAIL FROM:<big@example.org> SIZE=99999999999").expect(552);
    client.command("QUIT").expect(221);
    let list = |arguments: &[&str]| server.json(&[&["log", "list"], arguments].concat());
    server.wait_until("all four are kept", || (list(&["--ip", "127.0.0.1"]).len() == 4).then_some(()));
    let found = list(&["--sender", "ANN@", "--phase", "rcpt", "--since", "1h"]);
    let [ann] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((&ann["event"], &ann["recipient"]), (&"refused".into(), &"elsewhere@example.net".into()), "{ann}");
    assert_eq!(ann["reply"]["code"], 550, "{ann}");
    assert_eq!(list(&["--sender", "<>"]).len(), 1);
    assert_eq!(list(&["--phase", "mail"])[0]["reply"]["code"], 552);
    assert_eq!(list(&["--recipient", "nobody@"]), Vec::<serde_json::Value>::new());

    let newest = list(&["--phase", "rcpt", "-n", "1"]).remove(0);
    assert_eq!(newest["sender"], "<>");
    let older = list(&["--phase", "rcpt", "--before", &newest["id"].to_string()]);
    assert_eq!(
        older.iter().map(|event| event["sender"].as_str().unwrap()).collect::<Vec<_>>(),
        ["bob@example.org", "ann@example.org"]
    );

    // For a person, also when no server runs any more.
    assert!(server.stop().success());
    let printed = server.stdout(&["log", "list", "--sender", "ann@"]);
    assert!(printed.contains("ann@example.org → elsewhere@example.net: 550 5.7.1"), "{printed}");
    let printed = server.stdout(&["log", "list"]);
    assert!(printed.contains("started") && printed.contains("stopping"), "{printed}");
    assert_eq!(server.stdout(&["log", "list", "--ip", "203.0.113."]), "no events\n");
}

/// `serve` without `--json`: what it prints, and its log as asked for.
struct Plain {
    child: Child,
    smtp: SocketAddr,
}

impl Plain {
    fn start(setup: &Setup, arguments: &[&str]) -> Self {
        let mut command = Command::new(crate::harness::server::PROGRAM);
        command.arg("serve").args(arguments).arg("--config").arg(setup.write());
        command.current_dir(setup.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening smtp ").and_then(|rest| rest.split(' ').next());
        let smtp = address.unwrap_or_else(|| panic!("{line}")).parse().unwrap();
        Self { child, smtp }
    }

    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn as_json_each_line_is_an_object() {
    let setup = Setup::new();
    let mut server = Plain::start(&setup, &["--log", "json", "--log-level", "debug"]);
    let mut client = Client::greeted(server.smtp);
    client.command("MAIL FROM:<\"a\\\"b\"@example.org>").expect(250);
    client.command("RCPT TO:<elsewhere@example.net>").expect(550);
    client.command("QUIT").expect(221);
    server.terminate();
    let mut log = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let named =
        |name: &str| lines.iter().find(|line| line["message"] == name).unwrap_or_else(|| panic!("{name}: {log}"));
    let refused = named("refused");
    assert_eq!(refused["phase"], "rcpt");
    assert_eq!(refused["sender"], "\"a\\\"b\"@example.org");
    assert_eq!(refused["level"], "INFO");
    assert!(refused["timestamp"].is_string() && refused["session"].is_u64(), "{refused}");
    for name in ["started", "connected", "stopping"] {
        named(name);
    }
}

/// A log shipper that hangs must not stop the mail.
#[test]
fn mail_goes_on_while_nobody_reads_the_log() {
    let rules = "fn email(message, env, ctx) {\n    for n in 0..100 { print(`line ${n} of a worker that has much to say`); }\n    message.drop();\n}";
    let setup = Setup::new().rules(rules);
    let mut server = Plain::start(&setup, &[]);
    let mut client = Client::greeted(server.smtp);
    // Many times what a pipe holds.
    for n in 0..40 {
        client.send("ann@example.org", &["support@example.com"], &mail(&format!("m{n}"), "x")).expect(250);
    }
    client.command("QUIT").expect(221);
    server.terminate();
    let end = std::time::Instant::now() + DEADLINE;
    while server.child.try_wait().unwrap().is_none() {
        assert!(std::time::Instant::now() < end, "it doesn't end");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}
