//! What was accepted goes on until it is there, and what can't is told about.

use std::net::Ipv4Addr;

use crate::example::verify;
use crate::harness::{HttpSink, Setup, SmtpSink, mail};

#[test]
fn a_temporary_refusal_is_tried_again() {
    let sink = SmtpSink::start();
    sink.script("RCPT", ["450 4.2.1 mailbox busy"])
        .script(".", ["451 4.3.0 try later"])
        .script("MAIL", ["421 4.7.0 slow down"]);
    let server = Setup::relaying_to(&sink).start();
    let message = mail("again", "x");
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    sink.wait_one().prepended_to(&message);
    let newest = server.newest_settled();
    let answers: Vec<&str> = attempts(&newest).iter().filter_map(|attempt| attempt["outcome"].as_str()).collect();
    assert_eq!(answers, ["later", "later", "later", "delivered"], "{newest:#}");
}

fn attempts(message: &serde_json::Value) -> Vec<&serde_json::Value> {
    message["trace"].as_array().unwrap().iter().filter(|event| event["event"] == "attempted").collect()
}

#[test]
fn a_next_hop_that_is_away_is_tried_again() {
    let gone = SmtpSink::start();
    let address = gone.address;
    let server = Setup::relaying_to(&gone).start();
    drop(gone);
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("away", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    let sink = SmtpSink::at(address);
    sink.wait_one();
    server.settled();
}

/// One message, several recipients at one next hop: those refused fail, the others get it.
#[test]
fn recipients_fail_one_by_one() {
    let sink = SmtpSink::start();
    sink.always("RCPT TO:<bad@", "550 5.1.1 no such user").script("RCPT TO:<slow@", ["450 4.2.1 later"]);
    let rules = "fn email(message, env, ctx) { message.forward([\"good@example.net\", \"bad@example.net\", \"slow@example.net\"]); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    server.send("ann@example.org", &["support@example.com"], &mail("three", "x")).expect(250);
    server.settled();
    let mails = sink.mails();
    let mut got: Vec<&str> = mails.iter().flat_map(|mail| mail.recipients()).collect();
    got.sort_unstable();
    assert_eq!(got, ["good@example.net", "slow@example.net"]);
    let newest = server.newest_settled();
    assert!(newest.to_string().contains("550 5.1.1 no such user"), "{newest:#}");
}

/// Never backscatter: a sender that neither SPF nor DKIM proves gets no bounce.
#[test]
fn an_unproved_sender_gets_no_bounce() {
    let sink = SmtpSink::start();
    sink.always("RCPT TO:<team@", "550 5.1.1 no such user");
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("unproved", "x")).expect(250);
    server.wait_event(mark, "notice_suppressed", |_| true);
    server.settled();
    assert!(sink.mails().is_empty(), "{:?}", sink.mails());
}

