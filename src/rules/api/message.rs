//! `message`: what a script reads of the message. What it asks to be done with it is in `actions`.

use std::sync::Arc;

use super::run::Run;
use crate::rules::EmailCall;

/// `message` of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MessageView {
    call: Arc<EmailCall>,
    run: Arc<Run>,
}

impl MessageView {
    #[must_use]
    pub fn new(call: Arc<EmailCall>, run: Arc<Run>) -> Self {
        Self { call, run }
    }

    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    #[must_use]
    pub fn call(&self) -> &EmailCall {
        &self.call
    }
}

pub(super) fn register(engine: &mut rhai::Engine) {
    engine.register_type_with_name::<MessageView>("message");
}
