//! What scripts read, through the engine as a run sets it up.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rhai::{Dynamic, Engine, Scope};

use super::MessageView;
use crate::kv;
use crate::mail::{Address, Client, Message, MessageId, Timestamp};
use crate::rules::api::run::{self, Handler, Run, Start};
use crate::rules::{EmailCall, KvView, Lent, Seed, SessionFacts};

const LETTER: &str = "From: =?utf-8?q?J=C3=BCrgen?= <J@Example.NET>\nTo: a@example.com, B <b@example.com>\n\
    Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n aus K\nReceived: one\nRECEIVED: two\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n\
    Message-ID: <1@x>\nReferences: <2@x> <3@x>\nContent-Type: multipart/mixed; boundary=m\n\n--m\n\nplain\ntext\n--m\n\
    Content-Type: text/plain\nContent-Disposition: attachment; filename=note.txt\nContent-Transfer-Encoding: base64\n\n\
    aGFsbG8=\n--m--\n";

/// A store without a key.
struct Nothing;

impl kv::View for Nothing {
    fn get(&self, _: &str, _: &str, _: Timestamp) -> Result<Option<kv::Entry>, kv::ViewError> {
        Ok(None)
    }
    fn list(&self, _: &str, _: &str, _: Option<&str>, _: usize, _: Timestamp) -> Result<kv::Page, kv::ViewError> {
        Ok(kv::Page::default())
    }
}

fn run_of(call: &EmailCall) -> Arc<Run> {
    let kv: KvView = Arc::new(Nothing);
    Arc::new(Run::new(&Start {
        main: &call.main,
        handler: Handler::Email,
        subaddress: &call.subaddress,
        now: call.now,
        seed: call.seed,
        environment: &Arc::default(),
        kv: &kv,
        reach: &Lent::default(),
        client: std::net::Ipv4Addr::LOCALHOST.into(),
        notes: &BTreeMap::new(),
    }))
}

/// One recipient's call; `sender` empty is the null sender.
fn call(recipient: &str, sender: &str, message: Arc<Message>) -> EmailCall {
    let client = Client {
        ip: [192, 0, 2, 1].into(),
        port: 25,
        listener: String::new(),
        helo: None,
        esmtp: true,
        tls: None,
        ptr: None,
        auth: None,
        origin: crate::mail::Origin::default(),
    };
    EmailCall {
        main: "rules/main.rhai".to_owned(),
        id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse::<MessageId>().unwrap(),
        received_at: Timestamp::from_millis(1_000),
        recipient: Address::parse(recipient).unwrap(),
        subaddress: "+".to_owned(),
        session: Arc::new(SessionFacts { client, sender: Address::parse(sender).ok(), notes: BTreeMap::new() }),
        message,
        now: Timestamp::from_millis(1_000),
        seed: Seed::default(),
        reach: Lent::default(),
    }
}

/// A message to `Support+Case-42@Example.com`, as a script of a default budget is handed it.
fn evaluate(raw: &str, script: &str) -> Result<Dynamic, String> {
    evaluate_octets(Bytes::from(raw.replace('\n', "\r\n")), script)
}

fn evaluate_octets(raw: Bytes, script: &str) -> Result<Dynamic, String> {
    let call = call("Support+Case-42@Example.com", "anna@example.org", Arc::new(Message::new(raw)));
    evaluate_call(call, script)
}

fn evaluate_call(call: EmailCall, script: &str) -> Result<Dynamic, String> {
    let mut engine = Engine::new();
    engine.set_max_string_size(1024 * 1024).set_max_array_size(10_000).set_max_map_size(10_000);
    crate::rules::api::register(&mut engine);
    let run = run_of(&call);
    let _entered = run::enter(&run);
    let mut scope = Scope::new();
    scope.push("message", MessageView::new(Arc::new(call), run));
    engine.eval_with_scope(&mut scope, script).map_err(|error| error.to_string())
}

/// The script's value as the engine shows it.
fn shown(raw: &str, script: &str) -> String {
    evaluate(raw, script).unwrap_or_else(|error| panic!("{script}: {error}")).to_string()
}

#[test]
fn an_address_is_a_string_wherever_one_is_taken() {
    for (script, expected) in [
        ("message.to", "Support+Case-42@Example.com"),
        ("message.from", "anna@example.org"),
        ("message.to.local", "support+case-42"),
        ("message.to.base", "support"),
        ("message.to.tag", "Case-42"),
        ("message.to.domain", "example.com"),
        ("\"x@Y.example\".domain", "y.example"),
        ("\"no address\".domain", ""),
        ("\"no address\".local", "no address"),
        ("\"\".base", ""),
        ("message.header_from[0].address.domain", "example.net"),
        ("message.from == \"anna@example.org\"", "true"),
        ("\"anna@example.org\" != message.from", "false"),
        ("message.from < \"b\"", "true"),
        ("`<${message.from}>` + message.from", "<anna@example.org>anna@example.org"),
        ("message.from.contains(\"@example\") && message.from.ends_with(\".org\")", "true"),
        ("message.from.to_upper()", "ANNA@EXAMPLE.ORG"),
        ("message.from.split(\"@\")[1]", "example.org"),
        ("message.from.len", "16"),
        ("message.from in [\"anna@example.org\"]", "true"),
        ("switch message.from { \"anna@example.org\" => 1, _ => 2 }", "1"),
        ("let m = #{}; m[message.from] = 1; m.keys()[0]", "anna@example.org"),
        ("type_of(message.to)", "string"),
    ] {
        assert_eq!(shown(LETTER, script), expected, "{script}");
    }
}

