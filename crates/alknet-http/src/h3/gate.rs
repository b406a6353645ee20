//! What stands between a peer's frames and the h3 crate.
//!
//! h3 0.0.8 collects a frame of any length before it looks at it, unknown ones included;
//! takes an empty DATA frame for the end of a body; lets a DATA frame that is cut off pass
//! as a whole one and panics on the next read; and, because it reads ahead by one piece
//! for every piece it hands out, keeps more and more of a body made of small frames. The
//! gate hands it pieces with which none of that happens: frames other than DATA whole,
//! bounded and in one piece; DATA frames with header and content in separate pieces;
//! empty DATA frames and unknown frames not at all.

use alknet_core::Code;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{codes, varint};

const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
pub(super) const SETTINGS: u64 = 0x04;
/// The frame types of RFC 9114 and those of HTTP/2 that h3 answers with an error.
const KNOWN: std::ops::RangeInclusive<u64> = 0x00..=0x09;
const MAX_PUSH_ID: u64 = 0x0d;
/// Opens a WebTransport stream, and only as its first bytes.
const WEBTRANSPORT: u64 = 0x41;

/// The longest frame other than DATA: as large as the largest field section we take.
const MAX_FRAME: u64 = super::MAX_FIELD_SECTION;
/// The longest frame other than DATA and HEADERS.
const MAX_CONTROL: u64 = 4096;

/// Why a stream cannot go on, as an HTTP/3 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's frames break HTTP/3: {0}")]
pub(super) struct Violation(pub(super) Code);

/// The frames of one stream.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: State,
    /// The header, or the frame, as far as it has arrived.
    part: BytesMut,
    /// The content of the first SETTINGS frame.
    settings: Option<Bytes>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Data(u64),
    Skip(u64),
    Whole {
        kind: u64,
        head: usize,
        left: usize,
    },
}

impl Gate {
    /// Takes bytes from `input` until there is a piece for h3 or `input` is empty.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Violation> {
        while !input.is_empty() {
            let piece = match self.state {
                State::Header => {
                    self.part.put_u8(input.get_u8());
                    self.header()?
                }
                State::Data(left) => {
                    let piece = take(input, left);
                    self.state = left_after(left, &piece, State::Data);
                    Some(piece)
                }
                State::Skip(left) => {
                    let skipped = take(input, left);
                    self.state = left_after(left, &skipped, State::Skip);
                    None
                }
                State::Whole { kind, head, left } => {
                    let piece = input.split_to(left.min(input.len()));
                    self.part.put_slice(&piece);
                    self.state = State::Whole { kind, head, left: left - piece.len() };
                    self.whole()
                }
            };
            if piece.is_some() {
                return Ok(piece);
            }
        }
        Ok(None)
    }

    /// Whether the stream may end here.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        let between = matches!(self.state, State::Header) && self.part.is_empty();
        if between { Ok(()) } else { Err(Violation(codes::FRAME_ERROR)) }
    }

    /// The content of the SETTINGS frame, once.
    pub(super) fn take_settings(&mut self) -> Option<Bytes> {
        self.settings.take()
    }

    fn header(&mut self) -> Result<Option<Bytes>, Violation> {
        let Some((kind, at)) = varint::decode(&self.part) else { return Ok(None) };
        let rest = self.part.get(at..).unwrap_or_default();
        let Some((len, _)) = varint::decode(rest) else { return Ok(None) };
        let header = self.part.split().freeze();
        match (kind, len) {
            (WEBTRANSPORT, _) => Err(Violation(codes::FRAME_ERROR)),
            (DATA, 0) => Ok(None),
            (DATA, len) => {
                self.state = State::Data(len);
                Ok(Some(header))
            }
            (HEADERS, len) if len > MAX_FRAME => Err(Violation(codes::EXCESSIVE_LOAD)),
            (HEADERS, len) => Ok(self.begin_whole(kind, len, &header)),
            _ if !KNOWN.contains(&kind) && kind != MAX_PUSH_ID => {
                self.state = if len == 0 { State::Header } else { State::Skip(len) };
                Ok(None)
            }
            (_, len) if len > MAX_CONTROL => Err(Violation(codes::EXCESSIVE_LOAD)),
            (_, len) => Ok(self.begin_whole(kind, len, &header)),
        }
    }

    fn begin_whole(&mut self, kind: u64, len: u64, header: &[u8]) -> Option<Bytes> {
        self.part.put_slice(header);
        // The callers have bounded the length far below any `usize`.
        let left = usize::try_from(len).unwrap_or(usize::MAX);
        self.state = State::Whole { kind, head: header.len(), left };
        self.whole()
    }

    /// The frame, if the last byte of it has come.
    fn whole(&mut self) -> Option<Bytes> {
        let State::Whole { kind, head, left: 0 } = self.state else { return None };
        self.state = State::Header;
        let frame = self.part.split().freeze();
        if kind == SETTINGS {
            self.settings.get_or_insert_with(|| frame.slice(head..));
        }
        Some(frame)
    }
}

