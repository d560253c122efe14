//! Takes webhooks for the load benchmark: answers each request 204 over connections that stay open, and counts them.
//!
//! Standard library alone, built by `rustc -O`. Its standard input is the listening socket; what it has counted goes to
//! its standard output, a line each, and when nobody reads that any more it ends. Reads no more of a request than where
//! it ends, so that it takes as little of the machine as smtp-sink does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static COUNT: AtomicU64 = AtomicU64::new(0);

fn main() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("the listening socket as standard input");
    std::thread::spawn(move || {
        for stream in TcpListener::from(socket).incoming().flatten() {
            let serving = std::thread::Builder::new().stack_size(64 * 1024);
            let _refused = serving.spawn(move || serve(stream));
        }
    });
    let mut told = std::io::stdout();
    while writeln!(told, "{}", COUNT.load(Ordering::Relaxed)).is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn serve(mut stream: TcpStream) {
    let (mut octets, mut filled) = (vec![0; 16 * 1024], 0);
    while let Ok(read @ 1..) = stream.read(&mut octets[filled..]) {
        filled += read;
        while let Some(length) = request(&octets[..filled]) {
            if length > octets.len() {
                octets.resize(length, 0);
            }
            if length > filled {
                break;
            }
            octets.copy_within(length..filled, 0);
            filled -= length;
            COUNT.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                return;
            }
        }
        if filled == octets.len() {
            octets.resize(2 * filled, 0);
        }
    }
}

/// How long the first request is, head and body; `None` while its head isn't whole.
fn request(octets: &[u8]) -> Option<usize> {
    let head = octets.windows(4).position(|window| window == b"\r\n\r\n")?;
    let field = |line: &[u8]| {
        let colon = line.iter().position(|octet| *octet == b':')?;
        let named = line[..colon].eq_ignore_ascii_case(b"content-length");
        named.then(|| std::str::from_utf8(&line[colon + 1..]).ok()?.trim().parse::<usize>().ok())?
    };
    Some(head + 4 + octets[..head].split(|octet| *octet == b'\n').find_map(field).unwrap_or(0))
}
