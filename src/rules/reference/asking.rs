//! What a worker asks for: what becomes of the message, keys and values, `ctx`, and the verdicts of a session.

use super::members::{Member, Section};

pub(super) const DECISIONS: Section = (
    "What `message` can be told",
    "Recorded, and done when the script has ended. A rejection undoes forwards, webhooks and `store`, and lets KV writes \
     stand; a deferral undoes all; of several rejections the last one stands.",
    &[
        Member::of(
            &["message.forward(to: string or array)", "message.forward(to: string or array, headers: map)"],
            "",
            "relays it octet for octet to an address, a `[[destination]]` by name, or an array of them; `headers` is \
             a map of `X-` fields to put before it",
            r#"message.forward([env.SUPPORT_EMAIL, "archive@example.net"], #{ "X-Team": "support" });"#,
        )
        .fails(
            "one of them is neither, or there is none; a field isn't `X-`, is one of more than 50, or its value isn't \
             one line of at most 900 octets",
        ),
        Member::of(
            &["message.set_reject(text: string)", "message.set_reject(code: integer, enhanced: string, text: string)"],
            "",
            "refuses it for good: `550 5.7.1 text`, or as in `(554, \"5.7.26\", text)`",
            r#"message.set_reject(550, "5.1.1", "No such user here");"#,
        )
        .fails(
            "the text is not one line of 1 to 400 characters; `code` isn't 500 to 599, or `enhanced` isn't like \
             `5.7.1`",
        ),
        Member::of(
            &["message.defer(text: string)"],
            "",
            "`451 4.7.1 text`: the sender tries again",
            r#"message.defer("Busy, please try again later");"#,
        )
        .fails("the text is not one line of 1 to 400 characters"),
        Member::of(
            &[
                "message.set_header(name: string, value: string or integer or float or bool)",
                "message.remove_header(name: string)",
            ],
            "",
            "for the forwards after it: every field of that name makes way for this one, or is left out. `Received`, \
             signatures, `Content-` fields and the like are protected; the trace says whose DKIM signature it breaks",
            r#"message.set_header("X-Team", "support"); message.remove_header("Disposition-Notification-To");"#,
        )
        .fails(
            "the name is none, or protected; the value isn't one line of at most 900 octets, or not ASCII where \
             addresses or ids stand; the message has more than 10,000 fields, or more than \
             1,000 of them would have to go",
        ),
        Member::of(
            &["message.quarantine(reason: string)"],
            "",
            "accepts it and sends nothing until `mailworker messages release ID`, for as long as `store` or the \
             retention keeps it; KV writes stand",
            r#"if message.spam.verdict == "spam" { message.quarantine("looks like spam"); }"#,
        )
        .fails("the reason is not one line of 1 to 200 characters"),
        Member::of(
            &["message.tag(name: string)"],
            "",
            "a label in the trace, to 50 characters, at most 20 of them",
            r#"message.tag("invoice");"#,
        )
        .fails("it is empty or longer, has a blank, a comma or a control character, or is one more"),
        Member::of(
            &["message.reply(mail: map)", "message.can_reply"],
            "bool",
            "answers the sender once, in its thread, unless it is a machine, a list or not proved: \
             [effects.md](effects.md)",
            r#"if message.can_reply { message.reply(#{ text: "Thank you, we will answer soon." }); }"#,
        )
        .fails(
            "a second `reply`; an option that is none, or can't be; no text and no HTML; `from` is none of this \
             worker's addresses; more than 20 mails in one run; the store doesn't answer: that ends the run",
        ),
        Member::of(
            &["message.drop()"],
            "",
            "accepts it, and does nothing more than was asked for beside",
            "if message.is_bounce { message.drop(); }",
        ),
        Member::of(
            &["message.store()", "message.store(options: map)"],
            "",
            "keeps it: `#{ mailbox, retention }`, a name for the list and seconds (`30 * DAY`)",
            r#"message.store(#{ mailbox: "invoices", retention: 365 * DAY });"#,
        )
        .fails(
            "an option that is none; `mailbox` isn't 1 to 100 octets without controls; `retention` isn't a second to \
             ten years",
        ),
    ],
);

