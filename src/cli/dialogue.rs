//! One message handed to a server by mail-send's client, every command and answer told as it comes.
//!
//! By BDAT where the server offers CHUNKING: what arrives is then what the file has, octet for octet.

use std::net::SocketAddr;
use std::time::Duration;

use mail_send::SmtpClient;
use smtp_proto::Response;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::Failure;
use super::args::SendTls;
use crate::mail::{Address, Reply};

/// What is handed over.
#[derive(Debug, Clone)]
pub struct Letter {
    /// `None`: the null sender.
    pub sender: Option<Address>,
    pub recipients: Vec<Address>,
    /// With CRLF line ends.
    pub octets: Vec<u8>,
}

/// To whom, and how.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: SendTls,
    pub timeout: Duration,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// One for each recipient, in order.
    pub recipients: Vec<Reply>,
    /// The answer to the message; `None` where it was never sent, since nobody was to have it.
    pub message: Option<Reply>,
}

impl Handed {
    /// Every recipient and the message were accepted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.recipients.iter().all(Reply::is_positive) && self.message.as_ref().is_some_and(Reply::is_positive)
    }
}

/// What was said and what was answered.
pub type Told<'a> = &'a mut (dyn FnMut(&str, &Reply) -> Result<(), Failure> + Send);

/// Hands it over. A refusal is no error: it stands in what is returned.
pub async fn hand_over(peer: &Peer, letter: &Letter, told: Told<'_>) -> Result<Handed, Failure> {
    let mut client = SmtpClient::connect(peer.address, peer.timeout).await.map_err(|error| trouble(peer, &error))?;
    match peer.tls {
        SendTls::Off => {
            greeting(peer, &mut client, told).await?;
            Exchange { peer, client, told }.run(letter).await
        }
        SendTls::Starttls => {
            greeting(peer, &mut client, told).await?;
            let mut exchange = Exchange { peer, client, told };
            exchange.say("EHLO localhost").await?;
            if !exchange.say("STARTTLS").await?.is_positive() {
                return Err(Failure::Said);
            }
            let Exchange { client, told, .. } = exchange;
            let client = client.into_tls(&connector()?, &peer.address.ip().to_string()).await;
            Exchange { peer, client: client.map_err(|error| trouble(peer, &error))?, told }.run(letter).await
        }
        SendTls::Implicit => {
            let client = client.into_tls(&connector()?, &peer.address.ip().to_string()).await;
            let mut client = client.map_err(|error| trouble(peer, &error))?;
            greeting(peer, &mut client, told).await?;
            Exchange { peer, client, told }.run(letter).await
        }
    }
}

async fn greeting<S>(peer: &Peer, client: &mut SmtpClient<S>, told: Told<'_>) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let read = tokio::time::timeout(peer.timeout, client.read()).await;
    let answer = read.map_err(|_elapsed| trouble(peer, &mail_send::Error::Timeout))?;
    let reply = reply(answer.map_err(|error| trouble(peer, &error))?);
    told("", &reply)?;
    if reply.is_positive() { Ok(()) } else { Err(Failure::Said) }
}

