//! SPF by a table: limits and errors, each as RFC 7208 would have it. The whole suite runs in `tests/interop`.

use super::*;
use crate::dns::Table;

async fn result(table: &Table, domain: &str) -> (Check, String) {
    let dns = Dns::table(table.clone()).unwrap();
    let sender = format!("ann@{domain}");
    let ip = "192.0.2.7".parse().unwrap();
    let asked = Asked { ip, sender: &sender, domain, helo: "mail.example.org", names_within: Duration::from_secs(1) };
    let answer = check_host(&dns, &asked).await;
    (answer.result, answer.reason)
}

#[tokio::test]
async fn each_mechanism_says_what_it_should() {
    let here = "192.0.2.7".parse().unwrap();
    let table = Table::default()
        .with_address("mx.example.org", here)
        .with_mx("example.org", 10, "mx.example.org")
        .with_address("7.2.0.192.ann.spf.example.org", here)
        .with_name(here, "mx.example.org")
        .with_txt("other.example.org", "v=spf1 ip4:198.51.100.0/24 -all");
    for (record, expected) in [
        ("v=spf1 ip4:192.0.2.0/24 -all", Check::Pass),
        ("v=spf1 ip4:198.51.100.0/24 -all", Check::Fail),
        ("v=spf1 a:mx.example.org -all", Check::Pass),
        ("v=spf1 mx:example.org ~all", Check::Pass),
        ("v=spf1 ptr:example.org -all", Check::Pass),
        ("v=spf1 exists:%{ir}.%{l}.spf.example.org -all", Check::Pass),
        ("v=spf1 include:other.example.org ~all", Check::SoftFail),
        ("v=spf1 redirect=other.example.org", Check::Fail),
        ("v=spf1", Check::Neutral),
        ("V=SPF1 ?all", Check::Neutral),
        ("v=spf10 -all", Check::None),
        ("v=spf1 include:nobody.example.org -all", Check::PermError),
        ("v=spf1 foo:bar -all", Check::PermError),
        ("v=spf1 a:gr\u{fc}n.example.org -all", Check::PermError),
    ] {
        let (found, reason) = result(&table.clone().with_txt("asked.example", record), "asked.example").await;
        assert_eq!(found, expected, "{record}: {reason}");
    }
    assert_eq!(result(&table, "nobody.example").await.0, Check::None);
    assert_eq!(result(&table, "localhost").await.0, Check::None);
    // A literal is no domain, so nobody is asked (RFC 7208 §2.3).
    let table = table.with_txt("[192.0.2.7]", "v=spf1 -all");
    assert_eq!(result(&table, "[192.0.2.7]").await.0, Check::None);
}

#[tokio::test]
async fn a_record_takes_ten_look_ups_and_two_in_vain() {
    let chain = |length: usize| {
        let mut table = Table::default();
        for number in 0..length {
            let next =
                if number + 1 == length { "+all".to_owned() } else { format!("include:n{}.example", number + 1) };
            table = table.with_txt(&format!("n{number}.example"), &format!("v=spf1 {next} -all"));
        }
        table
    };
    assert_eq!(result(&chain(11), "n0.example").await.0, Check::Pass);
    assert_eq!(result(&chain(12), "n0.example").await.0, Check::PermError);
    let itself = Table::default().with_txt("loop.example", "v=spf1 include:loop.example -all");
    assert_eq!(result(&itself, "loop.example").await.0, Check::PermError);
    let vain = |record: &str| Table::default().with_txt("vain.example", record);
    assert_eq!(
        result(&vain("v=spf1 a:a.example mx:b.example ip4:192.0.2.7 -all"), "vain.example").await.0,
        Check::Pass
    );
    let (found, reason) = result(&vain("v=spf1 a:a.example mx:b.example exists:c.example +all"), "vain.example").await;
    assert_eq!(found, Check::PermError);
    assert!(reason.contains("find nothing"), "{reason}");
}

/// `mail.example.org` is what the client calls itself, `ann` its sender.
#[tokio::test]
async fn a_name_of_the_clients_that_fails_holds_nothing_open_and_one_of_the_domains_does() {
    let fails = |name: &str| Table::default().with_failure(name, "SERVFAIL").with_txt("other.example", "v=spf1 -all");
    for (record, name, expected) in [
        ("v=spf1 exists:%{h} -all", "mail.example.org", Check::Policy),
        ("v=spf1 a:%{h} -all", "mail.example.org", Check::Policy),
        ("v=spf1 mx:%{h} -all", "mail.example.org", Check::Policy),
        ("v=spf1 include:%{h} -all", "mail.example.org", Check::Policy),
        ("v=spf1 redirect=%{h}", "mail.example.org", Check::Policy),
        ("v=spf1 exists:%{h1r}.%{l} -all", "mail.ann", Check::Policy),
        ("v=spf1 exists:%{l}.co.uk -all", "ann.co.uk", Check::Policy),
        ("v=spf1 exists:%{h}._spf.asked.example -all", "mail.example.org._spf.asked.example", Check::TempError),
        ("v=spf1 exists:%{l}.lists.example -all", "ann.lists.example", Check::TempError),
        ("v=spf1 exists:%{l}.%{d} -all", "ann.asked.example", Check::TempError),
        ("v=spf1 exists:%{ir}.%{v}.arpa -all", "7.2.0.192.in-addr.arpa", Check::TempError),
        ("v=spf1 include:other.example a:%{d} -all", "asked.example", Check::TempError),
    ] {
        let (found, reason) = result(&fails(name).with_txt("asked.example", record), "asked.example").await;
        assert_eq!(found, expected, "{record}: {reason}");
        assert!(reason.contains("SERVFAIL"), "{record}: {reason}");
    }
    // What the client's own record names is its choice, too, and its own name is its domain's.
    let further = fails("away.example").with_txt("mail.example.org", "v=spf1 a:away.example -all");
    let further = further.with_txt("asked.example", "v=spf1 include:%{h} -all");
    assert_eq!(result(&further, "asked.example").await.0, Check::Policy);
    let own = fails("mail.example.org").with_txt("example.org", "v=spf1 exists:%{h} -all");
    assert_eq!(result(&own, "example.org").await.0, Check::TempError);
}

#[tokio::test]
async fn a_dns_that_fails_is_no_failure_of_the_senders() {
    let table = Table::default().with_failure("asked.example", "SERVFAIL");
    let (found, reason) = result(&table, "asked.example").await;
    assert_eq!(found, Check::TempError);
    assert!(reason.contains("SERVFAIL"), "{reason}");
    for record in
        ["v=spf1 include:failing.example -all", "v=spf1 a:failing.example -all", "v=spf1 exists:failing.example -all"]
    {
        let table = Table::default().with_failure("failing.example", "SERVFAIL").with_txt("asked.example", record);
        assert_eq!(result(&table, "asked.example").await.0, Check::TempError, "{record}");
    }
    let twice = Table::default().with_txt("asked.example", "v=spf1 -all").with_txt("asked.example", "v=spf1 +all");
    assert_eq!(result(&twice, "asked.example").await.0, Check::PermError);
}
