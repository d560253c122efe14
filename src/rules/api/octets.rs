//! `octets`: bytes of any length, as `message.raw` and `attachment.content` give them.
//!
//! A blob of the engine counts against the budget's array size, octet by octet; a message hardly ever fits. So its
//! octets come as a view that shares the message's memory and is cut, searched and hashed without a copy.

use base64::Engine as _;
use bytes::Bytes;
use memchr::memmem;
use rhai::{Blob, Dynamic, Engine, INT, ImmutableString, NativeCallContext};

use super::bounds::Bounds;
use super::run::{ScriptResult, refuse};

/// Octets that a script looks at. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Octets(Bytes);

impl std::fmt::Debug for Octets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "octets({})", self.0.len())
    }
}

impl Octets {
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The octets that a script gave, be it a view or a blob; `None` for all else.
    #[must_use]
    pub fn from_dynamic(value: &Dynamic) -> Option<Self> {
        if let Some(octets) = value.read_lock::<Self>() {
            return Some(octets.clone());
        }
        value.read_lock::<Blob>().map(|blob| Self(Bytes::copy_from_slice(&blob)))
    }

    /// As the engine's blobs do it: a negative start counts from the end, and what is beyond the end is left out.
    fn extract(&self, start: INT, length: INT) -> Self {
        let all = self.0.len();
        let start = match usize::try_from(start) {
            Ok(start) => start.min(all),
            Err(_) => all.saturating_sub(usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX)),
        };
        let length = usize::try_from(length.max(0)).unwrap_or(usize::MAX).min(all - start);
        Self(self.0.slice(start..start + length))
    }

    /// Where `needle` stands first, -1 if nowhere, as the engine's strings say it.
    fn index_of(&self, needle: &[u8]) -> INT {
        memmem::find(&self.0, needle).and_then(|at| INT::try_from(at).ok()).unwrap_or(-1)
    }

    /// As much text as the budget has room for; octets that are no UTF-8 are replaced.
    fn text(&self, bounds: Bounds) -> ImmutableString {
        let octets = self.0.get(..bounds.string).unwrap_or(&self.0);
        bounds.cut_late(String::from_utf8_lossy(octets).into_owned())
    }

    fn to_blob(&self, context: &NativeCallContext) -> ScriptResult<Blob> {
        let most = Bounds::of(context).array;
        if self.0.len() > most {
            return Err(refuse(
                context,
                format!(
                    "a blob of {} octets is beyond [budget] array_size, {most}: take a part with extract(start, length)",
                    self.0.len()
                ),
            ));
        }
        Ok(self.0.to_vec())
    }
}

fn to_base64(context: &NativeCallContext, octets: &[u8]) -> ScriptResult<ImmutableString> {
    let (length, most) = (octets.len().div_ceil(3) * 4, Bounds::of(context).string);
    if length > most {
        let text = format!("base64 of {} octets is {length} long: [budget] string_size is {most}", octets.len());
        return Err(refuse(context, text));
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(octets).into())
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(octets: &[u8]) -> ImmutableString {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, octets).as_ref())
}

/// Two digits an octet, in lower case.
#[must_use]
pub fn hexadecimal(octets: &[u8]) -> ImmutableString {
    let digit = |half: u8| char::from(if half < 10 { b'0' + half } else { b'a' + half - 10 });
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect::<String>().into()
}

fn length(octets: &mut Octets) -> INT {
    INT::try_from(octets.0.len()).unwrap_or(INT::MAX)
}

pub(super) fn register(engine: &mut Engine) {
    engine
        .register_type_with_name::<Octets>("octets")
        .register_get("len", length)
        .register_fn("len", length)
        .register_get("is_empty", |octets: &mut Octets| octets.0.is_empty())
        .register_fn("is_empty", |octets: &mut Octets| octets.0.is_empty())
        .register_fn("extract", |octets: &mut Octets, start: INT| octets.extract(start, INT::MAX))
        .register_fn("extract", |octets: &mut Octets, start: INT, length: INT| octets.extract(start, length))
        .register_fn("to_blob", |context: NativeCallContext, octets: &mut Octets| octets.to_blob(&context))
        .register_indexer_get(|context: NativeCallContext, octets: &mut Octets, at: INT| {
            let octet = octets.extract(at, 1).0.first().copied();
            octet.map(INT::from).ok_or_else(|| {
                refuse(&context, format!("octet {at} is beyond the end: there are {} octets", octets.0.len()))
            })
        });
    register_text(engine);
    register_digests(engine);
    register_equality(engine);
}

/// What else is of use for the engine's own blobs and strings.
fn register_digests(engine: &mut Engine) {
    engine
        .register_fn("to_base64", |context: NativeCallContext, octets: &mut Octets| to_base64(&context, &octets.0))
        .register_fn("to_base64", |context: NativeCallContext, blob: &mut Blob| to_base64(&context, blob))
        .register_fn("sha256", |octets: &mut Octets| sha256(&octets.0))
        .register_fn("sha256", |blob: &mut Blob| sha256(blob))
        .register_fn("sha256", |text: &str| sha256(text.as_bytes()));
}

/// Searching, and the octets as text.
fn register_text(engine: &mut Engine) {
    engine
        .register_fn("contains", |octets: &mut Octets, text: &str| octets.index_of(text.as_bytes()) >= 0)
        .register_fn("index_of", |octets: &mut Octets, text: &str| octets.index_of(text.as_bytes()))
        .register_fn("starts_with", |octets: &mut Octets, text: &str| octets.0.starts_with(text.as_bytes()))
        .register_fn("ends_with", |octets: &mut Octets, text: &str| octets.0.ends_with(text.as_bytes()));
    // `to_string` is what interpolation and `print` use, too, and `to_debug` what `debug` uses.
    for name in ["as_string", "to_string"] {
        engine.register_fn(name, |context: NativeCallContext, octets: &mut Octets| octets.text(Bounds::of(&context)));
    }
    engine.register_fn("to_debug", |octets: &mut Octets| format!("{octets:?}"));
}

/// With each other and with the engine's blobs.
fn register_equality(engine: &mut Engine) {
    engine
        .register_fn("==", |left: &mut Octets, right: Octets| *left == right)
        .register_fn("!=", |left: &mut Octets, right: Octets| *left != right)
        .register_fn("==", |left: &mut Octets, right: Blob| left.0 == right)
        .register_fn("!=", |left: &mut Octets, right: Blob| left.0 != right)
        .register_fn("==", |left: Blob, right: Octets| right.0 == left)
        .register_fn("!=", |left: Blob, right: Octets| right.0 != left);
}
