//! Work that takes its time, done aside: on a thread that may block, so that nobody's session waits behind it.
//!
//! In a simulation (`clock::is_held`) it is done in place and in turn: there all happens on one thread and in one order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::clock;

/// What work takes in a simulation, at most.
const HELD_UP: Duration = Duration::from_millis(5);

/// It came to no end: it panicked, in words, or the runtime is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unfinished(String);

/// What `work` comes to. It goes on when the caller goes away.
///
/// # Errors
/// [`Unfinished`]
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unfinished> {
    if clock::is_held() {
        // As elsewhere others go on meanwhile.
        tokio::time::sleep(HELD_UP.mul_f64(fastrand::f64())).await;
        return catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Unfinished(in_words(panic.as_ref())));
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| Unfinished(error.to_string()))
}

/// What was panicked with.
#[must_use]
pub fn in_words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_error_in_words_wherever_it_happens() {
        let panics = || run(|| -> u8 { std::panic::panic_any("out of cheese") });
        assert!(panics().await.unwrap_err().to_string().contains("out of cheese"));
        let _held = clock::hold(Timestamp::default());
        assert_eq!(panics().await.unwrap_err().to_string(), "out of cheese");
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulation_has_one_thread() {
        let own = std::thread::current().id();
        assert_ne!(run(|| std::thread::current().id()).await.unwrap(), own);
        let _held = clock::hold(Timestamp::default());
        assert_eq!(run(|| std::thread::current().id()).await.unwrap(), own);
    }
}
