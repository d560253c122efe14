//! The page of what is read from outside, `rules/outside.md`.

use super::members::{Member, Section};

pub(super) const OUTSIDE: Section = (
    "What is asked, and what comes of it",
    "`ctx` is there in `email` and, but for `dnsbl`, in `scheduled`; the handlers before it ask by their `session`.",
    &[
        Member::of(
            &[
                "ctx.fetch(url: string)",
                "ctx.fetch(url: string, options: map)",
                "session.fetch(url: string)",
                "session.fetch(url: string, options: map)",
            ],
            "map",
            "an HTTP request: `#{ method, headers, body, timeout }` ─► `#{ status, ok, headers, body, json }`. A body \
             is a string, octets, or what becomes JSON; with one it is a POST, else a GET. `timeout` is in seconds. \
             Names of answered `headers` are in lower case; `body` is a string, octets where it is no UTF-8; `json` \
             is `()` where it is none",
            r#"let answer = ctx.fetch("https://directory.example.net/users/ann", #{ timeout: 2 });"#,
        )
        .fails(
            "nobody answers in time, or it isn't allowed; no http(s) URL, an option that is none, a body of more than \
             1 MiB; what is answered is too large",
        ),
        Member::of(
            &["ctx.ai(chat: map)"],
            "map",
            "OpenAI's chat completions at the endpoint of `[ai]`: `#{ messages: [#{ role, content }], model, … }` ─► \
             what it answers, such as `choices`, `usage`, and `text`, the first choice's words. A status that isn't \
             2xx is an error",
            r#"let answer = ctx.ai(#{ messages: [#{ role: "user", content: message.subject }] });"#,
        )
        .fails(
            "nobody answers in time, or it isn't allowed; there is no `[ai]`; `messages` is no array or empty; \
             `stream`; more than 1 MiB; a status that isn't 2xx, or no such JSON",
        ),
        Member::of(
            &["ctx.dns_lookup(name: string, type: string)", "session.dns_lookup(name: string, type: string)"],
            "array",
            "the records of A, AAAA, CNAME, MX, NS, PTR (also of an address), SRV or TXT, each a string; of MX `#{ \
             preference, host }`, of SRV `#{ priority, weight, port, target }`; empty where there are none",
            r#"for mx in ctx.dns_lookup("example.org", "MX") { print(mx.host); }"#,
        )
        .fails("DNS doesn't answer in time; the name or the type is none"),
        Member::of(
            &["ctx.dnsbl(zone: string)", "session.dnsbl(zone: string)"],
            "map",
            "what a list says of the client's address (RFC 5782): `#{ listed, codes, text, error }`. One that doesn't \
             answer, or refuses to answer us, lists nobody and says why in `error`",
            r#"if ctx.dnsbl("zen.example.org").listed { message.tag("listed"); }"#,
        )
        .fails("the zone is no name; in `scheduled`, `delivered` and `failed`, which have no client"),
    ],
);
