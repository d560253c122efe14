//! A message as Postmark posts it.

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
    let header = |name: &str, value: &str| json!({ "Name": name, "Value": value });
    let b = json!({ "Email": "team+sales@example.com", "Name": "B", "MailboxHash": "sales" });
    let expected = json!({
        "FromName": "Jürgen",
        "MessageStream": "inbound",
        "From": "j@example.org",
        "FromFull": { "Email": "j@example.org", "Name": "Jürgen", "MailboxHash": "" },
        "To": "\"B\" <team+sales@example.com>",
        "ToFull": [b],
        "Cc": "c@example.net",
        "CcFull": [{ "Email": "c@example.net", "Name": "", "MailboxHash": "" }],
        "Bcc": "",
        "BccFull": [],
        "OriginalRecipient": "team+sales@example.com",
        "Subject": "Grüße",
        "MessageID": uuid("msg_X_0"),
        "ReplyTo": "",
        "MailboxHash": "sales",
        "Date": "Fri, 15 Jan 2027 08:00:00 +0000",
        "TextBody": "Ja & <nein>\r\n\r\n> Frage",
        "HtmlBody": "<p>Ja</p>",
        "StrippedTextReply": "Ja & <nein>",
        "Tag": "",
        "Headers": [
            header("Return-Path", "<ann@example.org>"),
            header("Received-SPF", "SoftFail identity=mailfrom; client-ip=192.0.2.7; helo=mx.example.org; envelope-from=ann@example.org"),
            header("X-Spam-Status", "No"),
            header("X-Spam-Score", "0.0"),
            header("X-Spam-Tests", ""),
            header("Received", "one"),
            header("Received", "two"),
            header("X-Mailgun-Spf", "Forged"),
            header("recipient", "forged@example.com"),
            header("token[0]", "forged"),
            header("Message-ID", "<m1@example.org>"),
            header("In-Reply-To", "<r1@example.com>"),
            header("MIME-Version", "1.0"),
        ],
        "Attachments": [
            { "Name": "p_x.png", "Content": "iVBO", "ContentType": "image/png", "ContentLength": 3, "ContentID": "pic" },
            { "Name": "x.pdf", "Content": "aGVsbG8=", "ContentType": "application/pdf", "ContentLength": 5 },
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
fn an_id_is_of_the_delivery_and_a_uuid() {
    let (mut first, mut second) = (source(LETTER), source(LETTER));
    let id = |source: &Source| made(source, Size::Full)["MessageID"].as_str().unwrap().to_owned();
    first.attempt = 7;
    assert_eq!(id(&first), id(&second));
    second.id = "msg_X_1".to_owned();
    assert_ne!(id(&first), id(&second));
    let id = id(&first);
    let lengths: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!((lengths, &id[14..15]), (vec![8, 4, 4, 4, 12], "8"));
}

#[test]
fn who_is_named_in_no_field_got_it_blind_and_what_is_no_answer_has_none() {
    let all = made(&source("To: other@example.com\r\n\r\nHello"), Size::Full);
    assert_eq!(all["Bcc"], "team+sales@example.com");
    assert_eq!(all["BccFull"][0]["MailboxHash"], "sales");
    assert_eq!((&all["StrippedTextReply"], &all["TextBody"]), (&json!(""), &json!("Hello")));
    assert_eq!(all["FromFull"], json!({ "Email": "", "Name": "", "MailboxHash": "" }));
}

#[test]
fn a_thin_object_says_what_it_leaves_out() {
    let all = made(&source(LETTER), Size::Thin);
    assert_eq!((&all["Attachments"], &all["TextBody"], &all["Subject"]), (&json!([]), &json!(""), &json!("Grüße")));
    assert_eq!(all["mailworker"]["truncated"]["attachments"], true);
}
