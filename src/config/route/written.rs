//! `[[route]]` as it is written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::super::decode::At;
use super::super::leaf::{Leaf, Parsed, Size};
use super::{Country, Match, Sender, System, Text, WrittenProof};

/// Sends some mail elsewhere than to the worker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// For whom: "billing@example.com", "local@*", "*@example.com" or "/regex/", one or a list. Default: everybody.
    #[serde(rename = "match")]
    pub matches: Option<At<Many<Match>>>,
    /// Of the envelope's sender: patterns as in `match`, and "<>" for bounces. Default: anybody.
    pub sender: Option<At<Many<Sender>>>,
    /// Of the addresses in the From field: patterns as in `match`. Default: anybody.
    pub from: Option<At<Many<Sender>>>,
    /// By name of a header field what it has: a text in either case, "/regex/" likewise, "*" for any; one or a list.
    pub header: Option<At<BTreeMap<String, At<Many<Text>>>>>,
    /// More than this, as in "5 MiB".
    pub larger_than: Option<At<Parsed<Size>>>,
    /// Less than this.
    pub smaller_than: Option<At<Parsed<Size>>>,
    /// The client's address: networks, one or a list. Default: any.
    pub ip: Option<At<Many<IpNet>>>,
    /// Where the client's address is, by `[geoip]`: a country's two letters, one or a list; "unknown" is one that no database knows. Default: anywhere.
    pub country: Option<At<Many<Country>>>,
    /// Its autonomous system: a number, one or a list, and "unknown" likewise. Default: any.
    pub asn: Option<At<Many<System>>>,
    /// Who the sender proved to be, as in { dmarc = "pass" }. Default: whoever.
    pub auth: Option<At<WrittenProof>>,
    /// Where all of this holds, the route doesn't apply.
    pub unless: Option<At<Conditions>>,
    /// What is done. Default: worker.
    pub action: Option<At<ActionName>>,
    /// forward: addresses and destinations; webhook: bindings and URLs.
    pub to: Option<At<Vec<At<String>>>>,
    /// forward: `X-` fields that are put before the message.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// worker: the script. Default: the domain's.
    pub main: Option<At<Parsed<PathBuf>>>,
    /// reject: what the sender reads, "Message rejected" by default; quarantine: what it is for.
    pub text: Option<At<String>>,
    /// Labels in the trace.
    pub tags: Option<At<Vec<At<String>>>>,
    /// false: the routes after it apply, too, and the worker where none of them stops. Default: true, but for tag.
    pub stop: Option<At<bool>>,
    /// Default: true.
    pub enabled: Option<bool>,
}

/// What a route doesn't apply to: all of it must hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// For whom: "billing@example.com", "local@*", "*@example.com" or "/regex/", one or a list.
    #[serde(rename = "match")]
    pub matches: Option<At<Many<Match>>>,
    /// Of the envelope's sender: patterns as in `match`, and "<>" for bounces.
    pub sender: Option<At<Many<Sender>>>,
    /// Of the addresses in the From field: patterns as in `match`.
    pub from: Option<At<Many<Sender>>>,
    /// By name of a header field what it has: a text in either case, "/regex/" likewise, "*" for any; one or a list.
    pub header: Option<At<BTreeMap<String, At<Many<Text>>>>>,
    /// More than this, as in "5 MiB".
    pub larger_than: Option<At<Parsed<Size>>>,
    /// Less than this.
    pub smaller_than: Option<At<Parsed<Size>>>,
    /// The client's address: networks, one or a list.
    pub ip: Option<At<Many<IpNet>>>,
    /// Where the client's address is, by `[geoip]`: a country's two letters, one or a list; "unknown" is one that no database knows.
    pub country: Option<At<Many<Country>>>,
    /// Its autonomous system: a number, one or a list, and "unknown" likewise.
    pub asn: Option<At<Many<System>>>,
    /// Who the sender proved to be, as in { dmarc = "pass" }.
    pub auth: Option<At<WrittenProof>>,
}

impl Conditions {
    #[must_use]
    pub fn says_nothing(&self) -> bool {
        let Self { matches, sender, from, header, larger_than, smaller_than, ip, country, asn, auth } = self;
        let of_envelope = matches.is_some() || sender.is_some();
        let of_client = ip.is_some() || country.is_some() || asn.is_some();
        !of_envelope
            && !of_client
            && auth.is_none()
            && from.is_none()
            && header.is_none()
            && larger_than.is_none()
            && smaller_than.is_none()
    }
}

/// What a route does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ActionName {
    #[default]
    Worker,
    Forward,
    Webhook,
    Store,
    Drop,
    Reject,
    Quarantine,
    Tag,
}

/// One value, or a list of them.
#[derive(Debug, Clone)]
pub struct Many<T>(pub Vec<T>);

impl<'de, T: Leaf> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ManyVisitor<T>(PhantomData<T>);
        impl<'de, T: Leaf> Visitor<'de> for ManyVisitor<T> {
            type Value = Many<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, or a list of them", T::WHAT)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Many<T>, E> {
                T::parse(text).map(|one| Many(vec![one])).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Many<T>, E> {
                if T::IS_NUMBER {
                    return self.visit_str(&number.to_string());
                }
                Err(E::invalid_type(de::Unexpected::Signed(number), &self))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Many<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(Parsed(one)) = list.next_element::<Parsed<T>>()? {
                    all.push(one);
                }
                Ok(Many(all))
            }
        }
        deserializer.deserialize_any(ManyVisitor(PhantomData))
    }
}

impl<T: Leaf> JsonSchema for Many<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}, or a list of them", T::WHAT).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = super::super::leaf::text_schema::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
