//! What a worker reads of the message: its fields, texts and files, octets, and what every string knows of an address.

use super::members::{Member, Section};

pub(super) const MESSAGE: Section = (
    "What `message` says",
    "Read from one parse, made when it is first needed. A text that isn't there is empty; a list, too. A text is cut at a \
     quarter of the budget's `string_size` (256 KiB), and a list ends there, so that several of them fit into one map. Reports, invitations, an answer's newest text, spam: [parsed.md](parsed.md).",
    &[
        Member::of(
            &["message.from"],
            "string",
            "the envelope's sender (MAIL FROM); empty for the null sender of bounces",
            r#"if message.from.domain == "example.org" { message.tag("partner"); }"#,
        ),
        Member::of(
            &["message.to"],
            "string",
            "the envelope's recipient that this run is for, as the sender wrote it",
            r#"if message.to.base == "sales" { message.tag("sales"); }"#,
        ),
        Member::of(
            &["message.headers"],
            "headers",
            "the header fields, see below",
            "for field in message.headers { print(field[0]); }",
        ),
        Member::of(
            &["message.subject"],
            "string",
            "decoded, one line",
            r#"if message.subject.contains("[urgent]") { message.tag("urgent"); }"#,
        ),
        Member::of(
            &["message.text"],
            "string",
            "the plain text; where there is only HTML, that as text; lines end with `\\n`",
            r#"if "unsubscribe" in message.text { message.tag("bulk"); }"#,
        ),
        Member::of(&["message.html"], "string", "the HTML", r#"if message.html == "" { message.tag("plain"); }"#),
        Member::of(
            &["message.attachments"],
            "array",
            "what is neither text nor its HTML, see below",
            "for file in message.attachments { print(file.filename); }",
        ),
        Member::of(
            &["message.header_from", "message.header_to", "message.header_cc", "message.reply_to"],
            "array",
            "addresses of the field, each `#{ name, address }`; at most 1,000",
            "for who in message.header_from + message.header_to + message.header_cc + message.reply_to { \
             print(who.address); }",
        ),
        Member::of(
            &["message.date"],
            "integer or `()`",
            "what the `Date` field says, in Unix milliseconds",
            r#"if (message.date ?? 0) < date_add(ctx.now(), -30 * DAY) { message.tag("old"); }"#,
        ),
        Member::of(
            &["message.message_id", "message.in_reply_to"],
            "string",
            "without angle brackets",
            r#"ctx.log(message.message_id + " answers " + message.in_reply_to);"#,
        ),
        Member::of(
            &["message.references"],
            "array",
            "message ids, the oldest first",
            r#"if message.references.len > 50 { message.tag("long"); }"#,
        ),
        Member::of(
            &["message.id"],
            "string",
            "our name for the message (ULID): `mailworker messages show ID`",
            "env.SEEN.put(message.id, message.from);",
        ),
        Member::of(
            &["message.received_at"],
            "integer",
            "Unix milliseconds",
            "print(format_date(message.received_at));",
        ),
        Member::of(
            &["message.raw"],
            "octets",
            "the message as received, see below",
            r#"if message.raw.starts_with("From ") { message.tag("mbox"); }"#,
        ),
        Member::of(
            &["message.raw_size"],
            "integer",
            "its octets",
            r#"if message.raw_size > 10000000 { message.set_reject("Too large"); }"#,
        ),
        Member::of(
            &["message.is_auto"],
            "bool",
            "made by a machine, as its fields say (RFC 3834 and custom): bounces and lists, too",
            "if message.is_auto { return; }",
        ),
        Member::of(
            &["message.is_bounce"],
            "bool",
            "a delivery status notification (RFC 3464), or from the null sender",
            "if message.is_bounce { message.drop(); return; }",
        ),
        Member::of(
            &["message.is_list"],
            "bool",
            "came through a mailing list (RFC 2919, RFC 2369)",
            r#"if message.is_list { message.tag("list"); }"#,
        ),
        Member::of(
            &["message.can_be_forwarded"],
            "bool",
            "false: only SPF proves it, and its domain has others refuse what nothing proves; or it was here already",
            "if message.can_be_forwarded { message.forward(env.DEFAULT_EMAIL); }",
        ),
        Member::of(
            &["message.auth"],
            "auth",
            "who sent it, as SPF, DKIM, DMARC, ARC and iprev say: [sender.md](sender.md)",
            r#"if !message.auth.passed { message.quarantine("nothing proves who sent it"); }"#,
        ),
        Member::of(&["message.session"], "session", "how it came in, see below", "print(message.session.ip);"),
    ],
);

pub(super) const HEADERS: Section = (
    "`message.headers`",
    "Names are compared without case. `for field in message.headers` gives `[name, value]` in order, as their \
     JSON has them. The first 10,000 fields are seen, and 64 KiB of each value.",
    &[
        Member::of(
            &["headers.get(name: string)"],
            "string or `()`",
            "the first of that name: decoded, one line, whatever controls an encoding hid",
            r#"if message.headers.get("X-Spam") == "yes" { message.drop(); }"#,
        ),
        Member::of(
            &["headers.get_all(name: string)"],
            "array",
            "every one of that name",
            r#"for hop in message.headers.get_all("Received") { print(hop); }"#,
        ),
        Member::of(
            &["headers.has(name: string)"],
            "bool",
            "whether there is one",
            r#"if message.headers.has("List-Id") { message.tag("list"); }"#,
        ),
        Member::of(
            &["headers.raw(name: string)"],
            "string or `()`",
            "the first one's value as received, folding included",
            r#"print(message.headers.raw("Subject"));"#,
        ),
        Member::of(
            &["headers.keys()"],
            "array",
            "the names in order, as often as they occur",
            r#"if "X-Loop" in message.headers.keys() { message.drop(); }"#,
        ),
        Member::of(
            &["headers.len", "headers.len()"],
            "integer",
            "how many fields",
            r#"if message.headers.len > 500 { message.set_reject("Too many header fields"); }"#,
        ),
    ],
);

pub(super) const ATTACHMENTS: Section = (
    "Each of `message.attachments`",
    "File name and type are the sender's words. In JSON (a payload, a KV value) an attachment is its `to_map()`. The \
     examples stand within `for attachment in message.attachments { … }`.",
    &[
        Member::of(
            &["attachment.filename", "attachment.content_id"],
            "string",
            "empty where none is given",
            r#"print(attachment.filename + " " + attachment.content_id);"#,
        ),
        Member::of(
            &["attachment.content_type"],
            "string",
            "as in `application/pdf`",
            r#"if attachment.content_type == "application/pdf" { message.tag("pdf"); }"#,
        ),
        Member::of(&["attachment.inline"], "bool", "to be shown within the text", "if attachment.inline { continue; }"),
        Member::of(
            &["attachment.size"],
            "integer",
            "octets, decoded",
            r#"if attachment.size > 5000000 { message.tag("large"); }"#,
        ),
        Member::of(
            &["attachment.sha256"],
            "string",
            "of the content, in hexadecimal",
            "if env.SEEN.get(attachment.sha256) != () { message.drop(); }",
        ),
        Member::of(
            &["attachment.content"],
            "octets",
            "decoded",
            r#"if attachment.content.starts_with("%PDF") { message.tag("pdf"); }"#,
        ),
        Member::of(
            &["attachment.text"],
            "string",
            "the content as text, by its charset; cut as `message.text` is",
            r#"if attachment.text.starts_with("BEGIN:VCARD") { message.tag("card"); }"#,
        ),
        Member::of(
            &["attachment.to_map()"],
            "map",
            "all of these but content and text",
            "ctx.webhook(env.TICKETS, #{ file: attachment.to_map() });",
        ),
    ],
);

pub(super) const OCTETS: Section = (
    "Octets: `message.raw` and `attachment.content`",
    "Bytes of any size, without a copy. They compare with each other and with blobs, and a KV `put` takes them. `get` \
     gives a blob, or octets where it is longer than a blob may be.",
    &[
        Member::of(
            &["octets.len", "octets.len()"],
            "integer",
            "how many; `octets[i]` is one of them, from 0 to 255, and an error beyond the end",
            r#"if message.raw.len > 1000000 { message.tag("large"); }"#,
        ),
        Member::of(
            &["octets.is_empty", "octets.is_empty()"],
            "bool",
            "whether there is none",
            "if message.raw.is_empty { message.drop(); }",
        ),
        Member::of(
            &["octets.extract(start: integer)", "octets.extract(start: integer, length: integer)"],
            "octets",
            "a part; a negative start counts from the end",
            "let end = message.raw.extract(-100); let head = message.raw.extract(0, 1000);",
        ),
        Member::of(
            &["octets.contains(text: string)"],
            "bool",
            "whether the text stands somewhere in them",
            r#"if message.raw.contains("BEGIN PGP MESSAGE") { message.tag("pgp"); }"#,
        ),
        Member::of(
            &["octets.index_of(text: string)"],
            "integer",
            "where it stands first; -1 if nowhere",
            r#"let head = message.raw.extract(0, message.raw.index_of("\r\n\r\n"));"#,
        ),
        Member::of(
            &["octets.starts_with(text: string)", "octets.ends_with(text: string)"],
            "bool",
            "whether it stands there",
            r#"if message.raw.starts_with("From ") && message.raw.ends_with("\r\n") { message.tag("mbox"); }"#,
        ),
        Member::of(
            &["octets.as_string()"],
            "string",
            "as UTF-8, other octets replaced; cut at the budget's `string_size`",
            "print(message.raw.extract(0, 100).as_string());",
        ),
        Member::of(
            &["octets.to_blob()"],
            "blob",
            "as Rhai's own blob",
            "let blob = message.raw.extract(0, 16).to_blob();",
        )
        .fails("they are more than the budget's `array_size`"),
        Member::of(
            &["octets.to_base64()", "blob.to_base64()"],
            "string",
            "with padding (RFC 4648 §4)",
            "if message.raw_size < 500000 { ctx.webhook(env.CRM, #{ eml: message.raw.to_base64() }); }",
        )
        .fails("the text would be longer than the budget's `string_size`"),
        Member::of(
            &["octets.sha256()", "blob.sha256()", "string.sha256()"],
            "string",
            "in hexadecimal",
            "env.SEEN.put(message.raw.sha256(), message.id);",
        ),
    ],
);

pub(super) const STRINGS: Section = (
    "Addresses are strings",
    "`message.from == \"a@b.example\"`, `switch message.to { … }`, `${message.to}`, a map's value, a key: all as with any \
     string. Every string has these; one without `@` is all `local`.",
    &[
        Member::of(
            &["string.local", "string.domain"],
            "string",
            "before and after the `@`, in lower case, without quotes",
            r#"print(message.from.local + " at " + message.from.domain);"#,
        ),
        Member::of(
            &["string.tag"],
            "string",
            "`Tag` of `user+Tag@`, as written; empty if none",
            r#"if message.to.tag == "urgent" { message.tag("urgent"); }"#,
        ),
        Member::of(
            &["string.base"],
            "string",
            "`local` without the tag. What separates them is the domain's `subaddress`",
            r#"if message.to.base in ["help", "support"] { message.forward(env.SUPPORT_EMAIL); }"#,
        ),
    ],
);
