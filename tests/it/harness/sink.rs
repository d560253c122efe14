//! A next hop: an SMTP (or LMTP) server that keeps what it is sent and answers as scripted.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use super::watched::Watched;
use super::{Certificate, DEADLINE};

/// One message that was accepted.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The argument of MAIL: `<ann@example.org> BODY=8BITMIME`.
    pub from: String,
    /// The arguments of each RCPT that was accepted.
    pub to: Vec<String>,
    /// Dots unstuffed, without the end.
    pub data: Vec<u8>,
    pub tls: bool,
}

impl Mail {
    /// The addresses of the recipients.
    pub fn recipients(&self) -> Vec<&str> {
        self.to.iter().map(|to| to.split('>').next().unwrap_or_default().trim_start_matches('<')).collect()
    }

    /// The data after the header fields that we prepended: from where `original` begins.
    #[track_caller]
    pub fn prepended_to(&self, original: &[u8]) -> &[u8] {
        let head = self.data.len().checked_sub(original.len()).unwrap_or_else(|| panic!("shorter: {:?}", self.text()));
        assert_eq!(
            String::from_utf8_lossy(&self.data[head..]),
            String::from_utf8_lossy(original),
            "not the octets that were sent"
        );
        assert_eq!(&self.data[head..], original, "not the octets that were sent");
        &self.data[..head]
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

#[derive(Debug, Default)]
struct State {
    mails: Vec<Mail>,
    commands: Vec<String>,
    /// For commands that begin so (`.` for the end of data), the answers that come before the usual ones.
    script: Vec<(String, VecDeque<String>)>,
    always: Vec<(String, String)>,
    connections: usize,
    /// Connections that are being served.
    serving: usize,
    /// Each message is answered with its number.
    numbered: bool,
    open: Vec<TcpStream>,
    held: bool,
    stopped: bool,
}

#[derive(Debug)]
pub struct SmtpSink {
    pub address: SocketAddr,
    state: Arc<Watched<State>>,
}

#[derive(Debug, Clone, Default)]
struct Kind {
    tls: Option<Arc<rustls::ServerConfig>>,
    lmtp: bool,
    extensions: Vec<&'static str>,
}

const OK: &str = "250 2.0.0 ok";
const EXTENSIONS: [&str; 4] = ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];

impl SmtpSink {
    pub fn start() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// At an address of loopback's choosing: several MX hosts with one port.
    pub fn at(address: SocketAddr) -> Self {
        Self::run(address, Kind { extensions: EXTENSIONS.to_vec(), ..Kind::default() })
    }

    /// One that offers these extensions and no others.
    pub fn offering(extensions: &[&'static str]) -> Self {
        Self::run((Ipv4Addr::LOCALHOST, 0).into(), Kind { extensions: extensions.to_vec(), ..Kind::default() })
    }

    /// One that offers STARTTLS.
    pub fn with_tls(certificate: &Certificate) -> Self {
        let kind = Kind { tls: Some(certificate.server_config()), extensions: EXTENSIONS.to_vec(), ..Kind::default() };
        Self::run((Ipv4Addr::LOCALHOST, 0).into(), kind)
    }

    pub fn lmtp() -> Self {
        let kind = Kind { lmtp: true, extensions: EXTENSIONS.to_vec(), ..Kind::default() };
        Self::run((Ipv4Addr::LOCALHOST, 0).into(), kind)
    }

    fn run(address: SocketAddr, kind: Kind) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Watched::new(State::default()));
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                served.change(|state| {
                    state.open.extend(stream.try_clone());
                    state.connections += 1;
                    state.serving += 1;
                });
                if served.lock().stopped {
                    return;
                }
                let (state, kind) = (Arc::clone(&served), kind.clone());
                std::thread::spawn(move || {
                    let end = Arc::clone(&state);
                    Connection { tls: false, state, kind }.serve(stream);
                    end.change(|state| state.serving -= 1);
                });
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// The next answers to a command that begins with `prefix` (in capitals; `.` for the end of data), before the usual.
    pub fn script<const N: usize>(&self, prefix: &str, answers: [&str; N]) -> &Self {
        self.state.change(|state| state.script.push((prefix.to_owned(), answers.map(str::to_owned).into())));
        self
    }

    /// The answer to every command that begins with `prefix`.
    pub fn always(&self, prefix: &str, answer: &str) -> &Self {
        self.state.change(|state| state.always.push((prefix.to_owned(), answer.to_owned())));
        self
    }

    /// Forgets what [`SmtpSink::always`] was told.
    pub fn as_usual(&self) {
        self.state.change(|state| state.always.clear());
    }

    /// From here on the end of data gets no answer, until [`SmtpSink::release`].
    pub fn hold(&self) {
        self.state.change(|state| state.held = true);
    }

