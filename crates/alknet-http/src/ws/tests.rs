//! Both roles against each other; other implementations stand in the integration tests.

use std::time::Duration;

use alknet_core::{Code, StreamReset};
use alknet_testing::memory;
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::*;

fn end(io: DuplexStream, role: Role, tasks: &mut JoinSet<()>) -> Stream {
    let (outer, _other) = memory::pair_of_kind(TransportKind::Tls);
    let (connection, driver) = connection(Stream::from_bistream(io), Bytes::new(), role, &outer);
    tasks.spawn(driver.run());
    let stream = async {
        match role {
            Role::Client => connection.open_bi().await,
            Role::Server => connection.accept_bi().await,
        }
    };
    futures_util::FutureExt::now_or_never(stream).unwrap().unwrap()
}

fn pair(capacity: usize) -> (Stream, Stream, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let (client, server) = tokio::io::duplex(capacity);
    let client = end(client, Role::Client, &mut tasks);
    let server = end(server, Role::Server, &mut tasks);
    (client, server, tasks)
}

/// Two ends that both write before they read must not wait for each other.
#[tokio::test]
async fn both_directions_are_independent_over_a_narrow_pipe() {
    let (client, server, tasks) = pair(100);
    let data: Vec<u8> = (0..500_000_u32).map(|i| (i % 253) as u8).collect();
    let exchange = async |stream: Stream| {
        let (mut send, mut recv) = stream.split();
        let mut received = Vec::new();
        let (sent, read) = tokio::join!(
            async {
                send.write_all(&data).await?;
                send.shutdown().await
            },
            recv.read_to_end(&mut received),
        );
        sent.unwrap();
        read.unwrap();
        assert!(received == data);
    };
    tokio::join!(exchange(client), exchange(server));
    tasks.join_all().await;
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let (mut client, mut server, tasks) = pair(4096);
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    server.write_all(b"still here").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut [0; 10]).await.unwrap();
    assert!(client.write_all(b"no more").await.is_err());
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    drop((client, server));
    tasks.join_all().await;
}

/// What was written before the last half was dropped arrives, and then the end.
#[tokio::test]
async fn a_finished_sender_may_be_dropped_at_once() {
    let (client, mut server, tasks) = pair(64);
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        let (mut send, recv) = client.split();
        drop(recv);
        send.write_all(&[7; 10_000]).await.unwrap();
        send.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, [7; 10_000]);
    drop(server);
    tasks.join_all().await;
}

#[tokio::test]
async fn an_unfinished_sender_that_is_dropped_cancels() {
    let (client, mut server, tasks) = pair(4096);
    drop(client);
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(StreamReset::code_of(&error), Some(Code::CANCELLED));
    drop(server);
    tasks.join_all().await;
}

#[tokio::test]
async fn a_reset_wakes_whoever_waits_at_the_other_end() {
    let (mut client, server, tasks) = pair(64);
    let (mut send, mut recv) = server.split();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { recv.read(&mut [0; 8]).await.unwrap_err() });
    waiting.spawn(async move {
        loop {
            if let Err(error) = send.write_all(&[0; 4096]).await {
                return error;
            }
        }
    });
    // Both wait now: the reader for data, the writer for room.
    tokio::task::yield_now().await;
    client.reset(Code::LIMIT);
    drop(client);
    for error in waiting.join_all().await {
        assert_eq!(StreamReset::code_of(&error), Some(Code::LIMIT), "{error:?}");
    }
    tasks.join_all().await;
}

