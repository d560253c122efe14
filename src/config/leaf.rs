//! The values that a string stands for, each parsed in one place: sizes, durations, addresses, networks, next hops.
//!
//! Pure. A text that doesn't fit is an error of two lines: what is wrong, and what to write.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::{ListenAddress, Scheme, units};
use crate::mail::Address;
use crate::mail::address::domain_key;

/// A value that the file writes as a string.
pub trait Leaf: Sized {
    /// What it is, for «expected …».
    const WHAT: &'static str;
    /// One for the schema.
    const EXAMPLE: &'static str;
    /// All of them, where they are a few words.
    const CHOICES: &'static [&'static str] = &[];
    /// It may be written as a number, too.
    const IS_NUMBER: bool = false;

    /// # Errors
    /// What is wrong, and on a second line what to do.
    fn parse(text: &str) -> Result<Self, String>;
}

/// A [`Leaf`], read from its string.
#[derive(Debug, Clone)]
pub struct Parsed<T>(pub T);

impl<'de, T: Leaf> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LeafVisitor<T>(PhantomData<T>);
        impl<T: Leaf> Visitor<'_> for LeafVisitor<T> {
            type Value = Parsed<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WHAT)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::parse(text).map(Parsed).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                match T::parse(&number.to_string()) {
                    found if T::IS_NUMBER => found.map(Parsed).map_err(E::custom),
                    // «a size needs its unit» says more than «found a number».
                    Err(error) if error.contains("needs its unit") => Err(E::custom(error)),
                    _ => Err(E::invalid_type(de::Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_str(LeafVisitor(PhantomData))
    }
}

impl<T: Leaf> JsonSchema for Parsed<T> {
    fn schema_name() -> Cow<'static, str> {
        T::WHAT.into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text_schema::<T>()
    }
}

/// What its string can be.
#[must_use]
pub fn text_schema<T: Leaf>() -> Schema {
    match T::CHOICES {
        [] if T::IS_NUMBER => json_schema!({ "type": ["integer", "string"], "examples": [T::EXAMPLE] }),
        [] => json_schema!({ "type": "string", "examples": [T::EXAMPLE] }),
        choices => json_schema!({ "type": "string", "enum": choices }),
    }
}

/// Octets.
#[derive(Debug, Clone, Copy)]
pub struct Size(pub u64);

impl Leaf for Size {
    const WHAT: &'static str = "a size such as \"25 MiB\"";
    const EXAMPLE: &'static str = "25 MiB";
    fn parse(text: &str) -> Result<Self, String> {
        units::parse_size(text).map(Self)
    }
}

impl Leaf for Duration {
    const WHAT: &'static str = "a duration such as \"5 m\"";
    const EXAMPLE: &'static str = "5 m";
    fn parse(text: &str) -> Result<Self, String> {
        units::parse_duration(text)
    }
}

impl Leaf for PathBuf {
    const WHAT: &'static str = "a path";
    const EXAMPLE: &'static str = "rules/main.rhai";
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('\0') {
            return Err("a path can't be empty".to_owned());
        }
        Ok(Self::from(text))
    }
}

/// A network; an address alone is a network of one.
impl Leaf for IpNet {
    const WHAT: &'static str = "a network such as \"10.0.0.0/8\"";
    const EXAMPLE: &'static str = "10.0.0.0/8";
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Self::from(address));
        }
        text.parse::<Self>()
            .map(|network| network.trunc())
            .map_err(|_| "this is no network\nwrite it as \"10.0.0.0/8\", \"2001:db8::/32\" or one address".to_owned())
    }
}

impl Leaf for Address {
    const WHAT: &'static str = "a mail address";
    const EXAMPLE: &'static str = "admin@example.net";
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| error.to_string())
    }
}

impl Leaf for ListenAddress {
    const WHAT: &'static str = "an address and a port such as \"0.0.0.0:25\"";
    const EXAMPLE: &'static str = "0.0.0.0:25";
    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("fd:") {
            Some("") => Err("`fd:` wants the name of a socket\nit is the socket unit's FileDescriptorName=".to_owned()),
            Some(name) => Ok(Self::Systemd(name.to_owned())),
            None => socket(text, "\"0.0.0.0:25\", \"[::]:25\" or \"fd:NAME\"").map(Self::Socket),
        }
    }
}

fn socket(text: &str, forms: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("this is no IP address with a port\nwrite it as {forms}"))
}

/// Where HTTP listens; nowhere for `""`.
#[derive(Debug, Clone, Copy)]
pub struct HttpAddress(pub Option<SocketAddr>);

impl Leaf for HttpAddress {
    const WHAT: &'static str = "an address and a port such as \"127.0.0.1:8025\"";
    const EXAMPLE: &'static str = "127.0.0.1:8025";
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        socket(text, "\"127.0.0.1:8025\" or \"[::1]:8025\"").map(|address| Self(Some(address)))
    }
}

/// A DNS server; port 53 unless it says another.
#[derive(Debug, Clone, Copy)]
pub struct Server(pub SocketAddr);

