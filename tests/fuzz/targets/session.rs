//! A whole session: any octets, split in any way, come to the same replies, questions and end; replies are lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailworker::mail::Reply;
use mailworker::smtp::{Action, Answer, Question, Session, Settings};
use std::time::Duration;

fn settings(seed: u8) -> Settings {
    Settings {
        hostname: "mx.example.com".into(),
        message_size: 2000,
        recipients: 3,
        errors: 8,
        starttls: seed & 1 == 0,
        tls_required: seed & 2 == 2,
        repair_line_ends: seed & 4 == 4,
        command_timeout: Duration::from_mins(5),
        data_timeout: Duration::from_mins(3),
    }
}

/// What the client read, and what intake was asked, as text.
fn transcript(input: &[u8], size: usize, seed: u8) -> String {
    let mut session = Session::new(settings(seed));
    let (mut said, mut asked) = (Vec::new(), String::new());
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
                let answer = match &question {
                    Question::Message(transaction) => {
                        asked.push_str(&format!("{:?} {:?}\n", transaction.envelope, transaction.body));
                        Answer::Accept
                    }
                    Question::RcptTo { recipient } if recipient.address.local().starts_with('x') => {
                        Answer::Reply(Reply::new(550, 1, 1, "No such mailbox"))
                    }
                    _ => Answer::Accept,
                };
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
                break;
            }
        }
        assert!(session.body_len() <= 2000 + 16, "a body beyond its limit is held");
    }
    let text = String::from_utf8(said).expect("replies are text");
    for line in text.split_inclusive("\r\n") {
        assert!(line.ends_with("\r\n") && line.len() <= 512, "{line:?}");
        assert!(!line[..line.len() - 2].contains(['\r', '\n', '\0']), "{line:?}");
        let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
        assert!(code.is_some_and(|code| (200..600).contains(&code)), "{line:?}");
    }
    text + asked.as_str()
}

fuzz_target!(|input: &[u8]| {
    let Some((&seed, input)) = input.split_first() else { return };
    let whole = transcript(input, usize::MAX, seed);
    assert_eq!(whole, transcript(input, 1, seed));
    assert_eq!(whole, transcript(input, usize::from(seed >> 3), seed));
});
