//! SPF's `check_host()` (RFC 7208 §4): whether a domain lets an address send for it.
//!
//! The evaluation is ours, since limits, errors and look-ups are what a sender's record can be made to abuse, and since
//! every look-up goes through the one resolver. [`record`] reads the records.
//! Bounds: ten terms that look something up, two of them in vain (RFC 7208 §4.6.4), ten hosts of an MX and ten names of a
//! PTR; the caller bounds the whole. What a record wants said of a failure (`exp=`) is not fetched: nobody is shown it.
//!
//! A macro of a record may make a name that the client chooses (`exists:%{h}`: what it calls itself), and so a DNS of its
//! own that is asked, which may be away on purpose. Such names have a time of their own, and where they aren't answered
//! for it's no temperror, by which a failure would stay open, but `policy` (RFC 8601 §2.7.2): nobody has said that the
//! domain lets the client send. A name below the domain's own is its own DNS's to answer, whatever the client put before
//! it: whether that is away for all or for this name alone, nobody can tell.

mod record;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use self::record::{Macro, Mechanism, Name, Piece, Prefixes, Qualifier, Record};
use crate::clock::Instant;
use crate::dns::{Dns, LookupError};
use crate::mail::authentication::{Check, is_same_organisation};

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
    /// How long all names of the client's choosing may take: what DNS it has is no reason to know nothing of the sender.
    pub names_within: Duration,
}

/// What it comes to, and why.
pub struct Answer {
    pub result: Check,
    pub reason: String,
}

/// It goes no further: temperror or permerror, policy where that is the client's doing.
struct Stop(Check, String);

type Step<T> = Result<T, Stop>;

/// A name that a term looks up.
#[derive(Clone)]
struct Target {
    name: String,
    /// Whose DNS is asked is for the client to choose.
    is_clients: bool,
}

impl Target {
    fn failed(&self, reason: &str) -> Stop {
        if self.is_clients {
            Stop(Check::Policy, format!("{reason}; who sends chose that name, so it speaks for nobody"))
        } else {
            Stop(Check::TempError, reason.to_owned())
        }
    }
}

