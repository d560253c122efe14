//! Faults below the writer: a sync that fails, a commit that fails, a panic. Each leaves callers answered and nothing half done.

use std::fs::File;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::*;
use crate::mail::{Address, Envelope, MessageId};
use crate::store::spool;
use crate::store::{Acceptance, MessageOutcome, NewDelivery, NoticeTask, Settlement, Task};

struct Bench {
    dir: TempDir,
    writer: Writer,
    places: Arc<Semaphore>,
}

type Answer = Result<Done, StoreError>;

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let options = Options {
            data_dir: dir.path().to_owned(),
            segment_size: 64 << 20,
            raw_retention: Duration::from_hours(24),
            log_retention: Duration::from_hours(24),
            free_space: 0,
        };
        directory::prepare_data(dir.path()).unwrap();
        directory::prepare_spool(dir.path()).unwrap();
        let path = directory::database(dir.path());
        let mut connection = migrate::open_writer(&path).unwrap();
        migrate::migrate(&mut connection, &path).unwrap();
        let bus = Bus::new(16);
        let numbers = Numbers::new(1);
        let shared = Shared::new(Reader::beside(dir.path(), None), bus, Arc::clone(&numbers));
        let spool = Spool::new(directory::spool(dir.path()), options.segment_size, numbers);
        let writer = Writer::new(options, shared, connection, spool).unwrap();
        Self { dir, writer, places: Arc::new(Semaphore::new(100)) }
    }

    fn accept(&mut self, acceptances: &[Acceptance]) -> Vec<Answer> {
        let work = acceptances.iter().map(|acceptance| Work::Accept(Box::new(acceptance.clone())));
        self.commit(work.collect())
    }

    fn commit(&mut self, works: Vec<Work>) -> Vec<Answer> {
        let (mut units, mut answers) = (Vec::new(), Vec::new());
        for work in works {
            let (answer, done) = oneshot::channel();
            let place = Arc::clone(&self.places).try_acquire_owned().unwrap();
            units.push(Unit { work, answer, place });
            answers.push(done);
        }
        self.writer.commit(units);
        answers.into_iter().map(|mut done| done.try_recv().expect("every caller is answered")).collect()
    }

    fn kept(&self, acceptance: &Acceptance) -> bool {
        self.writer.shared.reader.body(acceptance.id).is_ok_and(|body| body.raw.here() == acceptance.body.here())
    }

    fn queued(&mut self) -> usize {
        self.writer.claim(clock::now(), 100).unwrap().into_vec().len()
            + self.writer.shared.claims.take_warm(clock::now(), 100).0.len()
    }
}

fn message(body: &str) -> Acceptance {
    let now = clock::now();
    let id = clock::message_id(now);
    let recipient = Address::parse("a@example.org").unwrap();
    let task = Task::Notice(NoticeTask {
        action: "failed".to_owned(),
        recipient,
        orcpt: None,
        status: "5.0.0".to_owned(),
        diagnostic: String::new(),
        remote: None,
    });
    Acceptance {
        id,
        received_at: now,
        envelope: Envelope::default(),
        client: None,
        head: Bytes::from_static(b"Received: here\r\n"),
        body: Bytes::copy_from_slice(body.as_bytes()).into(),
        fingerprint: id.to_bytes(),
        subject: None,
        header_from: None,
        outcome: MessageOutcome::Accepted,
        keep_until: None,
        mailbox: None,
        deliveries: vec![NewDelivery { task, destination: "notice".to_owned(), due: now }],
        kv_reads: Vec::new(),
        kv_writes: Vec::new(),
        events: Vec::new(),
        authored: Vec::new(),
    }
}

fn segments(bench: &Bench) -> Vec<i64> {
    spool::segments(&directory::spool(bench.dir.path())).unwrap()
}

/// A file whose writes succeed and whose syncs fail.
fn unsyncable() -> (std::io::PipeReader, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, File::from(OwnedFd::from(writer)))
}

#[test]
fn the_writer_syncs_every_commit() {
    let bench = Bench::new();
    let connection = bench.writer.connection.as_ref().unwrap();
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
    assert_eq!(pragma("synchronous").unwrap(), 2.into());
    assert_eq!(pragma("journal_mode").unwrap(), "wal".to_owned().into());
}

#[test]
fn a_sync_that_fails_is_not_tried_again_and_nothing_of_its_group_is_kept() {
    let mut bench = Bench::new();
    let (_keeps_it_open, file) = unsyncable();
    bench.writer.spool.open_as(file);
    let lost = [message("one"), message("two")];
    for answer in bench.accept(&lost) {
        assert!(matches!(answer, Err(StoreError::Failed(_))), "{answer:?}");
    }
    assert!(!lost.iter().any(|acceptance| bench.kept(acceptance)));
    assert_eq!(bench.queued(), 0);

    let next = message("three");
    assert!(bench.accept(std::slice::from_ref(&next)).remove(0).is_ok());
    assert!(bench.kept(&next));
    assert_eq!(segments(&bench), [2], "the file that failed is never used again");
    assert_eq!(bench.queued(), 1);
}

