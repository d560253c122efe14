//! A DNS server that answers from a table, over UDP. A name that isn't in the table doesn't exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record};

#[derive(Debug, Clone)]
pub struct Dns {
    pub address: SocketAddr,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    records: BTreeMap<Name, Vec<RData>>,
    failing: BTreeSet<Name>,
    silent: BTreeSet<Name>,
    asked: BTreeMap<Name, usize>,
}

impl Dns {
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let table = Arc::new(Mutex::new(Table::default()));
        let served = Arc::clone(&table);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
                let mut table = served.lock().unwrap();
                if table.hears(&query) {
                    let _ = socket.send_to(&answer(&table, &query).to_vec().unwrap(), peer);
                }
            }
        });
        Self { address, table }
    }

    pub fn mx(&self, domain: &str, preference: u16, host: &str) -> &Self {
        self.add(domain, RData::MX(MX::new(preference, name(host))))
    }

    pub fn a(&self, host: &str, address: Ipv4Addr) -> &Self {
        self.add(host, RData::A(A(address)))
    }

    /// From here on `host` is at this address alone.
    pub fn replace_a(&self, host: &str, address: Ipv4Addr) {
        self.table.lock().unwrap().records.insert(name(host), vec![RData::A(A(address))]);
    }

    /// `host` is another name of `target`.
    pub fn cname(&self, host: &str, target: &str) -> &Self {
        self.add(host, RData::CNAME(CNAME(name(target))))
    }

    pub fn txt(&self, host: &str, text: &str) -> &Self {
        self.add(host, RData::TXT(TXT::new(vec![text.to_owned()])))
    }

    /// Whatever is asked about this name, the server fails.
    pub fn fail(&self, host: &str) -> &Self {
        self.table.lock().unwrap().failing.insert(name(host));
        self
    }

    /// The name of an address.
    pub fn ptr(&self, address: Ipv4Addr, host: &str) -> &Self {
        let [a, b, c, d] = address.octets();
        self.add(&format!("{d}.{c}.{b}.{a}.in-addr.arpa"), RData::PTR(PTR(name(host))))
    }

    /// Whatever is asked about this name and those below it, no answer comes.
    pub fn hush(&self, host: &str) -> &Self {
        self.table.lock().unwrap().silent.insert(name(host));
        self
    }

    /// How often this name was asked about.
    pub fn asked(&self, host: &str) -> usize {
        self.table.lock().unwrap().asked.get(&name(host)).copied().unwrap_or_default()
    }

    /// It answers again.
    pub fn mend(&self, host: &str) {
        self.table.lock().unwrap().failing.remove(&name(host));
    }

    fn add(&self, host: &str, data: RData) -> &Self {
        self.table.lock().unwrap().records.entry(name(host)).or_default().push(data);
        self
    }
}

impl Table {
    /// Counts the question; whether it is answered at all.
    fn hears(&mut self, query: &Message) -> bool {
        let Some(question) = query.queries.first() else { return true };
        let asked = question.name().to_lowercase();
        *self.asked.entry(asked.clone()).or_default() += 1;
        !self.silent.iter().any(|silent| silent.zone_of(&asked))
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap().to_lowercase();
    name.set_fqdn(true);
    name
}

fn answer(table: &Table, query: &Message) -> Message {
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = true;
    response.metadata.recursion_available = true;
    let Some(question) = query.queries.first() else { return response };
    response.add_query(question.clone());
    let asked = question.name().to_lowercase();
    if table.failing.contains(&asked) {
        response.metadata.response_code = ResponseCode::ServFail;
        return response;
    }
    let Some(records) = table.records.get(&asked) else {
        response.metadata.response_code = ResponseCode::NXDomain;
        return response;
    };
    let mut owner = question.name().clone();
    let mut records = records;
    // An alias is answered with what it stands for (RFC 1034 §4.3.2).
    while let Some(RData::CNAME(target)) = records.iter().find(|data| matches!(data, RData::CNAME(_))) {
        response.add_answer(Record::from_rdata(owner, 1, RData::CNAME(target.clone())));
        owner = target.0.clone();
        let Some(further) = table.records.get(&owner) else { return response };
        records = further;
    }
    for data in records.iter().filter(|data| data.record_type() == question.query_type()) {
        response.add_answer(Record::from_rdata(owner.clone(), 1, data.clone()));
    }
    response
}