/// RFC 3464: a sender that SPF proves is told, from the null sender, with the next hop's words.
#[test]
fn a_proved_sender_gets_a_bounce() {
    let sink = SmtpSink::start();
    sink.always("RCPT TO:<team@", "550 5.1.1 no such user");
    let setup = Setup::relaying_to(&sink);
    setup.dns.txt("example.org", "v=spf1 ip4:127.0.0.0/8 -all");
    let server = setup.start();
    server.send("ann@example.org", &["support@example.com"], &mail("proved", "secret words")).expect(250);
    let bounce = sink.wait_one();
    assert_eq!(bounce.recipients(), ["ann@example.org"]);
    assert!(bounce.from.starts_with("<>"), "{}", bounce.from);
    let text = bounce.text();
    for part in [
        "multipart/report",
        "message/delivery-status",
        "Status: 5.1.1",
        "Action: failed",
        "no such user",
        "Subject: proved",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    server.settled();
}

#[test]
fn a_bounce_is_never_bounced() {
    let sink = SmtpSink::start();
    sink.always("RCPT", "550 5.1.1 no such user");
    let server = Setup::relaying_to(&sink).start();
    server.send("", &["support@example.com"], &mail("null", "x")).expect(250);
    server.settled();
    assert!(sink.mails().is_empty());
}

/// RFC 5321 §5.1: by preference; one that refuses the connection is passed over.
#[test]
fn mail_goes_to_the_best_mx_that_is_there() {
    let second = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 3), 0).into());
    let setup = Setup::new().toml(&format!("[relay]\nport = {}", second.address.port()));
    setup.dns.mx("example.net", 10, "mx1.example.net").mx("example.net", 20, "mx2.example.net");
    setup.dns.a("mx1.example.net", Ipv4Addr::new(127, 0, 0, 2)).a("mx2.example.net", Ipv4Addr::new(127, 0, 0, 3));
    let server = setup.start();
    server.send("ann@example.org", &["support@example.com"], &mail("second", "x")).expect(250);
    second.wait_one();
    server.settled();

    let first = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 2), second.address.port()).into());
    server.send("ann@example.org", &["support@example.com"], &mail("first", "x")).expect(250);
    server.settled();
    assert_eq!(first.mails().len() + second.mails().len(), 2);
}

/// RFC 5321 §5.1: no MX, then the address itself.
#[test]
fn without_mx_mail_goes_to_the_address() {
    let sink = SmtpSink::start();
    let setup = Setup::new().toml(&format!("[relay]\nport = {}", sink.address.port()));
    setup.dns.a("example.net", Ipv4Addr::LOCALHOST);
    let server = setup.start();
    server.send("ann@example.org", &["support@example.com"], &mail("by-address", "x")).expect(250);
    sink.wait_one();
}

/// RFC 7505: a null MX is an answer for good.
#[test]
fn a_null_mx_fails_at_once() {
    let setup = Setup::new();
    setup.dns.mx("example.net", 0, ".");
    let server = setup.start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("null-mx", "x")).expect(250);
    server.wait_event(mark, "failed", |_| true);
    server.settled();
}

/// RFC 5321 §5.1: no answer is no «there is none».
#[test]
fn a_name_server_that_fails_is_asked_again() {
    let sink = SmtpSink::start();
    let setup = Setup::new().toml(&format!("[relay]\nport = {}", sink.address.port()));
    setup.dns.a("example.net", Ipv4Addr::LOCALHOST).fail("example.net");
    let server = setup.start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("servfail", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    server.dns.mend("example.net");
    sink.wait_one();
}

/// An MX that points into private networks is not spoken to unless `[egress]` allows it.
#[test]
fn an_mx_in_a_private_network_is_refused() {
    let sink = SmtpSink::start();
    let setup = Setup::new().toml(&format!("[relay]\nport = {}\n[egress]\nallow = []", sink.address.port()));
    setup.dns.mx("example.net", 10, "mx.example.net").a("mx.example.net", Ipv4Addr::LOCALHOST);
    let mut server = setup.start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("private", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] != "delivered");
    assert_eq!(sink.connections(), 0);
    server.leaves_queue();
}

#[test]
fn a_named_destination_speaks_lmtp() {
    let sink = SmtpSink::lmtp();
    let destination = format!("[[destination]]\nname = \"archive\"\nsmarthost = \"lmtp://{}\"", sink.address);
    let rules = "fn email(message, env, ctx) { message.forward(\"archive\"); }";
    let server = Setup::new().toml(&destination).rules(rules).start();
    let message = mail("archived", "x");
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    sink.wait_one().prepended_to(&message);
    assert!(sink.commands().iter().any(|line| line.starts_with("LHLO")), "{:?}", sink.commands());
}

#[test]
fn messages_to_one_destination_share_a_connection() {
    let sink = SmtpSink::start();
    let server = Setup::relaying_to(&sink).toml("[relay]\nconcurrency = 1").start();
    let mut client = server.client();
    for n in 0..20 {
        client.send("ann@example.org", &["support@example.com"], &mail(&format!("shared-{n}"), "x")).expect(250);
    }
    sink.wait(20);
    assert!(sink.connections() < 10, "{} connections", sink.connections());
}

