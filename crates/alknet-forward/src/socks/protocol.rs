//! The messages of SOCKS5.

use std::{io, net::SocketAddr};

use bytes::{BufMut as _, BytesMut};
use subtle::{Choice, ConstantTimeEq as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::Credentials;
use crate::{Address, InvalidAddress};

const VERSION: u8 = 5;
/// Of the negotiation by name and password (RFC 1929).
const PASSWORD_VERSION: u8 = 1;
const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    UdpAssociate,
}

/// The replies of RFC 1928, section 6, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reply {
    Succeeded = 0,
    Failed = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    /// "TTL expired": what there is for a deadline that passed.
    Expired = 6,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

/// What is wrong with what a client sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("not SOCKS version 5 but {0}")]
    Version(u8),
    #[error("none of the client's methods of authentication will do")]
    Methods,
    #[error("the name or the password is wrong")]
    Credentials,
    #[error("the command {0} is not supported")]
    Command(u8),
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    #[error("the client took too long")]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ProtocolError {
    /// The reply to a request that is wrong so.
    pub(super) fn reply(&self) -> Option<Reply> {
        match self {
            Self::Command(_) => Some(Reply::CommandNotSupported),
            Self::Address(_) => Some(Reply::AddressNotSupported),
            Self::Version(_) | Self::Methods | Self::Credentials | Self::TimedOut | Self::Io(_) => {
                None
            }
        }
    }
}

/// Agrees on a method and has the client prove itself where there is something to prove.
pub(super) async fn authenticate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    expected: Option<&Credentials>,
) -> Result<(), ProtocolError> {
    version(stream, VERSION).await?;
    let mut methods = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut methods).await?;
    let wanted = if expected.is_some() { PASSWORD } else { NO_AUTHENTICATION };
    if !methods.contains(&wanted) {
        stream.write_all(&[VERSION, NONE_ACCEPTABLE]).await?;
        stream.shutdown().await?;
        return Err(ProtocolError::Methods);
    }
    stream.write_all(&[VERSION, wanted]).await?;
    let Some(expected) = expected else { return Ok(()) };
    version(stream, PASSWORD_VERSION).await?;
    let (user, password) = (text(stream).await?, text(stream).await?);
    let right: Choice =
        user.ct_eq(expected.user.as_bytes()) & password.ct_eq(expected.password.as_bytes());
    let right = bool::from(right);
    stream.write_all(&[PASSWORD_VERSION, u8::from(!right)]).await?;
    match right {
        true => Ok(()),
        false => {
            stream.shutdown().await?;
            Err(ProtocolError::Credentials)
        }
    }
}

/// Reads what the client wants, as a whole even where a part of it is wrong.
pub(super) async fn request(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(Command, Address), ProtocolError> {
    version(stream, VERSION).await?;
    let command = stream.read_u8().await?;
    let _reserved = stream.read_u8().await?;
    let address = Address::read(stream).await?;
    let command = match command {
        1 => Command::Connect,
        3 => Command::UdpAssociate,
        other => return Err(ProtocolError::Command(other)),
    };
    Ok((command, address?))
}

/// Answers a request. `bound` is the node's or the server's own end, all zeros if it has
/// none to tell.
pub(super) async fn reply(
    stream: &mut (impl AsyncWrite + Unpin),
    reply: Reply,
    bound: Option<SocketAddr>,
) -> io::Result<()> {
    let bound = bound.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut message = BytesMut::from(&[VERSION, reply as u8, 0][..]);
    Address::from(bound).write(&mut message);
    stream.write_all(&message).await
}

/// Takes the header off a datagram of a client (RFC 1928, section 7). Fragments, which
/// nobody sends, are no datagrams.
pub(super) fn datagram(bytes: &[u8]) -> Option<(Address, &[u8])> {
    let (header, mut rest) = bytes.split_first_chunk::<3>()?;
    if header != &[0, 0, 0] {
        return None;
    }
    let address = Address::parse(&mut rest).ok()?;
    Some((address, rest))
}

/// Puts the header in front of a datagram for a client.
pub(super) fn with_header(from: &Address, payload: &[u8]) -> BytesMut {
    let mut datagram = BytesMut::with_capacity(3 + from.len() + payload.len());
    datagram.put_slice(&[0, 0, 0]);
    from.write(&mut datagram);
    datagram.put_slice(payload);
    datagram
}

async fn version(stream: &mut (impl AsyncRead + Unpin), expected: u8) -> Result<(), ProtocolError> {
    match stream.read_u8().await? {
        version if version == expected => Ok(()),
        other => Err(ProtocolError::Version(other)),
    }
}

async fn text(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(vec![0; usize::from(stream.read_u8().await?)]);
    stream.read_exact(&mut text).await?;
    Ok(text)
}
