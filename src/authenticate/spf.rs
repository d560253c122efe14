//! SPF's `check_host()` (RFC 7208 §4): whether a domain lets an address send for it.
//!
//! The evaluation is ours, since limits, errors and look-ups are what a sender's record can be made to abuse, and since
//! every look-up goes through the one resolver. [`record`] reads the records.
//! Bounds: ten terms that look something up, two of them in vain (RFC 7208 §4.6.4), ten hosts of an MX and ten names of a
//! PTR, which have a time of their own; the caller bounds the whole. What a record wants said of a failure (`exp=`) is not fetched: nobody is shown it.

mod record;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use self::record::{Macro, Mechanism, Name, Piece, Prefixes, Qualifier, Record};
use crate::clock::Instant;
use crate::dns::{Dns, LookupError};
use crate::mail::authentication::Check;

/// Terms that look something up.
const MAX_LOOKUPS: usize = 10;
/// Of these, such that find nothing.
const MAX_VOIDS: usize = 2;
/// Hosts of one MX look-up, and names of one PTR look-up.
const MAX_HOSTS: usize = 10;
const MAX_NAME: usize = 253;

/// Whose mail is judged.
pub struct Asked<'a> {
    pub ip: IpAddr,
    /// The whole address; of the null sender and of HELO, postmaster at the name of HELO (RFC 7208 §2.3, §2.4).
    pub sender: &'a str,
    pub domain: &'a str,
    pub helo: &'a str,
    /// How long the client's own names may take: what DNS it has is no reason to know nothing of the sender.
    pub names_within: Duration,
}

/// What it comes to, and why.
pub struct Answer {
    pub result: Check,
    pub reason: String,
}

/// It goes no further: temperror or permerror.
struct Stop(Check, String);

type Step<T> = Result<T, Stop>;

/// Asks.
pub async fn check_host(dns: &Dns, asked: &Asked<'_>) -> Answer {
    let mut evaluation = Evaluation { dns, asked, lookups: 0, voids: 0, names: None };
    if !is_domain(asked.domain) {
        return Answer { result: Check::None, reason: "the name is no domain that could publish anything".to_owned() };
    }
    match evaluation.host(asked.domain.to_owned()).await {
        Ok(Check::None) => Answer { result: Check::None, reason: "the domain publishes no SPF record".to_owned() },
        Ok(result) => {
            let reason = if result == Check::Pass { String::new() } else { format!("{} is not designated", asked.ip) };
            Answer { result, reason }
        }
        Err(Stop(result, reason)) => Answer { result, reason },
    }
}

/// RFC 7208 §4.3: a name of several labels, none too long; an address literal is none.
fn is_domain(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_name = !name.starts_with('[');
    is_name
        && name.len() <= MAX_NAME
        && name.contains('.')
        && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

struct Evaluation<'a> {
    dns: &'a Dns,
    asked: &'a Asked<'a>,
    lookups: usize,
    voids: usize,
    /// The client's names that lead back to it, once somebody has asked.
    names: Option<Vec<String>>,
}

