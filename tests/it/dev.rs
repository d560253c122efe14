//! `dev` on rules of one's own: what happens is printed as it happens, changes are taken, an error keeps the old rules.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::harness::lines::Lines;
use crate::harness::server::PROGRAM;
use crate::harness::setup::write_file;
use crate::harness::{Client, Setup, mail};

/// A running `mailworker dev`; its drop ends it.
struct Dev {
    dir: tempfile::TempDir,
    screen: Lines,
    smtp: SocketAddr,
    http: SocketAddr,
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
        command
            .args(["dev", "--smtp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--color", color])
            .current_dir(dir.path())
            .stdin(Stdio::null());
        // What it keeps goes with the test, however it ends.
        command.env("TMPDIR", dir.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let screen = Lines::default();
        screen.collect(child.stdout.take().unwrap());
        screen.collect(child.stderr.take().unwrap());
        let address = |protocol: &str| {
            screen.find("the address", 0, |line| {
                line.split_whitespace().skip_while(|word| *word != protocol).nth(1)?.parse::<SocketAddr>().ok()
            })
        };
        // A coloured line ends its address with what ends the colour.
        let (smtp, http) = (address("smtp"), address("http"));
        screen.find("that it is ready", 0, |line| line.contains("Ctrl-C").then_some(()));
        Self { dir, screen, smtp, http, child }
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

const LOCAL: &str = r#"
fn email(message, env, ctx) {
    switch message.to.local {
        "no" => message.set_reject("Not wanted"),
        "broken" => throw "thrown",
        "later" => message.defer("Come back"),
        "kept" => message.store(),
        _ => {
            message.forward("team@example.net", #{ "X-Team": "sales" });
            message.forward(["a@example.net", "b@example.net"]);
        },
    }
}
"#;

impl Dev {
    /// One request, its status and its body.
    fn request(&self, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(self.http).unwrap();
        let request = format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(request.as_bytes()).unwrap();
        // A refusal may come before all of it is read.
        let _unread = stream.write_all(body);
        let answer = std::io::read_to_string(stream).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn post(&self, query: &str, body: &[u8]) -> (u16, String) {
        self.request(&format!("POST /cdn-cgi/local/email?{query} HTTP/1.1\r\nHost: localhost:8787"), body)
    }

    fn json(&self, to: &str) -> (u16, serde_json::Value) {
        let query = format!("format=json&from=ann@example.org&to={to}@example.com");
        let (status, body) =
            self.post(&query, b"From: ann@example.org\nMessage-ID: <1@example.org>\nSubject: hi\n\nx\n");
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[test]
fn mail_that_is_posted_is_decided_kept_and_sent_as_any_other() {
    let dev = Dev::start("never");
    let mark = dev.screen.mark();
    dev.write_rules(LOCAL);
    dev.shows(mark, &["reloaded"]);
    let (status, told) = dev.json("sales");
    assert_eq!((status, &told["outcome"], &told["rejectReason"]), (200, &"ok".into(), &().into()), "{told}");
    let to: Vec<_> =
        told["forwards"].as_array().unwrap().iter().map(|one| one["recipient"].as_str().unwrap()).collect();
    assert_eq!(to, ["team@example.net", "a@example.net", "b@example.net"]);
    assert_eq!(told["forwards"][0]["headers"], serde_json::json!([["X-Team", "sales"]]));
    let kinds: Vec<_> = told["events"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["received", "forward", "forward", "forward"]);
    assert_eq!(told["events"][1]["messageId"], told["forwards"][0]["messageId"]);
    let caught = dev.shows(mark, &["captured", "mail <ann@example.org> → team@example.net"]);
    let kept = std::fs::read_to_string(Path::new(caught.split_whitespace().last().unwrap())).unwrap();
    assert!(kept.contains("X-Team: sales\r\n") && kept.ends_with("Subject: hi\r\n\r\nx\r\n"), "{kept}");

    let (status, told) = dev.json("no");
    assert_eq!(
        (status, &told["rejectReason"], &told["events"][1]["type"]),
        (200, &"Not wanted".into(), &"reject".into())
    );
    assert_eq!(told["forwards"], serde_json::json!([]));
    let (status, told) = dev.json("broken");
    assert_eq!((status, &told["outcome"]), (500, &"exception".into()), "{told}");
    assert_eq!(told["error"], "rules/main.rhai:5:21: thrown");
    let (status, told) = dev.json("kept");
    assert_eq!((status, &told["forwards"]), (200, &serde_json::json!([])), "{told}");
    assert_eq!(dev.json("later").0, 500);
}

/// `message.reply` in the words of the simulator: who it is from, and all of it.
#[test]
fn an_answer_to_mail_that_is_posted_is_among_its_replies() {
    let rules = r#"
fn email(message, env, ctx) {
    message.reply(#{ text: "We are on it." });
    message.store();
}
"#;
    let setup = Setup::new().rules(rules);
    setup.write();
    let dev = Dev::run(setup.dir, "never");
    let (status, told) = dev.json("support");
    assert_eq!((status, &told["outcome"], &told["forwards"]), (200, &"ok".into(), &serde_json::json!([])), "{told}");
    let [reply] = told["replies"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(reply["sender"], "support@example.com", "{told}");
    let raw = reply["raw"].as_str().unwrap();
    for part in
        ["In-Reply-To: <1@example.org>\r\n", "Subject: Re: hi\r\n", "To: <ann@example.org>\r\n", "We are on it."]
    {
        assert!(raw.contains(part), "{part}: {raw}");
    }
    let kinds: Vec<_> = told["events"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["received", "reply"]);
    assert_eq!(told["events"][1]["messageId"], reply["messageId"]);
    dev.shows(0, &["captured", "→ ann@example.org"]);
    // Another one within the week is none.
    assert_eq!(dev.json("support").1["replies"], serde_json::json!([]));
}

/// Who isn't who From says gets none.
#[test]
fn mail_that_is_posted_has_proved_what_the_request_says() {
    let setup = Setup::new().rules("fn email(message, env, ctx) { message.set_reject(message.auth.dmarc.result); }\n");
    setup.write();
    let dev = Dev::run(setup.dir, "never");
    assert_eq!(dev.json("support").1["rejectReason"], "pass");
    assert_eq!(dev.json("support@example.com&dmarc=fail&x=").1["rejectReason"], "fail");
    assert_eq!(dev.post("dmarc=yes&from=a@example.org&to=b@example.com", b"Message-ID: <1@x>\n\n").0, 400);
}

/// Status and text of the simulator.
#[test]
fn posts_are_answered_as_scripts_for_the_simulator_expect() {
    let dev = Dev::start("never");
    let mark = dev.screen.mark();
    dev.write_rules(LOCAL);
    dev.shows(mark, &["reloaded"]);
    let query = |to: &str| format!("from=ann@example.org&to={to}@example.com");
    let message = mail("posted", "x");
    assert_eq!(dev.post(&query("sales"), &message), (200, "Worker successfully processed email".to_owned()));
    let old = "POST /cdn-cgi/handler/email?from=ann@example.org&to=sales@example.com HTTP/1.1\r\nHost: 127.0.0.1";
    assert_eq!(dev.request(old, &message).0, 200);
    let rejected = "Worker rejected email with the following reason: Not wanted";
    assert_eq!(dev.post(&query("no"), &message), (400, rejected.to_owned()));
    let (status, text) = dev.post(&query("broken"), &message);
    assert!(status == 500 && text.contains("thrown"), "{status} {text}");
    for (query, body) in
        [("from=ann@example.org", &message[..]), ("to=a@example.com", &message), (&query("sales"), b"")]
    {
        let (status, text) = dev.post(query, body);
        assert!(status == 400 && text.starts_with("Invalid email. Your request must include"), "{query}: {text}");
    }
    let (status, text) = dev.post(&query("sales"), b"Subject: no id\r\n\r\nx\r\n");
    assert!(status == 400 && text.contains("no message id"), "{text}");
    assert_eq!(dev.post("from=ann@example.org&to=nowhere", &message).0, 400);
    let (status, text) = dev.post("from=ann@example.org&to=a@elsewhere.example", &message);
    assert!(status == 400 && text.contains("none of our domains"), "{text}");
    let (status, text) = dev.request("GET /cdn-cgi/handler/nothing HTTP/1.1\r\nHost: localhost", b"");
    assert!(status == 404 && text.contains("Did you mean"), "{text}");
    assert_eq!(dev.request("GET /cdn-cgi/local/email HTTP/1.1\r\nHost: localhost", b"").0, 405);
}

/// Paths, parameters and answers of the simulator.
#[test]
fn scheduled_runs_when_it_is_asked_for() {
    let dev = Dev::start("never");
    let mark = dev.screen.mark();
    dev.write_rules(
        r#"
fn scheduled(event, env, ctx) {
    if event.cron == "bad" { throw "out of paper"; }
    print(`cron ${event.cron} at ${event.scheduled_time}`);
    ctx.webhook("https://hooks.example.net/ran", event);
}
"#,
    );
    dev.shows(mark, &["reloaded"]);
    let get = |path: &str| dev.request(&format!("GET {path} HTTP/1.1\r\nHost: localhost:8787"), b"");
    assert_eq!(get("/cdn-cgi/handler/scheduled?cron=*+*+*+*+*&time=1745856238000"), (200, "ok".to_owned()));
    dev.shows(mark, &["cron * * * * * at 1745856238000"]);
    dev.shows(mark, &["captured", "https://hooks.example.net/ran"]);
    assert_eq!(get("/__scheduled?cron=0+9+*+*+MON"), (200, "Ran scheduled event".to_owned()));
    dev.shows(mark, &["cron 0 9 * * MON at "]);
    assert_eq!(get("/cdn-cgi/mf/scheduled").0, 200);
    let (status, told) = get("/cdn-cgi/handler/scheduled?format=json");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((status, told), (200, serde_json::json!({ "outcome": "ok", "noRetry": false })));
    let (status, told) = get("/cdn-cgi/handler/scheduled?cron=bad&format=json");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((status, &told["outcome"]), (500, &"exception".into()), "{told}");
    assert!(told["error"].as_str().unwrap().ends_with("out of paper"), "{told}");
    let (status, told) = get("/__scheduled?cron=bad");
    assert!(status == 500 && told.contains("out of paper"), "{told}");
    // A line end in it would be a field of the run's message.
    assert_eq!(get("/__scheduled?cron=a%0D%0AX:+y").0, 400);
    assert_eq!(get("/__scheduled?time=soon").0, 400);
    let picture = "GET /__scheduled HTTP/1.1\r\nHost: localhost:8787\r\nSec-Fetch-Site: cross-site";
    assert_eq!(dev.request(picture, b"").0, 403);
    let mark = dev.screen.mark();
    dev.write_rules("fn email(message, env, ctx) { message.drop(); }");
    dev.shows(mark, &["reloaded"]);
    let (status, told) = get("/cdn-cgi/handler/scheduled");
    assert!(status == 500 && told.contains("has no handler `scheduled`"), "{told}");
}

#[test]
fn nobody_is_led_to_the_port_by_another_name_nor_fills_it() {
    let dev = Dev::start("never");
    let path = "POST /cdn-cgi/local/email?from=ann@example.org&to=support@example.com HTTP/1.1";
    for head in [
        "Host: evil.example",
        "Host: localhost.evil.example:8787",
        "Host: localhost\r\nOrigin: http://evil.example",
        "X: y",
    ] {
        let (status, text) = dev.request(&format!("{path}\r\n{head}"), &mail("forged", "x"));
        assert_eq!(status, 403, "{head}: {text}");
    }
    let origin = format!("{path}\r\nHost: localhost\r\nOrigin: http://localhost:3000");
    assert_eq!(dev.request(&origin, &mail("from here", "x")).0, 200);
    let mut large = mail("large", "x");
    large.resize((25 << 20) + 100, b'x');
    let (status, text) = dev.post("from=ann@example.org&to=support@example.com", &large);
    assert!(status == 400 && text.contains("larger than"), "{status} {text}");
    large.resize(26 << 20, b'x');
    assert_eq!(dev.post("from=ann@example.org&to=support@example.com", &large).0, 413);
    let refused = std::process::Command::new(PROGRAM).args(["dev", "--http", "0.0.0.0:8787"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// As production would: `[budget]` and `[limits]`, by SMTP and by the local port.
#[test]
fn the_limits_of_production_hold_here_too() {
    let rules = r"
fn email(message, env, ctx) {
    for n in 0..parse_int(message.subject) { message.forward(`team-${n}@example.net`); }
}
";
    let setup = Setup::new().toml("[budget]\nactions = 2\n[limits]\nmessage_size = \"100 KiB\"").rules(rules);
    setup.write();
    let dev = Dev::run(setup.dir, "never");
    let send = |message: &[u8]| Client::greeted(dev.smtp).send("ann@example.org", &["support@example.com"], message);
    let query = "format=json&from=ann@example.org&to=support@example.com";
    let post = |message: &[u8]| {
        let (status, body) = dev.post(query, message);
        (status, serde_json::from_str::<serde_json::Value>(&body).unwrap_or_else(|_| body.into()))
    };
    let why = "rules/main.rhai:3:54: more than 2 actions in one run";
    send(&mail("2", "x")).expect(250);
    dev.shows(0, &["captured", "team-1@example.net"]);
    let mark = dev.screen.mark();
    send(&mail("3", "x")).expect_status(451, "4.3.0");
    dev.shows(mark, &[why]);
    let (status, told) = post(&mail("2", "posted"));
    assert_eq!((status, told["forwards"].as_array().map(Vec::len)), (200, Some(2)), "{told}");
    let (status, told) = post(&mail("3", "posted"));
    assert!(status == 500 && told["error"].as_str().unwrap().starts_with(why), "{told}");
    assert_eq!(told["forwards"], serde_json::json!([]));

    // To the octet.
    let sized = |octets: usize, filler: u8| {
        let mut message = mail("1", "");
        while octets - message.len() > 500 {
            message.extend_from_slice(&[vec![filler; 400], b"\r\n".to_vec()].concat());
        }
        message.resize(octets - 2, filler);
        [message, b"\r\n".to_vec()].concat()
    };
    let most = 100 << 10;
    send(&sized(most, b'x')).expect(250);
    send(&sized(most + 1, b'x')).expect_status(552, "5.3.4");
    let mut client = Client::greeted(dev.smtp);
    client.command(&format!("MAIL FROM:<ann@example.org> SIZE={}", most + 1)).expect_status(552, "5.3.4");
    let (status, told) = post(&sized(most, b'y'));
    assert_eq!((status, told["forwards"].as_array().map(Vec::len)), (200, Some(1)), "{told}");
    let (status, text) = dev.post("from=ann@example.org&to=support@example.com", &sized(most + 1, b'y'));
    assert!(status == 400 && text.contains("larger than 102400 octets"), "{status} {text}");
}
