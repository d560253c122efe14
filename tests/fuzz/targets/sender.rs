//! Who sends a message of any octets: nobody's domain is spoken for by another, what is told of it is a field of ours that
//! says the same and nothing else, and it comes to the same each time.
#![no_main]

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mailworker::authenticate::{self, Header, Patience};
use mailworker::dns::{Dns, Table};
use mailworker::mail::authentication::{self, Authentication, Check, Iprev, Scope, Spf, is_same_organisation};
use mailworker::mail::{Address, Client, Message, Origin, results};

const OURS: &str = "mx.example.com";
/// Whom SPF vouches for.
const SENDER: &str = "a.example";
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    static WORLD: OnceCell<(tokio::runtime::Runtime, Dns)> = const { OnceCell::new() };
}

fn world() -> (tokio::runtime::Runtime, Dns) {
    // The keys of RFC 6376 appendix A.2 and RFC 8463 appendix A.3, whose signed messages it starts from.
    let rsa = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2\
               jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3\
               G+2kryOTIKT+l/K4w3QIDAQAB";
    let ed25519 = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let table = Table::default()
        .with_txt("_dmarc.a.example", "v=DMARC1; p=reject")
        .with_txt("_dmarc.b.example", "v=DMARC1; p=quarantine; adkim=s; aspf=s")
        .with_txt("_dmarc.football.example.com", "v=DMARC1; p=none")
        .with_txt("test._domainkey.football.example.com", rsa)
        .with_txt("brisbane._domainkey.football.example.com", ed25519)
        .with_txt("brisbane._domainkey.a.example", ed25519)
        .with_failure("_dmarc.away.example", "SERVFAIL")
        .with_failure("brisbane._domainkey.away.example", "SERVFAIL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let dns = runtime.block_on(async { Dns::table(table) }).expect("a table");
    (runtime, dns)
}

fn looked_into(message: &Arc<Message>) -> Authentication {
    let sealers = [SENDER.to_owned()];
    let spf = Spf { result: Check::Pass, domain: SENDER.to_owned(), scope: Scope::Mfrom, reason: String::new() };
    WORLD.with(|known| {
        let (runtime, dns) = known.get_or_init(world);
        runtime.block_on(async {
            let header = Header::of(message).await.expect("nobody stops it");
            let proofs = authenticate::proofs(dns, &header, &spf, &sealers, Patience::new(PATIENCE)).await;
            let iprev = Iprev { result: Check::Pass, name: message.subject().unwrap_or_default() };
            let (dkim, dmarc, arc) = (proofs.dkim, proofs.dmarc, proofs.arc);
            Authentication { iprev, spf, dkim, dmarc, arc, ..Authentication::default() }
        })
    })
}

/// A pass of DMARC says that each author's domain has sent it, whoever reads From.
fn check_authors(message: &Message, auth: &Authentication) {
    if auth.dmarc.result != Check::Pass {
        return;
    }
    let signed = auth.dkim.iter().filter(|signature| signature.result == Check::Pass);
    let speaking: Vec<&str> = signed.map(|signature| signature.domain.as_str()).chain([SENDER]).collect();
    let authors = message.authors().expect("From was read to its end");
    let addresses = authors.iter().filter_map(|author| author.address.as_deref());
    for domain in addresses.filter_map(|address| address.rsplit_once('@')).map(|(_, domain)| domain) {
        let domain = mailworker::mail::address::domain_key(domain.trim());
        let domain = domain.trim_end_matches('.');
        let is_spoken_for = speaking.iter().any(|speaking| is_same_organisation(speaking, domain));
        assert!(is_spoken_for || domain.starts_with('['), "{domain} isn't spoken for: {auth:?}");
    }
}

/// What is told of it is one field, whatever the peer's words are.
fn check_field(message: &Message, auth: &Authentication) -> String {
    let client = Client {
        ip: [192, 0, 2, 7].into(),
        port: 4025,
        listener: String::new(),
        helo: message.subject(),
        esmtp: true,
        tls: None,
        ptr: None,
        auth: None,
        origin: Origin::default(),
    };
    let sender = message.header_from().and_then(|from| Address::parse(&from).ok());
    let field = results::written(OURS, &client, sender.as_ref(), auth);
    assert!(field.ends_with("\r\n"), "{field:?}");
    for (at, line) in field.split_terminator("\r\n").enumerate() {
        assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']) && !line.trim().is_empty(), "{line:?}");
        assert_eq!(line.starts_with([' ', '\t']), at > 0, "{field:?}");
    }
    let value = field.split_once(':').expect("a field").1.as_bytes();
    assert!(results::bears(value, OURS));
    for (method, came_to) in [("dmarc", auth.dmarc.result), ("arc", auth.arc.result), ("iprev", auth.iprev.result)] {
        assert_eq!(results::says(value, method, "pass"), came_to == Check::Pass, "{method} in {field:?}");
    }
    field
}

fuzz_target!(|raw: &[u8]| {
    let message = Arc::new(Message::new(Bytes::copy_from_slice(raw)));
    let auth = looked_into(&message);
    assert!(auth.dkim.len() <= 32, "{} signatures", auth.dkim.len());
    let is_trusted = |seal: &authentication::Seal| seal.domain.ends_with(SENDER);
    assert!(!auth.arc.trusted || auth.arc.result == Check::Pass && auth.arc.chain.iter().all(is_trusted), "{auth:?}");
    check_authors(&message, &auth);
    assert_eq!(auth, looked_into(&message), "it depends on nothing else");
    let field = check_field(&message, &auth);
    for (_, value) in message.headers() {
        let _ = (results::instance(value), results::says(value, "dmarc", "pass"));
    }
    // Said by another, it is forged, wherever it stands.
    let forged = Message::received_by(OURS, Bytes::from([field.as_bytes(), raw].concat()));
    assert!(forged.forged().first().is_some_and(|place| place.start == 0 && place.end >= field.len()), "{field:?}");
    let mut end = 0;
    for place in forged.forged() {
        assert!(end <= place.start && place.start < place.end && place.end <= forged.headers_end(), "{place:?}");
        assert!(forged.raw()[place.clone()].to_ascii_lowercase().starts_with(b"authentication-results"), "{place:?}");
        end = place.end;
    }
});
