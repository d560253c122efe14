//! The header fields as a script sees them.

pub(super) fn register(engine: &mut rhai::Engine) {
    let _ = engine;
}