impl Evaluation<'_> {
    /// The result by this domain's record; `None` where there is none.
    fn host(&mut self, domain: String) -> BoxFuture<'_, Step<Check>> {
        Box::pin(async move {
            let Some(record) = self.record(&domain).await? else { return Ok(Check::None) };
            for directive in &record.directives {
                if self.matches(&directive.mechanism, &domain).await? {
                    return Ok(match directive.qualifier {
                        Qualifier::Pass => Check::Pass,
                        Qualifier::Fail => Check::Fail,
                        Qualifier::SoftFail => Check::SoftFail,
                        Qualifier::Neutral => Check::Neutral,
                    });
                }
            }
            // RFC 7208 §6.1
            let Some(redirect) = &record.redirect else { return Ok(Check::Neutral) };
            self.count()?;
            let target = self.expanded(redirect, &domain).await;
            match self.host(target.clone()).await? {
                Check::None => Err(Stop(Check::PermError, format!("{target}, which redirect= names, has no record"))),
                result => Ok(result),
            }
        })
    }

    /// RFC 7208 §4.4 to §4.6
    async fn record(&self, domain: &str) -> Step<Option<Record>> {
        let texts = match self.dns.txt(domain).await {
            Ok(texts) => texts,
            Err(LookupError::NoSuchName(_)) => return Ok(None),
            Err(error @ LookupError::Temporary { .. }) => return Err(temporary(&error)),
        };
        let is_record = |text: &&String| {
            let version = text.get(..6).is_some_and(|version| version.eq_ignore_ascii_case("v=spf1"));
            version && matches!(text.as_bytes().get(6), None | Some(b' '))
        };
        let mut records = texts.iter().filter(is_record);
        let Some(record) = records.next() else { return Ok(None) };
        if records.next().is_some() {
            return Err(Stop(Check::PermError, format!("{domain} has several SPF records")));
        }
        let read = Record::parse(record.get(6..).unwrap_or_default());
        read.map(Some).ok_or_else(|| Stop(Check::PermError, format!("the SPF record of {domain} can't be read")))
    }

    async fn matches(&mut self, mechanism: &Mechanism, domain: &str) -> Step<bool> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip(network, length) => {
                Ok(is_within(self.asked.ip, &[*network], Prefixes { v4: *length, v6: *length }))
            }
            Mechanism::A(name, prefixes) => {
                let target = self.target(name.as_ref(), domain).await?;
                let found = self.found(self.dns.addresses_like(&target, self.asked.ip).await)?;
                Ok(is_within(self.asked.ip, &found, *prefixes))
            }
            Mechanism::Mx(name, prefixes) => {
                let target = self.target(name.as_ref(), domain).await?;
                self.mx(&target, *prefixes).await
            }
            Mechanism::Include(name) => {
                let target = self.target(Some(name), domain).await?;
                // RFC 7208 §5.2
                match self.host(target.clone()).await? {
                    Check::Pass => Ok(true),
                    Check::None => Err(Stop(Check::PermError, format!("{target}, which is included, has no record"))),
                    _ => Ok(false),
                }
            }
            Mechanism::Ptr(name) => {
                let target = self.target(name.as_ref(), domain).await?;
                let names = self.names().await;
                Ok(names.iter().any(|name| is_below(name, &target)))
            }
            Mechanism::Exists(name) => {
                let target = self.target(Some(name), domain).await?;
                // RFC 7208 §5.7: an A record, whatever the client's address is.
                let any = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
                Ok(!self.found(self.dns.addresses_like(&target, any).await)?.is_empty())
            }
        }
    }

    /// RFC 7208 §5.4
    async fn mx(&mut self, target: &str, prefixes: Prefixes) -> Step<bool> {
        let hosts = self.found(self.dns.mx(target).await)?;
        if hosts.len() > MAX_HOSTS {
            return Err(Stop(Check::PermError, format!("{target} has more than {MAX_HOSTS} mail servers")));
        }
        for host in hosts {
            match self.dns.addresses_like(&host.host, self.asked.ip).await {
                Ok(found) if is_within(self.asked.ip, &found, prefixes) => return Ok(true),
                Ok(_) | Err(LookupError::NoSuchName(_)) => {}
                Err(error @ LookupError::Temporary { .. }) => return Err(temporary(&error)),
            }
        }
        Ok(false)
    }

    /// One more term that looks something up.
    fn count(&mut self) -> Step<()> {
        self.lookups += 1;
        if self.lookups > MAX_LOOKUPS {
            return Err(Stop(Check::PermError, format!("the record takes more than {MAX_LOOKUPS} look-ups")));
        }
        Ok(())
    }

    /// What a look-up found; nothing is allowed twice.
    fn found<T>(&mut self, answer: Result<Vec<T>, LookupError>) -> Step<Vec<T>> {
        let found = match answer {
            Ok(found) => found,
            Err(LookupError::NoSuchName(_)) => Vec::new(),
            Err(error @ LookupError::Temporary { .. }) => return Err(temporary(&error)),
        };
        self.voids += usize::from(found.is_empty());
        if self.voids > MAX_VOIDS {
            return Err(Stop(Check::PermError, format!("more than {MAX_VOIDS} look-ups of the record find nothing")));
        }
        Ok(found)
    }

    /// The name that a term looks up; it counts.
    async fn target(&mut self, name: Option<&Name>, domain: &str) -> Step<String> {
        self.count()?;
        match name {
            Some(name) => Ok(self.expanded(name, domain).await),
            None => Ok(domain.to_owned()),
        }
    }

    /// RFC 7208 §7
    async fn expanded(&mut self, name: &Name, domain: &str) -> String {
        let validated = if name.needs_names() { self.validated(domain).await } else { String::new() };
        let mut expanded = String::new();
        for piece in &name.0 {
            match piece {
                Piece::Text(text) => expanded.push_str(text),
                Piece::Macro(found) => expanded.push_str(&found.expand(&self.value(found, domain, &validated))),
            }
        }
        shortened(&expanded).to_owned()
    }

    /// RFC 7208 §7.2
    fn value(&self, of: &Macro, domain: &str, validated: &str) -> String {
        let asked = self.asked;
        let (local, sender_domain) = asked.sender.rsplit_once('@').unwrap_or(("postmaster", asked.sender));
        match of.letter {
            's' => asked.sender.to_owned(),
            'l' => local.to_owned(),
            'o' => sender_domain.to_owned(),
            'd' => domain.to_owned(),
            'i' => dotted(asked.ip),
            'p' => validated.to_owned(),
            'v' => if asked.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            _ => asked.helo.to_owned(),
        }
    }

    /// `%{p}` (RFC 7208 §7.3): best the domain itself, then one below it, then any.
    async fn validated(&mut self, domain: &str) -> String {
        let names = self.names().await;
        let itself = names.iter().find(|name| name.eq_ignore_ascii_case(domain));
        let best = itself.or_else(|| names.iter().find(|name| is_below(name, domain))).or_else(|| names.first());
        best.cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    /// RFC 7208 §5.5: where DNS doesn't answer, there are none. It is the client's own DNS, which may be slow on purpose.
    async fn names(&mut self) -> Vec<String> {
        if let Some(names) = &self.names {
            return names.clone();
        }
        let (dns, ip, until) = (self.dns, self.asked.ip, Instant::now() + self.asked.names_within);
        let names = tokio::time::timeout_at(until, dns.names(ip)).await;
        let mut names = names.unwrap_or(Ok(Vec::new())).unwrap_or_default();
        names.truncate(MAX_HOSTS);
        let looked = names.iter().map(|name| tokio::time::timeout_at(until, dns.addresses_like(name, ip)));
        let looked = join_all(looked).await;
        let leads_back =
            |found: &Result<Result<Vec<IpAddr>, LookupError>, _>| matches!(found, Ok(Ok(found)) if found.contains(&ip));
        let validated = names.into_iter().zip(&looked).filter(|(_, found)| leads_back(found)).map(|(name, _)| name);
        self.names.insert(validated.collect()).clone()
    }
}

fn temporary(error: &LookupError) -> Stop {
    Stop(Check::TempError, error.to_string())
}

/// The name, without what makes it too long: labels from the left go (RFC 7208 §7.3).
fn shortened(name: &str) -> &str {
    let mut name = name.strip_suffix('.').unwrap_or(name);
    while name.len() > MAX_NAME {
        match name.split_once('.') {
            Some((_, rest)) => name = rest,
            None => break,
        }
    }
    name
}

/// RFC 7208 §7.3: an address of IPv6 is its nibbles.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let nibbles: Vec<String> = format!("{:032x}", ip.to_bits()).chars().map(String::from).collect();
            nibbles.join(".")
        }
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.trim_end_matches('.').to_ascii_lowercase());
    name == domain || name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

fn is_within(ip: IpAddr, networks: &[IpAddr], prefixes: Prefixes) -> bool {
    networks.iter().any(|network| match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let differ = (ip.to_bits() ^ network.to_bits()).leading_zeros();
            differ >= u32::from(prefixes.v4)
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let differ = (ip.to_bits() ^ network.to_bits()).leading_zeros();
            differ >= u32::from(prefixes.v6)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests;
