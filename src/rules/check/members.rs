//! What the API offers, as the engine itself has it registered, so that no list can drift from it.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};

use rhai::Engine;

use crate::rules::api::context::ContextView;
use crate::rules::api::env::EnvView;
use crate::rules::api::message::{MessageView, UNOFFERED};
use crate::rules::api::session::SessionView;

/// Names by whose they are, and of all functions there are.
pub struct Members {
    pub functions: BTreeSet<String>,
    by_role: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Members {
    pub fn of(engine: &Engine) -> Self {
        let roles = [
            ("message", TypeId::of::<MessageView>()),
            ("session", TypeId::of::<SessionView>()),
            ("ctx", TypeId::of::<ContextView>()),
            ("env", TypeId::of::<EnvView>()),
        ];
        let mut members = Self { functions: BTreeSet::new(), by_role: BTreeMap::new() };
        let registered = engine.collect_fn_metadata(
            None,
            |function| Some((function.metadata.name.to_string(), function.metadata.param_types.first().copied())),
            true,
        );
        for (name, of) in registered {
            if let Some((role, _)) = roles.iter().find(|(_, role)| Some(*role) == of) {
                let bare = name.strip_prefix("get$").or_else(|| name.strip_prefix("set$")).unwrap_or(&name);
                // Registered to say that it isn't there.
                if *role == "message" && UNOFFERED.iter().any(|(unoffered, _)| *unoffered == bare) {
                    continue;
                }
                members.by_role.entry(role).or_default().insert(bare.to_owned());
            }
            members.functions.insert(name);
        }
        members
    }

    pub fn has(&self, role: &str, name: &str) -> bool {
        self.by_role.get(role).is_some_and(|names| names.contains(name))
    }

    pub fn of_role(&self, role: &str) -> impl Iterator<Item = &str> + Clone {
        self.by_role.get(role).into_iter().flatten().map(String::as_str).filter(|name| !name.contains('$'))
    }
}
