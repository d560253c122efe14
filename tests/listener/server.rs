//! Listeners on port 0 with a table for intake, which the recipient's local part chooses from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use mailworker::config::{Config, ListenAddress, Listener, TlsFiles, TlsMode};
use mailworker::event::{Bus, Event, Kind};
use mailworker::listener::{Answerer, Budget, End, Listeners, Parts, TlsState, Visit};
use mailworker::mail::{Client, Reply};
use mailworker::smtp::{Answer, Question};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::time::timeout;

use super::client::PATIENCE;

/// What a test may look at and hold up.
pub struct Table {
    config: Config,
    /// The greeting is held back until a permit is there.
    pub greeting: Semaphore,
    /// Messages for `slow@` are, too.
    pub slow: Semaphore,
    pub answered: AtomicUsize,
    /// Octets of a large message that were handed over ahead of it, and not given up.
    pub parts: AtomicUsize,
    /// There is no place for any.
    pub no_parts: AtomicBool,
    /// What is done after the answer to a message waits until its client has said so.
    pub has_read: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    asked: mpsc::UnboundedSender<(&'static str, Client)>,
    ends: mpsc::UnboundedSender<End>,
}

impl Answerer for Table {
    fn config(&self) -> Arc<Config> {
        Arc::new(self.config.clone())
    }

    fn open(&self, visit: &mut Visit) -> Arc<Config> {
        visit.put(0_usize);
        self.config()
    }

    fn answer<'a>(&'a self, visit: &'a mut Visit, question: Question) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            *visit.own_mut::<usize>().unwrap() += 1;
            let (name, local) = match &question {
                Question::Connect => ("connect", String::new()),
                Question::Helo { .. } => ("helo", String::new()),
                Question::MailFrom { .. } => ("mail", String::new()),
                Question::RcptTo { recipient } => ("rcpt", recipient.address.local().to_owned()),
                Question::Message(message) => ("message", message.envelope.recipients[0].address.local().to_owned()),
            };
            let _nobody_looks = self.asked.send((name, visit.client.clone()));
            match (name, local.as_str()) {
                ("connect", _) => self.greeting.acquire().await.unwrap().forget(),
                ("message", "slow") => self.slow.acquire().await.unwrap().forget(),
                ("rcpt" | "message", "panic") => panic!("on purpose"),
                ("rcpt", "nobody") => return Answer::Reply(Reply::new(550, 1, 1, "no such user")),
                _ => {}
            }
            self.answered.fetch_add(1, Ordering::SeqCst);
            Answer::Accept
        })
    }

    fn said(&self, visit: &mut Visit) {
        let has_read = self.has_read.lock().unwrap().take();
        if let Some(has_read) = has_read {
            let read = tokio::task::block_in_place(|| has_read.recv_timeout(PATIENCE));
            read.expect("the client to read its answer meanwhile");
        }
        let _nobody_looks = self.asked.send(("said", visit.client.clone()));
    }

    fn take_part<'a>(&'a self, _visit: &'a mut Visit, octets: Vec<u8>) -> BoxFuture<'a, Result<(), Reply>> {
        Box::pin(async move {
            if self.no_parts.load(Ordering::SeqCst) {
                return Err(Reply::new(452, 3, 1, "no disk"));
            }
            self.parts.fetch_add(octets.len(), Ordering::SeqCst);
            Ok(())
        })
    }

    fn give_up_parts(&self, _visit: &mut Visit) {
        self.parts.store(0, Ordering::SeqCst);
    }

    fn closed(&self, visit: &mut Visit, end: &End) {
        assert!(visit.own::<usize>().is_some(), "what was put stays to the end");
        let _nobody_looks = self.ends.send(end.clone());
    }
}

