//! `[geoip]`: what databases say of an address: its autonomous system, its country.
//!
//! Pure: the files are read whole where the configuration is loaded, for one that is mapped and changed in its place would
//! end the process. In the `.mmdb` format, whose publishers each have names of their own for what stands in a record.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use maxminddb::{LookupResult, PathElement, Reader};

use crate::mail::Origin;

/// Those that are asked, in order; for each question the first that knows.
#[derive(Debug, Clone, Default)]
pub struct GeoIp(pub Vec<Arc<Database>>);

/// One file.
pub struct Database {
    path: PathBuf,
    reader: Reader<Vec<u8>>,
}

impl GeoIp {
    #[must_use]
    pub fn origin(&self, ip: IpAddr) -> Origin {
        let mut origin = Origin::default();
        for database in &self.0 {
            // A database of IPv4 alone knows nothing of IPv6.
            let Ok(found) = database.reader.lookup(ip) else { continue };
            origin.asn = origin.asn.or_else(|| asn(&found));
            origin.country = origin.country.or_else(|| country(&found));
        }
        origin
    }
}

impl Database {
    /// # Errors
    /// Why it is none, in words.
    pub fn new(path: PathBuf, octets: Vec<u8>) -> Result<Self, String> {
        let reader = Reader::from_source(octets).map_err(|error| error.to_string())?;
        Ok(Self { path, reader })
    }
}

type Found<'a> = LookupResult<'a, Vec<u8>>;

/// A text or a number is there or isn't: a database that has something else under that name says nothing.
fn text(found: &Found<'_>, path: &[&str]) -> Option<String> {
    let path: Vec<PathElement<'_>> = path.iter().map(|key| PathElement::Key(key)).collect();
    found.decode_path::<String>(&path).ok().flatten()
}

fn number(found: &Found<'_>, key: &str) -> Option<u32> {
    found.decode_path::<u32>(&[PathElement::Key(key)]).ok().flatten()
}

fn asn(found: &Found<'_>) -> Option<u32> {
    let written = || text(found, &["asn"])?.trim_start_matches("AS").parse().ok();
    number(found, "autonomous_system_number").or_else(|| number(found, "asn")).or_else(written)
}

fn country(found: &Found<'_>) -> Option<String> {
    let paths: [&[&str]; 3] = [&["country", "iso_code"], &["country_code"], &["country"]];
    paths.iter().find_map(|path| text(found, path).filter(|code| is_code(code)))
}

/// ISO 3166-1 alpha-2.
fn is_code(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|octet| octet.is_ascii_uppercase())
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.reader.metadata().database_type.escape_debug(), self.path.display())
    }
}
