//! A web server that answers each request as a closure says, or doesn't.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::DEADLINE;
use super::http::{Request, read_request};
use super::watched::Watched;

/// What it says to one request.
#[derive(Debug, Clone)]
pub enum Says {
    /// Status line's rest, header fields, body.
    Answer(String, Vec<u8>),
    /// These octets and the end.
    Raw(Vec<u8>),
    /// Nothing, for as long as the client waits.
    Nothing,
    /// A body without end.
    NoEnd,
}

impl Says {
    pub fn ok(body: &str) -> Self {
        Self::Answer("200 OK".to_owned(), body.as_bytes().to_vec())
    }

    pub fn json(body: &serde_json::Value) -> Self {
        Self::Answer("200 OK\r\nContent-Type: application/json".to_owned(), body.to_string().into_bytes())
    }

    pub fn status(status: &str) -> Self {
        Self::Answer(status.to_owned(), Vec::new())
    }

    pub fn redirect(to: &str) -> Self {
        Self::status(&format!("302 Found\r\nLocation: {to}"))
    }

    /// As a language model answers a chat.
    pub fn chat(text: &str) -> Self {
        let message = serde_json::json!({ "role": "assistant", "content": text });
        Self::json(&serde_json::json!({ "object": "chat.completion", "choices": [{ "index": 0, "message": message }] }))
    }
}

#[derive(Debug, Clone)]
pub struct Web {
    pub address: SocketAddr,
    requests: Arc<Watched<Vec<Request>>>,
    stops: Arc<AtomicBool>,
    closed: Arc<Watched<bool>>,
}

impl Web {
    pub fn start(says: impl Fn(&Request) -> Says + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Watched::default());
        let (stops, closed) = (Arc::new(AtomicBool::new(false)), Arc::new(Watched::new(false)));
        let (served, says) = (Arc::clone(&requests), Arc::new(says));
        let (ends, told) = (Arc::clone(&stops), Arc::clone(&closed));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                let (requests, says) = (Arc::clone(&served), Arc::clone(&says));
                std::thread::spawn(move || serve(&stream, &requests, says.as_ref()));
            }
            drop(listener);
            told.change(|closed| *closed = true);
        });
        Self { address, requests, stops, closed }
    }

    /// Nobody listens there any more.
    #[track_caller]
    pub fn close(&self) {
        self.stops.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address).unwrap());
        self.closed.wait(|closed| closed.then_some(())).expect("it closes");
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// Waits for `count` requests.
    #[track_caller]
    pub fn wait(&self, count: usize) -> Vec<Request> {
        let found = self.requests.wait(|seen| (seen.len() >= count).then(|| seen.clone()));
        found.unwrap_or_else(|| panic!("{count} requests expected, seen {:#?}", self.requests()))
    }
}

fn serve(stream: &TcpStream, requests: &Watched<Vec<Request>>, says: &dyn Fn(&Request) -> Says) -> Option<()> {
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let request = read_request(&mut reader)?;
    requests.change(|seen| seen.push(request.clone()));
    let mut stream = stream;
    match says(&request) {
        Says::Answer(head, body) => {
            let length = body.len();
            write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").ok()?;
            stream.write_all(&body).ok()
        }
        Says::Raw(octets) => stream.write_all(&octets).ok(),
        Says::Nothing => {
            let _until_it_is_gone = reader.read_to_end(&mut Vec::new());
            None
        }
        Says::NoEnd => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").ok()?;
            loop {
                stream.write_all(&[b'x'; 8192]).ok()?;
            }
        }
    }
}
