//! `message.auth`: who the sender proved to be, as it was found out before the worker is asked. Nothing is looked up here.
//!
//! A property of its own for each check, so that a slip in a name is an error; below them stand maps, which are what a
//! payload holds too. Where nothing was looked up (a client on the own network) every result is `none`.
//! Standards: RFC 8601 §2.7 (the words).

use std::sync::Arc;

use rhai::{Dynamic, Engine, Map};
use serde::Serialize;

use super::value::from_json;
use crate::mail::Authentication;

/// The facts of one message. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuthView(Arc<Authentication>);

impl AuthView {
    #[must_use]
    pub fn new(auth: Option<&Arc<Authentication>>) -> Self {
        Self(auth.cloned().unwrap_or_default())
    }

    /// What stands for it where only data can go.
    #[must_use]
    pub fn to_map(&self) -> Map {
        let mut map = given(&*self.0).try_cast::<Map>().unwrap_or_default();
        map.insert("passed".into(), self.0.passed().into());
        map
    }
}

/// Strings, booleans and lists of them: there is nothing that has no value in a script.
fn given(facts: &impl Serialize) -> Dynamic {
    serde_json::to_value(facts).map_or(Dynamic::UNIT, |json| from_json(&json))
}

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<AuthView>("auth")
        .register_get("passed", |view: &mut AuthView| view.0.passed())
        .register_get("spf", |view: &mut AuthView| given(&view.0.spf))
        .register_get("spf_helo", |view: &mut AuthView| given(&view.0.spf_helo))
        .register_get("dkim", |view: &mut AuthView| given(&view.0.dkim))
        .register_get("dmarc", |view: &mut AuthView| given(&view.0.dmarc))
        .register_get("arc", |view: &mut AuthView| given(&view.0.arc))
        .register_get("iprev", |view: &mut AuthView| given(&view.0.iprev))
        .register_get("trusted_forwarder", |view: &mut AuthView| view.0.trusted_forwarder)
        .register_fn("to_map", |view: &mut AuthView| view.to_map())
        .register_fn("to_string", |view: &mut AuthView| Dynamic::from_map(view.to_map()).to_string())
        .register_fn("to_debug", |view: &mut AuthView| Dynamic::from_map(view.to_map()).to_string());
}
