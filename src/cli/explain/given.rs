//! The mail that `explain` is asked about: an address and what goes with it, or a message in a file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use bytes::Bytes;

use crate::cli::args::Explain;
use crate::cli::{Failure, dialogue};
use crate::config::Config;
use crate::mail::{Address, Client, Message};

/// Fields that say for whom a message was, the surest first.
const RECIPIENTS: [&str; 5] = ["Delivered-To", "X-Original-To", "Envelope-To", "To", "Cc"];

/// What was given, or stands for what wasn't.
pub struct Given {
    pub recipient: Address,
    /// `None`: the null sender.
    pub sender: Option<Address>,
    pub client: Client,
    pub raw: Bytes,
    pub is_made_up: bool,
}

/// For an address: with the message of `--message`, else one that is made up.
pub fn address(options: &Explain, config: &Config, recipient: &Address) -> Result<Given, Failure> {
    if options.to.is_some() {
        return Err(Failure::Usage("--to goes with a message in a file: the recipient is named already".to_owned()));
    }
    let raw = options.message.as_deref().map(read).transpose()?;
    let sender = sender(options, || Address::parse("someone@example.org").ok())?;
    let is_made_up = raw.is_none();
    let raw = raw.unwrap_or_else(|| made_up(sender.as_ref(), recipient).into());
    Ok(Given { recipient: recipient.clone(), sender, client: client(options, config), raw, is_made_up })
}

/// For a file: recipient and sender are what its fields say, where the options don't.
pub fn file(options: &Explain, config: &Config, file: &Path) -> Result<Given, Failure> {
    if options.message.is_some() {
        return Err(Failure::Usage("--message goes with an address: the message is named already".to_owned()));
    }
    let raw = read(file)?;
    let message = Message::new(raw.clone());
    let recipient = match &options.to {
        Some(to) => to.clone(),
        None => recipient_of(&message, config).ok_or_else(|| {
            let fields = RECIPIENTS.join(", ");
            Failure::Usage(format!("{}: no address of a [[domain]] in {fields}: say --to ADDRESS", file.display()))
        })?,
    };
    let sender = sender(options, || sender_of(&message))?;
    Ok(Given { recipient, sender, client: client(options, config), raw, is_made_up: false })
}

/// As a server would have got it: with CRLF line ends.
fn read(file: &Path) -> Result<Bytes, Failure> {
    let octets = std::fs::read(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    Ok(dialogue::with_crlf(&octets).into())
}

/// As `--from` says, where it does.
fn sender(options: &Explain, otherwise: impl FnOnce() -> Option<Address>) -> Result<Option<Address>, Failure> {
    match options.from.as_deref() {
        None => Ok(otherwise()),
        Some("" | "<>") => Ok(None),
        Some(text) => match Address::parse(text) {
            Ok(address) => Ok(Some(address)),
            Err(error) => Err(Failure::Usage(format!("--from {text:?}: {error}"))),
        },
    }
}

fn recipient_of(message: &Message, config: &Config) -> Option<Address> {
    let named = RECIPIENTS.iter().flat_map(|field| message.addresses(field));
    let mut addresses = named.filter_map(|mailbox| Address::parse(mailbox.address.as_deref()?).ok());
    addresses.find(|address| config.domain_for(address).is_some())
}

/// Who the next hop before us said it was (RFC 5321 §4.4), else the author.
fn sender_of(message: &Message) -> Option<Address> {
    if let Some(path) = message.header("Return-Path") {
        let path = path.trim().trim_start_matches('<').trim_end_matches('>');
        return Address::parse(path).ok();
    }
    Address::parse(&message.header_from()?).ok()
}

fn client(options: &Explain, config: &Config) -> Client {
    let ip = options.ip.unwrap_or(Ipv4Addr::LOCALHOST.into());
    Client {
        ip,
        port: 0,
        listener: SocketAddr::new(ip, 0).to_string(),
        helo: Some(options.helo.clone().unwrap_or_else(|| "mail.example.org".to_owned())),
        esmtp: true,
        tls: None,
        ptr: None,
        auth: None,
        origin: config.geoip.origin(ip),
    }
}

/// A small message, for want of a real one.
fn made_up(sender: Option<&Address>, recipient: &Address) -> Vec<u8> {
    let from = sender.map_or_else(|| "MAILER-DAEMON@example.org".to_owned(), Address::to_string);
    format!(
        "From: {from}\r\nTo: {recipient}\r\nSubject: Hello\r\nDate: Tue, 24 Nov 2026 09:15:02 +0000\r\n\
         Message-ID: <hello@example.org>\r\n\r\nA message made up to see where it goes.\r\n"
    )
    .into_bytes()
}
