//! The server: all of its parts that move mail, as `app` puts them together, over the simulated network. What stays out:
//! TLS (its octets are random), HTTP and the control socket of the admin, reload.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mailworker::app::{self, Answering};
use mailworker::config::{Config, ListenAddress, Listener, TlsMode};
use mailworker::delivery::{self, Decide, Dispatcher, Network};
use mailworker::dns::{Dns, Table};
use mailworker::event::Bus;
use mailworker::intake::Current;
use mailworker::listener::socket::Sockets;
use mailworker::listener::{self, Budget, Listeners, TlsState};
use mailworker::reload::{self, Source};
use mailworker::store::Store;
use tokio::sync::{broadcast::error::RecvError, watch};
use tokio::task::JoinHandle;

use crate::mail::WORKER;
use crate::pipe::Pipe;
use crate::plan::{POST, SERVER, client_ip, ear_address, hop_address};
use crate::way::Way;
use crate::world::{Arrivals, World};

/// As `app` has it.
const DRAIN: Duration = Duration::from_secs(25);
/// Events that may wait to be looked at: none may be missed.
const EVENTS: usize = 1 << 16;

/// The waits of relays and webhooks. Shorter than the server's own, so that a run sees their end.
pub const RELAY_WAITS: [u64; 5] = [60, 300, 900, 1800, 3600];
pub const HOOK_WAITS: [u64; 5] = [5, 60, 600, 1800, 3600];
pub const EXPIRE: u64 = 5 * 3600;

const CONFIG: &str = r#"
hostname = "mx.sim.example"
main = "rules/main.rhai"
[[domain]]
name = "sim.example"
postmaster = "g0@hop0.example"
# The ledger knows whom a notice may go to by what DNS says when it is due.
[authentication]
skip = ["0.0.0.0/0"]
[[kv_namespaces]]
binding = "COUNTS"
[[webhook]]
binding = "EAR"
url = "http://ear0.example/named"
[webhook_defaults]
retry = ["5 s", "1 m", "10 m", "30 m", "1 h"]
[relay]
retry = ["1 m", "5 m", "15 m", "30 m", "1 h"]
expire = "5 h"
delay_notice = "1 h"
"#;

pub struct Server {
    pub store: Store,
    pub answering: Arc<Answering>,
    pub budget: Arc<Budget>,
    pub dispatcher: Dispatcher,
    pub listeners: Listeners,
    /// Some names can't be looked up for as long as it runs.
    pub lacks_names: bool,
    bus: Bus,
    stop: watch::Sender<bool>,
    retention: JoinHandle<()>,
}

struct Door(Arrivals);

impl Sockets for Door {
    type Socket = Pipe;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SERVER)
    }

    async fn accept(&mut self) -> io::Result<(Pipe, SocketAddr)> {
        match self.0.recv().await {
            Some(arrived) => Ok(arrived),
            None => std::future::pending().await,
        }
    }
}

impl Server {
    pub fn start(world: &Arc<World>) -> Self {
        let bus = Bus::new(EVENTS);
        watch(world, &bus);
        let settings = configured(world);
        let source = Source::Embedded { config: CONFIG, rules: &[("rules/main.rhai", WORKER)] };
        let built = reload::build(&source, Some(&settings)).unwrap_or_else(|findings| panic!("{findings:#?}"));
        let current = Current::new(built.snapshot);
        let config = Arc::clone(&current.load().config);
        let store = Store::open(app::store_options(&config), bus.clone()).unwrap();
        let (names, lacks_names) = names(world);
        let dns = Arc::new(Dns::table(names).unwrap());
        let answering = Arc::new(Answering::new(&store, &bus, &current, &dns, None));
        let budget = Budget::new(&config.limits);
        let parts = listener::Parts {
            answerer: Arc::clone(&answering) as Arc<dyn listener::Answerer>,
            bus: bus.clone(),
            budget: Arc::clone(&budget),
            tls: Arc::new(ArcSwap::from_pointee(TlsState::default())),
        };
        let door = Door(world.listen(SERVER));
        let listeners = Listeners::on(vec![(door, &config.listeners[0])], parts);
        let dispatcher = Dispatcher::start(delivery::Parts {
            store: store.clone(),
            config: Arc::new(ArcSwap::new(Arc::clone(&config))),
            dns,
            bus: bus.clone(),
            decider: Arc::clone(&answering) as Arc<dyn Decide>,
            capture: None,
            roots: None,
            network: Network::simulated(Arc::new(Way::new(world))),
        });
        let (stop, stopping) = watch::channel(false);
        let retention = tokio::spawn(app::retention(store.clone(), bus.clone(), stopping));
        app::keep(&bus, &store);
        world.ledger().began(world.now());
        Self { store, answering, budget, dispatcher, listeners, lacks_names, bus, stop, retention }
    }

