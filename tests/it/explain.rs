//! `explain` answers as the server would, and does nothing; line by line, and step by step where it is asked to.

use crate::harness::{Server, Setup, SmtpSink, mail};

const WORKER: &str = r#"
fn rcpt_to(session, rcpt, env) {
    switch rcpt.local {
        "nobody" => session.reject(550, "5.1.1", "No such mailbox"),
        "old" => session.redirect("new@example.com"),
        "broken" => { throw "no such thing" }
        _ => (),
    }
}
fn email(message, env, ctx) {
    let seen = env.SEEN.increment("count");
    if message.from.ends_with("@spam.example") { message.set_reject("No, thank you"); return; }
    message.forward("team@example.net");
    ctx.webhook("TICKETS", #{ subject: message.subject });
}
"#;

const SETTINGS: &str = r#"
[[route]]
match = "billing@example.com"
action = "reject"
text = "Bills by post"

[[kv_namespaces]]
binding = "SEEN"

[[webhook]]
binding = "TICKETS"
url = "http://127.0.0.1:9/hook/key-in-the-path"
"#;

fn setup(sink: &SmtpSink) -> Setup {
    Setup::relaying_to(sink).rules(WORKER).toml(SETTINGS)
}

#[test]
fn it_answers_as_the_server_does_and_does_nothing() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    let asked =
        ["support", "nobody", "billing", "postmaster", "old", "broken"].map(|local| format!("{local}@example.com"));
    for address in asked.iter().map(String::as_str).chain(["user@elsewhere.example", "a%b@example.com"]) {
        let foreseen = server.json(&["explain", address]).remove(0);
        let mut client = server.client();
        client.command("MAIL FROM:<someone@example.org>").expect(250);
        let reply = client.command(&format!("RCPT TO:<{address}>"));
        assert_eq!(foreseen["rcpt"]["code"], reply.code, "{address}: {foreseen}");
        let text = foreseen["rcpt"]["text"].as_str().unwrap();
        assert!(reply.code == 250 || reply.text().contains(text), "{address}: {text:?}, {reply:?}");
        client.command("QUIT").expect(221);
    }
    assert_eq!(server.messages().len(), 0);
    assert_eq!(server.queue().len(), 0);
    assert_eq!(server.json(&["kv", "list", "SEEN"]).len(), 0);
    assert_eq!(sink.mails().len(), 0);
}

#[test]
fn it_tells_the_line_that_decides_and_the_next_hop() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    let told = server.stdout(&["explain", "support@example.com"]);
    for words in
        ["rules/main.rhai:13:13", "forward to team@example.net", "webhook to TICKETS", "increment SEEN \"count\" by 1"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(told.contains(&format!("relay to team@example.net by {}", sink.url())), "{told}");
    assert!(!told.contains("key-in-the-path"), "{told}");

    let redirected = server.json(&["explain", "old@example.com"]).remove(0);
    assert_eq!(redirected["redirected"], "new@example.com");
    let broken = server.stdout(&["explain", "broken@example.com"]);
    assert!(broken.contains("451 4.3.0") && broken.contains("rules/main.rhai:6:"), "{broken}");

    server.write("spam.eml", &String::from_utf8(mail("offer", "cheap")).unwrap());
    let refused =
        server.stdout(&["explain", "support@example.com", "--from", "a@spam.example", "--message", "spam.eml"]);
    assert!(refused.contains("550 5.7.1 No, thank you") && !refused.contains("made up"), "{refused}");
}

