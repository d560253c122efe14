//! Handlers before there is a recipient: `connect`, `helo`, `mail_from`; what they note, refuse, and what their faults are.

use crate::harness::{Client, Server, Setup, SmtpSink, mail};

const KV: &str = "[[kv_namespaces]]\nbinding = \"STATE\"";

fn connected(server: &Server) -> Client {
    Client::connect(server.smtp()).unwrap()
}

#[test]
fn a_client_is_refused_put_off_or_failed_in_place_of_the_greeting() {
    let rules = r#"
fn connect(session, env) {
    switch env.STATE.get("mode") {
        "reject" => session.reject("We don't talk to you"),
        "defer" => session.defer("Come back"),
        "throw" => { throw "oh"; }
        "endless" => { loop { } }
        _ => (),
    }
}
fn email(message, env, ctx) { message.drop(); }
"#;
    let server = Setup::new().toml(KV).rules(rules).start();
    for (mode, code) in [("reject", 554), ("defer", 421), ("throw", 421), ("endless", 421)] {
        server.stdout(&["kv", "put", "STATE", "mode", mode]);
        let mark = server.log.mark();
        let mut client = connected(&server);
        client.reply().expect(code);
        assert!(client.closed(), "{mode}");
        let refused = server.wait_event(mark, "refused", |event| event["phase"] == "connect");
        assert_eq!((&refused["reply"]["code"], &refused["sender"]), (&code.into(), &serde_json::Value::Null));
    }
    let failed = server.log.all().into_iter().filter(|line| line.contains("\"script_failed\"")).count();
    assert_eq!(failed, 2, "a script's failure is told with its line");
    server.stdout(&["kv", "put", "STATE", "mode", "welcome"]);
    server.send("ann@example.org", &["support@example.com"], &mail("in", "x")).expect(250);
}

