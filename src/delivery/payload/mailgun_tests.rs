//! A message as Mailgun posts it.

use super::super::example::{LETTER, parts, source};
use super::*;

fn fields(raw: &str, size: Size) -> Vec<(String, Option<String>, Option<String>, String)> {
    parts(&payload(&source(raw), size))
}

#[test]
fn the_whole_form_is_as_its_consumers_read_it() {
    let text = |name: &str, value: &str| (name.to_owned(), None, None, value.to_owned());
    let file = |name: &str, filename: &str, kind: &str, content: &str| {
        (name.to_owned(), Some(filename.to_owned()), Some(kind.to_owned()), content.to_owned())
    };
    let headers = concat!(
        r#"[["X-Mailgun-Incoming","Yes"],["X-Envelope-From","ann@example.org"],["X-Mailgun-Spf","SoftFail"],"#,
        r#"["X-Mailgun-Dkim-Check-Result","Pass"],["X-Mailgun-Sflag","No"],["X-Mailgun-Sscore","0.0"],"#,
        r#"["Received","one"],["Received","two"],["Return-Path","<forged@example.org>"],["X-Spam-Status","Forged"],"#,
        r#"["recipient","forged@example.com"],["token[0]","forged"],["From","Jürgen <j@example.org>"],"#,
        r#"["To","\"B\" <team+sales@example.com>"],["Cc","c@example.net"],["Subject","Grüße"],"#,
        r#"["Date","Fri, 15 Jan 2027 08:00:00 +0000"],["Message-ID","<m1@example.org>"],"#,
        r#"["In-Reply-To","<r1@example.com>"],["MIME-Version","1.0"],["Content-Type","multipart/mixed; boundary=b"]]"#,
    );
    let expected = vec![
        text("X-Mailgun-Incoming", "Yes"),
        text("X-Envelope-From", "ann@example.org"),
        text("X-Mailgun-Spf", "SoftFail"),
        text("X-Mailgun-Dkim-Check-Result", "Pass"),
        text("X-Mailgun-Sflag", "No"),
        text("X-Mailgun-Sscore", "0.0"),
        text("Received", "one"),
        text("Received", "two"),
        text("Return-Path", "<forged@example.org>"),
        text("X-Spam-Status", "Forged"),
        text("From", "Jürgen <j@example.org>"),
        text("To", "\"B\" <team+sales@example.com>"),
        text("Cc", "c@example.net"),
        text("Subject", "Grüße"),
        text("Date", "Fri, 15 Jan 2027 08:00:00 +0000"),
        text("Message-ID", "<m1@example.org>"),
        text("In-Reply-To", "<r1@example.com>"),
        text("MIME-Version", "1.0"),
        text("Content-Type", "multipart/mixed; boundary=b"),
        text("message-headers", headers),
        text("recipient", "team+sales@example.com"),
        text("sender", "ann@example.org"),
        text("from", "Jürgen <j@example.org>"),
        text("subject", "Grüße"),
        text("body-plain", "Ja & <nein>\r\n\r\n> Frage"),
        text("stripped-text", "Ja & <nein>"),
        text("stripped-signature", ""),
        text("body-html", "<p>Ja</p>"),
        text("stripped-html", "<p>Ja &amp; &lt;nein&gt;</p>"),
        file("attachment-1", "p_x.png", "image/png", "\u{fffd}PN"),
        file("attachment-2", "x.pdf", "application/pdf", "hello"),
        text("attachment-count", "2"),
        text("content-id-map", r#"{"<pic>":"attachment-1"}"#),
        text(
            "mailworker",
            &format!(
                "{{\"message_id\":\"{}\",\"attempt\":2,\"truncated\":{{\"headers\":false,\"text\":false,\"html\":false,\
                 \"attachments\":false}}}}",
                source(LETTER).message
            ),
        ),
    ];
    let all = fields(LETTER, Size::Full);
    assert_eq!(all[..all.len() - 3], expected);
    let names: Vec<&str> = all[all.len() - 3..].iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["signature", "timestamp", "token"]);
}

fn value(all: &[(String, Option<String>, Option<String>, String)], name: &str) -> Option<String> {
    let mut found = all.iter().filter(|(one, ..)| one == name).map(|(.., value)| value.clone());
    let value = found.next();
    assert_eq!(found.next(), None, "{name} stands once");
    value
}

/// As consumers verify it: HMAC-SHA256 of the timestamp and the token, by the key's text.
#[test]
fn the_signature_is_of_timestamp_and_token_and_the_token_of_the_try() {
    let all = fields(LETTER, Size::Full);
    let (timestamp, token) = (value(&all, "timestamp").unwrap(), value(&all, "token").unwrap());
    assert_eq!((timestamp.as_str(), token.len()), ("1800000001", 50));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let expected = hmac::sign(&key, format!("{timestamp}{token}").as_bytes());
    assert_eq!(value(&all, "signature").unwrap(), hex(expected.as_ref()));
    let mut again = source(LETTER);
    again.attempt = 3;
    assert_ne!(value(&parts(&payload(&again, Size::Full)), "token").unwrap(), token);
    assert_ne!(value(&fields(LETTER, Size::Thin), "token").unwrap(), token, "413, and once more");
    again.key = None;
    let unsigned = parts(&payload(&again, Size::Full));
    assert_eq!((value(&unsigned, "signature"), value(&unsigned, "token").is_some()), (None, true));
}

