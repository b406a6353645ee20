//! What happens while something that was asked for on a channel has not started yet.

use std::sync::Arc;

use alknet_core::BoxFuture;
use alknet_host::{RecordError, Recorder, Recording, Session};
use russh::{Channel, ChannelMsg, client, client::Handle};
use tokio::sync::Semaphore;

use crate::node::{Node, Trust, outcome, run, soon};

/// Begins no recording, and takes its time to say so.
#[derive(Debug)]
struct Slow {
    asked: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Recorder for Slow {
    fn begin(&self, _: Session) -> BoxFuture<'_, Result<Option<Recording>, RecordError>> {
        Box::pin(async {
            self.asked.add_permits(1);
            self.go.acquire().await.unwrap().forget();
            Ok(None)
        })
    }
}

struct Waiting {
    node: Node,
    client: Handle<Trust>,
    channel: Channel<client::Msg>,
    go: Arc<Semaphore>,
}

/// A client whose program with a terminal is about to start.
async fn waiting(command: &str) -> Waiting {
    let (asked, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let node = Node::with_recorder(Arc::new(Slow { asked: asked.clone(), go: go.clone() }));
    let client = node.session().await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    assert!(matches!(soon("the terminal", channel.wait()).await, Some(ChannelMsg::Success)));
    channel.exec(true, command).await.unwrap();
    soon("the recorder", asked.acquire()).await.unwrap().forget();
    Waiting { node, client, channel, go }
}

#[tokio::test]
async fn a_start_that_waits_stops_no_other_channel() {
    let Waiting { client, channel, go, .. } = waiting("echo started").await;
    assert_eq!(soon("another channel", run(&client, "echo other")).await.text(), "other\n");
    go.add_permits(1);
    let (mut read, _write) = channel.split();
    let outcome = outcome(&mut read).await;
    assert_eq!((outcome.text(), outcome.status), ("started\r\n", Some(0)));
}

#[tokio::test]
async fn a_request_without_an_answer_takes_none_from_a_start_that_waits() {
    let Waiting { client, mut channel, go, .. } = waiting("stty size").await;
    channel.window_change(100, 30, 0, 0).await.unwrap();
    // By then the server has had the new size.
    assert_eq!(run(&client, "true").await.status, Some(0));
    go.add_permits(1);
    assert!(matches!(soon("the answer", channel.wait()).await, Some(ChannelMsg::Success)));
    let (mut read, _write) = channel.split();
    assert_eq!(outcome(&mut read).await.status, Some(0));
}

#[tokio::test]
async fn a_channel_that_is_closed_before_its_start_starts_nothing() {
    let Waiting { node, client, mut channel, go } = waiting("touch started").await;
    channel.close().await.unwrap();
    while let Some(message) = soon("the close", channel.wait()).await {
        assert!(!matches!(message, ChannelMsg::Success));
    }
    go.add_permits(1);
    assert_eq!(run(&client, "true").await.status, Some(0));
    assert_eq!(go.available_permits(), 1);
    assert!(!node.file("started").exists());
}
