//! Clients from elsewhere: a proxy says where from, as mail from loopback is the own network's.

use std::net::{IpAddr, Ipv4Addr};

use super::{Client, Server};

/// The listener that believes the proxy.
pub const PROXIED: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]";
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// Connected, and nothing read yet.
pub fn connected(server: &Server, from: impl Into<IpAddr>) -> Client {
    let from = from.into();
    let (family, own) = if from.is_ipv4() { ("TCP4", "127.0.0.1") } else { ("TCP6", "::1") };
    let mut client = Client::connect(server.smtp()).unwrap();
    client.raw(format!("PROXY {family} {from} {own} 4025 25\r\n").as_bytes());
    client
}

/// Past EHLO, by that name.
#[track_caller]
pub fn greeted_as(server: &Server, from: impl Into<IpAddr>, name: &str) -> Client {
    let mut client = connected(server, from);
    client.reply().expect(220);
    client.command(&format!("EHLO {name}")).expect(250);
    client
}

#[track_caller]
pub fn greeted(server: &Server, from: impl Into<IpAddr>) -> Client {
    greeted_as(server, from, "mail.example.org")
}
