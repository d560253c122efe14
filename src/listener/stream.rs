//! A connection's stream, in the clear or encrypted, as one type; and how one is ended so that last words are read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use crate::mail::Reply;

/// For the last words to somebody who is being sent away, and to let them be read.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// What a peer may still send while it is being sent away.
const FAREWELL_OCTETS: usize = 64 * 1024;

/// The TLS state is large and lives behind a pointer, so that connections in the clear stay small.
pub(super) enum Stream<S> {
    Plain(S),
    Tls(Box<TlsStream<S>>),
}

impl<S: Socket> Stream<S> {
    /// Ends what has to be ended in words: TLS (RFC 8446 §6.1). A socket is closed with its last owner.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.shutdown().await,
        }
    }

    /// Whether the peer has sent octets that nobody has read. Never waits. `false` for TLS, whose own records can't be
    /// told from the peer's data.
    pub(super) fn has_octets(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.has_octets(),
            Self::Tls(_) => false,
        }
    }

    /// Until the peer has sent something or has gone, but for `time` at the most. At once for TLS.
    pub(super) async fn wait_for_octets(&self, time: Duration) {
        if let Self::Plain(tcp) = self {
            let _it_may_have_kept_silent = tokio::time::timeout(time, tcp.heard()).await;
        }
    }
}

impl<S: Socket> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl<S: Socket> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Last words, in a short time, to somebody who may not listen.
pub(super) async fn send_away(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), reply: &Reply) {
    let mut line = Vec::with_capacity(80);
    reply.write(&mut line);
    let said = async {
        stream.write_all(&line).await?;
        part(stream, &mut false).await
    };
    let _the_peer_may_have_gone = tokio::time::timeout(FAREWELL, said).await;
}

/// Closes our side and reads what is still coming: octets left unread would make the kernel reset the connection and
/// our last words be lost with it. `spoke`: something came.
pub(super) async fn part(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    spoke: &mut bool,
) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut octets = [0; 1024];
    let mut left = FAREWELL_OCTETS;
    while left > 0 {
        match stream.read(&mut octets).await? {
            0 => break,
            read => {
                *spoke = true;
                left = left.saturating_sub(read);
            }
        }
    }
    Ok(())
}
