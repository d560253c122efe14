//! `[geoip]`: databases are read where mail is judged by them.

use super::super::geoip::{Database, GeoIp};
use super::super::raw;
use super::super::secret::Reading;
use super::Checker;

impl Checker<'_> {
    pub(super) fn geoip(&mut self, raw: raw::GeoIp) -> GeoIp {
        let mut databases = Vec::new();
        for at in raw.databases {
            let path = self.file(at.node, &at.value.0, "the database");
            // Who only looks at the store judges no mail.
            if self.around.reading() == Reading::Unread {
                continue;
            }
            match self.around.octets(&path).map(|octets| octets.map(|octets| Database::new(path, octets))) {
                Ok(Some(Ok(database))) => databases.push(database.into()),
                Ok(Some(Err(error))) => {
                    let help = "databases are in MaxMind's format: their names end in .mmdb";
                    self.error(at.node, &format!("this is no database of addresses: {error}"), Some(help));
                }
                Ok(None) => {}
                Err(error) => self.missing(at.node, &format!("the database can't be read: {error}")),
            }
        }
        GeoIp(databases)
    }
}
