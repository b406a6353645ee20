//! What a command writes, and how it ends.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use alknet_call::{CallError, Items};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is read at once, in bytes.
const READ: usize = 16 * 1024;
/// The longest character of UTF-8, less one byte: what may be missing of it.
const PARTIAL: usize = 3;

/// Something that a command wrote, or its end: the last item.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Event {
    /// What it wrote.
    Output {
        /// Where to.
        stream: Stream,
        /// The text, or base64 (RFC 4648, section 4) of bytes that are no text.
        data: String,
        /// Whether the data are base64.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        base64: bool,
    },
    /// How it ended.
    Ended {
        /// By itself, or by a signal.
        exit: Exit,
    },
}

/// Where a command writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// How a command ended: one of the two.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Exit {
    /// By itself, with this exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    /// By this signal, such as SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
}

impl Event {
    pub(super) fn of_end(status: ExitStatus) -> Self {
        let named = |number: i32| match Signal::try_from(number) {
            Ok(signal) => signal.as_str().to_owned(),
            // A real-time signal has no name.
            Err(_) => number.to_string(),
        };
        let exit = Exit { code: status.code(), signal: status.signal().map(named) };
        Self::Ended { exit }
    }

    /// The longest beginning of the bytes that makes one item; it is taken from them. An
    /// unfinished character waits for its rest, unless there is none to come.
    fn of_output(stream: Stream, bytes: &mut Vec<u8>, is_all: bool) -> Option<Self> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.len()),
            Err(error) if error.error_len().is_none() && !is_all => Ok(error.valid_up_to()),
            Err(_) => Err(bytes.len()),
        };
        let (Ok(end) | Err(end)) = text;
        let rest = bytes.split_off(end);
        let taken = std::mem::replace(bytes, rest);
        if taken.is_empty() {
            return None;
        }
        let (data, base64) = match String::from_utf8(taken) {
            Ok(text) => (text, false),
            Err(error) => (STANDARD.encode(error.as_bytes()), true),
        };
        Some(Self::Output { stream, data, base64 })
    }
}

/// Sends what a command writes to one stream, as fast as the subscriber takes it, until
/// nobody has the stream open any more.
pub(super) async fn forward(
    stream: Stream,
    source: Option<impl AsyncRead + Unpin>,
    items: &Items<Event>,
) -> Result<(), CallError> {
    let Some(mut source) = source else { return Ok(()) };
    let mut bytes = Vec::with_capacity(READ + PARTIAL);
    loop {
        // A read that fails has no more to give either.
        let read = (&mut source).take(READ as u64).read_buf(&mut bytes).await.unwrap_or(0);
        if let Some(event) = Event::of_output(stream, &mut bytes, read == 0) {
            items.send(event).await?;
        }
        if read == 0 {
            return Ok(());
        }
        bytes.reserve(READ);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &mut Vec<u8>, is_all: bool) -> Option<(String, bool)> {
        match Event::of_output(Stream::Stdout, bytes, is_all)? {
            Event::Output { data, base64, .. } => Some((data, base64)),
            Event::Ended { .. } => None,
        }
    }

    #[test]
    fn a_character_is_not_cut_in_two() {
        let mut bytes = "aé".as_bytes().to_vec();
        let last = bytes.pop().unwrap();
        assert_eq!(of(&mut bytes, false), Some(("a".into(), false)));
        assert_eq!(of(&mut bytes, false), None);
        bytes.push(last);
        assert_eq!(of(&mut bytes, false), Some(("é".into(), false)));
        assert_eq!(of(&mut bytes, true), None);
    }

    #[test]
    fn bytes_that_are_no_text_come_as_base64() {
        assert_eq!(of(&mut b"a\xff".to_vec(), false), Some(("Yf8=".into(), true)));
        // The rest of the character never came.
        assert_eq!(of(&mut b"\xc3".to_vec(), true), Some(("ww==".into(), true)));
    }

    #[test]
    fn an_end_has_a_code_or_a_signal() {
        let json = |raw| serde_json::to_value(Event::of_end(ExitStatus::from_raw(raw))).unwrap();
        assert_eq!(json(3 << 8), serde_json::json!({ "exit": { "code": 3 } }));
        assert_eq!(json(9), serde_json::json!({ "exit": { "signal": "SIGKILL" } }));
    }
}
