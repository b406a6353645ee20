//! Many bytes, slow readers, peers that do not play fair.

use bytes::Bytes;
use proptest::{
    prelude::{Just, Strategy as _, any},
    prop_oneof,
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::node::{Node, outcome, run, soon};

const MIB: usize = 1024 * 1024;

/// More than the window of either side holds.
const BULK: usize = 64 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_goes_both_ways_at_once() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "cat").await.unwrap();
    let (mut read, write) = channel.split();
    let send = async {
        write.data_bytes(Bytes::from(vec![7; BULK])).await.unwrap();
        write.eof().await.unwrap();
    };
    let ((), received) = soon("the echo", async { tokio::join!(send, count(&mut read)) }).await;
    assert_eq!(received, BULK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_nobody_reads_does_not_stop_another() {
    let node = Node::new();
    let client = node.session().await;
    let stalled = client.channel_open_session().await.unwrap();
    stalled.exec(true, "head -c 64M /dev/zero").await.unwrap();
    let (mut stalled, _write) = stalled.split();
    let busy = soon("the busy channel", run(&client, "head -c 64M /dev/zero")).await;
    assert_eq!((busy.stdout.len(), busy.status), (BULK, Some(0)));
    assert_eq!(soon("the stalled channel", count(&mut stalled)).await, BULK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_reads_nothing_does_not_stop_another() {
    let node = Node::new();
    let client = node.session().await;
    assert_eq!(run(&client, "mkfifo go").await.status, Some(0));
    let stalled = client.channel_open_session().await.unwrap();
    stalled.exec(true, "read line <go; wc -c").await.unwrap();
    let (mut stalled, write) = stalled.split();
    let send = async {
        write.data_bytes(Bytes::from(vec![7; BULK])).await.unwrap();
        write.eof().await.unwrap();
    };
    let others = async {
        let busy = run(&client, "head -c 64M /dev/zero").await;
        assert_eq!((busy.stdout.len(), busy.status), (BULK, Some(0)));
        assert_eq!(run(&client, "echo go >go").await.status, Some(0));
        outcome(&mut stalled).await
    };
    let both = async { tokio::join!(send, others) };
    let ((), outcome) = soon("both channels", both).await;
    assert_eq!(outcome.text(), format!("{BULK}\n"));
}

/// Data may come in pieces of any size: a window full of the smallest is no flood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_records_to_a_program_that_reads_nothing_do_not_stop_another() {
    /// The channel gets its large window once this much was read.
    const READ: usize = MIB;
    /// Of four bytes each: no more than is left of that window in any case.
    const RECORDS: u32 = 384 * 1024;
    let node = Node::new();
    let client = node.session().await;
    assert_eq!(run(&client, "mkfifo go").await.status, Some(0));
    let stalled = client.channel_open_session().await.unwrap();
    let command = format!("head -c {READ} >/dev/null; read line <go; cat");
    stalled.exec(true, command).await.unwrap();
    let (mut stalled, write) = stalled.split();
    let send = async {
        write.data_bytes(Bytes::from(vec![7; READ])).await.unwrap();
        for number in 0..RECORDS {
            write.data_bytes(number.to_be_bytes().to_vec()).await.unwrap();
        }
        write.eof().await.unwrap();
    };
    soon("the end of the records", send).await;
    let busy = soon("the busy channel", run(&client, "head -c 64M /dev/zero")).await;
    assert_eq!((busy.stdout.len(), busy.status), (BULK, Some(0)));
    assert_eq!(run(&client, "echo go >go").await.status, Some(0));
    let outcome = outcome(&mut stalled).await;
    let received = outcome.stdout.chunks(4);
    assert!(received.eq((0..RECORDS).map(u32::to_be_bytes)), "{}", outcome.stdout.len());
    assert_eq!(outcome.status, Some(0));
}

async fn count(read: &mut ChannelReadHalf) -> usize {
    let mut received = 0;
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => received += data.len(),
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => {}
        }
    }
    received
}

#[tokio::test]
async fn twenty_sessions_at_once() {
    let node = Node::new();
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..20 {
        let client = node.session().await;
        sessions.spawn(async move {
            let outcome = run(&client, &format!("head -c 1M /dev/zero; exit {number}")).await;
            assert_eq!((outcome.stdout.len(), outcome.status), (MIB, Some(number)));
        });
    }
    soon("the sessions", sessions.join_all()).await;
}

#[tokio::test]
async fn garbage_ends_the_transport_alone() {
    let node = Node::new();
    let connection = node.connect();
    let mut runner = TestRunner::default();
    let bytes = proptest::collection::vec(any::<u8>(), 0..2048);
    let strategy = (prop_oneof![Just(""), Just("SSH-2.0-x\r\n"), Just(KEXINIT)], bytes);
    for _ in 0..200 {
        let (start, garbage) = strategy.new_tree(&mut runner).unwrap().current();
        let mut stream = connection.open_bi().await.unwrap();
        // The transport may have ended before all of it is written.
        let _ = stream.write_all(start.as_bytes()).await;
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        drop(soon("the end", stream.read_to_end(&mut answer)).await);
    }
    let mut client = node.client_on(connection).await;
    assert!(node.log_in(&mut client, node.user("alice", &["ssh"])).await);
    assert_eq!(run(&client, "true").await.status, Some(0));
}

/// A version and the beginning of a key exchange of 1148 bytes.
const KEXINIT: &str = "SSH-2.0-x\r\n\0\0\x04\x78\x04\x14";

#[tokio::test]
async fn a_flood_of_requests_ends_the_transport() {
    let node = Node::new();
    let client = node.session().await;
    let channel = client.channel_open_session().await.unwrap();
    let flood = async {
        let value = "x".repeat(8192);
        while channel.set_env(false, "LC_ALL", value.as_str()).await.is_ok() {}
    };
    soon("the end of the flood", flood).await;
    assert!(client.is_closed());
}

/// Each channel stays far below what one may queue, and all of them together do not.
#[tokio::test]
async fn a_flood_over_many_channels_ends_the_transport() {
    const CHANNELS: usize = 32;
    let node = Node::new();
    let client = node.session().await;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(client.channel_open_session().await.unwrap());
    }
    let value = "x".repeat(8192);
    let requests = 48 * MIB / value.len() / CHANNELS;
    let flood = async {
        for channel in channels.iter().cycle().take(requests * CHANNELS) {
            if channel.set_env(false, "LC_ALL", value.as_str()).await.is_err() {
                return;
            }
        }
    };
    soon("the flood", flood).await;
    let opened = soon("an answer", client.channel_open_session()).await;
    assert!(opened.is_err());
}

/// The windows together are smaller than what ends a transport.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_programs_that_read_nothing_do_not_stop_another() {
    const CHANNELS: usize = 40;
    let node = Node::new();
    let client = node.session().await;
    let mut stalled = tokio::task::JoinSet::new();
    for _ in 0..CHANNELS {
        let channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "sleep 1000").await.unwrap();
        // More than any window.
        stalled.spawn(async move { channel.data_bytes(Bytes::from(vec![7; 4 * MIB])).await });
    }
    let busy = soon("the busy channel", run(&client, "head -c 64M /dev/zero")).await;
    assert_eq!((busy.stdout.len(), busy.status), (BULK, Some(0)));
    assert_eq!(stalled.len(), CHANNELS);
    assert!(stalled.try_join_next().is_none());
}
