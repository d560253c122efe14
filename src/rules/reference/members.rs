//! What a script sees, section by section: as it is written, what it gives, what it is for.
//!
//! Compared with the engine's registrations by the tests; a row that isn't registered fails, and so does a registration
//! without a row.

/// Signatures (several where arguments may be left out), what comes of it, one sentence.
pub(super) struct Member(pub &'static [&'static str], pub &'static str, pub &'static str);

/// Heading, what to know first, rows.
pub(super) type Section = (&'static str, &'static str, &'static [Member]);

pub(super) const SECTIONS: &[Section] =
    &[MESSAGE, HEADERS, ATTACHMENTS, OCTETS, STRINGS, DECISIONS, KV, CONTEXT, SESSION];

const MESSAGE: Section = (
    "What `message` says",
    "Read from one parse, made when it is first needed. A text that isn't there is empty; a list, too. A text is cut at a \
     quarter of the budget's `string_size` (256 KiB), and a list ends there, so that several of them fit into one map. Reports, invitations, an answer's newest text, spam: [parsed.md](parsed.md).",
    &[
        Member(&["message.from"], "string", "the envelope's sender (MAIL FROM); empty for the null sender of bounces"),
        Member(&["message.to"], "string", "the envelope's recipient that this run is for, as the sender wrote it"),
        Member(&["message.headers"], "headers", "the header fields, see below"),
        Member(&["message.subject"], "string", "decoded, one line"),
        Member(
            &["message.text"],
            "string",
            "the plain text; where there is only HTML, that as text; lines end with `\\n`",
        ),
        Member(&["message.html"], "string", "the HTML"),
        Member(&["message.attachments"], "array", "what is neither text nor its HTML, see below"),
        Member(
            &["message.header_from", "message.header_to", "message.header_cc", "message.reply_to"],
            "array",
            "addresses of the field, each `#{ name, address }`; at most 1,000",
        ),
        Member(&["message.date"], "integer or `()`", "what the `Date` field says, in Unix milliseconds"),
        Member(&["message.message_id", "message.in_reply_to"], "string", "without angle brackets"),
        Member(&["message.references"], "array", "message ids, the oldest first"),
        Member(&["message.id"], "string", "our name for the message (ULID): `mailworker messages show ID`"),
        Member(&["message.received_at"], "integer", "Unix milliseconds"),
        Member(&["message.raw"], "octets", "the message as received, see below"),
        Member(&["message.raw_size"], "integer", "its octets"),
        Member(
            &["message.is_auto"],
            "bool",
            "made by a machine, as its fields say (RFC 3834 and custom): bounces and lists, too",
        ),
        Member(&["message.is_bounce"], "bool", "a delivery status notification (RFC 3464), or from the null sender"),
        Member(&["message.is_list"], "bool", "came through a mailing list (RFC 2919, RFC 2369)"),
        Member(
            &["message.can_be_forwarded"],
            "bool",
            "false: only SPF proves it, and its domain has others refuse what nothing proves; or it was here already",
        ),
        Member(
            &["message.auth"],
            "auth",
            "who sent it, as SPF, DKIM, DMARC, ARC and iprev say: [sender.md](sender.md)",
        ),
        Member(&["message.session"], "session", "how it came in, see below"),
    ],
);

const HEADERS: Section = (
    "`message.headers`",
    "Names are compared without case. `for field in message.headers` gives `[name, value]` in order, as their \
     JSON has them. The first 10,000 fields are seen, and 64 KiB of each value.",
    &[
        Member(
            &["headers.get(name)"],
            "string or `()`",
            "the first of that name: decoded, one line, whatever controls an encoding hid",
        ),
        Member(&["headers.get_all(name)"], "array", "every one of that name"),
        Member(&["headers.has(name)"], "bool", "whether there is one"),
        Member(&["headers.raw(name)"], "string or `()`", "the first one's value as received, folding included"),
        Member(&["headers.keys()"], "array", "the names in order, as often as they occur"),
        Member(&["headers.len", "headers.len()"], "integer", "how many fields"),
    ],
);

const ATTACHMENTS: Section = (
    "Each of `message.attachments`",
    "File name and type are the sender's words. In JSON (a payload, a KV value) an attachment is its `to_map()`.",
    &[
        Member(&["attachment.filename", "attachment.content_id"], "string", "empty where none is given"),
        Member(&["attachment.content_type"], "string", "as in `application/pdf`"),
        Member(&["attachment.inline"], "bool", "to be shown within the text"),
        Member(&["attachment.size"], "integer", "octets, decoded"),
        Member(&["attachment.sha256"], "string", "of the content, in hexadecimal"),
        Member(&["attachment.content"], "octets", "decoded"),
        Member(&["attachment.text"], "string", "the content as text, by its charset; cut as `message.text` is"),
        Member(&["attachment.to_map()"], "map", "all of these but content and text"),
    ],
);

const OCTETS: Section = (
    "Octets: `message.raw` and `attachment.content`",
    "Bytes of any size, without a copy. They compare with each other and with blobs, and a KV `put` takes them. `get` \
     gives a blob, or octets where it is longer than a blob may be.",
    &[
        Member(&["octets.len", "octets.len()"], "integer", "how many; `octets[i]` is one of them, from 0 to 255"),
        Member(&["octets.is_empty", "octets.is_empty()"], "bool", "whether there is none"),
        Member(
            &["octets.extract(start)", "octets.extract(start, length)"],
            "octets",
            "a part; a negative start counts from the end",
        ),
        Member(&["octets.contains(text)"], "bool", "whether the text stands somewhere in them"),
        Member(&["octets.index_of(text)"], "integer", "where it stands first; -1 if nowhere"),
        Member(&["octets.starts_with(text)", "octets.ends_with(text)"], "bool", "whether it stands there"),
        Member(&["octets.as_string()"], "string", "as UTF-8, other octets replaced; cut at the budget's `string_size`"),
        Member(&["octets.to_blob()"], "blob", "as Rhai's own blob; an error beyond the budget's `array_size`"),
        Member(&["octets.to_base64()", "blob.to_base64()"], "string", "an error beyond the budget's `string_size`"),
        Member(&["octets.sha256()", "blob.sha256()", "string.sha256()"], "string", "in hexadecimal"),
    ],
);

const STRINGS: Section = (
    "Addresses are strings",
    "`message.from == \"a@b.example\"`, `switch message.to { … }`, `${message.to}`, a map's value, a key: all as with any \
     string. Every string has these; one without `@` is all `local`.",
    &[
        Member(&["string.local", "string.domain"], "string", "before and after the `@`, in lower case, without quotes"),
        Member(&["string.tag"], "string", "`Tag` of `user+Tag@`, as written; empty if none"),
        Member(&["string.base"], "string", "`local` without the tag. What separates them is the domain's `subaddress`"),
    ],
);

const DECISIONS: Section = (
    "What `message` can be told",
    "Recorded, and done when the script has ended. A rejection undoes forwards, webhooks and `store`, and lets KV writes \
     stand; a deferral undoes all; of several rejections the last one stands.",
    &[
        Member(
            &["message.forward(to)", "message.forward(to, headers)"],
            "",
            "relays it octet for octet to an address, a `[[destination]]` by name, or an array of them; `headers` is a \
             map of `X-` fields to put before it",
        ),
        Member(
            &["message.set_reject(text)", "message.set_reject(code, enhanced, text)"],
            "",
            "refuses it for good: `550 5.7.1 text`, or as in `(554, \"5.7.26\", text)`",
        ),
        Member(&["message.defer(text)"], "", "`451 4.7.1 text`: the sender tries again"),
        Member(
            &["message.set_header(name, value)", "message.remove_header(name)"],
            "",
            "for the forwards after it: every field of that name makes way for this one, or is left out. `Received`, \
             signatures, `Content-` fields and the like are protected; the trace says whose DKIM signature it breaks",
        ),
        Member(
            &["message.quarantine(reason)"],
            "",
            "accepts it and sends nothing until `mailworker messages release ID`, for as long as `store` or the retention keeps \
             it; KV writes stand",
        ),
        Member(&["message.tag(name)"], "", "a label in the trace, to 50 characters, at most 20 of them"),
        Member(
            &["message.reply(mail)", "message.can_reply"],
            "bool",
            "answers the sender once, in its thread, unless it is a machine, a list or not proved: [effects.md](effects.md)",
        ),
        Member(&["message.drop()"], "", "accepts it, and does nothing more than was asked for beside"),
        Member(
            &["message.store()", "message.store(options)"],
            "",
            "keeps it: `#{ mailbox, retention }`, a name for the list and seconds (`30 * DAY`)",
        ),
    ],
);

const KV: Section = (
    "`env`, and a KV namespace in it",
    "`env.NAME` is a variable of `[vars]`, a secret (`mailworker secret put NAME`: a string, in whose place log and trace \
     show its name), a `[[kv_namespaces]]`, a `[[webhook]]` or a `[[destination]]`; a name that isn't bound is an error at \
     `check`. Keys to 512 octets; values are strings, blobs and what is JSON, to 25 MiB, and come \
     back as the type they were put. Reads see the run's own writes. A key that another commit changed since it was read \
     makes the script run again, so that read, change, put is safe.",
    &[
        Member(
            &["env.limit(name, key, rate)"],
            "map",
            "counts one at once: `#{ allowed, remaining, reset_at }`, by a rate as `\"100/hour\"`: [effects.md](effects.md)",
        ),
        Member(&["kv.get(key)"], "any or `()`", "the value, `()` if there is none"),
        Member(&["kv.get_with_metadata(key)"], "map", "`#{ value, metadata }`"),
        Member(
            &["kv.put(key, value)", "kv.put(key, value, options)"],
            "",
            "`#{ expiration_ttl, expiration, metadata }`: seconds from now (60 at least), Unix seconds, to 1 KiB of JSON",
        ),
        Member(&["kv.delete(key)"], "", "removes it"),
        Member(
            &["kv.increment(key)", "kv.increment(key, by)"],
            "",
            "adds to an integer at commit; no concurrent one is lost, and none makes the script run again",
        ),
        Member(
            &["kv.list()", "kv.list(options)"],
            "map",
            "`#{ prefix, limit, cursor }` ─► `#{ keys: [#{ name, expiration, metadata }], list_complete, cursor }`",
        ),
    ],
);

const CONTEXT: Section = (
    "`ctx`",
    "`print` and `debug` are lines in the message's trace, too. What it reads from outside (`fetch`, `ai`, `dns_lookup`, \
     `dnsbl`; of `session`, too): [outside.md](outside.md).",
    &[
        Member(
            &["ctx.webhook(target, payload)", "ctx.webhook(target, payload, options)"],
            "",
            "queued, signed, tried until it is delivered: a `[[webhook]]` or a URL; what becomes JSON, a string as it \
             is, to 1 MiB, or the message ([effects.md](effects.md)); `#{ headers, method, format }`",
        ),
        Member(
            &["ctx.send(mail)"],
            "bool",
            "a new mail, true if it is written: `#{ from, to, cc, bcc, reply_to, subject, text, html, headers, attachments }`: [effects.md](effects.md)",
        ),
        Member(&["ctx.log(text)"], "", "a line in the message's trace"),
        Member(&["ctx.now()"], "integer", "Unix milliseconds, the same for the whole run"),
        Member(&["ctx.env_name"], "string", "the `--env` that is in force"),
        Member(&["ctx.version"], "string", "of the rules in force, a hash of their sources"),
    ],
);

const SESSION: Section = (
    "`session`: the parameter of the handlers before `email`, and `message.session`",
    "The verdicts are for the handlers before `email`.",
    &[
        Member(&["session.ip"], "string", "the client's address"),
        Member(&["session.ptr", "session.helo"], "string or `()`", "its name, confirmed forward; what it calls itself"),
        Member(
            &["session.asn"],
            "integer or `()`",
            "the autonomous system of its address, by the databases of `[geoip]`",
        ),
        Member(&["session.country"], "string or `()`", "its country, likewise: `\"DE\"`"),
        Member(&["session.tls"], "map or `()`", "`#{ version, cipher }`"),
        Member(&["session.sender"], "string", "the envelope's sender, from `mail_from` on"),
        Member(&["session.notes"], "map", "what a handler sets here, the later ones read: `session.notes.seen = true`"),
        Member(
            &["session.reject(text)", "session.reject(code, enhanced, text)"],
            "",
            "refuses the client, its name, the sender or this recipient, as `message.set_reject` does; in `connect` with 554 or 521",
        ),
        Member(&["session.defer(text)"], "", "`451 4.7.1 text`; in `connect` 421"),
        Member(&["session.redirect(address)"], "", "`rcpt_to` alone: takes it as this address of a configured domain"),
    ],
);
