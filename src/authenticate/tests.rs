//! Who is proved to have sent a message: by a signature of ed25519, with keys from a table.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::DkimSigner;

use super::*;
use crate::dns::Table;

const BODY: &str = "To: support@example.com\r\nSubject: hello\r\n\r\nwords\r\n";

/// A message of `big.test`, signed by it; `length`: with `l=`.
fn signed(from: &str, fields: &[&str], length: bool) -> (Dns, String) {
    let key = Ed25519Key::from_pkcs8_der(&Ed25519Key::generate_pkcs8().unwrap()).unwrap();
    let record = format!("v=DKIM1; k=ed25519; p={}", STANDARD.encode(key.public_key()));
    let raw = format!("{from}{BODY}");
    let signer = DkimSigner::from_key(key).domain("big.test").selector("sel").headers(fields.iter().copied());
    let signature = signer.body_length(length).sign(raw.as_bytes()).unwrap();
    let table = Table::default().with_txt("sel._domainkey.big.test", &record).with_txt("big.test", "v=spf1 -all");
    (Dns::table(table).unwrap(), format!("{}{raw}", signature.to_header()))
}

async fn proved(sender: &str, dns: &Dns, raw: &str) -> Proof {
    let client = Client {
        ip: "192.0.2.7".parse().unwrap(),
        port: 4025,
        listener: "127.0.0.1:25".to_owned(),
        helo: Some("mail.big.test".to_owned()),
        esmtp: true,
        tls: None,
        ptr: None,
        auth: None,
        origin: crate::mail::Origin::default(),
    };
    let envelope = Envelope { sender: Some(Address::parse(sender).unwrap()), ..Envelope::default() };
    let octets = Bytes::copy_from_slice(raw.as_bytes());
    let message = Message::new(octets.clone());
    sender_is_proved(dns, Some(&client), &envelope, (&message, async { Ok(octets) })).await
}

#[tokio::test]
async fn a_signature_proves_the_sender_that_is_the_author() {
    let (dns, raw) = signed("From: Ann <ann@big.test>\r\n", &["From", "To"], false);
    assert_eq!(
        proved("ann@BIG.test", &dns, &raw).await,
        Proof::Proved { by: "dkim=pass header.d=big.test".to_owned() }
    );
    // A domain below the signer's.
    let (dns, raw) = signed("From: ann@mail.big.test\r\n", &["From"], false);
    assert!(matches!(proved("ann@mail.big.test", &dns, &raw).await, Proof::Proved { .. }));
}

/// Whoever has an account at a domain that signs for its users would have bounces sent to any of the others.
#[tokio::test]
async fn a_signature_proves_nobody_but_its_author() {
    let (dns, raw) = signed("From: attacker@big.test\r\n", &["From"], false);
    for sender in ["victim@big.test", "Attacker@big.test", "attacker@mail.big.test", "attacker@other.test"] {
        let Proof::NotProved { why } = proved(sender, &dns, &raw).await else { panic!("{sender} is proved") };
        assert!(why.contains("no DKIM signature of its own"), "{why}");
    }
    for from in [
        "From: attacker@big.test, victim@big.test\r\n",
        "From: victim@big.test, attacker@big.test\r\n",
        "From: all: victim@big.test, attacker@big.test;\r\n",
        "From: victim@big.test\r\nFrom: attacker@big.test\r\n",
        "Sender: victim@big.test\r\n",
    ] {
        let (dns, raw) = signed(from, &["From", "To", "Sender"], false);
        assert!(matches!(proved("victim@big.test", &dns, &raw).await, Proof::NotProved { .. }), "{from}");
    }
}

/// RFC 6376 §8.2, §5.4.
#[tokio::test]
async fn a_signature_of_a_part_proves_nobody() {
    for (fields, length) in [(["From", "To"].as_slice(), true), (&["To", "Subject"], false)] {
        let (dns, raw) = signed("From: ann@big.test\r\n", fields, length);
        assert!(matches!(proved("ann@big.test", &dns, &raw).await, Proof::NotProved { .. }), "{fields:?} {length}");
    }
}

/// RFC 6376 §3.2, §6.1.1; RFC 8617 §5.2.
#[tokio::test]
async fn what_two_readers_read_apart_is_verified_by_none() {
    let (dns, raw) = signed("From: ann@big.test\r\n", &["From"], false);
    let proofs = async |raw: String| {
        let header = Header::of(&Arc::new(Message::new(Bytes::from(raw)))).await.unwrap();
        super::proofs(&dns, &header, &Spf::default(), &[], Patience::new(DEADLINE)).await
    };
    assert_eq!(proofs(raw.clone()).await.dkim[0].result, Check::Pass);
    let twice = proofs(raw.replacen("; s=sel;", "; s=other; s=sel;", 1)).await.dkim.remove(0);
    assert_eq!((twice.result, twice.reason.as_str()), (Check::Neutral, "the tag s= is there twice"));
    let arc = proofs(format!("ARC-Seal: i=1; a=rsa-sha256; cv=none; d=big.test; s=sel; b=YQ==\r\n{raw}")).await.arc;
    assert_eq!(arc.result, Check::Fail);
    assert!(arc.reason.starts_with("it is not whole: 1 ARC-Seal, 0 ARC-Message-Signature"), "{}", arc.reason);
    let link = "ARC-Message-Signature: i=1; a=rsa-sha256; d=big.test; s=sel; h=from; bh=YQ==; b=YQ==\r\n\
                ARC-Authentication-Results: i=1; big.test; none\r\n";
    let old = proofs(format!("ARC-Seal: i=1; a=rsa-sha1; cv=none; d=big.test; s=sel; b=YQ==\r\n{link}{raw}")).await.arc;
    assert_eq!((old.result, old.reason.as_str()), (Check::Fail, "rsa-sha1 proves nothing any more"));
}
