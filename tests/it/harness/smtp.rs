//! A client that says what it is told to and reads replies, over TCP or TLS.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{Certificate, DEADLINE};

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// The lines without code and separator.
    pub lines: Vec<String>,
}

impl Reply {
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The extended status code: `5.7.1`.
    pub fn status(&self) -> &str {
        self.lines.first().and_then(|line| line.split(' ').next()).unwrap_or_default()
    }

    #[track_caller]
    pub fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    #[track_caller]
    pub fn expect_status(self, code: u16, status: &str) -> Self {
        assert_eq!((self.code, self.status()), (code, status), "{self:?}");
        self
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A session with a server.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    socket: TcpStream,
    /// What EHLO offered.
    pub offers: Vec<String>,
}

impl Client {
    /// Connects and nothing else.
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        socket.set_nodelay(true)?;
        let stream: Box<dyn Stream> = Box::new(socket.try_clone()?);
        Ok(Self { stream: BufReader::new(stream), socket, offers: Vec::new() })
    }

    /// Connects, reads the greeting, says EHLO.
    #[track_caller]
    pub fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).unwrap();
        client.reply().expect(220);
        client.ehlo();
        client
    }

    /// Connects with TLS from the first octet, reads the greeting, says EHLO.
    #[track_caller]
    pub fn greeted_in_tls(address: SocketAddr, certificate: &Certificate, name: &str) -> Self {
        let mut client = Self::connect(address).unwrap();
        client.shake_hands(certificate, name);
        client.reply().expect(220);
        client.ehlo();
        client
    }

    #[track_caller]
    pub fn ehlo(&mut self) {
        let reply = self.command("EHLO client.example.org").expect(250);
        self.offers = reply.lines.into_iter().skip(1).collect();
    }

    /// STARTTLS, the handshake, and EHLO again.
    #[track_caller]
    pub fn start_tls(&mut self, certificate: &Certificate, name: &str) {
        self.command("STARTTLS").expect(220);
        self.shake_hands(certificate, name);
        self.ehlo();
    }

    #[track_caller]
    pub fn shake_hands(&mut self, certificate: &Certificate, name: &str) {
        self.try_shake_hands(certificate, name).unwrap();
    }

    /// Fails where the server shows another certificate.
    pub fn try_shake_hands(&mut self, certificate: &Certificate, name: &str) -> std::io::Result<()> {
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut session = rustls::ClientConnection::new(certificate.client_config(), name).unwrap();
        let mut socket = self.socket.try_clone()?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        let stream: Box<dyn Stream> = Box::new(rustls::StreamOwned::new(session, socket));
        self.stream = BufReader::new(stream);
        Ok(())
    }

    /// Sends octets as they are.
    pub fn raw(&mut self, octets: &[u8]) {
        self.try_raw(octets).unwrap();
    }

    pub fn try_raw(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(octets)?;
        self.stream.get_mut().flush()
    }

    /// Reads one reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().unwrap_or_else(|error| panic!("no reply: {error}"))
    }

    pub fn try_reply(&mut self) -> std::io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            self.stream.read_until(b'\n', &mut line)?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let (Some(code), Some(line)) = (code, line.strip_suffix("\r\n")) else {
                let kind = std::io::ErrorKind::UnexpectedEof;
                return Err(std::io::Error::new(kind, format!("{line:?} after {lines:?}")));
            };
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    #[track_caller]
    pub fn command(&mut self, line: &str) -> Reply {
        self.raw(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// MAIL and RCPTs, all of which must be accepted.
    #[track_caller]
    pub fn envelope(&mut self, from: &str, to: &[&str]) {
        self.command(&format!("MAIL FROM:<{from}>")).expect(250);
        for to in to {
            self.command(&format!("RCPT TO:<{to}>")).expect(250);
        }
    }

    /// DATA with dots stuffed and the end said; what was answered to it.
    #[track_caller]
    pub fn data(&mut self, message: &[u8]) -> Reply {
        self.command("DATA").expect(354);
        self.raw(&stuffed(message));
        self.reply()
    }

    /// A whole transaction; the answer to its end.
    #[track_caller]
    pub fn send(&mut self, from: &str, to: &[&str], message: &[u8]) -> Reply {
        self.envelope(from, to);
        self.data(message)
    }

    /// Whether the server has closed the connection: nothing more comes.
    pub fn closed(&mut self) -> bool {
        let mut octet = [0];
        matches!(self.stream.read(&mut octet), Ok(0) | Err(_))
    }
}

/// As DATA carries it: dots stuffed, a final CRLF where there's none, and the end.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    let mut line_start = true;
    for &octet in message {
        if line_start && octet == b'.' {
            out.push(b'.');
        }
        out.push(octet);
        line_start = octet == b'\n';
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
