//! From what the file says to a [`Config`]: defaults filled in, names resolved, every contradiction found.
//!
//! Pure: files and variables are seen through [`Surroundings`]. Each finding points at the value that caused it.

mod geoip;
mod inbound;
mod kept;
mod outbound;
mod reach;
mod routes;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::decode::At;
use super::leaf::{Parsed, Size};
use super::raw;
use super::secret::{
    KeptSecrets, NoSecret, Reading, SecretSource, Secrets, Surroundings, check_webhook_key, placeholder, read,
};
use super::tree::{Hole, NodeId, Origin, Source};
use super::{
    Authentication, Budget, Config, Cron, Dns, EarlyTalk, Http, Limits, Policy, Retention, Secret, SessionSettings,
    TlsMode,
};
use crate::diagnostic::{Diagnostic, Severity};

/// What checking sees and finds.
pub struct Checker<'a> {
    pub source: &'a Source<'a>,
    pub places: &'a HashMap<NodeId, (Origin, Origin)>,
    pub around: &'a dyn Surroundings,
    pub base: &'a Path,
    /// The machine's name, where the file gives none.
    pub machine: &'a str,
    pub errors: Vec<Diagnostic>,
    /// Where values were that didn't fit: there nothing is said to be missing.
    pub holes: &'a [Hole],
    pub warnings: Vec<Diagnostic>,
    /// Files beside the configuration whose change is a change of it.
    pub watched: Vec<PathBuf>,
    /// Where `[tls]` names its certificate.
    pub tls: Option<Diagnostic>,
    /// The secrets that the store keeps, without a value where it couldn't be opened, which was told then.
    pub kept: KeptSecrets,
}

/// How long a greeting may wait.
const LONGEST_DELAY: Duration = Duration::from_mins(1);

/// The value of a leaf, or the default.
fn or<T: Clone>(leaf: Option<&At<Parsed<T>>>, default: T) -> T {
    leaf.map_or(default, |at| at.value.0.clone())
}

/// Times at which the worker runs by itself.
const MAX_CRONS: usize = 100;
/// No count goes beyond it: what is made for each of them has bounds of its own.
const MOST: usize = 1_000_000_000;

fn size(leaf: Option<&At<Parsed<Size>>>, default: u64) -> u64 {
    leaf.map_or(default, |at| at.value.0.0)
}

fn plain<T>(parsed: Vec<Parsed<T>>) -> Vec<T> {
    parsed.into_iter().map(|Parsed(value)| value).collect()
}

