//! A file of tests as it is written: the one description of its keys.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::Value;

use super::auth::Auth;
use super::happening::Ended;
use super::kind::{self, Items};
use super::outside;
use crate::config::Cron;
use crate::config::document::{At, Leaf, Parsed};
use crate::mail::{Address, Timestamp, Tls};

/// What is said of keys: by namespace and key.
pub type Namespaces = BTreeMap<String, At<BTreeMap<String, At<Value>>>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    #[serde(default)]
    pub test: Vec<At<Test>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    pub name: Option<At<String>>,
    pub message: Option<At<Parsed<PathBuf>>>,
    pub raw: Option<At<String>>,
    pub from: Option<Parsed<Sender>>,
    pub to: Option<At<Recipients>>,
    pub scheduled: Option<At<Parsed<Cron>>>,
    pub delivered: Option<At<Ended>>,
    pub failed: Option<At<Ended>>,
    pub session: Option<Session>,
    pub auth: Option<Auth>,
    pub now: Option<Parsed<Moment>>,
    #[serde(default)]
    pub kv: Namespaces,
    #[serde(default)]
    pub vars: BTreeMap<String, At<Value>>,
    #[serde(default)]
    pub fetch: Vec<At<outside::Fetch>>,
    #[serde(default)]
    pub ai: Vec<At<outside::Ai>>,
    #[serde(default)]
    pub dns: Vec<At<outside::Dns>>,
    pub expect: Option<At<Expect>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    pub ip: Option<Parsed<Ip>>,
    pub helo: Option<String>,
    pub ptr: Option<String>,
    pub tls: Option<Encryption>,
    pub asn: Option<u32>,
    pub country: Option<Parsed<Country>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub connect: Option<Items<kind::Answer>>,
    pub helo: Option<Items<kind::Answer>>,
    pub mail_from: Option<Items<kind::Answer>>,
    pub rcpt: Option<Items<kind::Rcpt>>,
    pub error: Option<Items<kind::Text>>,
    pub reject: Option<Items<kind::Answer>>,
    pub defer: Option<Items<kind::Answer>>,
    pub drop: Option<Items<kind::Dropped>>,
    pub quarantine: Option<Items<kind::Quarantined>>,
    pub header: Option<Items<kind::Field>>,
    pub forward: Option<At<Items<kind::Forward>>>,
    pub webhook: Option<At<Items<kind::Webhook>>>,
    pub send: Option<Items<kind::Sent>>,
    pub reply: Option<Items<kind::Replied>>,
    pub store: Option<Items<kind::Stored>>,
    pub tag: Option<Items<kind::Tag>>,
    pub kv: Option<Namespaces>,
    pub deleted: Option<BTreeMap<String, At<Vec<String>>>>,
    pub log: Option<Items<kind::Text>>,
}

/// The envelope's sender; `<>` or nothing for the null sender.
#[derive(Debug)]
pub struct Sender(pub Option<Address>);

impl Leaf for Sender {
    const WHAT: &'static str = "a mail address, or \"<>\"";
    const EXAMPLE: &'static str = "ann@example.org";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "<>" => Ok(Self(None)),
            text => Address::parse(text).map(|address| Self(Some(address))).map_err(|error| error.to_string()),
        }
    }
}

#[derive(Debug)]
pub struct Moment(pub Timestamp);

impl Leaf for Moment {
    const WHAT: &'static str = "a time such as \"2026-11-24T10:00:00Z\"";
    const EXAMPLE: &'static str = "2026-11-24T10:00:00Z";
    fn parse(text: &str) -> Result<Self, String> {
        let parsed: Result<jiff::Timestamp, _> = text.parse();
        let parsed = parsed.map_err(|_| "this is no time\nwrite it as \"2026-11-24T10:00:00Z\"".to_owned())?;
        Ok(Self(Timestamp::from_millis(parsed.as_millisecond())))
    }
}

#[derive(Debug)]
pub struct Ip(pub IpAddr);

impl Leaf for Ip {
    const WHAT: &'static str = "an IP address";
    const EXAMPLE: &'static str = "192.0.2.1";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "this is no IP address\nwrite it as \"192.0.2.1\" or \"2001:db8::1\"".into())
    }
}

/// ISO 3166-1's two letters.
#[derive(Debug)]
pub struct Country(pub String);

impl Leaf for Country {
    const WHAT: &'static str = "a country's code";
    const EXAMPLE: &'static str = "SE";
    fn parse(text: &str) -> Result<Self, String> {
        if text.len() == 2 && text.bytes().all(|octet| octet.is_ascii_uppercase()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("this is no country's code\nwrite its two capital letters (ISO 3166-1): \"SE\"".into())
        }
    }
}

/// One recipient or several.
#[derive(Debug)]
pub struct Recipients(pub Vec<Address>);

#[derive(Debug)]
pub struct OfEnvelope(pub Address);

impl Leaf for OfEnvelope {
    const WHAT: &'static str = "a mail address";
    const EXAMPLE: &'static str = "support@example.com";
    fn parse(text: &str) -> Result<Self, String> {
        // RFC 5321 §4.5.1: <postmaster> without a domain.
        let bare = Address::bare_postmaster(text).map(Ok);
        bare.unwrap_or_else(|| Address::parse(text)).map(Self).map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Recipients {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RecipientsVisitor;
        impl<'de> Visitor<'de> for RecipientsVisitor {
            type Value = Recipients;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mail address, or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Recipients, E> {
                OfEnvelope::parse(text).map(|to| Recipients(vec![to.0])).map_err(E::custom)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Recipients, A::Error> {
                let mut recipients = Vec::new();
                while let Some(Parsed(OfEnvelope(to))) = list.next_element()? {
                    recipients.push(to);
                }
                Ok(Recipients(recipients))
            }
        }
        deserializer.deserialize_any(RecipientsVisitor)
    }
}

/// `true`, `false`, or what is used.
#[derive(Debug)]
pub struct Encryption(pub Option<Tls>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Used {
    pub version: Option<String>,
    pub cipher: Option<String>,
}

impl<'de> Deserialize<'de> for Encryption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EncryptionVisitor;
        impl<'de> Visitor<'de> for EncryptionVisitor {
            type Value = Encryption;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or { version, cipher }")
            }
            fn visit_bool<E: de::Error>(self, used: bool) -> Result<Encryption, E> {
                Ok(Encryption(used.then(|| tls(Used { version: None, cipher: None }))))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Encryption, A::Error> {
                Used::deserialize(de::value::MapAccessDeserializer::new(map)).map(|used| Encryption(Some(tls(used))))
            }
        }
        deserializer.deserialize_any(EncryptionVisitor)
    }
}

fn tls(used: Used) -> Tls {
    Tls {
        version: used.version.unwrap_or_else(|| "TLSv1.3".to_owned()),
        cipher: used.cipher.unwrap_or_else(|| "TLS13_AES_256_GCM_SHA384".to_owned()),
        sni: None,
    }
}
