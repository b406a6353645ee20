use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    sync::{Barrier, mpsc::channel},
    thread,
};

use ::time::format_description::well_known::Rfc3339;
use serde_json::Value;

use super::{entry::Entry, files::ACTIVE, *};

/// A state folder that goes with the value.
pub(super) struct Folder {
    _folder: tempfile::TempDir,
    pub(super) home: Home,
}

impl Folder {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("state"))).unwrap();
        Self { _folder: folder, home }
    }

    /// Writes events with these reasons, as a node that starts and ends.
    pub(super) fn serve(&self, limits: Limits, reasons: &[&str]) {
        let (audit, writer) = AuditFile::open(&self.home, limits).unwrap();
        reasons.iter().for_each(|reason| audit.record(event().because(reason)));
        writer.finish();
    }

    pub(super) fn text(&self, name: &str) -> Vec<u8> {
        fs::read(self.home.path(name)).unwrap_or_default()
    }

    /// The files of the log, the oldest first.
    pub(super) fn names(&self) -> Vec<String> {
        files::snapshot(&self.home).unwrap().into_iter().map(|part| part.name).collect()
    }

    fn values(&self, name: &str) -> Vec<Value> {
        let text = String::from_utf8(self.text(name)).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Every entry in all files.
    fn all(&self) -> Vec<Value> {
        self.names().iter().flat_map(|name| self.values(name)).collect()
    }

    fn reasons(&self) -> Vec<String> {
        let own = |value: &Value| value["event"] == "refused";
        let reason = |value: &Value| value["reason"].as_str().unwrap().to_owned();
        self.all().iter().filter(|value| own(value)).map(reason).collect()
    }

    pub(super) fn report(&self) -> Report {
        verify(&self.home, None).unwrap()
    }

    #[track_caller]
    pub(super) fn holds(&self) -> Report {
        let report = self.report();
        assert!(report.ok, "{report:?}");
        report
    }
}

pub(super) fn event() -> AuditEvent {
    AuditEvent { event: AuditEvent::REFUSED, ..AuditEvent::default() }
}

fn let_in() -> AuditEvent {
    AuditEvent { event: AuditEvent::AUTHENTICATED, ..AuditEvent::default() }
}

/// Room for some entries in each file.
pub(super) fn small(keep: usize) -> Limits {
    Limits { file_size: 600, keep: keep.try_into().unwrap() }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|i| i.to_string()).collect()
}

#[test]
fn the_chain_goes_on_over_restarts() {
    let folder = Folder::new();
    folder.serve(Limits::default(), &["first"]);
    folder.serve(Limits::default(), &["second", "third"]);
    let lines = folder.values(ACTIVE);
    assert_eq!(lines[0]["event"], "log-started");
    assert_eq!((&lines[1]["event"], &lines[1]["reason"]), (&"refused".into(), &"first".into()));
    let numbers: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    let time = lines[1]["time"].as_str().unwrap();
    assert!(OffsetDateTime::parse(time, &Rfc3339).is_ok(), "{time}");
    assert_eq!(fs::metadata(folder.home.path(ACTIVE)).unwrap().mode() & 0o777, 0o600);
    let report = folder.holds();
    assert_eq!((report.entries, report.files, report.recovered), (4, 1, 0));
}

#[test]
fn the_chain_goes_on_over_rotations() {
    let folder = Folder::new();
    let reasons = numbered(0..40);
    let words: Vec<&str> = reasons.iter().map(String::as_str).collect();
    folder.serve(small(100), &words[..25]);
    folder.serve(small(100), &words[25..]);
    assert_eq!(folder.reasons(), reasons);
    let names = folder.names();
    assert!(names.len() > 5 && names[0] == "audit-000000000001.log", "{names:?}");
    for name in &names {
        assert!(folder.text(name).len() <= 600, "{name}");
        let first = &folder.values(name)[0];
        let number = files::first_of(name).or_else(|| first["seq"].as_u64());
        assert_eq!(first["seq"].as_u64(), number, "{name}");
        let opens = if number == Some(1) { "log-started" } else { "log-continued" };
        assert_eq!(first["event"], opens, "{name}");
    }
    let report = folder.holds();
    assert_eq!(report.entries, 40 + names.len() as u64);
}

