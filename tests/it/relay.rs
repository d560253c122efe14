//! How next hops are spoken to: which of them is, what is said, and what their answers mean.

use std::net::Ipv4Addr;

use crate::harness::{Setup, SmtpSink, mail};

/// Forwards to one address.
fn to(address: &str) -> String {
    format!("fn email(message, env, ctx) {{ message.forward(\"{address}\"); }}")
}

/// RFC 5321 §5.1, §3.1: a server that turns us away gives way to the host's other address, and that to the next host.
#[test]
fn a_server_that_turns_us_away_gives_way_to_the_next() {
    let second = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 3), 0).into());
    let first = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 2), second.address.port()).into());
    let backup = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 4), second.address.port()).into());
    let setup = Setup::new().toml(&format!("[relay]\nport = {}", second.address.port()));
    setup.dns.mx("example.net", 10, "mx.example.net").mx("example.net", 20, "backup.example.net");
    setup.dns.a("mx.example.net", Ipv4Addr::new(127, 0, 0, 2)).a("mx.example.net", Ipv4Addr::new(127, 0, 0, 3));
    setup.dns.a("backup.example.net", Ipv4Addr::new(127, 0, 0, 4));
    first.always("CONNECT", "554 5.3.2 no service here");
    let server = setup.start();
    server.send("ann@example.org", &["support@example.com"], &mail("second", "x")).expect(250);
    second.wait_one();
    server.settled();
    second.always("EHLO", "421 4.3.2 closing").always("MAIL", "421 4.3.2 closing");
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("third", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "delivered");
    backup.wait_one();
}

/// RFC 5321 §4.3.2: the first digit decides, whatever comes after it.
#[test]
fn a_571_is_a_refusal_for_good() {
    let sink = SmtpSink::start();
    sink.always("RCPT TO:<team@", "571 5.7.1 not for you");
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("barred", "x")).expect(250);
    let failed = server.wait_event(mark, "failed", |_| true);
    assert!(failed["reason"].as_str().unwrap().contains("571 5.7.1 not for you"), "{failed}");
    assert_eq!(failed["attempts"], 1);
}

/// RFC 5321 §4.2.5: only a 2xx after the dot is a delivery.
#[test]
fn a_354_after_the_dot_is_no_delivery() {
    let sink = SmtpSink::start();
    sink.script(".", ["354 go on"]);
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("more", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    sink.wait_one();
}

/// RFC 6531 §3.4: UTF-8 in an address needs SMTPUTF8 at MAIL, and a domain alone doesn't need that.
#[test]
fn a_domain_beyond_ascii_goes_in_a_labels() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).rules(&to("b@bücher.example")).start();
    server.send("ann@example.org", &["support@example.com"], &mail("domain", "x")).expect(250);
    let arrived = sink.wait_one();
    assert_eq!(arrived.recipients(), ["b@xn--bcher-kva.example"]);
    assert!(!arrived.from.contains("SMTPUTF8"), "{}", arrived.from);
}

/// RFC 3207, RFC 7435: where nothing demands TLS, a handshake that fails is no reason to keep the mail.
#[test]
fn a_handshake_that_fails_is_followed_by_a_session_in_the_clear() {
    let sink = SmtpSink::offering(&["PIPELINING", "STARTTLS"]);
    let server = Setup::relaying_to(&sink).start();
    server.send("ann@example.org", &["support@example.com"], &mail("clear", "x")).expect(250);
    assert!(!sink.wait_one().tls);
    assert_eq!((sink.connections(), sink.commands().iter().filter(|line| *line == "STARTTLS").count()), (2, 1));
}

/// RFC 1870 §6.1: known before it is sent.
#[test]
fn a_message_beyond_the_next_hops_size_is_refused_before_it_is_sent() {
    let sink = SmtpSink::offering(&["PIPELINING", "SIZE 500"]);
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("large", &"x".repeat(600))).expect(250);
    let failed = server.wait_event(mark, "failed", |_| true);
    assert!(failed["reason"].as_str().unwrap().contains("takes 500 octets"), "{failed}");
    assert!(!sink.commands().iter().any(|line| line.starts_with("MAIL")), "{:?}", sink.commands());
}

