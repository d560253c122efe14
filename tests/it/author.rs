//! Who a message is from, where somebody writes it so that one reader sees another author than the next: whose policy is
//! asked for, whose signature speaks for it, and what a DNS that is slow on purpose changes.

use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::{Ed25519Key, Sha256, SigningKey};
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::{ArcOutput, AuthenticatedMessage, AuthenticationResults, DmarcOutput, DmarcResult};

use crate::harness::stranger::{PROXIED, STRANGER, greeted, greeted_as};
use crate::harness::{Client, Server, Setup};
use crate::sender::{checked, key, letter, signed_by, signed_with};

const DROPS: &str = "fn email(message, env, ctx) { message.drop(); }";
/// A look-up that isn't answered takes longer than a check may.
const IMPATIENT: &str = "[authentication]\ntimeout = \"2 s\"\n[dns]\ntimeout = \"30 s\"";
const STRICT: &str = "[[domain]]\nname = \"example.com\"\npostmaster = \"admin@example.net\"\nspf_fail = \"reject\"";

/// Strangers, whose crook may send for `evil.example`; `bank.example` has everything else refused.
fn setup() -> Setup {
    let setup = Setup::new().toml(PROXIED).rules(DROPS);
    setup.dns.txt("_dmarc.bank.example", "v=DMARC1; p=reject").txt("evil.example", "v=spf1 ip4:192.0.2.0/24 -all");
    setup
}

#[test]
fn an_author_that_is_written_to_be_overlooked_is_judged_all_the_same() {
    let server = setup().start();
    let mut client = greeted(&server, STRANGER);
    let many = format!("{}ceo@bank.example", "a@evil.example,\r\n ".repeat(5000));
    for from in [
        "To: x\r\ngarbage\r\nFrom: ceo@bank.example\r\n",
        "From: me@evil.example\r\ngarbage\r\nFrom: ceo@bank.example\r\n",
        "From: ceo@bank.example.\r\n",
        "From: ceo@x..bank.example\r\n",
        "From: ceo@-x.bank.example\r\n",
        "From: <ceo@bank.example> <x@evil.example>\r\n",
        "From: ceo@bank (x) .example\r\n",
        "From: =?utf-8?q?ceo=40bank.example?=\r\n",
        &format!("From: ceo@{}.bank.example\r\n", "x".repeat(64)),
        &format!("From: ceo@{}bank.example\r\n", "x.".repeat(118)),
        &format!("From: {many}\r\n"),
        &format!("{}From: ceo@bank.example\r\n", format!("X: {}\r\n", "x".repeat(900)).repeat(400)),
    ] {
        let message = format!("{from}Subject: x\r\n\r\nwords\r\n");
        let answer = client.send("crook@evil.example", &["support@example.com"], message.as_bytes());
        assert!(answer.code == 550 && answer.text().contains("dmarc=fail"), "{:?}: {}", from.get(..60), answer.text());
    }
    client.send("crook@evil.example", &["support@example.com"], &letter("me@evil.example.", "x")).expect(250);
}

/// A mailer that leaves a quote open is no forger: what its author's domain asks for is done, as with all that nobody speaks for.
#[test]
fn an_author_who_is_written_badly_is_judged_by_the_one_domain_it_can_be_of() {
    let setup = setup();
    setup.dns.txt("odd.example", "v=spf1 ip4:192.0.2.0/24 -all");
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    for from in [
        "Foo :( <foo@DOMAIN>",
        "O\"Brien <foo@DOMAIN>",
        "\"Foo \\\" <foo@DOMAIN>",
        "Foo <foo@DOMAIN> <foo@DOMAIN>",
        "<foo@DOMAIN",
    ] {
        let of = |domain: &str| letter(&from.replace("DOMAIN", domain), "x");
        client.send("foo@odd.example", &["support@example.com"], &of("odd.example")).expect(250);
        let told = format!("its From can be read in more than one way: {}", from.replace("DOMAIN", "odd.example"));
        assert_eq!(dmarc(&server), ("none".to_owned(), told));
        let refused = client.send("foo@odd.example", &["support@example.com"], &of("bank.example"));
        let refused = refused.expect_status(550, "5.7.1");
        let why =
            "Its From can be read in more than one way, so that nobody speaks for bank.example, whose DMARC policy";
        assert!(refused.lines.len() == 1 && refused.text().contains(why), "{}", refused.text());
        assert!(!refused.text().contains("foo@") && !refused.text().contains("Foo"), "{}", refused.text());
        assert_eq!(dmarc(&server).0, "fail");
    }
    // One reader sees an author at `b`.
    let doubtful = letter("a@b:c <foo@odd.example>", "x");
    let refused = client.send("foo@odd.example", &["support@example.com"], &doubtful).expect_status(550, "5.7.1");
    let why = "5.7.1 Its From can be read in more than one way, so that nobody speaks for its author (dmarc=fail)";
    assert_eq!(refused.text(), why);
    assert_eq!(dmarc(&server).1, "p=reject its From can be read in more than one way: a@b:c <foo@odd.example>");
}