    /// As `app` stops.
    pub async fn stop(self, world: &World) {
        world.unlisten(SERVER);
        self.listeners.drain(DRAIN).await;
        self.dispatcher.drain(DRAIN).await;
        let _it_has_gone = self.stop.send(true);
        self.retention.await.unwrap();
        self.bus.keep(None);
        self.store.close().await;
        // What it has told is looked at before what it left undone is reckoned.
        tokio::time::sleep(Duration::from_millis(1)).await;
        world.ledger().ended(world.now());
    }
}

fn configured(world: &World) -> reload::Adjust {
    let (data_dir, plan) = (world.data_dir(), world.plan.settings.clone());
    Arc::new(move |config: &mut Config| {
        config.data_dir.clone_from(&data_dir);
        let address = ListenAddress::Socket(SERVER);
        config.listeners = vec![Listener { address, tls: TlsMode::Off, proxy_protocol: Vec::new() }];
        config.limits.free_space = 0;
        config.limits.message_size = 300_000;
        config.limits.in_flight = plan.in_flight;
        config.limits.deliveries = plan.deliveries;
        config.limits.runs = plan.runs;
        config.relay.concurrency = plan.concurrency;
        config.relay.messages_per_connection = plan.messages_per_connection;
        config.session.greet_delay = Duration::from_millis(plan.greet_delay);
    })
}

/// Names as they are known from this start on: some can't be looked up, until all is calm.
fn names(world: &World) -> (Table, bool) {
    let mut rng = world.fork();
    let mut table = Table::default().with_mx("post.example", 10, "mx.post.example");
    table = table.with_address("mx.post.example", POST.ip());
    for hop in 0..world.plan.hops.len() {
        table = table.with_mx(&format!("hop{hop}.example"), 10, &format!("mx.hop{hop}.example"));
        table = table.with_address(&format!("mx.hop{hop}.example"), hop_address(hop).ip());
        if hop > 0 && rng.u8(0..3) == 0 {
            // A better one, where nobody is.
            table = table.with_mx(&format!("hop{hop}.example"), 5, &format!("away.hop{hop}.example"));
            table = table.with_address(&format!("away.hop{hop}.example"), [11, 5, 0, 1].into());
        }
    }
    for ear in 0..world.plan.ears.len() {
        table = table.with_address(&format!("ear{ear}.example"), ear_address(ear).ip());
    }
    for client in 0..world.plan.clients.len() {
        let domain = format!("client{client}.example");
        table = table.with_mx(&domain, 10, "mx.post.example");
        table = table.with_txt(&domain, &format!("v=spf1 ip4:{} -all", client_ip(client)));
    }
    let lacks = !world.is_calm() && rng.u8(0..3) == 0;
    if lacks {
        let name = match rng.usize(0..3) {
            0 => format!("hop{}.example", rng.usize(1..world.plan.hops.len())),
            1 => format!("ear{}.example", rng.usize(0..world.plan.ears.len())),
            _ => format!("client{}.example", rng.usize(0..world.plan.clients.len())),
        };
        world.fault();
        table = table.with_failure(&name, "SERVFAIL");
    }
    (table, lacks)
}

/// Notes whatever it tells; the process may die right after.
fn watch(world: &Arc<World>, bus: &Bus) {
    let (world, mut events) = (Arc::clone(world), bus.subscribe());
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => {
                    world.tell(&event);
                    world.step();
                }
                Err(RecvError::Lagged(_)) => world.ledger().violation("events were missed".to_owned()),
                Err(RecvError::Closed) => return,
            }
        }
    });
}