pub(super) const KV: Section = (
    "`env`, and a KV namespace in it",
    "`env.NAME` is a variable of `[vars]`, a secret (`mailworker secret put NAME`: a string, in whose place log and trace \
     show its name), a `[[kv_namespaces]]`, a `[[webhook]]` or a `[[destination]]`; a name that isn't bound is an error at \
     `check`. Keys to 512 octets; values are strings, blobs and what is JSON, to 25 MiB, and come \
     back as the type they were put. Reads see the run's own writes. A key that another commit changed since it was read \
     makes the script run again, so that read, change, put is safe.",
    &[
        Member::of(
            &["env.limit(name: string, key: string, rate: string)"],
            "map",
            "counts one at once: `#{ allowed, remaining, reset_at }`, by a rate as `\"100/hour\"`: \
             [effects.md](effects.md)",
            r#"if !env.limit("mail", message.from, "100/day").allowed { message.defer("Too many today"); }"#,
        )
        .fails(
            "the name isn't 1 to 64 octets, the key has more than 512, or the rate is none; more than 100 in one run \
             end it",
        ),
        Member::of(
            &["kv.get(key: string)"],
            "any or `()`",
            "the value, `()` if there is none",
            r#"let seen = env.COUNTS.get("from:" + message.from.domain) ?? 0;"#,
        )
        .fails(
            "the key is empty or has more than 512 octets; the run incremented what is no integer; more than 1,000 reads, \
             or a store that doesn't answer, end the run",
        ),
        Member::of(
            &["kv.get_with_metadata(key: string)"],
            "map",
            "`#{ value, metadata }`",
            r#"let entry = env.USERS.get_with_metadata("ann"); print(entry.metadata);"#,
        )
        .fails("as `get`"),
        Member::of(
            &["kv.put(key: string, value: any)", "kv.put(key: string, value: any, options: map)"],
            "",
            "`#{ expiration_ttl, expiration, metadata }`: seconds from now (60 at least), Unix seconds, to 1 KiB of \
             JSON",
            "env.SEEN.put(message.message_id.sha256(), ctx.now(), #{ expiration_ttl: 7 * DAY });",
        )
        .fails(
            "the key is empty or has more than 512 octets; in a handler before `email`; the value has no JSON or is \
             too large; an option that is none, or isn't so",
        ),
        Member::of(&["kv.delete(key: string)"], "", "removes it", r#"env.USERS.delete("ann");"#)
            .fails("the key is empty or has more than 512 octets; in a handler before `email`"),
        Member::of(
            &["kv.increment(key: string)", "kv.increment(key: string, by: integer)"],
            "",
            "adds to an integer at commit; no concurrent one is lost, and none makes the script run again",
            r#"env.COUNTS.increment("from:" + message.from.domain);"#,
        )
        .fails(
            "the key is empty or has more than 512 octets; in a handler before `email`; the run put \
             there what is no integer; the sum is beyond 64 bits",
        ),
        Member::of(
            &["kv.list()", "kv.list(options: map)"],
            "map",
            "`#{ prefix, limit, cursor }` ─► `#{ keys: [#{ name, expiration, metadata }], list_complete, cursor }`",
            r#"for key in env.USERS.list(#{ prefix: "gone:", limit: 100 }).keys { print(key.name); }"#,
        )
        .fails("an option that is none; `limit` isn't 1 to 1,000; reads end the run as of `get`"),
    ],
);

pub(super) const CONTEXT: Section = (
    "`ctx`",
    "`print` and `debug` are lines in the message's trace, too. What it reads from outside (`fetch`, `ai`, `dns_lookup`, \
     `dnsbl`; of `session`, too): [outside.md](outside.md).",
    &[
        Member::of(
            &["ctx.webhook(target: string, payload: any)", "ctx.webhook(target: string, payload: any, options: map)"],
            "",
            "queued, signed, tried until it is delivered: a `[[webhook]]` or a URL; what becomes JSON, a string as it \
             is, to 1 MiB, or the message ([effects.md](effects.md)); `#{ headers, method, format }`",
            r#"ctx.webhook(env.TICKETS, #{ from: message.from }, #{ headers: #{ "X-Kind": "mail" } });"#,
        )
        .fails(
            "the target is neither, or a URL of more than 2,048 octets; the payload has no JSON or is larger; an option that is none, or isn't so; a header that \
             delivery makes; a `format` for anything but `message`",
        ),
        Member::of(
            &["ctx.send(mail: map)"],
            "bool",
            "a new mail, true if it is written: `#{ from, to, cc, bcc, reply_to, subject, text, html, headers, \
             attachments }`: [effects.md](effects.md)",
            r#"ctx.send(#{ from: message.to, to: env.SUPPORT_EMAIL, subject: "New mail", text: message.subject });"#,
        )
        .fails(
            "an option that is none, or can't be; `from`, `to`, or text and HTML are missing; `from` is none of this worker's addresses; \
             more than 20 mails or 10 MiB in one run; in `delivered` and `failed`",
        ),
        Member::of(
            &["ctx.log(text: any)"],
            "",
            "a line in the message's trace",
            r#"ctx.log("for " + message.to.base);"#,
        ),
        Member::of(
            &["ctx.now()"],
            "integer",
            "Unix milliseconds, the same for the whole run",
            "let age = ctx.now() - (message.date ?? ctx.now());",
        ),
        Member::of(
            &["ctx.env_name"],
            "string",
            "the `--env` that is in force",
            r#"if ctx.env_name == "staging" { message.drop(); }"#,
        ),
        Member::of(
            &["ctx.version"],
            "string",
            "of the rules in force, a hash of their sources",
            r#"ctx.log("decided by " + ctx.version);"#,
        ),
    ],
);

pub(super) const SESSION: Section = (
    "`session`: the parameter of the handlers before `email`, and `message.session`",
    "The verdicts are for the handlers before `email`.",
    &[
        Member::of(&["session.ip"], "string", "the client's address", "if is_private_ip(session.ip) { return; }"),
        Member::of(
            &["session.ptr", "session.helo"],
            "string or `()`",
            "its name, confirmed forward; what it calls itself",
            r#"if session.ptr == () && is_ip(session.helo ?? "") { session.defer("Who are you?"); }"#,
        ),
        Member::of(
            &["session.asn"],
            "integer or `()`",
            "the autonomous system of its address, by the databases of `[geoip]`",
            r#"if session.asn == 64496 { session.defer("Not from there"); }"#,
        ),
        Member::of(
            &["session.country"],
            "string or `()`",
            "its country, likewise: `\"DE\"`",
            "session.notes.country = session.country;",
        ),
        Member::of(
            &["session.tls"],
            "map or `()`",
            "`#{ version, cipher }`",
            r#"if session.tls == () { session.reject("TLS is needed here"); }"#,
        ),
        Member::of(
            &["session.sender"],
            "string",
            "the envelope's sender, from `mail_from` on",
            r#"if session.sender.domain == "spam.example" { session.reject("No, thank you"); }"#,
        ),
        Member::of(
            &["session.notes"],
            "map",
            "what a handler sets here, the later ones read: `session.notes.seen = true`",
            "session.notes.seen = true;",
        )
        .fails("what is set has no JSON, or more than 64 KiB of it"),
        Member::of(
            &["session.reject(text: string)", "session.reject(code: integer, enhanced: string, text: string)"],
            "",
            "refuses the client, its name, the sender or this recipient, as `message.set_reject` does; in `connect` \
             with 554 or 521",
            r#"session.reject(550, "5.1.1", "No such user here");"#,
        )
        .fails("in `email`; the text is not one line of 1 to 400 characters; `code` or `enhanced` is none such"),
        Member::of(
            &["session.defer(text: string)"],
            "",
            "`451 4.7.1 text`; in `connect` 421",
            r#"session.defer("Not now, please try again later");"#,
        )
        .fails("in `email`; the text is not one line of 1 to 400 characters"),
        Member::of(
            &["session.set_limits(limits: map)"],
            "",
            "`connect` alone: this session may do no more than `#{ recipients, message_size, errors }`: recipients of one \
             transaction, octets of a message (as SIZE says), refused commands before its end; what `[limits]` says is \
             never raised",
            "session.set_limits(#{ recipients: 5, message_size: 1_000_000 });",
        )
        .fails("in another handler; an option of another name, or that is no integer of at least 1"),
        Member::of(
            &["session.redirect(address: string)"],
            "",
            "`rcpt_to` alone: takes it as this address of a configured domain",
            r#"session.redirect("team@" + rcpt.domain);"#,
        )
        .fails("in another handler; it is no address"),
    ],
);