impl Checker<'_> {
    fn finding(&self, node: NodeId, key: bool, message: &str, help: Option<&str>) -> Diagnostic {
        let nowhere = Origin::File { span: 0..0, overlay: false };
        let origin = self.places.get(&node).map_or(&nowhere, |(name, value)| if key { name } else { value });
        self.source.at(origin, message, help.map(str::to_owned))
    }

    /// At a value.
    fn error(&mut self, node: NodeId, message: &str, help: Option<&str>) {
        let finding = self.finding(node, false, message, help);
        self.errors.push(finding);
    }

    /// At a key.
    fn error_at_key(&mut self, node: NodeId, message: &str, help: Option<&str>) {
        let finding = self.finding(node, true, message, help);
        self.errors.push(finding);
    }

    /// One of `keys` is missing below this node.
    fn lack(&mut self, node: NodeId, keys: &[&str], message: &str, help: &str) {
        if !keys.iter().any(|key| self.is_hole_in(node, key)) {
            self.error_at_key(node, message, Some(help));
        }
    }

    /// An error of two lines: what, and what to do.
    fn error_text(&mut self, node: NodeId, text: &str) {
        let (message, help) = text.split_once('\n').map_or((text, None), |(message, help)| (message, Some(help)));
        self.error(node, message, help);
    }

    /// What can't be read from here: an error, or only told.
    fn missing(&mut self, node: NodeId, text: &str) {
        if self.around.reading() == Reading::Needed {
            return self.error_text(node, text);
        }
        let (message, help) = text.split_once('\n').map_or((text, None), |(message, help)| (message, Some(help)));
        self.warn(node, message, help);
    }

    fn warn(&mut self, node: NodeId, message: &str, help: Option<&str>) {
        let mut finding = self.finding(node, false, message, help);
        finding.severity = Severity::Warning;
        self.warnings.push(finding);
    }

    /// A secret that isn't one.
    fn warn_if_open(&mut self, node: NodeId, path: &Path) {
        if self.around.is_open_to_all(path) {
            let help = format!("chmod o-r {}", path.display());
            self.warn(node, "every user of this machine can read this file, and it holds a secret", Some(&help));
        }
    }

    /// Whether a key of the top level was there and didn't fit.
    fn is_hole(&self, key: &str) -> bool {
        self.is_hole_in(0, key)
    }

    fn is_hole_in(&self, section: NodeId, key: &str) -> bool {
        self.holes.iter().any(|hole| hole.within == section && hole.key == key)
    }

    /// Something is missing in the file as a whole.
    fn lack_in_all(&mut self, key: &str, message: &str, help: &str) {
        if self.is_hole(key) {
            return;
        }
        let mut finding = self.source.at(&Origin::Variable(String::new()), message, Some(help.to_owned()));
        self.source.name.clone_into(&mut finding.file);
        self.errors.push(finding);
    }

    /// A count that can't be zero.
    fn count(&mut self, value: Option<&At<usize>>, default: usize, least: usize) -> usize {
        let Some(at) = value else { return default };
        if at.value < least {
            self.error(at.node, &format!("it must be at least {least}"), None);
        } else if at.value > MOST {
            self.error(at.node, &format!("it must be at most {MOST}"), Some("more than any machine has"));
        }
        at.value
    }

    /// A time that can't be zero.
    fn time(&mut self, leaf: Option<&At<Parsed<Duration>>>, default: Duration) -> Duration {
        if let Some(at) = leaf.filter(|at| at.value.0.is_zero()) {
            self.error(at.node, "it can't be no time at all", None);
        }
        or(leaf, default)
    }

    /// A list of waits.
    fn waits(&mut self, list: Option<At<Vec<Parsed<Duration>>>>, default: Vec<Duration>) -> Vec<Duration> {
        let Some(At { value, node }) = list else { return default };
        if value.is_empty() {
            self.lack(node, &[""], "the list of waits is empty", "one at least: [\"5 m\"]");
        }
        plain(value)
    }

    /// A file that must be there, where files are looked at; it is watched from then on.
    fn file(&mut self, node: NodeId, path: &Path, what: &str) -> PathBuf {
        let full = self.base.join(path);
        if self.around.has_file(&full) == Some(false) {
            let help = format!("looked for it at {}", full.display());
            self.error(node, &format!("{what} isn't there"), Some(&help));
        }
        self.watched.push(full.clone());
        full
    }

    /// Reads what a key says is secret.
    fn secrets(&mut self, secrets: Option<&At<Secrets>>, webhook: bool) -> Vec<Secret> {
        let Some(At { value: Secrets(sources), node }) = secrets else { return Vec::new() };
        if sources.is_empty() {
            self.lack(*node, &[""], "the list is empty", "leave the key out where there is no secret");
        }
        let mut values = Vec::with_capacity(sources.len());
        for (place, source) in sources {
            values.extend(self.secret(place.unwrap_or(*node), source, webhook));
        }
        values
    }

    /// One secret, or its placeholder where that will do.
    fn secret(&mut self, node: NodeId, source: &SecretSource, webhook: bool) -> Option<Secret> {
        if let SecretSource::File(path) = source {
            let path = self.base.join(path);
            self.warn_if_open(node, &path);
            self.watched.push(path);
        }
        if self.around.reading() == Reading::Unread {
            return Some(placeholder());
        }
        let found = match source {
            SecretSource::Kept(name) => self.kept_secret(name),
            source => read(source, self.base, self.around),
        };
        let text = match found {
            Ok(secret) => match if webhook { check_webhook_key(&secret) } else { Ok(()) } {
                Ok(()) => return Some(secret),
                Err(text) => text,
            },
            Err(NoSecret::Missing(text)) => {
                self.missing(node, &text);
                return Some(placeholder());
            }
            Err(NoSecret::Wrong(text)) => text,
        };
        self.error_text(node, &text);
        None
    }
}

