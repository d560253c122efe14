//! `[[route]]`: conditions, what each does, and those that never apply.

use std::collections::HashSet;
use std::path::Path;

use super::super::decode::At;
use super::super::route::{
    ActionName, Conditions, Country, Many, Pattern, Proof, Route, RouteAction, Somewhere, System, Written,
    WrittenConditions, WrittenProof,
};
use super::super::{Destination, Domain, Limits, Webhook, raw};
use super::Checker;
use crate::diagnostic::suggest;
use crate::mail::Address;
use crate::mail::field::{self, MAX_VALUE};
use crate::mail::label::{MAX_LABEL, MAX_LABELS, is_label};

/// Octets of a text.
const MAX_TEXT: usize = 400;

/// What other tables say that bears on conditions.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    message_size: u64,
    /// There are databases of addresses.
    has_geoip: bool,
}

impl Bounds {
    pub(super) fn of(limits: &Limits, geoip: Option<&raw::GeoIp>) -> Self {
        let has_geoip = geoip.is_some_and(|geoip| !geoip.databases.is_empty());
        Self { message_size: limits.message_size, has_geoip }
    }
}

/// What the routes so far leave to none after them.
#[derive(Default)]
struct Covered {
    all: Option<usize>,
    /// As written, but for case.
    patterns: HashSet<String>,
    domains: HashSet<String>,
    locals: HashSet<String>,
}

impl Covered {
    /// Whether no mail for it is left.
    fn takes(&self, one: &Pattern, text: &str) -> bool {
        let by_domain = match one {
            Pattern::Address(address) => self.domains.contains(&address.domain_key()),
            Pattern::Domain(name) => self.domains.contains(name),
            _ => false,
        };
        let by_local = match one {
            Pattern::Address(address) => self.locals.contains(&address.unquoted_local().to_lowercase()),
            _ => false,
        };
        self.all.is_some() || by_domain || by_local || self.patterns.contains(&text.to_lowercase())
    }

    fn add(&mut self, at: usize, route: &Route) {
        if !route.enabled || !route.stop || route.unless.is_some() || !route.when.is_by_recipient_alone() {
            return;
        }
        if route.when.recipients.is_empty() {
            self.all.get_or_insert(at);
        }
        for one in &route.when.recipients {
            self.patterns.insert(one.text.to_lowercase());
            match &one.pattern {
                Pattern::Anybody => {
                    self.all.get_or_insert(at);
                }
                Pattern::Domain(name) => {
                    self.domains.insert(name.clone());
                }
                Pattern::Local(local) => {
                    self.locals.insert(local.to_lowercase());
                }
                Pattern::Address(_) | Pattern::Regex(_) => {}
            }
        }
    }
}

