//! Dialogues against `smtp::Session`, without sockets: `tests/smtp/*.txt`, whose notation `tests/README.md` explains.
//!
//! Each dialogue is run several times, its octets pushed whole and in pieces of 1, 2, 3 and 7: the transcript must be
//! the same. `UPDATE=1 cargo test --test smtp` rewrites what is expected, to be reviewed like code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "smtp/dialogue.rs"]
mod dialogue;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mailworker::mail::{Address, Reply};
use mailworker::smtp::{Action, Answer, Closed, Question, Session, Settings};
use proptest::prelude::*;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/smtp");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

#[test]
fn every_dialogue_goes_as_written_however_its_octets_are_split() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut report = String::new();
    let mut count = 0;
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let mut rewritten = String::new();
        for case in dialogue::cases(&text) {
            count += 1;
            let whole = case.run(usize::MAX);
            for size in [1, 2, 3, 7] {
                let pieces = case.run(size);
                if pieces != whole {
                    let _ = writeln!(
                        report,
                        "{name}: {} differs in pieces of {size}:\n{pieces}\n-- whole:\n{whole}",
                        case.name
                    );
                }
            }
            if whole != case.text && !update {
                let _ = writeln!(report, "{name}: {}: expected\n{}\n-- but it went\n{whole}", case.name, case.text);
            }
            rewritten.push_str(&whole);
        }
        if update && rewritten != text {
            std::fs::write(&file, rewritten).unwrap();
        }
    }
    assert!(report.is_empty(), "{report}");
    assert!(count > 100, "only {count} dialogues were found");
}

#[test]
fn no_two_dialogues_share_a_name_and_every_row_of_the_adversarys_list_has_its_own() {
    let mut names: Vec<String> = Vec::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        names.extend(dialogue::cases(&text).into_iter().map(|case| case.name));
    }
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md")).unwrap();
    let start = readme.find("### What a hostile or odd peer could send").expect("the adversary's list");
    let section = &readme[start..];
    let section = section[4..].find("\n## ").map_or(section, |end| &section[..end + 4]);
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > 60, "{} rows", rows.len());
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        for name in last.split('`').skip(1).step_by(2) {
            assert!(names.iter().any(|known| known == name), "the list names {name}, which is no dialogue");
        }
    }
}

fn settings() -> Settings {
    Settings {
        hostname: "mx.example.com".into(),
        message_size: 1000,
        recipients: 3,
        errors: 20,
        starttls: true,
        tls_required: false,
        repair_line_ends: false,
        command_timeout: Duration::from_mins(5),
        data_timeout: Duration::from_mins(3),
    }
}

/// Drives a session to its end on octets given in pieces. What it said and asked.
fn drive(pieces: &[&[u8]], settings: Settings) -> (Vec<u8>, Vec<String>) {
    let mut session = Session::new(settings);
    let (mut said, mut asked) = (Vec::new(), Vec::new());
    let mut pieces = pieces.iter();
    loop {
        let action = session.poll();
        session.take_output(&mut said);
        match action {
            Action::Ask(question) => {
                asked.push(dialogue::question(&question));
                session.answer(Answer::Accept);
            }
            Action::Flush => {}
            Action::StartTls => session.tls_started(),
            Action::Close(why) => {
                asked.push(why.reason().to_owned());
                return (said, asked);
            }
            Action::Read { .. } => match pieces.next() {
                Some(piece) => session.push(piece),
                None => return (said, asked),
            },
        }
    }
}

/// What a peer might say, sense and nonsense.
fn chatter() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop_oneof![
        4 => Just(b"EHLO a.example\r\n".to_vec()),
        6 => Just(b"MAIL FROM:<a@b.example>\r\n".to_vec()),
        6 => Just(b"RCPT TO:<c@d.example>\r\n".to_vec()),
        4 => Just(b"DATA\r\n".to_vec()),
        4 => Just(b"BDAT 5\r\n".to_vec()),
        2 => Just(b"BDAT 3 LAST\r\n".to_vec()),
        3 => Just(b".\r\n".to_vec()),
        2 => Just(b"RSET\r\n".to_vec()),
        1 => Just(b"QUIT\r\n".to_vec()),
        2 => Just(b"NOOP\n".to_vec()),
        2 => Just(b"a\r\r\n.\n.\r\n..x\r\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..60),
        1 => Just(vec![b'x'; 2500]),
    ];
    prop::collection::vec(lines, 0..30).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_peer_says_and_however_it_is_split_the_session_says_the_same(input in chatter(), size in 1usize..40) {
        let pieces: Vec<&[u8]> = input.chunks(size).collect();
        prop_assert_eq!(drive(&pieces, settings()), drive(&[&input], settings()));
    }

    #[test]
    fn every_line_that_is_said_is_a_reply(input in chatter()) {
        let (said, _) = drive(&[&input], settings());
        let said = String::from_utf8(said).unwrap();
        for line in said.split_terminator("\r\n") {
            let bytes = line.as_bytes();
            prop_assert!(line.len() <= 510 && line.is_ascii(), "{:?}", line);
            prop_assert!(bytes[..3].iter().all(u8::is_ascii_digit) && matches!(bytes[3], b' ' | b'-'), "{:?}", line);
            if matches!(bytes[0], b'4' | b'5') {
                // RFC 2034 §4: the status' class is the reply's.
                prop_assert!(bytes[4] == bytes[0] && bytes[5] == b'.', "{:?}", line);
            }
        }
    }
}

