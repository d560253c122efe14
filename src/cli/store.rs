//! `backup` and `store check`: a copy of the store, and proof that it is sound.

use super::access::Writer;
use super::args::{Backup, Common};
use super::print::{self, GOOD, Painted};
use super::{Done, configured};

pub async fn backup(common: &Common, options: &Backup) -> Done {
    let config = configured::load(common)?.config;
    let dir = std::path::absolute(&options.dir)?;
    let writer = Writer::open(&config).await?;
    let copied = writer.backup(&dir).await;
    writer.close().await;
    copied?;
    print::line(format_args!("{} {}", Painted(GOOD, "copied to"), dir.display()))
}
