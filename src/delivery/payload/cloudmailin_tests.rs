//! A message as CloudMailin posts it.

use serde_json::{Value, json};

use super::super::example::{LETTER, source};
use super::*;

fn made(source: &Source, size: Size) -> Value {
    let payload = payload(source, size);
    assert!(payload.is_json());
    serde_json::from_slice(&payload.body).unwrap()
}

#[test]
fn the_whole_object_is_as_its_consumers_read_it() {
    let expected = json!({
        "headers": {
            "received": ["one", "two"],
            "return_path": "<forged@example.org>",
            "x_mailgun_spf": "Forged",
            "x_spam_status": "Forged",
            "recipient": "forged@example.com",
            "token[0]": "forged",
            "from": "Jürgen <j@example.org>",
            "to": "\"B\" <team+sales@example.com>",
            "cc": "c@example.net",
            "subject": "Grüße",
            "date": "Fri, 15 Jan 2027 08:00:00 +0000",
            "message_id": "<m1@example.org>",
            "in_reply_to": "<r1@example.com>",
            "mime_version": "1.0",
            "content_type": "multipart/mixed; boundary=b",
        },
        "envelope": {
            "to": "team+sales@example.com",
            "recipients": ["team+sales@example.com", "other@example.com"],
            "from": "ann@example.org",
            "helo_domain": "mx.example.org",
            "remote_ip": "192.0.2.7",
            "tls": true,
            "spamd": { "score": "0.0", "success": true, "symbols": [], "description": "ham" },
            "spf": { "result": "softfail", "domain": "example.org" },
            "dkim": {
                "success": true,
                "result": [
                    { "result": "pass", "domain": "example.org", "selector": "s1" },
                    { "result": "fail", "domain": "example.net", "selector": "s1" },
                ],
            },
            "dmarc": {
                "success": false,
                "result": "none",
                "details": { "domain": "", "policy": "", "spf_result": "softfail" },
            },
        },
        "plain": "Ja & <nein>\r\n\r\n> Frage",
        "html": "<p>Ja</p>",
        "reply_plain": "Ja & <nein>",
        "attachments": [
            { "content": "iVBO", "file_name": "p_x.png", "content_type": "image/png", "size": 3, "disposition": "inline", "content_id": "pic" },
            { "content": "aGVsbG8=", "file_name": "x.pdf", "content_type": "application/pdf", "size": 5, "disposition": "attachment", "content_id": null },
        ],
        "mailworker": {
            "message_id": source(LETTER).message.to_string(),
            "attempt": 2,
            "truncated": { "headers": false, "text": false, "html": false, "attachments": false },
        },
    });
    assert_eq!(made(&source(LETTER), Size::Full), expected);
}

#[test]
fn what_was_not_looked_into_is_not_there_and_a_thin_object_says_what_it_leaves_out() {
    let mut bare = source(LETTER);
    bare.body.client = None;
    let all = made(&bare, Size::Thin);
    assert_eq!((all["envelope"].get("spf"), &all["envelope"]["tls"]), (None, &json!(false)));
    assert_eq!((&all["plain"], &all["attachments"]), (&Value::Null, &json!([])));
    assert_eq!(all["mailworker"]["truncated"]["text"], true);
}