/// The end of a file is found from its end, and the last lines as well.
#[test]
fn a_long_file_goes_on() {
    let folder = Folder::new();
    let text = "x".repeat(200);
    folder.serve(Limits::default(), &[text.as_str(); 2000]);
    append_once(&folder.home, event().because("last")).unwrap();
    // More than is looked at first, and none of it an entry.
    let torn = [folder.text(ACTIVE), vec![0; 100 << 10]].concat();
    fs::write(folder.home.path(ACTIVE), torn).unwrap();
    append_once(&folder.home, event().because("after")).unwrap();
    let report = folder.holds();
    assert_eq!((report.entries, report.recovered), (2004, 1));
    let mut tail = Tail::open(&folder.home, 1503).unwrap();
    let mut seen = Vec::new();
    while let Some(line) = tail.next_line().unwrap() {
        seen.push(Entry::parse(&line).unwrap().seq);
    }
    // One of the lines is what was cut short.
    assert_eq!(seen, (503..=2004).collect::<Vec<_>>());
}

#[test]
fn the_oldest_files_go_and_the_rest_holds() {
    let folder = Folder::new();
    let reasons = numbered(0..40);
    folder.serve(small(2), &reasons.iter().map(String::as_str).collect::<Vec<_>>());
    let report = folder.holds();
    assert_eq!(report.files, 3);
    let (first, kept) = (report.first.unwrap().seq, folder.reasons());
    assert!(first > 20 && kept.last() == reasons.last(), "{first} {kept:?}");
    assert_eq!(files::full_name(first), folder.names()[0]);
}

/// Nobody takes from the queue: what does not fit is counted, and `record` returns.
#[test]
fn a_full_queue_loses_events_and_says_so() {
    let folder = Folder::new();
    let (queue, events) = sync_channel(QUEUE);
    let audit = AuditFile { queue, lost: Arc::default(), queued: Arc::default() };
    // However many are refused, there is room for whoever is let in.
    (0..QUEUE + 7).for_each(|_| audit.record(event()));
    (REFUSALS..QUEUE + 5).for_each(|_| audit.record(let_in()));
    let lost = audit.lost.clone();
    let mut writer = writer(&folder.home, events, lost.clone());
    writer.queued = audit.queued.clone();
    drop(audit);
    writer.run();
    let lines = folder.values(ACTIVE);
    assert_eq!(lines.len(), QUEUE + 2);
    let count = |name| lines.iter().filter(|line| line["event"] == name).count();
    assert_eq!((count("refused"), count("authenticated")), (REFUSALS, QUEUE - REFUSALS));
    assert_eq!(lines[QUEUE + 1]["event"], "events-lost");
    assert_eq!(lines[QUEUE + 1]["reason"], (QUEUE - REFUSALS + 7 + 5).to_string());
    assert_eq!(lost.load(Ordering::Relaxed), 0);
    folder.holds();
}

fn writer(home: &Home, events: Receiver<Message>, lost: Arc<AtomicU64>) -> Writer {
    let log = Log::new(home, Limits::default());
    let queued = Arc::default();
    Writer { log, events, lost, queued, waiting: Vec::new(), failing: false }
}

/// What cannot be written waits, and stands in the log once when it can be.
#[test]
fn events_wait_for_a_log_that_cannot_be_written() {
    let folder = Folder::new();
    let (queue, events) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(3));
    let mut writer = writer(&folder.home, events, lost);
    let send = |reason: &str| {
        let event = (OffsetDateTime::now_utc(), Box::new(event().because(reason)));
        queue.send(Message::Event(event)).unwrap();
    };
    fs::create_dir(folder.home.path(ACTIVE)).unwrap();
    for reason in ["first", "second"] {
        send(reason);
        assert!(writer.gather());
        writer.settle();
        assert!(writer.failing);
    }
    fs::remove_dir(folder.home.path(ACTIVE)).unwrap();
    send("third");
    assert!(writer.gather());
    writer.settle();
    assert!(!writer.failing && writer.waiting.is_empty());
    assert_eq!(folder.reasons(), ["first", "second", "third"]);
    let lost: Vec<_> = folder.all().into_iter().filter(|it| it["event"] == "events-lost").collect();
    assert!(lost.len() == 1 && lost[0]["reason"] == "3", "{lost:?}");
    folder.holds();
}

