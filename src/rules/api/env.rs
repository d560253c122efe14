//! `env`: what the configuration binds, by name. A name that isn't bound is an error that names the bound ones.
//!
//! Variables have the type they have in the configuration; a KV namespace is an object with `get`, `put`, …; a webhook
//! and a destination are their names, which is how `ctx.webhook` and `message.forward` know them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};

use super::kv::KvNamespace;
use super::run::{Run, ScriptResult, refuse};
use super::value;
use crate::diagnostic::suggest;
use crate::rules::hidden::Hidden;
use crate::rules::{Ai, Bindings};

/// Names that want a secret.
const SECRETIVE: [&str; 4] = ["SECRET", "TOKEN", "KEY", "PASSWORD"];

/// What is bound, made once for each release.
#[derive(Debug, Default)]
pub struct Environment {
    pub env_name: String,
    /// Of the deployed rules: a hash of their sources.
    pub version: String,
    /// Effects and writes of one run.
    pub actions: usize,
    /// What it may ask outside.
    pub requests: usize,
    pub ai: Option<Ai>,
    pub webhooks: Vec<String>,
    pub destinations: Vec<String>,
    /// The secrets' values, which no text shows.
    pub hidden: Hidden,
    /// The domains that each worker may write for.
    pub senders: BTreeMap<String, Vec<String>>,
    bound: BTreeMap<String, Bound>,
}

#[derive(Debug)]
enum Bound {
    Variable(Dynamic),
    Kv,
    Webhook,
    Destination,
}

impl Environment {
    #[must_use]
    pub fn new(bindings: &Bindings, version: String) -> Self {
        let names = |names: &[String], bound: fn() -> Bound| {
            names.iter().map(|name| (name.clone(), bound())).collect::<Vec<_>>()
        };
        let mut bound: BTreeMap<String, Bound> = BTreeMap::new();
        bound.extend(names(&bindings.destinations, || Bound::Destination));
        bound.extend(names(&bindings.webhooks, || Bound::Webhook));
        bound.extend(names(&bindings.kv_namespaces, || Bound::Kv));
        let secrets = bindings.secrets.0.iter();
        bound.extend(secrets.map(|(name, value)| (name.clone(), Bound::Variable(value.as_str().into()))));
        bound.extend(bindings.vars.iter().map(|(name, json)| (name.clone(), Bound::Variable(value::from_json(json)))));
        Self {
            env_name: bindings.env_name.clone(),
            version,
            actions: bindings.budget.clone().unwrap_or_default().actions,
            requests: bindings.budget.clone().unwrap_or_default().requests,
            ai: bindings.ai.clone(),
            webhooks: bindings.webhooks.clone(),
            destinations: bindings.destinations.clone(),
            hidden: Hidden::new(&bindings.secrets, &bindings.concealed),
            senders: bindings.senders.clone(),
            bound,
        }
    }

    #[must_use]
    pub fn binds(&self, name: &str) -> bool {
        self.bound.contains_key(name)
    }

    /// What the reference calls a value of that name, where it has members that are known.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&'static str> {
        match self.bound.get(name)? {
            Bound::Kv => Some("kv"),
            Bound::Variable(value) => value.is_string().then_some("string"),
            Bound::Webhook | Bound::Destination => Some("string"),
        }
    }

    /// `no variable or binding SUPORT_EMAIL`, and what to do.
    #[must_use]
    pub fn unbound(&self, name: &str) -> (String, String) {
        let mut help = did_you_mean(name, self.bound.keys().map(String::as_str), "bound");
        if SECRETIVE.iter().any(|word| name.contains(word)) {
            help = format!("{help}; a secret is bound by `mailworker secret put {name}`");
        }
        (format!("no variable or binding {name}"), help)
    }
}

/// «did you mean …?», or all the names there are.
#[must_use]
pub fn did_you_mean<'a>(name: &str, names: impl Iterator<Item = &'a str> + Clone, what: &str) -> String {
    const MOST: usize = 20;
    if let Some(near) = suggest(name, names.clone()) {
        return format!("did you mean {near}?");
    }
    let mut listed: Vec<&str> = names.clone().take(MOST).collect();
    if listed.is_empty() {
        return format!("nothing is {what}");
    }
    if names.count() > MOST {
        listed.push("…");
    }
    format!("{what}: {}", listed.join(", "))
}

/// `env` of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EnvView {
    run: Arc<Run>,
}

impl EnvView {
    #[must_use]
    pub fn new(run: Arc<Run>) -> Self {
        Self { run }
    }

    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<EnvView>("env");
    engine.register_indexer_get(get);
}

/// A getter for each name that is bound: Rhai would fail to find one, with all the words of an error, before it asked the
/// indexer.
pub(in crate::rules) fn register_names(engine: &mut Engine, environment: &Environment) {
    for name in environment.bound.keys() {
        let bound = ImmutableString::from(name.as_str());
        engine
            .register_get(name, move |context: NativeCallContext, env: &mut EnvView| get(context, env, bound.clone()));
    }
}

fn get(context: NativeCallContext, env: &mut EnvView, name: ImmutableString) -> ScriptResult<Dynamic> {
    let environment = &env.run.environment;
    match environment.bound.get(name.as_str()) {
        Some(Bound::Variable(value)) => Ok(value.clone()),
        Some(Bound::Kv) => Ok(Dynamic::from(KvNamespace::new(name.to_string(), Arc::clone(&env.run)))),
        Some(Bound::Webhook | Bound::Destination) => Ok(Dynamic::from(name)),
        None => {
            let (message, help) = environment.unbound(&name);
            Err(refuse(&context, format!("{message} ({help})")))
        }
    }
}
