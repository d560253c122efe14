//! Rules and configuration are read again when they change; what can't be read changes nothing.

use crate::harness::{Setup, SmtpSink, mail};

fn forwards_to(local: &str) -> String {
    format!("fn email(message, env, ctx) {{ message.forward(\"{local}@example.net\"); }}")
}

#[test]
fn changed_rules_decide_the_next_message() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(&forwards_to("old")).start();
    let mut client = server.client();
    client.send("ann@example.org", &["support@example.com"], &mail("before", "x")).expect(250);
    assert_eq!(sink.wait(1)[0].recipients(), ["old@example.net"]);
    server.takes_up("rules/main.rhai", &forwards_to("new"));
    server.send("ann@example.org", &["support@example.com"], &mail("after", "x")).expect(250);
    assert_eq!(sink.wait(2)[1].recipients(), ["new@example.net"]);
    client.command("NOOP").expect(250);
}

#[test]
fn a_changed_module_decides_the_next_message() {
    let sink = SmtpSink::start();
    let main = "import \"lib/to\" as to;\nfn email(message, env, ctx) { message.forward(to::address()); }";
    let module = |local: &str| format!("fn address() {{ \"{local}@example.net\" }}");
    let server = Setup::relaying_to(&sink).rules(main).file("rules/lib/to.rhai", &module("old")).start();
    server.send("ann@example.org", &["support@example.com"], &mail("before", "x")).expect(250);
    assert_eq!(sink.wait(1)[0].recipients(), ["old@example.net"]);
    server.takes_up("rules/lib/to.rhai", &module("new"));
    server.send("ann@example.org", &["support@example.com"], &mail("after", "x")).expect(250);
    assert_eq!(sink.wait(2)[1].recipients(), ["new@example.net"]);
}

/// A deployment that swaps a link, and a script that is a link to one kept elsewhere.
#[test]
fn rules_behind_links_decide_the_next_message() {
    let sink = SmtpSink::start();
    let setup =
        Setup::relaying_to(&sink).toml("main = \"current/main.rhai\"").file("one/main.rhai", &forwards_to("one"));
    std::os::unix::fs::symlink("one", setup.dir.path().join("current")).unwrap();
    let server = setup.file("two/main.rhai", &forwards_to("two")).start();
    let at = |path: &str| server.path().join(path);
    server.send("ann@example.org", &["support@example.com"], &mail("one", "x")).expect(250);
    assert_eq!(sink.wait(1)[0].recipients(), ["one@example.net"]);

    let mark = server.log.mark();
    std::os::unix::fs::symlink("two", at("next")).unwrap();
    std::fs::rename(at("next"), at("current")).unwrap();
    server.wait_event(mark, "reloaded", |_| true);
    server.send("ann@example.org", &["support@example.com"], &mail("two", "x")).expect(250);
    assert_eq!(sink.wait(2)[1].recipients(), ["two@example.net"]);

    server.write("shared/kept.rhai", &forwards_to("three"));
    let mark = server.log.mark();
    std::os::unix::fs::symlink("../shared/kept.rhai", at("two/next")).unwrap();
    std::fs::rename(at("two/next"), at("two/main.rhai")).unwrap();
    server.wait_event(mark, "reloaded", |_| true);
    server.takes_up("shared/kept.rhai", &forwards_to("four"));
    server.send("ann@example.org", &["support@example.com"], &mail("four", "x")).expect(250);
    assert_eq!(sink.wait(3)[2].recipients(), ["four@example.net"]);
}

#[test]
fn broken_rules_leave_the_old_ones_at_work() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(&forwards_to("old")).start();
    let mark = server.log.mark();
    server.write("rules/main.rhai", "fn email(message, env, ctx) { message.forward( }");
    let failed = server.wait_event(mark, "reload_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().contains("rules/main.rhai:1:"), "{failed}");
    server.send("ann@example.org", &["support@example.com"], &mail("still", "x")).expect(250);
    assert_eq!(sink.wait(1)[0].recipients(), ["old@example.net"]);

    server.takes_up("rules/main.rhai", &forwards_to("mended"));
    server.send("ann@example.org", &["support@example.com"], &mail("mended", "x")).expect(250);
    assert_eq!(sink.wait(2)[1].recipients(), ["mended@example.net"]);
}

#[test]
fn a_changed_configuration_is_taken_and_a_broken_one_is_not() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let old = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let mark = server.log.mark();
    server.write("mailworker.toml", &format!("no_such_key = 1\n{old}"));
    let failed = server.wait_event(mark, "reload_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().contains("no_such_key"), "{failed}");
    server.send("ann@example.org", &["support@example.com"], &mail("still", "x")).expect(250);
    sink.wait(1);

    let mark = server.log.mark();
    let domain = "\n[[domain]]\nname = \"example.edu\"\npostmaster = \"admin@example.net\"\n";
    server.write("mailworker.toml", &format!("{old}{domain}"));
    server.wait_event(mark, "reloaded", |_| true);
    server.send("ann@example.org", &["support@example.edu"], &mail("new-domain", "x")).expect(250);
    sink.wait(2);
}

#[test]
fn what_counts_from_the_next_start_alone_is_told() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).start();
    let old = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    let listener = "\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let fetch = "\n[fetch]\nconcurrency = 3\n";
    let told = [(listener, "[[listener]]"), (fetch, "[fetch] concurrency"), ("\n# as it was\n", "")];
    for (more, what) in told {
        let mark = server.log.mark();
        server.write("mailworker.toml", &format!("{old}{more}"));
        let waits = if what.is_empty() { "" } else { &format!("; {what} changed, which counts from the next start") };
        let told = format!("configuration, rules and certificates{waits}");
        server.wait_event(mark, "reloaded", |event| event["what"] == told);
    }
}
