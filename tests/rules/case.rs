//! A case: message, script and bindings from text, and the outcome as text.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailworker::diagnostic::Diagnostic;
use mailworker::kv::{Entry, Key, Page, Read, Value, View, ViewError, Write};
use mailworker::mail::draft::{Named, Purpose};
use mailworker::mail::{Address, Client, Draft, Message, MessageId, PayloadFormat, Timestamp, Tls};
use mailworker::rules::engine::Budget;
use mailworker::rules::outcome::{Carried, ForwardTo, LogLine, Place, WebhookTarget};
use mailworker::rules::reach::{Answer, Asked, Failed, Request};
use mailworker::rules::{
    Ai, Bindings, Effect, EmailCall, Happening, HappeningCall, HappeningOutcome, KvView, Lent, Outcome, RcptCall,
    RcptOutcome, RcptVerdict, Reach, Reached, Release, RunClock, Seed, SessionFacts, Stage, StageCall, StageOutcome,
    StageVerdict, Verdict,
};

/// 2026-11-24T09:15:02.123Z
pub const NOW: i64 = 1_795_511_702_123;
const MAIN: &str = "rules/main.rhai";
const MAX_READS_SHOWN: usize = 10;
const MESSAGE: &str =
    "From: Alice <alice@example.org>\r\nTo: support@example.com\r\nSubject: Printer\r\n\r\nIt burns.\r\n";

/// One case as read.
#[derive(Default)]
pub struct Case {
    pub name: String,
    /// Comments, settings and sections before the outcome, as written.
    pub head: Vec<String>,
    pub expected: Vec<String>,
    settings: Vec<(String, String)>,
    sections: BTreeMap<String, String>,
}

/// The cases of one file.
pub fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case { name: name.to_owned(), ..Case::default() });
            section.clear();
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        if let Some(name) = line.strip_prefix("--- ") {
            name.clone_into(&mut section);
            if name != "outcome" {
                case.sections.entry(name.to_owned()).or_default();
            }
        } else if section == "outcome" {
            case.expected.push(line.to_owned());
            continue;
        } else if !section.is_empty() {
            let text = case.sections.entry(section.clone()).or_default();
            text.push_str(line);
            text.push('\n');
        } else if let Some((name, value)) =
            line.strip_prefix("@ ").map(|line| line.split_once(' ').unwrap_or((line, "")))
        {
            case.settings.push((name.to_owned(), value.to_owned()));
        }
        if section != "outcome" {
            case.head.push(line.to_owned());
        }
    }
    for case in &mut cases {
        while case.expected.last().is_some_and(String::is_empty) {
            case.expected.pop();
        }
    }
    cases
}

