//! Addresses: what parses is written as it was, parses again to the same, and can't leave its line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailworker::mail::Address;
use mailworker::mail::address::domain_key;

fuzz_target!(|text: &str| {
    let Ok(address) = Address::parse(text) else { return };
    assert_eq!(address.as_str(), text);
    assert!(!text.contains(|c: char| c.is_control()), "{address:?}");
    assert_eq!(format!("{}@{}", address.local(), address.domain()), text);
    assert!(address.local().len() <= 64 && address.domain().len() <= 255, "{address:?}");
    assert!(address.same_mailbox(&address));
    let upper = Address::parse(&text.to_ascii_uppercase()).expect("case changes nothing");
    assert!(address.same_mailbox(&upper) && upper.same_mailbox(&address), "{address:?}");
    // The form in which domains are compared is one: its own form is itself, and it stands in an address too.
    let key = address.domain_key();
    assert_eq!(domain_key(&key), key);
    let meant = address.unquoted_local();
    for separator in ["+", "-", "", "--"] {
        let (base, tag) = (address.base(separator), address.tag(separator));
        let joined = tag.map_or_else(|| base.to_string(), |tag| format!("{base}{separator}{tag}"));
        assert_eq!(joined, meant, "{address:?} {separator:?}");
        assert!(separator.is_empty() || !base.get(1..).unwrap_or_default().contains(separator) || base == meant);
    }
    let stored = serde_json::to_string(&address).expect("it is a text");
    assert_eq!(serde_json::from_str::<Address>(&stored).expect("what is stored is read"), address);
});
