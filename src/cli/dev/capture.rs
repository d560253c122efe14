//! The capture sink: an SMTP server and an HTTP endpoint on loopback that say yes to everything and keep it as files.
//!
//! It stands in for every next hop and every webhook while a worker is tried out. Bounded like any server: connections,
//! lines, messages, time. It never speaks to anything but this process's own deliveries.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::admin::http::{self, Bounds, CONTROL};
use crate::cli::Failure;
use crate::cli::print::{BOLD, DIM, NOTE, Painted, plain};

/// Octets of a command line, of a message or of a call's body.
const LINE: u64 = 4096;
const LARGEST: usize = 64 << 20;
/// Sessions at once.
const SESSIONS: usize = 64;
/// How long a session may say nothing.
const IDLE: Duration = Duration::from_mins(5);
/// What waits to be shown; a delivery waits where the screen is slower.
const WAITING: usize = 256;

/// What was caught.
#[derive(Debug)]
pub enum Caught {
    Mail { sender: String, recipients: Vec<String>, octets: Bytes, file: PathBuf },
    Call { method: String, url: String, signed: bool, body: Bytes, file: PathBuf },
}

/// On one line, for the screen.
impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail { sender, recipients, octets, file } => {
                let to = plain(&recipients.join(", ")).into_owned();
                let kept = Painted(DIM, file.display());
                let from = plain(sender);
                write!(
                    f,
                    "{} mail <{from}> → {}, {} bytes  {kept}",
                    Painted(NOTE, "captured"),
                    Painted(BOLD, to),
                    octets.len()
                )
            }
            Self::Call { method, url, signed, body, file } => {
                let signed = if *signed { "signed" } else { "unsigned" };
                let kept = Painted(DIM, file.display());
                let url = Painted(BOLD, plain(url));
                write!(
                    f,
                    "{} {} {url}, {signed}, {} bytes  {kept}",
                    Painted(NOTE, "captured"),
                    plain(method),
                    body.len()
                )
            }
        }
    }
}

/// The running sink; dropped, it is gone.
pub struct Sink {
    pub smtp: SocketAddr,
    pub http: url::Url,
    pub caught: mpsc::Receiver<Caught>,
    _servers: JoinSet<()>,
}

/// What both servers share.
struct Keeper {
    dir: PathBuf,
    number: AtomicU64,
    caught: mpsc::Sender<Caught>,
}

impl Sink {
    /// Listens on two free ports; keeps what it catches in `dir`.
    pub async fn start(dir: &Path) -> Result<Self, Failure> {
        tokio::fs::create_dir_all(dir).await?;
        let (sender, caught) = mpsc::channel(WAITING);
        let keeper = Arc::new(Keeper { dir: dir.to_owned(), number: AtomicU64::new(0), caught: sender });
        let smtp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let smtp_address = smtp.local_addr()?;
        let url = format!("http://{}/", http.local_addr()?).parse().map_err(Failure::failed)?;
        let mut servers = JoinSet::new();
        servers.spawn(accept(smtp, Arc::clone(&keeper)));
        let bounds = Bounds {
            connections: SESSIONS,
            body: LARGEST,
            head_timeout: IDLE,
            answer_timeout: IDLE,
            write_timeout: IDLE,
            ..CONTROL
        };
        let router = Router::new().fallback(call).with_state(keeper);
        servers.spawn(http::serve(http, router, bounds, std::future::pending()));
        Ok(Self { smtp: smtp_address, http: url, caught, _servers: servers })
    }
}

impl Keeper {
    /// A new file; its name sorts by the order of arrival.
    async fn keep(&self, extension: &str, octets: &[u8]) -> std::io::Result<PathBuf> {
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let file = self.dir.join(format!("{number:04}.{extension}"));
        tokio::fs::write(&file, octets).await?;
        Ok(file)
    }

    async fn tell(&self, caught: Caught) {
        // Nobody looks any more once the command is ending.
        let _nobody_looks = self.caught.send(caught).await;
    }
}

async fn call(
    State(keeper): State<Arc<Keeper>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_form = field("content-type").is_some_and(|kind| kind.starts_with("multipart/"));
    let Ok(file) = keeper.keep(if is_form { "form" } else { "json" }, &body).await else {
        return (StatusCode::INSUFFICIENT_STORAGE, "not captured\n");
    };
    let url = field("x-original-url").unwrap_or_else(|| uri.to_string());
    let signed = headers.contains_key("webhook-signature");
    keeper.tell(Caught::Call { method: method.to_string(), url, signed, body, file }).await;
    (StatusCode::OK, "captured\n")
}

