use std::{pin::pin, time::Duration};

use bytes::Bytes;
use russh::{
    Channel, ChannelMsg, client,
    keys::{Algorithm, PrivateKey, PublicKeyOrCertificate, key::safe_rng},
    server,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    task::JoinSet,
    time::timeout,
};

use super::*;
use crate::{KeyExchange, algorithms};

/// Long enough for a busy machine, short enough that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

type Writer = QueuedWriter<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;
type Pipe = (Writer, Drain<WriteHalf<DuplexStream>>, Backlog);

fn over_pipe(len: usize, limit: usize) -> (Pipe, DuplexStream) {
    let (near, far) = duplex(len);
    let (read, write) = split(near);
    (queued(read, write, limit), far)
}

#[tokio::test]
async fn writes_do_not_wait_and_all_arrive() {
    let ((mut stream, drain, _backlog), mut far) = over_pipe(64, HIGH);
    let sent: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for piece in sent.chunks(1000) {
        stream.write_all(piece).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut received = Vec::new();
    let (drained, closed, read) =
        tokio::join!(drain.run(), stream.shutdown(), far.read_to_end(&mut received));
    assert!(drained.is_ok() && closed.is_ok() && read.is_ok());
    assert!(received == sent);
}

/// Nobody else has a turn in between.
#[tokio::test]
async fn what_is_little_is_on_its_way_at_once() {
    let ((mut stream, drain, _backlog), mut far) = over_pipe(64, HIGH);
    stream.write_all(b"little").await.unwrap();
    let mut received = [0; 6];
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"little");
    // More than the pipe takes, and then behind that.
    let sent: Vec<u8> = (0..=255).collect();
    stream.write_all(&sent).await.unwrap();
    stream.write_all(b"end").await.unwrap();
    let mut received = Vec::new();
    let (drained, closed, read) =
        tokio::join!(drain.run(), stream.shutdown(), far.read_to_end(&mut received));
    assert!(drained.is_ok() && closed.is_ok() && read.is_ok());
    assert_eq!(received, [&sent[..], b"end"].concat());
}

