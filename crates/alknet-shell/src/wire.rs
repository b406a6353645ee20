//! The frames of `alknet/shell` (`docs/shell.md`): bytes in, frames out, and back.

mod control;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

pub use control::{
    Attach, Attached, Exit, FromClient, FromNode, Listed, ListedViewer, Refusal, RefusalCode,
    Terminal, Which,
};

/// The most bytes of a program's output or input in one frame.
pub const MAX_DATA: usize = 64 * 1024;
/// The longest CONTROL of a client, in bytes.
pub const MAX_CLIENT_CONTROL: usize = 4 * 1024;
/// The longest CONTROL of a node, in bytes.
pub const MAX_NODE_CONTROL: usize = 64 * 1024;

/// The type and the length before each body.
const HEADER: usize = 5;
/// The offset at the head of OUTPUT and INPUT.
const OFFSET: usize = 8;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON, not looked at yet.
    Control(Bytes),
    /// What the program wrote, from this offset of the session.
    Output(u64, Bytes),
    /// What the viewer typed, from this offset of the viewer.
    Input(u64, Bytes),
    /// Everything before this offset has arrived.
    Ack(u64),
    /// Paints the terminal.
    Screen(Bytes),
    /// The viewer's terminal has another size.
    Resize(Size),
    /// Asks for a sign of life.
    Ping(u64),
    /// Gives it.
    Pong(u64),
    /// The viewer is gone for good.
    Detach,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Pixels across; 0 where nobody knows.
    pub width: u16,
    /// Pixels down; 0 where nobody knows.
    pub height: u16,
}

impl From<Size> for alknet_host::Size {
    fn from(size: Size) -> Self {
        Self {
            columns: size.columns.into(),
            rows: size.rows.into(),
            width: size.width.into(),
            height: size.height.into(),
        }
    }
}

/// The peer's bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// No frame has this type.
    #[error("there is no frame of type {0}")]
    Type(u8),
    /// A body that is too long or too short for its type.
    #[error("a frame of type {kind} has {length} bytes")]
    Length {
        /// The type.
        kind: u8,
        /// The length of the body.
        length: usize,
    },
    /// A frame that only the other side sends.
    #[error("a frame of type {0} comes from the other side")]
    Direction(u8),
}

mod kind {
    pub(super) const CONTROL: u8 = 1;
    pub(super) const OUTPUT: u8 = 2;
    pub(super) const INPUT: u8 = 3;
    pub(super) const ACK: u8 = 4;
    pub(super) const SCREEN: u8 = 5;
    pub(super) const RESIZE: u8 = 6;
    pub(super) const PING: u8 = 7;
    pub(super) const PONG: u8 = 8;
    pub(super) const DETACH: u8 = 9;
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Control(_) => kind::CONTROL,
            Self::Output(..) => kind::OUTPUT,
            Self::Input(..) => kind::INPUT,
            Self::Ack(_) => kind::ACK,
            Self::Screen(_) => kind::SCREEN,
            Self::Resize(_) => kind::RESIZE,
            Self::Ping(_) => kind::PING,
            Self::Pong(_) => kind::PONG,
            Self::Detach => kind::DETACH,
        }
    }

    /// Appends the frame as it goes over the wire. What it carries must keep to the limits
    /// of this module.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_u8(self.kind());
        out.put_u32(0);
        match self {
            Self::Control(bytes) | Self::Screen(bytes) => out.put_slice(bytes),
            Self::Output(offset, bytes) | Self::Input(offset, bytes) => {
                out.put_u64(*offset);
                out.put_slice(bytes);
            }
            Self::Ack(number) | Self::Ping(number) | Self::Pong(number) => out.put_u64(*number),
            Self::Resize(size) => {
                for cells in [size.columns, size.rows, size.width, size.height] {
                    out.put_u16(cells);
                }
            }
            Self::Detach => {}
        }
        let length = u32::try_from(out.len() - start - HEADER).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(start + 1..start + HEADER) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Whose frames are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A client's, by a node.
    Client,
    /// A node's, by a client.
    Node,
}

/// Cuts a stream of bytes into frames. Holds at most one frame and what came with it.
#[derive(Debug)]
pub struct Decoder {
    sender: Sender,
    buffer: BytesMut,
}

impl Decoder {
    /// For the frames of one side.
    pub fn new(sender: Sender) -> Self {
        Self { sender, buffer: BytesMut::new() }
    }