/// Asks.
pub async fn check_host(dns: &Dns, asked: &Asked<'_>) -> Answer {
    let mut evaluation = Evaluation { dns, asked, lookups: 0, voids: 0, names: None, left: asked.names_within };
    if !is_domain(asked.domain) {
        return Answer { result: Check::None, reason: "the name is no domain that could publish anything".to_owned() };
    }
    match evaluation.host(Target { name: asked.domain.to_owned(), is_clients: false }).await {
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
    /// Of the time for the client's names.
    left: Duration,
}

impl Evaluation<'_> {
    /// The result by this domain's record; `None` where there is none.
    fn host(&mut self, domain: Target) -> BoxFuture<'_, Step<Check>> {
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
            let target = self.target(Some(redirect), &domain).await?;
            let named = target.name.clone();
            match self.host(target).await? {
                Check::None => Err(Stop(Check::PermError, format!("{named}, which redirect= names, has no record"))),
                result => Ok(result),
            }
        })
    }

    /// RFC 7208 §4.4 to §4.6
    async fn record(&mut self, target: &Target) -> Step<Option<Record>> {
        let domain = &target.name;
        let dns = self.dns;
        let Some(texts) = self.look(target, dns.txt(domain)).await? else { return Ok(None) };
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

    async fn matches(&mut self, mechanism: &Mechanism, domain: &Target) -> Step<bool> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip(network, length) => {
                Ok(is_within(self.asked.ip, &[*network], Prefixes { v4: *length, v6: *length }))
            }
            Mechanism::A(name, prefixes) => {
                let target = self.target(name.as_ref(), domain).await?;
                let found = self.addresses(&target, self.asked.ip).await?;
                Ok(is_within(self.asked.ip, &found, *prefixes))
            }
            Mechanism::Mx(name, prefixes) => {
                let target = self.target(name.as_ref(), domain).await?;
                self.mx(target, *prefixes).await
            }
            Mechanism::Include(name) => {
                let target = self.target(Some(name), domain).await?;
                let named = target.name.clone();
                // RFC 7208 §5.2
                match self.host(target).await? {
                    Check::Pass => Ok(true),
                    Check::None => Err(Stop(Check::PermError, format!("{named}, which is included, has no record"))),
                    _ => Ok(false),
                }
            }
            Mechanism::Ptr(name) => {
                let target = self.target(name.as_ref(), domain).await?;
                let names = self.names().await;
                Ok(names.iter().any(|name| is_below(name, &target.name)))
            }
            Mechanism::Exists(name) => {
                let target = self.target(Some(name), domain).await?;
                // RFC 7208 §5.7: an A record, whatever the client's address is.
                let any = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
                Ok(!self.addresses(&target, any).await?.is_empty())
            }
        }
    }

    /// RFC 7208 §5.4
    async fn mx(&mut self, target: Target, prefixes: Prefixes) -> Step<bool> {
        let dns = self.dns;
        let hosts = self.look(&target, dns.mx(&target.name)).await?;
        let hosts = self.found(hosts)?;
        if hosts.len() > MAX_HOSTS {
            return Err(Stop(Check::PermError, format!("{} has more than {MAX_HOSTS} mail servers", target.name)));
        }
        for host in hosts {
            let host = Target { name: host.host, ..target };
            let found = self.look(&host, dns.addresses_like(&host.name, self.asked.ip)).await?;
            if is_within(self.asked.ip, &found.unwrap_or_default(), prefixes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn addresses(&mut self, target: &Target, like: IpAddr) -> Step<Vec<IpAddr>> {
        let dns = self.dns;
        let found = self.look(target, dns.addresses_like(&target.name, like)).await?;
        self.found(found)
    }

    /// One look-up; `None` where there is no such name. One that the client chose has what is left of the time for such.
    async fn look<T>(
        &mut self,
        target: &Target,
        look_up: impl Future<Output = Result<T, LookupError>>,
    ) -> Step<Option<T>> {
        let answer = if target.is_clients {
            let began = Instant::now();
            let answer = tokio::time::timeout_at(began + self.left, look_up).await;
            self.left = self.left.saturating_sub(began.elapsed());
            let within = self.asked.names_within;
            answer.map_err(|_| target.failed(&format!("{}: no answer within {within:?}", target.name)))?
        } else {
            look_up.await
        };
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(LookupError::NoSuchName(_)) => Ok(None),
            Err(error @ LookupError::Temporary { .. }) => Err(target.failed(&error.to_string())),
        }
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
    fn found<T>(&mut self, found: Option<Vec<T>>) -> Step<Vec<T>> {
        let found = found.unwrap_or_default();
        self.voids += usize::from(found.is_empty());
        if self.voids > MAX_VOIDS {
            return Err(Stop(Check::PermError, format!("more than {MAX_VOIDS} look-ups of the record find nothing")));
        }
        Ok(found)
    }

    /// The name that a term looks up; it counts.
    async fn target(&mut self, name: Option<&Name>, domain: &Target) -> Step<Target> {
        self.count()?;
        match name {
            Some(name) => Ok(self.expanded(name, domain).await),
            None => Ok(domain.clone()),
        }
    }

    /// RFC 7208 §7
    async fn expanded(&mut self, name: &Name, domain: &Target) -> Target {
        let validated = if name.needs_names() { self.validated(&domain.name).await } else { String::new() };
        let (mut expanded, mut chosen) = (String::new(), None);
        for piece in &name.0 {
            match piece {
                Piece::Text(text) => expanded.push_str(text),
                Piece::Macro(found) => {
                    expanded.push_str(&found.expand(&self.value(found, &domain.name, &validated)));
                    if found.is_clients() {
                        chosen = Some(expanded.len());
                    }
                }
            }
        }
        let name = shortened(&expanded).to_owned();
        let is_chosen = chosen.is_some_and(|end| {
            let rest = expanded.get(end..).unwrap_or_default();
            !is_settled(rest) && !is_same_organisation(&name, self.asked.domain)
        });
        // What a record says that the client chose is its choice, too.
        Target { name, is_clients: is_chosen || domain.is_clients }
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
        let (dns, ip, began) = (self.dns, self.asked.ip, Instant::now());
        let until = began + self.left;
        let names = tokio::time::timeout_at(until, dns.names(ip)).await;
        let mut names = names.unwrap_or(Ok(Vec::new())).unwrap_or_default();
        names.truncate(MAX_HOSTS);
        let looked = names.iter().map(|name| tokio::time::timeout_at(until, dns.addresses_like(name, ip)));
        let looked = join_all(looked).await;
        self.left = self.left.saturating_sub(began.elapsed());
        let leads_back =
            |found: &Result<Result<Vec<IpAddr>, LookupError>, _>| matches!(found, Ok(Ok(found)) if found.contains(&ip));
        let validated = names.into_iter().zip(&looked).filter(|(_, found)| leads_back(found)).map(|(name, _)| name);
        self.names.insert(validated.collect()).clone()
    }
}

/// Whether what stands behind a macro of the client's says whose DNS is asked, be the macro's last label what it may.
fn is_settled(rest: &str) -> bool {
    let below = rest.split_once('.').map(|(_, below)| below.trim_end_matches('.').to_ascii_lowercase());
    below.is_some_and(|below| psl::domain_str(&below).is_some())
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
