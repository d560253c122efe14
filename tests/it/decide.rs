//! What a worker decides is done as a whole or not at all.

use crate::harness::{HttpSink, Setup, SmtpSink, mail};

const KV: &str = "[[kv_namespaces]]\nbinding = \"STATE\"";

#[test]
fn a_failing_script_does_nothing_and_the_sender_tries_again() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let rules = format!(
        "fn email(message, env, ctx) {{\n    env.STATE.put(\"seen\", \"yes\");\n    ctx.webhook(\"{}\", #{{ a: 1 }});\n    \
         message.forward(\"team@example.net\");\n    throw \"no luck\";\n}}",
        hook.url("/")
    );
    let server = Setup::relaying_to(&sink).toml(KV).rules(&rules).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("fails", "x")).expect_status(451, "4.3.0");
    let failed = server.wait_event(mark, "script_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().starts_with("rules/main.rhai:5:"), "{failed}");
    assert!(server.queue().is_empty());
    assert!(!server.cli(&["kv", "get", "STATE", "seen"]).status.success());
    assert!(sink.mails().is_empty() && hook.requests().is_empty());
}

#[test]
fn a_script_that_never_ends_is_ended() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { loop { } }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("endless", "x")).expect(451);
    server.wait_event(mark, "script_failed", |_| true);
}

/// `rcpt_to` refuses, puts off, and sends elsewhere.
#[test]
fn rcpt_to_answers_for_each_recipient() {
    let sink = SmtpSink::start();
    let rules = r#"
fn rcpt_to(session, rcpt, env) {
    switch rcpt.local.to_string() {
        "nobody" => session.reject("no such user"),
        "coded"  => session.reject(550, "5.2.1", "closed"),
        "busy"   => session.defer("come again"),
        "alias"  => session.redirect("real@example.com"),
        _        => (),
    }
}
fn email(message, env, ctx) { message.forward(message.to.local + "@example.net"); }
"#;
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    assert_eq!(client.command("RCPT TO:<nobody@example.com>").code / 100, 5);
    client.command("RCPT TO:<coded@example.com>").expect_status(550, "5.2.1");
    client.command("RCPT TO:<busy@example.com>").expect(451);
    client.command("RCPT TO:<alias@example.com>").expect(250);
    client.data(&mail("alias", "x")).expect(250);
    assert_eq!(sink.wait_one().recipients(), ["real@example.net"]);
}

#[test]
fn rejected_mail_goes_nowhere_even_if_it_was_forwarded_first() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { message.forward(\"team@example.net\"); message.set_reject(\"on second thought\"); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let reply = server.send("ann@example.org", &["support@example.com"], &mail("both", "x"));
    assert_eq!(reply.code / 100, 5, "{reply:?}");
    assert!(reply.text().contains("on second thought"), "{reply:?}");
    assert!(server.queue().is_empty() && sink.mails().is_empty());
}

#[test]
fn dropped_mail_is_accepted_and_goes_nowhere() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { message.drop(); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], &mail("dropped", "x")).expect(250);
    assert_eq!(server.newest()["outcome"], "dropped");
    assert!(server.queue().is_empty() && sink.mails().is_empty());
}

/// Mail is never lost by an oversight: a worker that decides nothing keeps the message whole.
#[test]
fn a_worker_that_does_nothing_keeps_the_mail() {
    let server = Setup::new().rules("fn email(message, env, ctx) { }").start();
    let message = mail("kept", "x");
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    let newest = server.newest();
    assert_eq!(newest["outcome"], "stored", "{newest}");
    let raw = server.cli(&["messages", "raw", newest["id"].as_str().unwrap()]).stdout;
    assert!(raw.ends_with(&message), "{}", String::from_utf8_lossy(&raw));
}