async fn accept(listener: TcpListener, keeper: Arc<Keeper>) {
    let slots = Arc::new(Semaphore::new(SESSIONS));
    let mut sessions = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        // One that went before it was accepted is no concern of the next.
        let Ok((stream, _peer)) = listener.accept().await else { continue };
        // Without it an answer waits for the client's acknowledgement of the one before.
        let _slower_without = stream.set_nodelay(true);
        let keeper = Arc::clone(&keeper);
        sessions.spawn(async move {
            // How a session of our own dispatcher's ends shows in its attempt.
            let _ended = session(stream, &keeper).await;
            drop(slot);
        });
        while sessions.try_join_next().is_some() {}
    }
}

async fn session(stream: TcpStream, keeper: &Keeper) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let (mut sender, mut recipients) = (String::new(), Vec::new());
    say(&mut write, "220 capture ESMTP").await?;
    while let Some(line) = line(&mut read).await? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-capture\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES",
            "MAIL" => {
                sender = path(&line);
                recipients.clear();
                "250 2.1.0 captured"
            }
            "RCPT" => {
                recipients.push(path(&line));
                "250 2.1.5 captured"
            }
            "DATA" if recipients.is_empty() => "503 5.5.1 RCPT first",
            "DATA" => {
                say(&mut write, "354 go ahead").await?;
                let octets = data(&mut read).await?;
                let file = keeper.keep("eml", &octets).await?;
                let recipients = std::mem::take(&mut recipients);
                keeper.tell(Caught::Mail { sender: sender.clone(), recipients, octets, file }).await;
                "250 2.0.0 captured"
            }
            "QUIT" => return say(&mut write, "221 2.0.0 bye").await,
            "HELO" | "RSET" | "NOOP" => "250 2.0.0 captured",
            _ => "502 5.5.1 not here",
        };
        say(&mut write, answer).await?;
    }
    Ok(())
}

async fn say(write: &mut (impl AsyncWrite + Unpin), line: &str) -> std::io::Result<()> {
    write.write_all(format!("{line}\r\n").as_bytes()).await
}

/// A command line without its end; `None` when the peer has gone or says nothing that ends.
async fn line(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut octets = Vec::new();
    let taken = tokio::time::timeout(IDLE, read.take(LINE).read_until(b'\n', &mut octets)).await;
    let whole = matches!(taken, Ok(Ok(_))) && octets.ends_with(b"\n");
    Ok(whole.then(|| String::from_utf8_lossy(&octets).trim_end().to_owned()))
}

/// What stands between the angle brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(path, _)| path.to_owned()).unwrap_or_default()
}

/// Up to the line that is a dot alone, dots unstuffed (RFC 5321 §4.5.2).
async fn data(read: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Bytes> {
    let mut octets = Vec::new();
    loop {
        let start = octets.len();
        let room = LARGEST.saturating_sub(start) as u64;
        let got = tokio::time::timeout(IDLE, (&mut *read).take(room).read_until(b'\n', &mut octets)).await;
        let got = got.map_err(|_elapsed| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match octets.get(start..) {
            Some(b".\r\n") => {
                octets.truncate(start);
                return Ok(octets.into());
            }
            Some([b'.', ..]) => {
                octets.remove(start);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_relayed_to_it_is_kept_as_it_was_sent() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::start(dir.path()).await.unwrap();
        let mut stream = TcpStream::connect(sink.smtp).await.unwrap();
        let sent =
            b"EHLO us\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n..dot\r\nend\r\n.\r\nQUIT\r\n";
        stream.write_all(sent).await.unwrap();
        let Some(Caught::Mail { sender, recipients, octets, file }) = sink.caught.recv().await else { panic!() };
        assert_eq!((sender.as_str(), recipients.as_slice()), ("a@example.org", &["b@example.net".to_owned()][..]));
        assert_eq!(octets, ".dot\r\nend\r\n");
        assert_eq!(std::fs::read(file).unwrap(), octets);
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("221 2.0.0 bye\r\n"), "{said}");
    }

    #[tokio::test]
    async fn a_line_that_never_ends_ends_the_session() {
        let dir = tempfile::tempdir().unwrap();
        let sink = Sink::start(dir.path()).await.unwrap();
        let mut stream = TcpStream::connect(sink.smtp).await.unwrap();
        stream.write_all(&vec![b'x'; 5000]).await.unwrap();
        let mut said = Vec::new();
        // Closed with octets unread, the end may show as a reset.
        let _ended = stream.read_to_end(&mut said).await;
        assert!(said.starts_with(b"220 ") && !said.windows(3).any(|part| part == b"502"), "{said:?}");
    }
}
