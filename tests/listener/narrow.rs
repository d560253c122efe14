//! A connection that takes few octets before its peer reads them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use mailworker::config::TlsMode;
use mailworker::listener::Listeners;
use mailworker::listener::socket::{Socket, Sockets};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::client::Client;
use super::server::{config, listening};

/// Octets on their way in each direction, fewer than any reply has.
const ROOM: usize = 8;

struct Narrow(DuplexStream);

impl AsyncRead for Narrow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Socket for Narrow {
    fn prepare(&self) {}

    fn has_octets(&self) -> bool {
        false
    }

    async fn heard(&self) {
        std::future::pending::<()>().await;
    }

    fn say(&self, _line: &[u8]) {}
}

/// The one connection there will be.
struct Once(Option<Narrow>);

impl Sockets for Once {
    type Socket = Narrow;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 25)))
    }

    async fn accept(&mut self) -> io::Result<(Narrow, SocketAddr)> {
        match self.0.take() {
            Some(socket) => Ok((socket, SocketAddr::from(([127, 0, 0, 1], 40_000)))),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test]
async fn what_a_message_came_to_is_told_though_its_client_does_not_read_the_answer() {
    let (near, far) = duplex(ROOM);
    let mut server = listening(config(TlsMode::Off), |config, parts| {
        Listeners::on(vec![(Once(Some(Narrow(far))), &config.listeners[0])], parts)
    });
    server.table.greeting.add_permits(1);
    let mut client = Client::over(near);
    assert!(client.reply().await.starts_with("220 "));
    assert!(client.command("EHLO client.example").await.starts_with("250"));
    client.begin_data("ann@example.com").await;
    client.send(b"hello\r\n.\r\n").await;
    server.asked("said").await;
    assert!(client.reply().await.starts_with("250"));
}
