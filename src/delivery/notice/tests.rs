//! Who gets a notice, and what it says to people and programs.

use bytes::Bytes;
use mail_parser::{MessageParser, MimeHeaders as _};

use super::*;
use crate::dns::Table;
use crate::mail::{Client, Ret};
use crate::store::MessageOutcome;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_600_000);
const RAW: &str = "From: Ann <ann@example.org>\r\nTo: bob@example.com\r\nSubject: Lunch\r\n\
    Message-ID: <lunch@example.org>\r\n\r\nAt noon?\r\n";

struct Case {
    config: Config,
    dns: Dns,
    task: NoticeTask,
    body: Body,
}

fn octets(notice: &Acceptance) -> &Bytes {
    notice.body.here().unwrap()
}

impl Case {
    /// Ann writes to Bob from an address that her domain's SPF record names; Bob's server refuses.
    fn new(raw: &str) -> Self {
        let mut config = Config::default();
        "mx.example.com".clone_into(&mut config.hostname);
        let table = Table::default().with_txt("example.org", "v=spf1 ip4:192.0.2.7 -all");
        let mut bob = Recipient::new(Address::parse("bob@example.com").unwrap());
        bob.orcpt = Some("rfc822;b+2Bob@example.com".to_owned());
        let client = Client {
            ip: "192.0.2.7".parse().unwrap(),
            port: 4000,
            listener: "0.0.0.0:25".to_owned(),
            helo: Some("mail.example.org".to_owned()),
            esmtp: true,
            tls: None,
            ptr: None,
            auth: None,
            origin: crate::mail::Origin::default(),
        };
        let envelope = Envelope {
            sender: Some(Address::parse("ann@example.org").unwrap()),
            recipients: vec![bob],
            envid: Some("order 7".to_owned()),
            ..Envelope::default()
        };
        let task = NoticeTask {
            action: "failed".to_owned(),
            recipient: Address::parse("bob@example.com").unwrap(),
            orcpt: None,
            status: "5.1.1".to_owned(),
            diagnostic: "550 5.1.1 no such user".to_owned(),
            remote: Some("mx1.example.net [198.51.100.1]:25".to_owned()),
        };
        let raw = Bytes::copy_from_slice(raw.as_bytes());
        let body = Body { envelope, client: Some(client), head: Bytes::new(), raw: raw.into() };
        Self { config, dns: Dns::table(table).unwrap(), task, body }
    }

    async fn prepare(&self) -> Prepared {
        let message = MessageId::floor(Timestamp::from_millis(1_800_000_000_000));
        prepare(&self.config, &self.dns, message, &self.task, &self.body, NOW).await
    }

    async fn sent(&self) -> Acceptance {
        match self.prepare().await {
            Prepared::Send(acceptance) => *acceptance,
            other => panic!("{other:?}"),
        }
    }

    async fn suppressed(&self) -> String {
        match self.prepare().await {
            Prepared::Suppressed { why } => why,
            other => panic!("{other:?}"),
        }
    }
}

/// The content types and texts of the three parts; every line is within its bound.
fn parts(octets: &[u8]) -> Vec<(String, String)> {
    assert!(
        octets
            .split(|octet| *octet == b'\n')
            .all(|line| line.len() <= 999 && (line.ends_with(b"\r") || line.is_empty()))
    );
    let parsed = MessageParser::new().parse(octets).unwrap();
    let top = parsed.content_type().unwrap();
    assert_eq!((top.ctype(), top.subtype()), ("multipart", Some("report")));
    assert_eq!(top.attribute("report-type"), Some("delivery-status"));
    let kind = |part: &mail_parser::MessagePart<'_>| {
        let kind = part.content_type().unwrap();
        format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default())
    };
    let text = |part: &mail_parser::MessagePart<'_>| {
        let range = part.raw_body_offset() as usize..part.raw_end_offset() as usize;
        String::from_utf8_lossy(&octets[range]).into_owned()
    };
    let root = parsed.root_part().sub_parts().unwrap();
    root.iter().map(|index| &parsed.parts[*index as usize]).map(|part| (kind(part), text(part))).collect()
}

#[tokio::test]
async fn a_notice_is_made_of_its_report_and_its_id_alone() {
    let case = Case::new(RAW);
    let written = || async {
        fastrand::seed(7);
        case.sent().await.body.here().cloned().unwrap()
    };
    assert_eq!(written().await, written().await);
}

