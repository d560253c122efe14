//! Takes the sockets to listen on: binds an address, or takes over those that systemd holds by a name (`fd:NAME`).

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::OnceLock;

use tokio::net::{TcpListener, TcpSocket};

use crate::config::ListenAddress;

/// Connections that wait to be accepted; what is beyond is left to the kernel's own retries.
const BACKLOG: u32 = 1024;

/// Why a listener can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}{}", hint(source, *address))]
    Bind { address: SocketAddr, source: io::Error },
    #[error("no socket named {name:?} was handed over by systemd (handed over: {})", names(handed_over))]
    NotHandedOver { name: String, handed_over: Vec<String> },
    #[error(
        "systemd handed over a socket named {name:?} that no [[listener]] takes: add one with `address = \"fd:{name}\"`, \
         or take the socket out of the unit"
    )]
    NotTaken { name: String },
    #[error("the socket {name:?} that systemd handed over cannot be used: {source}")]
    HandedOver { name: String, source: io::Error },
}

fn hint(source: &io::Error, address: SocketAddr) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            " (ports below 1024 need a socket from systemd, `fd:NAME`, or the capability CAP_NET_BIND_SERVICE)"
        }
        io::ErrorKind::AddrInUse => " (another mail server may be running)",
        _ => "",
    }
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The sockets that listen: one that is bound, or all that systemd handed over by this name, as a socket unit may have
/// several `ListenStream=`. Must be called within a tokio runtime.
pub(super) fn listen(address: &ListenAddress) -> Result<Vec<TcpListener>, ListenError> {
    match address {
        ListenAddress::Socket(address) => {
            bind(*address).map(|socket| vec![socket]).map_err(|source| ListenError::Bind { address: *address, source })
        }
        ListenAddress::Systemd(name) => take_over(name, handed_over()),
    }
}

/// A socket that was handed over and that nobody listens on takes connections and never answers them.
pub(super) fn none_is_left<'a>(taken: impl Iterator<Item = &'a ListenAddress>) -> Result<(), ListenError> {
    let taken: Vec<&ListenAddress> = taken.collect();
    match left(handed_over().iter().map(|(name, _)| name.as_str()), &taken) {
        None => Ok(()),
        Some(name) => Err(ListenError::NotTaken { name: name.to_owned() }),
    }
}

fn left<'a>(mut handed_over: impl Iterator<Item = &'a str>, taken: &[&ListenAddress]) -> Option<&'a str> {
    handed_over.find(|name| !taken.iter().any(|address| matches!(address, ListenAddress::Systemd(own) if own == name)))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // So that a restart needn't wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What was handed over: its name, and the socket where it is one for TCP that listens.
type HandedOver = (String, Option<StdListener>);

fn take_over(name: &str, sockets: &[HandedOver]) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |source| ListenError::HandedOver { name: name.to_owned(), source };
    let mut taken = Vec::new();
    for (_, socket) in sockets.iter().filter(|(given, _)| given == name) {
        let Some(socket) = socket else {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP socket that listens")));
        };
        let socket = socket.try_clone().map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        taken.push(TcpListener::from_std(socket).map_err(failed)?);
    }
    if taken.is_empty() {
        let handed_over = sockets.iter().map(|(given, _)| given.clone()).collect();
        return Err(ListenError::NotHandedOver { name: name.to_owned(), handed_over });
    }
    Ok(taken)
}

/// The sockets of `sd_listen_fds(3)`, by the names of `FileDescriptorName=`. Taken from the environment once.
fn handed_over() -> &'static [HandedOver] {
    static SOCKETS: OnceLock<Vec<HandedOver>> = OnceLock::new();
    SOCKETS.get_or_init(|| {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = listenfd::ListenFd::from_env();
        (0..sockets.len())
            .map(|index| {
                // As sd_listen_fds_with_names(3) calls one without a name.
                let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned();
                (name, sockets.take_tcp_listener(index).ok().flatten())
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_sockets_there_are() {
        let error = listen(&ListenAddress::Systemd("smtp".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), r#"no socket named "smtp" was handed over by systemd (handed over: none)"#);
    }

    #[tokio::test]
    async fn takes_all_the_sockets_of_a_name() {
        let socket = || Some(StdListener::bind("127.0.0.1:0").unwrap());
        let named = |name: &str, socket| (name.to_owned(), socket);
        let sockets = [named("smtp", socket()), named("smtps", socket()), named("smtp", socket()), named("log", None)];
        let taken = take_over("smtp", &sockets).unwrap();
        let addresses: Vec<_> = taken.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let expected: Vec<_> = [0, 2].map(|at: usize| sockets[at].1.as_ref().unwrap().local_addr().unwrap()).to_vec();
        assert_eq!(addresses, expected);
        let error = take_over("log", &sockets).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"the socket "log" that systemd handed over cannot be used: it is no TCP socket that listens"#
        );
    }

    #[test]
    fn a_socket_that_no_listener_takes_is_named() {
        let addresses = [ListenAddress::Systemd("smtp".to_owned()), ListenAddress::Socket(([127, 0, 0, 1], 25).into())];
        let taken: Vec<&ListenAddress> = addresses.iter().collect();
        assert_eq!(left(["smtp", "smtp"].into_iter(), &taken), None);
        assert_eq!(left(["smtp", "smtps"].into_iter(), &taken), Some("smtps"));
        let error = ListenError::NotTaken { name: "smtps".to_owned() }.to_string();
        assert!(error.contains(r#"named "smtps" that no [[listener]] takes"#), "{error}");
    }
}
