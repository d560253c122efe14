//! What runs ask outside, on their way: bounded, kept for the runs that follow, and without the turn that others want.
//!
//! Only what runs on a thread that may block comes here. While it waits, its turn is another's; how many wait so is
//! bounded, since each holds a thread. What was answered is kept for as long as its message is decided, so that a run that
//! is repeated, or made for the next recipient, sees the same and asks nobody again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::turns::{Turn, Turns};
use crate::clock::Instant;
use crate::config::Config;
use crate::reach::Outside;
use crate::rules::reach::{Answer, Asked, Failed, Request};
use crate::rules::{Lent, Reach};

/// How long a run waits for its turn to go on, beside what is left of its own time.
const BACK: Duration = Duration::from_millis(100);
/// Octets of the answers that are kept for one message, and of what was asked.
const MAX_KEPT: usize = 4 * 1024 * 1024;

/// The ways out of one process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ways {
    outside: Option<Arc<Outside>>,
    /// Who asks at once.
    places: Turns,
    /// Who asks or waits for it: each has a thread.
    waiting: Arc<Semaphore>,
}

impl Ways {
    pub(super) fn new(outside: Option<Arc<Outside>>, at_once: usize) -> Self {
        let at_once = at_once.clamp(1, MOST);
        Self { outside, places: Turns::new(at_once), waiting: Arc::new(Semaphore::new(at_once * 2)) }
    }

    /// How many ask now.
    pub(super) fn taken(&self) -> usize {
        self.places.taken()
    }
}

/// Requests at once, whatever the configuration says: with as many that wait they leave threads for all else.
const MOST: usize = 200;

/// The requests of one message, or of one call of another handler.
pub(super) struct Errand {
    ways: Ways,
    turns: Turns,
    config: Arc<Config>,
    client: IpAddr,
    runtime: Handle,
    /// Of the run under way.
    turn: Mutex<Option<Turn>>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answers: HashMap<(Request, usize), Result<Answer, Failed>>,
    octets: usize,
}

impl Errand {
    pub(super) fn new(ways: &Ways, turns: &Turns, config: &Arc<Config>, client: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            ways: ways.clone(),
            turns: turns.clone(),
            config: Arc::clone(config),
            client,
            runtime: Handle::current(),
            turn: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    /// As runs take it.
    pub(super) fn lent(self: &Arc<Self>) -> Lent {
        Lent::new(Arc::clone(self) as Arc<dyn Reach>)
    }

    /// Does `work` in this turn, which is over with it.
    pub(super) fn within<T>(&self, turn: Turn, work: impl FnOnce() -> T) -> T {
        *lock(&self.turn) = Some(turn);
        let _for_so_long = Held(&self.turn);
        work()
    }

    async fn go(&self, outside: &Outside, request: &Request, within: Duration) -> Result<Answer, Failed> {
        let deadline = Instant::now() + within;
        let Ok(_waits) = self.ways.waiting.try_acquire() else {
            return Err(Failed::Limited("too many requests outside wait already".to_owned()));
        };
        // What it asks takes no processor: others may have the turn meanwhile.
        drop(lock(&self.turn).take());
        let result = match self.ways.places.take(self.client, deadline).await {
            Some(_place) => {
                let left = deadline.saturating_duration_since(Instant::now());
                outside.ask(&self.config, request, left).await
            }
            None => Err(Failed::Limited("no place came in time among the requests outside".to_owned())),
        };
        let back = self.turns.take(self.client, deadline + BACK).await;
        let Some(turn) = back else {
            return Err(Failed::Ends("no turn to go on came in time after a request outside".to_owned()));
        };
        *lock(&self.turn) = Some(turn);
        result
    }
}

impl Kept {
    /// What was answered, or that nobody did; what we ourselves stood in the way of may come to something the next time.
    fn keep(&mut self, request: &Request, nth: usize, result: &Result<Answer, Failed>) {
        let answered = match result {
            Ok(answer) => answer.octets(),
            Err(Failed::Unanswered(why)) => why.len(),
            Err(Failed::Limited(_) | Failed::Ends(_)) => return,
        };
        let octets = request.octets() + answered;
        if self.octets + octets <= MAX_KEPT {
            self.octets += octets;
            self.answers.insert((request.clone(), nth), result.clone());
        }
    }
}

impl Reach for Errand {
    fn ask(&self, request: &Request, nth: usize, within: Duration) -> Asked {
        let known = lock(&self.kept).answers.get(&(request.clone(), nth)).cloned();
        if let Some(result) = known {
            return Asked { result, took: Duration::ZERO, kept: true };
        }
        let Some(outside) = &self.ways.outside else {
            let why = "nothing outside can be reached from here".to_owned();
            return Asked { result: Err(Failed::Ends(why)), took: Duration::ZERO, kept: false };
        };
        let began = Instant::now();
        let result = self.runtime.block_on(self.go(outside, request, within));
        lock(&self.kept).keep(request, nth, &result);
        Asked { result, took: began.elapsed(), kept: false }
    }
}

/// The turn is over, however the work ends.
struct Held<'a>(&'a Mutex<Option<Turn>>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        drop(lock(self.0).take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::rules::reach::Fetch;

    fn fetch(n: usize, header: usize, body: usize) -> Request {
        Request::Fetch(Fetch {
            method: "POST".to_owned(),
            url: format!("https://api.example.net/{n}"),
            headers: vec![("x-more".to_owned(), "x".repeat(header))],
            body: Bytes::from(vec![b'x'; body]),
            timeout: None,
            most: 1024,
        })
    }

    fn answer(header: usize) -> Answer {
        let headers = vec![("x-more".to_owned(), "x".repeat(header))];
        Answer::Http { status: 200, headers, body: Bytes::new() }
    }

    /// Of a hundred such, how many are kept.
    fn kept(asked: impl Fn(usize) -> Request, result: &Result<Answer, Failed>) -> usize {
        let mut kept = Kept::default();
        (0..100).for_each(|n| kept.keep(&asked(n), 0, result));
        kept.answers.len()
    }

    #[test]
    fn what_was_asked_counts_as_what_was_answered() {
        let whole = 100;
        assert_eq!(kept(|n| fetch(n, 100, 100), &Ok(answer(100))), whole);
        assert_eq!(kept(|n| fetch(n, 100, MAX_KEPT / 4), &Ok(answer(100))), 3);
        assert_eq!(kept(|n| fetch(n, MAX_KEPT / 4, 100), &Ok(answer(100))), 3);
        assert_eq!(kept(|n| fetch(n, 100, 100), &Ok(answer(MAX_KEPT / 4))), 3);
        let chat = |n| Request::Ai { model: String::new(), body: format!("{n}{}", "x".repeat(MAX_KEPT / 4)), most: 1 };
        assert_eq!(kept(chat, &Ok(answer(100))), 3);
        let records = Ok(Answer::Records(vec!["x".repeat(MAX_KEPT / 4).into()]));
        assert!(kept(|n| fetch(n, 1, 1), &records) < 4);
    }

    #[test]
    fn what_we_stood_in_the_way_of_is_no_answer() {
        let nobody = Err(Failed::Unanswered("api.example.net: no answer in 5s".to_owned()));
        assert_eq!(kept(|n| fetch(n, 1, 1), &nobody), 100);
        for ours in [Failed::Limited("no place came".to_owned()), Failed::Ends("no turn came".to_owned())] {
            assert_eq!(kept(|n| fetch(n, 1, 1), &Err(ours)), 0);
        }
    }
}
