//! One line of the log, and how it is tied to the line before it.

use std::{fmt, io, str::FromStr};

use alknet_core::AuditEvent;
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The longest line that is written or read, in bytes.
pub(super) const MAX_LINE: usize = 64 << 10;

/// The first entry of all.
pub(super) const STARTED: &str = "log-started";
/// The first entry of every other file.
pub(super) const CONTINUED: &str = "log-continued";
/// The entry after a line that was not written whole.
pub(super) const RECOVERED: &str = "log-recovered";
/// Stands for events that found no room in memory.
pub(super) const LOST: &str = "events-lost";

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// A place in the chain: the number of an entry and the SHA-256 of its line. Written
/// `SEQ:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The entry's number; 0 stands for the place before the first.
    pub(crate) seq: u64,
    /// The SHA-256 of its line without the newline.
    pub(crate) hash: Hash,
}

/// The text is not the place of an entry.
#[derive(Debug, thiserror::Error)]
#[error("write an entry as SEQ:HASH, as `alknet audit verify` prints the head")]
pub(crate) struct InvalidHead;

impl Head {
    /// Before the first entry.
    pub(crate) const NONE: Self = Self { seq: 0, hash: [0; 32] };
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex::encode(self.hash))
    }
}

impl FromStr for Head {
    type Err = InvalidHead;

    fn from_str(text: &str) -> Result<Self, InvalidHead> {
        let (seq, hash) = text.split_once(':').ok_or(InvalidHead)?;
        let seq = seq.parse().map_err(|_| InvalidHead)?;
        Ok(Self { seq, hash: parse_hash(hash).ok_or(InvalidHead)? })
    }
}

/// What of a line the chain goes by. The event is the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) time: String,
    pub(super) prev: Hash,
    pub(super) event: String,
    /// The SHA-256 of the bytes between the entry before and this one that are no entry.
    pub(super) torn: Option<Hash>,
}

#[derive(Deserialize)]
struct Parsed {
    seq: u64,
    time: String,
    prev: String,
    event: String,
    torn: Option<String>,
}

impl Entry {
    /// Reads a line without its newline; `None` if it is no entry of a chain.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let Parsed { seq, time, prev, event, torn } = serde_json::from_slice(line).ok()?;
        let torn = match torn {
            Some(torn) => Some(parse_hash(&torn)?),
            None => None,
        };
        Some(Self { seq, time, prev: parse_hash(&prev)?, event, torn })
    }

    /// Whether a file may begin with it.
    pub(super) fn opens_file(&self) -> bool {
        match self.event.as_str() {
            STARTED => self.seq == 1 && self.prev == Head::NONE.hash,
            CONTINUED => self.seq > 1,
            _ => false,
        }
    }
}

fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

pub(super) fn hash(bytes: &[u8]) -> Hash {
    finish(digest::digest(&digest::SHA256, bytes))
}

pub(super) fn finish(digest: digest::Digest) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: &'a str,
    prev: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    torn: Option<String>,
    #[serde(flatten)]
    event: &'a AuditEvent,
}

/// The line after `head`, with its newline, and its own place.
pub(super) fn encode(
    head: Head,
    time: OffsetDateTime,
    torn: Option<Hash>,
    event: &AuditEvent,
) -> io::Result<(Vec<u8>, Head)> {
    let time = time.format(&Rfc3339).map_err(io::Error::other)?;
    let seq = head.seq.saturating_add(1);
    let line = |event| {
        let (prev, torn) = (hex::encode(head.hash), torn.map(hex::encode));
        serde_json::to_vec(&Line { seq, time: &time, prev, torn, event })
    };
    let mut bytes = line(event)?;
    if bytes.len() > MAX_LINE {
        let short = AuditEvent { event: event.event, session: event.session, ..Default::default() };
        bytes = line(&short.because(format_args!("the entry had {} bytes", bytes.len())))?;
    }
    let head = Head { seq, hash: hash(&bytes) };
    bytes.push(b'\n');
    Ok((bytes, head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AuditEvent {
        AuditEvent { event: AuditEvent::REFUSED, ..AuditEvent::default() }
    }

    #[test]
    fn an_entry_names_the_line_before() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let (first, head) = encode(Head::NONE, now, None, &event()).unwrap();
        let (line, newline) = first.split_at(first.len() - 1);
        assert_eq!(newline, b"\n");
        let text = String::from_utf8(line.to_vec()).unwrap();
        let zeros = "0".repeat(64);
        assert_eq!(
            text,
            format!(
                r#"{{"seq":1,"time":"1970-01-01T00:00:00Z","prev":"{zeros}","event":"refused"}}"#
            )
        );
        assert_eq!(head, Head { seq: 1, hash: hash(line) });
        let (second, _) = encode(head, now, Some([7; 32]), &event()).unwrap();
        let entry = Entry::parse(second.trim_ascii_end()).unwrap();
        assert_eq!((entry.seq, entry.prev, entry.torn), (2, hash(line), Some([7; 32])));
    }

    /// Whatever a peer says, the line stays within what is read back.
    #[test]
    fn a_long_event_is_cut_and_says_so() {
        let long = AuditEvent { session: Some(7), ..event() }.because("\u{1}".repeat(MAX_LINE));
        let (line, _) = encode(Head::NONE, OffsetDateTime::UNIX_EPOCH, None, &long).unwrap();
        assert!(line.len() < 1024);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["event"], &value["session"]), (&"refused".into(), &7.into()));
        assert!(value["reason"].as_str().unwrap().starts_with("the entry had 39"), "{value}");
    }

    #[test]
    fn a_place_is_written_as_it_is_read() {
        let head = Head { seq: 12, hash: [0xab; 32] };
        assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
        for bad in ["", "12", "12:", ":ab", "12:ab", "-1:00", &format!("x:{}", "0".repeat(64))] {
            assert!(bad.parse::<Head>().is_err(), "{bad}");
        }
    }

    #[test]
    fn other_lines_are_no_entries() {
        let prev = "0".repeat(64);
        let good = format!(r#"{{"seq":1,"time":"t","prev":"{prev}","event":"e"}}"#);
        assert!(Entry::parse(good.as_bytes()).is_some());
        for bad in [
            String::new(),
            good[..good.len() - 1].into(),
            good.replace("\"seq\":1", "\"seq\":-1"),
            good.replace(&prev, "00"),
            good.replace("\"event\"", "\"other\""),
            good.replace("{\"seq\"", "{\"torn\":\"x\",\"seq\""),
            format!("{good}{good}"),
            r#"{"time":"t","event":"e"}"#.into(),
        ] {
            assert!(Entry::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
