//! The world outside as a test has it: `[[test.fetch]]`, `[[test.ai]]` and `[[test.dns]]` answer, and nobody else does.
//!
//! The first that fits answers, every time. What has no answer here ends the run, and its error says what to write.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::document::{At, NodeId};
use crate::rules::Reach;
use crate::rules::reach::{Answer, Asked, Failed, Record, Request};

/// What answers of one test.
#[derive(Debug, Default)]
pub struct World {
    pub fetch: Vec<At<Fetch>>,
    pub ai: Vec<At<Ai>>,
    pub dns: Vec<At<Dns>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// All of the URL; one that ends with `*`, what begins so.
    pub url: Option<String>,
    pub method: Option<String>,
    /// A part of the request's body.
    pub contains: Option<String>,
    pub status: Option<u16>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub json: Option<Value>,
    pub error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ai {
    pub model: Option<String>,
    /// A part of what is said.
    pub contains: Option<String>,
    /// The first choice's words.
    pub text: Option<String>,
    pub status: Option<u16>,
    pub json: Option<Value>,
    pub error: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// In place of both: a list of addresses, whoever the client is.
    pub dnsbl: Option<String>,
    pub answer: Option<Vec<Value>>,
    /// Of a list.
    pub text: Option<String>,
    pub error: Option<String>,
}

impl World {
    /// What is wrong with them: where, what, and on a second line what to do.
    #[must_use]
    pub fn findings(&self) -> Vec<(NodeId, String)> {
        let mut found = Vec::new();
        for At { value, node } in &self.fetch {
            if value.url.is_none() {
                found.push((*node, "`url` is missing\nurl = \"https://api.example.com/users/*\"".to_owned()));
            }
            if value.status.is_some_and(|status| !(100..=599).contains(&status)) {
                found.push((*node, "a status is from 100 to 599".to_owned()));
            }
            more_than_one(
                &mut found,
                *node,
                [("body", value.body.is_some()), ("json", value.json.is_some()), ("error", value.error.is_some())],
            );
        }
        for At { value, node } in &self.ai {
            if value.text.is_none() && value.json.is_none() && value.error.is_none() {
                found
                    .push((*node, "it has no answer\ntext = \"urgent\", or json = { … }, or error = \"…\"".to_owned()));
            }
            more_than_one(
                &mut found,
                *node,
                [("text", value.text.is_some()), ("json", value.json.is_some()), ("error", value.error.is_some())],
            );
        }
        for At { value, node } in &self.dns {
            let is_named = value.name.is_some() && value.kind.is_some();
            if is_named == value.dnsbl.is_some() {
                let help = "name = \"example.org\" and type = \"TXT\", or dnsbl = \"zen.example.org\"";
                found.push((*node, format!("it is asked by `name` and `type`, or by `dnsbl`\n{help}")));
            }
            if let Some(kind) = value.kind.as_ref().filter(|kind| Record::of(kind).is_none()) {
                let known = Record::ALL.map(Record::name).join(", ");
                found.push((*node, format!("there is no type `{}`\nthere are {known}", kind.escape_debug())));
            }
            if value.answer.is_some() == value.error.is_some() {
                let help = "answer = [\"127.0.0.2\"], answer = [] for none, or error = \"SERVFAIL\"";
                found.push((*node, format!("it has an `answer` or an `error`\n{help}")));
            }
        }
        found
    }