#[test]
fn a_segment_whose_first_write_fails_leaves_no_file_behind() {
    let mut bench = Bench::new();
    // The name is taken by what can't be written to.
    std::fs::create_dir(directory::spool(bench.dir.path()).join(spool::file_name(1))).unwrap();
    assert!(bench.accept(&[message("lost")]).remove(0).is_err());
    assert!(bench.accept(&[message("kept")]).remove(0).is_ok());
    assert_eq!(segments(&bench), [1, 2]);

    let mut bench = Bench::new();
    let path = directory::spool(bench.dir.path()).join(spool::file_name(1));
    std::fs::write(&path, "").unwrap();
    bench.writer.spool.open_as(File::open(&path).unwrap());
    assert!(bench.accept(&[message("lost")]).remove(0).is_err());
    assert_eq!(segments(&bench), [] as [i64; 0], "a full disk isn't filled further");
}

#[test]
fn a_commit_that_fails_leaves_nothing_and_the_database_is_synced_anew_before_it_is_used() {
    let mut bench = Bench::new();
    let before = message("before");
    assert!(bench.accept(std::slice::from_ref(&before)).remove(0).is_ok());
    // A reader keeps the WAL alive over the reopening.
    assert!(bench.kept(&before));
    let wal = directory::database(bench.dir.path()).with_extension("db-wal");
    assert!(wal.metadata().unwrap().len() > 0);

    bench.writer.connection.as_ref().unwrap().commit_hook(Some(|| true)).unwrap();
    let lost = message("lost");
    assert!(matches!(bench.accept(std::slice::from_ref(&lost)).remove(0), Err(StoreError::Failed(_))));
    assert!(!bench.kept(&lost));

    // What a failed sync has left of the WAL in memory may never reach the disk: it ends before anything follows it.
    bench.writer.connection().unwrap();
    assert_eq!(wal.metadata().unwrap().len(), 0);
    let next = message("next");
    assert!(bench.accept(std::slice::from_ref(&next)).remove(0).is_ok());
    assert!(bench.kept(&before) && bench.kept(&next));
    assert_eq!(segments(&bench), [1, 2], "rows that may yet be there name the first");
    assert_eq!(bench.queued(), 2);
}

/// Another process's snapshot needs the WAL, and can't be made to end: a shell that somebody left open.
#[test]
fn a_reader_that_never_ends_keeps_no_mail_out_after_a_commit_that_failed() {
    let mut bench = Bench::new();
    let before = message("before");
    assert!(bench.accept(std::slice::from_ref(&before)).remove(0).is_ok());
    let path = directory::database(bench.dir.path());
    let shell = migrate::open_reader(&path).unwrap();
    let snapshot = shell.unchecked_transaction().unwrap();
    let count = |reader: &Connection| reader.query_row("SELECT count(*) FROM messages", [], |row| row.get::<_, i64>(0));
    assert_eq!(count(&snapshot).unwrap(), 1);

    bench.writer.connection.as_ref().unwrap().commit_hook(Some(|| true)).unwrap();
    let wal = path.with_extension("db-wal");
    let size = wal.metadata().unwrap().len();
    File::options().write(true).open(&wal).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(bench.accept(&[message("lost")]).remove(0).is_err());
    let again = wal.metadata().unwrap();
    assert!(again.len() == size && again.modified().unwrap() > std::time::UNIX_EPOCH, "it was written again");
    let next = message("next");
    assert!(bench.accept(std::slice::from_ref(&next)).remove(0).is_ok());
    assert!(bench.kept(&before) && bench.kept(&next));
    assert_eq!(count(&snapshot).unwrap(), 1, "the reader reads on");
    drop(snapshot);
    assert_eq!(count(&shell).unwrap(), 2);
}