struct Exchange<'a, S: AsyncRead + AsyncWrite> {
    peer: &'a Peer,
    client: SmtpClient<S>,
    told: Told<'a>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<'_, S> {
    async fn run(mut self, letter: &Letter) -> Result<Handed, Failure> {
        let ehlo = self.say("EHLO localhost").await?;
        let offered = |keyword: &str| {
            ehlo.text.lines().any(|line| line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(keyword)))
        };
        let mut handed = Handed { recipients: Vec::new(), message: None };
        let sender = letter.sender.as_ref().map_or("", Address::as_str);
        let mut mail = format!("MAIL FROM:<{sender}>");
        if offered("8BITMIME") && !letter.octets.is_ascii() {
            mail.push_str(" BODY=8BITMIME");
        }
        let addresses_ascii = letter.sender.iter().chain(&letter.recipients).all(Address::is_ascii);
        if offered("SMTPUTF8") && !addresses_ascii {
            mail.push_str(" SMTPUTF8");
        }
        let answer = self.say(&mail).await?;
        if answer.is_positive() {
            for recipient in &letter.recipients {
                handed.recipients.push(self.say(&format!("RCPT TO:<{recipient}>")).await?);
            }
            if handed.recipients.iter().any(Reply::is_positive) {
                handed.message = Some(self.send_octets(&letter.octets, offered("CHUNKING")).await?);
            }
        } else {
            handed.message = Some(answer);
        }
        // The message is dealt with: a server that hangs up without an answer to QUIT takes nothing back.
        let _farewell = self.say("QUIT").await;
        Ok(handed)
    }

    async fn say(&mut self, command: &str) -> Result<Reply, Failure> {
        let answer = self.client.cmd(format!("{command}\r\n")).await;
        let reply = reply(answer.map_err(|error| trouble(self.peer, &error))?);
        (self.told)(command, &reply)?;
        Ok(reply)
    }

    async fn send_octets(&mut self, octets: &[u8], chunking: bool) -> Result<Reply, Failure> {
        let (command, sent) = if chunking {
            (format!("BDAT {} LAST", octets.len()), self.client.bdat(octets).await)
        } else {
            ("DATA".to_owned(), self.client.data(dotted(octets)).await)
        };
        let answer = match sent {
            Ok(answer) | Err(mail_send::Error::UnexpectedReply(answer)) => answer,
            Err(error) => return Err(trouble(self.peer, &error)),
        };
        let reply = reply(answer);
        (self.told)(&command, &reply)?;
        Ok(reply)
    }
}

/// For mail-send's DATA: it leaves a dot at the very start single, and ends the last line once more.
fn dotted(octets: &[u8]) -> Vec<u8> {
    let octets = octets.strip_suffix(b"\r\n").unwrap_or(octets);
    let mut out = Vec::with_capacity(octets.len() + 1);
    if octets.first() == Some(&b'.') {
        out.push(b'.');
    }
    out.extend_from_slice(octets);
    out
}

/// Every line end as CRLF: files have them as the machine does, mail as RFC 5321 §2.3.8 does.
#[must_use]
pub fn with_crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    let mut previous = 0;
    for &octet in octets {
        if octet == b'\n' && previous != b'\r' {
            out.push(b'\r');
        }
        out.push(octet);
        previous = octet;
    }
    out
}

fn reply(response: Response<String>) -> Reply {
    let Response { code, esc: [class, subject, detail], message } = response;
    let status = (class != 0).then_some((u16::from(subject), u16::from(detail)));
    Reply { code, status, text: message.trim_end().to_owned().into() }
}

fn trouble(peer: &Peer, error: &mail_send::Error) -> Failure {
    let said = match error {
        mail_send::Error::Io(error) => error.to_string(),
        mail_send::Error::Timeout => format!("no answer within {} s", peer.timeout.as_secs()),
        mail_send::Error::UnparseableReply => "it hung up, or what it answered is no SMTP".to_owned(),
        other => other.to_string(),
    };
    Failure::Failed(format!("{}: {said}", peer.address))
}

/// TLS without a look at the certificate: one's own server on an address has none that would pass.
fn connector() -> Result<TlsConnector, Failure> {
    mail_send::smtp::tls::build_tls_connector(true).map_err(Failure::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_crlf_and_stay_so() {
        assert_eq!(with_crlf(b"a\nb\r\nc\n\n"), b"a\r\nb\r\nc\r\n\r\n");
    }

    #[test]
    fn a_dot_at_the_start_is_doubled_and_the_last_line_end_left_to_data() {
        assert_eq!(dotted(b".a\r\n"), b"..a");
        assert_eq!(dotted(b"a\r\n\r\n"), b"a\r\n");
    }
}
