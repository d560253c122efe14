//! A script of any text: it compiles or is refused, and runs within its budget. The first line, where it ends in one,
//! is the script's text; what follows is the message.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::kv::{Entry, Page, View, ViewError};
use mailworker::mail::{Address, Client, Message, MessageId, Timestamp};
use mailworker::rules::engine::Budget;
use mailworker::rules::{Bindings, EmailCall, KvView, Release, SessionFacts};

const MAIN: &str = "rules/main.rhai";
const NOW: Timestamp = Timestamp::from_millis(1_795_511_702_123);

struct Empty;

impl View for Empty {
    fn get(&self, _: &str, _: &str, _: Timestamp) -> Result<Option<Entry>, ViewError> {
        Ok(None)
    }

    fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<Page, ViewError> {
        Ok(Page::default())
    }
}

fn bindings() -> Bindings {
    Bindings {
        vars: BTreeMap::from([("A".to_owned(), serde_json::json!({"b": [1, "c"]}))]),
        kv_namespaces: vec!["KV".to_owned()],
        webhooks: vec!["HOOK".to_owned()],
        budget: Some(Budget { operations: 5_000, string_size: 4096, array_size: 200, map_size: 200, ..Budget::default() }),
        ..Bindings::default()
    }
}

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|octet| *octet == 0).unwrap_or(input.len());
    let (script, raw) = input.split_at(split);
    let Ok(script) = std::str::from_utf8(script) else { return };
    let source = format!("fn email(message, env, ctx) {{\n{script}\n}}\n");
    let sources = BTreeMap::from([(MAIN.to_owned(), source)]);
    let Ok((release, _)) = Release::compile(&sources, &[MAIN.to_owned()], bindings()) else { return };
    let client = Client {
        ip: [192, 0, 2, 7].into(),
        port: 4025,
        listener: "127.0.0.1:25".to_owned(),
        helo: None,
        esmtp: true,
        tls: None,
        ptr: None,
    };
    let facts = SessionFacts { client, sender: None, notes: BTreeMap::new() };
    let call = EmailCall {
        main: MAIN.to_owned(),
        id: MessageId::new(NOW, 7),
        received_at: NOW,
        recipient: Address::parse("support@example.com").expect("an address"),
        subaddress: "+".to_owned(),
        session: Arc::new(facts),
        message: Arc::new(Message::new(Bytes::copy_from_slice(raw))),
        now: NOW,
    };
    let kv: KvView = Arc::new(Empty);
    let outcome = release.email(&call, &kv);
    assert!(outcome.usage.operations <= 5_001 + 128, "{}", outcome.usage.operations);
});
