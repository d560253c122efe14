//! A dialogue file's cases: read, run, and written again as they went.

use std::fmt::Write as _;
use std::time::Duration;

use mailworker::mail::{Address, BodyKind, Envelope, Notify, Reply};
use mailworker::smtp::{Action, Answer, Question, Session, Settings};

/// One case: a name, and its lines as they stand in the file (`text` is all of it, heading included).
pub struct Case {
    pub name: String,
    pub text: String,
}

/// What opens a case; what stands before the first one is a comment of the file, kept with it.
const HEADING: &str = "== ";

pub fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut preamble = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(HEADING) {
            let text = std::mem::take(&mut preamble);
            cases.push(Case { name: name.trim().to_owned(), text });
        }
        let text = cases.last_mut().map_or(&mut preamble, |case| &mut case.text);
        text.push_str(line);
        text.push('\n');
    }
    cases
}

struct Run<'a> {
    session: Session,
    transcript: String,
    inputs: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
    /// Octets pushed at once.
    size: usize,
    closed: bool,
}

impl Case {
    /// Plays the inputs to a session; the whole case as it went.
    pub fn run(&self, size: usize) -> String {
        let is_input = |line: &&str| !["S:", "S*", "? ", "> ", "* "].iter().any(|mark| line.starts_with(mark));
        let lines: Vec<&str> = self.text.lines().filter(is_input).collect();
        let mut settings = settings();
        for line in &lines {
            if let Some(words) = line.strip_prefix("@ settings ") {
                set(&mut settings, words);
            }
        }
        let shows_connect =
            lines.contains(&"@ connect") || lines.contains(&"@ early") || lines.contains(&"@ stop at once");
        let inputs = lines.into_iter().peekable();
        let session = Session::new(settings);
        let mut run = Run { session, transcript: String::new(), inputs, size, closed: false };
        if !shows_connect {
            run.silently("");
        }
        while let Some(line) = run.inputs.next() {
            run.echo(line);
            run.input(line);
        }
        shortened(&run.transcript)
    }
}

/// The same reply more than three times over becomes one line: `S*99: 250 2.0.0 Done`.
fn shortened(transcript: &str) -> String {
    let lines: Vec<&str> = transcript.lines().collect();
    lines.chunk_by(|one, other| one == other && one.starts_with("S: ")).fold(String::new(), |mut text, same| {
        match same {
            [line, _, _, _, ..] => {
                let _ = writeln!(text, "S*{}: {}", same.len(), &line[3..]);
            }
            _ => same.iter().for_each(|line| text.extend([line, "\n"])),
        }
        text
    })
}

impl Run<'_> {
    fn echo(&mut self, line: &str) {
        self.transcript.push_str(line);
        self.transcript.push('\n');
    }

    fn input(&mut self, line: &str) {
        if let Some(text) = line.strip_prefix("C:") {
            let mut octets = text.strip_prefix(' ').unwrap_or(text).as_bytes().to_vec();
            octets.extend_from_slice(b"\r\n");
            self.push(&octets);
        } else if let Some(text) = line.strip_prefix("C|") {
            self.push(&unescape(text.strip_prefix(' ').unwrap_or(text)));
        } else if line.starts_with("@ ") {
            self.directive(line);
        } else if line.starts_with('!') {
            panic!("an answer to nothing: {line}");
        }
    }

    /// What every case would begin with, done and not shown.
    fn silently(&mut self, octets: &str) {
        let shown = self.transcript.len();
        self.session.push(octets.as_bytes());
        let inputs = std::mem::replace(&mut self.inputs, Vec::new().into_iter().peekable());
        self.turn();
        self.inputs = inputs;
        assert!(!self.transcript[shown..].contains("S: 5"), "{}", self.transcript);
        self.transcript.truncate(shown);
    }

    fn push(&mut self, octets: &[u8]) {
        let size = self.size.min(octets.len().max(1));
        for piece in octets.chunks(size) {
            self.session.push(piece);
            self.turn();
        }
        if matches!(self.session.poll(), Action::StartTls) {
            self.transcript.push_str("* tls\n");
            self.session.tls_started();
            self.turn();
        }
    }

    fn directive(&mut self, line: &str) {
        match line {
            "@ timeout" => self.session.time_out("Nothing was heard for too long; closing"),
            "@ stop" | "@ stop at once" => self.session.shut_down(),
            "@ early" => {
                self.session.poll();
                self.session.early_talk();
            }
            "@ no certificate" => self.session.has_certificate(false),
            "@ connect" => {}
            "@ ehlo" => return self.silently("EHLO client.example.org\r\n"),
            "@ rcpt" => {
                return self.silently(concat!(
                    "EHLO client.example.org\r\n",
                    "MAIL FROM:<a@client.example.org>\r\n",
                    "RCPT TO:<b@example.com>\r\n"
                ));
            }
            _ => {
                let Some(words) = line.strip_prefix("@ refuse ") else {
                    assert!(line.starts_with("@ settings "), "no directive: {line}");
                    return;
                };
                self.session.refuse_body(reply(words));
            }
        }
        self.turn();
    }

    /// Polls until the session wants octets or is over.
    fn turn(&mut self) {
        loop {
            let action = self.session.poll();
            let mut said = Vec::new();
            self.session.take_output(&mut said);
            for line in String::from_utf8(said).expect("replies are text").lines() {
                let _ = writeln!(self.transcript, "S: {line}");
            }
            match action {
                // The handshake is the peer's next step, after all that it sent along in the clear.
                Action::Read { .. } | Action::StartTls => return,
                Action::Flush => {}
                Action::Close(why) => {
                    if !self.closed {
                        self.closed = true;
                        let _ = writeln!(self.transcript, "* close: {}", why.reason());
                    }
                    return;
                }
                Action::Ask(asked) => {
                    self.transcript.push_str(&question(&asked));
                    let answer = self.answer();
                    self.session.answer(answer);
                }
            }
        }
    }

    /// The next line where it is an answer, or else Accept.
    fn answer(&mut self) -> Answer {
        let Some(line) = self.inputs.next_if(|line| line.starts_with("! ")) else { return Answer::Accept };
        self.echo(line);
        let words = &line[2..];
        match words.split_once(' ') {
            Some(("redirect", address)) => Answer::Redirect(Address::parse(address).unwrap()),
            Some(("each", replies)) => {
                let mut replies: Vec<Reply> = replies.split(" | ").map(reply).collect();
                let last = replies.pop().expect("the last one is for all");
                Answer::Each { replies, last }
            }
            _ if words == "accept" => Answer::Accept,
            _ => Answer::Reply(reply(words)),
        }
    }
}

