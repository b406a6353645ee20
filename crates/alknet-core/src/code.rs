//! The one table of application error codes.

use std::fmt;

/// An application error code: closes a connection or resets a stream.
///
/// On native QUIC the number travels as it is. WebTransport carries the low 32 bits,
/// WebSocket maps the table into 4000..=4999 (RFC 6455, section 7.4.2). The values of the
/// named constants are wire format: they never change, and new ones are appended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(u64);

impl Code {
    /// Done, nothing went wrong.
    pub const NORMAL: Self = Self(0);
    /// The handler failed or panicked.
    pub const INTERNAL: Self = Self(1);
    /// The node is shutting down.
    pub const SHUTTING_DOWN: Self = Self(2);
    /// The caller may not use this protocol.
    pub const REFUSED: Self = Self(3);
    /// A limit of the node or of the identity is reached.
    pub const LIMIT: Self = Self(4);
    /// A deadline passed.
    pub const TIMEOUT: Self = Self(5);
    /// The peer broke the protocol.
    pub const PROTOCOL: Self = Self(6);
    /// The identity behind the connection was revoked.
    pub const REVOKED: Self = Self(7);
    /// The handler does not take this kind of stream or datagram.
    pub const UNSUPPORTED: Self = Self(8);
    /// The local user gave up.
    pub const CANCELLED: Self = Self(9);

    /// Every named code with its name: what tests, docs and logs are made from.
    pub const TABLE: [(Self, &'static str); 10] = [
        (Self::NORMAL, "normal"),
        (Self::INTERNAL, "internal error"),
        (Self::SHUTTING_DOWN, "shutting down"),
        (Self::REFUSED, "refused"),
        (Self::LIMIT, "limit reached"),
        (Self::TIMEOUT, "timed out"),
        (Self::PROTOCOL, "protocol error"),
        (Self::REVOKED, "revoked"),
        (Self::UNSUPPORTED, "unsupported"),
        (Self::CANCELLED, "cancelled"),
    ];

    /// The largest code that QUIC can carry (2^62 - 1).
    pub const MAX: Self = Self((1 << 62) - 1);

    /// A code of any value; values beyond [`Code::MAX`] become it.
    pub const fn new(value: u64) -> Self {
        if value > Self::MAX.0 { Self::MAX } else { Self(value) }
    }

    /// The number on a QUIC wire.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The name from the table, if it has one.
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.iter().find(|(code, _)| *code == self).map(|(_, name)| *name)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_wire_format_and_stays() {
        let table: Vec<(u64, &str)> = Code::TABLE.iter().map(|(c, n)| (c.value(), *n)).collect();
        assert_eq!(
            table,
            [
                (0, "normal"),
                (1, "internal error"),
                (2, "shutting down"),
                (3, "refused"),
                (4, "limit reached"),
                (5, "timed out"),
                (6, "protocol error"),
                (7, "revoked"),
                (8, "unsupported"),
                (9, "cancelled"),
            ]
        );
    }

    #[test]
    fn values_beyond_a_varint_saturate() {
        assert_eq!(Code::new(u64::MAX), Code::MAX);
        assert_eq!(Code::new(7).to_string(), "revoked");
        assert_eq!(Code::new(0x100).to_string(), "0x100");
    }
}
