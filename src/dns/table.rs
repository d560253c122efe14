//! A resolver's answers written down beforehand: what tests use in place of the network. Asks nobody, knows no time.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::hickory_resolver::proto::op::ResponseCode;
use mail_auth::spf::Spf;
use mail_auth::{DnsError, DnssecStatus, Error, MX, RecordSet, ResolverCache, Txt};

use super::{Data, LookupError, Mx};

/// Names and what they answer. A name that isn't in it doesn't exist.
#[derive(Debug, Clone, Default)]
pub struct Table {
    mx: HashMap<String, Vec<Mx>>,
    addresses: HashMap<String, Vec<IpAddr>>,
    txt: HashMap<String, Vec<String>>,
    names: HashMap<IpAddr, Vec<String>>,
    failing: HashMap<String, String>,
}

impl Table {
    /// Adds an MX record; an empty `host` makes it a null MX.
    #[must_use]
    pub fn with_mx(mut self, domain: &str, preference: u16, host: &str) -> Self {
        let records = self.mx.entry(domain.to_owned()).or_default();
        records.push(Mx { preference, host: host.to_owned() });
        records.sort_by_key(|mx| mx.preference);
        self
    }

    #[must_use]
    pub fn with_address(mut self, host: &str, ip: IpAddr) -> Self {
        self.addresses.entry(host.to_owned()).or_default().push(ip);
        self
    }

    #[must_use]
    pub fn with_txt(mut self, name: &str, text: &str) -> Self {
        self.txt.entry(name.to_owned()).or_default().push(text.to_owned());
        self
    }

    #[must_use]
    pub fn with_name(mut self, ip: IpAddr, name: &str) -> Self {
        self.names.entry(ip).or_default().push(name.to_owned());
        self
    }

    /// Look-ups of `name` fail, as by SERVFAIL.
    #[must_use]
    pub fn with_failure(mut self, name: &str, reason: &str) -> Self {
        self.failing.insert(name.to_owned(), reason.to_owned());
        self
    }

    pub(super) fn mx(&self, domain: &str) -> Result<Vec<Mx>, LookupError> {
        self.answer(domain, &self.mx)
    }

    pub(super) fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        self.answer(host, &self.addresses)
    }

    pub(super) fn txt(&self, name: &str) -> Result<Vec<String>, LookupError> {
        self.answer(name, &self.txt)
    }

    /// Addresses, MX and texts; it has no others.
    pub(super) fn records(&self, name: &str, kind: &str) -> Result<Vec<Data>, LookupError> {
        let of = |is_wanted: fn(&IpAddr) -> bool| {
            let found = self.addresses(name)?;
            Ok(found.iter().filter(|ip| is_wanted(ip)).map(|ip| Data::Text(ip.to_string())).collect())
        };
        match kind {
            "A" => of(IpAddr::is_ipv4),
            "AAAA" => of(IpAddr::is_ipv6),
            "MX" => Ok(self.mx(name)?.into_iter().map(Data::Mx).collect()),
            "TXT" => Ok(self.txt(name)?.into_iter().map(Data::Text).collect()),
            _ => Ok(Vec::new()),
        }
    }

    pub(super) fn names(&self, ip: IpAddr) -> Vec<String> {
        self.names.get(&ip).cloned().unwrap_or_default()
    }

    fn answer<T: Clone>(&self, name: &str, records: &HashMap<String, Vec<T>>) -> Result<Vec<T>, LookupError> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(reason) = self.failing.get(&name) {
            return Err(LookupError::Temporary { name, reason: reason.clone() });
        }
        let exists = self.mx.contains_key(&name) || self.addresses.contains_key(&name) || self.txt.contains_key(&name);
        match records.get(&name) {
            Some(found) => Ok(found.clone()),
            None if exists => Ok(Vec::new()),
            None => Err(LookupError::NoSuchName(name)),
        }
    }

    pub(crate) fn texts(&self) -> Texts {
        let mut filled = Shelf::new(Txt::Error(Error::Dns(DnsError::RecordNotFound(ResponseCode::NXDomain))));
        for (name, texts) in &self.txt {
            if let Some(record) = texts.iter().find_map(|text| parsed(name, text.as_bytes())) {
                filled.put(&fqdn(name), record);
            }
        }
        for (name, reason) in &self.failing {
            filled.put(&fqdn(name), Txt::Error(Error::Dns(DnsError::Resolver(reason.clone()))));
        }
        filled
    }

    pub(crate) fn exchanges(&self) -> Exchanges {
        let mut filled = Shelf::new(records(Vec::new()));
        for (name, found) in &self.mx {
            let exchanges = found
                .iter()
                .map(|mx| MX { exchanges: Box::new([fqdn(&mx.host).into_boxed_str()]), preference: mx.preference });
            filled.put(&fqdn(name), records(exchanges.collect()));
        }
        filled
    }

    pub(crate) fn addresses4(&self) -> Addresses4 {
        let mut filled = Shelf::new(records(Vec::new()));
        for (name, found) in &self.addresses {
            let addresses = found.iter().filter_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None });
            filled.put(&fqdn(name), records(addresses.collect()));
        }
        filled
    }

    pub(crate) fn addresses6(&self) -> Addresses6 {
        let mut filled = Shelf::new(records(Vec::new()));
        for (name, found) in &self.addresses {
            let addresses = found.iter().filter_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None });
            filled.put(&fqdn(name), records(addresses.collect()));
        }
        filled
    }

    pub(crate) fn pointers(&self) -> Pointers {
        let mut filled = Shelf::new(records(Vec::new()));
        for (ip, names) in &self.names {
            filled.found.insert(*ip, records(names.iter().map(|name| fqdn(name).into_boxed_str()).collect()));
        }
        filled
    }
}

pub(crate) type Texts = Shelf<Box<str>, Txt>;
pub(crate) type Exchanges = Shelf<Box<str>, RecordSet<MX>>;
pub(crate) type Addresses4 = Shelf<Box<str>, RecordSet<Ipv4Addr>>;
pub(crate) type Addresses6 = Shelf<Box<str>, RecordSet<Ipv6Addr>>;
pub(crate) type Pointers = Shelf<IpAddr, RecordSet<Box<str>>>;

/// What mail-auth takes for its cache: it has an answer for every name, so nothing is ever asked of the network.
pub(crate) struct Shelf<K, V> {
    found: HashMap<K, V>,
    absent: V,
}

impl<K: Hash + Eq, V> Shelf<K, V> {
    fn new(absent: V) -> Self {
        Self { found: HashMap::new(), absent }
    }
}

impl<V> Shelf<Box<str>, V> {
    fn put(&mut self, name: &str, value: V) {
        self.found.insert(name.into(), value);
    }
}

impl<K: Hash + Eq, V: Clone> ResolverCache<K, V> for Shelf<K, V> {
    fn get<Q>(&self, name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(self.found.get(name).unwrap_or(&self.absent).clone())
    }

    fn remove<Q>(&self, _name: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _key: K, _value: V, _valid_until: std::time::Instant) {}
}

fn parsed(name: &str, text: &[u8]) -> Option<Txt> {
    if name.contains("._domainkey.") {
        return DomainKey::parse(text).ok().map(Txt::from);
    }
    Spf::parse(text).ok().map(Txt::from)
}

fn records<T>(found: Vec<T>) -> RecordSet<T> {
    RecordSet { rrset: Arc::from(found), dnssec_status: DnssecStatus::Indeterminate }
}

fn fqdn(name: &str) -> String {
    format!("{name}.")
}
