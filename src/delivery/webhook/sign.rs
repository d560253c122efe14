//! Signatures of Standard Webhooks: what an endpoint tells by that a request is ours, and unchanged. Pure.
//!
//! `webhook-id` stays over all tries of a delivery, `webhook-timestamp` is that of the try, and `webhook-signature` is
//! over `id.timestamp.body`, the body as sent: `v1,` and Base64 of HMAC-SHA256 with a key that both sides know (`whsec_`),
//! `v1a,` and Base64 of ed25519 with a private one (`whsk_`). While a key rotates there is one signature for each key,
//! the current one first. Must never: put a key into what it returns.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::config::Secret;
use crate::mail::Timestamp;
use crate::store::DeliveryKey;

/// The same for every try of one delivery. It has no dot, which parts what is signed.
#[must_use]
pub fn id(key: DeliveryKey) -> String {
    format!("msg_{}_{}", key.message, key.n)
}

/// The value of `webhook-signature`; `None` without a key: then the request goes unsigned.
#[must_use]
pub fn signature(secrets: &[Secret], id: &str, now: Timestamp, body: &[u8]) -> Option<String> {
    let mut value = String::new();
    for secret in secrets {
        let (version, signature) = signed(secret, format!("{id}.{}.", now.as_secs()).as_bytes(), body);
        let parted = if value.is_empty() { "" } else { " " };
        let _infallible = write!(value, "{parted}{version},{signature}");
    }
    (!value.is_empty()).then_some(value)
}

fn signed(secret: &Secret, head: &[u8], body: &[u8]) -> (&'static str, String) {
    if let Some(pair) = secret.signing_key() {
        return ("v1a", STANDARD.encode(pair.sign(&[head, body].concat())));
    }
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &octets(secret)));
    context.update(head);
    context.update(body);
    ("v1", STANDARD.encode(context.sign()))
}

/// The key's octets: what follows `whsec_` is Base64; any other text stands for itself.
fn octets(secret: &Secret) -> Vec<u8> {
    let text = secret.expose();
    let encoded = text.strip_prefix("whsec_").and_then(|encoded| STANDARD.decode(encoded).ok());
    encoded.unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_614_265_330_999);

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    // The expected values were computed with Python's hmac module.
    const CURRENT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const FORMER: &str = "v1,O4Gjv1HqPqsMrjmczoggs/sWA8gZD0VyHG+fLh4+ktI=";
    const RAW: &str = "v1,hLhnymD3lyr7t/FYJac4UIWW2LPSZaxBsginc1+fO5I=";
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";

    #[test]
    fn a_body_is_signed_with_its_id_and_timestamp() {
        let keys = [secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        assert_eq!(signature(&keys, ID, NOW, BODY).as_deref(), Some(CURRENT));
    }

    #[test]
    fn while_a_key_rotates_there_is_a_signature_for_each() {
        let keys = [
            secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            secret("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ];
        assert_eq!(signature(&keys, ID, NOW, BODY), Some(format!("{CURRENT} {FORMER}")));
    }

    /// The expected value was computed with OpenSSL; the signature of ed25519 is always the same (RFC 8032 §5.1.6).
    #[test]
    fn a_private_key_signs_for_whoever_has_the_public_one() {
        const SEED: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        const WITH_PUBLIC: &str =
            "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==";
        const SIGNED: &str =
            "v1a,yoUrgEkc12aGqm0n4Sydmdz55xJfTz4AsAgieHFjmkR7LJtqVCZOQYzvvHjI5kAey+r4iaBGxTFRrl2iBQxtDQ==";
        for key in [SEED, WITH_PUBLIC] {
            assert_eq!(signature(&[secret(key)], ID, NOW, BODY).as_deref(), Some(SIGNED));
        }
        let both = [secret(SEED), secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        assert_eq!(signature(&both, ID, NOW, BODY), Some(format!("{SIGNED} {CURRENT}")));
        let public = STANDARD.decode("A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=").unwrap();
        let signed = STANDARD.decode(SIGNED.strip_prefix("v1a,").unwrap()).unwrap();
        let message = [format!("{ID}.1614265330.").as_bytes(), BODY].concat();
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
        public.verify(&message, &signed).unwrap();
    }

    #[test]
    fn a_key_without_the_prefix_stands_for_itself() {
        assert_eq!(signature(&[secret("a plain passphrase")], ID, NOW, BODY).as_deref(), Some(RAW));
    }

    #[test]
    fn without_a_key_there_is_no_signature() {
        assert_eq!(signature(&[], ID, NOW, BODY), None);
    }

    #[test]
    fn the_id_is_of_the_delivery_and_has_no_dot() {
        let message = crate::mail::MessageId::floor(Timestamp::from_millis(0));
        let id = id(DeliveryKey { message, n: 7 });
        assert_eq!(id, "msg_00000000000000000000000000_7");
    }
}
