//! A whole session: any octets, split in any way, come to the same replies, questions and end; replies are lines;
//! and no text is handed over that wasn't asked for, or that another server could see a second message in.
#![no_main]

use std::fmt::Write as _;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mailworker::mail::{Address, Envelope, Recipient, Reply};
use mailworker::smtp::{Action, Answer, Closed, Question, Session, Settings, Transaction};

const LIMIT: u64 = 2000;
const RECIPIENTS: usize = 3;

fn settings(seed: u8) -> Settings {
    Settings {
        hostname: "mx.example.com".into(),
        message_size: LIMIT,
        recipients: RECIPIENTS,
        errors: 8,
        starttls: seed & 1 == 0,
        tls_required: seed & 2 == 2,
        repair_line_ends: seed & 4 == 4,
        command_timeout: Duration::from_mins(5),
        data_timeout: Duration::from_mins(3),
    }
}

/// By the recipient's name, so that every answer comes up.
fn answered(question: &Question) -> Answer {
    match question {
        Question::RcptTo { recipient } => match recipient.address.local().chars().next() {
            Some('x') => Answer::Reply(Reply::new(550, 1, 1, "No such mailbox")),
            Some('y') => Answer::Reply(Reply::new(450, 2, 1, "Later\nor never")),
            Some('z') => Answer::Redirect(Address::parse("other@example.com").expect("an address")),
            _ => Answer::Accept,
        },
        Question::MailFrom { envelope, .. } if envelope.sender.as_ref().is_some_and(|sender| sender.local() == "x") => {
            Answer::Reply(Reply::new(550, 7, 1, "Not from you"))
        }
        Question::Message(transaction) if transaction.prdr => Answer::Each {
            replies: transaction.envelope.recipients.iter().map(|_| Reply::new(250, 1, 5, "Taken")).collect(),
            last: Reply::new(250, 0, 0, "OK"),
        },
        _ => Answer::Accept,
    }
}

/// What must be true of a message whatever was said: it was asked for, and has one reading.
fn check(transaction: &Transaction, accepted: &[Recipient], mail: Option<&Envelope>) {
    let body = &transaction.body;
    assert!(body.len() as u64 <= LIMIT);
    let crlf = body.windows(2).filter(|window| window == b"\r\n").count();
    let count = |octet| body.iter().filter(|found| **found == octet).count();
    assert!(count(b'\r') == crlf && count(b'\n') == crlf && count(0) == 0, "{body:?}");
    assert!((1..=RECIPIENTS).contains(&accepted.len()));
    assert_eq!(transaction.envelope.recipients, accepted);
    let mail = mail.expect("a message follows an accepted MAIL");
    assert_eq!(*mail, Envelope { recipients: Vec::new(), ..transaction.envelope.clone() });
}

/// What the client read, and what intake was asked, as text.
fn transcript(input: &[u8], size: usize, seed: u8) -> String {
    let mut session = Session::new(settings(seed));
    let (mut said, mut asked) = (Vec::new(), String::new());
    let (mut mail, mut recipients) = (None, Vec::new());
    let mut pieces = input.chunks(size.max(1));
    loop {
        match session.poll() {
            Action::Read { .. } => {
                session.take_output(&mut said);
                let Some(piece) = pieces.next() else { break };
                session.push(piece);
            }
            Action::Flush => session.take_output(&mut said),
            Action::Ask(question) => {
                let answer = answered(&question);
                let _infallible = writeln!(asked, "{question:?}");
                match &question {
                    Question::Connect | Question::Helo { .. } => {}
                    Question::MailFrom { envelope, .. } => {
                        mail = matches!(answer, Answer::Accept).then(|| (**envelope).clone());
                        recipients.clear();
                    }
                    Question::RcptTo { recipient } => match &answer {
                        Answer::Accept => recipients.push((**recipient).clone()),
                        Answer::Redirect(to) => {
                            let original = Some(recipient.address.clone());
                            recipients.push(Recipient { address: to.clone(), original, ..(**recipient).clone() });
                        }
                        _ => {}
                    },
                    Question::Message(transaction) => check(transaction, &recipients, mail.as_ref()),
                }
                session.answer(answer);
            }
            Action::StartTls => {
                session.take_output(&mut said);
                session.tls_started();
                // What was sent along in the clear is dropped: how much that is depends on how it was split.
                break;
            }
            Action::Close(closed) => {
                session.take_output(&mut said);
                asked.push_str(closed.reason());
                assert!(closed != Closed::Told, "nobody told it to go");
                break;
            }
        }
        assert!(session.body_len() as u64 <= LIMIT + 16, "a body beyond its limit is held");
    }
    let text = String::from_utf8(said).expect("replies are text");
    for line in text.split_inclusive("\r\n") {
        assert!(line.ends_with("\r\n") && line.len() <= 512 && line.is_ascii(), "{line:?}");
        assert!(!line[..line.len() - 2].contains(|c: char| c.is_control()), "{line:?}");
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
        assert!(code.is_some_and(|code| (200..600).contains(&code)), "{line:?}");
        // RFC 2034 §4: the status' class is the reply's.
        if line.starts_with(['4', '5']) {
            assert!(line[4..5] == line[..1] && &line[5..6] == ".", "{line:?}");
        }
    }
    text + asked.as_str()
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, input)) = input.split_first() else { return };
    let whole = transcript(input, usize::MAX, seed);
    assert_eq!(whole, transcript(input, 1, seed));
    assert_eq!(whole, transcript(input, usize::from(seed >> 3), seed));
});
