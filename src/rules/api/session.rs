//! `session`: what a script reads of the SMTP session, and `session.notes`.

use std::sync::Arc;

use super::run::Run;
use crate::rules::SessionFacts;

/// `session` of one run: the parameter of `rcpt_to`, and `message.session`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionView {
    facts: Arc<SessionFacts>,
    run: Arc<Run>,
}

impl SessionView {
    #[must_use]
    pub fn new(facts: Arc<SessionFacts>, run: Arc<Run>) -> Self {
        Self { facts, run }
    }

    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    #[must_use]
    pub fn facts(&self) -> &SessionFacts {
        &self.facts
    }
}

pub(super) fn register(engine: &mut rhai::Engine) {
    engine.register_type_with_name::<SessionView>("session");
}