/// What DMARC came to for the newest message, and why.
fn dmarc(server: &Server) -> (String, String) {
    let newest = server.newest();
    let trace = newest["trace"].as_array().unwrap();
    let told = trace.iter().find(|event| event["event"] == "authenticated").unwrap();
    let one = told["checks"].as_array().unwrap().iter().find(|one| one["check"] == "dmarc").unwrap();
    let text = |name: &str| one[name].as_str().unwrap().to_owned();
    (text("result"), text("reason"))
}

/// Nobody speaks for a From that may be read otherwise, not its own SPF nor its own signature.
#[test]
fn who_speaks_for_an_author_speaks_for_none_that_is_written_badly() {
    let setup = setup();
    let (signed, record) = signed_by("bank.example", &letter("Foo :( <foo@bank.example>", "x"));
    setup.dns.txt("sel._domainkey.bank.example", &record).txt("bank.example", "v=spf1 ip4:192.0.2.0/24 -all");
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    client.send("foo@bank.example", &["support@example.com"], &signed).expect_status(550, "5.7.1");
    assert_eq!((checked(&server, "spf").0, checked(&server, "dmarc").0), ("pass".to_owned(), "fail".to_owned()));
    assert!(dmarc(&server).1.ends_with("more than one way: Foo :( <foo@bank.example>"), "{:?}", dmarc(&server));
    client.send("foo@bank.example", &["support@example.com"], &letter("foo@bank.example", "y")).expect(250);
}

/// mail-auth ends a header at a line without a colon, and what follows is the text that was signed; all others read on.
#[test]
fn a_signature_of_a_header_that_ends_sooner_speaks_for_nobody() {
    let setup = setup();
    let (signed, record) = signed_by("bank.example", &letter("ceo@bank.example", "x"));
    setup.dns.txt("sel._domainkey.bank.example", &record);
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    client.send("crook@evil.example", &["support@example.com"], &signed).expect(250);
    assert_eq!(checked(&server, "dkim"), ("pass".to_owned(), "bank.example".to_owned()));
    let signed = String::from_utf8(signed).unwrap();
    let sooner = signed.replacen("\r\n\r\n", "\r\ngarbage\r\n", 1);
    client.send("crook@evil.example", &["support@example.com"], sooner.as_bytes()).expect_status(550, "5.7.1");
    assert_eq!(checked(&server, "dkim"), ("policy".to_owned(), "bank.example".to_owned()));
    // A second From of the same domain is shown, and the signature holds the other.
    let second = format!("From: chairman@bank.example\r\n{signed}");
    client.send("crook@evil.example", &["support@example.com"], second.as_bytes()).expect_status(550, "5.7.1");
}

#[test]
fn a_signature_that_names_too_many_fields_is_not_verified() {
    let server = setup().start();
    let mut client = greeted(&server, STRANGER);
    let message = letter("ann@example.org", "x");
    let fields = "X: y\r\n".repeat(5000);
    for (message, names) in [
        (message.clone(), vec!["From"; 101]),
        ([fields.as_bytes(), &message].concat(), vec!["From"; 50]),
        ([format!("X: {}\r\n", "x".repeat(900)).repeat(400).as_bytes(), &message].concat(), vec!["From"]),
    ] {
        let (signed, _) = signed_with("example.org", &message, &names);
        client.send("ann@example.org", &["support@example.com"], &signed).expect(250);
        assert_eq!(checked(&server, "dkim").0, "policy", "{} names", names.len());
    }
    assert_eq!(server.dns.asked("sel._domainkey.example.org"), 0);
}

