//! `session`: what a script reads of the SMTP session, `session.notes`, and the verdicts of `rcpt_to`.
//!
//! Notes that `rcpt_to` sets go on with the session and are there in `email` as `message.session.notes`.

use std::sync::Arc;

use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::actions::{defer, redirect, reject};
use super::address;
use super::answer;
use super::run::{Handler, Run, ScriptResult, refuse};
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

    fn optional(text: Option<&String>) -> Dynamic {
        text.map_or(Dynamic::UNIT, |text| Dynamic::from(text.clone()))
    }

    fn tls(&self) -> Dynamic {
        self.facts.client.tls.as_ref().map_or(Dynamic::UNIT, |tls| {
            let fields = [("version".into(), tls.version.clone().into()), ("cipher".into(), tls.cipher.clone().into())];
            Dynamic::from_map(Map::from(fields))
        })
    }

    /// Verdicts on a recipient belong to `rcpt_to`.
    fn may(&self, context: &NativeCallContext, instead: &str) -> ScriptResult<()> {
        match self.run.handler {
            Handler::RcptTo => Ok(()),
            Handler::Email => {
                let text = format!("session.{} is for rcpt_to; in email use {instead}", context.fn_name());
                Err(refuse(context, text))
            }
        }
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<SessionView>("session");
    engine.register_get("ip", |session: &mut SessionView| session.facts.client.ip.to_string());
    engine.register_get("ptr", |session: &mut SessionView| SessionView::optional(session.facts.client.ptr.as_ref()));
    engine.register_get("helo", |session: &mut SessionView| SessionView::optional(session.facts.client.helo.as_ref()));
    engine.register_get("tls", |session: &mut SessionView| session.tls());
    engine.register_get("sender", |session: &mut SessionView| address::to_dynamic(session.facts.sender.as_ref()));
    engine.register_get("notes", |session: &mut SessionView| session.run.state().notes.clone());
    engine.register_set("notes", |context: NativeCallContext, session: &mut SessionView, notes: Map| {
        session.run.set_notes(notes).map_err(|why| refuse(&context, why))
    });
    engine.register_fn("reject", |context: NativeCallContext, session: &mut SessionView, text: ImmutableString| {
        session.may(&context, "message.set_reject")?;
        reject(&context, &session.run, answer::rejection(&text))
    });
    engine.register_fn(
        "reject",
        |context: NativeCallContext,
         session: &mut SessionView,
         code: i64,
         enhanced: ImmutableString,
         text: ImmutableString| {
            session.may(&context, "message.set_reject")?;
            reject(&context, &session.run, answer::rejection_with(code, &enhanced, &text))
        },
    );
    engine.register_fn("defer", |context: NativeCallContext, session: &mut SessionView, text: ImmutableString| {
        session.may(&context, "message.defer")?;
        defer(&context, &session.run, &text)
    });
    engine.register_fn("redirect", |context: NativeCallContext, session: &mut SessionView, to: Dynamic| {
        session.may(&context, "message.forward")?;
        redirect(&context, &session.run, &to)
    });
}
