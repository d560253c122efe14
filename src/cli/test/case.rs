//! The cases of a file of tests, or every finding with its place.
//!
//! What a name means is checked against the configuration here (namespaces, variables, webhooks, destinations), so that a
//! slip is told as one and not as a decision that came out otherwise.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::auth::{Auth, Speaker};
use super::decision::by_name;
use super::file::{Country, Encryption, Expect, File, Ip, Moment, Namespaces, Recipients, Sender, Session, Test};
use super::happening::Happened;
use super::keys::{self, Name};
use super::kind::{self, Items, Kind};
use super::outside::World;
use super::update;
use crate::cli::dialogue::with_crlf;
use crate::config::Config;
use crate::config::document::{self, At, Document, NodeId, Parsed};
use crate::diagnostic::{Diagnostic, suggest};
use crate::kv::Entry;
use crate::mail::{Address, Client, Message, Origin, Timestamp};

/// A file larger than this is none of tests.
const LARGEST: u64 = 4 << 20;
/// Tests of one file.
const MOST: usize = 10_000;
/// When a test happens that doesn't say: 2026-01-01T00:00:00Z, so that it comes to the same on every day.
pub const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// One test.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    /// Where it begins, and the how many-th of its file it is.
    pub line: usize,
    pub index: usize,
    pub about: About,
    pub now: Timestamp,
    pub keys: BTreeMap<Name, Entry>,
    /// What `[vars]` is overridden by.
    pub vars: BTreeMap<String, Value>,
    /// Who answers outside.
    pub world: Arc<World>,
    /// What is named of the decision; what isn't may be as it is.
    pub expected: BTreeMap<Kind, Vec<Value>>,
}

/// What the rules are asked about.
#[derive(Debug)]
pub enum About {
    Mail(Box<Mail>),
    Happened(Happened),
}

/// A message, as it comes in.
#[derive(Debug)]
pub struct Mail {
    pub raw: Bytes,
    pub from: Option<Address>,
    pub to: Vec<Address>,
    pub client: Client,
}

/// Reads the text of a file, which findings call `name`.
///
/// # Errors
/// Why it can't be read.
pub fn text(path: &Path, name: &str) -> Result<String, Vec<Diagnostic>> {
    let octets =
        bounded(path, LARGEST).map_err(|why| vec![Diagnostic::unplaced(name, format!("can't be read: {why}"))])?;
    String::from_utf8(octets).map_err(|_| vec![Diagnostic::unplaced(name, "this is no UTF-8 text".to_owned())])
}

/// The tests of a text; messages are read from beside it, in `folder`.
///
/// # Errors
/// Every finding.
pub fn cases(text: &str, name: &str, folder: &Path, config: &Config) -> Result<Vec<Case>, Vec<Diagnostic>> {
    let (file, document): (File, _) = document::read(name, text)?;
    if file.test.is_empty() {
        return Err(vec![Diagnostic::unplaced(name, "there is no [[test]] in it".to_owned())]);
    }
    if file.test.len() > MOST {
        return Err(vec![Diagnostic::unplaced(name, format!("more than {MOST} tests: part the file"))]);
    }
    let mut reader = Reader::new(folder, config, &document);
    let cases: Vec<Case> = file.test.into_iter().enumerate().map(|(index, test)| reader.case(index, test)).collect();
    if reader.findings.is_empty() { Ok(cases) } else { Err(reader.findings) }
}

/// The one case that a test in Rhai describes, by the same keys; it need not expect anything.
///
/// # Errors
/// Every finding; their places are of no text that anybody wrote.
pub fn described(asked: &Value, name: &str, folder: &Path, config: &Config) -> Result<Case, Vec<Diagnostic>> {
    let mut keys = asked.as_object().cloned().unwrap_or_default();
    keys.insert("name".to_owned(), json!(name));
    let file = update::toml(&json!({ "test": [keys] })).map(|file| file.to_string()).unwrap_or_default();
    let text = file.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default();
    let (file, document): (File, _) = document::read(name, text)?;
    let mut reader = Reader { may_expect_nothing: true, ..Reader::new(folder, config, &document) };
    let case = file.test.into_iter().next().map(|test| reader.case(0, test));
    match case.filter(|_| reader.findings.is_empty()) {
        Some(case) => Ok(case),
        None => Err(reader.findings),
    }
}

