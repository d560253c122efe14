//! As SendGrid's Inbound Parse posts a message: a form with the header as text, the texts, and files.

use serde_json::{Map, json};
use std::fmt::Write as _;

use super::contents::Contents;
use super::form::Form;
use super::{Payload, Size, Source};
use crate::mail::Message;

#[must_use]
pub fn payload(source: &Source, size: Size) -> Payload {
    form(source, size, false)
}

/// As it posts one with «raw» chosen: the message itself in place of header, texts and files.
#[must_use]
pub fn raw(source: &Source, size: Size) -> Payload {
    form(source, size, true)
}

fn form(source: &Source, size: Size, is_raw: bool) -> Payload {
    let message = Message::received_by(&source.authserv_id, source.raw.clone());
    let mut contents = Contents::new(source, &message, size);
    let mut form = Form::default();
    if is_raw {
        form.octets("email", contents.whole(&[], |_| false));
    } else {
        form.text("headers", head(&contents));
    }
    form.text("dkim", dkim(&contents));
    for (name, field) in [("to", "To"), ("cc", "Cc"), ("from", "From"), ("subject", "Subject")] {
        if name != "cc" || message.has_header(field) {
            form.text(name, contents.header(field));
        }
    }
    if !is_raw {
        form.text("text", contents.text.as_deref().unwrap_or_default());
    }
    if let Some(html) = contents.html.as_ref().filter(|_| !is_raw) {
        form.text("html", &**html);
    }
    form.text("sender_ip", contents.client().map_or_else(String::new, |client| client.ip.to_string()));
    form.json("envelope", &json!({ "to": [contents.recipient()], "from": contents.sender() }));
    let mut names = vec!["to", "cc", "from", "subject"];
    if !is_raw {
        files(&mut contents, &mut form);
        names.extend(["text", "html"]);
    }
    let charsets: Map<_, _> = names.into_iter().map(|name| (name.to_owned(), json!("UTF-8"))).collect();
    form.json("charsets", &charsets);
    form.text("SPF", contents.auth().map_or("none", |auth| auth.spf.result.word()));
    form.text("spam_score", contents.score());
    form.text("spam_report", report(&contents));
    form.json("mailworker", &contents.ours());
    form.finish(&source.id)
}

/// The header as received, within its bound; lines end with LF.
fn head(contents: &Contents) -> String {
    let mut head = String::new();
    for field in &contents.fields {
        let _infallible = writeln!(head, "{}:{}", field.name, field.raw.replace("\r\n", "\n").trim_end_matches('\n'));
    }
    head
}

/// As in `{@example.org : pass}`.
fn dkim(contents: &Contents) -> String {
    let keys = contents.auth().map(|auth| auth.dkim.as_slice()).unwrap_or_default();
    let keys: Vec<String> = keys.iter().map(|key| format!("@{} : {}", key.domain, key.result.word())).collect();
    if keys.is_empty() { "none".to_owned() } else { format!("{{{}}}", keys.join(", ")) }
}

fn files(contents: &mut Contents, form: &mut Form) {
    let (mut about, mut ids, mut count) = (Map::new(), Map::new(), 0);
    contents.attached(|file| {
        count += 1;
        let name = format!("attachment{count}");
        let mut item = Map::from_iter([
            ("filename".to_owned(), json!(file.safe_name)),
            ("name".to_owned(), json!(file.safe_name)),
            ("type".to_owned(), json!(file.part.content_type)),
        ]);
        if let Some(id) = &file.part.content_id {
            item.insert("content-id".to_owned(), json!(id));
            ids.insert(id.clone(), json!(name));
        }
        about.insert(name.clone(), item.into());
        form.file(&name, &file.safe_name, &file.part.content_type, file.content);
    });
    form.text("attachments", count.to_string());
    if count > 0 {
        form.json("attachment-info", &about);
    }
    if !ids.is_empty() {
        form.json("content-ids", &ids);
    }
}

fn report(contents: &Contents) -> String {
    let mut report = format!("{}: {} points", contents.spam.verdict, contents.score());
    for (name, points) in &contents.spam.symbols {
        let _infallible = write!(report, "\n{points:.1} {name}");
    }
    report
}

#[cfg(test)]
#[path = "sendgrid_tests.rs"]
mod tests;
