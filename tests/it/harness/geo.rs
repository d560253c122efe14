//! Databases of addresses in the `.mmdb` format, written anew: a search tree of 24-bit records, then the data.

use ipnet::IpNet;

/// What stands in a record.
#[derive(Debug, Clone)]
pub enum Geo {
    Text(&'static str),
    Number(u32),
    Map(Vec<(&'static str, Geo)>),
}

#[derive(Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    Data(usize),
}

/// The octets of a database that says this of these networks, of which none holds another.
pub fn database(networks: &[(&str, Geo)]) -> Vec<u8> {
    let (mut nodes, mut records) = (vec![[Branch::Nothing; 2]], Vec::new());
    for (network, record) in networks {
        let at = records.len();
        encode(record, &mut records);
        // IPv4 lies in ::/96.
        let (address, length) = match network.parse::<IpNet>().unwrap() {
            IpNet::V4(v4) => (u128::from(u32::from(v4.addr())), v4.prefix_len() + 96),
            IpNet::V6(v6) => (u128::from(v6.addr()), v6.prefix_len()),
        };
        let mut node = 0;
        for bit in 0..length {
            let side = usize::from(address >> (127 - bit) & 1 == 1);
            if bit + 1 == length {
                nodes[node][side] = Branch::Data(at);
            } else if let Branch::Node(next) = nodes[node][side] {
                node = next;
            } else {
                nodes.push([Branch::Nothing; 2]);
                nodes[node][side] = Branch::Node(nodes.len() - 1);
                node = nodes.len() - 1;
            }
        }
    }
    let mut out = Vec::new();
    for branch in nodes.iter().flatten() {
        let value = match branch {
            Branch::Nothing => nodes.len(),
            Branch::Node(at) => *at,
            Branch::Data(at) => nodes.len() + 16 + at,
        };
        out.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
    }
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&records);
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(nodes.len(), &mut out);
    out
}

fn metadata(nodes: usize, out: &mut Vec<u8>) {
    control(7, 9, out);
    let short = |value: u16, out: &mut Vec<u8>| {
        control(5, 2, out);
        out.extend_from_slice(&value.to_be_bytes());
    };
    for (key, value) in
        [("binary_format_major_version", 2), ("binary_format_minor_version", 0), ("ip_version", 6), ("record_size", 24)]
    {
        encode(&Geo::Text(key), out);
        short(value, out);
    }
    encode(&Geo::Text("node_count"), out);
    encode(&Geo::Number(u32::try_from(nodes).unwrap()), out);
    encode(&Geo::Text("database_type"), out);
    encode(&Geo::Text("Test"), out);
    encode(&Geo::Text("languages"), out);
    control(11, 0, out);
    encode(&Geo::Text("description"), out);
    control(7, 0, out);
    encode(&Geo::Text("build_epoch"), out);
    control(9, 8, out);
    out.extend_from_slice(&1_795_511_702_u64.to_be_bytes());
}

fn encode(value: &Geo, out: &mut Vec<u8>) {
    match value {
        Geo::Text(text) => {
            control(2, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Geo::Number(number) => {
            control(6, 4, out);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Geo::Map(entries) => {
            control(7, entries.len(), out);
            for (key, value) in entries {
                encode(&Geo::Text(key), out);
                encode(value, out);
            }
        }
    }
}

/// Type and size; types above 7 have an octet of their own.
fn control(kind: u8, size: usize, out: &mut Vec<u8>) {
    let size = u8::try_from(size).unwrap();
    assert!(size < 29, "longer ones are written otherwise");
    if kind > 7 {
        out.extend_from_slice(&[size, kind - 7]);
    } else {
        out.push(kind << 5 | size);
    }
}
