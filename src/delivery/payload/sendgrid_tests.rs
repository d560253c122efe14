//! A message as SendGrid posts it.

use super::super::example::{LETTER, parts, source};
use super::*;

#[test]
fn the_whole_form_is_as_its_consumers_read_it() {
    let text = |name: &str, value: &str| (name.to_owned(), None, None, value.to_owned());
    let file = |name: &str, filename: &str, kind: &str, content: &str| {
        (name.to_owned(), Some(filename.to_owned()), Some(kind.to_owned()), content.to_owned())
    };
    let head = LETTER.split_once("\r\n\r\n").unwrap().0.replace("\r\n", "\n") + "\n";
    let ours = format!(
        "{{\"message_id\":\"{}\",\"attempt\":2,\"truncated\":{{\"headers\":false,\"text\":false,\"html\":false,\
         \"attachments\":false}}}}",
        source(LETTER).message
    );
    let expected = vec![
        text("headers", &head),
        text("dkim", "{@example.org : pass, @example.net : fail}"),
        text("to", "\"B\" <team+sales@example.com>"),
        text("cc", "c@example.net"),
        text("from", "Jürgen <j@example.org>"),
        text("subject", "Grüße"),
        text("text", "Ja & <nein>\r\n\r\n> Frage"),
        text("html", "<p>Ja</p>"),
        text("sender_ip", "192.0.2.7"),
        text("envelope", r#"{"to":["team+sales@example.com"],"from":"ann@example.org"}"#),
        file("attachment1", "p_x.png", "image/png", "\u{fffd}PN"),
        file("attachment2", "x.pdf", "application/pdf", "hello"),
        text("attachments", "2"),
        text(
            "attachment-info",
            concat!(
                r#"{"attachment1":{"filename":"p_x.png","name":"p_x.png","type":"image/png","content-id":"pic"},"#,
                r#""attachment2":{"filename":"x.pdf","name":"x.pdf","type":"application/pdf"}}"#
            ),
        ),
        text("content-ids", r#"{"pic":"attachment1"}"#),
        text(
            "charsets",
            r#"{"to":"UTF-8","cc":"UTF-8","from":"UTF-8","subject":"UTF-8","text":"UTF-8","html":"UTF-8"}"#,
        ),
        text("SPF", "softfail"),
        text("spam_score", "0.0"),
        text("spam_report", "ham: 0.0 points"),
        text("mailworker", &ours),
    ];
    assert_eq!(parts(&payload(&source(LETTER), Size::Full)), expected);
}

#[test]
fn a_message_without_anything_has_what_consumers_need() {
    let mut bare = source("\r\nHello");
    bare.body.client = None;
    bare.body.envelope.sender = None;
    let all = parts(&payload(&bare, Size::Full));
    let value = |name: &str| all.iter().find(|(one, ..)| one == name).map(|(.., value)| value.as_str());
    assert_eq!((value("dkim"), value("SPF"), value("sender_ip")), (Some("none"), Some("none"), Some("")));
    assert_eq!(value("envelope"), Some(r#"{"to":["team+sales@example.com"],"from":""}"#));
    assert_eq!((value("text"), value("html"), value("attachments")), (Some("Hello"), None, Some("0")));
    assert_eq!((value("attachment-info"), value("cc"), value("headers")), (None, None, Some("")));
}

#[test]
fn a_raw_one_has_the_message_itself_in_place_of_its_parts() {
    let mut whole = source(LETTER);
    whole.body.head = "Received: by us\r\n".into();
    let all = parts(&raw(&whole, Size::Full));
    let names: Vec<&str> = all.iter().map(|(name, ..)| name.as_str()).collect();
    let expected = [
        "email",
        "dkim",
        "to",
        "cc",
        "from",
        "subject",
        "sender_ip",
        "envelope",
        "charsets",
        "SPF",
        "spam_score",
        "spam_report",
        "mailworker",
    ];
    assert_eq!(names, expected);
    assert_eq!(all[0].3, format!("Received: by us\r\n{LETTER}"));
    assert_eq!(all[8].3, r#"{"to":"UTF-8","cc":"UTF-8","from":"UTF-8","subject":"UTF-8"}"#);
    let thin = parts(&raw(&whole, Size::Thin));
    assert!(thin[0].3.ends_with("boundary=b\r\n\r\n"), "{}", thin[0].3);
    assert!(thin[12].3.contains(r#""text":true"#), "{}", thin[12].3);
}
