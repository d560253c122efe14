//! Takes the sockets to listen on: binds an address, or takes over one that systemd holds (`fd:NAME`).

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

/// A socket that listens. Must be called within a tokio runtime.
pub(super) fn listen(address: &ListenAddress) -> Result<TcpListener, ListenError> {
    match address {
        ListenAddress::Socket(address) => {
            bind(*address).map_err(|source| ListenError::Bind { address: *address, source })
        }
        ListenAddress::Systemd(name) => take_over(name),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // So that a restart needn't wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn take_over(name: &str) -> Result<TcpListener, ListenError> {
    let sockets = handed_over();
    let Some((_, socket)) = sockets.iter().find(|(given, _)| given == name) else {
        let handed_over = sockets.iter().map(|(given, _)| given.clone()).collect();
        return Err(ListenError::NotHandedOver { name: name.to_owned(), handed_over });
    };
    let failed = |source| ListenError::HandedOver { name: name.to_owned(), source };
    let socket = socket.try_clone().map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    TcpListener::from_std(socket).map_err(failed)
}

/// The TCP sockets of `sd_listen_fds(3)`, by the names of `FileDescriptorName=`. Taken from the environment once.
fn handed_over() -> &'static [(String, StdListener)] {
    static SOCKETS: OnceLock<Vec<(String, StdListener)>> = OnceLock::new();
    SOCKETS.get_or_init(|| {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = listenfd::ListenFd::from_env();
        (0..sockets.len())
            .filter_map(|index| {
                let name = names.next().unwrap_or_default().to_owned();
                Some((name, sockets.take_tcp_listener(index).ok().flatten()?))
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
}
