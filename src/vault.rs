//! Secrets at rest: sealed with AES-256-GCM under a key that isn't in the store, opened when a configuration is loaded.
//!
//! The environment and the name are what a seal is bound to, so that no row can be put in another's place. The key is 32
//! octets in Base64, from where the configuration says; where that is a file that isn't there yet, the first secret makes
//! it. Values never reach an error.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::clock;
use crate::config::load::{self, Kept, NoSecret};
use crate::config::{Config, Secret, SecretSource};
use crate::store::{Reader, Sealed};

/// Octets of a value.
pub const MOST: usize = 64 * 1024;
/// What the derived texts begin with, so that they are of no use elsewhere.
const PURPOSE: &[u8] = b"mailworker secrets 1\0";

/// The key, ready for use.
struct Key {
    sealing: LessSafeKey,
    /// Tells it from others, and says nothing else of it.
    id: Vec<u8>,
}

impl Key {
    fn of(text: &Secret) -> Result<Self, String> {
        let wrong = || "the key for secrets is 32 bytes in Base64\nmake one: openssl rand -base64 32".to_owned();
        let octets = STANDARD.decode(text.expose().trim()).map_err(|_| wrong())?;
        let sealing = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &octets).map_err(|_| wrong())?);
        let id = digest(&SHA256, &[PURPOSE, &octets].concat()).as_ref().iter().take(8).copied().collect();
        Ok(Self { sealing, id })
    }

    fn seal(&self, env: &str, name: &str, value: &str) -> Result<Sealed, String> {
        let failed = |_| "the system gives no randomness".to_owned();
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let mut sealed = value.as_bytes().to_vec();
        let bound = Aad::from(bound(env, name));
        self.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut sealed)
            .map_err(failed)?;
        Ok(Sealed {
            env: env.to_owned(),
            name: name.to_owned(),
            set_at: clock::now(),
            key_id: self.id.clone(),
            octets: [&nonce[..], &sealed].concat(),
        })
    }

    fn open(&self, sealed: &Sealed) -> Result<Secret, String> {
        let name = &sealed.name;
        if sealed.key_id != self.id {
            return Err(format!(
                "the secret {name} is sealed with the key {}, and the one there is now is {}\nbring that key back \
                 ([secrets] key), or put the secret anew: mailworker secret delete {name}, then put",
                hex(&sealed.key_id),
                hex(&self.id)
            ));
        }
        let damaged =
            || format!("the secret {name} is damaged in the store\nput it anew: mailworker secret put {name}");
        let (nonce, octets) = sealed.octets.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut octets = octets.to_vec();
        let opened = self.sealing.open_in_place(nonce, Aad::from(bound(&sealed.env, name)), &mut octets);
        let value = opened.map_err(|_| damaged())?.to_vec();
        String::from_utf8(value).map(Secret::new).map_err(|_| damaged())
    }
}

/// What a seal holds for, and for nothing else.
fn bound(env: &str, name: &str) -> Vec<u8> {
    [PURPOSE, env.as_bytes(), b"\0", name.as_bytes()].concat()
}

/// As people see a key's id.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |hex, octet| format!("{hex}{octet:02x}"))
}

/// The secrets of the store that a configuration names, for whoever loads it: names alone without a key.
#[must_use]
pub fn kept() -> Kept {
    Kept::new(|data_dir, env, key| {
        let rows = match Reader::if_there(data_dir).map_err(|error| error.to_string())? {
            Some(reader) => reader.secrets(env).map_err(|error| error.to_string())?,
            None => Vec::new(),
        };
        let key = key.map(Key::of).transpose()?;
        let open = |sealed: Sealed| {
            let value = key.as_ref().map(|key| key.open(&sealed)).transpose()?;
            Ok::<_, String>((sealed.name, value))
        };
        rows.into_iter().map(open).collect::<Result<BTreeMap<_, _>, _>>()
    })
}

