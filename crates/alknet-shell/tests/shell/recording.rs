//! Sessions that are to be recorded, and a recorder that takes its time.

use std::{sync::Arc, time::Duration};

use alknet_core::BoxFuture;
use alknet_host::{End, Event, RecordError, Recorder, Recording, Session, Sink};
use alknet_shell::{
    client::{Outcome, Request},
    wire::{Exit, RefusalCode},
};
use tokio::sync::Semaphore;

use crate::node::{Node, code, soon};

/// Does what it is told once it may go on, and nothing twice.
#[derive(Debug)]
struct Slow {
    asked: Semaphore,
    go: Semaphore,
    refuses: bool,
}

/// Takes everything.
struct Nowhere;

impl Sink for Nowhere {
    fn event(&mut self, _: Duration, _: Event<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: End) {}
}

impl Slow {
    fn new(refuses: bool) -> Arc<Self> {
        Arc::new(Self { asked: Semaphore::new(0), go: Semaphore::new(0), refuses })
    }

    /// Waits until it is asked for one recording more.
    async fn asked(&self) {
        soon("the recorder", self.asked.acquire()).await.unwrap().forget();
    }
}

impl Recorder for Slow {
    fn begin(&self, _: Session) -> BoxFuture<'_, Result<Option<Recording>, RecordError>> {
        Box::pin(async {
            self.asked.add_permits(1);
            self.go.acquire().await.unwrap().forget();
            match self.refuses {
                true => Err(RecordError::new("the disk is full")),
                false => Ok(Some(Recording::start(Nowhere, false).unwrap())),
            }
        })
    }
}

fn touches(mark: &std::path::Path) -> impl FnOnce(&mut Request) {
    let command = format!("touch {}; sleep 1000", mark.display());
    |request| request.command = Some(command)
}

/// Whether a program runs, or has run, that touches this. Its process is there as soon as it
/// was started, whatever it has come to.
fn has_started(mark: &std::path::Path) -> bool {
    let name = mark.as_os_str().as_encoded_bytes();
    let names = |entry: std::io::Result<std::fs::DirEntry>| {
        let line = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        line.windows(name.len()).any(|piece| piece == name)
    };
    mark.exists() || std::fs::read_dir("/proc").unwrap().any(names)
}

#[tokio::test]
async fn a_program_that_cannot_be_recorded_never_starts() {
    let recorder = Slow::new(true);
    let node = Node::recorded(Some(recorder.clone()), |_| {});
    let ann = node.knows("ann", &["shell"]);
    let mark = node.file("mark");
    for _ in 0..3 {
        let viewer = node.view(&ann, touches(&mark));
        recorder.asked().await;
        assert!(!has_started(&mark), "it runs before it is recorded");
        recorder.go.add_permits(1);
        assert_eq!(code(viewer.ends().await.0), RefusalCode::Failed);
    }
    assert!(!has_started(&mark));
}

#[tokio::test]
async fn who_asks_for_a_session_that_is_about_to_start_gets_that_one() {
    let recorder = Slow::new(false);
    let node = Node::recorded(Some(recorder.clone()), |limits| limits.sessions = 1);
    let ann = node.knows("ann", &["shell"]);
    let named = |name: &'static str| {
        move |request: &mut Request| {
            request.name = Some(name.parse().unwrap());
            request.command = Some("echo started; read line; exit 4".into());
        }
    };
    let mut first = node.view(&ann, named("work"));
    recorder.asked().await;
    let mut second = node.view(&ann, named("work"));
    // One that is about to start counts, for its identity.
    let third = node.view(&ann, named("other"));
    assert_eq!(code(third.ends().await.0), RefusalCode::Limit);
    let bob = node.knows("bob", &["shell"]);
    let other = node.view(&bob, named("work"));
    recorder.asked().await;
    recorder.go.add_permits(2);
    first.sees("started").await;
    second.sees("started").await;
    assert!(first.saw(|seen| seen.attached[0].created));
    assert!(!second.saw(|seen| seen.attached[0].created));
    let ids = [&first, &second].map(|viewer| viewer.saw(|seen| seen.attached[0].session));
    assert_eq!(ids[0], ids[1]);
    first.types("\r").await;
    let exit = Exit { status: Some(4), signal: None };
    assert_eq!(first.ends().await.0.unwrap(), Outcome::Exited(exit.clone()));
    assert_eq!(second.ends().await.0.unwrap(), Outcome::Exited(exit));
    drop(other);
}

#[tokio::test]
async fn a_session_whose_asker_is_gone_leaves_nothing() {
    let recorder = Slow::new(false);
    let node = Node::recorded(Some(recorder.clone()), |limits| limits.sessions = 1);
    let (ann, mut phone) = (node.knows("ann", &["shell"]), node.knows("phone", &["shell"]));
    phone.id.clone_from(&ann.id);
    node.forgets("phone");
    let key = alknet_core::KeyFingerprint::of_openssh_blob(b"phone");
    node.identities.add_key(key, phone.clone());
    let mark = node.file("mark");
    let first = node.view(&phone, touches(&mark));
    recorder.asked().await;
    // It waits for the first, which has the name and the only place.
    let mut second = node.view(&ann, |request| request.command = Some("echo started".into()));
    node.forgets("phone");
    node.dispatcher.recheck(&*node.identities).await;
    assert!(first.ends().await.0.is_err());
    recorder.asked().await;
    recorder.go.add_permits(1);
    second.sees("started").await;
    assert!(!has_started(&mark));
    assert_eq!(recorder.go.available_permits(), 0);
}

#[tokio::test]
async fn a_node_that_shuts_down_starts_nothing_more() {
    let recorder = Slow::new(false);
    let node = Node::recorded(Some(recorder.clone()), |_| {});
    let ann = node.knows("ann", &["shell"]);
    let mark = node.file("mark");
    let viewer = node.view(&ann, touches(&mark));
    recorder.asked().await;
    soon("the end", node.shells.shutdown()).await;
    recorder.go.add_permits(1);
    assert_eq!(code(viewer.ends().await.0), RefusalCode::ShuttingDown);
    assert!(!has_started(&mark));
}
