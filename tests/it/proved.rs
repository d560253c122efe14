//! Routes by what the sender proved, and what `explain` and `session` find out about one.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::harness::{Client, Server, Setup, SmtpSink};

/// Strangers come through a proxy that says where from.
const PROXIED: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = [\"127.0.0.0/8\"]";
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

const WORKER: &str = "fn email(message, env, ctx) { message.forward(\"worker@example.net\"); }";

const ROUTES: &str = r#"
[[route]]
from = "*@partner.example"
auth = { dmarc = "pass" }
action = "forward"
to = ["partners@example.net"]

[[route]]
match = "vault@example.com"
unless = { auth = { passed = true } }
action = "reject"
text = "Only from those who prove who they are"

[[route]]
match = "bin@example.com"
unless = { auth = { spf = ["pass", "none"] } }
action = "drop"

[[route]]
auth = { spf = ["fail", "softfail"], dkim = "none", iprev = "permerror" }
action = "quarantine"
text = "nobody vouches for it"
"#;

fn setup(sink: &SmtpSink) -> Setup {
    let setup = Setup::relaying_to(sink).toml(PROXIED).rules(WORKER).toml(ROUTES);
    let sends = "v=spf1 ip4:192.0.2.0/24 -all";
    setup.dns.txt("partner.example", sends).txt("_dmarc.partner.example", "v=DMARC1; p=none");
    setup.dns.txt("stranger.example", sends).txt("disowned.example", "v=spf1 ip4:203.0.113.1 ~all");
    setup.dns.a("mail.partner.example", STRANGER).ptr(STRANGER, "mail.partner.example");
    setup
}

fn greeted(server: &Server, from: Ipv4Addr) -> Client {
    let mut client = Client::connect(server.smtp()).unwrap();
    client.raw(format!("PROXY TCP4 {from} 127.0.0.1 4025 25\r\n").as_bytes());
    client.reply().expect(220);
    client.command("EHLO mail.partner.example").expect(250);
    client
}

fn letter(from: &str) -> Vec<u8> {
    format!("From: {from}\r\nTo: someone@example.com\r\nSubject: hello\r\n\r\nwords\r\n").into_bytes()
}

/// Who decided on the newest message, and with what.
fn decided(server: &Server) -> String {
    let newest = server.newest_settled();
    let decided: Vec<Value> =
        newest["trace"].as_array().unwrap().iter().filter(|event| event["event"] == "decided").cloned().collect();
    assert_eq!(decided.len(), 1, "{newest}");
    format!("{}: {}", decided[0]["by"].as_str().unwrap(), decided[0]["verdict"].as_str().unwrap())
}

#[test]
fn a_route_goes_by_what_the_sender_proved() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    let mut client = greeted(&server, STRANGER);
    client.send("ann@partner.example", &["any@example.com"], &letter("ann@partner.example")).expect(250);
    assert_eq!(decided(&server), "route 1 (from *@partner.example, dmarc=pass): accept");
    assert_eq!(sink.wait_one().recipients(), ["partners@example.net"]);

    // Another's envelope passes SPF; that proves nothing of the author.
    client.send("ann@stranger.example", &["any@example.com"], &letter("ann@partner.example")).expect(250);
    assert_eq!(decided(&server), "worker rules/main.rhai: accept");

    let mut unnamed = greeted(&server, Ipv4Addr::new(192, 0, 2, 8));
    unnamed.send("x@disowned.example", &["any@example.com"], &letter("x@disowned.example")).expect(250);
    let by = "route 4 (iprev=permerror, spf=softfail, dkim=none): quarantine (nobody vouches for it)";
    assert_eq!(decided(&server), by);
    client.send("x@disowned.example", &["any@example.com"], &letter("x@disowned.example")).expect(250);
    assert_eq!(decided(&server), "worker rules/main.rhai: accept", "its address has a name");
    server.settled();
}

#[test]
fn what_is_refused_for_want_of_a_proof_is_put_off_while_dns_does_not_answer() {
    let sink = SmtpSink::start();
    let setup = setup(&sink);
    setup.dns.fail("broken.example");
    let server = setup.start();
    let mut client = greeted(&server, STRANGER);
    client.envelope("ann@nothing.example", &["vault@example.com"]);
    let refused = client.data(&letter("ann@nothing.example")).expect_status(550, "5.7.1");
    assert!(refused.text().contains("Only from those who prove"), "{}", refused.text());
    client.send("ann@stranger.example", &["vault@example.com"], &letter("ann@stranger.example")).expect(250);

    for to in ["vault@example.com", "bin@example.com"] {
        client.envelope("ann@broken.example", &[to]);
        let put_off = client.data(&letter("ann@broken.example")).expect_status(451, "4.4.3");
        assert!(put_off.text().contains("try again later"), "{}", put_off.text());
        assert!(decided(&server).ends_with("DNS did not answer for its `unless`): defer"), "{}", decided(&server));
    }
    // Where it keeps nobody's mail out, what isn't known holds for nobody.
    client.send("ann@broken.example", &["any@example.com"], &letter("ann@broken.example")).expect(250);
    assert_eq!(decided(&server), "worker rules/main.rhai: accept");
    server.dns.mend("broken.example");
    client.envelope("ann@broken.example", &["vault@example.com"]);
    client.data(&letter("ann@broken.example")).expect_status(550, "5.7.1");
    server.settled();
}

#[test]
fn nobody_is_refused_at_rcpt_for_what_the_message_will_prove() {
    let sink = SmtpSink::start();
    let server = setup(&sink).start();
    let mut client = greeted(&server, STRANGER);
    client.envelope("ann@nothing.example", &["vault@example.com"]);
    client.command("RSET").expect(250);
    let told = server.json(&["explain", "vault@example.com"]).remove(0);
    assert_eq!(told["rcpt"]["code"], 250, "{told}");
    // A client on the own network is looked into by nobody.
    assert_eq!(told["answer"]["code"], 550, "{told}");
}

#[test]
fn explain_and_tests_say_how_a_route_was_judged_by_a_proof() {
    let tests = r#"
[[test]]
name = "a partner proves it"
from = "ann@partner.example"
raw = "From: ann@partner.example\nSubject: x\n\nx\n"
to = "any@example.com"
auth.spf = "pass"
auth.dmarc = "pass"
expect.forward = ["partners@example.net"]
[[test]]
name = "a forger is the worker's"
from = "ann@partner.example"
raw = "From: ann@partner.example\nSubject: x\n\nx\n"
to = "any@example.com"
auth.dmarc = "fail"
expect.forward = ["worker@example.net"]
[[test]]
name = "the vault"
from = "ann@partner.example"
raw = "From: ann@partner.example\nSubject: x\n\nx\n"
to = "vault@example.com"
auth.dmarc = "temperror"
expect.defer = { enhanced = "4.4.3" }
"#;
    let sink = SmtpSink::start();
    let server = setup(&sink).file("rules/tests/routes.toml", tests).start();
    let tested = server.cli(&["test"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    server.write("partner.eml", "From: ann@partner.example\r\nSubject: x\r\n\r\nx\r\n");
    let told = server.stdout(&["explain", "any@example.com", "--message", "partner.eml"]);
    for words in ["route 1 doesn't apply: dmarc=none, not pass", "route 4 doesn't apply: iprev=none, not permerror"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
