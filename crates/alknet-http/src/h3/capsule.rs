//! The capsules on a session's CONNECT stream (RFC 9297, section 3).

use alknet_core::Code;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{codes, varint};

/// CLOSE_WEBTRANSPORT_SESSION.
const CLOSE: u64 = 0x2843;
/// DRAIN_WEBTRANSPORT_SESSION: the peer would like the session to end. Nothing follows
/// from it here: a session ends when its protocol is done.
#[cfg(test)]
const DRAIN: u64 = 0x78ae;

/// The longest reason of a close, in bytes.
const MAX_REASON: usize = 1024;
/// The longest capsule of another type that is read past.
const MAX_SKIPPED: u64 = 64 * 1024;

/// A peer's close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: Code,
    pub(super) reason: String,
}

/// A capsule that no endpoint may send: too long, or a close that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a malformed capsule")]
pub(super) struct Malformed;

/// A close as it goes on the wire. A reason that is too long is cut between characters.
pub(super) fn close(code: Code, reason: &str) -> Bytes {
    let reason = reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or_default();
    let mut out = BytesMut::with_capacity(16 + reason.len());
    varint::encode(CLOSE, &mut out);
    varint::encode(4 + reason.len() as u64, &mut out);
    out.put_u32(codes::app_code(code));
    out.put_slice(reason.as_bytes());
    out.freeze()
}

/// Reads capsules from the pieces in which they arrive. It holds at most one close and
/// skips the content of everything else.
#[derive(Debug, Default)]
pub(super) struct Reader {
    state: State,
    /// A header or a close as far as it has arrived.
    part: BytesMut,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Close(usize),
    Skip(u64),
}

impl Reader {
    /// Takes one piece; returns the close if the piece completes it.
    pub(super) fn push(&mut self, mut piece: impl Buf) -> Result<Option<Close>, Malformed> {
        while piece.has_remaining() {
            match self.state {
                State::Header => {
                    self.part.put_u8(piece.get_u8());
                    self.state = self.header()?;
                }
                State::Skip(left) => {
                    let step = piece.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
                    piece.advance(step);
                    let left = left - step as u64;
                    self.state = if left == 0 { State::Header } else { State::Skip(left) };
                }
                State::Close(len) => {
                    let step = piece.remaining().min(len - self.part.len());
                    self.part.put((&mut piece).take(step));
                    if self.part.len() == len {
                        return Ok(Some(self.take_close()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Looks whether the header is whole.
    fn header(&mut self) -> Result<State, Malformed> {
        let Some((kind, at)) = varint::decode(&self.part) else { return Ok(State::Header) };
        let rest = self.part.get(at..).unwrap_or_default();
        let Some((len, _)) = varint::decode(rest) else { return Ok(State::Header) };
        self.part.clear();
        match (kind, usize::try_from(len)) {
            (CLOSE, Ok(len)) if (4..=4 + MAX_REASON).contains(&len) => Ok(State::Close(len)),
            (CLOSE, _) => Err(Malformed),
            (_, Ok(0)) => Ok(State::Header),
            _ if len <= MAX_SKIPPED => Ok(State::Skip(len)),
            _ => Err(Malformed),
        }
    }

    fn take_close(&mut self) -> Close {
        self.state = State::Header;
        let mut body = self.part.split();
        let code = Code::new(u64::from(body.get_u32()));
        Close { code, reason: String::from_utf8_lossy(&body).into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capsule(kind: u64, body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        varint::encode(kind, &mut out);
        varint::encode(body.len() as u64, &mut out);
        out.put_slice(body);
        out
    }

    fn header(kind: u64, len: u64) -> BytesMut {
        let mut out = BytesMut::new();
        varint::encode(kind, &mut out);
        varint::encode(len, &mut out);
        out
    }

    #[test]
    fn a_close_is_read_behind_capsules_of_other_types() {
        let mut wire = capsule(DRAIN, b"");
        wire.unsplit(capsule(0x1f * 7 + 0x21, &[0; 3000]));
        wire.put(close(Code::new(7), "enough"));
        let want = Close { code: Code::new(7), reason: "enough".into() };
        assert_eq!(Reader::default().push(&wire[..]), Ok(Some(want)));
    }

    #[test]
    fn lengths_are_bounded() {
        for (kind, len) in [
            (CLOSE, 0),
            (CLOSE, 3),
            (CLOSE, 4 + 1025),
            (CLOSE, varint::MAX),
            (DRAIN, MAX_SKIPPED + 1),
            (0, varint::MAX),
        ] {
            assert_eq!(Reader::default().push(header(kind, len)), Err(Malformed), "{kind} {len}");
        }
        let mut reader = Reader::default();
        assert_eq!(reader.push(header(0, MAX_SKIPPED)), Ok(None));
        assert_eq!(reader.push(&vec![0; 64 * 1024][..]), Ok(None));
        assert!(reader.part.capacity() < 64, "skipped bytes are not kept");
        assert!(reader.push(close(Code::NORMAL, "")).unwrap().is_some());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let wire = close(Code::NORMAL, &"ä".repeat(600));
        let read = Reader::default().push(wire).unwrap().unwrap();
        assert_eq!(read.reason, "ä".repeat(512));
        let wire = close(Code::NORMAL, &format!("x{}", "ä".repeat(600)));
        let read = Reader::default().push(wire).unwrap().unwrap();
        assert_eq!(read.reason.len(), 1023);
    }

    #[test]
    fn a_large_code_saturates_and_bad_text_is_replaced() {
        let read = Reader::default().push(close(Code::MAX, "")).unwrap().unwrap();
        assert_eq!(read.code, Code::new(u64::from(u32::MAX)));
        let read = Reader::default().push(capsule(CLOSE, &[0, 0, 0, 5, 0xff])).unwrap().unwrap();
        assert_eq!(read, Close { code: Code::new(5), reason: "\u{fffd}".into() });
    }

    proptest! {
        #[test]
        fn a_close_survives_any_cut(code: u32, reason in ".{0,200}", cuts: Vec<u8>) {
            let code = Code::new(u64::from(code));
            let mut wire = capsule(DRAIN, &[1, 2, 3]).freeze();
            let mut closing = BytesMut::from(&wire[..]);
            closing.put(close(code, &reason));
            wire = closing.freeze();
            let mut reader = Reader::default();
            for cut in cuts {
                let piece = wire.split_to(usize::from(cut).min(wire.len().saturating_sub(1)));
                prop_assert_eq!(reader.push(piece), Ok(None));
            }
            prop_assert_eq!(reader.push(wire), Ok(Some(Close { code, reason })));
        }

        #[test]
        fn any_bytes_are_read_in_bounded_memory(pieces: Vec<Vec<u8>>) {
            let mut reader = Reader::default();
            for piece in pieces {
                if reader.push(&piece[..]).is_err() {
                    break;
                }
                prop_assert!(reader.part.len() <= 4 + MAX_REASON);
            }
        }
    }
}