impl Leaf for Server {
    const WHAT: &'static str = "the address of a DNS server";
    const EXAMPLE: &'static str = "192.0.2.53";
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Self(SocketAddr::new(address, 53)));
        }
        socket(text, "\"192.0.2.53\" or \"192.0.2.53:5353\"").map(Self)
    }
}

/// The name of a host, as it goes into a greeting.
#[derive(Debug, Clone)]
pub struct HostName(pub String);

impl Leaf for HostName {
    const WHAT: &'static str = "the name of a host";
    const EXAMPLE: &'static str = "mx.example.com";
    fn parse(text: &str) -> Result<Self, String> {
        let name = domain_key(text);
        if name.starts_with('[') || !name.is_ascii() || Address::parse(&format!("x@{name}")).is_err() {
            return Err("this is no host name\nwrite it as DNS knows it: \"mx.example.com\"".to_owned());
        }
        Ok(Self(name))
    }
}

/// A domain of ours in A-labels; with `*.` in front every subdomain.
#[derive(Debug, Clone)]
pub struct DomainName(pub String);

impl Leaf for DomainName {
    const WHAT: &'static str = "a domain";
    const EXAMPLE: &'static str = "example.com";
    fn parse(text: &str) -> Result<Self, String> {
        let (star, name) = text.strip_prefix("*.").map_or(("", text), |rest| ("*.", rest));
        let HostName(name) = HostName::parse(name).map_err(|_| {
            "this is no domain\nwrite it as \"example.com\", or \"*.example.com\" for its subdomains".to_owned()
        })?;
        Ok(Self(format!("{star}{name}")))
    }
}

/// A name that a worker says after `env.`.
#[derive(Debug, Clone)]
pub struct Binding(pub String);

impl Leaf for Binding {
    const WHAT: &'static str = "a name";
    const EXAMPLE: &'static str = "TICKETS";
    fn parse(text: &str) -> Result<Self, String> {
        if !is_identifier(text) {
            return Err(
                "a binding is a name for scripts\nletters, digits and `_`, not beginning with a digit".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// What can stand after `env.` in a script.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.len() <= 64
}

/// The name of a destination: in one list with addresses, so never with an `@`.
#[derive(Debug, Clone)]
pub struct DestinationName(pub String);

impl Leaf for DestinationName {
    const WHAT: &'static str = "a name";
    const EXAMPLE: &'static str = "archive";
    fn parse(text: &str) -> Result<Self, String> {
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if text.is_empty() || text.len() > 64 || !fits {
            return Err("a destination's name is of letters, digits, `_` and `-`".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A webhook's URL.
#[derive(Debug, Clone)]
pub struct Endpoint(pub url::Url);

impl Leaf for Endpoint {
    const WHAT: &'static str = "an HTTP URL";
    const EXAMPLE: &'static str = "https://tickets.example.net/hook";
    fn parse(text: &str) -> Result<Self, String> {
        let url = url::Url::parse(text).map_err(|error| format!("this is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err("a webhook's URL begins with https:// (or http://)".to_owned());
        }
        if url.password().is_some() || !url.username().is_empty() {
            let help = "give it as a header: headers = { Authorization = { env = \"…\" } }";
            return Err(format!("a login doesn't stand in the URL\n{help}"));
        }
        Ok(Self(url))
    }
}

/// A smarthost as its URL has it, without the password.
#[derive(Debug, Clone)]
pub struct HopUrl {
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
}

impl Leaf for HopUrl {
    const WHAT: &'static str = "a next hop such as \"smtp://HOST:PORT\"";
    const EXAMPLE: &'static str = "smtp+starttls://user@host:587";
    fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str = "smtp://HOST:25, smtp+starttls://USER@HOST:587, smtps://USER@HOST:465 or lmtp://HOST:24";
        let wrong = |what: &str| format!("{what}\nwrite it as {FORMS}");
        let (scheme, _) = text.split_once("://").ok_or_else(|| wrong("this is no URL of a mail server"))?;
        let (scheme, port) = match scheme {
            "smtp" => (Scheme::Smtp, 25),
            "smtp+starttls" => (Scheme::SmtpStarttls, 587),
            "smtps" => (Scheme::Smtps, 465),
            "lmtp" => (Scheme::Lmtp, 24),
            other => return Err(wrong(&format!("`{}` is no way to a mail server", other.escape_debug()))),
        };
        let url = url::Url::parse(text).map_err(|error| wrong(&format!("this is no URL: {error}")))?;
        if url.password().is_some() {
            return Err("a password doesn't stand in the URL\nwrite it beside: password = { env = \"…\" }".to_owned());
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("nothing follows the port"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("the host is missing"))?;
        let user = percent_decoded(url.username()).ok_or_else(|| wrong("the user is not UTF-8"))?;
        Ok(Self {
            scheme,
            host: host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase(),
            port: url.port().unwrap_or(port),
            user: Some(user).filter(|user| !user.is_empty()),
        })
    }
}

/// `user%40example.com` ─► `user@example.com`
fn percent_decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        octets.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok().filter(|text| !text.contains(char::is_control))
}
