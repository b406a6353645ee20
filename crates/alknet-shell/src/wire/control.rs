//! The JSON of CONTROL frames.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Frame, MAX_NODE_CONTROL, Size};
use crate::name::{Id, Name};

/// What a client begins with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FromClient {
    /// Look at a session.
    Attach(Attach),
    /// Tell which sessions there are.
    List,
    /// End a session.
    End(Which),
}

/// Which session is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// By its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// By its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Id>,
}

/// How a viewer attaches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attach {
    /// Who looks.
    pub viewer: Id,
    /// Larger with every attachment of this viewer.
    pub attempt: u64,
    /// Which session; with neither name nor id the one that was attached last.
    #[serde(flatten)]
    pub which: Which,
    /// Whether one is started where there is none.
    #[serde(default)]
    pub create: bool,
    /// What a new one runs instead of the login shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The login name that a new one runs as; without it, the first that the identity has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The viewer's terminal.
    pub terminal: Terminal,
    /// Variables for a new session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Looks on only.
    #[serde(default)]
    pub read_only: bool,
    /// Up to where this viewer has everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    /// How many lines that have scrolled off it wants to see.
    #[serde(default)]
    pub history: u32,
}

/// A viewer's terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Its type, as in `TERM`.
    #[serde(default)]
    pub term: String,
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Pixels across; 0 where nobody knows.
    #[serde(default)]
    pub width: u16,
    /// Pixels down; 0 where nobody knows.
    #[serde(default)]
    pub height: u16,
}

impl Terminal {
    /// Its size.
    pub fn size(&self) -> Size {
        let Self { columns, rows, width, height, .. } = *self;
        Size { columns, rows, width, height }
    }
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FromNode {
    /// The viewer is attached.
    Attached(Attached),
    /// SCREEN frames follow.
    Screen {
        /// How many bytes of them.
        bytes: u64,
        /// Where OUTPUT goes on after them.
        output: u64,
        /// How many bytes of output this viewer will never get.
        missed: u64,
    },
    /// Something happened around the viewer.
    Notice {
        /// `joined`, `left` or `resized`.
        event: String,
        /// How many viewers are attached.
        viewers: u32,
        /// The terminal's width.
        columns: u16,
        /// The terminal's height.
        rows: u16,
    },
    /// The program has ended.
    Exited(Exit),
    /// The stream ends here.
    Error(Refusal),
    /// The sessions of the caller.
    Sessions {
        /// Each of them.
        sessions: Vec<Listed>,
    },
    /// A session was ended.
    Ended {
        /// Its name.
        name: Name,
    },
    /// What later versions say.
    #[serde(other)]
    Unknown,
}

/// The answer to [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The session's id, to go on by.
    pub session: Id,
    /// Its name.
    pub name: Name,
    /// Whether it was started for this.
    pub created: bool,
    /// Whether OUTPUT goes on from where the viewer was.
    pub resumed: bool,
    /// Whether the viewer types nothing.
    pub read_only: bool,
    /// How many bytes of the viewer's input the node has.
    pub input: u64,
    /// Where OUTPUT begins.
    pub output: u64,
    /// How much input may be under way.
    pub input_window: u64,
    /// How much output may be under way.
    pub output_window: u64,
    /// The terminal's width.
    pub columns: u16,
    /// The terminal's height.
    pub rows: u16,
    /// How many viewers are attached, with this one.
    pub viewers: u32,
    /// Who the session runs as.
    pub account: String,
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// With this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// By this signal, named as in RFC 4254, section 6.10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// Why something was refused or has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub message: String,
}

/// The codes of a [`Refusal`]: wire format, they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusalCode {
    /// No such session for this caller.
    NotFound,
    /// The session is over.
    Gone,
    /// A later attachment of this viewer was there first.
    Stale,
    /// Another attachment of this viewer took over.
    Replaced,
    /// The session was ended.
    Ended,
    /// Too many sessions or viewers.
    Limit,
    /// The rules were broken.
    Protocol,
    /// The program could not be started.
    Failed,
    /// The client does not keep up.
    Busy,
    /// The node goes down.
    ShuttingDown,
    /// What later versions say.
    #[serde(other)]
    Unknown,
}