#[test]
fn an_error_before_anything_was_written_costs_neither_the_connection_nor_the_segment() {
    let mut bench = Bench::new();
    assert!(bench.accept(&[message("before")]).remove(0).is_ok());
    let count = |connection: &Connection| {
        connection.query_row("SELECT count(*) FROM counters", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let before = count(bench.writer.connection().unwrap());
    assert!(before > 0);
    let result: Result<(), StoreError> = bench.writer.guarded(|writer| {
        writer.connection()?.execute_batch("BEGIN IMMEDIATE; DELETE FROM counters")?;
        Err(StoreError::Failed("a row that can't be read".to_owned()))
    });
    assert!(result.is_err());
    assert!(bench.writer.connection.as_ref().is_some_and(Connection::is_autocommit));
    assert!(bench.accept(&[message("after")]).remove(0).is_ok());
    assert_eq!(segments(&bench), [1]);
    assert_eq!(count(bench.writer.connection().unwrap()), before, "what it began is rolled back");
}

#[test]
fn the_wal_is_moved_into_the_database_and_who_keeps_it_from_ending_is_told() {
    let mut bench = Bench::new();
    let mut events = bench.writer.shared.bus.subscribe();
    (bench.writer.wal.bound, bench.writer.wal.long) = (1, 1);
    let path = directory::database(bench.dir.path());
    assert!(bench.accept(&[message("one")]).remove(0).is_ok());
    let before = path.metadata().unwrap().len();
    let shell = migrate::open_reader(&path).unwrap();
    let snapshot = shell.unchecked_transaction().unwrap();
    snapshot.query_row("SELECT count(*) FROM messages", [], |_| Ok(())).unwrap();
    bench.writer.checkpoint();
    assert!(path.metadata().unwrap().len() > before);
    let told = events.try_recv().unwrap();
    assert!(
        matches!(&told.kind, Kind::Fault { what, detail } if what.contains("grows") && detail.contains("this server itself")),
        "{told:?}"
    );
}

#[test]
fn a_panic_is_an_answer_and_the_next_group_goes_on() {
    let mut bench = Bench::new();
    let result: Result<(), StoreError> = bench.writer.guarded(|writer| {
        writer.connection()?.execute_batch("BEGIN IMMEDIATE; DELETE FROM counters")?;
        panic!("a fault of ours");
    });
    assert!(matches!(result, Err(StoreError::Failed(_))));
    let counters: i64 =
        bench.writer.connection().unwrap().query_row("SELECT count(*) FROM counters", [], |row| row.get(0)).unwrap();
    assert_eq!(counters, 1);
    let next = message("next");
    assert!(bench.accept(std::slice::from_ref(&next)).remove(0).is_ok());
}

#[test]
fn a_settlement_that_is_told_twice_counts_once() {
    let mut bench = Bench::new();
    let id = message("x");
    assert!(bench.accept(std::slice::from_ref(&id)).remove(0).is_ok());
    let key = DeliveryKey { message: id.id, n: 0 };
    let settlement = |then| Settlement {
        key,
        result: super::super::Settled::Dead { error: "550".to_owned() },
        events: Vec::new(),
        then,
        kv_reads: Vec::new(),
        kv_writes: Vec::new(),
        authored: Vec::new(),
        outcome: None,
        keep: None,
    };
    // The first one's commit was answered with an error, and was on disk nevertheless.
    for _ in 0..2 {
        assert!(bench.commit(vec![Work::Settle(vec![settlement(id.deliveries.clone())])]).remove(0).is_ok());
    }
    assert_eq!(bench.writer.shared.tally.dead.load(Ordering::Relaxed), 1);
    assert_eq!(bench.writer.shared.tally.queued.load(Ordering::Relaxed), 1, "what follows from it is queued once");
}

#[test]
fn a_clock_that_was_set_back_holds_up_no_log() {
    let mut bench = Bench::new();
    bench.writer.flushed_log = clock::now().plus(Duration::from_hours(1));
    let (commands, queue) = std::sync::mpsc::channel();
    let place = Arc::clone(&bench.places).try_acquire_owned().unwrap();
    let event = Event::new(clock::now(), Kind::Reloaded { what: "rules".to_owned() });
    bench.writer.serve(Command::Log(event, place), &queue);
    drop(commands);
    assert_eq!(bench.writer.shared.reader.log(10).unwrap().len(), 1);
}

#[test]
fn the_octets_of_an_abandoned_segment_are_never_counted_below_nothing() {
    let mut bench = Bench::new();
    std::fs::write(directory::spool(bench.dir.path()).join(spool::file_name(1)), "torn").unwrap();
    bench.writer.spool = Spool::new(directory::spool(bench.dir.path()), 64 << 20, Numbers::new(2));
    while bench.writer.retain(clock::now()).unwrap() {}
    assert_eq!(segments(&bench), [] as [i64; 0]);
    assert_eq!(bench.writer.shared.tally.spool_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_trace_is_not_written_to_a_message_that_is_gone() {
    let mut bench = Bench::new();
    let gone = MessageId::new(clock::now(), 7);
    let event = Event::new(clock::now(), Kind::Reloaded { what: "x".to_owned() });
    let settlement = Settlement {
        key: DeliveryKey { message: gone, n: 0 },
        result: super::super::Settled::Done,
        events: vec![event],
        then: Vec::new(),
        kv_reads: Vec::new(),
        kv_writes: Vec::new(),
        authored: Vec::new(),
        outcome: None,
        keep: None,
    };
    assert!(bench.commit(vec![Work::Settle(vec![settlement])]).remove(0).is_ok());
    let rows: i64 =
        bench.writer.connection().unwrap().query_row("SELECT count(*) FROM trace", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}
