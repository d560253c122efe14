//! What the API offers, as the engine itself has it registered, so that no list can drift from it.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};

use rhai::{Array, Dynamic, Engine, ImmutableString};

use crate::rules::api::attachment::AttachmentView;
use crate::rules::api::auth::AuthView;
use crate::rules::api::context::ContextView;
use crate::rules::api::env::EnvView;
use crate::rules::api::headers::HeadersView;
use crate::rules::api::kv::KvNamespace;
use crate::rules::api::message::MessageView;
use crate::rules::api::octets::Octets;
use crate::rules::api::session::SessionView;

/// The kinds of values whose members are known, as the reference calls them.
fn kinds() -> [(&'static str, TypeId); 11] {
    [
        ("message", TypeId::of::<MessageView>()),
        ("session", TypeId::of::<SessionView>()),
        ("ctx", TypeId::of::<ContextView>()),
        ("env", TypeId::of::<EnvView>()),
        ("headers", TypeId::of::<HeadersView>()),
        ("kv", TypeId::of::<KvNamespace>()),
        ("octets", TypeId::of::<Octets>()),
        ("auth", TypeId::of::<AuthView>()),
        ("attachment", TypeId::of::<AttachmentView>()),
        ("string", TypeId::of::<ImmutableString>()),
        ("array", TypeId::of::<Array>()),
    ]
}

/// Names by whose they are, and of all functions there are with how many arguments each takes.
pub struct Members {
    by_kind: BTreeMap<&'static str, Offered>,
    functions: BTreeMap<String, BTreeSet<usize>>,
    /// What is called on a value of any kind.
    of_all: Offered,
}

/// By name, how many parameters: one for a property.
type Offered = BTreeMap<String, BTreeSet<usize>>;

impl Members {
    pub fn of(engine: &Engine) -> Self {
        let kinds = kinds();
        let any = TypeId::of::<Dynamic>();
        let text = [TypeId::of::<String>(), TypeId::of::<&'static str>()];
        let mut members = Self { by_kind: BTreeMap::new(), functions: BTreeMap::new(), of_all: Offered::new() };
        let registered = engine.collect_fn_metadata(
            None,
            |function| {
                let metadata = function.metadata;
                Some((metadata.name.to_string(), metadata.param_types.first().copied(), metadata.num_params))
            },
            true,
        );
        for (name, of, parameters) in registered {
            members.functions.entry(name.clone()).or_default().insert(parameters);
            let of = of.map(|of| if text.contains(&of) { TypeId::of::<ImmutableString>() } else { of });
            let kind = kinds.iter().find(|(_, kind)| Some(*kind) == of).map(|(kind, _)| *kind);
            let offered = match kind {
                Some(kind) => members.by_kind.entry(kind).or_default(),
                None if of == Some(any) => &mut members.of_all,
                None => continue,
            };
            offered.entry(name).or_default().insert(parameters);
        }
        members
    }

    /// Whether values of this kind are known at all.
    pub fn knows(&self, kind: &str) -> bool {
        self.by_kind.contains_key(kind)
    }

    pub fn has_property(&self, kind: &str, name: &str) -> bool {
        let Some(offered) = self.by_kind.get(kind) else { return false };
        offered.contains_key(&format!("get${name}")) || offered.contains_key(&format!("set${name}"))
    }

    /// How many parameters a method of that name has, the value itself counted; `None` where there is none.
    pub fn method(&self, kind: &str, name: &str) -> Option<BTreeSet<usize>> {
        let of_kind = self.by_kind.get(kind).and_then(|offered| offered.get(name));
        let found: BTreeSet<usize> = of_kind.into_iter().chain(self.of_all.get(name)).flatten().copied().collect();
        (!found.is_empty()).then_some(found)
    }

    /// How many parameters a function of that name has.
    pub fn function(&self, name: &str) -> Option<&BTreeSet<usize>> {
        self.functions.get(name)
    }

    pub fn names_of(&self, kind: &str) -> BTreeSet<&str> {
        self.by_kind.get(kind).into_iter().flatten().map(|(name, _)| bare(name)).filter(|name| is_word(name)).collect()
    }

    /// Every function that a script can name.
    pub fn function_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.functions.keys().map(String::as_str).filter(|name| is_word(name))
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("get$").or_else(|| name.strip_prefix("set$")).unwrap_or(name)
}

pub(super) fn is_word(name: &str) -> bool {
    name.starts_with(|first: char| first.is_alphabetic() || first == '_') && !name.contains('$')
}
