//! What the worker API promises of several runs and of several recipients, to the last of its words.

use std::process::Command;
use std::sync::{Arc, OnceLock};

use crate::harness::server::PROGRAM;
use crate::harness::{Says, Setup, SmtpSink, Web, mail};

/// Each run reads the key, and another writes it before the run can commit: what is asked depends on what was read, so that
/// no answer is kept from the run before.
#[test]
fn a_run_that_is_overtaken_three_times_is_put_off_and_has_done_nothing() {
    let configuration: Arc<OnceLock<std::path::PathBuf>> = Arc::default();
    let known = Arc::clone(&configuration);
    let web = Web::start(move |request| {
        let seen: u32 = request.path.trim_start_matches("/seen/").parse().unwrap();
        let put = ["kv", "put", "STATE", "k", &(seen + 1).to_string(), "--config"];
        let output = Command::new(PROGRAM).args(put).arg(known.get().unwrap()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Says::ok("done")
    });
    let rules = format!(
        r#"
fn email(message, env, ctx) {{
    let seen = env.STATE.get("k") ?? "0";
    ctx.fetch(`{}${{seen}}`, #{{ timeout: 4 }});
    env.STATE.put("k", "ours");
    message.forward("team@example.net");
}}
"#,
        web.url("/seen/")
    );
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).toml("[[kv_namespaces]]\nbinding = \"STATE\"").rules(&rules).start();
    configuration.set(server.path().join("mailworker.toml")).unwrap();
    server.send("ann@example.org", &["support@example.com"], &mail("overtaken", "x")).expect_status(451, "4.3.0");
    let paths: Vec<String> = web.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/seen/0", "/seen/1", "/seen/2"], "three runs, and each read what had overtaken the one before");
    assert_eq!(server.stdout(&["kv", "get", "STATE", "k"]).trim(), "3");
    assert!(sink.mails().is_empty() && server.queue().is_empty());
}

const UNLIKE: &str = r#"
fn email(message, env, ctx) {
    if message.to.local == "refused" { message.set_reject(550, "5.7.1", "not for you"); return; }
    message.forward("team@example.net");
}
"#;

/// The sender read 250 for the others' sake, so that it is told of the one that was refused; never where it may be forged.
#[test]
fn who_was_refused_beside_others_is_told_to_a_sender_that_is_proved_alone() {
    let sink = SmtpSink::start();
    let setup = Setup::relaying_to(&sink).rules(UNLIKE);
    setup.dns.txt("example.org", "v=spf1 ip4:127.0.0.0/8 -all");
    let server = setup.start();
    let to = ["good@example.com", "refused@example.com"];
    server.send("ann@example.org", &to, &mail("proved", "x")).expect(250);
    let told = sink.wait(2).into_iter().find(|mail| mail.recipients() == ["ann@example.org"]).unwrap();
    assert!(told.from.starts_with("<>"), "{}", told.from);
    for words in ["not for you", "Status: 5.7.1", "refused@example.com"] {
        assert!(told.text().contains(words), "{words}: {}", told.text());
    }
    assert!(!told.text().contains("rfc822; good@example.com"), "{}", told.text());
    server.settled();

    let mark = server.log.mark();
    server.send("ann@forged.example", &to, &mail("forged", "x")).expect(250);
    server.wait_event(mark, "notice_suppressed", |_| true);
    server.settled();
    let recipients = sink.each(|mail| mail.recipients().join(" "));
    assert!(!recipients.iter().any(|to| to.contains("forged.example")), "{recipients:?}");
}

#[test]
fn a_worker_that_decides_nothing_says_so_in_its_trace() {
    let server = Setup::new().rules("fn email(message, env, ctx) { }").start();
    server.send("ann@example.org", &["support@example.com"], &mail("kept", "x")).expect(250);
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let shown = server.stdout(&["messages", "show", &id]);
    assert!(shown.contains("store (the worker decided nothing)"), "{shown}");
}

/// Cloudflare's handler that throws at its second forward has sent the first, and sends it again when the sender comes again.
#[test]
fn of_two_forwards_the_one_that_fails_is_tried_again_by_itself() {
    let sink = SmtpSink::start();
    sink.script("RCPT TO:<second@", ["450 4.2.1 later"]);
    let rules = "fn email(message, env, ctx) { message.forward(\"first@example.net\"); message.forward(\"second@example.net\"); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], &mail("two", "x")).expect(250);
    server.settled();
    let mut got = sink.each(|mail| mail.recipients().join(" "));
    got.sort_unstable();
    assert_eq!(got, ["first@example.net", "second@example.net"]);
}
