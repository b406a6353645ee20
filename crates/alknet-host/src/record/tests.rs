use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Tells what it gets, and fails or waits where it is told to.
struct Told {
    to: Sender<String>,
    /// Each event waits for a word.
    gate: Option<Receiver<io::Result<()>>>,
}

impl Told {
    fn open() -> (Self, Receiver<String>) {
        let (to, told) = channel();
        (Self { to, gate: None }, told)
    }

    fn gated() -> (Self, Receiver<String>, Sender<io::Result<()>>) {
        let (to, told) = channel();
        let (gate, open) = channel();
        (Self { to, gate: Some(open) }, told, gate)
    }
}

impl Sink for Told {
    fn event(&mut self, _: Duration, event: Event<'_>) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            gate.recv().unwrap_or(Ok(()))?;
        }
        let text = match event {
            Event::Output(bytes) => format!("o {}", String::from_utf8_lossy(bytes)),
            Event::Input(bytes) => format!("i {}", String::from_utf8_lossy(bytes)),
            Event::Resize(size) => format!("r {}x{}", size.columns, size.rows),
        };
        let _ = self.to.send(text);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, end: End) {
        let code = end.status.and_then(|status| status.code());
        let _ = self.to.send(format!("end {code:?} {:?}", end.error.map(|error| error.kind())));
    }
}

fn size(columns: u32, rows: u32) -> Size {
    Size { columns, rows, width: 0, height: 0 }
}

#[tokio::test]
async fn everything_is_told_in_its_order() {
    let (sink, told) = Told::open();
    let recording = Recording::start(sink, true).unwrap();
    recording.output(b"one").await.unwrap();
    assert_eq!(told.recv().unwrap(), "o one");
    recording.resize(size(100, 30));
    assert_eq!(told.recv().unwrap(), "r 100x30");
    recording.input(b"two").await.unwrap();
    recording.finish(Some(ExitStatus::default())).await;
    assert_eq!(told.iter().collect::<Vec<_>>(), ["i two", "end Some(0) None"]);
}

#[tokio::test]
async fn what_is_typed_is_not_recorded_unless_it_is_asked_for() {
    let (sink, told) = Told::open();
    let recording = Recording::start(sink, false).unwrap();
    recording.input(b"password").await.unwrap();
    // A dropped recording has an end as well.
    drop(recording);
    assert_eq!(told.iter().collect::<Vec<_>>(), ["end None None"]);
}

#[tokio::test]
async fn a_failure_is_everybodys() {
    let (sink, told, gate) = Told::gated();
    let recording = Recording::start(sink, false).unwrap();
    let clone = recording.clone();
    recording.output(b"one").await.unwrap();
    gate.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    let error = clone.failed().await;
    assert!(error.to_string().contains("the recording failed: no storage space"), "{error}");
    assert!(recording.output(b"two").await.is_err());
    recording.finish(None).await;
    assert_eq!(told.iter().collect::<Vec<_>>(), ["end None Some(StorageFull)"]);
}

/// A disk that takes nothing holds a session up for a while and ends it then.
#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_is_a_failure() {
    let (sink, _told, gate) = Told::gated();
    let recording = Recording::start(sink, false).unwrap();
    let started = tokio::time::Instant::now();
    let error = loop {
        if let Err(error) = recording.output(b"more").await {
            break error;
        }
    };
    assert!(error.to_string().contains("the disk takes nothing"), "{error}");
    assert!(started.elapsed() >= PATIENCE);
    assert_eq!(recording.failed().await.to_string(), error.to_string());
    drop(gate);
}

/// Sizes that come faster than they are written are not queued, and the last one stays.
#[tokio::test]
async fn of_many_sizes_the_last_one_counts() {
    let (sink, told, gate) = Told::gated();
    let recording = Recording::start(sink, false).unwrap();
    recording.output(b"one").await.unwrap();
    (1..=10_000).for_each(|n| recording.resize(size(n, n)));
    drop(gate);
    recording.finish(None).await;
    let all: Vec<String> = told.iter().collect();
    assert!(all.len() < 10 && all.contains(&"r 10000x10000".to_owned()), "{all:?}");
}
