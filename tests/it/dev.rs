//! `dev` on rules of one's own: what happens is printed as it happens, changes are taken, an error keeps the old rules.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::harness::lines::Lines;
use crate::harness::server::PROGRAM;
use crate::harness::setup::write_file;
use crate::harness::{Client, mail};

/// A running `mailworker dev`; its drop ends it.
struct Dev {
    dir: tempfile::TempDir,
    screen: Lines,
    smtp: SocketAddr,
    child: Child,
}

impl Dev {
    fn start(color: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new(PROGRAM).args(["init", "."]).current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        write_file(&dir.path().join("rules/main.rhai"), forwards_to("old").as_bytes());
        Self::run(dir, color)
    }

    /// `dev` on what is in `dir`.
    fn run(dir: tempfile::TempDir, color: &str) -> Self {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["dev", "--smtp", "127.0.0.1:0", "--color", color]).current_dir(dir.path()).stdin(Stdio::null());
        // What it keeps goes with the test, however it ends.
        command.env("TMPDIR", dir.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let screen = Lines::default();
        screen.collect(child.stdout.take().unwrap());
        screen.collect(child.stderr.take().unwrap());
        let smtp = screen.find("the address", 0, |line| {
            line.split_whitespace().skip_while(|word| *word != "smtp").nth(1)?.parse().ok()
        });
        screen.find("that it is ready", 0, |line| line.contains("Ctrl-C").then_some(()));
        Self { dir, screen, smtp, child }
    }

    fn send(&self, subject: &str) {
        let mut client = Client::greeted(self.smtp);
        client.send("ann@example.org", &["support@example.com"], &mail(subject, "It burns.")).expect(250);
    }

    /// Waits for a line after `mark` that holds all of `words`.
    fn shows(&self, mark: usize, words: &[&str]) -> String {
        let what = words.join(" … ");
        self.screen.find(&what, mark, |line| words.iter().all(|word| line.contains(word)).then(|| line.to_owned()))
    }

    fn write_rules(&self, text: &str) {
        write_file(&self.dir.path().join("rules/main.rhai"), text.as_bytes());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn forwards_to(local: &str) -> String {
    format!("fn email(message, env, ctx) {{\n    message.forward(\"{local}@example.net\");\n}}\n")
}

#[test]
fn decisions_and_deliveries_are_printed_as_they_happen() {
    let dev = Dev::start("never");
    dev.send("printer");
    dev.shows(0, &["received", "ann@example.org → support@example.com", "\"printer\""]);
    dev.shows(0, &["decided", "worker rules/main.rhai", "rules/main.rhai:2:13"]);
    dev.shows(0, &["accepted", "250"]);
    let caught = dev.shows(0, &["captured", "mail <ann@example.org> → old@example.net"]);
    let file = caught.split_whitespace().last().unwrap();
    let kept = std::fs::read_to_string(Path::new(file)).unwrap();
    assert!(kept.contains("Subject: printer") && kept.ends_with("It burns.\r\n"), "{kept}");
    assert!(dev.screen.all().iter().all(|line| !line.contains('\u{1b}')), "no colour where none is asked for");
}

#[test]
fn colour_comes_when_it_is_asked_for() {
    let dev = Dev::start("always");
    dev.send("printer");
    let decided = dev.shows(0, &["decided"]);
    assert!(decided.contains("\u{1b}["), "{decided:?}");
}

#[test]
fn changed_rules_are_taken_and_broken_ones_are_shown_while_the_old_decide() {
    let dev = Dev::start("never");
    let mark = dev.screen.mark();
    dev.write_rules(&forwards_to("new"));
    dev.shows(mark, &["reloaded"]);
    dev.send("taken");
    dev.shows(mark, &["captured", "new@example.net"]);

    let mark = dev.screen.mark();
    dev.write_rules("fn email(message, env, ctx) {\n    message.foward(\"a@example.net\");\n}\n");
    dev.shows(mark, &["reload failed"]);
    dev.shows(mark, &["did you mean forward?"]);
    dev.shows(mark, &["rules/main.rhai:2:13"]);
    dev.send("kept");
    dev.shows(mark, &["captured", "new@example.net"]);

    let mark = dev.screen.mark();
    let config = dev.dir.path().join("mailworker.toml");
    let old = std::fs::read_to_string(&config).unwrap();
    write_file(&config, format!("no_such_key = 1\n{old}").as_bytes());
    dev.shows(mark, &["reload failed"]);
    dev.shows(mark, &["no_such_key"]);
}

/// Nothing leaves the machine, so nothing that only the service has is needed.
#[test]
fn a_servers_own_configuration_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let text = "data_dir = \"/var/lib/mailworker\"\n[[listener]]\naddress = \"fd:smtp\"\ntls = \"required\"\n\
                [tls]\ncertificate = \"/nowhere/chain.pem\"\nkey = { credential = \"tls-key\" }\n\
                [[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\n\
                [[webhook]]\nbinding = \"HOOK\"\nurl = \"https://hooks.example.net/in\"\nsecret = { env = \"NOT_SET_HERE\" }\n\
                [relay]\nsmarthost = \"smtps://me@relay.example.net\"\npassword = { credential = \"relay\" }\n";
    write_file(&dir.path().join("mailworker.toml"), text.as_bytes());
    write_file(&dir.path().join("rules/main.rhai"), b"fn email(message, env, ctx) { ctx.webhook(\"HOOK\", #{}); }");
    let dev = Dev::run(dir, "never");
    dev.shows(0, &["[tls] is left out"]);
    dev.shows(0, &["no variable NOT_SET_HERE"]);
    dev.send("printer");
    dev.shows(0, &["captured", "https://hooks.example.net/in"]);
}