/// The key isn't there now; later it may be, and then the signature may hold.
#[test]
fn a_key_that_dns_does_not_give_refuses_nobody_whom_it_may_speak_for() {
    let setup = setup().toml(IMPATIENT).toml(STRICT);
    let (signed, _) = signed_by("example.org", &letter("ann@example.org", "x"));
    let (others, _) = signed_by("silent.example", &letter("ann@example.org", "y"));
    setup.dns.txt("example.org", "v=spf1 -all").txt("_dmarc.example.org", "v=DMARC1; p=reject");
    setup.dns.hush("_domainkey.example.org").hush("_domainkey.silent.example");
    // It publishes no policy.
    let (plain, _) = signed_by("example.net", &letter("ann@example.net", "x"));
    setup.dns.txt("example.net", "v=spf1 -all").hush("_domainkey.example.net");
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    client.send("ann@example.org", &["support@example.com"], &signed).expect(250);
    for (check, result) in [("spf", "fail"), ("dkim", "temperror"), ("dmarc", "temperror")] {
        assert_eq!(checked(&server, check).0, result, "{check}");
    }
    client.send("ann@example.net", &["support@example.com"], &plain).expect(250);
    let (foreign, _) = signed_by("silent.example", &letter("ann@example.net", "y"));
    client.send("ann@example.net", &["support@example.com"], &foreign).expect_status(550, "5.7.23");
    client.send("ann@example.org", &["support@example.com"], &others).expect_status(550, "5.7.1");
    // Nor is a key that nobody could ever be asked for one that DNS doesn't give.
    for selector in ["x".repeat(64), format!("{}x", "x.".repeat(120)), "x..y".to_owned()] {
        let never = String::from_utf8(signed.clone()).unwrap().replacen("s=sel;", &format!("s={selector};"), 1);
        assert!(never.contains(&selector));
        client.send("ann@example.org", &["support@example.com"], never.as_bytes()).expect_status(550, "5.7.1");
    }
    // Nor does SPF refuse where nobody knows what it says.
    server.dns.hush("away.example");
    client.send("ann@away.example", &["support@example.com"], &letter("ann@away.example", "z")).expect(250);
    assert_eq!(checked(&server, "spf"), ("temperror".to_owned(), "away.example".to_owned()));
}

/// Names that are the sender's own, and answer as late as it likes.
#[test]
fn a_slow_dns_of_the_senders_takes_no_time_from_its_authors() {
    let setup = setup().toml(IMPATIENT);
    let (signed, _) = signed_by("slow.example", &letter("ceo@bank.example", "x"));
    setup.dns.hush("slow.example").txt("bank.example", "v=spf1 ptr -all");
    for number in 0..10 {
        setup.dns.ptr(STRANGER, &format!("n{number}.slow.example"));
    }
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    client.send("crook@slow.example", &["support@example.com"], &signed).expect_status(550, "5.7.1");
    for (check, result) in [("spf", "temperror"), ("dkim", "temperror"), ("dmarc", "fail")] {
        assert_eq!(checked(&server, check).0, result, "{check}");
    }
    // What the author's own record asks is the names of the client.
    client
        .send("ceo@bank.example", &["support@example.com"], &letter("ceo@bank.example", "y"))
        .expect_status(550, "5.7.1");
    assert_eq!(checked(&server, "spf"), ("fail".to_owned(), "bank.example".to_owned()));
    let among = letter("a@one.slow.example, b@two.slow.example, ceo@bank.example", "x");
    client.send("crook@evil.example", &["support@example.com"], &among).expect_status(550, "5.7.1");
}

