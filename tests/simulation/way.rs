//! The server's way out: its connections to next hops and its requests to endpoints go over the simulated network.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use mailworker::delivery::network::{Duplex, Failed, Simulated};

use crate::pipe::Pipe;
use crate::plan::{QUICK, SERVER, hop_address};
use crate::world::World;

pub struct Way {
    world: Arc<World>,
    rng: Mutex<fastrand::Rng>,
}

impl Way {
    pub fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), rng: Mutex::new(world.fork()) }
    }

    async fn dial(&self, to: SocketAddr) -> io::Result<Pipe> {
        let steady = self.world.is_calm() || to == hop_address(QUICK);
        let (line, port) = {
            let mut rng = self.rng.lock().unwrap();
            (self.world.plan.line(&mut rng, steady), rng.u16(1024..))
        };
        self.world.dial(SocketAddr::new(SERVER.ip(), port), to, line, 0).await
    }

    async fn ask(&self, to: Vec<SocketAddr>, request: reqwest::Request) -> Result<reqwest::Response, Failed> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let path = request.url().path().to_owned();
        let mut request: hyper::Request<reqwest::Body> = request.try_into()?;
        *request.uri_mut() = path.parse()?;
        request.headers_mut().insert(HOST, host.parse()?);
        let mut last: Failed = "there is no address".into();
        for address in to {
            match self.dial(address).await {
                Ok(pipe) => {
                    let (mut sender, connection) = http1::handshake(TokioIo::new(pipe)).await?;
                    tokio::spawn(connection.map(drop));
                    let answer = sender.send_request(request).await?;
                    return Ok(answer.map(reqwest::Body::wrap).into());
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

impl Simulated for Way {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move { Ok(Box::new(self.dial(to).await?) as Box<dyn Duplex>) })
    }

    fn call(&self, to: Vec<SocketAddr>, request: reqwest::Request) -> BoxFuture<'_, Result<reqwest::Response, Failed>> {
        Box::pin(self.ask(to, request))
    }
}