#[test]
fn memory_is_bounded_while_an_answer_is_waited_for() {
    let mut session = Session::new(settings());
    assert!(matches!(session.poll(), Action::Ask(Question::Connect)));
    let mut pushed = 0;
    while session.wants_input() {
        session.push(&[b'x'; 4096]);
        pushed += 4096;
    }
    assert!(pushed <= 70_000, "{pushed}");
}

#[test]
fn a_client_that_reads_no_answers_gets_no_more_of_them() {
    let mut session = Session::new(settings());
    session.poll();
    session.answer(Answer::Accept);
    session.push(&b"EHLO a.example\r\n".repeat(4000));
    let mut flushes = 0;
    loop {
        match session.poll() {
            Action::Ask(_) => session.answer(Answer::Accept),
            Action::Flush => {
                flushes += 1;
                assert!(session.output().len() < 20_000 && !session.wants_input());
                session.sent(session.output().len());
            }
            Action::Close(why) => {
                assert_eq!(why, Closed::TooManyErrors);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(flushes > 0);
}

/// A session with a message under way, its transaction as `commands` say.
fn receiving(commands: &str) -> Session {
    let mut session = Session::new(settings());
    session
        .push(format!("EHLO a.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n{commands}").as_bytes());
    while let Action::Ask(_) = session.poll() {
        session.answer(Answer::Accept);
    }
    session
}

#[test]
fn a_body_that_is_refused_gives_its_memory_back_at_once() {
    let mut session = receiving("DATA\r\nsome text\r\n");
    assert!(session.is_receiving_data() && session.body_len() >= 11 && session.phase() == "data");
    session.refuse_body(Reply::new(452, 3, 1, "Later"));
    session.push(&[b'y'; 500]);
    assert_eq!(session.body_len(), 0);
}

#[test]
fn a_chunk_that_is_not_wanted_has_the_time_of_one_that_is() {
    let mut session = Session::new(settings());
    session.push(b"EHLO a.example\r\nBDAT 9 LAST\r\nnot");
    loop {
        match session.poll() {
            Action::Ask(_) => session.answer(Answer::Accept),
            Action::Read { timeout } => break assert_eq!(timeout, settings().data_timeout),
            other => panic!("{other:?}"),
        }
    }
    assert!(session.is_receiving_data() && session.phase() == "data");
    assert_eq!((session.body_len(), session.body_len_after(3)), (0, 0));
    session.push(b"wanted");
    session.poll();
    assert!(!session.is_receiving_data());
}

#[test]
fn a_body_is_handed_over_without_a_copy_of_what_was_pushed_before() {
    let mut session = receiving("DATA\r\nabc\r\n.\r\n");
    session.answer(Answer::Accept);
    assert!(matches!(session.poll(), Action::Read { .. }));
    assert_eq!((session.body_len(), session.is_receiving_data()), (0, false));
}

#[test]
fn the_last_reply_is_acknowledged_by_what_is_said_after_it_was_sent() {
    let mut session = receiving("DATA\r\nabc\r\n.\r\n");
    assert!(!session.acknowledged());
    session.answer(Answer::Accept);
    session.poll();
    // On its way before the reply was: no proof that it was read.
    session.push(b"NO");
    assert!(!session.acknowledged());
    session.sent(session.output().len());
    assert!(!session.acknowledged());
    session.push(b"OP\r\n");
    assert!(session.acknowledged());
}

#[test]
fn a_greeting_acknowledges_nothing() {
    let mut session = Session::new(settings());
    session.poll();
    session.answer(Answer::Accept);
    session.poll();
    session.sent(session.output().len());
    session.push(b"QUIT\r\n");
    assert!(!session.acknowledged());
}

#[test]
fn phases_are_named_as_the_standard_does() {
    let mut session = Session::new(settings());
    assert_eq!(session.phase(), "connect");
    session.poll();
    session.answer(Answer::Accept);
    assert_eq!(session.phase(), "helo");
    session.push(b"HELO a.example\r\n");
    session.poll();
    session.answer(Answer::Accept);
    assert_eq!(session.phase(), "mail");
    session.push(b"MAIL FROM:<>\r\n");
    session.poll();
    session.answer(Answer::Accept);
    assert_eq!(session.phase(), "rcpt");
}

#[test]
fn what_the_session_refuses_by_itself_is_told_for_the_log() {
    let mut session = receiving("RCPT TO:<\u{fc}@d.example>\r\nDATA\r\na\nb\r\n.\r\n");
    let refusals = session.take_refusals();
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    assert_eq!((refusals[0].phase, refusals[0].reply.code), ("rcpt", 553));
    assert_eq!(refusals[0].recipient.as_deref(), Some("\u{fc}@d.example"));
    assert_eq!((refusals[1].phase, refusals[1].sender.as_deref()), ("data", Some("a@b.example")));
    assert!(session.take_refusals().is_empty());
}

#[test]
fn a_redirected_recipient_keeps_the_address_it_had() {
    let mut session = Session::new(settings());
    session.push(b"EHLO a.example\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n.\r\n");
    loop {
        match session.poll() {
            Action::Ask(Question::RcptTo { .. }) => {
                session.answer(Answer::Redirect(Address::parse("e@f.example").unwrap()));
            }
            Action::Ask(Question::Message(transaction)) => {
                let recipient = &transaction.envelope.recipients[0];
                assert_eq!(recipient.address.as_str(), "e@f.example");
                assert_eq!(recipient.original.as_ref().unwrap().as_str(), "c@d.example");
                break;
            }
            Action::Ask(_) => session.answer(Answer::Accept),
            other => panic!("{other:?}"),
        }
    }
}