#[tokio::test]
async fn a_failure_is_told_to_people_and_programs() {
    let acceptance = Case::new(RAW).sent().await;
    let parts = parts(octets(&acceptance));
    let kinds: Vec<&str> = parts.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    let parsed = MessageParser::new().parse(octets(&acceptance)).unwrap();
    let words = parsed.body_text(0).unwrap();
    for said in
        ["could not be delivered to", "bob@example.com", "mx1.example.net said", "550 5.1.1 no such user", "Lunch"]
    {
        assert!(words.contains(said), "{said} in\n{words}");
    }
    assert_eq!(
        parts[1].1.trim_end(),
        "Original-Envelope-Id: order 7\r\nReporting-MTA: dns; mx.example.com\r\n\
         Received-From-MTA: dns; mail.example.org\r\nArrival-Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n\r\n\
         Original-Recipient: rfc822; b+ob@example.com\r\nFinal-Recipient: rfc822; bob@example.com\r\nAction: failed\r\n\
         Status: 5.1.1\r\nRemote-MTA: dns; mx1.example.net\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n\
         Last-Attempt-Date: Fri, 15 Jan 2027 08:10:00 +0000"
    );
    assert_eq!(parts[2].1.trim_end(), RAW.split("\r\n\r\n").next().unwrap());
}

#[tokio::test]
async fn a_notice_comes_from_nobody_and_asks_for_no_notice() {
    let acceptance = Case::new(RAW).sent().await;
    assert_eq!((acceptance.outcome, &acceptance.envelope.sender), (MessageOutcome::Authored, &None));
    assert_eq!((acceptance.client.is_none(), acceptance.head.is_empty()), (true, true));
    let [NewDelivery { task: Task::Relay(relay), destination, due }] = acceptance.deliveries.as_slice() else {
        panic!("{:?}", acceptance.deliveries)
    };
    assert_eq!((destination.as_str(), *due, relay.recipient.as_str()), ("mx:example.org", NOW, "ann@example.org"));
    assert_eq!(relay.notify, NEVER);
    let message = Message::new(octets(&acceptance).clone());
    assert_eq!(message.header("Auto-Submitted").as_deref(), Some("auto-replied"));
    assert_eq!(message.header_from().as_deref(), Some("MAILER-DAEMON@mx.example.com"));
    assert_eq!(message.addresses("To")[0].address.as_deref(), Some("ann@example.org"));
    assert_eq!(message.message_id(), Some(format!("{}@mx.example.com", acceptance.id)));
    assert_eq!(message.ids("In-Reply-To"), ["lunch@example.org"]);
    assert_eq!(message.subject(), acceptance.subject);
    assert!(message.is_bounce() && message.is_auto());
    assert_eq!(
        message.count_header("Date") + message.count_header("Message-ID") + message.count_header("MIME-Version"),
        3
    );
}

#[tokio::test]
async fn a_notice_of_a_notice_is_never_sent() {
    let mut case = Case::new(RAW);
    case.body.envelope.sender = None;
    assert!(case.suppressed().await.contains("null"));
    let first = Case::new(RAW).sent().await;
    let case = Case::new(std::str::from_utf8(octets(&first)).unwrap());
    assert!(case.suppressed().await.contains("notice itself"));
    let mut case = Case::new(RAW);
    case.body.envelope.sender = Address::parse("Mailer-Daemon@example.org").ok();
    assert!(case.suppressed().await.contains("notice itself"));
}

#[tokio::test]
async fn lists_and_machines_get_none() {
    for field in [
        "Auto-Submitted: auto-generated",
        "Precedence: bulk",
        "Precedence: junk",
        "Precedence: list",
        "List-Id: <l.example.org>",
        "X-Auto-Response-Suppress: All",
    ] {
        Case::new(&format!("{field}\r\n{RAW}")).suppressed().await;
    }
    Case::new(&format!("Auto-Submitted: no\r\n{RAW}")).sent().await;
}

#[tokio::test]
async fn only_a_proved_sender_hears_of_it() {
    let mut case = Case::new(RAW);
    case.body.client.as_mut().unwrap().ip = "192.0.2.99".parse().unwrap();
    assert!(case.suppressed().await.contains("nothing proves that ann@example.org sent it: spf=fail"));
    case.body.client = None;
    case.suppressed().await;
    let mut case = Case::new(RAW);
    case.dns = Dns::table(Table::default().with_failure("example.org", "SERVFAIL")).unwrap();
    assert!(matches!(case.prepare().await, Prepared::Later { .. }));
}

#[tokio::test]
async fn notify_is_heeded() {
    let only = |success, failure, delay| Notify { success, failure, delay, explicit: true };
    for (notify, told) in [
        (Notify::default(), ["failed", "delayed"].as_slice()),
        (only(false, false, false), &[]),
        (only(true, false, false), &["delivered", "relayed", "expanded"]),
        (only(false, true, false), &["failed"]),
        (only(false, false, true), &["delayed"]),
    ] {
        let mut case = Case::new(RAW);
        case.body.envelope.recipients[0].notify = notify;
        for action in ["failed", "delayed", "delivered", "relayed", "expanded", "other"] {
            action.clone_into(&mut case.task.action);
            let sent = matches!(case.prepare().await, Prepared::Send(_));
            assert_eq!(sent, told.contains(&action), "{action} with {notify:?}");
        }
    }
}