    fn answer(&self, request: &Request) -> Result<Answer, Failed> {
        match request {
            Request::Fetch(asked) => {
                let body = String::from_utf8_lossy(&asked.body);
                let fits = |fixture: &&Fetch| {
                    fixture.url.as_ref().is_some_and(|url| is_url(url, &asked.url))
                        && fixture.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&asked.method))
                        && fixture.contains.as_ref().is_none_or(|part| body.contains(part.as_str()))
                };
                let Some(fixture) = self.fetch.iter().map(|at| &at.value).find(fits) else {
                    let words = "and status, body, json or error";
                    return Err(without(
                        &format!("{} {}", asked.method, asked.url),
                        "fetch",
                        &format!("url = {:?} {words}", asked.url),
                    ));
                };
                fetched(fixture)
            }
            Request::Ai { model, body, .. } => {
                let fits = |fixture: &&Ai| {
                    fixture.model.as_ref().is_none_or(|wanted| wanted == model)
                        && fixture.contains.as_ref().is_none_or(|part| said(body).contains(part.as_str()))
                };
                let fixture = self.ai.iter().map(|at| &at.value).find(fits);
                fixture.map_or_else(
                    || Err(without(&request.shown(str::to_owned), "ai", "text = \"what it answers\"")),
                    chatted,
                )
            }
            Request::Dns { name, kind } => {
                let Some(fixture) = self.dns.iter().map(|at| &at.value).find(|fixture| is_asked(fixture, name, *kind))
                else {
                    let what = format!("name = {name:?}, type = {:?}, answer = […]", kind.name());
                    return Err(without(&request.shown(str::to_owned), "dns", &what));
                };
                if let Some(error) = &fixture.error {
                    return Err(Failed::Unanswered(error.clone()));
                }
                if fixture.dnsbl.is_some() && *kind == Record::Txt {
                    return Ok(Answer::Records(fixture.text.iter().map(|text| json!(text)).collect()));
                }
                Ok(Answer::Records(fixture.answer.clone().unwrap_or_default()))
            }
        }
    }
}

impl Reach for World {
    fn ask(&self, request: &Request, _nth: usize, _within: Duration) -> Asked {
        Asked { result: self.answer(request), took: Duration::ZERO, kept: false }
    }
}

fn more_than_one(found: &mut Vec<(NodeId, String)>, node: NodeId, given: [(&str, bool); 3]) {
    let given: Vec<&str> = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
    if given.len() > 1 {
        found.push((node, format!("one answer has only one of {}", given.join(", "))));
    }
}

fn without(what: &str, table: &str, keys: &str) -> Failed {
    Failed::Ends(format!("a test asks nobody outside, and has no answer to {what}: add [[test.{table}]] with {keys}"))
}

fn is_url(pattern: &str, url: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == url, |start| url.starts_with(start))
}

/// All texts of the messages.
fn said(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let messages = body.get("messages").and_then(Value::as_array).into_iter().flatten();
    let contents = messages.filter_map(|message| message.get("content"));
    contents
        .map(|content| content.as_str().map_or_else(|| content.to_string(), str::to_owned))
        .collect::<Vec<_>>()
        .join("\n")
}

fn fetched(fixture: &Fetch) -> Result<Answer, Failed> {
    if let Some(error) = &fixture.error {
        return Err(Failed::Unanswered(error.clone()));
    }
    let mut headers: Vec<(String, String)> =
        fixture.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    if fixture.json.is_some() && !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    let json = fixture.json.as_ref().map(Value::to_string);
    let body = json.or_else(|| fixture.body.clone()).unwrap_or_default();
    Ok(Answer::Http { status: fixture.status.unwrap_or(200), headers, body: body.into() })
}

fn chatted(fixture: &Ai) -> Result<Answer, Failed> {
    if let Some(error) = &fixture.error {
        return Err(Failed::Unanswered(error.clone()));
    }
    let text = fixture.text.as_ref().map(|text| {
        let message = json!({ "role": "assistant", "content": text });
        json!({ "object": "chat.completion", "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] })
    });
    let body = text.or_else(|| fixture.json.clone()).unwrap_or_default().to_string();
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Ok(Answer::Http { status: fixture.status.unwrap_or(200), headers, body: Bytes::from(body) })
}

fn is_asked(fixture: &Dns, name: &str, kind: Record) -> bool {
    let plain = |name: &str| name.trim_end_matches('.').to_lowercase();
    match (&fixture.dnsbl, &fixture.name) {
        (Some(zone), _) => {
            matches!(kind, Record::A | Record::Txt)
                && name.strip_suffix(&plain(zone)).is_some_and(|rest| rest.ends_with('.'))
        }
        (None, Some(of)) => plain(of) == name && fixture.kind.as_deref().and_then(Record::of) == Some(kind),
        (None, None) => false,
    }
}
