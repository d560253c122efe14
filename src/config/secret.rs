//! Where a secret is read from: `{ env = "…" }`, `{ file = "…" }`, `{ credential = "…" }`, `{ secret = "…" }` (what
//! `mailworker secret put` keeps), or a list of these.
//!
//! Never from the file itself. Pure: reading is by [`Surroundings`], which `load` implements.
//! Standards: Standard Webhooks (`whsec_` and `whsk_` keys); systemd's credentials (`$CREDENTIALS_DIRECTORY`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::Ed25519KeyPair;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Secret;
use super::decode::At;
use super::leaf::{Leaf, is_identifier};
use super::tree::NodeId;

/// What the configuration sees of the machine it is loaded on.
pub trait Surroundings {
    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// A text file.
    ///
    /// # Errors
    /// Why it can't be read, in words.
    fn read(&self, path: &Path) -> Result<String, String>;
    /// What is done about secrets.
    fn reading(&self) -> Reading;
    /// The secrets that are kept for an environment in the store at `data_dir`: their names, and with a key their values.
    ///
    /// # Errors
    /// Why they can't be read or opened, and on a second line what to do.
    fn kept(&self, data_dir: &Path, env: &str, key: Option<&Secret>) -> Result<KeptSecrets, String>;
    /// Values for development take the place of those that are kept.
    fn dev_vars(&self) -> Option<&BTreeMap<String, Secret>>;
    /// Whether certificates are wanted.
    fn has_tls(&self) -> bool;
    /// Whether a file that the configuration names is there; `None` where files aren't looked at.
    fn has_file(&self, path: &Path) -> Option<bool>;
    /// Whether a script that the configuration names is there; `None` where nobody wants it.
    fn has_worker(&self, path: &Path) -> Option<bool>;
    /// All of a file that the configuration names; `None` where files aren't looked at.
    fn octets(&self, path: &Path) -> Result<Option<Vec<u8>>, String>;
    /// Whether every user of the machine can read this file; `false` where files aren't looked at.
    fn is_open_to_all(&self, path: &Path) -> bool;
}

/// By name; the value where it was opened.
pub type KeptSecrets = BTreeMap<String, Option<Secret>>;

/// What is done about secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reading {
    /// One that can't be read is an error.
    #[default]
    Needed,
    /// One that can't be read is told, and a placeholder stands for it: an admin's shell has none of the service's.
    Wanted,
    /// None is read: the store is looked at without any.
    Unread,
}

/// Why there is no secret: what is wrong, and on a second line what to do. Never the value.
#[derive(Debug)]
pub enum NoSecret {
    /// It isn't there, or not to be read from here.
    Missing(String),
    /// It is there, and is none.
    Wrong(String),
}

/// Where one secret is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    Variable(String),
    File(PathBuf),
    Credential(String),
    /// One that `mailworker secret put` keeps.
    Kept(String),
}

/// Where the key for the kept ones is read from: anywhere but among them.
#[derive(Debug, Clone)]
pub struct KeySource(pub SecretSource);

/// One source, or several while a key rotates; each with its place where it has one of its own.
#[derive(Debug, Clone)]
pub struct Secrets(pub Vec<(Option<NodeId>, SecretSource)>);

/// The value of a header field.
#[derive(Debug, Clone)]
pub enum HeaderValue {
    Plain(String),
    Source(SecretSource),
}

/// Stands for a secret that nobody needs, in a form that each use takes.
const UNREAD: &str = "whsec_dW5yZWFkIHVucmVhZCB1bnJlYWQgdW5yZWFk";

#[must_use]
pub fn placeholder() -> Secret {
    Secret::new(UNREAD.to_owned())
}

/// A PEM file of `[tls]`: a path, or a credential that systemd loads.
#[derive(Debug, Clone)]
pub enum PemFile {
    Path(PathBuf),
    Credential(String),
}

const IN_THE_CLEAR: &str = "a secret doesn't stand in the file in the clear\n\
     say where it is: { env = \"NAME\" }, { file = \"path\" }, { credential = \"name\" } or { secret = \"NAME\" }";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceTable {
    env: Option<String>,
    file: Option<String>,
    credential: Option<String>,
    secret: Option<String>,
}

