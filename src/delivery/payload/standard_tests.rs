//! What the standard payload says of a message.

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::contents::{MAX_FIELDS, MAX_NAME, MAX_TEXT, safe_name};
use super::*;
use crate::mail::authentication::Check;
use crate::mail::{MessageId, Recipient, Timestamp};
use crate::store::Body;

fn made(raw: &[u8], size: Size) -> Value {
    let recipient = Address::parse("Team+Sales@example.com").unwrap();
    let mut rcpt = Recipient::new(recipient.clone());
    rcpt.orcpt = Some("rfc822;team@example.com".to_owned());
    let envelope = Envelope {
        sender: Some(Address::parse("ann@example.org").unwrap()),
        recipients: vec![rcpt, Recipient::new(Address::parse("other@example.com").unwrap())],
        ..Envelope::default()
    };
    let source = Source {
        id: "msg_X_0".to_owned(),
        message: MessageId::floor(Timestamp::from_millis(1_800_000_000_000)),
        attempt: 3,
        recipient,
        subaddress: "+".to_owned(),
        body: Body { envelope, client: None, head: Bytes::new(), raw: Bytes::copy_from_slice(raw).into() },
        authserv_id: "mx.example.com".to_owned(),
        raw: Bytes::copy_from_slice(raw),
        key: None,
        now: Timestamp::from_millis(1_800_000_001_000),
    };
    let payload = payload(&source, size);
    assert_eq!(payload.content_type, "application/json");
    serde_json::from_slice(&payload.body).unwrap()
}

const MIXED: &str = "Received: one\r\nReceived: two\r\nFrom: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\n\
    To: a@example.com, \"B\" <b@example.com>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <m1@example.org>\r\n\
    References: <r1@x> <r2@x>\r\nList-Id: <l.example.org>\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nh=FCbsch\r\n\
    --b\r\nContent-Type: application/pdf; name=\"../../x.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\
    Content-Disposition: attachment; filename=\"../../x.pdf\"\r\n\r\naGVsbG8=\r\n--b--\r\n";

#[test]
fn the_whole_message_is_there() {
    let all = made(MIXED.as_bytes(), Size::Full);
    assert_eq!((&all["type"], &all["id"], &all["schema"]), (&json!("email.received"), &json!("msg_X_0"), &json!(1)));
    assert_eq!(all["timestamp"], "2027-01-15T08:00:01.000Z");
    let data = &all["data"];
    assert_eq!((&data["attempt"], &data["rfc_message_id"]), (&json!(3), &json!("m1@example.org")));
    assert_eq!(data["received_at"], "2027-01-15T08:00:00.000Z");
    assert_eq!(data["subject"], "Grüße");
    assert_eq!(data["from"], json!([{ "name": "Jürgen", "address": "j@example.org" }]));
    assert_eq!(data["to"][1], json!({ "name": "B", "address": "b@example.com" }));
    assert_eq!(data["references"], json!(["r1@x", "r2@x"]));
    assert_eq!(data["list"]["id"], "<l.example.org>");
    assert_eq!((&data["text"], &data["html"]), (&json!("hübsch"), &Value::Null));
    assert_eq!(data["raw"]["size"], MIXED.len());
    assert_eq!(data["truncated"], json!({ "headers": false, "text": false, "html": false, "attachments": false }));
}

#[test]
fn the_envelope_is_the_servers_and_not_the_headers() {
    let envelope = &made(MIXED.as_bytes(), Size::Full)["data"]["envelope"];
    assert_eq!(envelope["mail_from"], "ann@example.org");
    assert_eq!(envelope["rcpt_to"], "Team+Sales@example.com");
    assert_eq!(envelope["recipients"], json!(["Team+Sales@example.com", "other@example.com"]));
    assert_eq!(envelope["subaddress"], json!({ "user": "Team", "tag": "Sales" }));
    assert_eq!(envelope["dsn"]["orcpt"], "rfc822;team@example.com");
}

