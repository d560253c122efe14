//! Base64, hexadecimal, percent-encoding and keyed digests.
//!
//! Standards: RFC 4648 §4 and §5 (base64, base64url), RFC 2104 (HMAC), RFC 3986 §2.1 (percent-encoding).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rhai::{Blob, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::super::octets::{Octets, hexadecimal};
use super::{ScriptResult, charge, fits, octets, say, shown};

/// What senders write: with padding or without, its last bits set or not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn register(engine: &mut Engine) {
    engine.register_fn("to_base64", |context: NativeCallContext, text: ImmutableString| -> ScriptResult<String> {
        fits(&context, text.len().div_ceil(3) * 4)?;
        charge(text.len());
        Ok(base64::engine::general_purpose::STANDARD.encode(text.as_bytes()))
    });
    engine.register_fn("to_base64url", |context: NativeCallContext, data: Dynamic| -> ScriptResult<String> {
        let data = octets(&context, "data", &data)?;
        fits(&context, data.len().div_ceil(3) * 4)?;
        Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&data))
    });
    engine.register_fn("from_base64", from_base64);
    // Rhai has its own for integers.
    engine.register_fn("to_hex", |context: NativeCallContext, text: ImmutableString| hex(&context, text.as_bytes()));
    engine.register_fn("to_hex", |context: NativeCallContext, blob: Blob| hex(&context, &blob));
    engine.register_fn("to_hex", |context: NativeCallContext, data: Octets| hex(&context, data.bytes()));
    engine.register_fn("from_hex", from_hex);
    engine.register_fn(
        "hmac_sha256",
        |context: NativeCallContext, key: Dynamic, data: Dynamic| -> ScriptResult<ImmutableString> {
            Ok(hexadecimal(hmac(&context, &key, &data)?.as_ref()))
        },
    );
    engine.register_fn(
        "hmac_sha256_octets",
        |context: NativeCallContext, key: Dynamic, data: Dynamic| -> ScriptResult<Octets> {
            Ok(Octets::new(hmac(&context, &key, &data)?.as_ref().to_vec().into()))
        },
    );
    engine.register_fn("url_encode", |context: NativeCallContext, text: ImmutableString| -> ScriptResult<String> {
        let encoded = percent_encoded(&text);
        fits(&context, encoded.len()).map(|()| encoded)
    });
    engine.register_fn("url_encode", query);
    engine.register_fn("url_decode", |text: ImmutableString| percent_decoded(&text));
}

/// Either alphabet, its line breaks and blanks left out.
fn from_base64(context: NativeCallContext, text: ImmutableString) -> ScriptResult<Octets> {
    charge(text.len());
    let standard = |octet: u8| match octet {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let plain: Vec<u8> = text.bytes().filter(|octet| !octet.is_ascii_whitespace()).map(standard).collect();
    LENIENT.decode(&plain).map(|octets| Octets::new(octets.into())).map_err(|_| {
        let belongs = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c) || c.is_ascii_whitespace();
        let stranger = text.chars().enumerate().find(|(_, character)| !belongs(*character));
        let why = match stranger {
            Some((at, character)) => format!("{character:?} at character {} belongs to neither alphabet", at + 1),
            None => "it is cut off, or has = where no end is".to_owned(),
        };
        say(&context, format!("{} is no base64: {why}", shown(&text)))
    })
}

fn hex(context: &NativeCallContext, octets: &[u8]) -> ScriptResult<ImmutableString> {
    fits(context, octets.len().saturating_mul(2))?;
    charge(octets.len());
    Ok(hexadecimal(octets))
}

fn from_hex(context: NativeCallContext, text: ImmutableString) -> ScriptResult<Octets> {
    charge(text.len());
    let digit = |(at, character): (usize, char)| {
        let digit = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        digit.ok_or_else(|| {
            let why = format!("{character:?} at character {} is no hexadecimal digit", at + 1);
            say(&context, format!("{} is no hexadecimal: {why}", shown(&text)))
        })
    };
    let digits = text.chars().enumerate().map(digit).collect::<ScriptResult<Vec<u8>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(say(&context, format!("{} has an odd number of digits", shown(&text))));
    }
    Ok(Octets::new(pairs.iter().map(|[high, low]| high << 4 | low).collect::<Vec<u8>>().into()))
}

fn hmac(context: &NativeCallContext, key: &Dynamic, data: &Dynamic) -> ScriptResult<ring::hmac::Tag> {
    let (key, data) = (octets(context, "key", key)?, octets(context, "data", data)?);
    Ok(ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key), &data))
}

/// All but the unreserved characters of RFC 3986 §2.3.
fn percent_encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    charge(text.len());
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            encoded.push('%');
            for digit in [octet >> 4, octet & 15] {
                encoded.extend(DIGITS.get(usize::from(digit)).map(|digit| char::from(*digit)));
            }
        }
    }
    encoded
}

/// A `%` that two hexadecimal digits don't follow stays; what is no UTF-8 is replaced.
fn percent_decoded(text: &str) -> String {
    charge(text.len());
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let decoded = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        let decoded = decoded.filter(|_| *first == b'%');
        octets.push(decoded.unwrap_or(*first));
        rest = after.get(if decoded.is_some() { 2 } else { 0 }..).unwrap_or_default();
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// A map as a query: `a=1&b=two%20words`.
fn query(context: NativeCallContext, values: Map) -> ScriptResult<String> {
    let mut text = String::new();
    for (name, value) in &values {
        let value = match value.as_immutable_string_ref() {
            Ok(text) => text.to_string(),
            Err(_) if value.is_int() || value.is_float() || value.is_bool() => value.to_string(),
            Err(_) => {
                let found = super::article(value.type_name());
                return Err(say(&context, format!("{} is a string or a number, not {found}", shown(name))));
            }
        };
        let separator = if text.is_empty() { "" } else { "&" };
        text.extend([separator, &percent_encoded(name), "=", &percent_encoded(&value)]);
        fits(&context, text.len())?;
    }
    Ok(text)
}
