//! `session`: a whole SMTP dialogue with the configuration and rules as they are, without a server and without effects.
//! Each answer comes with its reason, in a line that begins with `#`.

use std::io::{BufRead as _, Read as _};
use std::sync::Arc;

use super::args::{Common, Rehearse};
use super::explain::inquiry::{Found, Inquiry, reach, unknown};
use super::print::{self, DIM, Painted, plain};
use super::{Done, Failure, access, configured, explain, show};
use crate::config::load::{self, Reading};
use crate::config::{Config, ListenAddress, Listener, TlsMode};
use crate::intake::Snapshot;
use crate::intake::foresee::{Rehearsal, Why};
use crate::listener;
use crate::mail::{Client, Reply, Tls};
use crate::reload;
use crate::smtp::{Action, Answer, Question, Session};

/// Octets of a line that are read at once: longer ones are taken in pieces, as from a socket.
const PIECE: u64 = 64 * 1024;

pub fn run(common: &Common, options: &Rehearse) -> Done {
    let found = load::Options { secrets: Reading::Wanted, ..configured::with_secrets(common) };
    let snapshot = Arc::new(reload::in_force(&found).map_err(Failure::Configuration)?);
    let listener = chosen(&snapshot.config, options)?;
    let is_encrypted = options.tls || listener.tls == TlsMode::Implicit;
    let client = Client {
        ip: options.ip,
        port: 0,
        listener: named(&listener.address),
        helo: None,
        esmtp: false,
        tls: is_encrypted.then(pretended),
        ptr: None,
        auth: None,
        origin: snapshot.config.geoip.origin(options.ip),
    };
    let has_certificate = snapshot.config.tls.is_some();
    let mut session = Session::new(listener::settings_for(&snapshot.config, client.ip, listener.tls, has_certificate));
    session.has_certificate(has_certificate);
    if is_encrypted {
        session.tls_started();
    }
    let keys = access::keys(&snapshot.config)?;
    let inquiry = Inquiry::new(&snapshot.config, options.offline, options.ptr.as_deref());
    let rehearsal = Rehearsal::new(Arc::clone(&snapshot), keys, reach(&snapshot.config, options.offline));
    remark(&format!("by {}, as {}; nothing is kept, sent or written", client.listener, client.ip))?;
    Stage { session, rehearsal, inquiry, client, snapshot, was_asked: false, reasons: Vec::new() }.play(options)
}

/// The listener that was named, else the first.
fn chosen(config: &Config, options: &Rehearse) -> Result<Listener, Failure> {
    let all = &config.listeners;
    let found = match &options.listener {
        None => all.first(),
        Some(wanted) => all.iter().find(|listener| named(&listener.address) == *wanted),
    };
    found.cloned().ok_or_else(|| {
        let there: Vec<String> = all.iter().map(|listener| named(&listener.address)).collect();
        Failure::Usage(format!("--listener: the configuration has {}", there.join(", ")))
    })
}

fn named(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Socket(address) => address.to_string(),
        ListenAddress::Systemd(name) => format!("fd:{name}"),
    }
}

/// What a session would run over that says STARTTLS here.
fn pretended() -> Tls {
    Tls { version: "TLSv1.3".to_owned(), cipher: "TLS13_AES_256_GCM_SHA384".to_owned(), sni: None }
}

struct Stage {
    session: Session,
    rehearsal: Rehearsal,
    inquiry: Inquiry,
    client: Client,
    snapshot: Arc<Snapshot>,
    /// The line at hand led to a question, so that a rule or route is the reason.
    was_asked: bool,
    reasons: Vec<String>,
}