#[test]
fn what_is_known_of_the_sender_is_there_in_the_words_that_a_script_reads() {
    assert_eq!(made(MIXED.as_bytes(), Size::Full)["data"]["auth"], Value::Null, "nothing was looked into");
    let mut found = Authentication::default();
    found.spf.result = Check::Pass;
    found.dmarc.aligned_spf = true;
    let auth = serde_json::to_value(authenticated(&found)).unwrap();
    assert_eq!((&auth["from_authenticated"], &auth["spf"]["result"]), (&json!(true), &json!("pass")));
    assert_eq!((&auth["spf"]["scope"], &auth["dmarc"]["result"]), (&json!("mfrom"), &json!("none")));
    assert_eq!((&auth["dkim"], &auth["iprev"]["result"]), (&json!([]), &json!("none")));
}

#[test]
fn a_field_that_pretends_to_be_ours_is_not_told() {
    let raw = b"Authentication-Results: mx.example.com; dmarc=pass\r\nSubject: x\r\n\r\nwords\r\n";
    let headers = made(raw, Size::Full)["data"]["headers"].clone();
    assert_eq!((&headers[0]["name"], headers.as_array().unwrap().len()), (&json!("Subject"), 1));
}

#[test]
fn header_fields_keep_their_order_and_repetitions() {
    let all = made(MIXED.as_bytes(), Size::Full);
    let headers = all["data"]["headers"].as_array().unwrap();
    assert_eq!((&headers[0]["value"], &headers[1]["value"]), (&json!("one"), &json!("two")));
    assert_eq!(headers[4], json!({ "name": "Subject", "value": "Grüße", "raw": " =?utf-8?q?Gr=C3=BC=C3=9Fe?=" }));
}

#[test]
fn an_attachment_comes_decoded_and_its_name_leads_nowhere() {
    let attachment = made(MIXED.as_bytes(), Size::Full)["data"]["attachments"][0].clone();
    assert_eq!((&attachment["content"], &attachment["size"]), (&json!("aGVsbG8="), &json!(5)));
    assert_eq!(attachment["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!((&attachment["filename"], &attachment["safe_filename"]), (&json!("../../x.pdf"), &json!("x.pdf")));
    for (given, safe) in [
        (Some("..\\..\\a b.txt"), "a b.txt"),
        (Some(".bashrc"), "bashrc"),
        (Some("a\r\n\0.txt"), "a___.txt"),
        (Some("/etc/"), "attachment-4"),
        (Some(".."), "attachment-4"),
        (None, "attachment-4"),
    ] {
        assert_eq!(safe_name(given, 4), safe);
    }
    assert_eq!(safe_name(Some(&"ü".repeat(500)), 1).len(), MAX_NAME);
}

#[test]
fn a_thin_payload_says_what_it_leaves_out() {
    let data = made(MIXED.as_bytes(), Size::Thin)["data"].clone();
    assert_eq!(data["attachments"][0]["size"], 5);
    assert!(data["attachments"][0].get("content").is_none());
    assert_eq!((&data["text"], &data["html"], &data["subject"]), (&json!(null), &json!(null), &json!("Grüße")));
    assert_eq!(data["truncated"], json!({ "headers": false, "text": true, "html": false, "attachments": true }));
    assert!(data["message_id"].is_string() && data["raw"]["sha256"].is_string());
}

#[test]
fn text_made_from_html_says_so() {
    let html = b"Content-Type: text/html\r\n\r\n<p>Hello</p>\r\n";
    let data = made(html, Size::Full)["data"].clone();
    assert_eq!((&data["text_from_html"], data["text"].as_str().unwrap().trim()), (&json!(true), "Hello"));
    assert_eq!(made(b"\r\nHello\r\n", Size::Full)["data"]["text_from_html"], false);
}

#[test]
fn what_is_out_of_bounds_is_cut_and_said_so() {
    let mut long = "X-A: b\r\n".repeat(3_000);
    long.push_str("\r\n");
    long.push_str(&"ü".repeat(MAX_TEXT));
    let data = made(long.as_bytes(), Size::Full)["data"].clone();
    assert_eq!(data["truncated"], json!({ "headers": true, "text": true, "html": false, "attachments": false }));
    assert_eq!(data["headers"].as_array().unwrap().len(), MAX_FIELDS);
    assert_eq!(data["text"].as_str().unwrap().len(), MAX_TEXT);
}

#[test]
fn octets_that_are_no_text_make_no_broken_json() {
    let data = made(b"Subject: \xff\xfe\0\r\n\r\n\0\xff\r\n", Size::Full)["data"].clone();
    assert_eq!(data["subject"], "ÿþ\u{fffd}", "read as Latin-1");
    made(b"", Size::Full);
}
