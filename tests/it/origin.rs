//! `[geoip]`: where a client's address is, as databases say it.

use crate::harness::command::{exits, run};
use crate::harness::geo::{Geo, database};
use crate::harness::stranger::{PROXIED, connected, greeted};
use crate::harness::{Client, HttpSink, Server, Setup, SmtpSink, mail};

const WORKER: &str = r#"
fn connect(session, env) {
    if session.country == "XX" { session.reject("Not from there"); }
}
fn email(message, env, ctx) {
    let session = message.session;
    message.tag(`AS${session.asn ?? "?"}-${session.country ?? "nowhere"}`);
    message.drop();
}
"#;

/// The systems as one publisher writes them, the countries as it does and as another does.
fn files(xx: &str) -> (Vec<u8>, Vec<u8>) {
    let system = |number| Geo::Map(vec![("autonomous_system_number", Geo::Number(number))]);
    let systems = database(&[("192.0.2.0/24", system(64_500)), ("2001:db8::/32", system(4_200_000_000))]);
    let maxmind = Geo::Map(vec![("country", Geo::Map(vec![("iso_code", Geo::Text("DE"))]))]);
    let other = Geo::Map(vec![("country_code", Geo::Text("XX")), ("country", Geo::Text("Nowhere"))]);
    let ipinfo = Geo::Map(vec![("asn", Geo::Text("AS64501")), ("country", Geo::Text("SE"))]);
    let odd = Geo::Map(vec![("asn", Geo::Map(vec![])), ("country", Geo::Text("\u{1b}["))]);
    let xx: &'static str = Box::leak(xx.to_owned().into_boxed_str());
    let countries = [("192.0.2.0/24", maxmind), (xx, other), ("198.51.100.0/24", ipinfo), ("192.88.99.0/24", odd)];
    (systems, database(&countries))
}

fn setup() -> Setup {
    let setup = Setup::new().toml(PROXIED).toml("[geoip]\ndatabases = [\"asn.mmdb\", \"country.mmdb\"]").rules(WORKER);
    let (systems, countries) = files("203.0.113.0/24");
    std::fs::write(setup.dir.path().join("asn.mmdb"), systems).unwrap();
    std::fs::write(setup.dir.path().join("country.mmdb"), countries).unwrap();
    setup
}

fn from(server: &Server, address: &str) -> Client {
    connected(server, address.parse::<std::net::IpAddr>().unwrap())
}

fn tagged(server: &Server, address: &str) -> String {
    let mut client = greeted(server, address.parse::<std::net::IpAddr>().unwrap());
    client.send("a@example.org", &["support@example.com"], &mail(address, "x")).expect(250);
    client.command("QUIT").expect(221);
    let newest = server.newest();
    let decided = newest["trace"].as_array().unwrap().iter().find(|event| event["event"] == "decided").unwrap();
    decided["tags"][0].as_str().unwrap().to_owned()
}

#[test]
fn a_worker_knows_the_system_and_the_country_of_a_client() {
    let server = setup().start();
    for (address, origin) in [
        ("192.0.2.7", "AS64500-DE"),
        ("2001:db8::1", "AS4200000000-nowhere"),
        ("198.51.100.1", "AS64501-SE"),
        ("192.88.99.1", "AS?-nowhere"),
        ("100.0.0.1", "AS?-nowhere"),
    ] {
        assert_eq!(tagged(&server, address), origin, "{address}");
    }
    from(&server, "203.0.113.9").reply().expect(554);
    let told = server.stdout(&["explain", "support@example.com", "--ip", "203.0.113.9", "--offline"]);
    assert!(told.contains("554") && told.contains("Not from there"), "{told}");
    let told = server.json(&["explain", "support@example.com", "--ip", "192.0.2.7", "--offline"]).remove(0);
    assert!(told.to_string().contains("AS64500-DE"), "{told}");
}

#[test]
fn a_database_that_was_replaced_counts_and_one_that_is_none_does_not() {
    let server = setup().start();
    from(&server, "203.0.113.9").reply().expect(554);
    let replace = |octets: &[u8]| {
        let mark = server.log.mark();
        std::fs::write(server.path().join("new.mmdb"), octets).unwrap();
        std::fs::rename(server.path().join("new.mmdb"), server.path().join("country.mmdb")).unwrap();
        mark
    };
    let mark = replace(&files("100.0.0.0/24").1);
    server.wait_event(mark, "reloaded", |_| true);
    from(&server, "203.0.113.9").reply().expect(220);
    from(&server, "100.0.0.9").reply().expect(554);
    let mark = replace(b"no database");
    let failed = server.wait_event(mark, "reload_failed", |_| true);
    assert!(failed["error"].as_str().unwrap().contains("this is no database of addresses"), "{failed}");
    from(&server, "100.0.0.9").reply().expect(554);
}

