//! Claims what is due, gives each destination its share, and settles what came of it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Parts;

/// The running dispatcher.
#[derive(Debug)]
pub struct Dispatcher {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Dispatcher {
    /// Starts it on the current runtime.
    #[must_use]
    pub fn start(parts: Parts) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let _parts = parts;
            let _stop = stopped.wait_for(|stop| *stop).await;
        });
        Self { stop, task }
    }

    /// Claims nothing more and lets what is under way settle, for at most `deadline`. What hasn't settled then is
    /// due again at the next start.
    pub async fn drain(self, deadline: Duration) {
        self.stop.send_replace(true);
        let mut task = self.task;
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            task.abort();
        }
    }
}
