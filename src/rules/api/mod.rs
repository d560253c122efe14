//! What a script sees: one file for each thing it is handed, registered with the engine once.
//!
//! A script's calls stage effects in its [`run::Run`]; nothing here does anything. Addresses are plain strings to a
//! script (see [`address`]), so that they compare, concatenate and `switch` as such.
// The engine hands every argument over by value.
#![allow(clippy::needless_pass_by_value)]

pub mod actions;
pub mod address;
pub mod answer;
pub mod attachment;
pub mod auth;
pub mod bounds;
pub mod changes;
pub mod context;
pub mod drafts;
pub mod env;
pub mod functions;
pub mod headers;
pub mod kv;
pub mod limit;
pub mod log;
pub mod message;
pub mod octets;
pub mod options;
pub mod outside;
pub mod payload;
pub mod reply;
pub mod run;
pub mod session;
pub mod tags;
pub mod value;

/// Registers everything with the engine.
pub fn register(engine: &mut rhai::Engine) {
    actions::register(engine);
    address::register(engine);
    attachment::register(engine);
    auth::register(engine);
    changes::register(engine);
    context::register(engine);
    drafts::register(engine);
    env::register(engine);
    functions::register(engine);
    headers::register(engine);
    kv::register(engine);
    limit::register(engine);
    log::register(engine);
    message::register(engine);
    octets::register(engine);
    outside::register(engine);
    payload::register(engine);
    reply::register(engine);
    session::register(engine);
    tags::register(engine);
}