fn take(input: &mut Bytes, left: u64) -> Bytes {
    input.split_to(input.len().min(usize::try_from(left).unwrap_or(usize::MAX)))
}

fn left_after(left: u64, piece: &Bytes, more: fn(u64) -> State) -> State {
    match left - piece.len() as u64 {
        0 => State::Header,
        left => more(left),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u64, body: &[u8]) -> Vec<u8> {
        let mut out = header(kind, body.len() as u64);
        out.extend_from_slice(body);
        out
    }

    fn header(kind: u64, len: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        varint::encode(kind, &mut out);
        varint::encode(len, &mut out);
        out.to_vec()
    }

    fn pass(gate: &mut Gate, wire: &[u8]) -> Result<Vec<Bytes>, Violation> {
        let mut input = Bytes::copy_from_slice(wire);
        let mut pieces = Vec::new();
        while let Some(piece) = gate.next(&mut input)? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    #[test]
    fn data_goes_in_two_pieces_and_headers_in_one() {
        let wire = [frame(HEADERS, b"head"), frame(DATA, b"body"), frame(DATA, b"more")].concat();
        let pieces = pass(&mut Gate::default(), &wire).unwrap();
        assert_eq!(pieces, [&b"\x01\x04head"[..], b"\x00\x04", b"body", b"\x00\x04", b"more"]);
    }

    #[test]
    fn empty_data_and_unknown_frames_are_left_out() {
        let grease = frame(0x1f * 5 + 0x21, &[7; 100_000]);
        let wire = [frame(DATA, b""), grease, frame(0x21, b""), frame(HEADERS, b"x")].concat();
        let mut gate = Gate::default();
        let pieces = pass(&mut gate, &wire).unwrap();
        assert_eq!(pieces, [&b"\x01\x01x"[..]]);
        assert!(gate.part.capacity() < 1024, "skipped bytes are not kept");
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_kept() {
        for (kind, len) in [
            (HEADERS, MAX_FRAME + 1),
            (HEADERS, varint::MAX),
            (SETTINGS, MAX_CONTROL + 1),
            (MAX_PUSH_ID, varint::MAX),
        ] {
            let refused = pass(&mut Gate::default(), &header(kind, len));
            assert_eq!(refused, Err(Violation(codes::EXCESSIVE_LOAD)), "{kind} {len}");
        }
        assert!(pass(&mut Gate::default(), &header(DATA, varint::MAX)).is_ok());
        assert!(pass(&mut Gate::default(), &header(0x99, varint::MAX)).is_ok());
    }

    #[test]
    fn a_webtransport_header_amid_a_stream_is_an_error() {
        let wire = [frame(HEADERS, b"x"), header(WEBTRANSPORT, 4)].concat();
        assert_eq!(pass(&mut Gate::default(), &wire), Err(Violation(codes::FRAME_ERROR)));
    }

    #[test]
    fn a_stream_ends_only_between_frames() {
        for cut in 1..6 {
            let mut gate = Gate::default();
            pass(&mut gate, &frame(DATA, b"body")[..cut]).unwrap();
            assert!(gate.finish().is_err(), "{cut}");
        }
        let mut gate = Gate::default();
        pass(&mut gate, &frame(DATA, b"body")).unwrap();
        assert_eq!(gate.finish(), Ok(()));
    }

    #[test]
    fn settings_are_kept_once() {
        let mut gate = Gate::default();
        let wire = [frame(SETTINGS, b"\x33\x01"), frame(SETTINGS, b"\x06\x09")].concat();
        pass(&mut gate, &wire).unwrap();
        assert_eq!(gate.take_settings().unwrap(), &b"\x33\x01"[..]);
    }

    proptest! {
        #[test]
        fn no_cut_changes_what_passes(
            frames in prop::collection::vec((0u64..0x30, prop::collection::vec(any::<u8>(), 0..80)), 0..20),
            cuts in prop::collection::vec(0usize..100, 0..40),
        ) {
            let wire: Vec<u8> = frames.iter().flat_map(|(kind, body)| frame(*kind, body)).collect();
            let whole: Vec<u8> = pass(&mut Gate::default(), &wire).unwrap().concat();
            let mut rest = &wire[..];
            let (mut gate, mut pieces) = (Gate::default(), Vec::new());
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                pieces.extend(pass(&mut gate, head).unwrap());
                rest = tail;
            }
            pieces.extend(pass(&mut gate, rest).unwrap());
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(pieces.concat(), whole);
            prop_assert!(gate.finish().is_ok());
        }

        #[test]
        fn any_bytes_pass_in_bounded_memory(pieces: Vec<Vec<u8>>) {
            let mut gate = Gate::default();
            for piece in pieces {
                if pass(&mut gate, &piece).is_err() {
                    break;
                }
                prop_assert!(gate.part.len() as u64 <= MAX_FRAME + 16);
            }
        }
    }
}
