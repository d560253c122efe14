//! What comes in: listeners, certificates, domains, workers, and the names that are bound.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::super::decode::At;
use super::super::leaf::Parsed;
use super::super::raw;
use super::super::secret::{PemFile, Reading, credential};
use super::super::{Destination, Domain, ListenAddress, Listener, Policy, TlsFiles, TlsMode, Webhook};
use super::{Checker, or, plain};
use crate::diagnostic::suggest;

/// Where TLS is demanded and nobody can have it.
pub(super) const NO_TLS: &str = "no listener offers TLS, so all of this mail would be refused";
pub(super) const OFFER_TLS: &str = "add [tls] with `certificate` and `key`, and a listener whose `tls` isn't \"off\"";

impl Checker<'_> {
    /// A script, as written; it must be there, but where a release of it was deployed.
    pub(super) fn worker(&mut self, main: Option<&At<Parsed<PathBuf>>>, default: &Path) -> PathBuf {
        let Some(at) = main else {
            let full = self.base.join(default);
            if self.around.has_worker(&full) == Some(false) {
                let help = format!("looked for it at {}; `main` names another", full.display());
                self.lack_in_all("main", &format!("the worker {} isn't there", default.display()), &help);
            }
            return default.to_path_buf();
        };
        if at.value.0.extension().is_none_or(|extension| extension != "rhai") {
            self.error(at.node, "a worker is a Rhai script", Some("its name ends in .rhai: \"rules/main.rhai\""));
        } else if self.around.has_worker(&self.base.join(&at.value.0)) == Some(false) {
            let help = format!("looked for it at {}", self.base.join(&at.value.0).display());
            self.error(at.node, &format!("the worker {} isn't there", at.value.0.display()), Some(&help));
        }
        at.value.0.clone()
    }

    pub(super) fn tls(&mut self, tls: Option<At<raw::Tls>>) -> Option<TlsFiles> {
        let At { value: tls, node } = tls?;
        if !self.around.has_tls() {
            self.warn(node, "[tls] is left out: mail comes in in the clear here", None);
        }
        // Who only looks at the store may be unable to read a key, and serves nobody.
        if tls.acme.is_some() || !self.around.has_tls() || self.around.reading() == Reading::Unread {
            return None;
        }
        if let Some(certificate) = &tls.certificate {
            let help = "`certificate` and `key` name PEM files: the chain, the server's own first, and its private key";
            self.tls = Some(self.finding(certificate.node, false, "", Some(help)));
        }
        let (certificate, key) = self.pair(node, tls.certificate.as_ref(), tls.key.as_ref())?;
        let sni = tls
            .sni
            .into_iter()
            .filter_map(|At { value, node }| self.pair(node, value.certificate.as_ref(), value.key.as_ref()))
            .collect();
        Some(TlsFiles { certificate, key, sni })
    }

    fn pair(
        &mut self,
        node: u32,
        certificate: Option<&At<PemFile>>,
        key: Option<&At<PemFile>>,
    ) -> Option<(PathBuf, PathBuf)> {
        let (Some(certificate), Some(key)) = (certificate, key) else {
            let help = "certificate = \"tls/fullchain.pem\" and key = \"tls/key.pem\"";
            self.lack(node, &["certificate", "key"], "TLS needs both `certificate` and `key`", help);
            return None;
        };
        if let PemFile::Path(path) = &key.value {
            self.warn_if_open(key.node, &self.base.join(path));
        }
        let (certificate, key) = (self.pem(certificate, "the certificate"), self.pem(key, "the key"));
        certificate.zip(key)
    }

    /// `None` where a credential isn't there: told.
    fn pem(&mut self, file: &At<PemFile>, what: &str) -> Option<PathBuf> {
        let name = match &file.value {
            PemFile::Path(path) => return Some(self.file(file.node, path, what)),
            PemFile::Credential(name) => name,
        };
        let found = credential(name, self.around).and_then(|path| match self.around.has_file(&path) {
            Some(false) => {
                Err(format!("the credential {name} isn't there\nadd LoadCredential={name}:PATH to the service"))
            }
            _ => Ok(path),
        });
        found.map_err(|text| self.missing(file.node, &text)).ok()
    }

    pub(super) fn listeners(&mut self, raw: &[At<raw::Listener>], has_tls: bool, has_domains: bool) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::with_capacity(raw.len());
        for At { value, node } in raw {
            let default = Listener::default();
            let address = or(value.address.as_ref(), default.address);
            let place = value.address.as_ref().map_or(*node, |at| at.node);
            let fixed = !matches!(&address, ListenAddress::Socket(socket) if socket.port() == 0);
            if fixed && !self.is_hole_in(*node, "address") && listeners.iter().any(|earlier| earlier.address == address)
            {
                self.error(place, "a listener of this address stands further up", None);
            }
            if !has_domains && !raw::is_loopback(&address) {
                self.lack(place, &[], "no [[domain]] to take mail for", NO_DOMAIN);
            }
            let tls = value.tls.as_ref().map_or(default.tls, |at| at.value);
            if !has_tls
                && matches!(tls, TlsMode::Required | TlsMode::Implicit)
                && let Some(at) = &value.tls
            {
                let help = "add [tls] with `certificate` and `key`";
                self.lack(at.node, &[], "this listener needs a certificate, and there is no [tls]", help);
            }
            listeners.push(Listener { address, tls, proxy_protocol: plain(value.proxy_protocol.clone()) });
        }
        if listeners.is_empty() {
            if !has_domains {
                self.lack_in_all("domain", "no [[domain]] to take mail for", NO_DOMAIN);
            }
            listeners.push(Listener::default());
        }
        listeners
    }

    pub(super) fn domains(&mut self, raw: Vec<At<raw::Domain>>, offers_tls: bool, policy: Policy) -> Vec<Domain> {
        let mut domains: Vec<Domain> = Vec::with_capacity(raw.len());
        let mut postmasters = Vec::with_capacity(raw.len());
        for At { value, node } in raw {
            let main = value.main.as_ref().map(|at| self.worker(Some(at), Path::new("")));
            if value.postmaster.is_none() {
                let help =
                    "mail for postmaster@ must reach a person (RFC 5321 §4.5.1): postmaster = \"you@example.net\"";
                self.lack(node, &["postmaster"], "this domain names no `postmaster`", help);
            }
            let Some(name) = value.name else {
                self.lack(node, &["name"], "this domain has no `name`", "name = \"example.com\"");
                continue;
            };
            if domains.iter().any(|earlier| earlier.name == name.value.0.0) {
                self.error(name.node, "this domain stands further up already", None);
            }
            let subaddress = self.separator(value.subaddress);
            let require_tls = value.require_tls.as_ref().is_some_and(|at| at.value);
            if let Some(at) = value.require_tls.filter(|at| at.value && !offers_tls) {
                self.error(at.node, NO_TLS, Some(OFFER_TLS));
            }
            let Some(postmaster) = value.postmaster else { continue };
            postmasters.push(postmaster.node);
            domains.push(Domain {
                name: name.value.0.0,
                postmaster: postmaster.value.0,
                main,
                subaddress,
                case_sensitive: value.case_sensitive.unwrap_or(false),
                require_tls,
                policy: Policy {
                    dmarc_reject: value.dmarc_reject.unwrap_or(policy.dmarc_reject),
                    dmarc_quarantine: value.dmarc_quarantine.unwrap_or(policy.dmarc_quarantine),
                    spf_fail: value.spf_fail.unwrap_or(policy.spf_fail),
                },
            });
        }
        self.postmasters_are_elsewhere(&domains, &postmasters);
        domains
    }

    fn separator(&mut self, separator: Option<At<String>>) -> String {
        let Some(At { value, node }) = separator else { return "+".to_owned() };
        if value.len() > 2 || !value.bytes().all(|byte| b"+-_=#.".contains(&byte)) {
            self.error(node, "a separator of subaddresses is one or two of + - _ = # .", Some("\"\" switches it off"));
        }
        value
    }

    /// A postmaster that is the postmaster of one of our own domains would go in circles.
    fn postmasters_are_elsewhere(&mut self, domains: &[Domain], places: &[u32]) {
        let circular = domains.iter().zip(places).find(|(domain, _)| {
            domain.postmaster.unquoted_local().eq_ignore_ascii_case("postmaster")
                && domains.iter().any(|own| own.name == domain.postmaster.domain_key())
        });
        if let Some((domain, place)) = circular {
            let message =
                format!("the postmaster of {} is a postmaster of ours: its mail would go in a circle", domain.name);
            self.error(*place, &message, Some("name a mailbox that a person reads"));
        }
    }

    /// A name that is used and not bound.
    pub(super) fn unbound(&mut self, name: &At<String>, section: &str, bound: &[&str]) {
        // One whose own name didn't fit may be the one that is meant.
        if self.holes.iter().any(|hole| matches!(hole.key.as_str(), "binding" | "name" | "webhook" | "destination")) {
            return;
        }
        let help = match suggest(&name.value, bound.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if bound.is_empty() => format!("there is no {section} yet"),
            None => format!("there are {}", bound.join(", ")),
        };
        self.error(name.node, &format!("no {section} is named `{}`", name.value.escape_debug()), Some(&help));
    }

    pub(super) fn kv_namespaces(&mut self, raw: &[At<raw::KvNamespace>]) -> Vec<At<String>> {
        let mut names = Vec::with_capacity(raw.len());
        for At { value, node } in raw {
            match &value.binding {
                Some(at) => names.push(At { value: at.value.0.0.clone(), node: at.node }),
                None => self.lack(*node, &["binding"], "this namespace has no `binding`", "binding = \"EMAILS\""),
            }
        }
        names
    }

    /// A worker finds all of them as `env.NAME`, so no two may share a name.
    pub(super) fn one_name_each(
        &mut self,
        vars: &BTreeMap<String, At<serde_json::Value>>,
        namespaces: &[At<String>],
        webhooks: &[At<Webhook>],
        destinations: &[At<Destination>],
    ) {
        let all = (vars.iter().map(|(name, at)| (name.as_str(), at.node, "a variable")))
            .chain(namespaces.iter().map(|at| (at.value.as_str(), at.node, "a KV namespace")))
            .chain(webhooks.iter().map(|at| (at.value.binding.as_str(), at.node, "a webhook")))
            .chain(destinations.iter().map(|at| (at.value.name.as_str(), at.node, "a destination")));
        let mut taken: HashMap<&str, &str> = HashMap::new();
        for (name, node, what) in all {
            if let Some(earlier) = taken.insert(name, what) {
                let message = format!("`{name}` is the name of {earlier} already");
                self.error(node, &message, Some("a worker finds both as env.NAME: rename one"));
            }
        }
    }
}

const NO_DOMAIN: &str = "add [[domain]] with `name` and `postmaster`";

/// The name of the machine, where it is one that may stand in a greeting.
pub(super) fn hostname(name: &str) -> Option<String> {
    <super::super::leaf::HostName as super::super::leaf::Leaf>::parse(name).ok().map(|name| name.0)
}
