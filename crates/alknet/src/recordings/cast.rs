//! asciicast v2: a line of JSON that says what it is, and one for each thing that happened.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, BufRead, Read as _, Write},
    time::Duration,
};

use alknet_host::{Event, Session, Size};
use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes. Lines of ours are far shorter.
const MAX_LINE: u64 = 4 << 20;
/// What a terminal of unknown size is taken for.
const USUAL: (u32, u32) = (80, 24);

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    version: u8,
    /// Characters in a line.
    pub(crate) width: u32,
    /// Lines.
    pub(crate) height: u32,
    /// When it began, in seconds since 1970.
    #[serde(default)]
    pub(crate) timestamp: i64,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// What the format has no place for, and players pass over.
    #[serde(default)]
    pub(crate) alknet: About,
}

/// Whose session it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct About {
    /// The id of the identity.
    pub(crate) identity: String,
    /// What people call it.
    pub(crate) name: String,
    /// The account that the session ran as.
    pub(crate) account: String,
    /// The protocol.
    pub(crate) alpn: String,
    /// Where the client was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
}

impl Header {
    /// Of a session that begins at `timestamp`, in seconds since 1970.
    pub(crate) fn new(session: &Session, timestamp: i64) -> Self {
        let (width, height) = known(session.size);
        let about = About {
            identity: session.identity.id.clone(),
            name: session.identity.name.clone(),
            account: session.account.clone(),
            alpn: session.alpn.clone(),
            peer: session.peer.map(|peer| peer.to_string()),
        };
        let term = session.term.clone().map(|term| ("TERM".to_owned(), term));
        let env = term.into_iter().collect();
        Self { version: 2, width, height, timestamp, env, alknet: about }
    }
}

fn known(size: Size) -> (u32, u32) {
    if size.columns == 0 || size.rows == 0 { USUAL } else { (size.columns, size.rows) }
}

/// Writes lines. What could not be written whole is nowhere to be seen.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Lines that are not written yet.
    lines: Vec<u8>,
    /// The time of the last line: none comes before it.
    last: Duration,
    output: Text,
    input: Text,
}

impl Encoder {
    pub(super) fn new(header: &Header) -> io::Result<Self> {
        let mut lines = serde_json::to_vec(header)?;
        lines.push(b'\n');
        let (output, input) = (Text::default(), Text::default());
        Ok(Self { lines, last: Duration::ZERO, output, input })
    }

    pub(super) fn event(&mut self, at: Duration, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Output(bytes) => {
                let text = self.output.decode(bytes);
                self.line(at, "o", &text)
            }
            Event::Input(bytes) => {
                let text = self.input.decode(bytes);
                self.line(at, "i", &text)
            }
            Event::Resize(size) => {
                let (columns, rows) = known(size);
                self.line(at, "r", &format!("{columns}x{rows}"))
            }
            _ => Ok(()),
        }
    }

    /// What was cut off in the middle of a character.
    pub(super) fn end(&mut self, at: Duration) -> io::Result<()> {
        let (output, input) = (self.output.end(), self.input.end());
        self.line(at, "o", output)?;
        self.line(at, "i", input)
    }

    /// The lines so far, once.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    /// How long they are together.
    pub(super) fn waiting(&self) -> usize {
        self.lines.len()
    }

    fn line(&mut self, at: Duration, code: &str, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.last = self.last.max(at);
        // One division, so that no more digits come out than went in.
        let seconds = self.last.as_micros() as f64 / 1e6;
        serde_json::to_writer(&mut self.lines, &(seconds, code, text))?;
        self.lines.write_all(b"\n")
    }
}

/// UTF-8 that comes in pieces.
#[derive(Debug, Default)]
struct Text {
    /// The beginning of a character.
    begun: Vec<u8>,
}

impl Text {
    /// What is whole now. What can never become a character is U+FFFD.
    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    break;
                }
                Err(error) => error,
            };
            let (whole, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(whole));
            let Some(wrong) = error.error_len() else {
                self.begun = after.to_vec();
                break;
            };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = after.get(wrong..).unwrap_or_default();
        }
        text
    }

    fn end(&mut self) -> &'static str {
        if std::mem::take(&mut self.begun).is_empty() { "" } else { "\u{fffd}" }
    }
}

/// One thing that happened, as it is in a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Moment {
    /// The terminal was given this.
    Output(Duration, String),
    /// Its size changed to so many columns and rows.
    Resize(Duration, usize, usize),
    /// Something else: what was typed, or a mark.
    Other(Duration),
}

impl Moment {
    /// How long after the start.
    pub(crate) fn at(&self) -> Duration {
        match self {
            Self::Output(at, _) | Self::Resize(at, ..) | Self::Other(at) => *at,
        }
    }
}