#[test]
fn one_message_goes_to_several_with_headers_of_the_workers() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) {\n\
                 message.forward([\"one@example.net\", \"two@example.net\"], #{ \"X-Team\": \"support\" }); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let message = mail("two", "x");
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    server.settled();
    let mails = sink.mails();
    let mut recipients: Vec<&str> = mails.iter().flat_map(|mail| mail.recipients()).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, ["one@example.net", "two@example.net"]);
    for mail in &mails {
        let head = String::from_utf8_lossy(mail.prepended_to(&message)).into_owned();
        assert!(head.contains("X-Team: support\r\n"), "{head}");
    }
}

/// RFC 5321 §4.5.3, and common sense: no value of a script's makes a field of its own.
#[test]
fn a_line_break_in_a_header_is_an_error() {
    let sink = SmtpSink::start();
    let rules =
        "fn email(message, env, ctx) { message.forward(\"team@example.net\", #{ \"X-A\": \"b\\r\\nBcc: c\" }); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], &mail("inject", "x")).expect(451);
    assert!(server.queue().is_empty());
}

/// Read, add one, put; and `increment`: messages that run at once lose neither.
#[test]
fn concurrent_messages_lose_no_count() {
    let rules = r#"
fn email(message, env, ctx) {
    let seen = env.STATE.get("read-and-put") ?? 0;
    env.STATE.put("read-and-put", seen + 1);
    env.STATE.increment("incremented", 1);
    message.drop();
}
"#;
    let server = Setup::new().toml(KV).rules(rules).start();
    let address = server.smtp();
    let accepted: u32 = std::thread::scope(|scope| {
        let sender = |worker: u32| {
            scope.spawn(move || {
                let mut client = crate::harness::Client::greeted(address);
                let send = |n: u32| {
                    let message = mail(&format!("count-{worker}-{n}"), "x");
                    client.send("ann@example.org", &["support@example.com"], &message).code
                };
                // A run that was overtaken three times is answered 451, and its sender tries again: it counts nothing.
                (0..15).map(send).filter(|code| *code == 250).fold(0, |sum, _| sum + 1)
            })
        };
        let senders: Vec<_> = (0..4).map(sender).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    assert!(accepted >= 15, "{accepted}");
    for key in ["read-and-put", "incremented"] {
        assert_eq!(server.stdout(&["kv", "get", "STATE", key]).trim(), accepted.to_string(), "{key}");
    }
}

/// The second recipient's run sees what the first one counted, and another message's commit between loses nothing.
#[test]
fn what_a_later_recipients_run_reads_of_a_counter_is_not_overtaken() {
    let rules = r#"
fn email(message, env, ctx) {
    if message.to.local == "counts" {
        env.STATE.increment("n");
    } else {
        env.STATE.put("n", env.STATE.get("n") + 10);
    }
    message.drop();
}
"#;
    let server = Setup::new().toml(KV).rules(rules).start();
    let address = server.smtp();
    let accepted: usize = std::thread::scope(|scope| {
        let sender = |worker: usize| {
            scope.spawn(move || {
                let mut client = crate::harness::Client::greeted(address);
                let to = ["counts@example.com", "adds@example.com"];
                let mut send =
                    |n: usize| client.send("ann@example.org", &to, &mail(&format!("both-{worker}-{n}"), "x")).code;
                // One that was overtaken in each run is answered 451 and counts nothing.
                (0..15).filter(|n| send(*n) == 250).count()
            })
        };
        let senders: Vec<_> = (0..4).map(sender).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).sum()
    });
    assert!(accepted > 0);
    assert_eq!(server.stdout(&["kv", "get", "STATE", "n"]).trim(), (accepted * 11).to_string());
}

#[test]
fn what_a_worker_writes_is_among_its_effects() {
    let rules = r#"
fn email(message, env, ctx) {
    env.STATE.put("seen\n" + message.to, "secret");
    env.STATE.increment("count", 2);
    env.STATE.delete("old");
    message.drop();
}
"#;
    let server = Setup::new().toml(KV).rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], &mail("writes", "x")).expect(250);
    let newest = server.newest();
    let decided = newest["trace"].as_array().unwrap().iter().find(|event| event["event"] == "decided").unwrap();
    let effects: Vec<&str> = decided["effects"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    let places = [
        r#"put STATE "seen\nsupport@example.com" (rules/main.rhai:3:15)"#,
        r#"increment STATE "count" by 2 (rules/main.rhai:4:15)"#,
        r#"delete STATE "old" (rules/main.rhai:5:15)"#,
    ];
    assert_eq!(effects, places);
}

#[test]
fn what_the_command_line_puts_the_worker_gets() {
    let sink = SmtpSink::start();
    let rules = "fn email(message, env, ctx) { message.forward(env.STATE.get(\"to\")); }";
    let server = Setup::relaying_to(&sink).toml(KV).rules(rules).start();
    server.stdout(&["kv", "put", "STATE", "to", "found@example.net"]);
    assert!(server.stdout(&["kv", "list", "STATE"]).contains("to"));
    server.send("ann@example.org", &["support@example.com"], &mail("kv", "x")).expect(250);
    assert_eq!(sink.wait_one().recipients(), ["found@example.net"]);
    server.stdout(&["kv", "delete", "STATE", "to"]);
    assert!(!server.cli(&["kv", "get", "STATE", "to"]).status.success());
}

#[test]
fn routes_decide_before_the_worker() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let routes = format!(
        "[[route]]\nmatch = \"billing@example.com\"\naction = \"forward\"\nto = [\"accounts@example.net\"]\n\
         [[route]]\nmatch = \"closed@*\"\naction = \"reject\"\n\
         [[route]]\nmatch = \"/^void[0-9]+@/\"\naction = \"drop\"\n\
         [[route]]\nmatch = \"hook@example.com\"\naction = \"webhook\"\nto = [\"HOOK\"]\n\
         [[route]]\nmatch = \"*@example.com\"\naction = \"worker\"\n\
         [[webhook]]\nbinding = \"HOOK\"\nurl = \"{}\"\nsecret = {{ env = \"HOOK_SECRET\" }}",
        hook.url("/hook")
    );
    let server = Setup::relaying_to(&sink).toml(&routes).environment("HOOK_SECRET", SECRET).start();
    server.send("ann@example.org", &["billing@example.com"], &mail("bill", "x")).expect(250);
    assert_eq!(sink.wait(1)[0].recipients(), ["accounts@example.net"]);
    server.send("ann@example.org", &["other@example.com"], &mail("other", "x")).expect(250);
    assert_eq!(sink.wait(2)[1].recipients(), ["team@example.net"]);
    server.send("ann@example.org", &["void7@example.com"], &mail("void", "x")).expect(250);
    assert_eq!(server.newest()["outcome"], "dropped");
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    let at_rcpt = client.command("RCPT TO:<closed@example.com>");
    assert_eq!(at_rcpt.code / 100, 5, "{at_rcpt:?}");
    server.send("ann@example.org", &["hook@example.com"], &mail("hooked", "x")).expect(250);
    let request = hook.wait(1).remove(0);
    assert!(request.json().to_string().contains("hooked"), "{}", request.json());
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// RFC 5321 §4.1.2: quotes and backslashes make no other mailbox, for routes, for rules and for a loop.
#[test]
fn a_mailbox_in_quotes_is_the_same_to_routes_and_rules() {
    let sink = SmtpSink::start();
    let route = "[[route]]\nmatch = \"closed@example.com\"\naction = \"reject\"";
    let rules = r#"
fn email(message, env, ctx) {
    if message.to.local == "blocked" || message.to.base == "blocked" { message.set_reject("no"); }
    message.forward("team@example.net");
}
"#;
    let server = Setup::relaying_to(&sink).toml(route).rules(rules).start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    for closed in ["closed", "\"closed\"", "\"cl\\osed\"", "\"closed+x\""] {
        client.command(&format!("RCPT TO:<{closed}@example.com>")).expect_status(550, "5.7.1");
    }
    for blocked in ["blocked", "\"blocked\"", "\"bl\\ocked+x\""] {
        let to = format!("{blocked}@example.com");
        server.send("ann@example.org", &[&to], &mail("blocked", blocked)).expect(550);
    }
    let been_here = [b"Delivered-To: \"support\"@example.com\r\n".to_vec(), mail("loop", "x")].concat();
    server.send("ann@example.org", &["support@example.com"], &been_here).expect_status(554, "5.4.6");
    // Written as it came where it goes on.
    server.send("ann@example.org", &["\"support\"@example.com"], &mail("fine", "x")).expect(250);
    let arrived = sink.wait_one();
    assert!(arrived.text().contains("Delivered-To: \"support\"@example.com\r\n"), "{}", arrived.text());
}

/// Of a client that lost our answers and comes again: what was never taken for a recipient isn't said to be here.
#[test]
fn a_resend_under_prdr_promises_nothing_for_those_who_were_put_off() {
    let rules = r#"
fn email(message, env, ctx) {
    if message.to.local == "busy" { throw "not now"; }
    message.store();
}
"#;
    let server = Setup::new().rules(rules).start();
    for _ in 0..2 {
        let mut client = server.client();
        client.command("MAIL FROM:<ann@example.org> PRDR").expect(250);
        client.command("RCPT TO:<ready@example.com>").expect(250);
        client.command("RCPT TO:<busy@example.com>").expect(250);
        client.data(&mail("prdr", "x")).expect(353);
        client.reply().expect(250);
        client.reply().expect_status(451, "4.3.0");
        client.reply().expect(250);
    }
}

#[test]
fn a_recipient_named_twice_is_decided_again_only_once() {
    let rules =
        "fn email(message, env, ctx) { if message.to.local == \"busy\" { throw \"not now\"; } message.store(); }";
    let mut server = Setup::new().rules(rules).start();
    server.leaves_queue();
    let to = ["ready@example.com", "busy@example.com", "Busy@example.com", "\"busy\"@EXAMPLE.com"];
    server.send("ann@example.org", &to, &mail("twice", "x")).expect(250);
    assert_eq!(server.queue().len(), 1, "{:?}", server.queue());
}

/// What `rcpt_to` left for `email` is still there when a run that failed is made up for.
#[test]
fn notes_are_there_when_a_recipient_is_decided_again() {
    let sink = SmtpSink::start();
    let rules = |for_busy: &str| {
        format!(
            "fn rcpt_to(session, rcpt, env) {{ session.notes.team = \"night\"; }}\n\
             fn email(message, env, ctx) {{\n\
                 if message.to.local == \"busy\" {{ {for_busy} }}\n\
                 message.store();\n\
             }}"
        )
    };
    let server = Setup::relaying_to(&sink).rules(&rules("throw \"not now\";")).start();
    server.send("ann@example.org", &["ready@example.com", "busy@example.com"], &mail("notes", "x")).expect(250);
    let mark = server.log.mark();
    server.write("rules/main.rhai", &rules("message.forward(message.session.notes.team + \"@example.net\");"));
    server.wait_event(mark, "reloaded", |_| true);
    server.stdout(&["queue", "retry", "--all"]);
    assert_eq!(sink.wait_one().recipients(), ["night@example.net"]);
}
