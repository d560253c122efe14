//! Blobs of a message: `raw` and what attachments hold.

pub(super) fn register(engine: &mut rhai::Engine) {
    let _ = engine;
}
