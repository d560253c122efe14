//! The functions that belong to nothing: how each is called, what it gives, what it is for, a true line, its errors.
//!
//! `rules/functions.md` is written from this, an error over wrong arguments names what is here, and `check` counts
//! arguments by it. Compared with the engine's registrations by the tests, and every example is run.

use super::members::{Member, Section};

pub(super) const SECTIONS: &[Section] = &[PATTERNS, ENCODINGS, JSON, ADDRESSES, DOMAINS, DATES, TEMPLATES, IDS];

/// The row of that name.
pub(super) fn named(name: &str) -> Option<&'static Member> {
    let is_it = |signature: &&str| signature.split('(').next() == Some(name);
    SECTIONS.iter().flat_map(|section| section.2).find(|function| function.signatures.iter().any(is_it))
}

const PATTERNS: Section = (
    "Regular expressions",
    "In the [syntax](https://docs.rs/regex/latest/regex/#syntax) of the regex crate: `(?i)` at the start for either case, \
     `(?<name>…)` for a named group, no look-around and no back-references, so that one search is linear. Many \
     matches that each look at all of the rest are ended by the budget's time. A pattern is \
     found anywhere in the text; `^` and `$` tie it to the ends. Write it between backticks, or with `\\\\` for each `\\`. A \
     pattern has at most 4 KiB, and 2,000 characters with its repetitions written out; what is larger is an error, as is \
     one that can't be read, at `check` where it is written out. One that repeats much, as `[a-z]{1,200}` does, may find a \
     text of hundreds of KiB too long: `+` doesn't.",
    &[
        Member::of(
            &["regex_match(text: string, pattern: string)"],
            "bool",
            "whether the pattern is found",
            r#"regex_match("Re: Invoice 42", `(?i)invoice \d+`)"#,
        )
        .fails("the pattern can't be read or is too large, or the text is too long for it"),
        Member::of(
            &["regex_find(text: string, pattern: string)"],
            "string or `()`",
            "the first part that the pattern is found in",
            r#"regex_find("order A-17, B-2", `[A-Z]-\d+`) == "A-17""#,
        )
        .fails("the pattern can't be read or is too large, or the text is too long for it"),
        Member::of(
            &["regex_find_all(text: string, pattern: string)"],
            "array",
            "all of them, as many as an array may have",
            r#"regex_find_all("order A-17, B-2", `[A-Z]-\d+`) == ["A-17", "B-2"]"#,
        )
        .fails("the pattern can't be read or is too large, or the text is too long for it; the run's time is over"),
        Member::of(
            &["regex_captures(text: string, pattern: string)"],
            "map or `()`",
            "the first match's groups by name and by number (`\"0\"` is all of it); `()` for a group that took no \
             part",
            r#"regex_captures("order A-17", `(?<kind>[A-Z])-(\d+)`) == #{ "0": "A-17", "1": "A", "2": "17", kind: "A" }"#,
        )
        .fails("the pattern can't be read or is too large, or the text is too long for it"),
        Member::of(
            &["regex_replace(text: string, pattern: string, replacement: string)"],
            "string",
            "all matches replaced; `$1`, `$<name>`, `$&` for the match and `$$` for a dollar stand in the replacement",
            r#"regex_replace("A-17, B-2", `([A-Z])-(\d+)`, "$2/$1") == "17/A, 2/B""#,
        )
        .fails("the pattern can't be read or is too large, or the text is too long for it; the run's time is over; the replacement names a group that isn't there, or doesn't end its name; the result is longer than the budget's `string_size`"),
        Member::of(
            &["regex_split(text: string, pattern: string)"],
            "array",
            "what stands between the matches",
            r#"regex_split("a, b;c", `[,;] ?`) == ["a", "b", "c"]"#,
        )
        .fails("the pattern can't be read or is too large, or the text is too long for it; the run's time is over"),
        Member::of(
            &["regex_escape(text: string)"],
            "string",
            "a pattern that means just this text",
            r#"regex_match("1+1", regex_escape("1+1"))"#,
        )
        .fails("the result is longer than the budget's `string_size`"),
    ],
);