#[test]
fn without_a_separator_there_are_no_subaddresses() {
    let mut call = call("a+b@example.com", "", Arc::new(Message::new(Bytes::new())));
    call.subaddress = String::new();
    assert_eq!(evaluate_call(call, "message.to.base + message.to.tag").unwrap().to_string(), "a+b");
}

#[test]
fn header_fields_are_looked_up_without_case_and_in_order() {
    for (script, expected) in [
        ("message.headers.get(\"SUBJECT\")", "Grüße aus K"),
        ("message.headers.get(\"none\") ?? \"absent\"", "absent"),
        ("message.headers.get_all(\"received\")", "[\"one\", \"two\"]"),
        ("message.headers.get_all(\"none\")", "[]"),
        ("message.headers.has(\"date\")", "true"),
        ("message.headers.raw(\"subject\")", " =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n aus K"),
        ("message.headers.raw(\"none\") == ()", "true"),
        ("message.headers.len", "9"),
        ("message.headers.keys()[3]", "Received"),
        ("let seen = \"\"; for pair in message.headers { seen += pair[0][0]; } seen", "FTSRRDMRC"),
        ("for pair in message.headers { if pair[0] == \"Subject\" { return pair[1]; } }", "Grüße aus K"),
    ] {
        assert_eq!(shown(LETTER, script), expected, "{script}");
    }
}

