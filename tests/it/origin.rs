//! `[geoip]`: where a client's address is, as databases say it.

use crate::harness::geo::{Geo, database};
use crate::harness::stranger::{PROXIED, connected, greeted};
use crate::harness::{Client, HttpSink, Server, Setup, mail};

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
