//! The page of `message.auth`, `rules/sender.md`.

use super::members::{Member, Section};

pub(super) const AUTH: Section = (
    "`message.auth`",
    "In JSON (a payload, a KV value) it is its `to_map()`. A text that isn't known is empty.",
    &[
        Member::of(
            &["auth.passed"],
            "bool",
            "SPF or DKIM passes for the domain of From (DMARC's alignment, RFC 9989), also where that domain \
             publishes no policy: then by the public suffix list",
            r#"if !message.auth.passed { message.quarantine("nothing proves who sent it"); }"#,
        ),
        Member::of(
            &["auth.spf", "auth.spf_helo"],
            "map",
            "`#{ result, domain, scope, reason }` for MAIL FROM (scope `mfrom`) and for the name of EHLO (`helo`)",
            r#"if "fail" in [message.auth.spf.result, message.auth.spf_helo.result] { message.tag("spf-fail"); }"#,
        ),
        Member::of(
            &["auth.dkim"],
            "array",
            "each signature's `#{ result, domain, selector, identity, algorithm, aligned, b, reason }`, at most 10 of \
             them verified",
            r#"for one in message.auth.dkim { print(one.domain + " " + one.result); }"#,
        ),
        Member::of(
            &["auth.dmarc"],
            "map",
            "`#{ result, domain, policy, aligned_spf, aligned_dkim, reason, doubt }`; `policy` is what the domain \
             asks for mail that fails: `none`, `quarantine`, `reject`, empty where it publishes nothing; `domain` is \
             empty where From can't be read for sure, which is a `fail` with `reject`",
            r#"if message.auth.dmarc.result == "fail" { message.quarantine("dmarc"); }"#,
        ),
        Member::of(
            &["auth.arc"],
            "map",
            "`#{ result, chain, trusted, reason }`; `chain` has a `#{ domain, selector }` for each that sealed it, \
             the first one first; `trusted`: all are `[authentication] trusted_sealers`, the first one saw DMARC \
             pass, and the last one sealed the one From",
            r#"if message.auth.arc.trusted { message.tag("sealed"); }"#,
        ),
        Member::of(
            &["auth.iprev"],
            "map",
            "`#{ result, name }`: the name of the client's address, where that name leads back to it; also \
             `session.ptr`",
            "print(message.auth.iprev.name);",
        ),
        Member::of(
            &["auth.trusted_forwarder"],
            "bool",
            "the client is one of `[authentication] trusted_forwarders`",
            r#"if message.auth.trusted_forwarder { message.tag("forwarded"); }"#,
        ),
        Member::of(&["auth.to_map()"], "map", "all of these", "ctx.webhook(env.TICKETS, message.auth.to_map());"),
    ],
);
