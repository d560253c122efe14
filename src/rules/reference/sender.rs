//! The page of `message.auth`, `rules/sender.md`.

use super::members::{Member, Section};

pub(super) const AUTH: Section = (
    "`message.auth`",
    "In JSON (a payload, a KV value) it is its `to_map()`. A text that isn't known is empty.",
    &[
        Member(
            &["auth.passed"],
            "bool",
            "SPF or DKIM passes for the domain of From (DMARC's alignment, RFC 9989), also where that domain publishes no \
             policy: then by the public suffix list",
        ),
        Member(
            &["auth.spf", "auth.spf_helo"],
            "map",
            "`#{ result, domain, scope, reason }` for MAIL FROM (scope `mfrom`) and for the name of EHLO (`helo`)",
        ),
        Member(
            &["auth.dkim"],
            "array",
            "each signature's `#{ result, domain, selector, identity, algorithm, aligned, b, reason }`, at most 10 of them \
             verified",
        ),
        Member(
            &["auth.dmarc"],
            "map",
            "`#{ result, domain, policy, aligned_spf, aligned_dkim, reason, doubt }`; `policy` is what the domain asks for mail that \
             fails: `none`, `quarantine`, `reject`, empty where it publishes nothing; `domain` is empty where From can't \
             be read for sure, which is a `fail` with `reject`",
        ),
        Member(
            &["auth.arc"],
            "map",
            "`#{ result, chain, trusted, reason }`; `chain` has a `#{ domain, selector }` for each that sealed it, the first one \
             first; `trusted`: all are `[authentication] trusted_sealers`, the first one saw DMARC pass, and the last one \
             sealed the one From",
        ),
        Member(
            &["auth.iprev"],
            "map",
            "`#{ result, name }`: the name of the client's address, where that name leads back to it; also `session.ptr`",
        ),
        Member(&["auth.trusted_forwarder"], "bool", "the client is one of `[authentication] trusted_forwarders`"),
        Member(&["auth.to_map()"], "map", "all of these"),
    ],
);