#[test]
fn it_needs_neither_a_store_nor_a_secret_and_makes_none() {
    let sink = SmtpSink::start();
    let setup = setup(&sink).toml("[webhook_defaults]\nsecret = { env = \"NOT_SET_HERE\" }");
    let config = setup.write();
    let output = std::process::Command::new(crate::harness::server::PROGRAM)
        .args(["explain", "support@example.com", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!setup.dir.path().join("data").exists());
}

const LINES: &str = r#"import "lib/spam" as spam;

fn email(message, env, ctx) {
    let seen = env.SEEN.get("who") ?? "nobody";
    let count = 0;
    for word in ["a", "b", "c"] {
        count += word.len();
    }
    if spam::is_spam(message.subject) {
        message.set_reject("No");
        return;
    }
    message.forward("team@example.net");
}
"#;
const SPAM: &str = r#"fn is_spam(subject) {
    let subject = subject.to_lower();
    subject.contains("winner")
}
"#;

/// A server on these; its next hop is `sink`.
fn lines(sink: &SmtpSink) -> Server {
    setup(sink).rules(LINES).file("rules/lib/spam.rhai", SPAM).start()
}

#[test]
fn each_line_that_is_reached_is_shown_and_what_it_asks_of_the_keys() {
    let sink = SmtpSink::start();
    let server = lines(&sink);
    server.stdout(&["kv", "put", "SEEN", "who", "Ann"]);
    let told = server.stdout(&["explain", "support+x@example.com"]);
    for words in [
        "why       [[domain]] example.com, \"x\" of support@: the worker rules/main.rhai, it has no rcpt_to",
        "ran       rules/main.rhai\n     1  import \"lib/spam\" as spam;\n     3  fn email(message, env, ctx) {\n",
        "     4  let seen = env.SEEN.get(\"who\") ?? \"nobody\";\n        · get SEEN \"who\" → \"Ann\", in ",
        "     7  count += word.len();  ×3\n",
        "ran       rules/lib/spam.rhai\n",
        "     3  subject.contains(\"winner\")\n",
        "    13  message.forward(\"team@example.net\");\n",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("    10  "), "not reached: {told}");
    let told = server.json(&["explain", "support@example.com"]).remove(0);
    let reached: Vec<_> = told["lines"].as_array().unwrap().iter().map(|line| &line["line"]).collect();
    assert!(reached.contains(&&13.into()) && !reached.contains(&&10.into()), "{told}");
    for (address, why) in [
        ("billing@example.com", "[[domain]] example.com, route 1 (billing@example.com): a route refuses it"),
        ("postmaster@example.com", "[[domain]] example.com: its postmaster, admin@example.net"),
        ("a@elsewhere.example", "no [[domain]] takes elsewhere.example"),
        ("a%b@example.com", "another address is hidden"),
    ] {
        let told = server.stdout(&["explain", address]);
        assert!(told.contains(why), "{address}: {told}");
    }
}

