//! What is written is read again as it was meant, by the parser that reads what comes in.

use super::*;
use crate::mail::Message;

const NOW: Timestamp = Timestamp::from_millis(1_795_511_702_123);

fn named(text: &str) -> Named {
    Named { name: None, address: Address::parse(text).unwrap() }
}

fn draft() -> Draft {
    Draft {
        purpose: Purpose::New,
        from: Named { name: Some("Bücher, Inc.".into()), ..named("shop@example.com") },
        to: vec![named("ann@example.org"), Named { name: Some("Bob \"B\" Ø".into()), ..named("bob@bücher.example") }],
        cc: Vec::new(),
        bcc: vec![named("secret@example.org")],
        reply_to: vec![named("team@example.com")],
        subject: "Grüße\u{a0}aus dem Lager, und ein Betreff, der länger ist als eine einzige Zeile es sein darf".into(),
        text: Some("One\n.two\r\nthree = drei €\n".into()),
        html: None,
        headers: vec![("X-Order".into(), "17".into()), ("X-Name".into(), "Bücher".into())],
        attachments: Vec::new(),
        null_sender: false,
        hops: 0,
    }
}

fn enclosure(filename: &str, content_id: Option<&str>) -> Enclosure {
    Enclosure {
        filename: Some(filename.into()),
        content_type: "text/csv".into(),
        content: bytes::Bytes::from_static(b"a;b\n\0\xff\rc"),
        content_id: content_id.map(str::to_owned),
        inline: content_id.is_some(),
    }
}

fn written(draft: &Draft) -> (String, Message) {
    let octets = write(draft, MessageId::new(NOW, 7), NOW, "mx.example.com");
    let text = String::from_utf8(octets.clone()).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
    assert!(text.split("\r\n").all(|line| line.len() <= 998), "{text}");
    (text, Message::new(octets.into()))
}

#[test]
fn what_is_written_is_read_again() {
    let draft = draft();
    let (text, message) = written(&draft);
    assert!(text.is_ascii() && !text.contains("secret"), "{text}");
    assert_eq!(message.subject().as_deref(), Some(draft.subject.as_str()));
    assert_eq!(message.text().as_deref(), Some("One\r\n.two\r\nthree = drei €\r\n"));
    let from = message.addresses("From");
    assert_eq!(from[0].name.as_deref(), Some("Bücher, Inc."));
    let to = message.addresses("To");
    assert_eq!(to[1].name.as_deref(), Some("Bob \"B\" Ø"));
    assert_eq!(to[1].address.as_deref(), Some("bob@xn--bcher-kva.example"));
    assert_eq!(message.header("X-Name").as_deref(), Some("Bücher"));
    assert_eq!(message.header("Auto-Submitted").as_deref(), Some("auto-generated"));
    assert_eq!(message.header(HOPS).as_deref(), Some("1"));
    assert_eq!(message.message_id(), Some(format!("{}@mx.example.com", MessageId::new(NOW, 7))));
    assert_eq!(message.date().unwrap().as_millis(), 1_795_511_702_000);
    assert!(message.is_auto());
}

#[test]
fn texts_pictures_and_files_have_their_containers() {
    let mut draft = draft();
    draft.html = Some("<p>One <img src=\"cid:logo\"></p>".into());
    draft.attachments = vec![enclosure("Zahlen für März.csv", None), enclosure("logo", Some("logo"))];
    let (text, message) = written(&draft);
    let kinds: Vec<&str> = ["mixed", "alternative", "related"].into_iter().filter(|kind| text.contains(kind)).collect();
    assert_eq!(kinds, ["mixed", "alternative", "related"]);
    assert_eq!(message.html().as_deref(), Some("<p>One <img src=\"cid:logo\"></p>"));
    let files = message.attachments();
    assert_eq!(files.len(), 2, "{files:?}");
    let sheet = files.iter().find(|file| file.filename.as_deref() == Some("Zahlen für März.csv")).unwrap();
    assert_eq!(sheet.content(message.raw()), draft.attachments[0].content);
    let logo = files.iter().find(|file| file.content_id.as_deref() == Some("logo")).unwrap();
    assert!(logo.inline);
}

#[test]
fn an_answer_stands_in_its_thread() {
    let mut draft = draft();
    let references: Vec<String> = (0..20).map(|n| format!("{n}.{}@example.org", "x".repeat(60))).collect();
    let once = crate::mail::draft::Once { key: "k".into(), every: 1 };
    draft.purpose = Purpose::Reply { in_reply_to: references.last().cloned(), references: references.clone(), once };
    let (_, message) = written(&draft);
    assert_eq!(message.ids("References"), references);
    assert_eq!(message.ids("In-Reply-To"), references[19..]);
    assert_eq!(message.header("Auto-Submitted").as_deref(), Some("auto-replied"));
}