impl Stage {
    /// Line by line, until the session or the input ends.
    fn play(mut self, options: &Rehearse) -> Done {
        if !self.go_on()? {
            return Ok(());
        }
        if let Some(name) = &options.helo {
            print::line(format_args!("EHLO {}", plain(name)))?;
            self.session.push(format!("EHLO {name}\r\n").as_bytes());
            if !self.go_on()? {
                return Ok(());
            }
        }
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            if (&mut input).take(PIECE).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.ends_with(b"\n") {
                line.pop();
                if line.ends_with(b"\r") {
                    line.pop();
                }
                line.extend_from_slice(b"\r\n");
            }
            self.session.push(&line);
            if !self.go_on()? {
                return Ok(());
            }
        }
    }

    /// What the session does with what it has; `false`: it is over.
    fn go_on(&mut self) -> Result<bool, Failure> {
        loop {
            match self.session.poll() {
                Action::Read { .. } => {
                    self.say()?;
                    return Ok(true);
                }
                Action::Flush => self.say()?,
                Action::Ask(question) => self.ask(question),
                Action::StartTls => {
                    self.say()?;
                    self.client.tls = Some(pretended());
                    (self.client.helo, self.client.esmtp) = (None, false);
                    self.session.tls_started();
                    remark("TLS stands, as far as this rehearsal goes; EHLO comes anew")?;
                }
                Action::Close(closed) => {
                    self.say()?;
                    remark(&format!("closed: {}", closed.reason()))?;
                    return Ok(false);
                }
            }
        }
    }

    fn ask(&mut self, question: Question) {
        self.was_asked = true;
        let before = (self.client.helo.clone(), self.client.esmtp);
        if let Question::Helo { name, esmtp } = &question {
            (self.client.helo, self.client.esmtp) = (Some(name.clone()), *esmtp);
        }
        if let Question::RcptTo { recipient } = &question
            && self.client.tls.is_none()
            && self.snapshot.config.requires_tls(&recipient.address)
        {
            self.reasons.push("its [[domain]] has require_tls".to_owned());
            return self.session.turn_down(&Reply::new(530, 7, 0, "Must issue a STARTTLS command first"));
        }
        let is_helo = matches!(question, Question::Helo { .. });
        let client = self.look(&question);
        let (answer, why) = self.rehearsal.answer(&client, question);
        self.note(why);
        if is_helo && matches!(&answer, Answer::Reply(reply) if !reply.is_positive()) {
            (self.client.helo, self.client.esmtp) = before;
        }
        self.session.answer(answer);
    }

    /// Looks into the sender as far as this question's time has come; the client as it is asked about.
    fn look(&mut self, question: &Question) -> Client {
        let found = match question {
            Question::Connect => {
                let (client, found) = self.inquiry.of_client(&self.client);
                self.client = client;
                found
            }
            Question::MailFrom { envelope, .. } => self.inquiry.of_sender(&self.client, envelope.sender.as_ref()),
            Question::Message(transaction) => {
                let (sender, octets) = (transaction.envelope.sender.as_ref(), &transaction.body);
                let (client, found) = self.inquiry.of_message(&self.client, sender, octets);
                self.tell(found, true);
                return client;
            }
            Question::Helo { .. } | Question::RcptTo { .. } => return self.client.clone(),
        };
        self.tell(found, matches!(question, Question::Connect));
        self.client.clone()
    }

    fn tell(&mut self, found: Found, also_nothing: bool) {
        match found {
            Found::Checked(event) => self.reasons.extend(show::event(&event)),
            Found::Nothing(why) if also_nothing => self.reasons.push(unknown(&why)),
            Found::Nothing(_) => {}
        }
    }

    fn note(&mut self, why: Why) {
        self.reasons.extend(why.reasons);
        for event in &why.events {
            self.reasons.extend(show::event(event));
        }
        for (what, whereto) in explain::whereto(&why.deliveries) {
            self.reasons.push(format!("would queue {what} by {whereto}"));
        }
    }

    /// What is said to the client, and why.
    fn say(&mut self) -> Done {
        let mut output = Vec::new();
        self.session.take_output(&mut output);
        let text = self.snapshot.release.hide(String::from_utf8_lossy(&output).into_owned());
        text.lines().try_for_each(|line| print::line(plain(line)))?;
        let refused = text.lines().next_back().filter(|last| last.starts_with(['4', '5']));
        if let Some(last) = refused.filter(|_| !self.was_asked) {
            self.reasons.push(self.of_the_protocol(last));
        }
        self.was_asked = false;
        // What it refused by itself was told as its answer.
        let _refusals = self.session.take_refusals();
        std::mem::take(&mut self.reasons).iter().try_for_each(|reason| remark(reason))
    }

    /// No rule and no route was asked: a limit, or the protocol itself.
    fn of_the_protocol(&self, reply: &str) -> String {
        let limits = &self.snapshot.config.limits;
        let code = |code: &str| reply.starts_with(code);
        if code("552 5.3.4") {
            format!("[limits] message_size = {} octets", limits.message_size)
        } else if code("452 4.5.3") {
            format!("[limits] recipients = {}", limits.recipients)
        } else if code("421") {
            format!("[limits] errors = {}", limits.errors)
        } else if code("530") {
            "the listener's `tls = \"required\"`, or [session] require_tls".to_owned()
        } else {
            "the protocol: no rule was asked".to_owned()
        }
    }
}

fn remark(text: &str) -> Done {
    print::line(format_args!("{}", Painted(DIM, format_args!("# {text}"))))
}
