//! A UDP and a TCP socket on one port.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use super::BindError;
use socket2::{Domain, Protocol, Socket, Type};

/// How many free ports are tried until one is free for both protocols.
const TRIES: usize = 32;
/// TCP connections the system holds until they are accepted.
const BACKLOG: i32 = 1024;
/// What is asked of the system for UDP buffers, in bytes; it may give less.
const UDP_BUFFER: usize = 4 << 20;

/// A UDP and a TCP socket on one port, bound and not in use yet.
#[derive(Debug)]
pub struct Listener {
    pub(super) tcp: TcpListener,
    pub(super) udp: UdpSocket,
    pub(super) addr: SocketAddr,
}

impl Listener {
    /// Binds both protocols to `addr`. For port 0 the system chooses a port for TCP, and
    /// UDP follows; another is tried while somebody else has it.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        bind(addr).map_err(|source| BindError::Listen { addr, source })
    }

    /// The address both sockets are bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

fn bind(listen: SocketAddr) -> io::Result<Listener> {
    let mut result = pair(listen);
    for _ in 1..TRIES {
        match &result {
            Err(error) if listen.port() == 0 && error.kind() == io::ErrorKind::AddrInUse => {
                result = pair(listen);
            }
            Ok(_) | Err(_) => break,
        }
    }
    result
}

fn pair(listen: SocketAddr) -> io::Result<Listener> {
    let tcp = socket(listen, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&listen.into())?;
    tcp.listen(BACKLOG)?;
    let tcp = TcpListener::from(tcp);
    let addr = tcp.local_addr()?;

    let udp = socket(listen, Type::DGRAM, Protocol::UDP)?;
    // Smaller buffers cost throughput, not correctness.
    let _ = udp.set_recv_buffer_size(UDP_BUFFER);
    let _ = udp.set_send_buffer_size(UDP_BUFFER);
    udp.bind(&addr.into())?;
    Ok(Listener { tcp, udp: udp.into(), addr })
}

fn socket(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
