//! A worker of any text: it compiles or is refused with a place in it, each of its handlers runs within its budget, comes
//! to the same each time, and asks for nothing when it fails. Up to the first NUL stands the script's text: the body of
//! `email`, or a whole worker where it begins with `fn`, `import` or a comment; what follows is the message.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::compose;
use mailworker::kv::{Entry, Page, Value, View, ViewError, Write};
use mailworker::mail::{Address, Client, Message, MessageId, Timestamp};
use mailworker::rules::engine::Budget;
use mailworker::rules::outcome::{LogLine, Place, Usage};
use mailworker::rules::reach::{Answer, Asked, Failed, Request};
use mailworker::rules::{
    Ai, Bindings, Effect, EmailCall, Happening, HappeningCall, KvView, Lent, RcptCall, RcptVerdict, Reach, Reached,
    Release,
    Secrets, Seed, SessionFacts, Stage, StageCall, StageVerdict, Verdict,
};
use serde_json::json;

const MAIN: &str = "rules/main.rhai";
const NOW: Timestamp = Timestamp::from_millis(1_795_511_702_123);
const OPERATIONS: u64 = 5_000;
const SECRET: &str = "a secret of the admin's";

/// Keys that say what they are called.
struct Keys;

impl View for Keys {
    fn get(&self, _: &str, key: &str, _: Timestamp) -> Result<Option<Entry>, ViewError> {
        let value = match key.bytes().next() {
            Some(b'j') => Value::Json(json!({"key": key, "list": [1, 2.5, null]})),
            Some(b'b') => Value::Blob(key.as_bytes().to_vec()),
            Some(b'x') => return Err(ViewError("the store can't be read".to_owned())),
            Some(octet) if octet < b'n' => Value::Text(key.to_owned()),
            _ => return Ok(None),
        };
        Ok(Some(Entry { value, metadata: None, expires_at: None, version: 1 }))
    }

    fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<Page, ViewError> {
        Ok(Page::default())
    }
}

/// Everybody outside answers with what was asked, or doesn't.
struct Echo;

impl Reach for Echo {
    fn ask(&self, request: &Request, nth: usize, _: Duration) -> Asked {
        let http = |body: Bytes| Ok(Answer::Http {
            status: if nth % 2 == 0 { 200 } else { 503 },
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body,
        });
        let result = match request {
            _ if nth > 2 => Err(Failed::Unanswered("nobody answers".to_owned())),
            Request::Fetch(fetch) => http(fetch.body.clone()),
            Request::Ai { body, .. } => {
                http(Bytes::from(json!({"choices": [{"message": {"content": body}}]}).to_string()))
            }
            Request::Dns { name, .. } => Ok(Answer::Records(vec![json!(name), json!({"preference": 1, "host": name})])),
        };
        Asked { result, took: Duration::ZERO, kept: false }
    }
}

fn bindings() -> Bindings {
    Bindings {
        vars: BTreeMap::from([("A".to_owned(), json!({"b": [1, "c"]}))]),
        secrets: Secrets(BTreeMap::from([("S".to_owned(), SECRET.to_owned())])),
        kv_namespaces: vec!["KV".to_owned()],
        webhooks: vec!["HOOK".to_owned()],
        destinations: vec!["DEST".to_owned()],
        senders: BTreeMap::from([(MAIN.to_owned(), vec!["example.com".to_owned()])]),
        ai: Some(Ai { model: Some("model".to_owned()) }),
        budget: Some(Budget {
            operations: OPERATIONS,
            string_size: 4096,
            array_size: 200,
            map_size: 200,
            ..Budget::default()
        }),
        ..Bindings::default()
    }
}

fn facts() -> SessionFacts {
    let client = Client {
        ip: [192, 0, 2, 7].into(),
        port: 4025,
        listener: "127.0.0.1:25".to_owned(),
        helo: Some("mail.example.org".to_owned()),
        esmtp: true,
        tls: None,
        ptr: None,
        auth: None,
        origin: mailworker::mail::Origin::default(),
    };
    let sender = Address::parse("ann@example.org").ok();
    SessionFacts { client, sender, notes: BTreeMap::new() }
}

fn is_one_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

/// What is asked for can be carried out, whatever the script put into it.
fn check_effects(effects: &[(Effect, Place)]) {
    for (effect, _) in effects {
        match effect {
            Effect::Forward { headers, .. } | Effect::Webhook { headers, .. } => {
                assert!(headers.iter().all(|(name, value)| is_one_line(name) && is_one_line(value)), "{effect:?}");
            }
            Effect::Header { name, value } => {
                assert!(is_one_line(name) && value.iter().all(|value| is_one_line(value)), "{effect:?}");
            }
            Effect::Mail(draft) => check_mail(&compose::write(draft, MessageId::new(NOW, 8), NOW, "mx.example.com")),
            Effect::Store { .. } => {}
        }
    }
}

/// A mail of lines that end as they should, with one author and one end of its header.
fn check_mail(octets: &[u8]) {
    let message = Message::new(Bytes::copy_from_slice(octets));
    assert_eq!((message.count_header("From"), message.count_header("Subject")), (1, 1), "{octets:?}");
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").expect("the header has an end") + 4;
    assert_eq!(message.headers_end(), end, "{octets:?}");
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        assert!(line.len() <= 1000 && !line.contains(&0), "{line:?}");
        assert!(!line.contains(&b'\n') || line.ends_with(b"\r\n"), "{line:?}");
    }
}