#[test]
fn a_log_without_a_chain_is_moved_aside() {
    let folder = Folder::new();
    let old = "{\"time\":\"2026-01-01T00:00:00Z\",\"event\":\"refused\"}\n".repeat(3);
    for name in ["audit.log.unchained", "audit.log.unchained.1"] {
        fs::write(folder.home.path(ACTIVE), &old).unwrap();
        fs::remove_file(folder.home.path("audit-000000000001.log")).ok();
        folder.serve(Limits::default(), &["new"]);
        assert_eq!(folder.text(name), old.as_bytes());
        let lines = folder.values(ACTIVE);
        assert_eq!(lines[0]["event"], "log-started");
        let reason = lines[0]["reason"].as_str().unwrap();
        let hash = hex::encode(entry::hash(old.as_bytes()));
        assert!(reason.contains(name) && reason.contains(&hash), "{reason}");
        assert_eq!(folder.reasons(), ["new"]);
        folder.holds();
    }
}

/// A process may die after any byte of a line. Whatever is left of it is kept, marked, and
/// the chain holds.
#[test]
fn a_torn_line_is_marked_wherever_it_was_torn() {
    let folder = Folder::new();
    folder.serve(Limits::default(), &["kept", "torn"]);
    let whole = folder.text(ACTIVE);
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        fs::write(folder.home.path(ACTIVE), &whole[..cut]).unwrap();
        let torn = folder.holds().torn_bytes;
        let complete = cut == whole.len() - 1;
        assert_eq!(torn, if complete { 0 } else { (cut - last) as u64 });
        folder.serve(Limits::default(), &["after"]);
        let report = folder.holds();
        let marked = u64::from(cut > last && !complete);
        assert_eq!((report.recovered, report.torn_bytes), (marked, 0), "cut at {cut}");
        assert!(folder.text(ACTIVE).starts_with(&whole[..cut]), "nothing is taken away");
        let expected: &[&str] =
            if complete { &["kept", "torn", "after"] } else { &["kept", "after"] };
        assert_eq!(folder.reasons(), expected, "cut at {cut}");
    }
}

/// The mark itself may be torn, and so may the first line of a file.
#[test]
fn a_recovery_may_be_cut_short_as_well() {
    let folder = Folder::new();
    folder.serve(Limits::default(), &["kept"]);
    let whole = folder.text(ACTIVE);
    for begin in [&whole[..], &whole[..0]] {
        let torn = [begin, b"{\"seq\":"].concat();
        fs::write(folder.home.path(ACTIVE), &torn).unwrap();
        folder.serve(Limits::default(), &[]);
        let marked = folder.text(ACTIVE);
        for cut in torn.len()..marked.len() {
            fs::write(folder.home.path(ACTIVE), &marked[..cut]).unwrap();
            folder.holds();
            folder.serve(Limits::default(), &["after"]);
            let report = folder.holds();
            assert!(report.recovered == 1 && report.torn_bytes == 0, "{cut}: {report:?}");
            assert_eq!(folder.reasons().last().unwrap(), "after");
        }
    }
}

/// Between the new name of the old file and the first line of the new one.
#[test]
fn a_rotation_may_be_cut_short() {
    let folder = Folder::new();
    folder.serve(Limits::default(), &["first"]);
    for empty in [false, true] {
        let number = folder.names().len() as u64 * 2 - 1;
        let to = folder.home.path(&files::full_name(number));
        fs::rename(folder.home.path(ACTIVE), to).unwrap();
        if empty {
            fs::write(folder.home.path(ACTIVE), b"").unwrap();
        }
        folder.holds();
        folder.serve(Limits::default(), &["next"]);
        folder.holds();
    }
    assert_eq!(folder.reasons(), ["first", "next", "next"]);
    assert_eq!(folder.report().last.unwrap().seq, 6);
}

/// The node, and commands beside it, while files rotate.
#[test]
fn many_writers_keep_one_chain() {
    let folder = Folder::new();
    let limits = Limits { file_size: 4096, ..small(1000) };
    let (audit, writer) = AuditFile::open(&folder.home, limits).unwrap();
    let barrier = Barrier::new(5);
    thread::scope(|scope| {
        for i in 0..4 {
            let (home, barrier) = (&folder.home, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for j in 0..25 {
                    append_once(home, event().because(format_args!("command {i} {j}"))).unwrap();
                }
            });
        }
        barrier.wait();
        for i in 0..500 {
            audit.record(event().because(format_args!("node {i}")));
        }
    });
    writer.finish();
    let report = folder.holds();
    assert!(report.files > 3, "{report:?}");
    let reasons = folder.reasons();
    assert_eq!(reasons.len(), 600);
    for i in 0..4 {
        let own = format!("command {i} ");
        let of: Vec<_> = reasons.iter().filter_map(|reason| reason.strip_prefix(&own)).collect();
        assert_eq!(of, numbered(0..25));
    }
}

