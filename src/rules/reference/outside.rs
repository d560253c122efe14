//! The page of what is read from outside, `rules/outside.md`.

use super::members::{Member, Section};

pub(super) const OUTSIDE: Section = (
    "What is asked, and what comes of it",
    "`ctx` is there in `email` and, but for `dnsbl`, in `scheduled`; the handlers before it ask by their `session`.",
    &[
        Member(
            &["ctx.fetch(url)", "ctx.fetch(url, options)", "session.fetch(url)", "session.fetch(url, options)"],
            "map",
            "an HTTP request: `#{ method, headers, body, timeout }` ─► `#{ status, ok, headers, body, json }`. A body is a string, \
             octets, or what becomes JSON; with one it is a POST, else a GET. `timeout` is in seconds. Names of answered \
             `headers` are in lower case; `body` is a string, octets where it is no UTF-8; `json` is `()` where it is none",
        ),
        Member(
            &["ctx.ai(chat)"],
            "map",
            "OpenAI's chat completions at the endpoint of `[ai]`: `#{ messages: [#{ role, content }], model, … }` ─► what it \
             answers, such as `choices`, `usage`, and `text`, the first choice's words. A status that isn't 2xx is an error",
        ),
        Member(
            &["ctx.dns_lookup(name, type)", "session.dns_lookup(name, type)"],
            "array",
            "the records of A, AAAA, CNAME, MX, NS, PTR (also of an address), SRV or TXT, each a string; of MX `#{ preference, \
             host }`, of SRV `#{ priority, weight, port, target }`; empty where there are none",
        ),
        Member(
            &["ctx.dnsbl(zone)", "session.dnsbl(zone)"],
            "map",
            "what a list says of the client's address (RFC 5782): `#{ listed, codes, text, error }`. One that doesn't answer, or \
             refuses to answer us, lists nobody and says why in `error`",
        ),
    ],
);