#[test]
fn what_is_parsed_is_read_by_name() {
    for (script, expected) in [
        ("message.subject", "Grüße aus K"),
        ("message.text", "plain\ntext"),
        ("message.html", ""),
        ("message.date", "1795514400000"),
        ("message.message_id", "1@x"),
        ("message.in_reply_to", ""),
        ("message.references", "[\"2@x\", \"3@x\"]"),
        ("message.header_from[0].name", "Jürgen"),
        ("message.header_to.map(|to| to.address)", "[\"a@example.com\", \"b@example.com\"]"),
        ("message.header_cc", "[]"),
        ("message.id", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("message.received_at", "1000"),
        ("message.raw_size == message.raw.len", "true"),
        ("message.is_auto || message.is_bounce || message.is_list", "false"),
        ("message.session.ip", "192.0.2.1"),
        ("message.session.notes.seen = true; message.session.notes.seen", "true"),
        ("message.attachments.len", "1"),
        ("message.attachments[0].filename", "note.txt"),
        ("message.attachments[0].content_type", "text/plain"),
        ("message.attachments[0].size", "5"),
        ("message.attachments[0].text", "hallo"),
        ("message.attachments[0].inline", "false"),
        ("message.attachments[0].content_id", ""),
        ("message.attachments[0].content.to_blob()", "[68616c6c6f]"),
        ("message.attachments[0].sha256", "d3751d33f9cd5049c4af2b462735457e4d3baf130bcbb87f389e349fbaeb20b9"),
        ("message.attachments[0].to_map().keys().len", "6"),
    ] {
        assert_eq!(shown(LETTER, script), expected, "{script}");
    }
}

#[test]
fn an_empty_message_answers_every_question() {
    for (script, expected) in [
        ("message.subject + message.text + message.html + message.message_id + message.in_reply_to", ""),
        ("message.date == ()", "true"),
        ("message.header_from.len + message.attachments.len + message.headers.len + message.references.len", "0"),
        ("message.raw.is_empty && message.raw.sha256().starts_with(\"e3b0c442\")", "true"),
    ] {
        assert_eq!(shown("", script), expected, "{script}");
    }
}

#[test]
fn octets_are_cut_searched_hashed_and_copied() {
    for (script, expected) in [
        ("message.raw.starts_with(\"From:\") && message.raw.contains(\"aGFsbG8=\")", "true"),
        ("message.raw.index_of(\"nowhere\")", "-1"),
        ("message.raw.extract(0, 4).to_string()", "From"),
        ("message.raw.extract(-6).as_string()", "-m--\r\n"),
        ("message.raw.extract(1000000, 5).len", "0"),
        ("message.raw.extract(2, -1).len()", "0"),
        ("message.raw.extract(0, 3).to_base64()", "RnJv"),
        ("message.raw[0]", "70"),
        ("message.raw[-1]", "10"),
        ("`${message.raw.extract(0, 4)}`", "From"),
        ("message.raw.extract(0, 4).to_blob() == message.raw.extract(0, 4)", "true"),
        ("message.raw == message.raw && message.raw != message.attachments[0].content", "true"),
        ("type_of(message.raw)", "octets"),
        ("message.raw.extract(0, 3).to_blob().to_base64()", "RnJv"),
        ("\"\".sha256() == blob().sha256()", "true"),
    ] {
        assert_eq!(shown(LETTER, script), expected, "{script}");
    }
    let error = evaluate(LETTER, "message.raw[5000]").unwrap_err();
    assert!(error.contains("octet 5000 is beyond the end"), "{error}");
}

#[test]
fn the_null_sender_is_an_empty_string_and_means_a_bounce() {
    let call = call("a@example.com", "", Arc::new(Message::new(Bytes::new())));
    let script = "message.from == \"\" && message.from.local == \"\" && message.is_bounce && message.is_auto";
    assert!(evaluate_call(call, script).unwrap().as_bool().unwrap());
}

#[test]
fn a_text_beyond_the_budget_is_cut_at_a_character() {
    let long = format!("Subject: xy\n\n{}", "ü".repeat(3 * 1024 * 1024));
    assert_eq!(shown(&long, "message.text.bytes"), (256 * 1024).to_string());
    assert_eq!(shown(&long, "#{ text: message.text, again: message.text, id: message.id }.len()"), "3");
    assert_eq!(shown(&long, "message.raw.to_string().bytes"), (1024 * 1024 - 1).to_string());
    assert_eq!(shown(&long, "message.raw.sha256().len"), "64");
    assert_eq!(shown(&long, "message.raw_size > 6000000"), "true");
    let error = evaluate(&long, "message.raw.to_base64()").unwrap_err();
    assert!(error.contains("[budget] string_size is 1048576"), "{error}");
    let error = evaluate(&long, "message.raw.to_blob()").unwrap_err();
    assert!(error.contains("array_size, 10000"), "{error}");
}

#[test]
fn lists_end_where_the_budget_ends() {
    let many = format!("{}To: {}\n\n", "X: 1\n".repeat(20_000), "a@b.example,".repeat(20_000));
    assert_eq!(shown(&many, "message.headers.get_all(\"x\").len"), "10000");
    assert_eq!(shown(&many, "message.headers.len"), "10000");
    assert_eq!(shown(&many, "let n = 0; for pair in message.headers { n += 1; } n"), "10000");
    let many = format!("To: {}\n\n", "a@b.example,".repeat(20_000));
    assert_eq!(shown(&many, "message.header_to.len"), "1000");
    let wide = format!("{}\n", format!("X: {}\n", "y".repeat(60_000)).repeat(100));
    assert_eq!(shown(&wide, "message.headers.get_all(\"x\").len"), "4");
}

#[test]
fn hostile_messages_are_read_to_an_end() {
    let everything = "[message.subject.len, message.text.len, message.html.len, message.attachments.map(|a| a.text.len), \
        message.header_from.len, message.references.len, message.headers.keys().len, message.raw.sha256()]";
    let level = |level| format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n");
    let nested: Vec<String> = (0..1000).map(level).collect();
    for raw in [
        nested.concat(),
        format!("Subject: {}\n\n", "=?utf-8?q?".repeat(100_000)),
        format!("Subject: {}\n\n", "=?utf-8?b?4oKs?= ".repeat(60_000)),
        format!("From: {}\nReferences: {}\n\n", "<\"(".repeat(300_000), "<".repeat(300_000)),
        format!("Content-Type: {}\n\nx", "a/b; c*0*=".repeat(100_000)),
        format!("Content-Type: text/html\n\n{}", "<!--<&".repeat(300_000)),
        format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\nContent-Type: a/b\n\nx\n".repeat(5_000)),
    ] {
        assert!(evaluate(&raw, everything).unwrap().is_array());
    }
}

#[test]
fn a_message_is_parsed_and_decoded_once_whatever_is_read_of_it() {
    let message = Arc::new(Message::new(Bytes::from(LETTER.replace('\n', "\r\n"))));
    let content: *const _ = message.content();
    let call = call("a@example.com", "anna@example.org", Arc::clone(&message));
    let run = run_of(&call);
    let view = MessageView::new(Arc::new(call), run);
    let bounds = super::Bounds { string: 100, array: 100, map: 100 };
    let (first, again) = (view.text(bounds), view.clone().text(bounds));
    assert_eq!(first.as_str().as_ptr(), again.as_str().as_ptr());
    let of = |view: &MessageView| view.attachments(bounds)[0].clone().cast::<super::AttachmentView>().content_at();
    assert_eq!(of(&view), of(&view.clone()));
    assert_eq!(content, std::ptr::from_ref(message.content()));
}