/// A handler that never reads must not lose the peer's close.
#[tokio::test]
async fn a_close_is_noticed_while_nobody_reads_after_the_end() {
    let (mut client, server, tasks) = pair(4096);
    let (mut send, mut recv) = server.split();
    client.shutdown().await.unwrap();
    assert_eq!(recv.read(&mut [0; 8]).await.unwrap(), 0);
    client.reset(Code::CANCELLED);
    drop(client);
    let error = loop {
        if let Err(error) = send.write_all(&[0; 4096]).await {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(StreamReset::code_of(&error), Some(Code::CANCELLED), "{error:?}");
    drop((send, recv));
    tasks.join_all().await;
}

/// Pings of a peer that reads no pong must not pile up.
#[tokio::test]
async fn pongs_are_bounded() {
    let (mut client, server) = tokio::io::duplex(64);
    let mut tasks = JoinSet::new();
    let server = end(server, Role::Server, &mut tasks);
    let (_send, mut recv) = server.split();
    tasks.spawn(async move {
        let _ = recv.read(&mut [0; 8]).await;
    });
    let mut ping = vec![0x89, 0xfd, 0, 0, 0, 0];
    ping.extend([0; 125]);
    for _ in 0..10_000 {
        client.write_all(&ping).await.unwrap();
    }
    client.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
    let mut pongs = Vec::new();
    client.read_to_end(&mut pongs).await.unwrap();
    assert!(pongs.len() < 300_000, "{}", pongs.len());
}

/// What is written waits for room behind the pongs; nothing of it is lost.
#[tokio::test]
async fn data_gets_past_a_backlog_of_pongs() {
    let (mut client, server) = tokio::io::duplex(4096);
    let mut tasks = JoinSet::new();
    let (mut send, _recv) = end(server, Role::Server, &mut tasks).split();
    let mut ping = vec![0x89, 0xfd, 0, 0, 0, 0];
    ping.extend([0; 125]);
    for _ in 0..4000 {
        client.write_all(&ping).await.unwrap();
    }
    let data: Vec<u8> = (0..500_000_u32).map(|i| (i % 253) as u8).collect();
    let sent = data.clone();
    tasks.spawn(async move {
        send.write_all(&sent).await.unwrap();
        send.shutdown().await.unwrap();
    });
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let (mut received, mut pongs) = (Vec::new(), 0);
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Binary(end) if end.is_empty() => break,
            Message::Binary(more) => received.extend(more),
            Message::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(received == data);
    assert!(pongs > 1000, "{pongs}");
}

/// Whoever owned the driver is gone, and the halves are told.
#[tokio::test]
async fn a_dropped_driver_fails_both_halves() {
    let (_client, server) = tokio::io::duplex(64);
    let mut tasks = JoinSet::new();
    let (mut send, mut recv) = end(server, Role::Server, &mut tasks).split();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { recv.read(&mut [0; 8]).await.unwrap_err() });
    waiting.spawn(async move { send.write_all(&[0; 1_000_000]).await.unwrap_err() });
    tokio::task::yield_now().await;
    tasks.shutdown().await;
    for error in waiting.join_all().await {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

/// As the server does: TCP may well live on, as far as a proxy.
#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_is_pinged_and_then_gone() {
    let (client, mut server) = tokio::io::duplex(4096);
    let mut tasks = JoinSet::new();
    let mut client = end(client, Role::Client, &mut tasks);
    let begun = Instant::now();
    let read = timeout(Duration::from_secs(3600), async { client.read(&mut [0; 8]).await });
    let error = read.await.expect("nobody notices").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(begun.elapsed().as_secs(), 80);
    tasks.join_all().await;
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.unwrap();
    let pings = Vec::from_iter(sent.chunks(6).map(|frame| &frame[..2]));
    assert_eq!(pings, [[0x89, 0x80]; 3], "{sent:x?}");
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_have_nothing_to_say_stay() {
    let (mut client, mut server, tasks) = pair(64);
    sleep(Duration::from_secs(3600)).await;
    server.write_all(b"there?").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut [0; 6]).await.unwrap();
    client.write_all(b"here").await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    drop((client, server));
    tasks.join_all().await;
}

/// It answers no ping, which it does not get to see.
#[tokio::test(start_paused = true)]
async fn an_end_that_does_not_read_is_not_given_up() {
    for from_client in [true, false] {
        let (client, server, tasks) = pair(64);
        let (mut from, mut to) = if from_client { (client, server) } else { (server, client) };
        let data = vec![7; 1_000_000];
        let mut received = vec![0; data.len()];
        let write = async {
            from.write_all(&data).await.unwrap();
            from.flush().await.unwrap();
        };
        let read = async {
            sleep(Duration::from_secs(3600)).await;
            to.read_exact(&mut received).await.unwrap();
        };
        tokio::join!(write, read);
        assert!(received == data);
        drop((from, to));
        tasks.join_all().await;
    }
}

/// Whatever bytes come, the WebSocket ends, and nothing panics.
#[tokio::test(start_paused = true)]
async fn random_bytes_end_it() {
    for seed in 0..300_u64 {
        let (mut client, server) = tokio::io::duplex(4096);
        let mut tasks = JoinSet::new();
        let (send, mut recv) = end(server, Role::Server, &mut tasks).split();
        // Frames of the right shape get further than noise alone.
        let mut bytes = if seed % 2 == 0 { vec![0x82, 0x83, 1, 2, 3, 4, 5, 6, 7] } else { vec![] };
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..100 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend(state.to_be_bytes());
        }
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let _ = recv.read_to_end(&mut Vec::new()).await;
        drop((recv, send));
        tasks.join_all().await;
    }
}

/// The peer reads nothing, so only the end itself can wake either half.
#[tokio::test(start_paused = true)]
async fn an_end_seen_by_one_half_wakes_the_other() {
    let soon = Duration::from_secs(1);
    for reset_here in [true, false] {
        let (mut client, server) = tokio::io::duplex(64);
        let mut tasks = JoinSet::new();
        let (mut send, mut recv) = end(server, Role::Server, &mut tasks).split();
        let mut waiting = JoinSet::new();
        if reset_here {
            waiting.spawn(async move { recv.read(&mut [0; 8]).await.unwrap_err() });
            tokio::task::yield_now().await;
            send.reset(Code::LIMIT);
        } else {
            waiting.spawn(async move {
                loop {
                    if let Err(error) = send.write_all(&[0; 4096]).await {
                        return error;
                    }
                }
            });
            tokio::task::yield_now().await;
            client.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa4]).await.unwrap();
            let error = recv.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(StreamReset::code_of(&error), Some(Code::LIMIT));
        }
        timeout(soon, waiting.join_next()).await.unwrap();
    }
}
