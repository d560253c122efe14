//! What a connection stands on: TCP, or whatever behaves like it, as a simulation's network does. Known by its type, so
//! that it costs nothing where octets move.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// One accepted connection.
pub trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {
    /// Called once, before anything is sent.
    fn prepare(&self);

    /// Whether the peer has sent octets that nobody has read. Never waits.
    fn has_octets(&self) -> bool;

    /// Until the peer has sent something or has gone. Takes nothing.
    fn heard(&self) -> impl Future<Output = ()> + Send;

    /// One short line on a connection that nothing was sent on yet, as far as there is room for it. Never waits.
    fn say(&self, line: &[u8]);
}

/// What connections are accepted from.
pub trait Sockets: Send + 'static {
    type Socket: Socket;

    /// With the real port.
    ///
    /// # Errors
    /// What the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection and its peer. Loses none where it is dropped.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;
}

impl Socket for TcpStream {
    fn prepare(&self) {
        // Answers are single segments and must not wait for the next one (Nagle).
        let _without_it_all_works_slower = self.set_nodelay(true);
    }

    fn has_octets(&self) -> bool {
        let mut octet = [MaybeUninit::uninit()];
        socket2::SockRef::from(self).peek(&mut octet).is_ok_and(|octets| octets > 0)
    }

    async fn heard(&self) {
        let _it_may_have_gone = self.peek(&mut [0]).await;
    }

    fn say(&self, line: &[u8]) {
        let _the_peer_may_have_gone = socket2::SockRef::from(self).send(line);
    }
}

impl Sockets for TcpListener {
    type Socket = TcpStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}