/// Turns the raw file into a configuration; it counts only where `checker.errors` stays empty.
pub fn check(file: raw::File, env_name: &str, checker: &mut Checker<'_>) -> Config {
    let default = Config::default();
    checker.not_offered(&file);
    let main = checker.worker(file.main.as_ref(), &default.main);
    let data_dir = checker.data_dir(file.data_dir.as_ref(), default.data_dir);
    let secrets_key = checker.open_kept(&data_dir, env_name, file.secrets.and_then(|sealing| sealing.key));
    let has_tls = file.tls.is_some() || checker.is_hole("tls");
    let has_domains = !file.domain.is_empty() || checker.is_hole("domain");
    let tls = checker.tls(file.tls);
    let listeners = checker.listeners(&file.listener, has_tls, has_domains);
    let offers_tls = has_tls && listeners.iter().any(|listener| listener.tls != TlsMode::Off);
    let authentication = checker.authentication(file.authentication.unwrap_or_default());
    let domains = checker.domains(file.domain, offers_tls, authentication.policy);
    let destinations = checker.destinations(file.destination);
    let (webhook_defaults, webhooks) = checker.webhooks(file.webhook_defaults.unwrap_or_default(), file.webhook);
    let kv_namespaces = checker.kv_namespaces(&file.kv_namespaces);
    let vars = checker.vars(file.vars);
    let vars = checker.without_secrets(vars, &kv_namespaces, &webhooks, &destinations);
    checker.one_name_each(&vars, &kv_namespaces, &webhooks, &destinations);
    if webhook_defaults.secrets.is_empty() {
        checker.unsigned(&vars, &webhooks);
    }
    let budget = checker.budget(&file.budget.unwrap_or_default());
    let fetch = checker.fetch(file.fetch.unwrap_or_default());
    let ai = file.ai.and_then(|ai| checker.ai(ai, budget.wall_clock));
    let limits = checker.limits(&file.limits.unwrap_or_default());
    let bounds = routes::Bounds::of(&limits, file.geoip.as_ref());
    Config {
        routes: checker.routes(file.route, &domains, &webhooks, &destinations, bounds),
        hostname: file
            .hostname
            .map_or_else(|| inbound::hostname(checker.machine).unwrap_or(default.hostname), |at| at.value.0.0),
        main,
        data_dir,
        listeners,
        tls,
        http: checker.http(file.http),
        domains,
        vars: vars.into_iter().map(|(name, at)| (name, at.value)).collect(),
        secrets: checker.take_kept(),
        secrets_key,
        kv_namespaces: kv_namespaces.into_iter().map(|at| at.value).collect(),
        webhooks: webhooks.into_iter().map(|at| at.value).collect(),
        webhook_defaults,
        destinations: destinations.into_iter().map(|at| at.value).collect(),
        relay: checker.relay(file.relay),
        crons: checker.crons(file.triggers.unwrap_or_default().crons),
        egress: plain(file.egress.unwrap_or_default().allow),
        ai,
        fetch,
        dns: checker.dns(file.dns.unwrap_or_default()),
        authentication,
        geoip: checker.geoip(file.geoip.unwrap_or_default()),
        limits,
        budget,
        retention: checker.retention(&file.retention.unwrap_or_default()),
        session: checker.session(file.session.unwrap_or_default(), offers_tls),
        env_name: env_name.to_owned(),
        base_dir: checker.base.to_path_buf(),
        index: super::lookup::Index::default(),
    }
}