    pub fn release(&self) {
        self.state.change(|state| state.held = false);
    }

    /// From here on each message is answered with a number of its own.
    pub fn number(&self) {
        self.state.change(|state| state.numbered = true);
    }

    /// Waits until nobody is connected, so that all is told of which it has said 250.
    #[track_caller]
    pub fn idle(&self) {
        assert!(self.state.wait(|state| (state.serving == 0).then_some(())).is_some(), "somebody stays connected");
    }

    /// What `visit` makes of each message.
    pub fn each<R>(&self, visit: impl FnMut(&Mail) -> R) -> Vec<R> {
        self.state.lock().mails.iter().map(visit).collect()
    }

    /// Waits for `count` messages.
    #[track_caller]
    pub fn wait(&self, count: usize) -> Vec<Mail> {
        let found = self.state.wait(|state| (state.mails.len() >= count).then(|| state.mails.clone()));
        found.unwrap_or_else(|| {
            panic!("{count} messages expected, {} came; commands: {:#?}", self.mails().len(), self.commands())
        })
    }

    /// Waits for one message alone.
    #[track_caller]
    pub fn wait_one(&self) -> Mail {
        let mut mails = self.wait(1);
        assert_eq!(mails.len(), 1, "{mails:#?}");
        mails.remove(0)
    }

    /// Waits until a command was read that begins with `prefix`.
    #[track_caller]
    pub fn wait_command(&self, prefix: &str) {
        let found = self.state.wait(|state| state.commands.iter().any(|line| line.starts_with(prefix)).then_some(()));
        found.unwrap_or_else(|| panic!("{prefix} never came: {:#?}", self.commands()));
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.lock().mails.clone()
    }

    /// All command lines, of all connections; `.` for an end of data.
    pub fn commands(&self) -> Vec<String> {
        self.state.lock().commands.clone()
    }

    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        self.state.change(|state| {
            state.stopped = true;
            state.held = false;
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        // Wakes the thread that accepts, so that the port is closed.
        let _ = TcpStream::connect(self.address);
    }
}

struct Connection {
    tls: bool,
    state: Arc<Watched<State>>,
    kind: Kind,
}

/// What a session goes on with.
enum Next {
    Closed,
    StartTls,
}

impl Connection {
    fn serve(mut self, socket: TcpStream) {
        let _ = socket.set_read_timeout(Some(DEADLINE * 4));
        let _ = socket.set_nodelay(true);
        let Ok(clone) = socket.try_clone() else { return };
        let greeting = self.answer("CONNECT", || "220 sink.example.net ESMTP".to_owned());
        let mut reader = BufReader::new(clone);
        if say(reader.get_mut(), &greeting).is_none() || !greeting.starts_with('2') {
            return;
        }
        if let Some(Next::StartTls) = self.converse(&mut reader) {
            let Some(config) = self.kind.tls.take() else {
                // Offered, and not meant.
                let _ = socket.shutdown(Shutdown::Both);
                return;
            };
            let Ok(session) = rustls::ServerConnection::new(config) else { return };
            self.tls = true;
            self.converse(&mut BufReader::new(rustls::StreamOwned::new(session, socket)));
        }
    }

    fn converse<S: Read + Write>(&mut self, reader: &mut BufReader<S>) -> Option<Next> {
        let mut mail: Option<Mail> = None;
        loop {
            let line = String::from_utf8_lossy(&read_line(reader)?).into_owned();
            self.state.change(|state| state.commands.push(line.clone()));
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let recipients = mail.as_ref().map(|mail| mail.to.len());
            let reply = self.answer(&line, || self.usual(&verb, recipients));
            let good = reply.starts_with('2') || reply.starts_with('3');
            say(reader.get_mut(), &reply)?;
            if reply.starts_with("421") {
                return Some(Next::Closed);
            }
            match verb.as_str() {
                "MAIL" if good => mail = Some(self.begun(&line)),
                "RCPT" if good => mail.as_mut()?.to.push(argument(&line)),
                "DATA" if good => {
                    let mut mail = mail.take()?;
                    mail.data = read_data(reader)?;
                    self.end(reader.get_mut(), mail)?;
                }
                "RSET" | "EHLO" | "HELO" | "LHLO" => mail = None,
                "STARTTLS" if good => return Some(Next::StartTls),
                "QUIT" => return Some(Next::Closed),
                _ => {}
            }
        }
    }

    fn begun(&self, line: &str) -> Mail {
        let (from, tls) = (argument(line), self.tls);
        Mail { from, to: Vec::new(), data: Vec::new(), tls }
    }

