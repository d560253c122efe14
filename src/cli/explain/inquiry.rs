//! Who sends, found out for a command that judges mail without a server: by the configured resolver, as a server does it.
//! What isn't looked up has its reason.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::clock;
use crate::config::Config;
use crate::dns::Dns;
use crate::event::{Event, Kind};
use crate::intake::look_into;
use crate::mail::authentication::{Authentication, Check, Iprev};
use crate::mail::{Address, Client};
use crate::reach::{Alone, Offline};
use crate::rules::Lent;

/// Asks, or says why it doesn't.
pub struct Inquiry {
    config: Arc<Config>,
    resolver: Result<(Dns, Runtime), String>,
    /// Said to be the client's confirmed name.
    name: Option<String>,
}

/// What was found out.
pub enum Found {
    /// Every check, as a trace tells it.
    Checked(Event),
    /// Nothing, and why.
    Nothing(String),
}

impl Found {
    /// These checks of it alone.
    fn of(self, wanted: &[&str]) -> Self {
        match self {
            Self::Checked(mut event) => {
                if let Kind::Authenticated { checks } = &mut event.kind {
                    checks.retain(|one| wanted.contains(&one.check.as_str()));
                }
                Self::Checked(event)
            }
            Self::Nothing(why) => Self::Nothing(why),
        }
    }
}

impl Inquiry {
    #[must_use]
    pub fn new(config: &Arc<Config>, is_offline: bool, name: Option<&str>) -> Self {
        let resolver = if is_offline { Err("--offline, so DNS isn't asked".to_owned()) } else { resolver(config) };
        Self { config: Arc::clone(config), resolver, name: name.map(ToOwned::to_owned) }
    }

    /// All that can be known of a message's sender; the client as its worker sees it.
    #[must_use]
    pub fn of_message(&self, client: &Client, sender: Option<&Address>, raw: &Bytes) -> (Client, Found) {
        match self.asked(client, sender, raw) {
            Ok((client, told)) => (client, Found::Checked(Event::new(clock::now(), told))),
            Err(why) => (self.named(client), Found::Nothing(why)),
        }
    }

    /// What is known when the client connects: its name.
    #[must_use]
    pub fn of_client(&self, client: &Client) -> (Client, Found) {
        self.part(client, None, &["iprev"])
    }

    /// What is known when it names the sender.
    #[must_use]
    pub fn of_sender(&self, client: &Client, sender: Option<&Address>) -> Found {
        self.part(client, sender, &["spf helo", "spf"]).1
    }

    /// The part of the checks that needs no message.
    fn part(&self, client: &Client, sender: Option<&Address>, wanted: &[&str]) -> (Client, Found) {
        let (known, found) = self.of_message(client, sender, &Bytes::new());
        let client = Client { ptr: known.ptr, ..client.clone() };
        (client, found.of(wanted))
    }

    fn asked(&self, client: &Client, sender: Option<&Address>, raw: &Bytes) -> Result<(Client, Kind), String> {
        let (dns, runtime) = self.resolver.as_ref().map_err(Clone::clone)?;
        let asked = runtime.block_on(look_into(dns, &self.config, client, sender, raw));
        let (client, told) = asked.ok_or_else(|| own_network(client.ip))?;
        Ok((self.named(&client), self.said(told)))
    }

    /// The checks, that of its name by what was said.
    fn said(&self, told: Kind) -> Kind {
        match (told, &self.name) {
            (Kind::Authenticated { mut checks }, Some(name)) => {
                for one in checks.iter_mut().filter(|one| one.check == "iprev") {
                    (one.result, one.about) = (Check::Pass.word().to_owned(), name.clone());
                    (one.reason, one.millis) = ("as --ptr says".to_owned(), 0);
                }
                Kind::Authenticated { checks }
            }
            (told, _) => told,
        }
    }

    /// With the name that it was said to have.
    fn named(&self, client: &Client) -> Client {
        let Some(name) = &self.name else { return client.clone() };
        let iprev = Iprev { result: Check::Pass, name: name.clone() };
        let auth = client.auth.as_deref().map(|auth| Arc::new(Authentication { iprev, ..auth.clone() }));
        Client { ptr: Some(name.clone()), auth, ..client.clone() }
    }
}

fn own_network(ip: IpAddr) -> String {
    format!("{ip} is one of [authentication] skip, whose clients are looked into by nobody")
}

fn resolver(config: &Config) -> Result<(Dns, Runtime), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let within = runtime.enter();
    let dns = Dns::new(&config.dns).map_err(|error| error.to_string())?;
    drop(within);
    Ok((dns, runtime))
}

/// Whom rules ask outside.
#[must_use]
pub fn reach(config: &Arc<Config>, is_offline: bool) -> Lent {
    if is_offline { Lent::new(Arc::new(Offline)) } else { Alone::lent(config) }
}

/// What is said of it where nothing was found out.
#[must_use]
pub fn unknown(why: &str) -> String {
    format!("not looked into, so every result is none: {why}")
}
