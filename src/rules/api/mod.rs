//! What a script sees: one file for each thing it is handed, registered with the engine once.
//!
//! A script's calls stage effects in its [`run::Run`]; nothing here does anything. Addresses are plain strings to a
//! script (see [`address`]), so that they compare, concatenate and `switch` as such.

pub mod address;
pub mod attachment;
pub mod headers;
pub mod message;
pub mod octets;
pub mod run;
pub mod session;

/// Registers everything with the engine.
pub fn register(engine: &mut rhai::Engine) {
    address::register(engine);
    attachment::register(engine);
    headers::register(engine);
    message::register(engine);
    octets::register(engine);
    session::register(engine);
}
