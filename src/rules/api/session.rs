//! `session`: what a script reads of the SMTP session, `session.notes`, and the verdicts of the handlers before `email`.
//!
//! Notes that a handler sets go on with the session: the later ones find them, `email` as `message.session.notes`.

use std::sync::Arc;

use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::actions::{defer, redirect, reject};
use super::address;
use super::answer;
use super::options::{LIMITS, Options};
use super::run::{Handler, Run, ScriptResult, refuse};
use crate::mail::SessionLimits;
use crate::rules::{SessionFacts, Stage};

/// `session` of one run: the parameter of the handlers before `email`, and `message.session`. Cheap to clone.
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

    /// Verdicts of the session belong to the handlers before `email`.
    fn may(&self, context: &NativeCallContext, instead: &str) -> ScriptResult<()> {
        if self.run.handler != Handler::Email {
            return Ok(());
        }
        let text =
            format!("session.{} is for rcpt_to and what comes before; in email use {instead}", context.fn_name());
        Err(refuse(context, text))
    }

    /// Only one that came for a recipient can be led on to another.
    fn may_redirect(&self, context: &NativeCallContext) -> ScriptResult<()> {
        let why = match self.run.handler {
            Handler::RcptTo => return Ok(()),
            Handler::Email | Handler::Happening(_) | Handler::Test => "in email use message.forward".to_owned(),
            Handler::Stage(stage) => format!("in {} there is no recipient yet", stage.handler()),
        };
        Err(refuse(context, format!("session.redirect is for rcpt_to; {why}")))
    }

    /// What a session may is said in answer to its EHLO, so it is to be known before.
    fn limit(&self, options: Map) -> Result<(), String> {
        if !self.is_before_greeting() {
            return Err("session.set_limits is for connect: what a session may stands before its greeting".to_owned());
        }
        let mut options = Options::new(options, LIMITS)?;
        let mut most = |name: &str| match options.integer(name)? {
            Some(most) if most < 1 => Err(format!("{name}: at least 1, not {most}")),
            most => Ok(most.map(i64::unsigned_abs)),
        };
        let count = |most: Option<u64>| most.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        let (recipients, message_size) = (count(most("recipients")?), most("message_size")?);
        self.run.state().limits = SessionLimits { recipients, message_size, errors: count(most("errors")?) };
        Ok(())
    }

    fn is_before_greeting(&self) -> bool {
        self.run.handler == Handler::Stage(Stage::Connect)
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<SessionView>("session");
    engine.register_get("ip", |session: &mut SessionView| session.facts.client.ip.to_string());
    engine.register_get("ptr", |session: &mut SessionView| SessionView::optional(session.facts.client.ptr.as_ref()));
    engine.register_get("helo", |session: &mut SessionView| SessionView::optional(session.facts.client.helo.as_ref()));
    engine.register_get("asn", |session: &mut SessionView| {
        session.facts.client.origin.asn.map_or(Dynamic::UNIT, |asn| Dynamic::from(i64::from(asn)))
    });
    engine.register_get("country", |session: &mut SessionView| {
        SessionView::optional(session.facts.client.origin.country.as_ref())
    });
    engine.register_get("tls", |session: &mut SessionView| session.tls());
    engine.register_get("sender", |session: &mut SessionView| address::to_dynamic(session.facts.sender.as_ref()));
    engine.register_get("notes", |session: &mut SessionView| session.run.state().notes.clone());
    engine.register_set("notes", |context: NativeCallContext, session: &mut SessionView, notes: Map| {
        session.run.set_notes(notes).map_err(|why| refuse(&context, why))
    });
    engine.register_fn("reject", |context: NativeCallContext, session: &mut SessionView, text: ImmutableString| {
        session.may(&context, "message.set_reject")?;
        let before = session.is_before_greeting();
        let reply = if before { answer::no_greeting(&text) } else { answer::rejection(&text) };
        reject(&context, &session.run, reply)
    });
    engine.register_fn(
        "reject",
        |context: NativeCallContext,
         session: &mut SessionView,
         code: i64,
         enhanced: ImmutableString,
         text: ImmutableString| {
            session.may(&context, "message.set_reject")?;
            let before = session.is_before_greeting();
            let with = if before { answer::no_greeting_with } else { answer::rejection_with };
            reject(&context, &session.run, with(code, &enhanced, &text))
        },
    );
    engine.register_fn("defer", |context: NativeCallContext, session: &mut SessionView, text: ImmutableString| {
        session.may(&context, "message.defer")?;
        let before = session.is_before_greeting();
        let reply = if before { answer::no_greeting_yet(&text) } else { answer::deferral(&text) };
        defer(&context, &session.run, reply)
    });
    engine.register_fn("set_limits", |context: NativeCallContext, session: &mut SessionView, limits: Map| {
        session.limit(limits).map_err(|why| refuse(&context, why))
    });
    engine.register_fn("redirect", |context: NativeCallContext, session: &mut SessionView, to: Dynamic| {
        session.may_redirect(&context)?;
        redirect(&context, &session.run, &to)
    });
}