#[tokio::test]
async fn notify_is_that_of_the_recipient_it_is_about() {
    let mut case = Case::new(RAW);
    let mut carol = Recipient::new(Address::parse("carol@example.com").unwrap());
    carol.notify = NEVER;
    case.body.envelope.recipients.push(carol);
    case.sent().await;
    case.task.recipient = Address::parse("Carol@EXAMPLE.com").unwrap();
    case.suppressed().await;
}

#[tokio::test]
async fn the_other_actions_say_so() {
    let mut case = Case::new(RAW);
    case.body.envelope.recipients[0].notify = Notify { success: true, delay: true, ..Notify::default() };
    for (action, status, words) in [
        ("delayed", "4.4.1", "has not been delivered yet"),
        ("delivered", "2.1.5", "was delivered to"),
        ("relayed", "2.0.0", "sends no confirmations"),
    ] {
        action.clone_into(&mut case.task.action);
        status.clone_into(&mut case.task.status);
        let acceptance = case.sent().await;
        let fields = parts(octets(&acceptance))[1].1.clone();
        assert!(fields.contains(&format!("Action: {action}\r\nStatus: {status}\r\n")), "{fields}");
        assert_eq!(fields.contains("Will-Retry-Until: Wed, 20 Jan 2027 08:00:00 +0000"), action == "delayed");
        assert_eq!(fields.contains("Diagnostic-Code"), action == "delayed");
        let parsed = MessageParser::new().parse(octets(&acceptance)).unwrap();
        let text = parsed.body_text(0).unwrap();
        assert!(text.replace("\r\n", " ").contains(words), "{text}");
    }
}

#[tokio::test]
async fn ret_full_gives_the_whole_of_a_failure_back() {
    let mut case = Case::new(RAW);
    case.body.envelope.ret = Some(Ret::Full);
    let all = parts(octets(&case.sent().await));
    assert_eq!((all[2].0.as_str(), all[2].1.trim_end()), ("message/rfc822", RAW.trim_end()));
    case.body.envelope.recipients[0].notify = Notify { success: true, ..Notify::default() };
    "delivered".clone_into(&mut case.task.action);
    assert_eq!(parts(octets(&case.sent().await))[2].0, "text/rfc822-headers");
}

#[tokio::test]
async fn what_a_remote_said_can_forge_no_field() {
    let mut case = Case::new(RAW);
    case.task.diagnostic = format!("550 no\r\nAction: delivered\r\n\r\n\u{1b}[31m{}", "word ".repeat(1_000));
    case.task.remote = Some("mx\r\nAction: delivered".to_owned());
    case.task.status = "5.1.1\r\nX: y".to_owned();
    case.body.envelope.envid = Some("a\r\nX: y".to_owned());
    case.task.orcpt = Some("rfc822;a+0D+0AX: y@example.com".to_owned());
    let fields = parts(octets(&case.sent().await))[1].1.clone();
    assert_eq!(fields.lines().filter(|line| line.starts_with("Action:")).count(), 1, "{fields}");
    assert!(!fields.lines().any(|line| line.starts_with("X:")) && !fields.contains('\u{1b}'), "{fields}");
    assert!(fields.contains("Status: 5.0.0") && fields.matches("\r\n\r\n").count() == 1, "{fields}");
    assert!(fields.len() < 2_000, "{}", fields.len());
}

#[tokio::test]
async fn our_own_reasons_are_no_words_of_smtp() {
    let mut case = Case::new(RAW);
    case.task.diagnostic = "connect to mx1.example.net [198.51.100.1]:25: refused".to_owned();
    case.task.remote = None;
    let all = parts(octets(&case.sent().await));
    let unfolded = all[1].1.replace("\r\n ", " ");
    assert!(unfolded.contains("Diagnostic-Code: x-mailworker; connect to mx1.example.net"), "{}", all[1].1);
    assert!(!all[1].1.contains("Remote-MTA") && all[0].1.contains("The reason:"), "{}", all[0].1);
}

#[tokio::test]
async fn addresses_beyond_ascii_are_written_as_the_notice_travels() {
    let mut case = Case::new(RAW);
    case.task.recipient = Address::parse("jürgen@bücher.example").unwrap();
    let acceptance = case.sent().await;
    let all = parts(octets(&acceptance));
    assert!(acceptance.body.is_ascii() && !acceptance.envelope.smtputf8);
    assert!(all[1].1.contains(r"Final-Recipient: utf-8; j\x{FC}rgen@b\x{FC}cher.example"), "{}", all[1].1);

    case.body.envelope.smtputf8 = true;
    case.body.envelope.sender = Address::parse("änn@example.org").ok();
    let acceptance = case.sent().await;
    let all = parts(octets(&acceptance));
    assert!(acceptance.envelope.smtputf8 && acceptance.envelope.body == BodyKind::EightBit);
    assert_eq!((all[1].0.as_str(), all[2].0.as_str()), ("message/global-delivery-status", "message/global-headers"));
    assert!(all[1].1.contains("Final-Recipient: utf-8; jürgen@bücher.example"), "{}", all[1].1);
    assert!(String::from_utf8_lossy(octets(&acceptance)).contains("To: <änn@example.org>"));
}