#[test]
fn a_local_part_beyond_ascii_stands_as_it_is() {
    let mut draft = draft();
    assert!(!is_utf8(&draft));
    draft.to = vec![named("bücher@bücher.example")];
    assert!(is_utf8(&draft));
    assert!(written(&draft).0.contains("<bücher@bücher.example>"));
}

#[test]
fn what_looks_like_an_encoded_word_is_read_as_it_stands() {
    let long = format!("{} ü =?x", "=?utf-8?Q?a?= ".repeat(20));
    for text in ["=?utf-8?q?no?=", "Re: =?utf-8?B?bm8=?= and more", long.as_str()] {
        let mut draft = draft();
        draft.subject = text.into();
        draft.headers = vec![("X-Text".into(), text.into())];
        let (octets, message) = written(&draft);
        assert_eq!(message.subject().as_deref(), Some(text));
        assert_eq!(message.header("X-Text").as_deref(), Some(text));
        let words = octets.split_whitespace().filter(|word| word.starts_with("=?"));
        assert!(words.clone().count() >= 2 && words.clone().all(|word| word.len() <= 75), "{octets}");
        assert!(octets.split("\r\n").all(|line| line.len() <= 78), "{octets}");
    }
}

#[test]
fn a_field_of_addresses_or_ids_stands_as_it_was_written() {
    let mut draft = draft();
    let value = "=?utf-8?q?B=C3=BCcher?= <list.example.com>";
    draft.headers = vec![("List-Id".into(), value.into())];
    let (text, message) = written(&draft);
    assert!(text.contains(&format!("\r\nList-Id: {value}\r\n")), "{text}");
    assert_eq!(message.header("List-Id").as_deref(), Some("Bücher <list.example.com>"));
}

fn of_kind(content_type: &str, content: &[u8]) -> Enclosure {
    let content = bytes::Bytes::copy_from_slice(content);
    Enclosure { content_type: content_type.into(), content, ..enclosure("a", None) }
}

#[test]
fn a_message_and_what_has_parts_go_along_unencoded() {
    let mut draft = draft();
    draft.text = Some("plain".into());
    draft.attachments = vec![of_kind("Message/RFC822", b"Subject: one\n\n\xc3\xbc.\r\n")];
    let octets = write(&draft, MessageId::new(NOW, 7), NOW, "mx.example.com");
    let text = String::from_utf8(octets).unwrap();
    let part = "Content-Type: Message/RFC822\r\nContent-Disposition: attachment; filename=\"a\"\r\n\
                Content-Transfer-Encoding: 8bit\r\n\r\nSubject: one\r\n\r\nü.\r\n\r\n--";
    assert!(text.contains(part), "{text}");
    let (head, _) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nContent-Transfer-Encoding: 8bit"), "what holds it says so, too: {head}");
    draft.attachments = vec![
        of_kind("message/rfc822", b"Subject: one\n\ntwo"),
        of_kind("multipart/mixed; boundary=b", b"--b\n\nx\n--b--\n"),
        of_kind("message/delivery-status", b"Reporting-MTA: dns; a\n"),
    ];
    let (text, _) = written(&draft);
    assert_eq!(text.matches("Content-Transfer-Encoding: 7bit\r\n\r\n").count(), 4, "{text}");
    assert!(!text.contains("base64") && !text.contains("8bit"), "{text}");
}

#[test]
fn what_has_parts_and_is_no_mail_goes_along_as_octets() {
    let long = format!("Subject: x\n\n{}\n", "x".repeat(MAX_LINE + 1));
    for (kind, content) in [
        ("message/rfc822", long.as_bytes()),
        ("message/rfc822", b"Subject: a\0\n\n"),
        ("multipart/mixed", b"--b\n\nx\n--b--\n"),
        ("message/delivery-status", "Reporting-MTA: dns; ü\n".as_bytes()),
    ] {
        let mut draft = draft();
        draft.attachments = vec![of_kind(kind, content)];
        let (text, message) = written(&draft);
        assert!(
            text.contains("Content-Type: application/octet-stream\r\n")
                && !text.contains(&format!("Content-Type: {kind}\r")),
            "{text}"
        );
        assert_eq!(message.attachments()[0].content(message.raw()), content);
    }
    let mut draft = draft();
    draft.attachments = vec![of_kind("message/global", "Subject: ü\n\n".as_bytes())];
    let (text, _) = written(&draft);
    assert!(text.contains("Content-Type: message/global\r\n") && text.contains("base64"), "{text}");
}
