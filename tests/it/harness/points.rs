//! Kills a server at a named point of a message's way, from within: `points.c`, loaded before the C library.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::setup::write_file;

/// The points, in the order in which a message meets them.
pub const POINTS: [&str; 8] = [
    // Its octets are appended and not synced.
    "appended",
    // The frames of its commit are written and not synced.
    "commit",
    // It is committed, and nobody knows.
    "committed",
    // 250 was sent.
    "answered",
    // Its delivery is claimed, and MAIL FROM about to be sent to the next hop.
    "claimed",
    // The next hop's 250 was read.
    "taken",
    // The frames of the settlement are written and not synced.
    "settling",
    // It is settled, and nobody knows.
    "settled",
];

pub struct Points {
    dir: TempDir,
    library: PathBuf,
}

impl Points {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("points.so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let mut command = Command::new(compiler);
        command.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).args(["tests/it/points.c", "-ldl", "-lpthread"]);
        let done = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self { dir, library }
    }

    /// What a server's environment must hold.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [("LD_PRELOAD", self.library.to_str().unwrap()), ("POINTS", self.dir.path().to_str().unwrap())]
    }

    /// From here on a server is killed when it reaches `point` for the `at`th time.
    pub fn arm(&self, point: &str, at: u64) {
        write_file(&self.dir.path().join("armed"), format!("{point} {at}").as_bytes());
    }

    /// Where a server was killed, if it was; none is from here on.
    pub fn disarm(&self) -> Option<String> {
        let _not_armed = std::fs::remove_file(self.dir.path().join("armed"));
        let hit = self.dir.path().join("hit");
        let point = std::fs::read_to_string(&hit).ok();
        let _not_hit = std::fs::remove_file(hit);
        point
    }
}
