//! Frames: a length of 4 bytes, big endian, and that much UTF-8 JSON.

use std::borrow::Cow;

use bytes::{Buf as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, value::RawValue};

use crate::CallError;

/// The longest frame, in bytes, without its length.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;
/// The longest id, in bytes.
pub const MAX_ID: usize = 64;

const LENGTH: usize = 4;
/// The room that a frame is given at first, in bytes: most need no more.
const USUAL: usize = 512;

/// What a frame is about. The names are wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameType {
    /// `call.requested`
    Requested,
    /// `call.responded`
    Responded,
    /// `call.completed`
    Completed,
    /// `call.error`
    Error,
    /// `call.aborted`
    Aborted,
    /// `call.window`
    Window,
    /// One that this version does not know, and ignores.
    Unknown,
}

impl FrameType {
    const KNOWN: [Self; 6] = [
        Self::Requested,
        Self::Responded,
        Self::Completed,
        Self::Error,
        Self::Aborted,
        Self::Window,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "call.requested",
            Self::Responded => "call.responded",
            Self::Completed => "call.completed",
            Self::Error => "call.error",
            Self::Aborted => "call.aborted",
            Self::Window => "call.window",
            Self::Unknown => "",
        }
    }

    fn from_wire(name: &str) -> Self {
        Self::KNOWN.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::Unknown)
    }
}

impl Serialize for FrameType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One frame. Its payload is not looked into.
#[derive(Debug)]
pub struct EventEnvelope<'a> {
    /// What it is about.
    pub kind: FrameType,
    /// The call that it belongs to.
    pub id: Cow<'a, str>,
    /// What it says.
    pub payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Read<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Written<'a, P> {
    #[serde(rename = "type")]
    kind: FrameType,
    id: &'a str,
    payload: P,
}

/// Why bytes are no frames. The stream cannot go on behind it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It announces more than a frame may have.
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    TooLong(usize),
    /// It is not such an object.
    #[error("a frame is an object with type, id and payload: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Its id is too long.
    #[error("an id of {0} bytes is longer than {MAX_ID}")]
    LongId(usize),
}

/// Takes the next whole frame off the front of `buffer`; `None` if it is not all there.
/// No room is made for a frame before its length is known to be allowed.
pub fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() < LENGTH + length {
        buffer.reserve(LENGTH + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(LENGTH);
    Ok(Some(buffer.split_to(length).freeze()))
}

impl<'a> EventEnvelope<'a> {
    /// Reads one frame.
    pub fn parse(frame: &'a [u8]) -> Result<Self, FrameError> {
        let read: Read<'a> = serde_json::from_slice(frame).map_err(FrameError::Malformed)?;
        if read.id.len() > MAX_ID {
            return Err(FrameError::LongId(read.id.len()));
        }
        let payload = read.payload.unwrap_or(RawValue::NULL);
        Ok(Self { kind: FrameType::from_wire(&read.kind), id: read.id, payload })
    }
}

/// A frame with its length, ready to be sent; `None` if it would be too long.
pub fn encode(kind: FrameType, id: &str, payload: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(USUAL);
    bytes.extend_from_slice(&[0; LENGTH]);
    serde_json::to_writer(&mut bytes, &Written { kind, id, payload }).ok()?;
    let length = bytes.len() - LENGTH;
    if length > MAX_FRAME {
        return None;
    }
    *bytes.first_chunk_mut::<LENGTH>()? = u32::try_from(length).ok()?.to_be_bytes();
    Some(bytes)
}

/// What `call.requested` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Requested<'a> {
    #[serde(rename = "operationId", borrow)]
    pub(crate) operation: Cow<'a, str>,
    #[serde(default)]
    pub(crate) input: Value,
    #[serde(default)]
    pub(crate) timeout_ms: Option<u64>,
    #[serde(default)]
    pub(crate) window: Option<u32>,
    #[serde(default)]
    pub(crate) after: Option<String>,
}

/// What `call.requested` is made from.
#[derive(Debug, Serialize)]
pub(crate) struct Request<'a, I> {
    #[serde(rename = "operationId")]
    pub(crate) operation: &'a str,
    pub(crate) input: I,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<&'a str>,
}

