//! Transports with one stream: what a handler sees of TLS and WebSockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use alknet_core::{
    Closed, ClosedBy, Code, Connection, ConnectionError, SingleStream, Stream, TransportKind,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

fn accepted() -> (Connection, DuplexStream) {
    let (near, far) = tokio::io::duplex(1024);
    (Connection::new(SingleStream::accepted(TransportKind::Tls, Stream::from_bistream(near))), far)
}

#[tokio::test]
async fn one_stream_once_then_the_end() {
    let (connection, mut far) = accepted();
    let mut stream = connection.accept_bi().await.unwrap();
    far.write_all(b"hi").await.unwrap();
    let mut two = [0; 2];
    stream.read_exact(&mut two).await.unwrap();
    assert_eq!(&two, b"hi");

    let second = connection.accept_bi();
    tokio::pin!(second);
    let still_open = tokio::select! {
        biased;
        _ = &mut second => false,
        () = tokio::task::yield_now() => true,
    };
    assert!(still_open, "the connection is open while its stream is");
    drop(stream);
    let end = Closed { by: ClosedBy::Peer, code: Code::NORMAL, reason: String::new() };
    assert!(matches!(second.await, Err(ConnectionError::Closed(closed)) if closed == end));
}

#[tokio::test]
async fn what_one_stream_cannot_do_is_a_typed_error() {
    let (connection, _far) = accepted();
    assert!(matches!(
        connection.open_bi().await,
        Err(ConnectionError::Unsupported(TransportKind::Tls, _))
    ));
    assert!(matches!(connection.accept_uni().await, Err(ConnectionError::Unsupported(..))));
    assert!(matches!(
        connection.send_datagram(Vec::new().into()),
        Err(ConnectionError::Unsupported(..))
    ));
    assert_eq!(connection.max_datagram_size(), None);
}

#[tokio::test]
async fn the_dialling_side_opens_its_stream_once() {
    let (near, _far) = tokio::io::duplex(1024);
    let dialled = SingleStream::dialled(TransportKind::WebSocket, Stream::from_bistream(near));
    let connection = Connection::new(dialled);
    let _stream = connection.open_bi().await.unwrap();
    assert!(matches!(connection.open_bi().await, Err(ConnectionError::Unsupported(..))));
}

#[tokio::test]
async fn a_close_wakes_a_blocked_reader_and_a_blocked_writer() {
    let (connection, mut far) = accepted();
    let (mut send, mut recv) = connection.accept_bi().await.unwrap().split();
    let reader = async move { recv.read_u8().await.unwrap_err().kind() };
    let writer = async move {
        loop {
            if let Err(error) = send.write_all(&[0; 512]).await {
                return error.kind();
            }
        }
    };
    let closer = async {
        // Both are blocked by now: `join` polls in order.
        connection.close(Code::REVOKED, "revoked");
    };
    let (read, write, ()) = tokio::join!(biased; reader, writer, closer);
    assert_eq!([read, write], [std::io::ErrorKind::ConnectionAborted; 2]);
    let closed = connection.closed().await;
    assert_eq!((closed.by, closed.code), (ClosedBy::Local, Code::REVOKED));
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
}
