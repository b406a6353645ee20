use alknet_testing::memory;
use bytes::BytesMut;
use tokio::{io::AsyncWriteExt as _, sync::mpsc};

use super::*;
use crate::{
    client::DialError,
    name::Name,
    wire::{Attached, FromClient, Terminal},
};

#[test]
fn on_a_slow_path_the_limits_grow_until_one_is_in_time() {
    let mut pace = Pace::after(Duration::from_millis(20));
    assert_eq!((pace.dial, pace.attach), (DIAL, ATTACH));
    pace.late();
    assert_eq!((pace.dial, pace.attach), (DIAL, ATTACH * 2));
    (0..9).for_each(|_| pace.late());
    assert_eq!((pace.dial, pace.attach), (FIRST, FIRST));
    let pace = Pace::after(Duration::from_secs(2));
    assert_eq!((pace.dial, pace.attach), (Duration::from_secs(6), Duration::from_secs(6)));
}

/// A line to a node that says nothing but that the viewer is attached. What is sent on it
/// comes out of the queue, which has room for `room` frames.
async fn line(room: usize) -> (Line, mpsc::Receiver<Frame>) {
    let viewer = Id::random().unwrap();
    let attached = FromNode::Attached(Attached {
        session: viewer,
        name: Name::main(),
        created: true,
        resumed: false,
        read_only: false,
        input: 0,
        output: 0,
        input_window: 1 << 16,
        output_window: 1 << 16,
        columns: 80,
        rows: 24,
        viewers: 1,
        account: "anna".into(),
    });
    let (client, node) = memory::pair();
    let answer = async {
        let mut stream = node.accept_bi().await.unwrap();
        let mut bytes = BytesMut::new();
        attached.frame().encode(&mut bytes);
        stream.write_all(&bytes).await.unwrap();
        stream
    };
    let (line, _) = tokio::join!(Line::attach(client, 1, &FromClient::List), answer);
    let (outgoing, queued) = mpsc::channel(room);
    let mut line = line.unwrap();
    line.outgoing = outgoing;
    (line, queued)
}

fn viewing() -> View {
    let terminal = Terminal { term: "xterm".into(), columns: 80, rows: 24, width: 0, height: 0 };
    let nowhere = || -> alknet_core::BoxFuture<'static, _> {
        Box::pin(async { Err(DialError::new("there is one line only")) })
    };
    let viewer = Id::random().unwrap();
    let (maker, spot) = Maker::new(Arc::new(nowhere), Request::new(terminal), viewer);
    View::new(maker, spot, Pace { dial: FIRST, attach: FIRST })
}

#[tokio::test]
async fn a_resize_waits_for_room_and_only_the_last_counts() {
    let (line, mut queued) = line(1).await;
    let mut view = viewing();
    line.outgoing.try_send(Frame::Ping(1)).unwrap();
    view.line = Some(line);
    for columns in [100, 120] {
        view.resize(Size { columns, rows: 30, width: 0, height: 0 });
        view.send();
    }
    assert_eq!(queued.try_recv().unwrap(), Frame::Ping(1));
    view.send();
    let size = Size { columns: 120, rows: 30, width: 0, height: 0 };
    assert_eq!(queued.try_recv().unwrap(), Frame::Resize(size));
    view.send();
    assert!(queued.try_recv().is_err(), "it is told once");
}
