//! `serve --env NAME`: an environment has its own release, its own secrets and its own domains, over one store.

use crate::harness::{Server, Setup, SmtpSink, mail};

/// Neither names domains of its own, so that the top level's are production's.
const ENVIRONMENTS: &str = r#"
[[env.staging.domain]]
name = "staging.example.com"
postmaster = "admin@example.net"

[env.production]
vars = { NOTE = "of production" }
"#;

fn rules(of: &str) -> String {
    format!(
        r#"
fn email(message, env, ctx) {{
    message.forward("{of}@example.net", #{{ "X-Told": `${{ctx.env_name}} ${{env.TOKEN}}` }});
}}
"#
    )
}

#[track_caller]
fn put(server: &Server, env: &str, value: &str) {
    let output = server.read_by(&["secret", "put", "TOKEN", "--env", env], value);
    assert!(output.status.success(), "{output:?}");
}

#[track_caller]
fn deploy(server: &Server, env: &str, of: &str) {
    server.write("rules/main.rhai", &rules(of));
    server.stdout(&["deploy", "--env", env]);
}

/// Whose release decided on the next message to this address, and what it said of itself.
#[track_caller]
fn decided(server: &Server, sink: &SmtpSink, to: &str) -> (String, String) {
    let before = sink.each(|_| ()).len();
    server.send("ann@example.org", &[to], &mail("next", "x")).expect(250);
    let mail = sink.wait(before + 1).remove(before);
    let told = mail.text().lines().find_map(|line| Some(line.strip_prefix("X-Told: ")?.to_owned()));
    server.settled();
    (mail.recipients()[0].to_owned(), told.unwrap())
}

#[track_caller]
fn is_taken(server: &Server, to: &str, taken: bool) {
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    let answer = client.command(&format!("RCPT TO:<{to}>"));
    assert_eq!(answer.code, if taken { 250 } else { 550 }, "{to}: {answer:?}");
    client.command("QUIT").expect(221);
}

#[test]
fn each_environment_serves_its_own_release_with_its_own_secret_for_its_own_domains() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).toml(ENVIRONMENTS).start();
    assert!(server.stop().success());
    for env in ["staging", "production"] {
        put(&server, env, &format!("value-of-{env}"));
        deploy(&server, env, &format!("first-{env}"));
    }
    let of = |to: &str, told: &str| (format!("{to}@example.net"), told.to_owned());
    server.run_with(&["--env", "staging"]);
    let first = of("first-staging", "staging value-of-staging");
    assert_eq!(decided(&server, &sink, "support@staging.example.com"), first);
    is_taken(&server, "support@example.com", false);
    // What is put and deployed for the other one is nothing to this one that runs.
    put(&server, "production", "another-of-production");
    deploy(&server, "production", "second-production");
    assert_eq!(decided(&server, &sink, "support@staging.example.com"), first);
    let mark = server.log.mark();
    put(&server, "staging", "another-of-staging");
    server.wait_event(mark, "reloaded", |_| true);
    deploy(&server, "staging", "second-staging");
    let second = of("second-staging", "staging another-of-staging");
    assert_eq!(decided(&server, &sink, "support@staging.example.com"), second);

    assert!(server.stop().success());
    server.run_with(&["--env", "production"]);
    let production = of("second-production", "production another-of-production");
    assert_eq!(decided(&server, &sink, "support@example.com"), production);
    is_taken(&server, "support@staging.example.com", false);
    server.stdout(&["rollback", "--env", "production"]);
    let first = of("first-production", "production another-of-production");
    assert_eq!(decided(&server, &sink, "support@example.com"), first);

    assert!(server.stop().success());
    server.run_with(&["--env", "staging"]);
    assert_eq!(decided(&server, &sink, "support@staging.example.com"), second, "a rollback is the environment's own");
    is_taken(&server, "support@example.com", false);
    let log = server.log.all().join("\n");
    assert!(server.stop().success());
    assert!(!log.contains("value-of-") && !log.contains("another-of-"), "{log}");
    // Without one there is neither's release and neither's secret: the files run.
    server.write("rules/main.rhai", "fn email(message, env, ctx) { message.forward(\"files@example.net\"); }");
    let before = sink.mails().len();
    server.run();
    server.send("ann@example.org", &["support@example.com"], &mail("files", "x")).expect(250);
    assert_eq!(sink.wait(before + 1)[before].recipients(), ["files@example.net"]);
    assert_eq!(server.json(&["secret", "list"]).len(), 0);
}