#[test]
fn a_test_of_rules_says_where_its_client_is() {
    let tests = r#"
[[test]]
name = "from there"
raw = "Subject: x\n\nx\n"
to = "support@example.com"
session = { asn = 64500, country = "SE" }
expect.tag = ["AS64500-SE"]
expect.drop = true
[[test]]
name = "not from there"
raw = "Subject: x\n\nx\n"
to = "support@example.com"
session.country = "XX"
expect.connect = "Not from there"
"#;
    let server = Setup::new().rules(WORKER).file("rules/tests/origin.toml", tests).start();
    let tested = server.cli(&["test"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    server.write("rules/tests/origin.toml", &tests.replace("\"SE\" }", "\"Sweden\" }"));
    let tested = server.cli(&["test"]);
    let said = format!("{}{}", String::from_utf8_lossy(&tested.stdout), String::from_utf8_lossy(&tested.stderr));
    assert!(!tested.status.success() && said.contains("two capital letters"), "{said}");
}

#[test]
fn a_webhook_is_told_where_the_client_is() {
    let hook = HttpSink::start();
    let url = hook.url("/hook");
    let route = format!("[[route]]\nmatch = \"*@example.com\"\naction = \"webhook\"\nto = [\"{url}\"]\n");
    let server = setup().toml(&route).start();
    for (address, number) in [("192.0.2.7", 1), ("100.0.0.1", 2)] {
        let mut client = greeted(&server, address.parse::<std::net::IpAddr>().unwrap());
        client.send("a@example.org", &["support@example.com"], &mail(address, "x")).expect(250);
        client.command("QUIT").expect(221);
        let told = hook.wait(number).remove(number - 1).json()["data"]["session"].clone();
        let known = (&told["asn"], &told["country"]);
        let expected = if number == 1 { (&64_500.into(), &"DE".into()) } else { (&().into(), &().into()) };
        assert_eq!(known, expected, "{told}");
    }
    server.settled();
}

const ROUTES: &str = r#"
[[route]]
country = ["SE", "NO"]
action = "tag"
tags = ["north"]

[[route]]
match = "local@example.com"
unless = { country = ["DE", "unknown"] }
action = "reject"
text = "For neighbours"

[[route]]
asn = 64500
action = "forward"
to = ["peers@example.net"]

[[route]]
asn = ["AS4200000000", "unknown"]
country = "unknown"
action = "quarantine"
text = "from nowhere"
"#;

#[test]
fn a_route_goes_by_where_the_client_is() {
    let sink = SmtpSink::start();
    let server = setup().toml(ROUTES).toml(&format!("[relay]\nsmarthost = \"{}\"", sink.url())).start();
    let deciding = |address: &str, to: &str| {
        let mut client = greeted(&server, address.parse::<std::net::IpAddr>().unwrap());
        client.send("a@example.org", &[to], &mail(address, "x")).expect(250);
        client.command("QUIT").expect(221);
        let newest = server.newest();
        let told = |event: &serde_json::Value| format!("{}: {}", event["by"].as_str().unwrap(), event["verdict"]);
        let trace = newest["trace"].as_array().unwrap();
        trace.iter().filter(|event| event["event"] == "decided").map(told).collect::<Vec<_>>().join("; ")
    };
    let by = deciding("192.0.2.7", "any@example.com");
    assert!(by.starts_with("route 3 (asn 64500): \"accept"), "{by}");
    let by = deciding("198.51.100.1", "any@example.com");
    assert!(by.starts_with("route 1 (country SE): ") && by.contains("worker rules/main.rhai"), "{by}");
    for address in ["2001:db8::1", "100.0.0.1"] {
        let by = deciding(address, "any@example.com");
        assert!(by.contains("country unknown, asn ") && by.contains("quarantine (from nowhere)"), "{by}");
    }
    // Known before there is a message; and whom no database knows isn't refused for that.
    let mut far = greeted(&server, "198.51.100.1".parse::<std::net::IpAddr>().unwrap());
    far.command("MAIL FROM:<a@example.org>").expect(250);
    assert!(far.command("RCPT TO:<local@example.com>").expect_status(550, "5.7.1").text().contains("For neighbours"));
    assert!(deciding("192.0.2.7", "local@example.com").contains("route 3"));
    assert!(deciding("100.0.0.1", "local@example.com").contains("route 4"));
    server.settled();
    assert_eq!(sink.mails().len(), 2);
}

#[test]
fn explain_session_and_tests_say_how_a_route_was_judged_by_a_place() {
    let tests = r#"
[[test]]
name = "from next door"
raw = "Subject: x\n\nx\n"
to = "local@example.com"
session = { country = "DE", asn = 64500 }
expect.forward = ["peers@example.net"]
[[test]]
name = "from far away"
raw = "Subject: x\n\nx\n"
to = "local@example.com"
session.country = "NO"
expect.rcpt = "For neighbours"
"#;
    let server = setup().toml(ROUTES).file("rules/tests/places.toml", tests).start();
    let tested = server.cli(&["test"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    let explain = |ip: &str| server.stdout(&["explain", "local@example.com", "--ip", ip, "--offline"]);
    let told = explain("192.0.2.7");
    for words in [
        "route 1 doesn't apply: the client's country is DE, not SE or NO",
        "route 2 doesn't apply: its `unless` holds (country DE)",
        "route 3 (asn 64500)",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = explain("198.51.100.1");
    assert!(told.contains("550 5.7.1 For neighbours"), "{told}");
    let told = server.fed(
        &["session", "--ip", "100.0.0.1", "--offline"],
        "EHLO a.example\nMAIL FROM:<a@example.org>\nRCPT TO:<any@example.com>\nQUIT\n",
    );
    assert!(told.contains("the client's asn is unknown, not 64500") && told.contains("country unknown"), "{told}");
}

#[test]
fn a_place_without_a_database_is_an_error_that_says_what_to_add() {
    let setup = Setup::new().toml("[[route]]\ncountry = \"DE\"\naction = \"drop\"\nunless = { asn = 64500 }");
    setup.write();
    let told = exits(&run(setup.dir.path(), &["check"]), 78);
    for words in [
        "no database says where a client is, so `country` can't be known",
        "so `asn` can't be known",
        "[geoip] databases = [\"country.mmdb\"]",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}