const ENCODINGS: Section = (
    "Encodings and digests",
    "`data` and `key` are a string, a blob or octets. What is decoded comes as octets: `as_string()` makes a string of \
     them. A text that is no base64 or hexadecimal is an error that says where; a result beyond the budget's \
     `string_size` is one, too.",
    &[
        Member::of(
            &["to_base64(data: string or blob or octets)"],
            "string",
            "with padding (RFC 4648 §4)",
            r#"to_base64("hello?") == "aGVsbG8/""#,
        )
        .fails("the result is longer than the budget's `string_size`"),
        Member::of(
            &["to_base64url(data: string or blob or octets)"],
            "string",
            "for URLs, without padding (RFC 4648 §5)",
            r#"to_base64url("hello?") == "aGVsbG8_""#,
        )
        .fails("the result is longer than the budget's `string_size`"),
        Member::of(
            &["from_base64(text: string)"],
            "octets",
            "of either alphabet, padded or not; blanks and line breaks are left out",
            r#"from_base64("aGVs bG8_").as_string() == "hello?""#,
        )
        .fails("it is none"),
        Member::of(
            &["to_hex(data: string or blob or octets)"],
            "string",
            "two digits an octet, in lower case",
            r#"to_hex("hi") == "6869""#,
        )
        .fails("the result is longer than the budget's `string_size`"),
        Member::of(&["from_hex(text: string)"], "octets", "in either case", r#"from_hex("6869").as_string() == "hi""#)
            .fails("it is none"),
        Member::of(
            &["sha256(data: string or blob or octets)"],
            "string",
            "SHA-256 in hexadecimal",
            r#"sha256("").starts_with("e3b0c44298fc1c14")"#,
        ),
        Member::of(
            &["hmac_sha256(key: string or blob or octets, data: string or blob or octets)"],
            "string",
            "HMAC with SHA-256 (RFC 2104) in hexadecimal",
            r#"hmac_sha256("Jefe", "what do ya want for nothing?").starts_with("5bdcc146bf60754e")"#,
        )
        .fails("either is of another type"),
        Member::of(
            &["hmac_sha256_octets(key: string or blob or octets, data: string or blob or octets)"],
            "octets",
            "the same as 32 octets",
            r#"hmac_sha256_octets("a", "b").to_hex() == hmac_sha256("a", "b")"#,
        )
        .fails("either is of another type"),
        Member::of(
            &["url_encode(text: string)", "url_encode(values: map)"],
            "string",
            "all but letters, digits and `-._~` as `%XX`; a map of strings and numbers becomes a query",
            r#"url_encode(#{ q: "a b&c", page: 2 }) == "page=2&q=a%20b%26c""#,
        )
        .fails(
            "the result is longer than the budget's `string_size`; a value of the map is neither string, number nor \
             bool",
        ),
        Member::of(
            &["url_decode(text: string)"],
            "string",
            "`%XX` decoded; `+` stays, and so does a `%` that no two digits follow",
            r#"url_decode("J%C3%BCrgen%20100%") == "Jürgen 100%""#,
        ),
    ],
);

const JSON: Section = (
    "JSON",
    "Nested at most 64 deep, within the budget's sizes. A text that is no JSON is an error that names line and column: \
     what a sender wrote is read within `try { … } catch { … }`. `null` is `()`.",
    &[
        Member::of(
            &["json_parse(text: string)"],
            "any",
            "the value",
            r#"json_parse("{\"to\": [1, 2.5, null]}") == #{ to: [1, 2.5, ()] }"#,
        )
        .fails("it is none: told with line and column; it is beyond the budget's sizes or 64 levels"),
        Member::of(
            &["json_stringify(value: any)"],
            "string",
            "without blanks; blobs and octets have no JSON",
            r#"json_stringify(#{ a: [1, true, ()] }) == "{\"a\":[1,true,null]}""#,
        )
        .fails("what has no JSON; more than 64 levels; the result is longer than the budget's `string_size`"),
    ],
);

const ADDRESSES: Section = (
    "URLs and addresses",
    "What can't be read is `()`, and no error: it is mostly a sender's word.",
    &[
        Member::of(
            &["url_parse(text: string)"],
            "map or `()`",
            "`#{ scheme, user, host, port, path, query, params, fragment }`: `params` are the decoded query's, of \
             several the first; `port` is the scheme's where none is given; to 16 KiB",
            r#"url_parse("https://shop.example/a?id=7#top").params.id == "7""#,
        ),
        Member::of(
            &["parse_address(text: string)"],
            "map or `()`",
            "the first address, `#{ name, address }`",
            r#"parse_address("\"Bear, P.\" <p@Example.org>") == #{ name: "Bear, P.", address: "p@Example.org" }"#,
        ),
        Member::of(
            &["parse_addresses(text: string)"],
            "array",
            "all of them, groups taken apart, as `message.header_to` has them; 64 KiB of the text are read",
            r#"parse_addresses("a@x.example, B <b@x.example>")[1] == #{ name: "B", address: "b@x.example" }"#,
        ),
    ],
);

const DOMAINS: Section = (
    "IP addresses and domains",
    "An address or a domain that is none gives `false` or `()`; a network or a pattern that is none is an error. `networks` \
     and `patterns` are a string or an array of them.",
    &[
        Member::of(
            &["ip_in(ip: string, networks: string or array)"],
            "bool",
            "whether it is in one of them: `\"192.0.2.0/24\"`, `\"2001:db8::/32\"`, a single address",
            r#"ip_in("192.0.2.7", ["198.51.100.1", "192.0.2.0/24"])"#,
        )
        .fails("one of `networks` is none"),
        Member::of(
            &["is_ip(text: string)"],
            "bool",
            "whether it is an address, of IPv4 or IPv6",
            r#"is_ip("[IPv6:2001:db8::1]")"#,
        ),
        Member::of(
            &["is_private_ip(ip: string)"],
            "bool",
            "private, local, shared, of documentation or multicast: none of the Internet's",
            r#"is_private_ip("10.1.2.3") && !is_private_ip("8.8.8.8")"#,
        ),
        Member::of(
            &["domain_matches(domain: string, patterns: string or array)"],
            "bool",
            "whether it is `\"example.com\"`, is below it (`\"*.example.com\"`), or either (`\".example.com\"`), in \
             any case and in U-labels or A-labels",
            r#"domain_matches("Mail.Example.com", [".example.com", "example.net"])"#,
        )
        .fails("one of `patterns` is none"),
        Member::of(
            &["org_domain(domain: string)"],
            "string or `()`",
            "the domain that somebody registered, by the [public suffix list](https://publicsuffix.org) as it was at \
             the build; `()` for a suffix itself",
            r#"org_domain("a.b.example.co.uk") == "example.co.uk" && org_domain("co.uk") == ()"#,
        ),
    ],
);

const DATES: Section = (
    "Dates and durations",
    "A moment is Unix milliseconds, as `ctx.now()`, `message.date` and `message.received_at` are; a duration is seconds, as \
     `HOUR` and `DAY` are. `offset` is from UTC: `\"+01:00\"`. There are no names of time zones.",
    &[
        Member::of(
            &[
                "format_date(at: integer)",
                "format_date(at: integer, format: string)",
                "format_date(at: integer, format: string, offset: string)",
            ],
            "string",
            "`\"rfc3339\"` (without a format, too), `\"rfc5322\"`, or a pattern [as of \
             strftime](https://docs.rs/jiff/latest/jiff/fmt/strtime/#conversion-specifications)",
            r#"format_date(1795511702123, "%Y-%m-%d %H:%M", "+01:00") == "2026-11-24 10:15""#,
        )
        .fails(
            "`at` is beyond the years -9999 to 9999; the format has no `%` and isn't one of the two, can't be read, \
             or has more than 200 octets; the offset is none",
        ),
        Member::of(
            &["parse_date(text: string)"],
            "integer or `()`",
            "of RFC 3339 (the day alone is its first moment in UTC) or RFC 5322",
            r#"parse_date("Tue, 24 Nov 2026 10:15:02 +0100") == parse_date("2026-11-24T09:15:02Z")"#,
        ),
        Member::of(
            &["date_parts(at: integer)", "date_parts(at: integer, offset: string)"],
            "map",
            "`#{ year, month, day, hour, minute, second, millisecond, weekday, week, day_of_year }`; `weekday` is 1 \
             on Mondays and 7 on Sundays",
            "date_parts(1795511702123).weekday == 2",
        )
        .fails("`at` is beyond the years -9999 to 9999; the offset is none"),
        Member::of(
            &["date_add(at: integer, seconds: integer)"],
            "integer",
            "the moment so much later, or earlier",
            r#"format_date(date_add(1795511702123, -2 * DAY)) == "2026-11-22T09:15:02.123Z""#,
        )
        .fails("the sum is beyond the years -9999 to 9999"),
        Member::of(
            &["parse_duration(text: string)"],
            "integer",
            "seconds of `\"2h\"`, `\"1day 12h\"`",
            r#"parse_duration("1h 30m") == HOUR + 30 * MINUTE"#,
        )
        .fails("it is none, or not of whole seconds"),
        Member::of(
            &["format_duration(seconds: integer)"],
            "string",
            "as `parse_duration` reads it",
            r#"format_duration(90 * MINUTE) == "1h 30m""#,
        )
        .fails("it is negative"),
    ],
);

const TEMPLATES: Section = (
    "Templates",
    "`{{name}}` stands for an entry of the map, `{{order.items.0}}` for what is inside; `()` is nothing, and arrays and maps are \
     written as JSON. A name that the map hasn't is an error, as is a result beyond the budget's `string_size`. What was put \
     in isn't looked at again.",
    &[
        Member::of(
            &["render(template: string, values: map)"],
            "string",
            "the template filled in",
            r#"render("{{n}} x {{item.name}}", #{ n: 2, item: #{ name: "nut" } }) == "2 x nut""#,
        )
        .fails(
            "a name that the map hasn't; `{{` without `}}`; what has no JSON; the result is longer than the budget's \
             `string_size`",
        ),
        Member::of(
            &["render_html(template: string, values: map)"],
            "string",
            "the same, and what is put in is escaped for HTML",
            r#"render_html("<b>{{name}}</b>", #{ name: "<Q&A>" }) == "<b>&lt;Q&amp;A&gt;</b>""#,
        )
        .fails("as `render`"),
        Member::of(
            &["html_escape(text: string)"],
            "string",
            "for the text of an element or a quoted attribute",
            r#"html_escape("<Q&A>") == "&lt;Q&amp;A&gt;""#,
        )
        .fails("the result is longer than the budget's `string_size`"),
    ],
);

const IDS: Section = (
    "Ids",
    "Drawn from a secret of the running server: another one for each call, run and recipient, and nobody foresees it. \
     In tests and in `mailworker explain` the same call draws the same id.",
    &[Member::of(
        &["random_id()"],
        "string",
        "128 bits as 32 hexadecimal digits",
        "random_id().len == 32 && random_id() != random_id()",
    )
    .fails("it is called outside a handler, at a file's top level")],
);
