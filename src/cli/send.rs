//! `send`: hands a file to a running server and prints what it answers.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::access::Server;
use super::args::{Common, Send};
use super::dialogue::{self, Handed, Letter, Peer};
use super::print::{self, BAD, DIM, GOOD, NOTE, Painted, WAIT, plain};
use super::{Done, Failure, configured};
use crate::mail::{Address, Reply};

/// What a server may take to answer (RFC 5321 §4.5.3.2 has 5 to 10 minutes; a person waits here).
const TIMEOUT: Duration = Duration::from_mins(1);
/// More than any server takes.
const LARGEST: u64 = 1 << 30;

pub async fn run(common: &Common, options: &Send) -> Done {
    let sender = match options.from.as_str() {
        "" | "<>" => None,
        text => Some(Address::parse(text).map_err(|error| Failure::Usage(format!("--from {text:?}: {error}")))?),
    };
    let octets = dialogue::with_crlf(&read(&options.file)?);
    let letter = Letter { sender, recipients: options.to.clone(), octets };
    let peer = Peer { address: server(common, options).await?, tls: options.tls, timeout: TIMEOUT };
    let json = options.machine.json;
    let mut told = move |said: &str, answer: &Reply| if json { tell_json(said, answer) } else { tell(said, answer) };
    let handed = dialogue::hand_over(&peer, &letter, &mut told).await?;
    verdict(&handed)
}

fn verdict(handed: &Handed) -> Done {
    if handed.is_complete() { Ok(()) } else { Err(Failure::Said) }
}

/// The command as sent, then each line of the answer.
pub fn tell(said: &str, answer: &Reply) -> Done {
    if !said.is_empty() {
        print::line(format_args!("{} {}", Painted(DIM, "→"), plain(said)))?;
    }
    let style = if answer.is_permanent() {
        BAD
    } else if answer.is_temporary() {
        WAIT
    } else {
        GOOD
    };
    let code = Painted(style, answer.code);
    let status = answer.enhanced().map(|status| format!("{status} ")).unwrap_or_default();
    for text in answer.text.split('\n') {
        print::line(format_args!("{} {code} {status}{}", Painted(NOTE, "←"), plain(text.trim_end())))?;
    }
    Ok(())
}

fn tell_json(said: &str, answer: &Reply) -> Done {
    print::json(&json!({
        "command": said,
        "code": answer.code,
        "enhanced": answer.enhanced(),
        "text": answer.text,
    }))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    let named = |error: std::io::Error| Failure::Failed(format!("{}: {error}", file.display()));
    if file == Path::new("-") {
        std::io::stdin().lock().take(LARGEST).read_to_end(&mut octets).map_err(named)?;
    } else {
        std::fs::File::open(file).map_err(named)?.take(LARGEST).read_to_end(&mut octets).map_err(named)?;
    }
    Ok(octets)
}

/// `--server`, or the first listener of the configuration; where its port is chosen at the start, the running server says.
async fn server(common: &Common, options: &Send) -> Result<SocketAddr, Failure> {
    if let Some(named) = &options.server {
        let mut found = tokio::net::lookup_host(named.as_str()).await.map_err(|error| unresolved(named, &error))?;
        return found.next().ok_or_else(|| Failure::Failed(format!("{named} has no address")));
    }
    let config = configured::load(common)?.config;
    let running = match Server::find(&config.data_dir).await? {
        Some(server) => server.status().await?.listeners,
        None => Vec::new(),
    };
    let bound = running.iter().find(|listening| listening.protocol == "smtp");
    let address = bound.and_then(|listening| listening.address.parse().ok());
    let address = address.or_else(|| configured::first_listener(&config)).ok_or_else(|| {
        Failure::Usage("the configuration's first listener has no port of its own, and no server runs: --server".into())
    })?;
    Ok(reachable(address))
}

/// What isn't written as it should be is wrong usage; a name that leads nowhere isn't.
fn unresolved(named: &str, error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::InvalidInput {
        return Failure::Usage(format!("--server {named:?}: {error}; it is written HOST:PORT"));
    }
    Failure::Failed(format!("--server {named:?}: {error}"))
}

/// A listener on every address is reached on this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let ip: std::net::IpAddr = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_without_a_port_is_wrong_usage_and_one_without_an_address_is_not() {
        let unwritten = tokio::net::lookup_host("mx.example.com").await.map(drop).unwrap_err();
        assert!(matches!(unresolved("mx.example.com", &unwritten), Failure::Usage(_)));
        let unknown = std::io::Error::other("failed to lookup address information");
        assert!(matches!(unresolved("mx.example.com:25", &unknown), Failure::Failed(_)));
    }
}
