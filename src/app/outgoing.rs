//! The dispatcher, on threads of its own: a wave of new mail and one of attempts don't wait in one queue of tasks, but each
//! for its turn by the system's scheduler. What that gave stands in `benches/README.md`.

use std::num::NonZero;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::StartError;
use crate::delivery::{Dispatcher, Parts};
use crate::rules::THREAD_STACK;

pub(super) struct Outgoing {
    pub dispatcher: Dispatcher,
    threads: Threads,
}

impl Outgoing {
    pub(super) fn start(parts: Parts) -> Result<Self, StartError> {
        let threads = Threads::start().map_err(StartError::Threads)?;
        let dispatcher = threads.within(|| Dispatcher::start(parts));
        Ok(Self { dispatcher, threads })
    }

    /// As [`Dispatcher::drain`]. The threads go on until what is returned is dropped.
    pub(super) async fn drain(self, deadline: Duration) -> Threads {
        self.dispatcher.drain(deadline).await;
        self.threads
    }
}

/// A runtime that ends in the background: where it is dropped, nothing may wait.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// Half as many as there are processors.
    fn start() -> std::io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get) / 2;
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(count.max(1)).thread_name("delivery").thread_stack_size(THREAD_STACK).enable_all();
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    /// What `begin` spawns, and what that does, runs on them.
    fn within<R>(&self, begin: impl FnOnce() -> R) -> R {
        let _entered = self.0.as_ref().map(Runtime::enter);
        begin()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