/// RFC 3461 §5.2.1: what the sender asked for goes on to a next hop that knows it, and to no other.
#[test]
fn dsn_parameters_go_on_to_who_knows_them() {
    let knows = SmtpSink::offering(&["PIPELINING", "DSN"]);
    let server = Setup::relaying_to(&knows).start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ+2B314").expect(250);
    client.command("RCPT TO:<support@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;support@example.com").expect(250);
    client.data(&mail("dsn", "x")).expect(250);
    let arrived = knows.wait_one();
    assert_eq!(arrived.from, "<ann@example.org> RET=HDRS ENVID=QQ+2B314");
    assert_eq!(arrived.to, ["<team@example.net> NOTIFY=FAILURE,DELAY ORCPT=rfc822;support@example.com"]);
    drop(server);

    let bare = SmtpSink::offering(&["PIPELINING"]);
    let server = Setup::relaying_to(&bare).start();
    let mut client = server.client();
    client.command("MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ314").expect(250);
    client.command("RCPT TO:<support@example.com> NOTIFY=FAILURE").expect(250);
    client.data(&mail("bare", "x")).expect(250);
    let arrived = bare.wait_one();
    assert_eq!(
        (arrived.from.as_str(), arrived.to.as_slice()),
        ("<ann@example.org>", &["<team@example.net>".to_owned()][..])
    );
}

/// RFC 2033 §4.2: an answer for each recipient after the dot, and each one's own fate.
#[test]
fn lmtp_recipients_have_a_fate_each() {
    let sink = SmtpSink::lmtp();
    sink.always(".<bad@", "550 5.2.2 mailbox full").script(".<slow@", ["450 4.2.1 later"]);
    let rules = "fn email(message, env, ctx) { message.forward([\"good@example.net\", \"bad@example.net\", \"slow@example.net\"]); }";
    let setup = Setup::new().toml(&format!("[relay]\nsmarthost = \"lmtp://{}\"", sink.address));
    let server = setup.rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], &mail("lmtp", "x")).expect(250);
    server.settled();
    let mails = sink.mails();
    let mut got: Vec<&str> = mails.iter().flat_map(|mail| mail.recipients()).collect();
    got.sort_unstable();
    assert_eq!(got, ["good@example.net", "slow@example.net"]);
    assert_eq!(sink.commands().iter().filter(|line| line.starts_with("RCPT")).count(), 4);
    assert!(server.newest_settled().to_string().contains("550 5.2.2 mailbox full"));
}

/// RFC 5321 §5.1: an MX whose name is an alias is gone to all the same.
#[test]
fn an_mx_behind_an_alias_is_found() {
    let sink = SmtpSink::start();
    let setup = Setup::new().toml(&format!("[relay]\nport = {}", sink.address.port()));
    setup.dns.mx("example.net", 10, "mx.example.net").cname("mx.example.net", "host.example.org");
    setup.dns.a("host.example.org", Ipv4Addr::LOCALHOST);
    let server = setup.start();
    server.send("ann@example.org", &["support@example.com"], &mail("alias", "x")).expect(250);
    sink.wait_one();
}

/// `[relay] require_tls`: nothing goes in the clear, or to a host that nobody vouches for.
#[test]
fn require_tls_keeps_mail_from_an_mx_without_a_certificate() {
    let certificate = crate::harness::Certificate::for_name("mx.example.net");
    for sink in [SmtpSink::start(), SmtpSink::with_tls(&certificate)] {
        let setup = Setup::new().toml(&format!("[relay]\nrequire_tls = true\nport = {}", sink.address.port()));
        setup.dns.mx("example.net", 10, "mx.example.net").a("mx.example.net", Ipv4Addr::LOCALHOST);
        let mut server = setup.start();
        let mark = server.log.mark();
        server.send("ann@example.org", &["support@example.com"], &mail("secured", "x")).expect(250);
        server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
        assert!(sink.mails().is_empty());
        server.leaves_queue();
    }
}