#[test]
fn a_sender_writes_no_field_of_ours() {
    let raw = "Recipient: x\r\nTOKEN: x\r\nSignature: x\r\nbody-plain: x\r\nBody_Mime: x\r\nattachment-1: x\r\n\
        from: a@example.org\r\nevent: x\r\nX-Mailgun-Sflag: No\r\nx-envelope-from: x\r\na\"b: x\r\nX-Fine: x\r\n\r\ntext";
    let all = fields(raw, Size::Full);
    let names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
    for name in ["Recipient", "TOKEN", "Signature", "Body_Mime", "attachment-1", "event", "x-envelope-from"] {
        assert!(!names.contains(&name), "{name} in {names:?}");
    }
    assert!(names.contains(&"X-Fine") && names.iter().all(|name| !name.contains("%22")));
    assert_eq!(value(&all, "body-plain").unwrap(), "text");
    assert_eq!(value(&all, "from").unwrap(), "a@example.org");
}

#[test]
fn a_thin_form_has_no_files_and_no_texts_and_says_so() {
    let all = fields(LETTER, Size::Thin);
    assert_eq!(value(&all, "attachment-count").unwrap(), "0");
    assert_eq!((value(&all, "body-plain").unwrap().as_str(), value(&all, "body-html")), ("", None));
    let ours = value(&all, "mailworker").unwrap();
    assert!(ours.contains(r#""text":true,"html":true,"attachments":true"#), "{ours}");
}

#[test]
fn the_same_try_is_the_same_octets_and_no_sender_knows_the_boundary() {
    let first = payload(&source(LETTER), Size::Full);
    let again = payload(&source(LETTER), Size::Full);
    assert_eq!((&first.content_type, &first.body), (&again.content_type, &again.body));
    let boundary = first.content_type.rsplit_once('=').unwrap().1.to_owned();
    let with_it = LETTER.replace("hello", "x").replace("Ja &", &format!("\r\n--{boundary}\r\n\r\nJa &"));
    let other = payload(&source(&with_it), Size::Full);
    assert_ne!(other.content_type, first.content_type);
    parts(&other);
}

#[test]
fn octets_that_are_no_text_make_a_form_all_the_same() {
    for raw in ["", "\r\n", "Subject\r\n: x\r\n\r\n\0", "Content-Type: a/b\"; name=\"\r\n x\"\r\n\r\nx"] {
        fields(raw, Size::Full);
    }
    let many = "X-A: b\r\n".repeat(3_000);
    assert!(fields(&many, Size::Full).len() < 600, "consumers read a thousand fields at most");
}

#[test]
fn the_message_itself_goes_with_our_fields_and_without_what_is_forged() {
    let mut whole = source(LETTER);
    whole.body.head = "Received: by us\r\n".into();
    let all = parts(&mime(&whole, Size::Full));
    let names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
    let expected =
        ["recipient", "sender", "from", "subject", "body-mime", "mailworker", "signature", "timestamp", "token"];
    assert_eq!(names, expected);
    let ours = "X-Mailgun-Incoming: Yes\r\nX-Envelope-From: ann@example.org\r\nX-Mailgun-Spf: SoftFail\r\n\
                X-Mailgun-Dkim-Check-Result: Pass\r\nX-Mailgun-Sflag: No\r\nX-Mailgun-Sscore: 0.0\r\nReceived: by us\r\n";
    assert_eq!(all[4].3, format!("{ours}{}", LETTER.replace("X-Mailgun-Spf: Forged\r\n", "")));
    assert!(all[5].3.ends_with(r#""truncated":{"headers":false,"text":false,"html":false,"attachments":false}}"#));
    // An endpoint that takes no more gets the header section.
    let thin = parts(&mime(&whole, Size::Thin));
    assert!(thin[4].3.starts_with(ours) && thin[4].3.ends_with("boundary=b\r\n\r\n"), "{}", thin[4].3);
    assert!(thin[5].3.ends_with(r#""truncated":{"headers":false,"text":true,"html":true,"attachments":true}}"#));
}

#[test]
fn octets_that_are_no_text_go_as_they_are() {
    let mut odd = source("");
    odd.raw = b"Subject: \xff\r\n\r\n\x00\xfe--\r\n".to_vec().into();
    let payload = mime(&odd, Size::Full);
    let all = payload.body.windows(odd.raw.len()).filter(|octets| **octets == odd.raw);
    assert_eq!(all.count(), 1);
}
