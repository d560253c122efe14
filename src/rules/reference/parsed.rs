//! The page of what is made of a message beyond its fields and parts, `rules/parsed.md`.

use std::fmt::Write as _;

use super::members::{Member, Section};
use crate::mail::message::spam;

pub(super) const PARSED: Section = (
    "Members",
    "Read when it is first asked for, and bounded as the rest of `message` is.",
    &[
        Member::of(
            &["message.reply_text"],
            "string",
            "the newest text: without what it quotes, who wrote that («On … wrote:», in two dozen languages), what \
             programs put before an original, and the signature. Where nothing would be left, all of `message.text`",
            "ctx.webhook(env.TICKETS, #{ comment: message.reply_text });",
        ),
        Member::of(
            &["message.to_payload()", "message.to_payload(format: string)"],
            "payload",
            "the whole message for `ctx.webhook`: `standard` (without a format), `mailgun`, `mailgun-mime`, \
             `sendgrid`, `sendgrid-raw`, `postmark` or `cloudmailin`; nothing is read from it. See \
             [effects.md](effects.md)",
            r#"ctx.webhook(env.TICKETS, message.to_payload("postmark"));"#,
        )
        .fails("the format is none of them"),
        Member::of(
            &["message.dsn"],
            "map or `()`",
            "of a delivery status notification (RFC 3464): `#{ reporting_mta, envelope_id, message_id, subject, \
             recipients: [#{ recipient, original_recipient, action, status, diagnostic, remote_mta }] }`; \
             `message_id` and `subject` are those of the mail that it is about, `action` is `failed`, `delayed`, \
             `delivered`, `relayed` or `expanded`. At most 100",
            "if message.dsn != () { print(message.dsn.subject); }",
        ),
        Member::of(
            &["message.calendar"],
            "array",
            "events of calendar parts (RFC 5545): `#{ method, uid, summary, location, status, start, end, timezone, \
             organizer, attendees }`, people as `#{ name, address, status }`, times as `2026-11-24T10:00:00Z`, local \
             to `timezone` without the `Z`, `2026-11-24` for a day. At most 20",
            "for meeting in message.calendar { print(meeting.summary); }",
        ),
        Member::of(
            &["message.spam"],
            "map",
            "what the header section says against it: `#{ score, symbols, verdict }`, `symbols` by name with their \
             points, `verdict` one of `ham`, `suspect`, `spam`",
            r#"if message.spam.verdict == "spam" { message.tag("spam"); }"#,
        ),
    ],
);

/// What the tests of `message.spam` are.
pub(super) fn tests() -> String {
    let (suspect, spam) = (spam::SUSPECT, spam::SPAM);
    let mut page = format!(
        "\n## The tests of `message.spam`\nCheap, and no proof: from {suspect} points on a message is `suspect`, from {spam} on \
         `spam`. What SPF, DKIM and DMARC say isn't in it: `message.auth`. Nothing is done by it unless a worker does.\n\n\
         | symbol | points | what it says |\n| --- | --- | --- |\n"
    );
    for (name, points, what) in spam::TESTS {
        let _ = writeln!(page, "| `{name}` | {points} | {what} |");
    }
    page
}
