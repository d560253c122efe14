//! Webhooks that carry the message in a format which others know.

use std::collections::BTreeMap;

use crate::example::verify;
use crate::harness::{HttpSink, Setup};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const LETTER: &[u8] =
    b"From: Ann <ann@example.org>\r\nTo: support@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\
    MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain\r\n\r\nHello\r\n\
    --b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=x.pdf\r\n\
    Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--b--\r\n";

fn setup(hook: &HttpSink, rules: &str) -> Setup {
    let one = |binding: &str, more: &str| {
        let url = hook.url(&format!("/{binding}"));
        format!(
            "[[webhook]]\nbinding = \"{binding}\"\nurl = \"{url}\"\nsecret = {{ file = \"webhook.key\" }}\n{more}\n"
        )
    };
    let sections = one("HOOK", "") + &one("CLOUD", "format = \"cloudmailin\"");
    Setup::new().toml(&sections).rules(rules).file("webhook.key", &format!("{SECRET}\n"))
}

/// Every format comes signed as a whole, and says what kind of body it is.
#[test]
fn a_script_sends_the_message_in_every_format() {
    let hook = HttpSink::start();
    let rules = "fn email(message, env, ctx) {
        for format in [
            \"standard\", \"mailgun\", \"mailgun-mime\", \"sendgrid\", \"sendgrid-raw\", \"postmark\", \"cloudmailin\",
        ] {
            ctx.webhook(\"HOOK\", message.to_payload(format), #{ headers: #{ \"X-Format\": format } });
        }
        ctx.webhook(\"CLOUD\", message, #{ headers: #{ \"X-Format\": \"configured\" } });
        ctx.webhook(\"CLOUD\", message, #{ format: \"postmark\", headers: #{ \"X-Format\": \"said\" } });
    }";
    let server = setup(&hook, rules).start();
    server.send("ann@example.org", &["support@example.com"], LETTER).expect(250);
    let requests = hook.wait(9);
    server.settled();
    for request in &requests {
        verify(request, SECRET);
    }
    let by: BTreeMap<&str, _> = requests.iter().map(|request| (request.header("x-format"), request)).collect();
    assert_eq!(by["standard"].json()["data"]["attachments"][0]["content"], "aGVsbG8=");
    for format in ["postmark", "said"] {
        assert_eq!(by[format].json()["Attachments"][0]["Content"], "aGVsbG8=", "{format}");
        assert_eq!(by[format].json()["OriginalRecipient"], "support@example.com");
    }
    for format in ["cloudmailin", "configured"] {
        assert_eq!(by[format].json()["headers"]["subject"], "Grüße", "{format}");
        assert_eq!(by[format].json()["envelope"]["remote_ip"], "127.0.0.1");
        assert_eq!(by[format].header("content-type"), "application/json");
    }
    for (format, file, signed) in [("mailgun", "attachment-1", true), ("sendgrid", "attachment1", false)] {
        let boundary = by[format].header("content-type").strip_prefix("multipart/form-data; boundary=").unwrap();
        let body = String::from_utf8(by[format].body.clone()).unwrap();
        assert!(body.starts_with(&format!("--{boundary}\r\n")) && body.ends_with(&format!("--{boundary}--\r\n")));
        let part = format!(
            "; name=\"{file}\"; filename=\"x.pdf\"\r\nContent-Type: application/pdf\r\n\r\nhello\r\n--{boundary}"
        );
        assert!(body.contains(&part), "{body}");
        assert!(body.contains("; name=\"subject\"\r\n\r\nGrüße\r\n"), "{body}");
        assert_eq!(body.contains("; name=\"signature\"\r\n\r\n"), signed);
    }
    let letter = String::from_utf8_lossy(LETTER);
    for (format, field, ours, signed) in [
        ("mailgun-mime", "body-mime", "X-Mailgun-Incoming: Yes\r\nX-Envelope-From: ann@example.org\r\n", true),
        ("sendgrid-raw", "email", "Received: from client.example.org ", false),
    ] {
        let body = String::from_utf8(by[format].body.clone()).unwrap();
        let (_, whole) = body.split_once(&format!("; name=\"{field}\"\r\n\r\n")).unwrap();
        let (whole, _) = whole.split_once("\r\n--mailworker-").unwrap();
        assert!(whole.starts_with(ours) && whole.contains("\tby mx.example.com with ESMTP "), "{format}: {whole}");
        assert!(whole.ends_with(&*letter), "{format}: {whole}");
        assert_eq!(body.contains("; name=\"signature\"\r\n\r\n"), signed, "{format}");
    }
}

/// A route's webhook has the format of its `[[webhook]]`, and one that says 413 gets it without texts and files.
#[test]
fn a_route_sends_it_in_the_format_of_its_webhook() {
    let hook = HttpSink::start();
    hook.script(["413 Too Large"]);
    let route = "[[route]]\nmatch = \"support@example.com\"\naction = \"webhook\"\nto = [\"CLOUD\"]\n";
    let server = setup(&hook, "fn email(message, env, ctx) { message.drop(); }").toml(route).start();
    server.send("ann@example.org", &["support@example.com"], LETTER).expect(250);
    let requests = hook.wait(2);
    server.settled();
    let (full, thin) = (requests[0].json(), requests[1].json());
    assert_eq!((&full["plain"], &full["attachments"][0]["content"]), (&"Hello".into(), &"aGVsbG8=".into()));
    assert_eq!((&thin["plain"], &thin["attachments"]), (&().into(), &serde_json::json!([])));
    assert_eq!(thin["mailworker"]["truncated"]["attachments"], true);
}