pub struct Server {
    pub table: Arc<Table>,
    pub listeners: Listeners,
    pub tls: Arc<ArcSwap<TlsState>>,
    pub budget: Arc<Budget>,
    pub config: Config,
    events: broadcast::Receiver<Arc<Event>>,
    asked: mpsc::UnboundedReceiver<(&'static str, Client)>,
    ends: mpsc::UnboundedReceiver<End>,
}

/// A configuration of one listener.
pub fn config(tls: TlsMode) -> Config {
    let address = ListenAddress::Socket(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut config = Config::default();
    config.hostname = "mx.example.com".into();
    config.listeners = vec![Listener { address, tls, proxy_protocol: Vec::new() }];
    config
}

/// A listener with its defaults, changed by `change`, and its greeting not held back.
pub fn start(tls: TlsMode, change: impl FnOnce(&mut Config)) -> Server {
    let server = start_silent(tls, change);
    server.table.greeting.add_permits(1000);
    server
}

/// The same, but it greets nobody without a permit.
pub fn start_silent(tls: TlsMode, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = config(tls);
    change(&mut config);
    listening(config, |config, parts| Listeners::start(&config.listeners, parts).unwrap())
}

/// The same, on what `listen` makes.
pub fn listening(config: Config, listen: impl FnOnce(&Config, Parts) -> Listeners) -> Server {
    let (asked_sender, asked) = mpsc::unbounded_channel();
    let (ends_sender, ends) = mpsc::unbounded_channel();
    let table = Arc::new(Table {
        config: config.clone(),
        greeting: Semaphore::new(0),
        slow: Semaphore::new(0),
        answered: AtomicUsize::new(0),
        parts: AtomicUsize::new(0),
        no_parts: AtomicBool::new(false),
        has_read: Mutex::new(None),
        asked: asked_sender,
        ends: ends_sender,
    });
    let bus = Bus::new(1024);
    let events = bus.subscribe();
    let tls = Arc::new(ArcSwap::from_pointee(TlsState::load(&config).unwrap()));
    let budget = Budget::new(&config.limits);
    let answerer = Arc::clone(&table) as Arc<dyn Answerer>;
    let parts = Parts { answerer, tls: Arc::clone(&tls), bus, budget: Arc::clone(&budget) };
    let listeners = listen(&config, parts);
    Server { table, listeners, tls, budget, config, events, asked, ends }
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.listeners.local_addrs()[0]
    }

    /// How the next session that ends does.
    pub async fn end(&mut self) -> End {
        timeout(PATIENCE, self.ends.recv()).await.expect("a session to end").unwrap()
    }

    /// The facts of the client when this was next asked.
    pub async fn asked(&mut self, name: &str) -> Client {
        loop {
            let (asked, client) = timeout(PATIENCE, self.asked.recv()).await.expect("a question").unwrap();
            if asked == name {
                return client;
            }
        }
    }

    /// The next event of which `pick` makes something.
    pub async fn event<T>(&mut self, pick: impl Fn(&Kind) -> Option<T>) -> T {
        loop {
            let event = timeout(PATIENCE, self.events.recv()).await.expect("an event").unwrap();
            if let Some(picked) = pick(&event.kind) {
                return picked;
            }
        }
    }

    /// The next refusal's phase and reply.
    pub async fn refusal(&mut self) -> (String, String) {
        self.event(|kind| match kind {
            Kind::Refused { phase, reply, .. } => Some((phase.clone(), reply.to_string())),
            _ => None,
        })
        .await
    }

    /// Why the next session that is dropped is.
    pub async fn dropped(&mut self) -> (String, String) {
        self.event(|kind| match kind {
            Kind::Dropped { phase, reason, .. } => Some((phase.clone(), reason.clone())),
            _ => None,
        })
        .await
    }
}

/// Until what another task does has been done.
pub async fn until(mut done: impl FnMut() -> bool) {
    let waited = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waited).await.expect("it to be done in time");
}

/// A self-signed certificate for `name`, in files below `directory`.
pub fn certificate(directory: &std::path::Path, name: &str) -> (CertificateDer<'static>, (PathBuf, PathBuf)) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let paths = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
    std::fs::write(&paths.0, made.cert.pem()).unwrap();
    std::fs::write(&paths.1, made.signing_key.serialize_pem()).unwrap();
    (made.cert.der().clone(), paths)
}

/// `[tls]` with one pair and those for SNI.
pub fn tls_files(pair: &(PathBuf, PathBuf), sni: &[&(PathBuf, PathBuf)]) -> TlsFiles {
    let sni = sni.iter().map(|pair| (*pair).clone()).collect();
    TlsFiles { certificate: pair.0.clone(), key: pair.1.clone(), sni }
}
