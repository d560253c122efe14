//! Mail that a worker keeps from everybody until an admin lets it out.

use crate::harness::{Server, Setup, SmtpSink, mail};

const RULES: &str = r#"
fn email(message, env, ctx) {
    if message.to.local.starts_with("held") { message.quarantine("looks odd"); }
    message.forward(message.to.local + "@example.net");
}
"#;

/// Its id and message.
fn quarantined(server: &Server, to: &[&str]) -> (String, Vec<u8>) {
    let message = mail("odd", "x");
    server.send("ann@example.org", to, &message).expect(250);
    let newest = server.newest();
    assert_eq!(newest["outcome"], "quarantined", "{newest}");
    (newest["id"].as_str().unwrap().to_owned(), message)
}

#[test]
fn what_is_in_quarantine_is_kept_listed_and_sent_nowhere() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(RULES).start();
    let (id, message) = quarantined(&server, &["held@example.com"]);
    assert!(server.queue().is_empty() && sink.mails().is_empty());
    let listed = server.json(&["messages", "list", "--outcome", "quarantined"]);
    assert_eq!(listed.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), [id.as_str()]);
    let shown = server.stdout(&["messages", "show", &id]);
    assert!(shown.contains("quarantine (looks odd) for held@example.com"), "{shown}");
    assert!(shown.contains("rules/main.rhai:3:55"), "{shown}");
    assert!(server.cli(&["messages", "raw", &id]).stdout.ends_with(&message));
    let checked = server.json(&["store", "check"]).remove(0);
    assert_eq!(checked["findings"], serde_json::json!([]), "{checked}");
}

/// By the running server, and by the command itself where none runs.
#[test]
fn an_admin_lets_it_out_once_to_whom_it_was_for() {
    let sink = SmtpSink::start();
    let mut server = Setup::relaying_to(&sink).rules(RULES).start();
    let (id, message) = quarantined(&server, &["held@example.com"]);
    let printed = server.stdout(&["messages", "release", &id]);
    assert_eq!(printed, "released: 1 delivery queued\n");
    let arrived = sink.wait_one();
    assert_eq!(arrived.recipients(), ["held@example.com"]);
    let head = String::from_utf8_lossy(arrived.prepended_to(&message)).into_owned();
    assert!(head.starts_with("Delivered-To: held@example.com\r\n"), "{head}");
    let released = server.newest_settled();
    assert_eq!(released["outcome"], "accepted", "{released}");
    let trace = released["trace"].as_array().unwrap();
    assert!(trace.iter().any(|event| event["event"] == "admin" && event["verb"] == "release"), "{released}");

    let again = server.cli(&["messages", "release", &id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("isn't in quarantine: it is accepted"), "{again:?}");

    let (id, _) = quarantined(&server, &["held@example.com"]);
    assert!(server.stop().success());
    let released = server.json(&["messages", "release", &id, "--to", "team@example.net"]);
    assert_eq!(released[0]["deliveries"], 1);
    server.run();
    assert_eq!(sink.wait(2)[1].recipients(), ["team@example.net"]);
    server.settled();
}

/// Who wasn't held has its mail already, and gets it once.
#[test]
fn only_those_who_wait_for_it_get_it() {
    let sink = SmtpSink::start();
    let destination = format!("[[destination]]\nname = \"archive\"\nsmarthost = \"{}\"", sink.url());
    let server = Setup::relaying_to(&sink).toml(&destination).rules(RULES).start();
    let (id, _) = quarantined(&server, &["held@example.com", "sales@example.com", "held2@example.com"]);
    assert_eq!(sink.wait_one().recipients(), ["sales@example.net"]);
    server.settled();
    let nobody = server.cli(&["messages", "release", &id, "--to", "nowhere"]);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("neither an address nor a [[destination]]"), "{nobody:?}");
    let released = server.json(&["messages", "release", &id, "--to", "archive"]);
    assert_eq!(released[0]["deliveries"], 2);
    server.settled();
    let mut got: Vec<String> = sink
        .mails()
        .iter()
        .flat_map(|mail| mail.recipients().into_iter().map(ToOwned::to_owned).collect::<Vec<_>>())
        .collect();
    got.sort_unstable();
    assert_eq!(got, ["held2@example.com", "held@example.com", "sales@example.net"]);
}

#[test]
fn mail_of_ours_is_not_sent_back_to_us() {
    let server = Setup::new().rules(RULES).start();
    let (id, _) = quarantined(&server, &["held@example.com"]);
    let refused = server.cli(&["messages", "release", &id]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("name an address or a destination by --to"),
        "{refused:?}"
    );
    assert_eq!(server.newest()["outcome"], "quarantined");
}

/// A run that failed at first, and quarantines when it is made up for.
#[test]
fn a_second_run_puts_it_there_too() {
    let sink = SmtpSink::start();
    let failing =
        "fn email(message, env, ctx) { if message.to.local == \"held\" { throw \"not now\"; } message.store(); }";
    let server = Setup::relaying_to(&sink).rules(failing).start();
    server.send("ann@example.org", &["sales@example.com", "held@example.com"], &mail("later", "x")).expect(250);
    server.takes_up("rules/main.rhai", RULES);
    server.stdout(&["queue", "retry", "--all"]);
    server.wait_until("it is in quarantine", || (server.newest()["outcome"] == "quarantined").then_some(()));
    server.settled();
    assert!(sink.mails().is_empty());
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    server.stdout(&["messages", "release", &id]);
    assert_eq!(sink.wait_one().recipients(), ["held@example.com"]);
    server.settled();
}
