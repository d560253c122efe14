//! The other side of a connection, in the clear or encrypted. Whatever it waits for comes within [`PATIENCE`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Far beyond what anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    /// What the server showed in the handshake.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Client {
    /// Connected, the greeting not read.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)), certificate: None }
    }

    /// Greeted, and EHLO said.
    pub async fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        assert!(client.reply().await.starts_with("220 "));
        assert!(client.command("EHLO client.example").await.starts_with("250"));
        client
    }

    /// A whole reply, its lines joined by `\n`; empty where the connection has ended.
    pub async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("a reply in time");
            if read.unwrap_or(0) == 0 {
                return reply;
            }
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply.trim_end().replace("\r\n", "\n");
            }
        }
    }

    /// The server has closed, and said nothing more.
    pub async fn is_closed(&mut self) -> bool {
        self.reply().await.is_empty()
    }

    pub async fn send(&mut self, octets: &[u8]) {
        self.try_send(octets).await.unwrap();
    }

    pub async fn try_send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        let stream = self.stream.get_mut();
        timeout(PATIENCE, stream.write_all(octets)).await.expect("octets to be taken")?;
        stream.flush().await
    }

    pub async fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// MAIL, RCPT and DATA: up to 354.
    pub async fn begin_data(&mut self, recipient: &str) {
        assert!(self.command("MAIL FROM:<ann@example.org>").await.starts_with("250"));
        assert!(self.command(&format!("RCPT TO:<{recipient}>")).await.starts_with("250"));
        assert!(self.command("DATA").await.starts_with("354"));
    }

    /// A whole transaction; the last reply.
    pub async fn message(&mut self, recipient: &str, body: &str) -> String {
        self.begin_data(recipient).await;
        self.command(&format!("{body}\r\n.")).await
    }

    /// STARTTLS, with something behind it in the same segment.
    pub async fn start_tls(mut self, name: &str, root: &CertificateDer<'static>, behind: &str) -> Self {
        self.send(format!("STARTTLS\r\n{behind}").as_bytes()).await;
        assert!(self.reply().await.starts_with("220 "));
        assert!(self.stream.buffer().is_empty());
        Self::encrypted(self.stream.into_inner(), name, root).await.unwrap()
    }

    /// TLS from the first octet.
    pub async fn implicit(address: SocketAddr, name: &str, root: &CertificateDer<'static>) -> std::io::Result<Self> {
        Self::encrypted(Box::new(TcpStream::connect(address).await?), name, root).await
    }

    async fn encrypted(stream: Box<dyn Stream>, name: &str, root: &CertificateDer<'static>) -> std::io::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = timeout(PATIENCE, connected).await.expect("a handshake in time")?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
        Ok(Self { certificate, ..Self::over(stream) })
    }
}