    /// Where the next bytes of the stream belong.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame, if it is all there. After an error the stream is of no more use.
    pub fn frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((&[kind, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        self.check(kind, length)?;
        if self.buffer.len() - HEADER < length {
            self.buffer.reserve(HEADER + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let mut body = self.buffer.split_to(length).freeze();
        Ok(Some(match kind {
            kind::CONTROL => Frame::Control(body),
            kind::OUTPUT => Frame::Output(body.get_u64(), body),
            kind::INPUT => Frame::Input(body.get_u64(), body),
            kind::ACK => Frame::Ack(body.get_u64()),
            kind::SCREEN => Frame::Screen(body),
            kind::RESIZE => Frame::Resize(Size {
                columns: body.get_u16(),
                rows: body.get_u16(),
                width: body.get_u16(),
                height: body.get_u16(),
            }),
            kind::PING => Frame::Ping(body.get_u64()),
            kind::PONG => Frame::Pong(body.get_u64()),
            _ => Frame::Detach,
        }))
    }

    /// Whether a frame of this type may come from this side, with a body of this length:
    /// seen before a byte of the body is waited for.
    fn check(&self, kind: u8, length: usize) -> Result<(), WireError> {
        let node = self.sender == Sender::Node;
        let control = if node { MAX_NODE_CONTROL } else { MAX_CLIENT_CONTROL };
        let (lengths, mine) = match kind {
            kind::CONTROL => (1..=control, true),
            kind::OUTPUT => (OFFSET + 1..=OFFSET + MAX_DATA, node),
            kind::INPUT => (OFFSET + 1..=OFFSET + MAX_DATA, !node),
            kind::ACK | kind::PING | kind::PONG => (8..=8, true),
            kind::SCREEN => (1..=MAX_DATA, node),
            kind::RESIZE => (8..=8, !node),
            kind::DETACH => (0..=0, !node),
            other => return Err(WireError::Type(other)),
        };
        match lengths.contains(&length) {
            _ if !mine => Err(WireError::Direction(kind)),
            true => Ok(()),
            false => Err(WireError::Length { kind, length }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = (Sender, Frame)> {
        let data = || proptest::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from);
        prop_oneof![
            data().prop_map(|body| (Sender::Client, Frame::Control(body))),
            (any::<u64>(), data()).prop_map(|(at, body)| (Sender::Node, Frame::Output(at, body))),
            (any::<u64>(), data()).prop_map(|(at, body)| (Sender::Client, Frame::Input(at, body))),
            any::<u64>().prop_map(|at| (Sender::Client, Frame::Ack(at))),
            data().prop_map(|body| (Sender::Node, Frame::Screen(body))),
            any::<[u16; 4]>().prop_map(|[columns, rows, width, height]| {
                (Sender::Client, Frame::Resize(Size { columns, rows, width, height }))
            }),
            any::<u64>().prop_map(|token| (Sender::Node, Frame::Ping(token))),
            any::<u64>().prop_map(|token| (Sender::Node, Frame::Pong(token))),
            Just((Sender::Client, Frame::Detach)),
        ]
    }

    proptest! {
        #[test]
        fn frames_round_trip_however_they_are_cut((sender, frame) in frame(), cut in 0usize..400) {
            let mut wire = BytesMut::new();
            frame.encode(&mut wire);
            let mut decoder = Decoder::new(sender);
            let (head, tail) = wire.split_at(cut.min(wire.len()));
            decoder.buffer().extend_from_slice(head);
            if !tail.is_empty() {
                prop_assert_eq!(decoder.frame(), Ok(None));
            }
            decoder.buffer().extend_from_slice(tail);
            prop_assert_eq!(decoder.frame(), Ok(Some(frame)));
            prop_assert_eq!(decoder.frame(), Ok(None));
        }

        #[test]
        fn no_bytes_panic_or_reserve_much(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for sender in [Sender::Client, Sender::Node] {
                let mut decoder = Decoder::new(sender);
                decoder.buffer().extend_from_slice(&bytes);
                while let Ok(Some(_)) = decoder.frame() {}
                prop_assert!(decoder.buffer().capacity() < 2 * (HEADER + OFFSET + MAX_DATA));
            }
        }
    }

    #[test]
    fn lengths_and_directions_are_seen_in_the_header() {
        let next = |sender, bytes: &[u8]| {
            let mut decoder = Decoder::new(sender);
            decoder.buffer().extend_from_slice(bytes);
            decoder.frame()
        };
        use Sender::{Client, Node};
        assert_eq!(next(Client, &[0, 0, 0, 0, 1]), Err(WireError::Type(0)));
        assert_eq!(next(Client, &[10, 0, 0, 0, 1]), Err(WireError::Type(10)));
        let length = |kind, length| Err(WireError::Length { kind, length });
        assert_eq!(next(Client, &[1, 0, 0, 0x10, 1]), length(1, 4097));
        assert_eq!(next(Node, &[1, 0, 0, 0x10, 1]), Ok(None));
        assert_eq!(next(Client, &[3, 0, 0, 0, 8]), length(3, 8));
        assert_eq!(next(Client, &[3, 0, 1, 0, 9]), length(3, 0x1_0009));
        assert_eq!(next(Client, &[4, 0xff, 0xff, 0xff, 0xff]), length(4, 0xffff_ffff));
        assert_eq!(next(Client, &[2, 0, 0, 0, 9]), Err(WireError::Direction(2)));
        assert_eq!(next(Node, &[9, 0, 0, 0, 0]), Err(WireError::Direction(9)));
    }
}
