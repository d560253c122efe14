//! The network that relays and webhooks go out by: the internet, or one that a simulation has made.
//!
//! Asked with addresses alone: names are resolved, and what `[egress]` forbids is refused, before it comes to this.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;

pub use super::relay::connection::Duplex;

/// Whatever went wrong.
pub type Failed = Box<dyn Error + Send + Sync>;

/// A network that isn't the internet.
pub trait Simulated: Send + Sync {
    /// A connection to a mail server.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>>;

    /// One HTTP request to the first of these addresses that can be reached, and its answer.
    fn call(&self, to: Vec<SocketAddr>, request: reqwest::Request) -> BoxFuture<'_, Result<reqwest::Response, Failed>>;
}

/// The internet, but for simulations.
#[derive(Clone, Default)]
pub struct Network(Option<Arc<dyn Simulated>>);

impl Network {
    #[must_use]
    pub fn simulated(network: Arc<dyn Simulated>) -> Self {
        Self(Some(network))
    }

    /// What there is in the internet's place.
    pub(super) fn other(&self) -> Option<Arc<dyn Simulated>> {
        self.0.clone()
    }

    /// A connection to a mail server.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<Box<dyn Duplex>> {
        if let Some(other) = &self.0 {
            return other.connect(to).await;
        }
        let stream = TcpStream::connect(to).await?;
        // Commands are written whole; waiting for more to send with them only delays.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