impl SourceTable {
    fn source<E: de::Error>(self) -> Result<SecretSource, E> {
        let Self { env, file, credential, secret } = self;
        let found = [
            env.map(SecretSource::Variable),
            file.map(|path| SecretSource::File(PathBuf::from(path))),
            credential.map(SecretSource::Credential),
            secret.map(SecretSource::Kept),
        ];
        let mut found = found.into_iter().flatten();
        match (found.next(), found.next()) {
            (Some(SecretSource::Credential(name)), None) if name.contains('/') || name.is_empty() || name == ".." => {
                Err(E::custom("a credential's name is one file's name\nas in LoadCredential=NAME:PATH of the service"))
            }
            (Some(SecretSource::Kept(name)), None) if !is_identifier(&name) => Err(E::custom(
                "a kept secret's name is letters, digits and `_`, not beginning with a digit\nthe value itself is for \
                 `mailworker secret put NAME`",
            )),
            (Some(source), None) => Ok(source),
            _ => Err(E::custom("a secret has exactly one of `env`, `file`, `credential` and `secret`")),
        }
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourceVisitor;
        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = SecretSource;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("where the secret is, such as { env = \"NAME\" }")
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretSource, E> {
                Err(E::custom(IN_THE_CLEAR))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSource, A::Error> {
                SourceTable::deserialize(MapAccessDeserializer::new(map))?.source()
            }
        }
        deserializer.deserialize_any(SourceVisitor)
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretsVisitor;
        impl<'de> Visitor<'de> for SecretsVisitor {
            type Value = Secrets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("where the secret is, such as { env = \"NAME\" }")
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Secrets, E> {
                Err(E::custom(IN_THE_CLEAR))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Secrets, A::Error> {
                let source = SourceTable::deserialize(MapAccessDeserializer::new(map))?.source()?;
                Ok(Secrets(vec![(None, source)]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Secrets, A::Error> {
                let mut sources = Vec::new();
                while let Some(At { value, node }) = seq.next_element::<At<SecretSource>>()? {
                    sources.push((Some(node), value));
                }
                Ok(Secrets(sources))
            }
        }
        deserializer.deserialize_any(SecretsVisitor)
    }
}

impl<'de> Deserialize<'de> for HeaderValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = HeaderValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or where it is, such as { env = \"NAME\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderValue, E> {
                Ok(HeaderValue::Plain(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeaderValue, A::Error> {
                SourceTable::deserialize(MapAccessDeserializer::new(map))?.source().map(HeaderValue::Source)
            }
        }
        deserializer.deserialize_any(HeaderVisitor)
    }
}

impl<'de> Deserialize<'de> for PemFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PemVisitor;
        impl<'de> Visitor<'de> for PemVisitor {
            type Value = PemFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or { credential = \"name\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PemFile, E> {
                <PathBuf as Leaf>::parse(text).map(PemFile::Path).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PemFile, A::Error> {
                match SourceTable::deserialize(MapAccessDeserializer::new(map))?.source()? {
                    SecretSource::Credential(name) => Ok(PemFile::Credential(name)),
                    SecretSource::File(_) | SecretSource::Variable(_) | SecretSource::Kept(_) => {
                        Err(de::Error::custom(
                            "a certificate and its key are files\na path, or { credential = \"name\" } of systemd's",
                        ))
                    }
                }
            }
        }
        deserializer.deserialize_any(PemVisitor)
    }
}

impl<'de> Deserialize<'de> for KeySource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match SecretSource::deserialize(deserializer)? {
            SecretSource::Kept(_) => Err(de::Error::custom(
                "the key isn't among what it opens\n{ file = \"path\" }, { env = \"NAME\" } or { credential = \"name\" }",
            )),
            source => Ok(Self(source)),
        }
    }
}

fn source_schema() -> serde_json::Value {
    let mut sources = key_sources();
    sources.push(one_source("secret", "A secret that `mailworker secret put` keeps."));
    serde_json::json!({ "oneOf": sources })
}

fn key_sources() -> Vec<serde_json::Value> {
    vec![
        one_source("env", "A variable of the environment."),
        one_source("file", "A file whose text it is, without the line end."),
        one_source("credential", "A credential that systemd loads (LoadCredential=)."),
    ]
}

fn one_source(name: &str, what: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "object", "additionalProperties": false, "required": [name],
        "properties": { name: { "type": "string", "description": what } },
    })
}

impl JsonSchema for KeySource {
    fn schema_name() -> Cow<'static, str> {
        "KeySource".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let sources = key_sources();
        json_schema!({ "oneOf": sources })
    }
}

impl JsonSchema for Secrets {
    fn schema_name() -> Cow<'static, str> {
        "Secrets".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = source_schema();
        json_schema!({ "anyOf": [one, { "type": "array", "minItems": 1, "items": one }] })
    }
}

