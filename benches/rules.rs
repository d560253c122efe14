//! What a worker costs: one call of a handler, and the compilation. `cargo bench --bench rules`.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use mailworker::kv::{Entry, Page, View, ViewError};
use mailworker::mail::{Address, Client, Message, MessageId, Timestamp};
use mailworker::rules::{Bindings, EmailCall, KvView, RcptCall, Release, SessionFacts, Verdict};

fn main() {
    divan::main();
}

const MAIN: &str = "rules/main.rhai";
const NOW: Timestamp = Timestamp::from_millis(1_795_511_702_123);
const SWITCH: &str = r#"
fn rcpt_to(session, rcpt, env) {
    if rcpt.local == "nobody" { session.reject(550, "5.1.1", "no such mailbox"); }
}
fn email(message, env, ctx) {
    switch message.to.base {
        "support" => message.forward("team@example.net"),
        _ => message.set_reject("no such mailbox"),
    }
}
"#;

/// A store without keys.
struct Empty;

impl View for Empty {
    fn get(&self, _: &str, _: &str, _: Timestamp) -> Result<Option<Entry>, ViewError> {
        Ok(None)
    }

    fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<Page, ViewError> {
        Ok(Page::default())
    }
}

fn switch() -> BTreeMap<String, String> {
    BTreeMap::from([(MAIN.to_owned(), SWITCH.to_owned())])
}

/// The worker that the repository ships.
fn example() -> BTreeMap<String, String> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        (path.to_owned(), text)
    };
    BTreeMap::from([read(MAIN), read("rules/lib/spam.rhai")])
}

fn bindings() -> Bindings {
    let var = |(name, value): (&str, &str)| (name.to_owned(), serde_json::json!(value));
    let vars = [
        ("SUPPORT_EMAIL", "team@example.net"),
        ("SALES_EMAIL", "sales@example.net"),
        ("DEFAULT_EMAIL", "office@example.net"),
        ("WEBHOOK_URL", "https://hooks.example.net/"),
    ];
    Bindings {
        vars: vars.map(var).into_iter().collect(),
        kv_namespaces: vec!["EMAILS".to_owned()],
        ..Bindings::default()
    }
}

fn compile(sources: &BTreeMap<String, String>) -> Release {
    match Release::compile(sources, &[MAIN.to_owned()], bindings()) {
        Ok((release, _)) => release,
        Err(findings) => panic!("{findings:?}"),
    }
}

fn facts() -> SessionFacts {
    SessionFacts {
        client: Client {
            ip: "192.0.2.7".parse().unwrap(),
            port: 4025,
            listener: "127.0.0.1:25".to_owned(),
            helo: Some("mail.example.org".to_owned()),
            esmtp: true,
            tls: None,
            ptr: None,
        },
        sender: Some(Address::parse("alice@example.org").unwrap()),
        notes: BTreeMap::new(),
    }
}

fn call() -> EmailCall {
    let raw = format!(
        "From: Alice <alice@example.org>\r\nTo: support@example.com\r\nSubject: Printer\r\n\r\n{}",
        "It burns with a small blue flame, and it smells of toner.\r\n".repeat(70)
    );
    EmailCall {
        main: MAIN.to_owned(),
        id: MessageId::new(NOW, 7),
        received_at: NOW,
        recipient: Address::parse("support@example.com").unwrap(),
        subaddress: "+".to_owned(),
        session: Arc::new(facts()),
        message: Arc::new(Message::new(raw.into())),
        now: NOW,
    }
}

fn email(bencher: Bencher<'_, '_>, sources: &BTreeMap<String, String>) {
    let release = compile(sources);
    let kv: KvView = Arc::new(Empty);
    let call = call();
    assert_eq!(release.email(&call, &kv).verdict, Verdict::Accept);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| black_box(release.email(&call, &kv)));
}

/// A recipient looked up and the message forwarded.
#[divan::bench]
fn email_by_a_switch(bencher: Bencher<'_, '_>) {
    email(bencher, &switch());
}

/// The shipped worker: spam check, a key put, a webhook, a forward.
#[divan::bench]
fn email_by_the_example(bencher: Bencher<'_, '_>) {
    email(bencher, &example());
}

#[divan::bench]
fn rcpt_to(bencher: Bencher<'_, '_>) {
    let release = compile(&switch());
    let kv: KvView = Arc::new(Empty);
    let recipient = Address::parse("support@example.com").unwrap();
    let call = RcptCall { main: MAIN.to_owned(), session: facts(), recipient, subaddress: "+".to_owned(), now: NOW };
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| black_box(release.rcpt_to(&call, &kv)));
}

#[divan::bench]
fn compile_the_example(bencher: Bencher<'_, '_>) {
    let sources = example();
    bencher.bench_local(|| black_box(compile(&sources)));
}
