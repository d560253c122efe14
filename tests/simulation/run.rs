//! One simulated world from its beginning to its end: lives of the server, one after the other, until nothing is under
//! way any more; then what became of everything is judged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mailworker::clock;
use mailworker::store::QueueFilter;
use tokio::runtime;

use crate::client::Client;
use crate::plan::{HOUR, POST, Plan};
use crate::server::{EXPIRE, Server};
use crate::world::{BEGINNING, World};
use crate::{ear, hop, judge};

/// What a run comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub digest: u64,
    pub simulated: Duration,
    pub faults: u64,
    pub mails: usize,
    pub deaths: usize,
    pub attempts: u64,
    pub violations: Vec<String>,
}

/// How long after the storm everything must have come to its end.
const LONGEST: u64 = 2 * EXPIRE * 1000 + 2 * HOUR;

/// Runs one seed.
pub fn run(seed: u64) -> Report {
    let room = tempfile::tempdir_in(memory()).unwrap();
    let world = World::new(Plan::draw(seed), room.path());
    let mut lives = world.plan.deaths.clone().into_iter();
    let mut from = 0;
    let violations = loop {
        let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let entered = runtime.enter();
        let held = clock::hold(BEGINNING.plus(Duration::from_millis(from)));
        world.begin_life(lives.next());
        let ended = runtime.block_on(async {
            tokio::select! {
                biased;
                () = world.died.notified() => None,
                violations = live(&world) => Some(violations),
            }
        });
        from = world.now();
        drop(entered);
        drop(runtime);
        drop(held);
        if let Some(violations) = ended {
            break violations;
        }
        // Somebody has to notice, and to start it again.
        from += world.fork().u64(10..60_000);
    };
    let ledger = world.ledger();
    Report {
        digest: world.digest(),
        simulated: Duration::from_millis(from),
        faults: world.faults(),
        mails: world.plan.mails.len(),
        deaths: ledger.deaths.len(),
        attempts: ledger.attempts,
        violations,
    }
}

/// Where syncs cost nothing, if there is such a place.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// One life, to its natural end.
async fn live(world: &Arc<World>) -> Vec<String> {
    for number in 0..world.plan.hops.len() {
        hop::listen(world, number);
    }
    for number in 0..world.plan.ears.len() {
        ear::listen(world, number);
    }
    tokio::spawn(hop::run(Arc::clone(world), None, world.listen(POST)));
    let mut server = Server::start(world);
    for number in 0..world.plan.clients.len() {
        tokio::spawn(Client::new(world, number).run());
    }
    for (at, pause) in world.plan.stops.clone() {
        if at < world.now() {
            continue;
        }
        until(world, at).await;
        world.fault();
        server = restarted(world, server, pause).await;
    }
    until(world, world.plan.calm_from).await;
    world.spare();
    if server.lacks_names {
        server = restarted(world, server, 1000).await;
    }
    while !is_over(world, &server).await {
        if world.now() > world.plan.calm_from + LONGEST {
            let queue = server.store.queue(alive(5)).await.unwrap();
            let mut ledger = world.ledger();
            let (unsent, numbers) = (ledger.unsent(), world.plan.mails.iter().enumerate());
            let unsent: Vec<_> =
                numbers.filter(|(n, _)| unsent.contains(n)).map(|(_, mail)| &mail.recipients).collect();
            ledger.violation(format!("it came to no end: not brought in: {unsent:?}; queued: {queue:#?}"));
            break;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    // Connections are kept for a while after the last message.
    tokio::time::sleep(Duration::from_mins(15)).await;
    judge::judge(world, server).await
}

async fn until(world: &World, at: u64) {
    tokio::time::sleep(Duration::from_millis(at.saturating_sub(world.now()))).await;
}

async fn restarted(world: &Arc<World>, server: Server, pause: u64) -> Server {
    server.stop(world).await;
    tokio::time::sleep(Duration::from_millis(pause)).await;
    Server::start(world)
}

/// All has been brought in, and nothing waits any more.
async fn is_over(world: &World, server: &Server) -> bool {
    world.ledger().unsent().is_empty() && server.store.queue(alive(1)).await.unwrap().is_empty()
}

fn alive(limit: usize) -> QueueFilter {
    QueueFilter { dead: Some(false), limit: Some(limit), ..QueueFilter::default() }
}