fn check_usage(usage: Usage) {
    assert!(usage.operations <= OPERATIONS + 129, "{}", usage.operations);
}

fn check_writes(writes: &[Write], places: &[Place]) {
    assert!(writes.is_empty() || writes.len() == places.len(), "{writes:?}");
}

fn the_same<T: Debug>(run: impl Fn() -> T) -> T {
    // The first run of all may cost more: what it compiles, regular expressions, is kept for the next.
    let _ = run();
    let outcome = run();
    let (text, again) = (format!("{outcome:?}"), format!("{:?}", run()));
    assert_eq!(text, again, "it depends on nothing else");
    outcome
}

/// What is kept of a run holds no secret.
fn check_hidden(log: &[LogLine], reached: &[Reached]) {
    assert!(log.iter().all(|line| !line.text.contains(SECRET)), "{log:?}");
    assert!(reached.iter().all(|one| !one.what.contains(SECRET) && !one.answer.contains(SECRET)), "{reached:?}");
}

fn email(release: &Release, raw: &[u8], (kv, reach): (&KvView, &Lent)) {
    let call = EmailCall {
        main: MAIN.to_owned(),
        id: MessageId::new(NOW, 7),
        received_at: NOW,
        recipient: Address::parse("support+tag@example.com").expect("an address"),
        subaddress: "+".to_owned(),
        session: Arc::new(facts()),
        message: Arc::new(Message::new(Bytes::copy_from_slice(raw))),
        now: NOW,
        seed: Seed::default(),
        reach: reach.clone(),
    };
    let outcome = the_same(|| release.email(&call, kv));
    check_usage(outcome.usage);
    check_hidden(&outcome.log, &outcome.reached);
    check_writes(&outcome.writes, &outcome.writes_at);
    check_effects(&outcome.effects);
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
}

/// What is asked before there is a message.
fn stages(release: &Release, (kv, reach): (&KvView, &Lent)) {
    let subaddress = "+".to_owned();
    for stage in Stage::ALL.into_iter().filter(|stage| release.asks(*stage)) {
        let (seed, reach, subaddress) = (Seed::default(), reach.clone(), subaddress.clone());
        let call = StageCall { stage, session: facts(), subaddress, now: NOW, seed, reach };
        let outcome = the_same(|| release.stage(&call, kv));
        check_usage(outcome.usage);
        check_hidden(&outcome.log, &outcome.reached);
        match &outcome.verdict {
            StageVerdict::Accept => {}
            StageVerdict::Reject { reply, .. } => assert!(reply.is_permanent(), "{outcome:?}"),
            StageVerdict::Defer { reply, .. } => assert!(reply.is_temporary(), "{outcome:?}"),
            StageVerdict::Failed { error } => assert!(!error.is_empty()),
        }
    }
    if !release.has(MAIN, "rcpt_to") {
        return;
    }
    let call = RcptCall {
        main: MAIN.to_owned(),
        session: facts(),
        recipient: Address::parse("support@example.com").expect("an address"),
        subaddress,
        now: NOW,
        seed: Seed::default(),
        reach: reach.clone(),
    };
    let outcome = the_same(|| release.rcpt_to(&call, kv));
    check_usage(outcome.usage);
    check_hidden(&outcome.log, &outcome.reached);
    match &outcome.verdict {
        RcptVerdict::Accept | RcptVerdict::Redirect { .. } => {}
        RcptVerdict::Reject { reply, .. } => assert!(reply.is_permanent(), "{outcome:?}"),
        RcptVerdict::Defer { reply, .. } => assert!(reply.is_temporary(), "{outcome:?}"),
        RcptVerdict::Failed { error } => assert!(!error.is_empty()),
    }
}

fn happenings(release: &Release, (kv, reach): (&KvView, &Lent)) {
    for happening in [Happening::Delivered, Happening::Failed, Happening::Scheduled] {
        if !release.has(MAIN, happening.handler()) {
            continue;
        }
        let call = HappeningCall {
            happening,
            main: MAIN.to_owned(),
            subaddress: "+".to_owned(),
            event: json!({"kind": "forward", "to": "ann@example.org", "cron": "0 9 * * MON", "attempts": 1, "at": 1}),
            now: NOW,
            seed: Seed::default(),
            reach: reach.clone(),
        };
        let outcome = the_same(|| release.happening(&call, kv));
        check_usage(outcome.usage);
        check_hidden(&outcome.log, &outcome.reached);
        check_writes(&outcome.writes, &outcome.writes_at);
        check_effects(&outcome.effects);
        if let Err(error) = &outcome.result {
            assert!(outcome.effects.is_empty() && outcome.writes.is_empty() && !error.is_empty(), "{outcome:?}");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|octet| *octet == 0).unwrap_or(input.len());
    let (script, raw) = input.split_at(split);
    let Ok(script) = std::str::from_utf8(script) else { return };
    let is_whole = ["fn ", "import ", "//"].iter().any(|begins| script.starts_with(begins));
    let source = if is_whole { script.to_owned() } else { format!("fn email(message, env, ctx) {{\n{script}\n}}\n") };
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
    let (kv, reach): (KvView, Lent) = (Arc::new(Keys), Lent::new(Arc::new(Echo)));
    if release.has(MAIN, "email") {
        email(&release, raw.strip_prefix(b"\0").unwrap_or(raw), (&kv, &reach));
    }
    stages(&release, (&kv, &reach));
    happenings(&release, (&kv, &reach));
});