impl JsonSchema for PemFile {
    fn schema_name() -> Cow<'static, str> {
        "PemFile".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string", "examples": ["tls/fullchain.pem"] }, {
            "type": "object", "additionalProperties": false, "required": ["credential"],
            "properties": { "credential": {
                "type": "string", "description": "A credential that systemd loads (LoadCredential=).",
            } },
        }] })
    }
}

impl JsonSchema for HeaderValue {
    fn schema_name() -> Cow<'static, str> {
        "HeaderValue".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, source_schema()] })
    }
}

/// Where systemd has put a credential.
///
/// # Errors
/// That it has put none anywhere, and on a second line what to do.
pub fn credential(name: &str, around: &dyn Surroundings) -> Result<PathBuf, String> {
    let directory = around.variable("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        format!("no credentials: not started by systemd with one\nadd LoadCredential={name}:PATH to the service")
    })?;
    Ok(Path::new(&directory).join(name))
}

/// Reads one secret.
///
/// # Errors
/// What is missing, or wrong with it.
pub fn read(source: &SecretSource, base: &Path, around: &dyn Surroundings) -> Result<Secret, NoSecret> {
    one_line(&text_of(source, base, around).map_err(NoSecret::Missing)?)
}

/// What signs or logs in is one line.
///
/// # Errors
/// What is wrong with it.
pub fn one_line(text: &str) -> Result<Secret, NoSecret> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(NoSecret::Wrong("the secret is empty".to_owned()));
    }
    if text.contains(char::is_control) {
        let why = "the secret has a line break or another control character in it\nit is one line";
        return Err(NoSecret::Wrong(why.to_owned()));
    }
    Ok(Secret::new(text.to_owned()))
}

fn text_of(source: &SecretSource, base: &Path, around: &dyn Surroundings) -> Result<String, String> {
    match source {
        SecretSource::Variable(name) => around
            .variable(name)
            .ok_or_else(|| format!("the environment has no variable {name}\nset it where mailworker is started")),
        SecretSource::File(path) => {
            let path = base.join(path);
            around.read(&path).map_err(|error| {
                format!("the secret's file can't be read: {}: {error}\nwrite the secret to it, readable by mailworker alone", path.display())
            })
        }
        SecretSource::Credential(name) => around.read(&credential(name, around)?).map_err(|error| {
            format!("the credential {name} can't be read: {error}\nadd LoadCredential={name}:PATH to the service")
        }),
        // They are opened all at once, and looked up there.
        SecretSource::Kept(name) => Err(format!("no secret {name} is kept\nmailworker secret put {name}")),
    }
}

/// Checks a key of Standard Webhooks: `whsec_` and Base64 of 24 to 64 octets (HMAC), or `whsk_` and Base64 of a private
/// key of ed25519, 32 octets or those and the 32 of its public key.
///
/// # Errors
/// What it lacks, and on a second line what to do. Never the value.
pub fn check_webhook_key(secret: &Secret) -> Result<(), String> {
    let help = "make one: echo \"whsec_$(head -c 32 /dev/urandom | base64)\"";
    if secret.expose().starts_with("whsk_") {
        let help = "make one: echo \"whsk_$(openssl genpkey -algorithm ed25519 -outform DER | tail -c 32 | base64)\"";
        let usable = secret.signing_key().is_some();
        return usable.then_some(()).ok_or_else(|| format!("what follows whsk_ is no private key of ed25519\n{help}"));
    }
    let Some(encoded) = secret.expose().strip_prefix("whsec_") else {
        return Err(format!("a webhook's secret begins with whsec_ or whsk_\n{help}"));
    };
    match STANDARD.decode(encoded) {
        Err(_) => Err(format!("what follows whsec_ isn't Base64\n{help}")),
        Ok(key) if !(24..=64).contains(&key.len()) => {
            Err(format!("a webhook's key has 24 to 64 bytes, this one {}\n{help}", key.len()))
        }
        Ok(_) => Ok(()),
    }
}

impl Secret {
    /// Whether it stands for one that wasn't read.
    #[must_use]
    pub fn is_placeholder(&self) -> bool {
        self.expose() == UNREAD
    }

    /// The private key of ed25519 that follows `whsk_`, in either of the forms in use: its seed (RFC 8032 §5.1.5), or that
    /// and the public key.
    #[must_use]
    pub fn signing_key(&self) -> Option<Ed25519KeyPair> {
        let octets = STANDARD.decode(self.expose().strip_prefix("whsk_")?).ok()?;
        match octets.split_at_checked(32)? {
            (seed, []) => Ed25519KeyPair::from_seed_unchecked(seed).ok(),
            (seed, public) => Ed25519KeyPair::from_seed_and_public_key(seed, public).ok(),
        }
    }
}