/// Reads a recording line by line.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    lines: R,
    line: Vec<u8>,
    header: Header,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    pub(crate) fn new(mut lines: R) -> io::Result<Self> {
        let mut line = Vec::new();
        read_line(&mut lines, &mut line)?;
        let header: Header = serde_json::from_slice(&line)?;
        if header.version != 2 {
            return Err(invalid("not asciicast v2"));
        }
        Ok(Self { lines, line, header })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// What happened next; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Moment>> {
        if read_line(&mut self.lines, &mut self.line)? == 0 {
            return Ok(None);
        }
        let (at, code, data): (f64, Cow<'_, str>, Cow<'_, str>) =
            serde_json::from_slice(&self.line)?;
        let at = Duration::try_from_secs_f64(at).map_err(|_| invalid("a time that is none"))?;
        let size = || {
            let (columns, rows) = data.split_once('x')?;
            Some((columns.parse().ok()?, rows.parse().ok()?))
        };
        Ok(Some(match &*code {
            "o" => Moment::Output(at, data.into_owned()),
            "r" => match size() {
                Some((columns, rows)) => Moment::Resize(at, columns, rows),
                None => return Err(invalid("a size that is none")),
            },
            _ => Moment::Other(at),
        }))
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A line with its end; its length.
fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    let read = lines.take(MAX_LINE).read_until(b'\n', line)?;
    if read as u64 == MAX_LINE {
        return Err(invalid("a line that is too long"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use alknet_core::{Credential, Identity, Scopes};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn session() -> Session {
        let credential = Credential::Token("5f2a".into());
        let identity = Identity::new("p1", "alice", Scopes::default(), credential);
        let size = Size { columns: 100, rows: 30, width: 0, height: 0 };
        Session::new(Arc::new(identity), "alice", "alknet/ssh", size)
    }

    fn encode(pieces: &[&[u8]]) -> String {
        let mut encoder = Encoder::new(&Header::new(&session(), 1_700_000_000)).unwrap();
        for (n, piece) in pieces.iter().enumerate() {
            let at = Duration::from_millis(1500 * n as u64);
            encoder.event(at, Event::Output(piece)).unwrap();
        }
        encoder.end(Duration::from_secs(60)).unwrap();
        String::from_utf8(encoder.take()).unwrap()
    }

    fn output(cast: &str) -> String {
        let mut reader = Reader::new(cast.as_bytes()).unwrap();
        let mut text = String::new();
        while let Some(moment) = reader.next().unwrap() {
            if let Moment::Output(_, more) = moment {
                text.push_str(&more);
            }
        }
        text
    }

    #[test]
    fn what_a_file_looks_like() {
        let mut encoder = Encoder::new(&Header::new(&session(), 1_700_000_000)).unwrap();
        encoder.event(Duration::from_micros(1_500_001), Event::Output(b"\x1b[1mhi\r\n")).unwrap();
        let size = Size { columns: 80, rows: 24, width: 0, height: 0 };
        // Told before what was already in the queue.
        encoder.event(Duration::from_secs(1), Event::Resize(size)).unwrap();
        encoder.event(Duration::from_secs(2), Event::Input(b"ls\r")).unwrap();
        let lines = String::from_utf8(encoder.take()).unwrap();
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                r#"{"version":2,"width":100,"height":30,"timestamp":1700000000,"env":{},"alknet":{"identity":"p1","name":"alice","account":"alice","alpn":"alknet/ssh"}}"#,
                r#"[1.500001,"o","\u001b[1mhi\r\n"]"#,
                r#"[1.500001,"r","80x24"]"#,
                r#"[2.0,"i","ls\r"]"#,
            ]
        );
    }

    #[test]
    fn characters_are_whole_and_nothing_is_lost() {
        assert_eq!(output(&encode(&[b"gr\xc3", b"\xbc\xc3\x9fe"])), "grüße");
        assert_eq!(output(&encode(&[b"\xf0\x9f", b"\x8e", b"\x89!"])), "🎉!");
        assert_eq!(output(&encode(&[b"a\xffb\xc3", b"(c"])), "a\u{fffd}b\u{fffd}(c");
        // Cut off for good.
        assert_eq!(output(&encode(&[b"end\xe2\x82"])), "end\u{fffd}");
    }

    #[test]
    fn what_is_no_recording_is_an_error() {
        let header = encode(&[]);
        for text in ["", "{}", "[]", "{\"version\":3,\"width\":1,\"height\":1}\n", "\u{1b}[2J"] {
            assert!(Reader::new(text.as_bytes()).is_err(), "{text:?}");
        }
        for line in ["[1]", "[\"x\",\"o\",\"\"]", "[-1,\"o\",\"\"]", "[1e300,\"o\",\"\"]", "x"] {
            let text = format!("{header}{line}\n");
            assert!(Reader::new(text.as_bytes()).unwrap().next().is_err(), "{line}");
        }
        let long = format!("{header}[1,\"o\",\"{}\"]", "x".repeat(5 << 20));
        assert!(Reader::new(long.as_bytes()).unwrap().next().is_err());
    }

    proptest! {
        /// However it is cut, it is what it would be in one piece.
        #[test]
        fn pieces_make_no_difference(
            bytes in prop::collection::vec(prop_oneof![Just(0xc3_u8), Just(0xbc), Just(0xf0),
                Just(0x9f), Just(0x8e), Just(0x89), Just(0xe2), Just(b'a'), any::<u8>()], 0..64),
            cuts in prop::collection::vec(0_usize..64, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(output(&encode(&pieces)), String::from_utf8_lossy(&bytes));
        }
    }
}