    /// The end of data: one answer, or over LMTP one for each recipient (RFC 2033 §4.2).
    fn end(&self, stream: &mut impl Write, mut mail: Mail) -> Option<()> {
        self.state.change(|state| state.commands.push(".".to_owned()));
        self.state.wait(|state| (!state.held).then_some(()))?;
        let answers: Vec<String> = if self.kind.lmtp {
            mail.to.iter().map(|to| self.answer(&format!(".{to}"), || OK.to_owned())).collect()
        } else {
            let state = self.state.lock();
            let usual = if state.numbered { format!("250 2.0.0 kept {}.", state.mails.len()) } else { OK.to_owned() };
            drop(state);
            vec![self.answer(".", || usual)]
        };
        if self.kind.lmtp {
            let mut answered = answers.iter();
            mail.to.retain(|_| answered.next().is_some_and(|answer| answer.starts_with('2')));
        }
        if answers.iter().any(|answer| answer.starts_with('2')) {
            self.state.change(|state| state.mails.push(mail));
        }
        answers.iter().try_for_each(|answer| say(stream, answer))
    }

    fn answer(&self, line: &str, usual: impl FnOnce() -> String) -> String {
        let mut state = self.state.lock();
        let begins = |prefix: &str| {
            line.len() >= prefix.len()
                && line.is_char_boundary(prefix.len())
                && line[..prefix.len()].eq_ignore_ascii_case(prefix)
        };
        if let Some((_, answers)) = state.script.iter_mut().find(|(prefix, left)| begins(prefix) && !left.is_empty()) {
            return answers.pop_front().unwrap_or_default();
        }
        let always = state.always.iter().find(|(prefix, _)| begins(prefix)).map(|(_, answer)| answer.clone());
        always.unwrap_or_else(usual)
    }

    fn usual(&self, verb: &str, recipients: Option<usize>) -> String {
        match verb {
            "EHLO" | "LHLO" => {
                let starttls = (self.kind.tls.is_some() && !self.tls).then_some("STARTTLS");
                let name = std::iter::once("sink.example.net");
                let offers: Vec<&str> = name.chain(self.kind.extensions.iter().copied()).chain(starttls).collect();
                let (last, first) = offers.split_last().unwrap();
                let more: Vec<String> = first.iter().map(|line| format!("250-{line}\r\n")).collect();
                format!("{}250 {last}", more.concat())
            }
            "HELO" => "250 sink.example.net".to_owned(),
            // Commands that were pipelined after a refused one (RFC 2920 §3.1).
            "RCPT" if recipients.is_none() => "503 5.5.1 MAIL first".to_owned(),
            "DATA" if recipients.is_none_or(|count| count == 0) => "503 5.5.1 RCPT first".to_owned(),
            "DATA" => "354 go on".to_owned(),
            "QUIT" => "221 2.0.0 bye".to_owned(),
            "STARTTLS" => "220 2.0.0 go on".to_owned(),
            "MAIL" | "RCPT" | "RSET" | "NOOP" => OK.to_owned(),
            _ => "500 5.5.1 what?".to_owned(),
        }
    }
}

fn argument(line: &str) -> String {
    line.split_once(':').map_or(String::new(), |(_, rest)| rest.trim().to_owned())
}

fn say(stream: &mut impl Write, reply: &str) -> Option<()> {
    stream.write_all(format!("{reply}\r\n").as_bytes()).ok()?;
    stream.flush().ok()
}

fn read_line(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    if !line.ends_with(b"\r\n") {
        return None;
    }
    line.truncate(line.len() - 2);
    Some(line)
}

/// Up to CRLF `.` CRLF, octet by octet as sent: a bare LF inside a line stays what it is.
fn read_data(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let before = line.len();
            reader.read_until(b'\n', &mut line).ok()?;
            if line.len() == before {
                return None;
            }
        }
        if line == b".\r\n" {
            return Some(data);
        }
        data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// What the tests rely on: the client and the sink carry every octet, in the clear and over TLS, and the script holds.
#[test]
fn client_and_sink_agree_octet_for_octet() {
    let certificate = Certificate::for_name("sink.example.net");
    let sink = SmtpSink::with_tls(&certificate);
    sink.script("RCPT TO:<busy@", ["450 4.2.1 busy"]);
    let message = b"Subject: x\r\n\r\n.dot\r\n..\r\nbare \n and \r and \xff\r\n";
    let mut client = super::Client::greeted(sink.address);
    client.send("ann@example.org", &["support@example.com"], message).expect(250);
    client.start_tls(&certificate, "sink.example.net");
    client.command("MAIL FROM:<ann@example.org>").expect(250);
    client.command("RCPT TO:<busy@example.com>").expect_status(450, "4.2.1");
    client.command("RCPT TO:<busy@example.com>").expect(250);
    client.data(message).expect(250);
    let mails = sink.wait(2);
    assert_eq!((mails[0].tls, mails[1].tls), (false, true));
    for mail in mails {
        assert!(mail.prepended_to(message).is_empty());
    }
}
