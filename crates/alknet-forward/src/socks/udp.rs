//! UDP ASSOCIATE (RFC 1928, section 7): a socket of the client's own for its datagrams, as
//! long as its connection lives.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};

use super::{
    protocol::{self, ProtocolError, Reply},
    reply_of, report,
};
use crate::{Address, Client, Datagram, DatagramReceiver, DatagramSender};

/// The longest datagram with its header, in bytes.
const MAX_DATAGRAM: usize = 65535;

/// Serves one association. `expected` is where the client says its datagrams will come from;
/// zeros mean that it does not know yet.
pub(super) async fn serve(
    client: &Client,
    mut stream: TcpStream,
    expected: &Address,
) -> Result<(), ProtocolError> {
    let (mut send, mut recv) = match client.udp().await {
        Ok(halves) => halves,
        Err(error) => {
            report(expected, &error);
            protocol::reply(&mut stream, reply_of(error.code()), None).await?;
            return Ok(stream.shutdown().await?);
        }
    };
    // On the address that the client has reached, so on loopback.
    let socket = UdpSocket::bind(SocketAddr::new(stream.local_addr()?.ip(), 0)).await?;
    protocol::reply(&mut stream, Reply::Succeeded, Some(socket.local_addr()?)).await?;
    let port = Some(expected.port()).filter(|port| *port != 0);
    let from = first(&socket, stream.peer_addr()?, port, &mut stream, &mut send).await?;
    let Some(from) = from else { return Ok(()) };
    // From now on the system itself drops what others on this machine send.
    socket.connect(from).await?;
    tokio::select! {
        outcome = up(&socket, from, &mut send) => outcome?,
        outcome = down(&socket, &mut recv) => outcome?,
        outcome = ended(&mut stream) => outcome?,
    }
    Ok(())
}

/// Waits for the client's first datagram, which tells where the client is, and sends it on.
async fn first(
    socket: &UdpSocket,
    peer: SocketAddr,
    port: Option<u16>,
    stream: &mut TcpStream,
    send: &mut DatagramSender,
) -> io::Result<Option<SocketAddr>> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let (length, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => received?,
            outcome = ended(stream) => return outcome.map(|()| None),
        };
        let is_clients = from.ip() == peer.ip() && port.is_none_or(|port| port == from.port());
        let datagram = protocol::datagram(buffer.get(..length).unwrap_or_default());
        if let Some((address, payload)) = datagram.filter(|_| is_clients) {
            pass(send, address, payload).await?;
            return Ok(Some(from));
        }
    }
}

/// Passes on what the client sends from `client`, for ever.
pub(super) async fn up(
    socket: &UdpSocket,
    client: SocketAddr,
    send: &mut DatagramSender,
) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = match socket.recv_from(&mut buffer).await {
            Ok((length, from)) if from == client => length,
            // It came from elsewhere before the socket was connected.
            Ok(_) => continue,
            // An answer found nobody there: that ends nothing.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let datagram = protocol::datagram(buffer.get(..length).unwrap_or_default());
        if let Some((address, payload)) = datagram {
            pass(send, address, payload).await?;
        }
    }
}

async fn down(socket: &UdpSocket, recv: &mut DatagramReceiver) -> io::Result<()> {
    while let Some(Datagram { address, payload }) = recv.recv().await? {
        match socket.send(&protocol::with_header(&address, &payload)).await {
            Ok(_) => {}
            // Too long with its header, or the client does not listen now: it is lost.
            Err(error) => tracing::debug!(%error, "a datagram is lost"),
        }
    }
    Ok(())
}

async fn pass(send: &mut DatagramSender, address: Address, payload: &[u8]) -> io::Result<()> {
    send.send(&Datagram { address, payload: Bytes::copy_from_slice(payload) }).await
}

/// Waits until the client ends its connection; what it says on it means nothing.
async fn ended(stream: &mut TcpStream) -> io::Result<()> {
    let mut nothing = [0; 64];
    while stream.read(&mut nothing).await? > 0 {}
    Ok(())
}