impl Refusal {
    /// With a text for people.
    pub fn new(code: RefusalCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// A session, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub session: Id,
    /// Its name.
    pub name: Name,
    /// What it runs; `None` for the login shell.
    pub command: Option<String>,
    /// When it began, in seconds since 1970.
    pub created: i64,
    /// When somebody last attached, in seconds since 1970.
    pub attached: i64,
    /// The terminal's width.
    pub columns: u16,
    /// The terminal's height.
    pub rows: u16,
    /// Who looks at it.
    pub viewers: Vec<ListedViewer>,
}

/// A viewer, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedViewer {
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// From where.
    pub address: Option<IpAddr>,
    /// Whether it types nothing.
    pub read_only: bool,
    /// Whether its transport is gone.
    pub away: bool,
}

impl FromClient {
    /// Reads a CONTROL.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// As a frame. One that is too long is refused by the node.
    pub fn frame(&self) -> Result<Frame, serde_json::Error> {
        Ok(Frame::Control(serde_json::to_vec(self)?.into()))
    }
}

impl FromNode {
    /// Reads a CONTROL.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// As a frame. What would be too long becomes an error.
    pub fn frame(&self) -> Frame {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if bytes.is_empty() || bytes.len() > MAX_NODE_CONTROL {
            return Frame::Control(Bytes::from_static(
                br#"{"type":"error","code":"failed","message":"the answer is too long"}"#,
            ));
        }
        Frame::Control(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_read_with_what_it_leaves_out() {
        let json = br#"{"type":"attach","viewer":"00112233445566778899aabbccddeeff","attempt":3,
            "terminal":{"columns":80,"rows":24},"later":1}"#;
        let Ok(FromClient::Attach(attach)) = FromClient::read(json) else { panic!() };
        assert_eq!((attach.attempt, attach.which, attach.output), (3, Which::default(), None));
        assert!(!attach.create && !attach.read_only && attach.env.is_empty());
        for bad in [
            &br#"{"type":"attach","viewer":"00","attempt":3,"terminal":{"columns":80,"rows":24}}"#
                [..],
            br#"{"type":"end","name":"../x"}"#,
            br#"{"type":"other"}"#,
            b"[]",
        ] {
            assert!(FromClient::read(bad).is_err());
        }
    }

    #[test]
    fn the_longest_list_fits_into_its_frame() {
        let viewer = ListedViewer {
            since: i64::MAX,
            address: Some("2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap()),
            read_only: false,
            away: false,
        };
        let session = Listed {
            session: Id::from_bytes([1; 16]),
            name: "x".repeat(64).parse().unwrap(),
            command: Some("\u{1}".repeat(crate::session::SHOWN)),
            created: i64::MAX,
            attached: i64::MAX,
            columns: u16::MAX,
            rows: u16::MAX,
            viewers: vec![viewer; 16],
        };
        let Frame::Control(json) = FromNode::Sessions { sessions: vec![session; 16] }.frame()
        else {
            panic!()
        };
        assert!(json.starts_with(br#"{"type":"sessions""#), "{json:?}");
    }

    #[test]
    fn codes_are_wire_format() {
        let text = |code| serde_json::to_string(&code).unwrap();
        assert_eq!(text(RefusalCode::NotFound), "\"not-found\"");
        assert_eq!(text(RefusalCode::ShuttingDown), "\"shutting-down\"");
        let refusal = FromNode::Error(Refusal::new(RefusalCode::Gone, "over"));
        let Frame::Control(json) = refusal.frame() else { panic!() };
        assert_eq!(json, r#"{"type":"error","code":"gone","message":"over"}"#);
        let exited = FromNode::Exited(Exit { status: Some(3), signal: None });
        let Frame::Control(json) = exited.frame() else { panic!() };
        assert_eq!(json, r#"{"type":"exited","status":3}"#);
        assert_eq!(FromNode::read(br#"{"type":"new-thing"}"#).unwrap(), FromNode::Unknown);
    }
}