impl Checker<'_> {
    pub(super) fn routes(
        &mut self,
        raw: Vec<At<Written>>,
        domains: &[Domain],
        webhooks: &[At<Webhook>],
        destinations: &[At<Destination>],
        bounds: Bounds,
    ) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::with_capacity(raw.len());
        let mut covered = Covered::default();
        for (at, At { value, node }) in raw.into_iter().enumerate() {
            let action = self.action(&value, node, webhooks, destinations);
            let tags = self.tags(&value, node);
            let stop = self.stop(&value);
            let place = value.matches.as_ref().map_or(node, |matches| matches.node);
            let enabled = value.enabled.unwrap_or(true);
            let when = WrittenConditions {
                matches: value.matches,
                sender: value.sender,
                from: value.from,
                header: value.header,
                larger_than: value.larger_than,
                smaller_than: value.smaller_than,
                ip: value.ip,
                country: value.country,
                asn: value.asn,
                auth: value.auth,
            };
            if when.says_nothing() && !self.has_hole(node) {
                let help = "match = \"billing@example.com\", \"local@*\", \"*@example.com\" or \"/regex/\"; sender, from, \
                            header, ip, country, asn, auth, larger_than and smaller_than are conditions, too";
                self.lack(node, &["match"], "this route doesn't say which mail it takes", help);
                continue;
            }
            let when = self.conditions(when, domains, bounds);
            let unless = value.unless.map(|At { value, .. }| self.conditions(value, domains, bounds));
            let route = Route { when, unless, action, tags, stop, enabled };
            self.is_reached(&route, place, &covered);
            covered.add(at, &route);
            routes.push(route);
        }
        routes
    }

    /// Whether something of this table didn't fit.
    fn has_hole(&self, node: u32) -> bool {
        self.holes.iter().any(|hole| hole.within == node)
    }

    fn conditions(&mut self, written: WrittenConditions, domains: &[Domain], bounds: Bounds) -> Conditions {
        let WrittenConditions { matches, sender, from, header, larger_than, smaller_than, ip, country, asn, auth } =
            written;
        if let Some(At { value, node }) = &matches {
            self.matches_a_domain(value, *node, domains);
        }
        let header = header.map(|at| at.value).unwrap_or_default();
        for (name, texts) in &header {
            self.field_name(name, texts.node);
        }
        if let Some(At { value, node }) = &larger_than {
            if smaller_than.as_ref().is_some_and(|smaller| smaller.value.0.0 <= value.0.0.saturating_add(1)) {
                self.warn(*node, "nothing is larger than this and smaller than `smaller_than`", None);
            } else if value.0.0 >= bounds.message_size {
                let help = format!("[limits] message_size is {} octets", bounds.message_size);
                self.warn(*node, "no message is larger than this, so this never holds", Some(&help));
            }
        }
        Conditions {
            recipients: self.several(matches),
            senders: self.several(sender),
            authors: self.several(from),
            headers: header.into_iter().map(|(name, texts)| (name, self.several(Some(texts)))).collect(),
            larger_than: larger_than.map(|at| at.value.0.0),
            smaller_than: smaller_than.map(|at| at.value.0.0),
            networks: self.several(ip),
            origin: self.somewhere(country, asn, bounds),
            auth: auth.map(|auth| self.proof(auth)).unwrap_or_default(),
        }
    }

    /// By no database nobody is anywhere: what a condition says would never hold.
    fn somewhere(
        &mut self,
        country: Option<At<Many<Country>>>,
        asn: Option<At<Many<System>>>,
        bounds: Bounds,
    ) -> Somewhere {
        let nodes = [("country", country.as_ref().map(|at| at.node)), ("asn", asn.as_ref().map(|at| at.node))];
        for (key, node) in nodes.into_iter().filter(|_| !bounds.has_geoip) {
            if let Some(node) = node {
                let help = format!("add a file of a publisher's: [geoip] databases = [\"{key}.mmdb\"]");
                let message = format!("no database says where a client is, so `{key}` can't be known");
                self.error_at_key(node, &message, Some(&help));
            }
        }
        Somewhere { countries: self.several(country), systems: self.several(asn) }
    }

    fn proof(&mut self, At { value, node }: At<WrittenProof>) -> Proof {
        let passed = value.passed;
        let mut results = Vec::new();
        for (method, wanted) in value.results() {
            if let Some(never) = wanted.value.0.iter().find(|result| method.is_never(**result)) {
                let message = format!("{} never comes to \"{}\", so this never holds", method.name(), never.word());
                self.warn(wanted.node, &message, None);
            }
            results.push((method, self.several(Some(wanted))));
        }
        let proof = Proof { passed, results };
        if proof.is_empty() && !self.has_hole(node) {
            let help = "as in { dmarc = \"pass\" }; passed, iprev, spf, spf_helo, dkim, dmarc and arc can stand in it";
            self.error(node, "this doesn't say what the sender has to prove", Some(help));
        }
        proof
    }

    fn several<T>(&mut self, many: Option<At<Many<T>>>) -> Vec<T> {
        let Some(At { value: Many(all), node }) = many else { return Vec::new() };
        if all.is_empty() && !self.has_hole(node) {
            self.error(node, "an empty list holds for nothing", Some("leave the key out where it shouldn't matter"));
        }
        all
    }

    fn field_name(&mut self, name: &str, node: u32) {
        if !field::is_name(name) {
            self.error_at_key(node, "this is no name of a header field", Some("as in \"Subject\", without the colon"));
        }
    }

    fn matches_a_domain(&mut self, matches: &Many<super::super::route::Match>, node: u32, domains: &[Domain]) {
        for one in &matches.0 {
            let name = match &one.pattern {
                Pattern::Address(address) => address.domain_key(),
                Pattern::Domain(name) if !name.starts_with('*') => name.clone(),
                _ => continue,
            };
            let ours = domains.iter().any(|domain| match domain.name.strip_prefix('*') {
                Some(suffix) => name.ends_with(suffix),
                None => domain.name == name,
            });
            if !ours {
                let near = suggest(&name, domains.iter().map(|domain| domain.name.as_str()));
                let help = near.map(|near| format!("did you mean {near}?"));
                let what = if matches.0.len() == 1 { "this route never matches" } else { "this never matches" };
                self.warn(node, &format!("{name} is no [[domain]], so {what}"), help.as_deref());
            }
        }
    }

    /// Earlier routes, or the postmaster's own rule, may leave it nothing.
    fn is_reached(&mut self, route: &Route, place: u32, covered: &Covered) {
        if !route.enabled {
            return;
        }
        let taken = |one: &super::super::route::Match| covered.takes(&one.pattern, &one.text);
        let recipients = &route.when.recipients;
        if let Some(at) = covered.all {
            let message = format!("route {} further up takes all mail, so this route never matches", at + 1);
            self.warn(place, &message, Some("put the general ones last, or give that one `stop = false`"));
        } else if !recipients.is_empty() && recipients.iter().all(taken) {
            let help = "put the general ones last, or give the earlier one `stop = false`";
            self.warn(place, "a route further up takes all of this mail, so this route never matches", Some(help));
        } else if !recipients.is_empty() && recipients.iter().all(|one| is_postmasters(&one.pattern)) {
            let help = "it goes to the domain's `postmaster`, whatever routes say (RFC 5321 §4.5.1)";
            self.warn(place, "no route takes mail for the postmaster", Some(help));
        }
    }

    fn action(
        &mut self,
        route: &Written,
        node: u32,
        webhooks: &[At<Webhook>],
        destinations: &[At<Destination>],
    ) -> RouteAction {
        if self.is_hole_in(node, "action") {
            // Told already; what it goes with can't be known.
            return RouteAction::Store;
        }
        let action = name_of(route);
        self.only_with(action, route);
        match action {
            ActionName::Worker => {
                RouteAction::Worker { main: route.main.as_ref().map(|at| self.worker(Some(at), Path::new(""))) }
            }
            ActionName::Forward => {
                let to = self.targets(route, node, "[\"accounts@example.net\"], or a [[destination]]");
                for target in &to {
                    self.forward_target(target, destinations);
                }
                let headers = route.headers.iter().map(|(name, value)| self.added(name, value)).collect();
                RouteAction::Forward { to: to.into_iter().map(|at| at.value).collect(), headers }
            }
            ActionName::Webhook => {
                let to = self.targets(route, node, "[\"TICKETS\"], or a URL");
                for target in &to {
                    self.webhook_target(target, webhooks);
                }
                RouteAction::Webhook { to: to.into_iter().map(|at| at.value).collect() }
            }
            ActionName::Store => RouteAction::Store,
            ActionName::Drop => RouteAction::Drop,
            ActionName::Reject => RouteAction::Reject { text: self.text(route.text.as_ref(), "Message rejected") },
            ActionName::Quarantine => {
                RouteAction::Quarantine { reason: self.text(route.text.as_ref(), "a route of the configuration") }
            }
            ActionName::Tag => RouteAction::Tag,
        }
    }

    fn text(&mut self, text: Option<&At<String>>, default: &str) -> String {
        let Some(at) = text else { return default.to_owned() };
        if at.value.chars().any(char::is_control) || at.value.len() > MAX_TEXT || at.value.trim().is_empty() {
            let message = format!("`text` is one line of at most {MAX_TEXT} octets");
            self.error(at.node, &message, None);
        }
        at.value.clone()
    }

    /// A field that is put before what is forwarded.
    fn added(&mut self, name: &str, value: &At<String>) -> (String, String) {
        self.field_name(name, value.node);
        if !field::is_free(name) {
            self.error_at_key(value.node, "only `X-` fields can be added", Some("as in \"X-Team\" = \"billing\""));
        }
        if !field::is_line(&value.value) || value.value.len() > MAX_VALUE {
            let message = format!("a field's value is one line of at most {MAX_VALUE} octets");
            self.error(value.node, &message, None);
        }
        (name.to_owned(), value.value.clone())
    }

    fn tags(&mut self, route: &Written, node: u32) -> Vec<String> {
        let tags = route.tags.as_ref().map(|at| at.value.clone()).unwrap_or_default();
        if tags.is_empty() && name_of(route) == ActionName::Tag {
            self.lack(node, &["tags"], "this route doesn't say which labels", "tags = [\"invoice\"]");
        }
        if let Some(at) = route.tags.as_ref().filter(|at| at.value.len() > MAX_LABELS) {
            self.error(at.node, &format!("a message has at most {MAX_LABELS} labels"), None);
        }
        for tag in &tags {
            if !is_label(&tag.value) {
                let message = format!("a label is 1 to {MAX_LABEL} characters without blanks and commas");
                self.error(tag.node, &message, Some("as in \"invoice\""));
            }
        }
        tags.into_iter().map(|tag| tag.value).collect()
    }

    /// What settles a message is the last that is done with it.
    fn stop(&mut self, route: &Written) -> bool {
        let action = name_of(route);
        let goes_on = matches!(action, ActionName::Forward | ActionName::Webhook | ActionName::Store | ActionName::Tag);
        match &route.stop {
            Some(at) if !at.value && !goes_on => {
                let help = "forward, webhook, store and tag can have it; the others settle what becomes of the message";
                self.error_at_key(at.node, "no route can follow this one", Some(help));
                true
            }
            Some(at) if at.value && action == ActionName::Tag => {
                let help = "what becomes of the message is for the routes after it, or the worker";
                self.error_at_key(at.node, "a label settles nothing, so routes go on after it", Some(help));
                false
            }
            Some(at) => at.value,
            None => action != ActionName::Tag,
        }
    }

    /// `to`, `main`, `text` and `headers` each belong to some actions.
    fn only_with(&mut self, action: ActionName, route: &Written) {
        let takes_to = matches!(action, ActionName::Forward | ActionName::Webhook);
        if let Some(to) = route.to.as_ref().filter(|_| !takes_to) {
            self.error_at_key(to.node, "`to` goes with `action = \"forward\"` or \"webhook\"", None);
        }
        if let Some(main) = route.main.as_ref().filter(|_| action != ActionName::Worker) {
            self.error_at_key(main.node, "`main` goes with `action = \"worker\"`", None);
        }
        let takes_text = matches!(action, ActionName::Reject | ActionName::Quarantine);
        if let Some(text) = route.text.as_ref().filter(|_| !takes_text) {
            self.error_at_key(text.node, "`text` goes with `action = \"reject\"` or \"quarantine\"", None);
        }
        if let Some(value) = route.headers.values().next().filter(|_| action != ActionName::Forward) {
            let help = "a condition on a field of the message is `header`";
            self.error_at_key(value.node, "`headers` goes with `action = \"forward\"`", Some(help));
        }
    }

    fn targets(&mut self, route: &Written, node: u32, forms: &str) -> Vec<At<String>> {
        let to = route.to.as_ref().map(|at| at.value.clone()).unwrap_or_default();
        if to.is_empty() {
            let place = route.to.as_ref().map_or(node, |at| at.node);
            self.lack(place, &["to"], "this route doesn't say where to", &format!("to = {forms}"));
        }
        to
    }

    fn forward_target(&mut self, target: &At<String>, destinations: &[At<Destination>]) {
        if target.value.contains('@') {
            if let Err(error) = Address::parse(&target.value) {
                self.error(target.node, &error.to_string(), None);
            }
            return;
        }
        let names = || destinations.iter().map(|at| at.value.name.as_str());
        if !names().any(|name| name == target.value) {
            self.unbound(target, "[[destination]]", &names().collect::<Vec<_>>());
        }
    }

    fn webhook_target(&mut self, target: &At<String>, webhooks: &[At<Webhook>]) {
        if target.value.contains("://") {
            if let Err(text) = <super::super::leaf::Endpoint as super::super::leaf::Leaf>::parse(&target.value) {
                self.error_text(target.node, &text);
            }
            return;
        }
        let names = || webhooks.iter().map(|at| at.value.binding.as_str());
        if !names().any(|name| name == target.value) {
            self.unbound(target, "[[webhook]]", &names().collect::<Vec<_>>());
        }
    }
}

fn name_of(route: &Written) -> ActionName {
    route.action.as_ref().map_or(ActionName::default(), |at| at.value)
}

fn is_postmasters(pattern: &Pattern) -> bool {
    let local = match pattern {
        Pattern::Address(address) => address.unquoted_local().into_owned(),
        Pattern::Local(local) => local.clone(),
        _ => return false,
    };
    local.eq_ignore_ascii_case("postmaster")
}
