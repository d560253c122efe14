//! The worker that stands in `rules/main.rhai`, as it is, from end to end.

use std::path::Path;

use ring::hmac;

use crate::harness::http::Request;
use crate::harness::{HttpSink, Server, Setup, SmtpSink, mail};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn example(sink: &SmtpSink, hook: &HttpSink) -> Server {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let read = |path: &str| std::fs::read_to_string(rules.join(path)).unwrap();
    let bindings = format!(
        "[[kv_namespaces]]\nbinding = \"EMAILS\"\n\
         [vars]\nSUPPORT_EMAIL = \"support-team@example.net\"\nSALES_EMAIL = \"sales-team@example.net\"\n\
         DEFAULT_EMAIL = \"office@example.net\"\nWEBHOOK_URL = \"{}\"\n\
         [webhook_defaults]\nsecret = {{ env = \"HOOK_SECRET\" }}",
        hook.url("/mail")
    );
    Setup::relaying_to(sink)
        .rules(&read("main.rhai"))
        .file("rules/lib/spam.rhai", &read("lib/spam.rhai"))
        .toml(&bindings)
        .environment("HOOK_SECRET", SECRET)
        .start()
}

#[test]
fn each_address_goes_to_its_team() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = example(&sink, &hook);
    for (local, team) in [
        ("support", "support-team@example.net"),
        ("help", "support-team@example.net"),
        ("sales", "sales-team@example.net"),
        ("contact", "sales-team@example.net"),
        ("info", "office@example.net"),
        ("whoever", "office@example.net"),
    ] {
        let message = mail(&format!("A question for {local}"), "Good morning, where is my order?");
        server.send("ann@example.org", &[&format!("{local}@example.com")], &message).expect(250);
        server.settled();
        let newest = sink.mails().pop().unwrap();
        assert_eq!(newest.recipients(), [team], "{local}");
        newest.prepended_to(&message);
    }
    assert_eq!(sink.mails().len(), 6);
    assert_eq!(hook.wait(6).len(), 6);
}

#[test]
fn the_webhook_tells_of_the_mail_and_is_signed() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = example(&sink, &hook);
    let message = mail("A question of price", "Good morning, what does it cost?");
    server.send("ann@example.org", &["sales@example.com"], &message).expect(250);
    let request = hook.wait(1).remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/mail"));
    verify(&request, SECRET);
    let payload = request.json();
    assert_eq!(payload["type"], "email_received", "{payload}");
    assert_eq!(payload["from"], "ann@example.org", "{payload}");
    assert_eq!(payload["to"], "sales@example.com", "{payload}");
    assert_eq!(payload["subject"], "A question of price", "{payload}");
    assert_eq!(payload["destination"], "sales-team@example.net", "{payload}");
    assert_eq!(payload["id"], server.newest()["id"], "{payload}");
}

#[test]
fn the_log_in_kv_tells_of_the_mail() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = example(&sink, &hook);
    let message = mail("A question of support", "Good morning, it doesn't start.");
    server.send("ann@example.org", &["help@example.com"], &message).expect(250);
    let id = server.newest()["id"].as_str().unwrap().to_owned();
    let logged = server.stdout(&["kv", "get", "EMAILS", &format!("email:{id}")]);
    let logged: serde_json::Value = serde_json::from_str(&logged).unwrap();
    assert_eq!(logged["from"], "ann@example.org", "{logged}");
    assert_eq!(logged["to"], "help@example.com", "{logged}");
    assert_eq!(logged["subject"], "A question of support", "{logged}");
    assert_eq!(logged["destination"], "support-team@example.net", "{logged}");
    let listed = server.stdout(&["kv", "list", "EMAILS", "--prefix", "email:", "--json"]);
    assert!(listed.contains(&id) && listed.contains("expir"), "{listed}");
}

#[test]
fn spam_is_refused_and_leaves_nothing() {
    let (sink, hook) = (SmtpSink::start(), HttpSink::start());
    let server = example(&sink, &hook);
    let spam = mail("You are a lottery winner! Claim your prize, viagra casino", "Click here now.");
    let reply = server.send("ann@example.org", &["support@example.com"], &spam);
    assert_eq!(reply.code, 550, "{reply:?}");
    assert!(reply.status().starts_with("5."), "{reply:?}");
    assert!(server.queue().is_empty());
    assert_eq!(server.stdout(&["kv", "list", "EMAILS"]).trim(), "");
    assert!(sink.mails().is_empty() && hook.requests().is_empty());
}

/// Standard Webhooks, by a reading of the specification that shares no code with the program.
pub fn verify(request: &Request, secret: &str) {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = base64.decode(secret.trim_start_matches("whsec_")).unwrap();
    let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    assert!(!id.is_empty() && !id.contains('.'), "{request:?}");
    let sent: u64 = timestamp.parse().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(sent) < 300, "{timestamp}");
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &request.body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
    let expected = format!("v1,{}", base64.encode(tag));
    assert!(request.header("webhook-signature").split(' ').any(|signature| signature == expected), "{request:?}");
}
