//! The executable under test: started, spoken to, killed, started again.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::lines::{self, Lines};
use super::{Certificate, Client, DEADLINE, Dns, http};

/// The executable.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_mailworker");

/// A running server. Its drop stops it, and fails the test that left deliveries unsettled.
pub struct Server {
    pub dir: TempDir,
    pub dns: Dns,
    /// In the configuration's order.
    pub listeners: Vec<SocketAddr>,
    pub http: SocketAddr,
    pub log: Lines,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    may_leave_queue: bool,
}

impl Server {
    #[track_caller]
    pub fn start(dir: TempDir, dns: Dns, environment: Vec<(String, String)>) -> Self {
        let nowhere = ([0, 0, 0, 0], 0).into();
        let mut server = Self {
            dir,
            dns,
            listeners: Vec::new(),
            http: nowhere,
            log: Lines::default(),
            environment,
            child: None,
            may_leave_queue: false,
        };
        server.run();
        server
    }

    /// Starts it (again), and waits until it listens.
    #[track_caller]
    pub fn run(&mut self) {
        self.run_with(&[]);
    }

    /// The same with these arguments beside its own.
    #[track_caller]
    pub fn run_with(&mut self, arguments: &[&str]) {
        self.log = self.log.following();
        let mut command = self.command(&[&["serve", "--json"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.log.collect(child.stdout.take().unwrap());
        self.log.collect(child.stderr.take().unwrap());
        self.child = Some(child);
        self.listeners.clear();
        let mut http = None;
        self.log.find("started", 0, |line| {
            let event = lines::event(line)?;
            if event["event"] == "listening" {
                let address = event["address"].as_str()?.parse().ok()?;
                if event["protocol"] == "http" { http = Some(address) } else { self.listeners.push(address) }
            }
            (event["event"] == "started").then_some(())
        });
        self.http = http.unwrap_or(self.http);
    }

    /// The program with `--config` and this server's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(self.dir.path().join("mailworker.toml"));
        command.current_dir(self.dir.path()).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The same with something to read; it may end before it has read all of it.
    pub fn read_by(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let _unread = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// What a command that must succeed prints of what it reads.
    #[track_caller]
    pub fn fed(&self, arguments: &[&str], input: &str) -> String {
        let output = self.read_by(arguments, input);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that must succeed prints.
    #[track_caller]
    pub fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// What a command with `--json` prints, one value or several lines of them.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let printed = self.stdout(&[arguments, &["--json"]].concat());
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&printed).into_iter().collect();
        let values = values.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed}"));
        match values.as_slice() {
            [Value::Array(list)] => list.clone(),
            _ => values,
        }
    }

    /// The first listener's address.
    pub fn smtp(&self) -> SocketAddr {
        self.listeners[0]
    }

    /// A session with the first listener, past EHLO.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::greeted(self.smtp())
    }

    /// One message in a session of its own; what its end was answered.
    #[track_caller]
    pub fn send(&self, from: &str, to: &[&str], message: &[u8]) -> super::Reply {
        let mut client = self.client();
        let reply = client.send(from, to, message);
        client.command("QUIT").expect(221);
        reply
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.http, path)
    }

    /// A metric's value: `metric("mailworker_messages_total", &["outcome=\"accepted\""])`, all that match added up.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let named = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = text.lines().filter(named).filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits for an event after `mark` in the log.
    #[track_caller]
    pub fn wait_event(&self, mark: usize, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.log.find(name, mark, |line| lines::event(line).filter(|event| event["event"] == name && holds(event)))
    }

    /// The ids of all messages, newest first.
    #[track_caller]
    pub fn messages(&self) -> Vec<Value> {
        self.json(&["messages", "list"])
    }

    /// The newest message in full.
    #[track_caller]
    pub fn newest(&self) -> Value {
        let list = self.messages();
        let id = list.first().and_then(|message| message["id"].as_str()).expect("no message").to_owned();
        self.json(&["messages", "show", &id]).remove(0)
    }

    /// The newest message once nothing of it is queued any more.
    #[track_caller]
    pub fn newest_settled(&self) -> Value {
        self.wait_until("the newest message is settled", || {
            let newest = self.newest();
            (newest["queued"] == 0).then_some(newest)
        })
    }

    #[track_caller]
    pub fn queue(&self) -> Vec<Value> {
        self.json(&["queue", "list"])
    }

    /// Waits until no delivery is queued but the dead.
    #[track_caller]
    pub fn settled(&self) {
        self.wait_until("nothing is queued", || {
            let queue = self.queue();
            queue.iter().all(|entry| entry["dead"] == true).then_some(())
        });
    }

    /// Asks again whenever the log has grown.
    #[track_caller]
    pub fn wait_until<R>(&self, what: &str, mut ask: impl FnMut() -> Option<R>) -> R {
        let end = Instant::now() + DEADLINE;
        loop {
            let mark = self.log.mark();
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(Instant::now() < end, "never came: {what}\n{}", self.log.all().join("\n"));
            self.log.more(mark);
        }
    }

    /// This test ends with deliveries queued, on purpose.
    pub fn leaves_queue(&mut self) {
        self.may_leave_queue = true;
    }

    /// Writes a file that a running server takes up.
    #[track_caller]
    pub fn takes_up(&self, path: &str, text: &str) {
        let mark = self.log.mark();
        self.write(path, text);
        self.wait_event(mark, "reloaded", |_| true);
    }

    pub fn write(&self, path: &str, text: &str) {
        super::setup::write_file(&self.dir.path().join(path), text.as_bytes());
    }

    pub fn write_certificate(&self, certificate: &Certificate) {
        certificate.write(self.dir.path());
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// SIGKILL, in the middle of whatever it does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM alone.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let Some(child) = &self.child else { return };
        let kill = format!("kill -{name} {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// SIGTERM, and how it ended.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// Waits for the process's end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                let _ = child.kill();
                panic!("it doesn't stop:\n{}", self.log.all().join("\n"));
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the server's log\n{}\n----", self.log.all().join("\n"));
        } else if self.child.is_some() && !self.may_leave_queue {
            self.settled();
        }
        self.kill();
    }
}