/// A name of the client's in the author's own record, whose DNS is away: by what it calls itself, or by its sender.
#[test]
fn a_dns_that_the_client_chose_leaves_no_failure_open() {
    let setup = setup().toml(IMPATIENT).toml(
        "[[route]]\nmatch = \"vault@example.com\"\nunless = { auth = { passed = true } }\naction = \"reject\"\ntext = \"no\"",
    );
    setup.dns.hush("slow.example");
    for (number, record) in ["exists:%{h}", "a:%{h}", "include:%{h}", "exists:%{l}"].into_iter().enumerate() {
        let domain = format!("n{number}.bank.example");
        setup.dns.txt(&domain, &format!("v=spf1 {record} ip4:198.51.100.1 -all"));
    }
    setup.dns.txt("redirect.bank.example", "v=spf1 redirect=%{h}").txt("lax.example", "v=spf1 exists:%{h} -all");
    setup.dns.txt("own.bank.example", "v=spf1 exists:%{h}._spf.bank.example -all").hush("_spf.bank.example");
    let server = setup.start();
    let mut client = greeted_as(&server, STRANGER, "slow.example");
    for author in ["a@n0.bank.example", "a@n1.bank.example", "a@n2.bank.example", "x.slow.example@n3.bank.example"] {
        let refused = client.send(author, &["support@example.com"], &letter(author, "x"));
        refused.expect_status(550, "5.7.1");
        assert_eq!((checked(&server, "spf").0, dmarc(&server).0), ("policy".to_owned(), "fail".to_owned()), "{author}");
    }
    let ceo = "ceo@redirect.bank.example";
    client.send(ceo, &["support@example.com"], &letter(ceo, "x")).expect_status(550, "5.7.1");
    // Who publishes no policy is proved by nobody either, now or later.
    let lax = "ann@lax.example";
    client.send(lax, &["vault@example.com"], &letter(lax, "x")).expect_status(550, "5.7.1");
    // The author's own DNS is away: nothing is certain.
    let own = "ceo@own.bank.example";
    client.send(own, &["support@example.com"], &letter(own, "x")).expect(250);
    assert_eq!((checked(&server, "spf").0, dmarc(&server).0), ("temperror".to_owned(), "temperror".to_owned()));
}

/// The message with a first link, which saw DMARC pass and seals these fields.
fn sealed<K: SigningKey<Hasher = Sha256>>(key: K, message: &[u8], fields: &[&str]) -> Vec<u8> {
    let seen = DmarcOutput::new("bank.example".to_owned()).with_spf_result(DmarcResult::Pass);
    let results = AuthenticationResults::new("list.example").with_dmarc_result(&seen);
    let sealer = ArcSealer::from_key(key).domain("list.example").selector("sel").headers(fields.iter().copied());
    let parsed = AuthenticatedMessage::parse(message).unwrap();
    let set = sealer.seal(&parsed, &results, &ArcOutput::default()).unwrap();
    [set.to_header().as_bytes(), message].concat()
}

#[test]
fn a_trusted_chain_vouches_for_the_one_author_that_it_holds() {
    let (pair, record) = key();
    let seal = |fields: &[&str]| {
        let key = Ed25519Key::from_pkcs8_der(&pair).unwrap();
        String::from_utf8(sealed(key, &letter("ceo@bank.example", "x"), fields)).unwrap()
    };
    let setup = setup().toml("[authentication]\ntrusted_sealers = [\"list.example\"]");
    setup.dns.txt("sel._domainkey.list.example", &record);
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    let whole = seal(&["From", "Subject"]);
    client.send("a@list.example", &["support@example.com"], whole.as_bytes()).expect(250);
    for message in [
        format!("From: chairman@bank.example\r\n{whole}"),
        whole.replacen("\r\n\r\n", "\r\ngarbage\r\n", 1),
        seal(&["Subject"]),
    ] {
        client.send("a@list.example", &["support@example.com"], message.as_bytes()).expect_status(550, "5.7.1");
        assert_eq!(checked(&server, "arc").0, "pass", "{message}");
    }
}

#[test]
fn a_header_of_more_fields_than_are_read_is_refused() {
    let server = Setup::new().rules(DROPS).start();
    let forged = "Authentication-Results: mx.example.com; dmarc=pass\r\n";
    let letter = |fields: usize| format!("{}{forged}From: a@example.org\r\n\r\nx\r\n", "X: y\r\n".repeat(fields));
    let mut client = Client::greeted(server.smtp());
    let refused = client.send("a@example.org", &["support@example.com"], letter(9_999).as_bytes());
    assert!(refused.expect_status(550, "5.6.0").text().contains("10000 fields"));
    client.send("a@example.org", &["support@example.com"], letter(9_998).as_bytes()).expect(250);
    // One that is too large for the memory is looked at no less.
    let large = format!("{}{}", letter(9_999), "x\r\n".repeat(1_000_000));
    client.send("a@example.org", &["support@example.com"], large.as_bytes()).expect_status(550, "5.6.0");
}