/// What `call.responded` says.
#[derive(Debug, Serialize)]
pub(crate) struct Response<'a> {
    pub(crate) output: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<&'a str>,
}

/// What `call.responded` says, as it is read.
#[derive(Debug, Deserialize)]
pub(crate) struct Responded<'a> {
    #[serde(borrow, default)]
    pub(crate) output: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) event: Option<String>,
}

/// What `call.window` says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) items: u32,
}

/// What frames say that only mark something.
#[derive(Debug, Serialize)]
pub(crate) struct Nothing {}

/// A payload, or why it is none.
pub(crate) fn payload<'a, T: Deserialize<'a>>(payload: &'a RawValue) -> Result<T, CallError> {
    serde_json::from_str(payload.get())
        .map_err(|error| CallError::invalid_input(format!("the payload makes no sense: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Bytes>, FrameError> {
        let (mut buffer, mut frames, mut rest) = (BytesMut::new(), Vec::new(), bytes);
        for &piece in pieces.iter().chain([&usize::MAX]) {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
            while let Some(frame) = split(&mut buffer)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn a_frame_is_written_as_published() {
        let payload = Request {
            operation: "node/status",
            input: Value::Null,
            timeout_ms: Some(5),
            window: None,
            after: None,
        };
        let frame = encode(FrameType::Requested, "1", &payload).unwrap();
        let json = r#"{"type":"call.requested","id":"1","payload":{"operationId":"node/status","input":null,"timeout_ms":5}}"#;
        assert_eq!(&frame[..4], u32::try_from(json.len()).unwrap().to_be_bytes());
        assert_eq!(&frame[4..], json.as_bytes());
    }

    #[test]
    fn an_announced_length_is_refused_before_it_is_there() {
        let mut buffer = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(split(&mut buffer), Err(FrameError::TooLong(_))));
        assert!(buffer.capacity() < 1024);
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        for bad in ["", "[]", "1", "{}", r#"{"type":1,"id":"a"}"#, r#"{"type":"x","id":null}"#] {
            assert!(EventEnvelope::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(EventEnvelope::parse(b"{\"type\":\"\xff\",\"id\":\"a\"}").is_err());
        let deep = format!(r#"{{"type":"x","id":"a","payload":{}}}"#, "[".repeat(100_000));
        assert!(EventEnvelope::parse(deep.as_bytes()).is_err());
        let long = format!(r#"{{"type":"x","id":"{}"}}"#, "a".repeat(65));
        assert!(matches!(EventEnvelope::parse(long.as_bytes()), Err(FrameError::LongId(65))));
    }

    #[test]
    fn unknown_types_and_members_are_read() {
        let frame = br#"{"type":"call.sung","id":"a","payload":{"x":1},"more":[]}"#;
        let envelope = EventEnvelope::parse(frame).unwrap();
        assert_eq!(envelope.kind, FrameType::Unknown);
        assert_eq!(envelope.payload.get(), r#"{"x":1}"#);
        let escaped = EventEnvelope::parse(br#"{"id":"\u0061","type":"call.\u0065rror"}"#).unwrap();
        assert_eq!((escaped.kind, &*escaped.id), (FrameType::Error, "a"));
    }

    proptest! {
        #[test]
        fn frames_survive_any_splitting(
            ids in proptest::collection::vec("[a-z~\"\\\\é]{1,16}", 1..8),
            pieces in proptest::collection::vec(1_usize..40, 0..64),
        ) {
            let sent: Vec<Vec<u8>> =
                ids.iter().map(|id| encode(FrameType::Aborted, id, &Nothing {}).unwrap()).collect();
            let frames = frames(&sent.concat(), &pieces).unwrap();
            let read: Vec<String> = frames
                .iter()
                .map(|frame| EventEnvelope::parse(frame).unwrap().id.into_owned())
                .collect();
            prop_assert_eq!(read, ids);
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>, pieces in proptest::collection::vec(1_usize..9, 0..64)) {
            if let Ok(frames) = frames(&bytes, &pieces) {
                for frame in frames {
                    let _ = EventEnvelope::parse(&frame);
                }
            }
        }
    }
}