/// A running node knows where the chain was: what is taken away meanwhile leaves a gap.
#[test]
fn a_running_node_notices_that_the_end_was_cut_off() {
    for cut_to in [Some(2), None] {
        let folder = Folder::new();
        let mut log = Log::new(&folder.home, small(8));
        let mut write = |reason: &str| {
            let mut events = vec![(OffsetDateTime::now_utc(), Box::new(event().because(reason)))];
            log.append(&mut events).unwrap();
        };
        ["a", "b", "c", "d", "e"].into_iter().for_each(&mut write);
        let names = folder.names();
        assert!(names.len() > 1, "{names:?}");
        let path = folder.home.path(ACTIVE);
        match cut_to {
            Some(lines) => {
                let text = String::from_utf8(folder.text(ACTIVE)).unwrap();
                let kept: String = text.split_inclusive('\n').take(lines - 1).collect();
                fs::write(&path, kept).unwrap();
            }
            None => fs::remove_file(&path).unwrap(),
        }
        folder.holds();
        write("after");
        let fault = folder.report().fault.unwrap();
        assert!(fault.to_string().contains("missing before this line"), "{fault}");
    }
}

#[test]
fn the_tail_follows_over_rotations() {
    let folder = Folder::new();
    let mut tail = Tail::open(&folder.home, 5).unwrap();
    assert_eq!(tail.next_line().unwrap(), None);
    let reasons = numbered(0..30);
    let mut seen = Vec::new();
    for round in reasons.chunks(7) {
        folder.serve(small(100), &round.iter().map(String::as_str).collect::<Vec<_>>());
        tail.refresh().unwrap();
        while let Some(line) = tail.next_line().unwrap() {
            let line: Value = serde_json::from_slice(&line).unwrap();
            seen.push(line["seq"].as_u64().unwrap());
        }
    }
    assert!(seen.is_sorted() && seen.len() == folder.all().len(), "{seen:?}");
    for count in [0, 1, 3, 10, 29, 1000] {
        let mut tail = Tail::open(&folder.home, count).unwrap();
        let mut lines = 0;
        while tail.next_line().unwrap().is_some() {
            lines += 1;
        }
        assert_eq!(lines, count.min(seen.len()));
    }
}

/// Half a line is not shown; the whole line is, once.
#[test]
fn the_tail_waits_for_the_end_of_a_line() {
    let folder = Folder::new();
    folder.serve(Limits::default(), &["one"]);
    let path = folder.home.path(ACTIVE);
    let whole = folder.text(ACTIVE);
    let (first, rest) = whole.split_at(whole.iter().position(|b| *b == b'\n').unwrap() + 1);
    fs::write(&path, first).unwrap();
    let mut tail = Tail::open(&folder.home, 9).unwrap();
    assert!(tail.next_line().unwrap().is_some());
    for cut in 0..rest.len() {
        fs::write(&path, [first, &rest[..cut]].concat()).unwrap();
        assert_eq!(tail.next_line().unwrap(), None, "{cut}");
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(tail.next_line().unwrap().unwrap(), rest[..rest.len() - 1]);
    assert_eq!(tail.next_line().unwrap(), None);
}

/// `record` returns although somebody keeps the log locked.
#[test]
fn a_locked_log_holds_nobody_up() {
    let folder = Folder::new();
    let (audit, writer) = AuditFile::open(&folder.home, Limits::default()).unwrap();
    let lock = folder.home.lock(files::LOCK).unwrap();
    let (done, recorded) = channel();
    let recorder = thread::spawn(move || {
        (0..QUEUE * 3).for_each(|_| audit.record(event()));
        done.send(()).unwrap();
    });
    recorded.recv_timeout(Duration::from_secs(60)).unwrap();
    recorder.join().unwrap();
    drop(lock);
    writer.finish();
    folder.holds();
}