impl Checker<'_> {
    fn not_offered(&mut self, file: &raw::File) {
        if let Some(acme) = file.tls.as_ref().and_then(|tls| tls.value.acme.as_ref()) {
            let help = "give `certificate` and `key`; the files are read again when an ACME client renews them";
            self.error_at_key(acme.node, "`acme` is not offered by this version", Some(help));
        }
    }

    /// None twice: two that are the same would be one, by what is remembered of each.
    fn crons(&mut self, given: Vec<At<Parsed<Cron>>>) -> Vec<Cron> {
        let mut crons: Vec<Cron> = Vec::new();
        for At { value: Parsed(cron), node } in given {
            if crons.iter().any(|known| known.text() == cron.text()) {
                self.error_text(node, &format!("`{}` stands here twice\nremove one", cron.text()));
            } else if crons.len() == MAX_CRONS {
                self.error_text(
                    node,
                    &format!("there are more than {MAX_CRONS} crons\nput several times into one expression"),
                );
                break;
            } else {
                crons.push(cron);
            }
        }
        crons
    }

    /// The command line's way in is a Unix socket in it, whose path has 108 octets with the NUL at its end (unix(7)).
    fn data_dir(&mut self, data_dir: Option<&At<Parsed<PathBuf>>>, default: PathBuf) -> PathBuf {
        let full = self.base.join(or(data_dir, default));
        let most = 107 - "/control.sock".len();
        let length = full.as_os_str().len();
        if length > most {
            let message = format!("the path of the data directory has {length} octets, and {most} are the most");
            let help = format!("a socket is made in it, whose path is bounded; {} is too long", full.display());
            match data_dir {
                Some(at) => self.error(at.node, &message, Some(&help)),
                None => self.lack_in_all("data_dir", &message, &help),
            }
        }
        full
    }

    fn http(&mut self, http: Option<raw::Http>) -> Http {
        let Some(address) = http.and_then(|http| http.address) else { return Http::default() };
        let chosen = address.value.0.0;
        if chosen.is_some_and(|socket| !raw::is_loopback_ip(socket.ip())) {
            let help = "bind it to 127.0.0.1 and put what terminates TLS and asks who is there before it";
            self.warn(address.node, "the HTTP port can be reached from other machines", Some(help));
        }
        Http { address: chosen }
    }

    fn dns(&mut self, dns: raw::Dns) -> Dns {
        let servers = dns.servers.into_iter().map(|Parsed(server)| server.0).collect();
        Dns { servers, timeout: self.time(dns.timeout.as_ref(), Dns::default().timeout) }
    }

    fn authentication(&mut self, raw: raw::Authentication) -> Authentication {
        let default = Authentication::default();
        let names = raw.trusted_sealers.into_iter().map(|Parsed(name)| name.0);
        Authentication {
            skip: raw.skip.map_or(default.skip, plain),
            timeout: self.time(raw.timeout.as_ref(), default.timeout),
            trusted_forwarders: plain(raw.trusted_forwarders),
            trusted_sealers: names.collect(),
            policy: Policy {
                dmarc_reject: raw.dmarc_reject.unwrap_or(default.policy.dmarc_reject),
                dmarc_quarantine: raw.dmarc_quarantine.unwrap_or(default.policy.dmarc_quarantine),
                spf_fail: raw.spf_fail.unwrap_or(default.policy.spf_fail),
            },
        }
    }

    fn limits(&mut self, limits: &raw::Limits) -> Limits {
        let default = Limits::default();
        let checked = Limits {
            message_size: size(limits.message_size.as_ref(), default.message_size),
            connections: self.count(limits.connections.as_ref(), default.connections, 1),
            connections_per_ip: self.count(limits.connections_per_ip.as_ref(), default.connections_per_ip, 1),
            in_flight: size(limits.in_flight.as_ref(), default.in_flight),
            // RFC 5321 §4.5.3.1.8: at least 100 recipients.
            recipients: self.count(limits.recipients.as_ref(), default.recipients, 100),
            errors: self.count(limits.errors.as_ref(), default.errors, 1),
            hops: self.count(limits.hops.as_ref(), default.hops, 1),
            free_space: size(limits.free_space.as_ref(), default.free_space),
            deliveries: self.count(limits.deliveries.as_ref(), default.deliveries, 1),
            runs: self.count(limits.runs.as_ref(), default.runs, 0),
        };
        // RFC 5321 §4.5.3.1.7: at least 64 KiB.
        if let Some(at) = limits.message_size.as_ref().filter(|_| checked.message_size < 64 << 10) {
            self.error(at.node, "a message must be allowed at least 64 KiB (RFC 5321 §4.5.3.1.7)", None);
        }
        if checked.in_flight < checked.message_size
            && let Some(node) = limits.in_flight.as_ref().or(limits.message_size.as_ref()).map(|at| at.node)
        {
            let help = "in_flight is for all sessions together: several times message_size";
            self.error(node, "no message of `message_size` would fit into `in_flight`", Some(help));
        }
        checked
    }

    fn budget(&mut self, budget: &raw::Budget) -> Budget {
        let default = Budget::default();
        let string_size = size(budget.string_size.as_ref(), default.string_size as u64);
        if let Some(at) = budget.operations.as_ref().filter(|at| at.value == 0) {
            self.error(at.node, "a worker needs some operations", None);
        }
        Budget {
            operations: budget.operations.as_ref().map_or(default.operations, |at| at.value),
            wall_clock: self.time(budget.wall_clock.as_ref(), default.wall_clock),
            string_size: usize::try_from(string_size).unwrap_or(usize::MAX),
            array_size: self.count(budget.array_size.as_ref(), default.array_size, 1),
            map_size: self.count(budget.map_size.as_ref(), default.map_size, 1),
            call_depth: self.count(budget.call_depth.as_ref(), default.call_depth, 1),
            actions: self.count(budget.actions.as_ref(), default.actions, 1),
            requests: self.count(budget.requests.as_ref(), default.requests, 0),
        }
    }

    fn retention(&mut self, retention: &raw::Retention) -> Retention {
        let default = Retention::default();
        let checked = Retention {
            raw: self.time(retention.raw.as_ref(), default.raw),
            log: self.time(retention.log.as_ref(), default.log),
        };
        if checked.log < checked.raw
            && let Some(node) = retention.log.as_ref().or(retention.raw.as_ref()).map(|at| at.node)
        {
            let help = "`log` is at least as long as `raw`";
            self.error(node, "a message's record would go before its bytes", Some(help));
        }
        checked
    }

    fn session(&mut self, session: raw::Session, offers_tls: bool) -> SessionSettings {
        let default = SessionSettings::default();
        let early_talk = session.early_talk.map_or(default.early_talk, |at| at.value);
        if let Some(at) = session.greet_delay.as_ref().filter(|at| !at.value.0.is_zero()) {
            if at.value.0 > LONGEST_DELAY {
                let help = "a client waits five minutes for it at the most (RFC 5321 §4.5.3.2.1), many wait less";
                self.error(at.node, "the greeting may wait for a minute and no longer", Some(help));
            }
            if early_talk == EarlyTalk::Allow {
                self.warn(at.node, "clients wait and nobody is caught, as `early_talk` is \"allow\"", None);
            }
        }
        if let Some(at) = session.require_tls.as_ref().filter(|at| !at.value.is_empty() && !offers_tls) {
            self.error(at.node, inbound::NO_TLS, Some(inbound::OFFER_TLS));
        }
        SessionSettings {
            command_timeout: self.time(session.command_timeout.as_ref(), default.command_timeout),
            data_timeout: self.time(session.data_timeout.as_ref(), default.data_timeout),
            message_timeout: self.time(session.message_timeout.as_ref(), default.message_timeout),
            session_timeout: self.time(session.session_timeout.as_ref(), default.session_timeout),
            early_talk,
            greet_delay: or(session.greet_delay.as_ref(), default.greet_delay),
            require_tls: session.require_tls.map_or(default.require_tls, |at| plain(at.value)),
            repair_line_ends: plain(session.repair_line_ends),
        }
    }

    fn vars(&mut self, vars: BTreeMap<String, At<serde_json::Value>>) -> BTreeMap<String, At<serde_json::Value>> {
        for (name, at) in &vars {
            if !super::leaf::is_identifier(name) {
                let help = "letters, digits and `_`, not beginning with a digit";
                self.error_at_key(at.node, "a variable is a name for scripts", Some(help));
            }
        }
        vars
    }

    /// A variable that holds a URL is there to be called, and nothing signs the call.
    fn unsigned(&mut self, vars: &BTreeMap<String, At<serde_json::Value>>, webhooks: &[At<super::Webhook>]) {
        for at in vars.values() {
            let Some(url) = at.value.as_str().and_then(|text| url::Url::parse(text).ok()) else { continue };
            let known = webhooks.iter().any(|webhook| webhook.value.url == url);
            if !known && matches!(url.scheme(), "http" | "https") {
                let help = "`[webhook_defaults] secret` signs what goes to URLs that no [[webhook]] names";
                self.warn(at.node, "what a worker sends to this URL isn't signed", Some(help));
            }
        }
    }
}