/// A file's octets, if they are no more than `most`.
fn bounded(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("this is no file".to_owned());
    }
    if metadata.len() > most {
        return Err(format!("{} bytes are more than {most}", metadata.len()));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// What `name` was probably meant to be, or what there is.
pub(super) fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> String {
    if let Some(near) = suggest(name, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let known: Vec<&str> = known.into_iter().collect();
    if known.is_empty() { format!("the configuration has no {what}") } else { format!("it has {}", known.join(", ")) }
}

/// What a test says of its message.
struct Written {
    message: Option<At<Parsed<PathBuf>>>,
    raw: Option<At<String>>,
    from: Option<Parsed<Sender>>,
    to: Option<At<Recipients>>,
    session: Option<Session>,
    auth: Option<Auth>,
}

/// Goes through a file's tests and collects what is wrong.
pub(super) struct Reader<'a> {
    folder: &'a Path,
    pub(super) config: &'a Config,
    document: &'a Document<'a>,
    findings: Vec<Diagnostic>,
    names: HashMap<String, usize>,
    may_expect_nothing: bool,
}

impl<'a> Reader<'a> {
    fn new(folder: &'a Path, config: &'a Config, document: &'a Document<'a>) -> Self {
        let (findings, names) = (Vec::new(), HashMap::new());
        Self { folder, config, document, findings, names, may_expect_nothing: false }
    }
}

impl Reader<'_> {
    pub(super) fn find(&mut self, node: NodeId, message: &str, help: Option<String>) {
        self.findings.push(self.document.at(node, message, help));
    }

    /// `why`: what is wrong, and on a second line what to do.
    fn find_lines(&mut self, node: NodeId, why: &str) {
        match why.split_once('\n') {
            Some((message, help)) => self.find(node, message, Some(help.to_owned())),
            None => self.find(node, why, None),
        }
    }

    fn case(&mut self, index: usize, At { value: mut test, node }: At<Test>) -> Case {
        let line = self.document.line(node);
        let name = self.name(node, line, test.name.take());
        let now = test.now.take().map_or(NOW, |Parsed(Moment(now))| now);
        let has_happened = [test.scheduled.is_some(), test.delivered.is_some(), test.failed.is_some()].contains(&true);
        let happened = self.happened(node, now, &mut test);
        let keys = self.keys(test.kv, now);
        let vars = self.vars(test.vars);
        let world = World { fetch: test.fetch, ai: test.ai, dns: test.dns };
        for (node, why) in world.findings() {
            self.find_lines(node, &why);
        }
        let world = Arc::new(world);
        let expected = if let Some(At { value, node }) = test.expect {
            let expected = self.expected(node, value);
            if has_happened {
                self.fits(node, expected.keys().copied());
            }
            expected
        } else if self.may_expect_nothing {
            BTreeMap::new()
        } else {
            let help = "such as: expect.forward = [\"team@example.net\"]".to_owned();
            self.find(node, "a test expects something", Some(help));
            BTreeMap::new()
        };
        let about = match happened {
            Some(happened) => About::Happened(happened),
            // A finding was made of it.
            None if has_happened => About::Happened(Happened::Scheduled(String::new())),
            None => About::Mail(Box::new(self.mail(
                node,
                Written {
                    message: test.message,
                    raw: test.raw,
                    from: test.from,
                    to: test.to,
                    session: test.session,
                    auth: test.auth,
                },
            ))),
        };
        Case { name, line, index, about, now, keys, vars, world, expected }
    }

    fn mail(&mut self, node: NodeId, written: Written) -> Mail {
        let raw = self.raw(node, written.message, written.raw);
        let to = match written.to {
            Some(At { value: Recipients(to), node }) if to.is_empty() || to.len() > self.config.limits.recipients => {
                self.find(node, &format!("a message has 1 to {} recipients", self.config.limits.recipients), None);
                to
            }
            Some(At { value: Recipients(to), .. }) => to,
            None => {
                let help = "the envelope's recipient: to = \"support@example.com\"".to_owned();
                self.find(node, "`to` is missing", Some(help));
                Vec::new()
            }
        };
        let from = match written.from {
            Some(Parsed(Sender(from))) => from,
            None => Message::new(raw.clone()).header_from().and_then(|from| Address::parse(&from).ok()),
        };
        let mut client = client(written.session);
        client.auth = written.auth.map(|auth| auth.found(&Speaker::of(&raw, from.as_ref(), &client)));
        Mail { raw, from, to, client }
    }

    fn name(&mut self, node: NodeId, line: usize, name: Option<At<String>>) -> String {
        let Some(At { value: name, node }) = name.filter(|name| !name.value.trim().is_empty()) else {
            self.find(
                node,
                "`name` is missing",
                Some("what the rules do: name = \"support mail opens a ticket\"".into()),
            );
            return String::new();
        };
        if let Some(first) = self.names.insert(name.clone(), line) {
            self.find(node, &format!("the test of line {first} has this name, too"), None);
        }
        name
    }

    /// The message as it would come in.
    fn raw(&mut self, node: NodeId, file: Option<At<Parsed<PathBuf>>>, raw: Option<At<String>>) -> Bytes {
        let most = self.config.limits.message_size;
        let (octets, node) = match (file, raw) {
            (Some(At { value: Parsed(path), node }), None) => match bounded(&self.folder.join(&path), most) {
                Ok(octets) => (octets, node),
                Err(why) => {
                    self.find(node, &format!("{} can't be read: {why}", path.display()), None);
                    return Bytes::new();
                }
            },
            (None, Some(At { value, node })) => (value.into_bytes(), node),
            (Some(_), Some(At { node, .. })) => {
                self.find(node, "a test has `message` or `raw`, not both", None);
                return Bytes::new();
            }
            (None, None) => {
                let help = "message = \"fixtures/support.eml\" beside this file, or raw = \"\"\"…\"\"\"".to_owned();
                self.find(node, "`message` is missing", Some(help));
                return Bytes::new();
            }
        };
        let octets = with_crlf(&octets);
        if octets.len() as u64 > most {
            self.find(node, &format!("a message of more than {most} octets is refused before any rule sees it"), None);
        }
        octets.into()
    }

    fn is_namespace(&mut self, name: &str, node: NodeId) -> bool {
        let known = &self.config.kv_namespaces;
        let is_one = known.iter().any(|known| known == name);
        if !is_one {
            let help = near(name, known.iter().map(String::as_str), "[[kv_namespaces]]");
            let message = format!("no KV namespace `{}` is bound", name.escape_debug());
            self.findings.push(self.document.at_key(node, &message, Some(help)));
        }
        is_one
    }

    fn keys(&mut self, namespaces: Namespaces, now: Timestamp) -> BTreeMap<Name, Entry> {
        let mut entries = BTreeMap::new();
        for (namespace, At { value, node }) in namespaces {
            if !self.is_namespace(&namespace, node) {
                continue;
            }
            for (key, At { value, node }) in value {
                match keys::entry(&value, now) {
                    Ok(entry) => {
                        entries.insert((namespace.clone(), key), entry);
                    }
                    Err(why) => self.find_lines(node, &why),
                }
            }
        }
        entries
    }

    /// A variable that isn't there would override nothing.
    fn vars(&mut self, vars: BTreeMap<String, At<Value>>) -> BTreeMap<String, Value> {
        for (name, At { node, .. }) in &vars {
            if !self.config.vars.contains_key(name) {
                let help = near(name, self.config.vars.keys().map(String::as_str), "[vars]");
                let message = format!("[vars] has no `{}` to override", name.escape_debug());
                self.findings.push(self.document.at_key(*node, &message, Some(help)));
            }
        }
        vars.into_iter().map(|(name, At { value, .. })| (name, value)).collect()
    }

    fn expected(&mut self, node: NodeId, expect: Expect) -> BTreeMap<Kind, Vec<Value>> {
        if let Some(forward) = &expect.forward {
            self.targets(forward, "to", Self::is_next_hop);
        }
        if let Some(webhook) = &expect.webhook {
            self.targets(webhook, "target", Self::is_endpoint);
        }
        let named = [
            (Kind::Connect, expect.connect.map(values)),
            (Kind::Helo, expect.helo.map(values)),
            (Kind::MailFrom, expect.mail_from.map(values)),
            (Kind::Rcpt, expect.rcpt.map(values)),
            (Kind::Error, expect.error.map(values)),
            (Kind::Reject, expect.reject.map(values)),
            (Kind::Defer, expect.defer.map(values)),
            (Kind::Drop, expect.drop.map(values)),
            (Kind::Quarantine, expect.quarantine.map(values)),
            (Kind::Header, expect.header.map(values)),
            (Kind::Forward, expect.forward.map(|forward| values(forward.value))),
            (Kind::Webhook, expect.webhook.map(|webhook| self.webhooks(webhook.value))),
            (Kind::Send, expect.send.map(values)),
            (Kind::Reply, expect.reply.map(values)),
            (Kind::Store, expect.store.map(values)),
            (Kind::Tag, expect.tag.map(values)),
            (Kind::Kv, expect.kv.map(|kv| self.written(kv))),
            (Kind::Deleted, expect.deleted.map(|deleted| self.deleted(deleted))),
            (Kind::Log, expect.log.map(values)),
        ];
        let expected: BTreeMap<_, _> = named.into_iter().filter_map(|(kind, items)| Some((kind, items?))).collect();
        if expected.is_empty() {
            let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::key).collect();
            self.find(node, "a test expects something", Some(format!("the keys here are {}", kinds.join(", "))));
        }
        expected
    }

    /// Checks the names in one field of all items.
    fn targets<T>(&mut self, items: &At<Items<T>>, field: &str, check: fn(&Self, &str) -> Result<(), String>) {
        for (node, item) in &items.value.items {
            let Some(name) = item.get(field).and_then(Value::as_str) else { continue };
            if let Err(why) = check(self, name) {
                self.find_lines(node.unwrap_or(items.node), &why);
            }
        }
    }

    fn webhooks(&self, items: Items<kind::Webhook>) -> Vec<Value> {
        let mut items = values(items);
        for item in &mut items {
            by_name(self.config, item);
        }
        items
    }

    fn is_next_hop(&self, name: &str) -> Result<(), String> {
        if self.config.destination(name).is_some() || Address::parse(name).is_ok() {
            return Ok(());
        }
        let known = self.config.destinations.iter().map(|destination| destination.name.as_str());
        let help = near(name, known, "[[destination]]");
        Err(format!("`{}` is neither an address nor a destination\n{help}", name.escape_debug()))
    }

    fn is_endpoint(&self, name: &str) -> Result<(), String> {
        if self.config.webhook(name).is_some() || url::Url::parse(name).is_ok() {
            return Ok(());
        }
        let known = self.config.webhooks.iter().map(|webhook| webhook.binding.as_str());
        let help = near(name, known, "[[webhook]]");
        Err(format!("`{}` is neither a webhook nor a URL\n{help}", name.escape_debug()))
    }

    fn written(&mut self, namespaces: Namespaces) -> Vec<Value> {
        let mut items = Vec::new();
        for (namespace, At { value, node }) in namespaces {
            if !self.is_namespace(&namespace, node) {
                continue;
            }
            for (key, At { value, node }) in value {
                match keys::said(&value) {
                    Ok(mut item) => {
                        item.insert("namespace".to_owned(), json!(namespace));
                        item.insert("key".to_owned(), json!(key));
                        items.push(Value::Object(item));
                    }
                    Err(why) => self.find_lines(node, &why),
                }
            }
        }
        items
    }

    fn deleted(&mut self, namespaces: BTreeMap<String, At<Vec<String>>>) -> Vec<Value> {
        let mut items = Vec::new();
        for (namespace, At { value, node }) in namespaces {
            if self.is_namespace(&namespace, node) {
                items.extend(value.into_iter().map(|key| json!({ "namespace": namespace, "key": key })));
            }
        }
        items
    }
}

fn values<T>(items: Items<T>) -> Vec<Value> {
    items.items.into_iter().map(|(_, item)| item).collect()
}

/// A stranger's server, where the test doesn't say otherwise.
fn client(session: Option<Session>) -> Client {
    let Session { ip, helo, ptr, tls, asn, country } = session.unwrap_or_default();
    Client {
        ip: ip.map_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), |Parsed(Ip(ip))| ip),
        port: 40_000,
        listener: "127.0.0.1:25".to_owned(),
        helo: Some(helo.unwrap_or_else(|| "mail.example.org".to_owned())),
        esmtp: true,
        tls: tls.and_then(|Encryption(tls)| tls),
        ptr,
        auth: None,
        origin: Origin { asn, country: country.map(|Parsed(Country(code))| code) },
    }
}
