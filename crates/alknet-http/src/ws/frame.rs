//! Frame headers (RFC 6455, section 5.2) and masking.

use bytes::{BufMut as _, BytesMut};

use super::close;

/// The most that a control frame carries, in bytes.
pub(super) const MAX_CONTROL: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    pub(super) fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// How a peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("reserved bits are set")]
    ReservedBits,
    #[error("unknown opcode")]
    Opcode,
    #[error("fragmented or long control frame")]
    Control,
    #[error("length beyond 63 bits, or not in its shortest form")]
    Length,
    #[error("masked by the server, or not masked by the client")]
    Mask,
    #[error("continuation of nothing, or a message inside another")]
    Fragmentation,
    #[error("data after the end of the stream")]
    AfterEnd,
    #[error("malformed close frame")]
    Close,
    #[error("text where only binary messages are")]
    Text,
}

impl Violation {
    /// The close code that says so.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::Text => close::UNSUPPORTED_DATA,
            _ => close::PROTOCOL_ERROR,
        }
    }
}

/// The start of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) len: u64,
}

impl Header {
    /// The header at the start of `bytes` and its length, or `None` while it is incomplete.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let mut bytes = Cursor { bytes, at: 0 };
        let Some([first, second]) = bytes.take() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::Opcode)?;
        if opcode.is_control() && (!fin || usize::from(second & 0x7f) > MAX_CONTROL) {
            return Err(Violation::Control);
        }
        let Some(len) = bytes.length(second & 0x7f)? else { return Ok(None) };
        let mask = match second & 0x80 {
            0 => None,
            _ => match bytes.take() {
                Some(key) => Some(key),
                None => return Ok(None),
            },
        };
        Ok(Some((Self { fin, opcode, mask, len }, bytes.at)))
    }

    /// Appends the header to `out`.
    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.opcode.bits() | if self.fin { 0x80 } else { 0 });
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        match (u8::try_from(self.len), u16::try_from(self.len)) {
            (Ok(short), _) if short < 126 => out.put_u8(masked | short),
            (_, Ok(medium)) => {
                out.put_u8(masked | 126);
                out.put_u16(medium);
            }
            _ => {
                out.put_u8(masked | 127);
                out.put_u64(self.len);
            }
        }
        if let Some(key) = self.mask {
            out.put_slice(&key);
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(*taken)
    }

    fn length(&mut self, short: u8) -> Result<Option<u64>, Violation> {
        let (len, least) = match short {
            126 => (self.take().map(|bytes| u64::from(u16::from_be_bytes(bytes))), 126),
            127 => (self.take().map(u64::from_be_bytes), 0x1_0000),
            _ => (Some(u64::from(short)), 0),
        };
        match len {
            Some(len) if len < least || len >> 63 != 0 => Err(Violation::Length),
            len => Ok(len),
        }
    }
}

/// Masks or unmasks `data`, and turns the key so that it fits what follows.
pub(super) fn mask(data: &mut [u8], key: &mut [u8; 4]) {
    let [a, b, c, d] = *key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    key.rotate_left(data.len() % 4);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6455, section 5.7.
    #[test]
    fn the_published_examples_parse() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let (header, len) = Header::parse(&hello).unwrap().unwrap();
        assert_eq!((header.fin, header.opcode, header.len, len), (true, Opcode::Text, 5, 6));
        let mut text = hello[6..].to_vec();
        mask(&mut text, &mut header.mask.unwrap());
        assert_eq!(text, b"Hello");
        let (long, len) = Header::parse(&[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap().unwrap();
        assert_eq!((long.opcode, long.len, long.mask, len), (Opcode::Binary, 65536, None, 10));
    }

    #[test]
    fn violations_are_told_apart() {
        for (bytes, violation) in [
            (&[0xc2, 0x00][..], Violation::ReservedBits),
            (&[0x83, 0x00], Violation::Opcode),
            (&[0x09, 0x00], Violation::Control),
            (&[0x89, 0x7e, 0x00, 0x7e], Violation::Control),
            (&[0x82, 0x7e, 0x00, 0x7d], Violation::Length),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Violation::Length),
            (&[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::Length),
        ] {
            assert_eq!(Header::parse(bytes), Err(violation), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_round_trips(
            fin: bool, data: bool, key: Option<[u8; 4]>, len in 0..=(u64::MAX >> 1)
        ) {
            let opcode = if data { Opcode::Binary } else { Opcode::Continuation };
            let header = Header { fin, opcode, mask: key, len };
            let mut out = BytesMut::new();
            header.write(&mut out);
            prop_assert_eq!(Header::parse(&out), Ok(Some((header, out.len()))));
            for cut in 0..out.len() {
                prop_assert_eq!(Header::parse(&out[..cut]), Ok(None));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Header::parse(&bytes);
        }

        #[test]
        fn masking_in_pieces_is_masking_at_once(data: Vec<u8>, key: [u8; 4], cut: usize) {
            let mut whole = data.clone();
            mask(&mut whole, &mut key.clone());
            let mut pieces = data;
            let cut = cut % (pieces.len() + 1);
            let mut turning = key;
            let (left, right) = pieces.split_at_mut(cut);
            mask(left, &mut turning);
            mask(right, &mut turning);
            prop_assert_eq!(pieces, whole);
        }
    }
}
