//! `explain ADDRESS` answers as the server would, and does nothing.

use crate::harness::{Setup, SmtpSink, mail};

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