const HOOK_RULES: &str = "fn email(message, env, ctx) { ctx.webhook(\"HOOK\", #{ subject: message.subject }); }";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn hook_setup(hook: &HttpSink) -> Setup {
    let webhook = format!(
        "[[webhook]]\nbinding = \"HOOK\"\nurl = \"{}\"\nsecret = {{ file = \"webhook.key\" }}\ntimeout = \"5 s\"",
        hook.url("/hook?x=1")
    );
    Setup::new().toml(&webhook).rules(HOOK_RULES).file("webhook.key", &format!("{SECRET}\n"))
}

/// The id stays, the time and so the signature are new on each try (Standard Webhooks).
#[test]
fn a_webhook_is_tried_again_under_the_same_id() {
    let hook = HttpSink::start();
    hook.script(["500 Oops", "302 Found\r\nLocation: /elsewhere"]);
    let server = hook_setup(&hook).start();
    server.send("ann@example.org", &["support@example.com"], &mail("hooked", "x")).expect(250);
    let requests = hook.wait(3);
    server.settled();
    for request in &requests {
        verify(request, SECRET);
        assert_eq!(request.path, "/hook?x=1");
        assert_eq!(request.header("webhook-id"), requests[0].header("webhook-id"));
        assert_eq!(request.json()["subject"], "hooked");
    }
    assert_eq!(hook.requests().len(), 3);
}

#[test]
fn a_webhook_that_keeps_failing_is_kept_and_can_be_sent_again() {
    let hook = HttpSink::start();
    hook.script(["500 a", "500 b", "500 c"]);
    let server = hook_setup(&hook).start();
    server.send("ann@example.org", &["support@example.com"], &mail("dead", "x")).expect(250);
    let dead = server.wait_until("the dead letter", || server.queue().into_iter().find(|entry| entry["dead"] == true));
    assert_eq!(dead["attempts"], 3, "{dead}");
    assert!(dead["last_error"].as_str().unwrap().contains("500"), "{dead}");
    server.stdout(&["queue", "retry", "--all"]);
    hook.wait(4);
    server.wait_until("the queue is empty", || server.queue().is_empty().then_some(()));
}

/// Standard Webhooks: 410 disables an endpoint. What is there for it is kept, over a restart too, until an admin asks.
#[test]
fn an_endpoint_that_says_410_is_left_alone_until_an_admin_tries_again() {
    let hook = HttpSink::start();
    hook.script(["410 Gone"]);
    let mut server = hook_setup(&hook).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("first", "x")).expect(250);
    let told = server.wait_event(mark, "endpoint_disabled", |_| true);
    assert_eq!(told["endpoint"], "HOOK", "{told}");
    server.stop();
    server.run();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("second", "x")).expect(250);
    let failed = server.wait_event(mark, "failed", |_| true);
    assert!(failed["reason"].as_str().unwrap().contains("it answered 410 at"), "{failed}");
    assert_eq!(hook.requests().len(), 1);
    server.wait_until("two dead letters", || (server.queue().len() == 2).then_some(()));

    server.stdout(&["queue", "retry", "--all"]);
    hook.wait(3);
    server.wait_until("the queue is empty", || server.queue().is_empty().then_some(()));
    server.stop();
    server.run();
    server.send("ann@example.org", &["support@example.com"], &mail("third", "x")).expect(250);
    hook.wait(4);
}

