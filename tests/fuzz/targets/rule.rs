//! A script of any text: it compiles or is refused with a place in it, runs within its budget, comes to the same each
//! time, and asks for nothing when it fails. Up to the first NUL stands the script's text; what follows is the message.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::kv::{Entry, Page, View, ViewError};
use mailworker::mail::{Address, Client, Message, MessageId, Timestamp};
use mailworker::rules::engine::Budget;
use mailworker::rules::{Bindings, Effect, EmailCall, KvView, Lent, Release, Seed, SessionFacts, Verdict};

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
        budget: Some(Budget {
            operations: 5_000,
            string_size: 4096,
            array_size: 200,
            map_size: 200,
            ..Budget::default()
        }),
        ..Bindings::default()
    }
}

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|octet| *octet == 0).unwrap_or(input.len());
    let (script, raw) = input.split_at(split);
    let Ok(script) = std::str::from_utf8(script) else { return };
    let source = format!("fn email(message, env, ctx) {{\n{script}\n}}\n");
    let sources = BTreeMap::from([(MAIN.to_owned(), source)]);
    let lines = sources[MAIN].lines().count();
    let release = match Release::compile(&sources, &[MAIN.to_owned()], bindings()) {
        Ok((release, _)) => release,
        Err(findings) => {
            assert!(!findings.is_empty());
            for finding in findings {
                assert!(!finding.message.is_empty() && finding.line <= lines + 1, "{finding:?}");
                let _ = finding.to_string();
            }
            return;
        }
    };
    let client = Client {
        ip: [192, 0, 2, 7].into(),
        port: 4025,
        listener: "127.0.0.1:25".to_owned(),
        helo: None,
        esmtp: true,
        tls: None,
        ptr: None,
        auth: None,
        origin: mailworker::mail::Origin::default(),
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
        seed: Seed::default(),
        reach: Lent::default(),
    };
    let kv: KvView = Arc::new(Empty);
    let outcome = release.email(&call, &kv);
    assert!(outcome.usage.operations <= 5_001 + 128, "{}", outcome.usage.operations);
    assert!(outcome.writes.is_empty() || outcome.writes.len() == outcome.writes_at.len(), "{outcome:?}");
    match &outcome.verdict {
        Verdict::Failed { error } => {
            assert!(outcome.effects.is_empty() && outcome.writes.is_empty() && !error.is_empty(), "{outcome:?}");
        }
        Verdict::Reject { reply, .. } => assert!(reply.is_permanent() && outcome.effects.is_empty(), "{outcome:?}"),
        Verdict::Defer { reply, .. } => {
            assert!(reply.is_temporary() && outcome.effects.is_empty() && outcome.writes.is_empty(), "{outcome:?}");
        }
        Verdict::Accept => assert!(!outcome.effects.is_empty(), "{outcome:?}"),
        Verdict::Undecided | Verdict::Drop { .. } => {}
        Verdict::Quarantine { .. } => {
            let kept = |effect: &Effect| matches!(effect, Effect::Store { .. });
            assert!(outcome.effects.iter().all(|(effect, _)| kept(effect)), "{outcome:?}");
        }
    }
    for (effect, _) in &outcome.effects {
        if let Effect::Forward { headers, .. } | Effect::Webhook { headers, .. } = effect {
            let is_one_line = |text: &str| !text.contains(['\r', '\n', '\0']);
            assert!(headers.iter().all(|(name, value)| is_one_line(name) && is_one_line(value)), "{effect:?}");
        }
    }
    assert_eq!(format!("{outcome:?}"), format!("{:?}", release.email(&call, &kv)), "it depends on nothing else");
});
