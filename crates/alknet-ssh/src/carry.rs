//! A connection of the node's machine on a channel, both ways and to the end of each.

use std::{io, time::Duration};

use bytes::BytesMut;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, server::Msg};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{handler::PACKET, queue::Backlog};

/// How long what a client has sent ahead of closing its channel gets to be taken.
const LINGER: Duration = Duration::from_secs(10);

/// Carries bytes between a channel and a socket until both directions have ended; whether
/// they did, rather than that something broke. `closed`: the client wants no more of it.
pub(crate) async fn carry(
    channel: Channel<Msg>,
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    backlog: &Backlog,
    closed: &CancellationToken,
) -> bool {
    let (read, write) = channel.split();
    let (source, sink) = tokio::io::split(socket);
    let towards_client = async {
        tokio::select! {
            sent = send(source, &write, backlog) => sent,
            // Nobody reads it.
            () = closed.cancelled() => Ok(()),
        }
    };
    let towards_socket = async {
        tokio::select! {
            received = receive(read, sink) => received,
            () = linger(closed) => Err(io::ErrorKind::TimedOut.into()),
        }
    };
    let ended = tokio::try_join!(towards_client, towards_socket);
    let _ = write.close().await;
    ended.inspect_err(|error| tracing::debug!(%error, "a forwarded connection broke")).is_ok()
}

async fn linger(closed: &CancellationToken) {
    closed.cancelled().await;
    sleep(LINGER).await;
}

/// Sends what a socket gives, as fast as the channel takes it, and then its end.
async fn send(
    mut source: impl AsyncRead + Unpin,
    write: &ChannelWriteHalf<Msg>,
    backlog: &Backlog,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        backlog.ready().await;
        buffer.reserve(PACKET as usize);
        if source.read_buf(&mut buffer).await? == 0 {
            return write.eof().await.map_err(io::Error::other);
        }
        write.data_bytes(buffer.split().freeze()).await.map_err(io::Error::other)?;
    }
}

/// Gives a socket what the client sends, and then its end.
async fn receive(mut read: ChannelReadHalf, mut sink: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => sink.write_all(&data).await?,
            ChannelMsg::Eof | ChannelMsg::Close => break,
            _ => {}
        }
    }
    sink.shutdown().await
}