/// Another URL is another endpoint.
#[test]
fn an_endpoint_with_a_new_url_is_asked() {
    let hook = HttpSink::start();
    hook.script(["410 Gone"]);
    let server = hook_setup(&hook).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("first", "x")).expect(250);
    server.wait_event(mark, "endpoint_disabled", |_| true);
    let mark = server.log.mark();
    let config = std::fs::read_to_string(server.path().join("mailworker.toml")).unwrap();
    server.write("mailworker.toml", &config.replace("/hook?x=1", "/other"));
    server.wait_event(mark, "reloaded", |_| true);
    server.send("ann@example.org", &["support@example.com"], &mail("second", "x")).expect(250);
    assert_eq!(hook.wait(2)[1].path, "/other");
}

#[test]
fn what_is_dropped_from_the_queue_is_gone() {
    let sink = SmtpSink::start();
    sink.always("MAIL", "450 4.7.1 not now");
    let server = Setup::relaying_to(&sink).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("drop-me", "x")).expect(250);
    server.wait_event(mark, "attempted", |event| event["outcome"] == "later");
    server.wait_until("it is dropped", || {
        server.stdout(&["queue", "drop", "--all"]);
        server.queue().is_empty().then_some(())
    });
    sink.as_usual();
    assert!(sink.mails().is_empty());
}

/// RFC 3207: taken whenever it is offered, certificate unchecked unless the setting demands it.
#[test]
fn starttls_is_taken_when_the_next_hop_offers_it() {
    let certificate = crate::harness::Certificate::for_name("sink.example.net");
    let sink = SmtpSink::with_tls(&certificate);
    let server = Setup::relaying_to(&sink).start();
    let message = mail("encrypted", "x");
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    let arrived = sink.wait_one();
    assert!(arrived.tls);
    arrived.prepended_to(&message);
}

/// RFC 6531 §3.2: an address in UTF-8 can't go to a next hop without SMTPUTF8.
#[test]
fn utf8_fails_where_the_next_hop_has_none() {
    let sink = SmtpSink::offering(&["8BITMIME", "PIPELINING"]);
    let rules = "fn email(message, env, ctx) { message.forward(\"grüße@example.net\"); }";
    let server = Setup::relaying_to(&sink).rules(rules).start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &mail("utf8", "x")).expect(250);
    server.wait_event(mark, "failed", |_| true);
    server.settled();
    assert!(sink.mails().is_empty());
}

/// A large message lies in its segment and is read from there, block by block, for each next hop: octet for octet, wherever
/// a line of dots falls, and after a restart.
#[test]
fn a_large_message_reaches_two_next_hops_octet_for_octet_after_a_restart() {
    let one = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 2), 0).into());
    let other = SmtpSink::at((Ipv4Addr::new(127, 0, 0, 3), one.address.port()).into());
    let rules = "fn email(message, env, ctx) { message.forward([\"a@one.example\", \"b@other.example\"]); }";
    let setup = Setup::new().toml(&format!("[relay]\nport = {}", one.address.port())).rules(rules);
    for (domain, last) in [("one.example", 2), ("other.example", 3)] {
        setup.dns.mx(domain, 10, &format!("mx.{domain}")).a(&format!("mx.{domain}"), Ipv4Addr::new(127, 0, 0, last));
    }
    // Lines of one to nine dots, so that each border of a block falls somewhere else in a line.
    let text: String = (0..400_000).map(|n| ".".repeat(n % 9 + 1) + "\r\n").collect();
    let message = mail("large", &text);
    assert!(message.len() > 2 << 20);
    one.always("MAIL", "451 4.3.0 not yet");
    other.always("MAIL", "451 4.3.0 not yet");
    let mut server = setup.start();
    let mark = server.log.mark();
    server.send("ann@example.org", &["support@example.com"], &message).expect(250);
    for domain in ["one.example", "other.example"] {
        let holds = |event: &serde_json::Value| event["target"].as_str().is_some_and(|target| target.ends_with(domain));
        server.wait_event(mark, "attempted", holds);
    }
    server.kill();
    one.as_usual();
    other.as_usual();
    server.run();
    one.wait_one().prepended_to(&message);
    other.wait_one().prepended_to(&message);
    server.settled();
}