/// RFC 1870 §6: what SIZE says holds for the session that it was said to.
#[test]
fn a_session_does_no_more_than_connect_lets_it() {
    let rules = r#"
fn connect(session, env) {
    if env.STATE.get("mode") == "narrow" { session.set_limits(#{ recipients: 1, message_size: 2000, errors: 2 }); }
    if env.STATE.get("mode") == "wide" { session.set_limits(#{ recipients: 100000, message_size: 100000000000 }); }
}
fn email(message, env, ctx) { message.drop(); }
"#;
    let server = Setup::new().toml(KV).rules(rules).start();
    let set = |mode: &str| server.stdout(&["kv", "put", "STATE", "mode", mode]);
    let large = [mail("large", "x"), b"0123456789\r\n".repeat(200)].concat();
    for mode in ["none", "wide"] {
        set(mode);
        let mut client = server.client();
        assert!(client.command("EHLO client.example").text().contains("SIZE 26214400"), "{mode}");
        client.send("ann@example.org", &["a@example.com", "b@example.com"], &large).expect(250);
    }
    set("narrow");
    let mut client = server.client();
    assert!(client.command("EHLO client.example").text().contains("SIZE 2000"));
    client.command("MAIL FROM:<ann@example.org> SIZE=2001").expect(552);
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    client.command("RCPT TO:<a@example.com>").expect(250);
    client.command("RCPT TO:<b@example.com>").expect(452);
    client.command("RSET").expect(250);
    client.send("ann@example.org", &["a@example.com"], &mail("small", "x")).expect(250);
    client.send("ann@example.org", &["a@example.com"], &large).expect(552);
    let mut client = server.client();
    for _ in 0..2 {
        client.command("NONSENSE").expect(500);
    }
    client.command("NONSENSE").expect(421);
    assert!(client.closed());
    let told = server.fed(&["session"], "QUIT\r\n");
    assert!(
        told.contains("connect has nothing against it, within limits: recipients 1, message_size 2000, errors 2"),
        "{told}"
    );
}

/// RFC 5321 §4.1.4: the session goes on as if the refused EHLO hadn't been said.
#[test]
fn a_refused_name_changes_nothing() {
    let sink = SmtpSink::start();
    let rules = r#"
fn helo(session, env) {
    if session.helo == "localhost" { session.reject("Nobody is called that"); }
    if session.helo == "later.example.org" { session.defer("Not now"); }
    if session.helo == "broken.example.org" { throw "oh"; }
    session.notes.name = session.helo;
}
fn email(message, env, ctx) {
    message.forward("team@example.net", #{ "X-Name": `${message.session.notes.name} ${message.session.helo}` });
}
"#;
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mut client = connected(&server);
    client.reply().expect(220);
    client.command("HELO localhost").expect_status(550, "5.7.1");
    client.command("MAIL FROM:<ann@example.org>").expect(503);
    client.command("EHLO later.example.org").expect_status(451, "4.7.1");
    client.command("EHLO broken.example.org").expect_status(451, "4.3.0");
    client.command("EHLO client.example.org").expect(250);
    client.command("EHLO localhost").expect(550);
    let message = mail("named", "x");
    client.send("ann@example.org", &["support@example.com"], &message).expect(250);
    let head = String::from_utf8_lossy(sink.wait_one().prepended_to(&message)).into_owned();
    assert!(head.contains("X-Name: client.example.org client.example.org\r\n"), "{head}");
    assert!(head.contains("from client.example.org") && !head.contains("localhost"), "{head}");
}

#[test]
fn a_sender_is_refused_put_off_or_let_in() {
    let rules = r#"
fn mail_from(session, sender, env) {
    switch sender.local {
        "spam" => session.reject(550, "5.1.8", `Not from ${session.sender}`),
        "early" => session.defer("Greylisted"),
        "broken" => { throw "oh"; }
        _ => (),
    }
}
fn email(message, env, ctx) { message.drop(); }
"#;
    let server = Setup::new().rules(rules).start();
    let mark = server.log.mark();
    let mut client = server.client();
    let reply = client.command("MAIL FROM:<spam@example.org>").expect_status(550, "5.1.8");
    assert!(reply.text().contains("Not from spam@example.org"), "{reply:?}");
    let refused = server.wait_event(mark, "refused", |event| event["phase"] == "mail");
    assert_eq!(refused["sender"], "spam@example.org");
    client.command("MAIL FROM:<early@example.org>").expect_status(451, "4.7.1");
    client.command("MAIL FROM:<broken@example.org>").expect_status(451, "4.3.0");
    let failed = server.wait_event(mark, "script_failed", |_| true);
    assert_eq!(failed["handler"], "mail_from", "{failed}");
    client.command("RCPT TO:<support@example.com>").expect(503);
    client.send("", &["support@example.com"], &mail("bounce", "x")).expect(250);
    client.send("ann@example.org", &["support@example.com"], &mail("good", "x")).expect(250);
}

/// `connect`'s notes are there for all the session, `helo`'s until the next one, a transaction's for it alone.
#[test]
fn notes_go_on_for_as_long_as_what_they_are_about() {
    let sink = SmtpSink::start();
    let rules = r#"
fn connect(session, env) { session.notes.way = "c"; }
fn helo(session, env) { session.notes.way += `-h:${session.helo}`; }
fn mail_from(session, sender, env) { session.notes.way += `-m:${sender.local}`; }
fn rcpt_to(session, rcpt, env) { session.notes.way += `-r:${rcpt.local}`; }
fn email(message, env, ctx) { message.forward("team@example.net", #{ "X-Way": message.session.notes.way }); }
"#;
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mut client = server.client();
    let mut sent = vec![mail("one", "x"), mail("two", "x")];
    for (from, message) in ["ann@example.org", "bob@example.org"].into_iter().zip(&sent) {
        client.send(from, &["support@example.com"], message).expect(250);
    }
    client.command("EHLO other.example.org").expect(250);
    client.command("MAIL FROM:<gone@example.org>").expect(250);
    client.command("RSET").expect(250);
    sent.push(mail("three", "x"));
    client.send("cid@example.org", &["sales@example.com"], &sent[2]).expect(250);
    server.settled();
    let ways = [
        "c-h:client.example.org-m:ann-r:support",
        "c-h:client.example.org-m:bob-r:support",
        "c-h:other.example.org-m:cid-r:sales",
    ];
    let mails = sink.mails();
    for (message, way) in sent.iter().zip(ways) {
        let mail = mails.iter().find(|mail| mail.data.ends_with(message)).expect("it was relayed");
        let head = String::from_utf8_lossy(mail.prepended_to(message)).into_owned();
        assert!(head.contains(&format!("X-Way: {way}\r\n")), "{head}");
    }
}

/// Before a recipient is known only the configuration's own worker is asked, and `check` says so.
#[test]
fn a_domains_worker_is_not_asked_before_its_recipient() {
    let own = "fn connect(session, env) { session.reject(\"no\"); }\nfn email(message, env, ctx) { message.drop(); }";
    let domain = "[[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\nmain = \"rules/own.rhai\"";
    let server = Setup::new().toml(domain).file("rules/own.rhai", own).start();
    let checked = server.cli(&["check"]);
    let printed = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(printed.contains("the handler connect is never called here"), "{printed}");
    server.send("ann@example.org", &["support@example.com"], &mail("in", "x")).expect(250);
}

#[test]
fn explain_asks_them_in_their_order() {
    let sink = SmtpSink::start();
    let rules = r#"
fn connect(session, env) {
    if session.ip == "192.0.2.1" { session.reject("Not you"); }
    session.notes.way = "connect";
}
fn helo(session, env) { if session.helo == "localhost" { session.reject("Not so"); } }
fn mail_from(session, sender, env) { if sender.domain == "spam.example" { throw "oh"; } }
fn email(message, env, ctx) { ctx.log(`came by ${message.session.notes.way}`); message.drop(); }
"#;
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let explain = |more: &[&str]| server.json(&[&["explain", "support@example.com"], more].concat()).remove(0);
    for (more, handler, code) in [
        (&["--ip", "192.0.2.1"][..], "connect", 554),
        (&["--helo", "localhost"][..], "helo", 550),
        (&["--from", "a@spam.example"][..], "mail_from", 451),
    ] {
        let told = explain(more);
        assert_eq!((&told["earlier"]["handler"], &told["earlier"]["reply"]["code"]), (&handler.into(), &code.into()));
        assert!(told["rcpt"].is_null(), "{told}");
    }
    let printed = server.stdout(&["explain", "support@example.com", "--helo", "localhost"]);
    assert!(printed.contains("EHLO") && printed.contains("550 5.7.1 Not so") && !printed.contains("RCPT"), "{printed}");
    let printed = server.stdout(&["explain", "support@example.com"]);
    assert!(printed.contains("came by connect") && printed.contains("RCPT"), "{printed}");
}