/// The file with the outcomes as they are.
pub fn write(cases: &[(Case, Vec<String>)]) -> String {
    let mut text = String::new();
    for (case, outcome) in cases {
        let _ = writeln!(text, "== {}", case.name);
        for line in &case.head {
            let _ = writeln!(text, "{line}");
        }
        let _ = writeln!(text, "--- outcome");
        for line in outcome {
            let _ = writeln!(text, "{line}");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

impl Case {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.settings.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn names(&self, name: &str) -> Vec<String> {
        self.all(name).flat_map(str::split_whitespace).map(ToOwned::to_owned).collect()
    }

    fn sources(&self) -> BTreeMap<String, String> {
        let mut sources = BTreeMap::new();
        if self.one("example").is_some() {
            for path in [MAIN, "rules/lib/spam.rhai"] {
                let file = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
                sources.insert(path.to_owned(), std::fs::read_to_string(file).unwrap());
            }
        }
        for (section, text) in &self.sections {
            match section.as_str() {
                "message" => {}
                "email" => {
                    sources.insert(MAIN.to_owned(), format!("fn email(message, env, ctx) {{\n{text}}}\n"));
                }
                "rcpt_to" => {
                    sources.insert(MAIN.to_owned(), format!("fn rcpt_to(session, rcpt, env) {{\n{text}}}\n"));
                }
                "connect" | "helo" => {
                    sources.insert(MAIN.to_owned(), format!("fn {section}(session, env) {{\n{text}}}\n"));
                }
                "mail_from" => {
                    sources.insert(MAIN.to_owned(), format!("fn mail_from(session, sender, env) {{\n{text}}}\n"));
                }
                "delivered" | "failed" | "scheduled" => {
                    sources.insert(MAIN.to_owned(), format!("fn {section}(event, env, ctx) {{\n{text}}}\n"));
                }
                path => {
                    sources.insert(path.to_owned(), text.clone());
                }
            }
        }
        sources
    }

    fn bindings(&self) -> Bindings {
        let mut budget = Budget::default();
        let mut clock = None;
        for (name, value) in self.all("budget").flat_map(str::split_whitespace).filter_map(|pair| pair.split_once('='))
        {
            let number: usize = value.parse().unwrap();
            match name {
                "operations" => budget.operations = number as u64,
                "string_size" => budget.string_size = number,
                "array_size" => budget.array_size = number,
                "map_size" => budget.map_size = number,
                "call_depth" => budget.call_depth = number,
                "actions" => budget.actions = number,
                "requests" => budget.requests = number,
                // Each look at the clock finds a second gone.
                "seconds" => {
                    budget.wall_clock = Duration::from_secs(number as u64);
                    let looks = Mutex::new(0);
                    clock = Some(RunClock::new(move || {
                        let mut looks = looks.lock().unwrap();
                        *looks += 1;
                        Duration::from_secs(*looks)
                    }));
                }
                other => panic!("no budget {other}"),
            }
        }
        let vars = self.all("vars").flat_map(|json| {
            let vars: BTreeMap<String, serde_json::Value> = serde_json::from_str(json).unwrap();
            vars
        });
        Bindings {
            env_name: self.one("env").unwrap_or_default().to_owned(),
            vars: vars.collect(),
            secrets: mailworker::rules::Secrets(
                self.one("secrets").map(|json| serde_json::from_str(json).unwrap()).unwrap_or_default(),
            ),
            concealed: mailworker::rules::Secrets::default(),
            kv_namespaces: self.names("kv"),
            webhooks: self.names("webhook"),
            destinations: self.names("destination"),
            senders: [(MAIN.to_owned(), vec!["example.com".to_owned(), "*.example.com".to_owned()])].into(),
            budget: Some(budget),
            ai: self.one("ai").map(|model| Ai { model: Some(model.to_owned()).filter(|model| !model.is_empty()) }),
            clock,
        }
    }

    fn facts(&self) -> SessionFacts {
        let tls = Tls { version: "TLSv1.3".into(), cipher: "TLS13_AES_256_GCM_SHA384".into(), sni: None };
        SessionFacts {
            client: Client {
                ip: "192.0.2.7".parse().unwrap(),
                port: 4025,
                listener: "127.0.0.1:25".to_owned(),
                helo: Some("mail.example.org".to_owned()),
                esmtp: true,
                tls: (self.one("tls") != Some("off")).then_some(tls),
                ptr: self.one("ptr").map(ToOwned::to_owned),
                auth: self.one("auth").map(|json| Arc::new(serde_json::from_str(json).unwrap())),
                origin: mailworker::mail::Origin::default(),
            },
            sender: match self.one("from") {
                Some("<>") => None,
                from => Some(Address::parse(from.unwrap_or("alice@example.org")).unwrap()),
            },
            notes: self.one("notes").map(|json| serde_json::from_str(json).unwrap()).unwrap_or_default(),
        }
    }

    /// Answers in order; without any there is nobody to ask.
    fn outside(&self) -> Lent {
        let answers: Vec<serde_json::Value> =
            self.all("answer").map(|json| serde_json::from_str(json).unwrap()).collect();
        if answers.is_empty() { Lent::default() } else { Lent::new(Arc::new(Outside(Mutex::new(answers.into())))) }
    }

    fn kv(&self) -> Stored {
        let keys = self.all("stored").enumerate().map(|(at, line)| {
            let mut words = line.splitn(3, ' ');
            let (namespace, key) = (words.next().unwrap(), words.next().unwrap());
            let json: serde_json::Value = serde_json::from_str(words.next().unwrap()).unwrap();
            let value = match json {
                serde_json::Value::String(text) => Value::Text(text),
                other => match other.get("$blob").and_then(serde_json::Value::as_str) {
                    Some(blob) => Value::Blob(blob.as_bytes().to_vec()),
                    None => Value::Json(other),
                },
            };
            let metadata = key.starts_with("meta").then(|| serde_json::json!({"kept": true}));
            let entry = Entry { value, metadata, expires_at: None, version: at as u64 + 1 };
            ((namespace.to_owned(), key.to_owned()), entry)
        });
        Stored {
            keys: keys.collect(),
            broken: self.one("broken").is_some(),
            limits: mailworker::store::Limits::default(),
        }
    }

    fn happening(&self) -> Option<Happening> {
        let asked = |handler: &str| self.one("handler") == Some(handler) || self.sections.contains_key(handler);
        [Happening::Delivered, Happening::Failed, Happening::Scheduled]
            .into_iter()
            .find(|happening| asked(happening.handler()))
    }

    /// What comes of it, line by line.
    pub fn run(&self) -> Vec<String> {
        let compiled = Release::compile(
            &self.sources(),
            &[MAIN.to_owned()].into_iter().chain(self.names("main")).collect::<Vec<_>>(),
            self.bindings(),
        );
        let (release, warnings) = match compiled {
            Ok(compiled) => compiled,
            Err(findings) => return findings.iter().map(shown_finding).collect(),
        };
        let mut lines: Vec<String> = warnings.iter().map(shown_finding).collect();
        let kv: KvView = Arc::new(self.kv());
        let recipient = Address::parse(self.one("to").unwrap_or("support+urgent@example.com")).unwrap();
        let subaddress = self.one("subaddress").unwrap_or("+").to_owned();
        let now = Timestamp::from_millis(NOW);
        let reach = self.outside();
        if self.one("handler") == Some("rcpt_to") || self.sections.contains_key("rcpt_to") {
            let (main, session, seed) = (MAIN.to_owned(), self.facts(), Seed::default());
            let call = RcptCall { main, session, recipient, subaddress, now, seed, reach };
            show_rcpt(&mut lines, &release.rcpt_to(&call, &kv));
            return lines;
        }
        let asked =
            |stage: &Stage| self.one("handler") == Some(stage.handler()) || self.sections.contains_key(stage.handler());
        if let Some(stage) = Stage::ALL.into_iter().find(asked) {
            let mut session = self.facts();
            if stage != Stage::MailFrom {
                session.sender = None;
            }
            if stage == Stage::Connect {
                session.client.helo = None;
            }
            show_stage(
                &mut lines,
                &release.stage(&StageCall { stage, session, subaddress, now, seed: Seed::default(), reach }, &kv),
            );
            return lines;
        }
        if let Some(happening) = self.happening() {
            let event = self.one("event").map_or(serde_json::json!({}), |json| serde_json::from_str(json).unwrap());
            let (main, seed) = (MAIN.to_owned(), Seed::default());
            let call = HappeningCall { happening, main, subaddress, event, now, seed, reach };
            show_happening(&mut lines, &release.happening(&call, &kv));
            return lines;
        }
        let raw = self.sections.get("message").map_or(MESSAGE.to_owned(), |text| text.replace('\n', "\r\n"));
        let call = EmailCall {
            main: MAIN.to_owned(),
            id: MessageId::new(now, 7),
            received_at: now,
            recipient,
            subaddress,
            session: Arc::new(self.facts()),
            message: Arc::new(Message::new(raw.into())),
            now,
            seed: Seed::default(),
            reach,
        };
        show(&mut lines, &release.email(&call, &kv));
        lines
    }
}

fn shown_finding(finding: &Diagnostic) -> String {
    format!(
        "{}: {finding}",
        if finding.severity == mailworker::diagnostic::Severity::Error { "error" } else { "warning" }
    )
}

fn show(lines: &mut Vec<String>, outcome: &Outcome) {
    lines.push(match &outcome.verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Undecided => "undecided".to_owned(),
        Verdict::Drop { at } => format!("drop, {at}"),
        Verdict::Quarantine { reason, at } => format!("quarantine ({reason}), {at}"),
        Verdict::Reject { reply, at } => format!("reject {}, {at}", shown_reply(reply)),
        Verdict::Defer { reply, at } => format!("defer {}, {at}", shown_reply(reply)),
        Verdict::Failed { error } => format!("failed {error}"),
    });
    lines.extend(outcome.effects.iter().map(shown_effect));
    lines.extend(outcome.tags.iter().map(|tag| format!("tag {tag}")));
    lines.extend(outcome.reads.iter().take(MAX_READS_SHOWN).map(shown_read));
    if let Some(more @ 1..) = outcome.reads.len().checked_sub(MAX_READS_SHOWN) {
        lines.push(format!("and {more} more reads"));
    }
    lines.extend(outcome.writes.iter().map(shown_write));
    lines.extend(outcome.reached.iter().map(shown_reached));
    lines.extend(outcome.log.iter().map(shown_line));
}

fn show_happening(lines: &mut Vec<String>, outcome: &HappeningOutcome) {
    lines.push(outcome.result.as_ref().map_or_else(|error| format!("failed {error}"), |()| "handled".to_owned()));
    lines.extend(outcome.effects.iter().map(shown_effect));
    lines.extend(outcome.reads.iter().map(shown_read));
    lines.extend(outcome.writes.iter().map(shown_write));
    lines.extend(outcome.reached.iter().map(shown_reached));
    lines.extend(outcome.log.iter().map(shown_line));
}

fn show_rcpt(lines: &mut Vec<String>, outcome: &RcptOutcome) {
    lines.push(match &outcome.verdict {
        RcptVerdict::Accept => "accept".to_owned(),
        RcptVerdict::Reject { reply, at } => format!("reject {}, {at}", shown_reply(reply)),
        RcptVerdict::Defer { reply, at } => format!("defer {}, {at}", shown_reply(reply)),
        RcptVerdict::Redirect { to, at } => format!("redirect to {to}, {at}"),
        RcptVerdict::Failed { error } => format!("failed {error}"),
    });
    if !outcome.notes.is_empty() {
        lines.push(format!("notes {}", serde_json::to_string(&outcome.notes).unwrap()));
    }
    lines.extend(outcome.reached.iter().map(shown_reached));
    lines.extend(outcome.log.iter().map(shown_line));
}

fn show_stage(lines: &mut Vec<String>, outcome: &StageOutcome) {
    lines.push(match &outcome.verdict {
        StageVerdict::Accept => "accept".to_owned(),
        StageVerdict::Reject { reply, at } => format!("reject {}, {at}", shown_reply(reply)),
        StageVerdict::Defer { reply, at } => format!("defer {}, {at}", shown_reply(reply)),
        StageVerdict::Failed { error } => format!("failed {error}"),
    });
    if !outcome.limits.is_none() {
        lines.push(format!("limits {}", outcome.limits));
    }
    if !outcome.notes.is_empty() {
        lines.push(format!("notes {}", serde_json::to_string(&outcome.notes).unwrap()));
    }
    lines.extend(outcome.reached.iter().map(shown_reached));
    lines.extend(outcome.log.iter().map(shown_line));
}

fn shown_reply(reply: &mailworker::mail::Reply) -> String {
    format!("{} {} {}", reply.code, reply.enhanced().unwrap_or_default(), reply.text)
}

fn shown_line(line: &LogLine) -> String {
    format!("log {}: {}", line.at, line.text)
}

fn shown_effect((effect, at): &(Effect, Place)) -> String {
    let fields =
        |headers: &[(String, String)]| headers.iter().fold(String::new(), |text, (n, v)| format!("{text} [{n}: {v}]"));
    match effect {
        Effect::Forward { to: ForwardTo::Address(to), headers } => format!("forward to {to}{}, {at}", fields(headers)),
        Effect::Forward { to: ForwardTo::Destination(to), headers } => {
            format!("forward by destination {to}{}, {at}", fields(headers))
        }
        Effect::Webhook { target, method, headers, body } => {
            let target = match target {
                WebhookTarget::Binding(name) => format!("binding {name}"),
                WebhookTarget::Url(url) => format!("url {url}"),
            };
            let body = match body {
                Carried::Json(text) => text.clone(),
                Carried::Message { format } => {
                    format!("the message as {}", format.map_or("its webhook says", PayloadFormat::word))
                }
            };
            format!("webhook {method} {target}{} {body}, {at}", fields(headers))
        }
        Effect::Header { name, value: Some(value) } => format!("set {name}: {value}, {at}"),
        Effect::Header { name, value: None } => format!("remove {name}, {at}"),
        Effect::Mail(draft) => format!("{}, {at}", shown_draft(draft)),
        Effect::Store { mailbox, retention_secs } => {
            format!("store mailbox={mailbox:?} retention={retention_secs:?}, {at}")
        }
    }
}

fn shown_draft(draft: &Draft) -> String {
    let list = |people: &[Named]| people.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let purpose = match &draft.purpose {
        Purpose::New => "new mail".to_owned(),
        Purpose::Reply { in_reply_to, references, once } => {
            format!("reply to {in_reply_to:?} after {references:?}, one each {} s", once.every)
        }
    };
    let mut text = format!("{purpose} from {} to {}", draft.from, list(&draft.to));
    for (name, people) in [("cc", &draft.cc), ("bcc", &draft.bcc), ("reply_to", &draft.reply_to)] {
        if !people.is_empty() {
            let _ = write!(text, " {name} {}", list(people));
        }
    }
    let _ = write!(text, " {:?} text {:?} html {:?}", draft.subject, draft.text, draft.html);
    for (name, value) in &draft.headers {
        let _ = write!(text, " [{name}: {value}]");
    }
    for one in &draft.attachments {
        let _ = write!(
            text,
            " [{} {:?} {} octets, id {:?}, inline {}]",
            one.content_type,
            one.filename,
            one.content.len(),
            one.content_id,
            one.inline
        );
    }
    if draft.null_sender {
        text.push_str(" by the null sender");
    }
    let _ = write!(text, " hops {}", draft.hops);
    text
}

fn shown_read(read: &Read) -> String {
    match read {
        Read::Key { namespace, key, version: Some(version) } => format!("read {namespace} {key}: version {version}"),
        Read::Key { namespace, key, version: None } => format!("read {namespace} {key}: absent"),
        Read::List { namespace, prefix, cursor, limit, seen } => {
            format!("read {namespace} list prefix={prefix:?} cursor={cursor:?} limit={limit}: {seen:?}")
        }
    }
}

fn shown_write(write: &Write) -> String {
    match write {
        Write::Put { namespace, key, value, metadata, expires_at } => {
            let value = match value {
                Value::Text(text) => format!("text {text:?}"),
                Value::Blob(octets) => format!("blob of {} octets", octets.len()),
                Value::Json(json) => format!("json {json}"),
            };
            let metadata = metadata.as_ref().map(|json| format!(", metadata {json}")).unwrap_or_default();
            let expires = expires_at.map(|at| format!(", expires {at}")).unwrap_or_default();
            format!("write {namespace} put {key} {value}{metadata}{expires}")
        }
        Write::Delete { namespace, key } => format!("write {namespace} delete {key}"),
        Write::Increment { namespace, key, by } => format!("write {namespace} increment {key} by {by}"),
    }
}

fn shown_reached(reached: &Reached) -> String {
    let Reached { at, what, answer, failed, .. } = reached;
    format!("{} {at}: {what}: {answer}", if *failed { "unanswered" } else { "asked" })
}

/// The world as a case has it: `{ "status", "headers", "body" }`, `{ "records" }`, `{ "fails" }` or `{ "ends" }`. `$asked`
/// in a body is what was asked.
struct Outside(Mutex<VecDeque<serde_json::Value>>);

impl Reach for Outside {
    fn ask(&self, request: &Request, nth: usize, within: Duration) -> Asked {
        let answer = self.0.lock().unwrap().pop_front().unwrap_or_else(|| serde_json::json!({ "fails": "nobody" }));
        let text = |key: &str| answer[key].as_str().map(ToOwned::to_owned);
        let result = if let Some(why) = text("fails") {
            Err(Failed::Unanswered(why))
        } else if let Some(why) = text("ends") {
            Err(Failed::Ends(why))
        } else if let Some(records) = answer["records"].as_array() {
            Ok(Answer::Records(records.clone()))
        } else {
            let headers = answer["headers"].as_object().into_iter().flatten();
            let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
            let body = match text("body") {
                Some(body) => body.replace("$asked", &format!("{nth} {within:?} {request:?}")).into_bytes(),
                None => answer["octets"].as_array().into_iter().flatten().map(|o| o.as_u64().unwrap() as u8).collect(),
            };
            let status = answer["status"].as_u64().unwrap_or(200).try_into().unwrap();
            Ok(Answer::Http { status, headers, body: body.into() })
        };
        Asked { result, took: Duration::ZERO, kept: false }
    }
}

/// What is committed, as a case has it.
pub struct Stored {
    keys: BTreeMap<(String, String), Entry>,
    broken: bool,
    limits: mailworker::store::Limits,
}

impl View for Stored {
    fn count(&self, limit: &mailworker::kv::Limit<'_>) -> mailworker::kv::Counted {
        self.limits.count(limit)
    }

    fn get(&self, namespace: &str, key: &str, _: Timestamp) -> Result<Option<Entry>, ViewError> {
        if self.broken {
            return Err(ViewError("the disk is gone".to_owned()));
        }
        Ok(self.keys.get(&(namespace.to_owned(), key.to_owned())).cloned())
    }

    fn list(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        _: Timestamp,
    ) -> Result<Page, ViewError> {
        if self.broken {
            return Err(ViewError("the disk is gone".to_owned()));
        }
        let matching = self.keys.iter().filter(|((of, key), _)| {
            of == namespace && key.starts_with(prefix) && cursor.is_none_or(|cursor| key.as_str() > cursor)
        });
        let mut keys: Vec<Key> = matching
            .map(|((_, key), entry)| Key {
                name: key.clone(),
                metadata: entry.metadata.clone(),
                expires_at: entry.expires_at,
                version: entry.version,
            })
            .collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let cursor = more.then(|| keys.last().unwrap().name.clone());
        Ok(Page { keys, cursor })
    }
}
