//! Addresses of datagrams and of SOCKS5: a type, the address, a port (RFC 1928, section 5).

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::{Buf, BufMut};
use tokio::io::{AsyncRead, AsyncReadExt};

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// A host and a port. A name is passed on as it is: who resolves it is the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address.
    Ip(SocketAddr),
    /// A name of at most 255 bytes.
    Name(String, u16),
}

/// The bytes are no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAddress {
    /// The type is not IPv4, IPv6 or a name.
    #[error("an address of an unknown type")]
    Type,
    /// The name is no text.
    #[error("a name that is no text")]
    Name,
    /// There are fewer bytes than that.
    #[error("a part of an address")]
    Short,
}

impl Address {
    /// The host, for a request.
    pub fn host(&self) -> String {
        match self {
            Self::Ip(address) => address.ip().to_string(),
            Self::Name(name, _) => name.clone(),
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// How many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ip(SocketAddr::V4(_)) => 1 + 4 + 2,
            Self::Ip(SocketAddr::V6(_)) => 1 + 16 + 2,
            Self::Name(name, _) => 1 + 1 + name.len() + 2,
        }
    }

    /// Writes it. A name beyond 255 bytes, which no reader made, is cut off.
    pub(crate) fn write(&self, to: &mut impl BufMut) {
        match self {
            Self::Ip(SocketAddr::V4(address)) => {
                to.put_u8(IPV4);
                to.put_slice(&address.ip().octets());
            }
            Self::Ip(SocketAddr::V6(address)) => {
                to.put_u8(IPV6);
                to.put_slice(&address.ip().octets());
            }
            Self::Name(name, _) => {
                let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
                to.put_u8(NAME);
                to.put_u8(length);
                to.put_slice(name.as_bytes().get(..usize::from(length)).unwrap_or_default());
            }
        }
        to.put_u16(self.port());
    }

    /// Takes one off the front.
    pub(crate) fn parse(from: &mut &[u8]) -> Result<Self, InvalidAddress> {
        let short = |_| InvalidAddress::Short;
        let ip: IpAddr = match from.try_get_u8().map_err(short)? {
            IPV4 => Ipv4Addr::from(from.try_get_u32().map_err(short)?).into(),
            IPV6 => Ipv6Addr::from(from.try_get_u128().map_err(short)?).into(),
            NAME => {
                let length = usize::from(from.try_get_u8().map_err(short)?);
                let (name, rest) = from.split_at_checked(length).ok_or(InvalidAddress::Short)?;
                *from = rest;
                let name = checked_name(name)?;
                return Ok(Self::Name(name, from.try_get_u16().map_err(short)?));
            }
            _ => return Err(InvalidAddress::Type),
        };
        Ok(Self::Ip(SocketAddr::new(ip, from.try_get_u16().map_err(short)?)))
    }

    /// Reads one from a stream. Not cancel safe.
    pub(crate) async fn read(
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Result<Self, InvalidAddress>> {
        let ip: IpAddr = match from.read_u8().await? {
            IPV4 => Ipv4Addr::from(from.read_u32().await?).into(),
            IPV6 => Ipv6Addr::from(from.read_u128().await?).into(),
            NAME => {
                let mut name = vec![0; usize::from(from.read_u8().await?)];
                from.read_exact(&mut name).await?;
                let port = from.read_u16().await?;
                return Ok(checked_name(&name).map(|name| Self::Name(name, port)));
            }
            _ => return Ok(Err(InvalidAddress::Type)),
        };
        Ok(Ok(Self::Ip(SocketAddr::new(ip, from.read_u16().await?))))
    }
}

fn checked_name(bytes: &[u8]) -> Result<String, InvalidAddress> {
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidAddress::Name)?;
    match text.is_empty() || text.contains(char::is_control) {
        true => Err(InvalidAddress::Name),
        false => Ok(text.to_owned()),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}
