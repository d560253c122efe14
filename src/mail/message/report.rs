//! A delivery status notification, read: what became of the mail to each recipient, and which mail it was.
//!
//! Standards: RFC 3464 §2 (fields), RFC 6533 (internationalised). Bound: so many recipients, so much of each text.

use bytes::Bytes;
use serde::Serialize;

use super::{Message, lines};

const MAX_RECIPIENTS: usize = 100;
/// Characters of one text.
const MAX_TEXT: usize = 1000;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Without its type, as in `mx.example.net`.
    pub reporting_mta: Option<String>,
    pub envelope_id: Option<String>,
    /// Of the mail that it is about.
    pub message_id: Option<String>,
    pub subject: Option<String>,
    pub recipients: Vec<Fate>,
}

/// What became of it for one recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fate {
    pub recipient: String,
    pub original_recipient: Option<String>,
    /// failed, delayed, delivered, relayed, expanded.
    pub action: String,
    /// As in `5.1.1`.
    pub status: String,
    pub diagnostic: Option<String>,
    pub remote_mta: Option<String>,
}

/// The report in this message, if there is one.
#[must_use]
pub fn read(message: &Message) -> Option<Report> {
    let raw = message.raw();
    let is_status = |kind: &str| matches!(kind, "message/delivery-status" | "message/global-delivery-status");
    let part = message.attachments().iter().find(|part| is_status(&part.content_type))?;
    let mut groups = groups(&part.content(raw)).into_iter();
    let of_all = groups.next()?;
    let original = message.attachments().iter().find(|part| {
        matches!(
            part.content_type.as_str(),
            "message/rfc822" | "text/rfc822-headers" | "message/global" | "message/global-headers"
        )
    });
    let original = original.map(|part| Message::new(part.content(raw)));
    Some(Report {
        reporting_mta: untyped(&of_all, "Reporting-MTA"),
        envelope_id: of_all.header("Original-Envelope-Id").map(clipped),
        message_id: original.as_ref().and_then(Message::message_id).map(clipped),
        subject: original.as_ref().and_then(Message::subject).map(clipped),
        recipients: groups.filter_map(|group| fate(&group)).take(MAX_RECIPIENTS).collect(),
    })
}

/// Groups of fields, between empty lines.
fn groups(octets: &Bytes) -> Vec<Message> {
    let mut groups = Vec::new();
    let mut start = None;
    for line in lines(octets) {
        match (line.is_empty(), start) {
            (false, None) => start = Some(line.start),
            (true, Some(from)) => {
                groups.push(Message::new(octets.slice(from..line.start)));
                start = None;
            }
            _ => {}
        }
        if groups.len() > MAX_RECIPIENTS {
            return groups;
        }
    }
    groups.extend(start.map(|from| Message::new(octets.slice(from..))));
    groups
}

fn fate(group: &Message) -> Option<Fate> {
    let original_recipient = untyped(group, "Original-Recipient");
    let recipient = untyped(group, "Final-Recipient").or_else(|| original_recipient.clone())?;
    let word = |name: &str| {
        let text = group.header(name).unwrap_or_default();
        text.split([' ', '(', ';']).next().unwrap_or_default().to_ascii_lowercase()
    };
    Some(Fate {
        recipient,
        original_recipient,
        action: clipped(word("Action")),
        status: clipped(word("Status")),
        diagnostic: untyped(group, "Diagnostic-Code"),
        remote_mta: untyped(group, "Remote-MTA"),
    })
}

/// `rfc822; ann@example.org` is `ann@example.org`.
fn untyped(group: &Message, name: &str) -> Option<String> {
    let text = group.header(name)?;
    let value = text.split_once(';').map_or(text.as_str(), |(_, value)| value);
    Some(clipped(value.trim().to_owned())).filter(|value| !value.is_empty())
}

fn clipped(text: String) -> String {
    if text.chars().count() > MAX_TEXT { text.chars().take(MAX_TEXT).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: &str) -> Option<Report> {
        let text = format!(
            "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nIt failed.\n--b\n\
             Content-Type: message/delivery-status\n\n{status}\n--b\nContent-Type: message/rfc822\n\n\
             Message-ID: <one@example.com>\nSubject: News\n\nhi\n--b--\n"
        );
        read(&Message::new(text.replace('\n', "\r\n").into()))
    }

    #[test]
    fn each_recipient_has_its_fate() {
        let found = report(
            "Reporting-MTA: dns; mx.example.net\nOriginal-Envelope-Id: QQ1\n\nOriginal-Recipient: rfc822;Gone@example.net\n\
             Final-Recipient: rfc822; gone@example.net\nAction: Failed\nStatus: 5.1.1 (no such user)\nRemote-MTA: dns;a.example\n\
             Diagnostic-Code: smtp; 550 5.1.1\n user unknown; sorry\n\nFinal-Recipient: rfc822; slow@example.net\nAction: delayed\n\
             Status: 4.4.1\n",
        )
        .unwrap();
        assert_eq!(found.reporting_mta.as_deref(), Some("mx.example.net"));
        assert_eq!((found.message_id.as_deref(), found.subject.as_deref()), (Some("one@example.com"), Some("News")));
        assert_eq!(found.envelope_id.as_deref(), Some("QQ1"));
        let [gone, slow] = found.recipients.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (gone.recipient.as_str(), gone.original_recipient.as_deref()),
            ("gone@example.net", Some("Gone@example.net"))
        );
        assert_eq!((gone.action.as_str(), gone.status.as_str()), ("failed", "5.1.1"));
        assert_eq!(gone.diagnostic.as_deref(), Some("550 5.1.1 user unknown; sorry"));
        assert_eq!((slow.action.as_str(), slow.status.as_str(), &slow.diagnostic), ("delayed", "4.4.1", &None));
    }

    #[test]
    fn garbage_reports_nothing_and_much_is_cut() {
        assert_eq!(report("").map(|found| found.recipients.len()), None);
        assert_eq!(report("\n\nno field\n\n:\n").map(|found| found.recipients), Some(Vec::new()));
        let many = "Reporting-MTA: dns; a\n\n".to_owned()
            + "Final-Recipient: rfc822; a@b\nAction: failed\n\n".repeat(500).as_str();
        assert_eq!(report(&many).unwrap().recipients.len(), MAX_RECIPIENTS);
        assert_eq!(read(&Message::new("Subject: x\r\n\r\nhi".into())), None);
    }
}
