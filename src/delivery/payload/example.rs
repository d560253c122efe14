//! The message that every format's tests read, and who brought it.

use bytes::Bytes;
use std::sync::Arc;

use super::Source;
use crate::config::Secret;
use crate::mail::authentication::{Check, Dkim};
use crate::mail::{Address, Authentication, Client, Envelope, MessageId, Recipient, Timestamp, Tls};
use crate::store::Body;

/// An answer with HTML, a picture within and a file beside; the sender claims what is the server's to say.
pub const LETTER: &str = "Received: one\r\nReceived: two\r\nReturn-Path: <forged@example.org>\r\n\
    X-Mailgun-Spf: Forged\r\nX-Spam-Status: Forged\r\nrecipient: forged@example.com\r\ntoken[0]: forged\r\n\
    From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\nTo: \"B\" <team+sales@example.com>\r\nCc: c@example.net\r\n\
    Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Fri, 15 Jan 2027 08:00:00 +0000\r\nMessage-ID: <m1@example.org>\r\n\
    In-Reply-To: <r1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nJa & <nein>\r\n\r\n> Frage\r\n\
    --b\r\nContent-Type: text/html\r\n\r\n<p>Ja</p>\r\n\
    --b\r\nContent-Type: image/png\r\nContent-ID: <pic>\r\nContent-Disposition: inline; filename=\"../p\\\"x.png\"\r\n\
    Content-Transfer-Encoding: base64\r\n\r\niVBO\r\n\
    --b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"x.pdf\"\r\n\
    Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--b--\r\n";

pub fn source(raw: &str) -> Source {
    let recipient = Address::parse("team+sales@example.com").unwrap();
    let envelope = Envelope {
        sender: Some(Address::parse("ann@example.org").unwrap()),
        recipients: vec![
            Recipient::new(recipient.clone()),
            Recipient::new(Address::parse("other@example.com").unwrap()),
        ],
        ..Envelope::default()
    };
    let mut auth = Authentication::default();
    auth.spf.result = Check::SoftFail;
    auth.spf.domain = "example.org".to_owned();
    let key =
        |domain: &str, result| Dkim { result, domain: domain.to_owned(), selector: "s1".to_owned(), ..Dkim::default() };
    auth.dkim = vec![key("example.org", Check::Pass), key("example.net", Check::Fail)];
    let client = Client {
        ip: [192, 0, 2, 7].into(),
        port: 5000,
        listener: "mx".to_owned(),
        helo: Some("mx.example.org".to_owned()),
        esmtp: true,
        tls: Some(Tls { version: "TLSv1.3".to_owned(), cipher: "x".to_owned(), sni: None }),
        ptr: None,
        auth: Some(Arc::new(auth)),
        origin: crate::mail::Origin::default(),
    };
    Source {
        id: "msg_X_0".to_owned(),
        message: MessageId::floor(Timestamp::from_millis(1_800_000_000_000)),
        attempt: 2,
        recipient,
        subaddress: "+".to_owned(),
        body: Body {
            envelope,
            client: Some(client),
            head: Bytes::new(),
            raw: Bytes::copy_from_slice(raw.as_bytes()).into(),
        },
        authserv_id: "mx.example.com".to_owned(),
        raw: Bytes::copy_from_slice(raw.as_bytes()),
        key: Some(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned())),
        now: Timestamp::from_millis(1_800_000_001_000),
    }
}

/// A form's parts, read as a consumer does: name, file name, type, content.
pub fn parts(payload: &super::Payload) -> Vec<(String, Option<String>, Option<String>, String)> {
    let boundary = payload.content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let body = String::from_utf8_lossy(&payload.body).into_owned();
    let inner = body.strip_suffix(&format!("--{boundary}--\r\n")).unwrap().to_owned();
    let read = |part: &str| {
        let (head, content) = part.split_once("\r\n\r\n").unwrap();
        let of = |name: &str| {
            let value = head.split_once(&format!("{name}=\""))?.1;
            Some(value.split_once('"')?.0.to_owned())
        };
        let kind = head.split_once("Content-Type: ").map(|(_, kind)| kind.to_owned());
        (of("; name").unwrap(), of("; filename"), kind, content.strip_suffix("\r\n").unwrap().to_owned())
    };
    inner.split(&format!("--{boundary}\r\n")).skip(1).map(read).collect()
}