#[test]
fn a_message_is_explained_as_it_was_and_as_it_would_be() {
    let sink = SmtpSink::start();
    let server = lines(&sink);
    server
        .send("ann@example.org", &["support@example.com", "postmaster@example.com"], &mail("winner", "x"))
        .expect(250);
    server.settled();
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    server.takes_up("rules/lib/spam.rhai", "fn is_spam(subject) {\n    subject == \"loser\"\n}\n");
    let told = server.stdout(&["explain", &id]);
    for words in [
        "decided   reject for support@example.com by worker rules/main.rhai at rules/main.rhai:10:17",
        "now, by the rules as they are",
        "support@example.com  reject → accept\n",
        "postmaster@example.com  as it was\n",
        "decided   accept for support@example.com by worker rules/main.rhai at rules/main.rhai:13:13",
        "     2  subject == \"loser\"\n",
        "queues    relay to team@example.net",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = server.json(&["explain", &id]).remove(0);
    assert_eq!(
        (&told["now"][0]["change"], &told["now"][1]["change"]),
        (&"reject → accept".into(), &().into()),
        "{told}"
    );
    assert_eq!(told["message"]["id"], id.as_str());
    assert_eq!(sink.mails().len(), 1, "nothing is sent");
    let refused = server.cli(&["explain", &id, "--from", "a@example.org"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let unknown = server.cli(&["explain", "01JD2V6QZ8Y3N4K5M6P7R8S9T0"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

/// What `explain` prints when its standard input says this.
fn stepped(server: &Server, arguments: &[&str], input: &str) -> String {
    server.fed(&[&["explain", "support@example.com"], arguments].concat(), input)
}

#[test]
fn a_run_stops_at_lines_and_goes_on_as_it_is_told() {
    let sink = SmtpSink::start();
    let server = lines(&sink);
    let told =
        stepped(&server, &["--break", "spam.rhai:3"], "where\nprint subject + \"!\"\nvars\nout\nprint count\nquit\n");
    let expected = "rules/lib/spam.rhai:3  subject.contains(\"winner\")\n\
                    rules/lib/spam.rhai:3  subject.contains(\"winner\")\n  in is_spam, called at rules/main.rhai:9:14\n\
                    \"hello!\"\nsubject = \"hello\"\n";
    assert!(told.starts_with(expected), "{told}");
    assert!(told.contains("\n3\n") && told.contains("ended by the debugger"), "{told}");
    assert!(!told.contains("forward to team@example.net"), "{told}");

    let input = "break 6\ncontinue\nnext\nnext\nprint no_such\nprint message.subject\nprint env.SEEN\ndelete 6\n\
                 break main.rhai:13\ncontinue\nnonsense\ncontinue\n";
    let told = stepped(&server, &["--step"], input);
    for words in [
        "stops at rules/main.rhai:6\n",
        "rules/main.rhai:6  for word in",
        "rules/main.rhai:7  count += word.len();",
        "error: Undefined variable: no_such\n",
        "\"Hello\"\n",
        "a KV namespace\n",
        "rules/main.rhai:13  message.forward(",
        "step (s)",
        "forward to team@example.net (rules/main.rhai:13:13)",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    // Where the input ends, the run goes on to its end.
    assert!(stepped(&server, &["--step"], "").contains("queues    relay to team@example.net"));
    assert_eq!((server.messages().len(), sink.mails().len()), (0, 0));
    assert_eq!(server.cli(&["explain", "support@example.com", "--break", "x"]).status.code(), Some(2));
    let missed = server.cli(&["explain", "support@example.com", "--break", "spam.rhai:9999"]);
    let said = String::from_utf8_lossy(&missed.stderr);
    assert!(missed.status.success() && said.contains("it never came to spam.rhai:9999"), "{said}");
}

/// The files may be others by now, or none at all.
#[test]
fn the_lines_of_a_release_are_those_that_were_deployed() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let deploy = |local: &str, arguments: &[&str]| {
        let worker = format!(
            "import \"lib/to\" as to;\nfn email(message, env, ctx) {{\n    message.forward(to::address()); // {local}\n}}"
        );
        server.write("rules/main.rhai", &worker);
        server.write("rules/lib/to.rhai", &format!("fn address() {{\n    \"{local}@example.net\"\n}}"));
        server.stdout(&[&["deploy"], arguments].concat());
    };
    deploy("old", &[]);
    deploy("new", &["--recipients", "beta@*"]);
    server.write("rules/main.rhai", "// edited\n\n\n\n");
    server.write("rules/lib/to.rhai", "// edited\n\n\n\n");
    let told = server.stdout(&["explain", "support@example.com"]);
    for line in
        ["     3  message.forward(to::address()); // old", "     2  \"old@example.net\"", "ran       rules/main.rhai\n"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    // One on trial is told apart.
    let told = server.stdout(&["explain", "beta@example.com"]);
    for line in ["     3  message.forward(to::address()); // new", "rules/main.rhai (release 2, on trial)"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    server.send("ann@example.org", &["beta@example.com"], &mail("x", "x")).expect(250);
    server.settled();
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    assert!(server.stdout(&["explain", &id]).contains("     2  \"new@example.net\""));
    let stepped = server.stdout(&["explain", "support@example.com", "--break", "rules/lib/to.rhai:2"]);
    assert!(stepped.contains("rules/lib/to.rhai:2  \"old@example.net\""), "{stepped}");
}