fn settings() -> Settings {
    Settings {
        hostname: "mx.example.com".into(),
        message_size: 26_214_400,
        recipients: 100,
        errors: 20,
        starttls: false,
        tls_required: false,
        repair_line_ends: false,
        command_timeout: Duration::from_mins(5),
        data_timeout: Duration::from_mins(3),
    }
}

fn set(settings: &mut Settings, words: &str) {
    for word in words.split(' ') {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "size" => settings.message_size = value.parse().unwrap(),
            "recipients" => settings.recipients = value.parse().unwrap(),
            "errors" => settings.errors = value.parse().unwrap(),
            "starttls" => settings.starttls = true,
            "required" => (settings.starttls, settings.tls_required) = (true, true),
            "repair" => settings.repair_line_ends = true,
            _ => panic!("no setting: {word}"),
        }
    }
}

/// `CODE X.Y.Z text` or `CODE text`.
fn reply(words: &str) -> Reply {
    let (code, text) = words.split_once(' ').expect("a code and a text");
    let status = text.split_once(' ').and_then(|(status, rest)| {
        let mut parts = status.split('.').map(str::parse::<u16>);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(_)), Some(Ok(subject)), Some(Ok(detail))) => Some(((subject, detail), rest)),
            _ => None,
        }
    });
    let (status, text) = status.map_or((None, text), |(status, rest)| (Some(status), rest));
    Reply { code: code.parse().unwrap(), status, text: text.to_owned().into() }
}

/// `?` and what is asked; for a message its octets too, as `>` lines.
pub fn question(question: &Question) -> String {
    match question {
        Question::Connect => "? connect\n".to_owned(),
        Question::Helo { name, esmtp } => format!("? {} {name}\n", if *esmtp { "ehlo" } else { "helo" }),
        Question::MailFrom { envelope, size } => {
            let declared = if *size > 0 { format!(" size={size}") } else { String::new() };
            format!("? mail {}{declared}\n", sender_of(envelope))
        }
        Question::RcptTo { recipient } => format!("? rcpt {}\n", recipient_of(recipient)),
        Question::Message(transaction) => {
            let mut text = format!("? message {}", sender_of(&transaction.envelope));
            for recipient in &transaction.envelope.recipients {
                let _ = write!(text, " to {}", recipient_of(recipient));
            }
            text.push_str(if transaction.prdr { " prdr\n" } else { "\n" });
            text.push_str(&body_of(&transaction.body));
            text
        }
    }
}

fn sender_of(envelope: &Envelope) -> String {
    let mut text = format!("<{}>", envelope.sender.as_ref().map_or("", Address::as_str));
    if envelope.body == BodyKind::EightBit {
        text.push_str(" 8bit");
    }
    if envelope.smtputf8 {
        text.push_str(" utf8");
    }
    if let Some(ret) = envelope.ret {
        let _ = write!(text, " ret={ret:?}");
    }
    if let Some(envid) = &envelope.envid {
        let _ = write!(text, " envid={envid}");
    }
    text
}

fn recipient_of(recipient: &mailworker::mail::Recipient) -> String {
    let mut text = format!("<{}>", recipient.address);
    if recipient.notify != Notify::default() {
        let Notify { success, failure, delay, .. } = recipient.notify;
        let wanted = [(success, "success"), (failure, "failure"), (delay, "delay")];
        let wanted: Vec<&str> = wanted.into_iter().filter_map(|(is, name)| is.then_some(name)).collect();
        let _ = write!(text, " notify={}", if wanted.is_empty() { "never".to_owned() } else { wanted.join(",") });
    }
    if let Some(orcpt) = &recipient.orcpt {
        let _ = write!(text, " orcpt={orcpt}");
    }
    if let Some(original) = &recipient.original {
        let _ = write!(text, " instead of <{original}>");
    }
    text
}

/// One `>` line for each line of the body, its end shown; a long body by its length alone.
fn body_of(body: &[u8]) -> String {
    if body.len() > 400 {
        return format!("> ({} octets, crc32 {:08x})\n", body.len(), crc32fast::hash(body));
    }
    body.split_inclusive(|octet| *octet == b'\n').fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "> {}", line.escape_ascii());
        text
    })
}

/// `\r \n \t \0 \\ \xHH`, and `\(text*N)` for the text N times over.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'\\' {
            out.push(octet);
            continue;
        }
        let (&kind, after) = rest.split_first().expect("something after a backslash");
        rest = after;
        match kind {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'x' => {
                out.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
            b'(' => {
                let end = rest.iter().position(|octet| *octet == b')').expect("a closing bracket");
                let inner = std::str::from_utf8(&rest[..end]).unwrap();
                let (repeated, times) = inner.rsplit_once('*').expect("text*N");
                out.extend(unescape(repeated).repeat(times.parse().unwrap()));
                rest = &rest[end + 1..];
            }
            other => out.push(other),
        }
    }
    out
}