/// Seals what is put, with the key as the configuration in force has it. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    options: load::Options,
    config: Arc<dyn Fn() -> Arc<Config> + Send + Sync>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// `options`: where variables of the environment are found.
    #[must_use]
    pub fn new(options: load::Options, config: impl Fn() -> Arc<Config> + Send + Sync + 'static) -> Self {
        Self { options, config: Arc::new(config) }
    }

    /// Blocks: a key may be read, or made.
    ///
    /// # Errors
    /// That there is no key, or a wrong one, and what to do.
    pub fn seal(&self, env: &str, name: &str, value: &str) -> Result<Sealed, String> {
        if value.is_empty() || value.len() > MOST || value.contains('\0') {
            return Err(format!("a secret is 1 to {MOST} octets of text, without a NUL"));
        }
        let config = (self.config)();
        let text = match load::sealing_key(&config, &self.options) {
            Ok(text) => text,
            Err(NoSecret::Missing(why)) => match &config.secrets_key {
                SecretSource::File(path) => made(&config.base_dir.join(path), &config.data_dir, &why)?,
                _ => return Err(told(&why)),
            },
            Err(NoSecret::Wrong(why)) => return Err(told(&why)),
        };
        Key::of(&text).and_then(|key| key.seal(env, name, value)).map_err(|why| told(&why))
    }
}

/// What, and what to do, in one line.
fn told(text: &str) -> String {
    text.replacen('\n', ": ", 1)
}

/// A new key in a file that isn't there: durable before anything is sealed with it, its reader's alone.
fn made(path: &Path, data_dir: &Path, why: &str) -> Result<Secret, String> {
    if path.exists() {
        return Err(told(why));
    }
    let mut octets = [0; 32];
    SystemRandom::new().fill(&mut octets).map_err(|_| "the system gives no randomness".to_owned())?;
    let text = STANDARD.encode(octets);
    write(path, data_dir, &text).map_err(|error| {
        format!(
            "there is no key for secrets yet, and {} can't be made: {error}. Make one that the server can read \
             (openssl rand -base64 32), and name it by [secrets] key = {{ file = … }} or {{ credential = … }}",
            path.display()
        )
    })?;
    Ok(Secret::new(text))
}

fn write(path: &Path, data_dir: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // 0600 from the beginning, and whole when it gets its name.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{text}")?;
    let (ours, server) = (file.as_file().metadata()?, std::fs::metadata(data_dir)?);
    if ours.uid() != server.uid() {
        // Only root gets here with a store of somebody else's; the key is for whom the store is for.
        std::os::unix::fs::fchown(file.as_file(), Some(server.uid()), Some(server.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fill: u8) -> Key {
        Key::of(&Secret::new(STANDARD.encode([fill; 32]))).unwrap()
    }

    #[test]
    fn a_seal_opens_with_its_key_in_its_place_alone() {
        let sealed = key(1).seal("staging", "TOKEN", "hunter2").unwrap();
        assert_eq!(key(1).open(&sealed).unwrap().expose(), "hunter2");
        assert!(key(2).open(&sealed).unwrap_err().contains("is sealed with the key"));
        for moved in [
            Sealed { env: "production".into(), ..sealed.clone() },
            Sealed { name: "OTHER".into(), ..sealed.clone() },
            Sealed { octets: sealed.octets[..10].to_vec(), ..sealed.clone() },
            Sealed { octets: [&sealed.octets[..], b"x"].concat(), ..sealed.clone() },
        ] {
            assert!(key(1).open(&moved).unwrap_err().contains("is damaged"));
        }
    }

    #[test]
    fn the_same_value_is_sealed_in_another_way_each_time() {
        let seal = || key(1).seal("", "TOKEN", "hunter2").unwrap().octets;
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_key_is_32_octets_and_nothing_else() {
        for wrong in ["", "hunter2", &STANDARD.encode([1; 16]), &STANDARD.encode([1; 33])] {
            let why = Key::of(&Secret::new(wrong.to_owned())).err().unwrap();
            assert!(why.contains("openssl rand"), "{why}");
        }
    }
}
