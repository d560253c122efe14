//! Addresses: what parses is written as it was, parses again to the same, and can't leave its line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailworker::mail::Address;

fuzz_target!(|text: &str| {
    let Ok(address) = Address::parse(text) else { return };
    assert_eq!(Address::parse(address.as_str()).as_ref(), Ok(&address));
    assert!(!address.as_str().contains(|c: char| c.is_control()), "{address:?}");
    assert!(address.same_mailbox(&address));
    assert_eq!(format!("{}@{}", address.local(), address.domain()), address.as_str());
    for separator in ["+", "-", "", "--"] {
        let (base, tag) = (address.base(separator), address.tag(separator));
        if let Some(tag) = tag {
            assert!(address.unquoted_local().to_lowercase().starts_with(&base.to_lowercase()), "{address:?} {base:?} {tag:?}");
        }
    }
    let _ = (address.unquoted_local(), address.domain_key(), address.is_ascii());
});