/// Writes of all sizes, from one task, while another drains: none overtakes and none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_and_much_keep_their_order() {
    let ((mut stream, drain, backlog), mut far) = over_pipe(1000, 4 * HIGH);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(drain.run().await) });
    tasks.spawn(async move {
        let mut next = 0_u32;
        for round in 0..20_000_usize {
            backlog.ready().await;
            let words = if round % 7 == 0 { 3000 } else { round % 40 + 1 };
            let piece: Vec<u8> = (0..words)
                .flat_map(|_| {
                    next += 1;
                    next.to_le_bytes()
                })
                .collect();
            stream.write_all(&piece).await.unwrap();
            if round % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        stream.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    timeout(PATIENCE, far.read_to_end(&mut received)).await.unwrap().unwrap();
    let words = received.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    assert!(words.clone().eq(1..=u32::try_from(words.len()).unwrap()));
    assert!(words.len() > 8_000_000);
    timeout(PATIENCE, tasks.join_all()).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_until_everything_is_written() {
    let ((mut stream, drain, _backlog), mut far) = over_pipe(64, HIGH);
    stream.write_all(&[1; 1000]).await.unwrap();
    let mut drain = pin!(drain.run());
    let mut shutdown = pin!(stream.shutdown());
    let mut pieces = [0; 100];
    for _ in 0..9 {
        tokio::select! {
            biased;
            _ = &mut drain => panic!("the drain ended early"),
            _ = &mut shutdown => panic!("the shutdown ended early"),
            read = far.read_exact(&mut pieces) => drop(read.unwrap()),
        }
    }
    let mut rest = Vec::new();
    let (.., read) = tokio::join!(&mut drain, &mut shutdown, far.read_to_end(&mut rest));
    assert_eq!(read.unwrap(), 100);
}

#[tokio::test]
async fn a_stream_beyond_the_limit_ends() {
    let ((mut stream, drain, _backlog), _far) = over_pipe(64, 10_000);
    stream.write_all(&[0; 9000]).await.unwrap();
    let error = stream.write_all(&[0; 2000]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    assert!(stream.read_u8().await.is_err());
    assert_eq!(drain.run().await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    assert!(stream.shutdown().await.is_err());
}

#[tokio::test]
async fn the_end_of_the_drain_ends_a_waiting_read() {
    let ((mut stream, drain, _backlog), _far) = over_pipe(64, HIGH);
    let (read, ()) = tokio::join!(stream.read_u8(), async { drop(drain) });
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert!(stream.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn what_was_written_before_a_drop_arrives() {
    let ((mut stream, drain, _backlog), mut far) = over_pipe(64, HIGH);
    stream.write_all(&[1; 1000]).await.unwrap();
    drop(stream);
    let mut received = Vec::new();
    let (drained, read) = tokio::join!(drain.run(), far.read_to_end(&mut received));
    assert!(drained.is_ok() && read.is_ok());
    assert_eq!(received, [1; 1000]);
}

#[tokio::test]
async fn a_transport_that_fails_ends_the_stream() {
    let ((mut stream, drain, _backlog), far) = over_pipe(64, HIGH);
    drop(far);
    stream.write_all(b"x").await.unwrap();
    assert!(drain.run().await.is_err());
    assert!(stream.write_all(b"x").await.is_err());
}

#[tokio::test]
async fn producers_wait_while_much_is_queued() {
    let ((mut stream, drain, backlog), mut far) = over_pipe(64 * 1024, 4 * HIGH);
    timeout(PATIENCE, backlog.ready()).await.unwrap();
    stream.write_all(&vec![0; 2 * HIGH]).await.unwrap();
    let mut waiting = pin!(backlog.ready());
    let mut drain = pin!(drain.run());
    let mut sink = vec![0; HIGH / 2];
    tokio::select! {
        biased;
        () = &mut waiting => panic!("a producer may go on with {} bytes queued", 2 * HIGH),
        _ = &mut drain => unreachable!(),
        read = far.read_exact(&mut sink) => drop(read.unwrap()),
    }
    let read = async {
        let mut sink = vec![0; HIGH];
        far.read_exact(&mut sink).await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = timeout(PATIENCE, &mut waiting) => result.unwrap(),
        _ = &mut drain => unreachable!(),
        () = read => unreachable!(),
    }
}

/// Two SSH ends of which each sends more than the pipe and the channel's window hold before
/// it reads: both wait for ever when their writes wait.
#[tokio::test]
async fn two_ssh_ends_over_a_small_pipe_do_not_wait_for_each_other() {
    const BULK: usize = 16 * 1024 * 1024;
    let (near, far) = duplex(16 * 1024);
    let mut drains = JoinSet::new();
    let mut end = |pipe| {
        let (read, write) = split(pipe);
        let (stream, drain, _backlog) = queued(read, write, 64 * 1024 * 1024);
        drains.spawn(drain.run());
        stream
    };
    let (server_end, client_end) = (end(near), end(far));
    let echoed = timeout(PATIENCE, echo(server_end, client_end, BULK)).await;
    assert_eq!(echoed.expect("the two ends hang"), BULK);
}

async fn echo<S>(server_end: S, client_end: S, len: usize) -> usize
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let config = Arc::new(server::Config {
        keys: vec![key],
        preferred: algorithms::preferred(KeyExchange::Compatible),
        auth_rejection_time: Duration::ZERO,
        ..server::Config::default()
    });
    let mut server = JoinSet::new();
    server
        .spawn(async move { server::run_stream(config, server_end, Echo::default()).await?.await });
    let config = Arc::new(client::Config::default());
    let mut session = client::connect_stream(config, client_end, Trusting).await.unwrap();
    assert!(session.authenticate_none("user").await.unwrap().success());
    let (mut read, write) = session.channel_open_session().await.unwrap().split();
    let send = async {
        write.data_bytes(Bytes::from(vec![7; len])).await.unwrap();
        write.eof().await.unwrap();
    };
    let receive = async {
        let mut received = 0;
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Data { data } => received += data.len(),
                ChannelMsg::Eof => break,
                _ => {}
            }
        }
        received
    };
    tokio::join!(send, receive).1
}

#[derive(Default)]
struct Echo(JoinSet<()>);

impl server::Handler for Echo {
    type Error = russh::Error;

    async fn auth_none(&mut self, _user: &str) -> Result<server::Auth, Self::Error> {
        Ok(server::Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        _session: &mut server::Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        self.0.spawn(async move {
            let (mut read, write) = channel.split();
            while let Some(message) = read.wait().await {
                match message {
                    ChannelMsg::Data { data } => write.data_bytes(data).await.unwrap(),
                    ChannelMsg::Eof => break,
                    _ => {}
                }
            }
            write.eof().await.unwrap();
        });
        Ok(())
    }
}

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}
