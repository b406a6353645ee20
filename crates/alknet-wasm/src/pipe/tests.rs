// The SSH server that these tests need exists on native targets alone.
#![cfg(not(target_arch = "wasm32"))]

use std::{future::Future, time::Duration};

use russh::{
    Channel, MethodKind,
    client::{self, DisconnectReason},
    keys::{Algorithm, PrivateKey, PublicKeyOrCertificate, key::safe_rng},
    server::{self, Auth, ChannelOpenHandle, Msg},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split},
    task::JoinSet,
    time::timeout,
};

use super::*;

/// A wait that should be short is a failure after this long.
const HANG: Duration = Duration::from_secs(20);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { timeout(HANG, test).await }).expect("it hangs")
}

#[test]
fn bytes_arrive_in_order_and_end() {
    run(async {
        let (mut pipe, inlet, outlet) = Pipe::new();
        inlet.send(Bytes::from_static(b"hello ")).await.unwrap();
        inlet.send(Bytes::new()).await.unwrap();
        inlet.send(Bytes::from_static(b"there")).await.unwrap();
        drop(inlet);
        let mut read = String::new();
        pipe.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello there");
        drop(outlet);
    });
}

#[test]
fn small_writes_leave_in_one_batch() {
    run(async {
        let (mut pipe, _inlet, mut outlet) = Pipe::new();
        for word in ["a", "b", "c"] {
            pipe.write_all(word.as_bytes()).await.unwrap();
        }
        assert_eq!(outlet.next().await.unwrap(), "abc");
        assert_eq!(outlet.queued.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_peer_that_never_reads_ends_the_session() {
    run(async {
        let (mut pipe, _inlet, mut outlet) = Pipe::new();
        let piece = vec![0; 1024 * 1024];
        for _ in 0..OUTGOING / piece.len() {
            pipe.write_all(&piece).await.unwrap();
        }
        assert!(pipe.write_all(b"x").await.is_err());
        assert!(outlet.next().await.is_some());
    });
}

#[test]
fn shutdown_waits_for_the_pump() {
    run(async {
        let (mut pipe, _inlet, mut outlet) = Pipe::new();
        pipe.write_all(b"last words").await.unwrap();
        let mut shutdown = Box::pin(pipe.shutdown());
        assert!(timeout(Duration::ZERO, &mut shutdown).await.is_err());
        assert_eq!(outlet.next().await.unwrap(), "last words");
        assert_eq!(outlet.next().await, None);
        assert!(timeout(Duration::ZERO, &mut shutdown).await.is_err());
        outlet.finished();
        shutdown.await.unwrap();
    });
}

#[test]
fn a_pump_that_is_gone_fails_writes_and_lets_shutdown_go() {
    run(async {
        let (mut pipe, _inlet, outlet) = Pipe::new();
        drop(outlet);
        assert!(pipe.write_all(b"x").await.is_err());
        pipe.shutdown().await.unwrap();
        pipe.shutdown().await.unwrap();
    });
}

/// Both ends send more than the connection holds. The server's loop does not read while its
/// write is blocked; if this end were like it, both would wait for ever.
#[test]
fn an_echo_through_a_narrow_connection_does_not_hang() {
    const TOTAL: usize = 8 * 1024 * 1024;
    run(echo(TOTAL));
}

async fn echo(total: usize) {
    let (near, far) = duplex(16 * 1024);
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let config = server::Config {
        keys: vec![key],
        methods: (&[MethodKind::None][..]).into(),
        ..server::Config::default()
    };
    let (pipe, inlet, outlet) = Pipe::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(pump(near, inlet, outlet));
    tasks.spawn(async {
        let handler = Echo(JoinSet::new());
        let session = server::run_stream(Arc::new(config), far, handler).await.unwrap();
        let _ = session.await;
    });

    let config = Arc::new(client::Config::default());
    let mut session = client::connect_stream(config, pipe, AnyServer).await.unwrap();
    assert!(session.authenticate_none("x").await.unwrap().success());
    let channel = session.channel_open_session().await.unwrap();
    let (mut reader, mut writer) = split(channel.into_stream());
    let send = async {
        writer.write_all(&vec![7; total]).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let ((), read) = tokio::join!(send, reader.read_to_end(&mut back));
    assert_eq!(read.unwrap(), total);
}

/// What the browser's pumps do, over an in-memory connection.
async fn pump(connection: DuplexStream, inlet: Inlet, mut outlet: Outlet) {
    let (mut reader, mut writer) = split(connection);
    let receive = async {
        let mut chunk = vec![0; 4096];
        while let Ok(len @ 1..) = reader.read(&mut chunk).await {
            if inlet.send(Bytes::copy_from_slice(&chunk[..len])).await.is_err() {
                break;
            }
        }
    };
    let send = async {
        while let Some(batch) = outlet.next().await {
            if writer.write_all(&batch).await.is_err() {
                break;
            }
        }
        outlet.finished();
    };
    tokio::join!(receive, send);
}

struct AnyServer;

impl client::Handler for AnyServer {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn disconnected(
        &mut self,
        _: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        Ok(())
    }
}

struct Echo(JoinSet<()>);

impl server::Handler for Echo {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        self.0.spawn(async move {
            let (mut reader, mut writer) = split(channel.into_stream());
            let _ = copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
        Ok(())
    }
}
