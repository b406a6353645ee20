//! SETTINGS: what this side says, and what it needs to know of the peer's.

use bytes::{BufMut, Bytes, BytesMut};

use super::{MAX_FIELD_SECTION, MAX_SESSIONS, gate, varint};

const CONTROL_STREAM: u64 = 0x00;

const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
/// HTTP datagrams, RFC 9297 and the draft before it.
const H3_DATAGRAM: u64 = 0x33;
const H3_DATAGRAM_DRAFT04: u64 = 0xff_d277;
/// WebTransport, by the draft that brought each.
const ENABLE_WEBTRANSPORT_DRAFT02: u64 = 0x2b60_3742;
const MAX_SESSIONS_DRAFT02: u64 = 0x2b60_3743;
const MAX_SESSIONS_DRAFT07: u64 = 0xc671_706a;
const MAX_SESSIONS_DRAFT13: u64 = 0x14e9_cd29;

/// Every dialect at once: a peer reads its own and ignores the rest.
const OURS: [(u64, u64); 8] = [
    (MAX_FIELD_SECTION_SIZE, MAX_FIELD_SECTION),
    (ENABLE_CONNECT_PROTOCOL, 1),
    (H3_DATAGRAM, 1),
    (H3_DATAGRAM_DRAFT04, 1),
    (ENABLE_WEBTRANSPORT_DRAFT02, 1),
    (MAX_SESSIONS_DRAFT02, MAX_SESSIONS as u64),
    (MAX_SESSIONS_DRAFT07, MAX_SESSIONS as u64),
    // More than one would ask for the flow control of draft 13, section 5, which is not
    // spoken here; the peer then opens a connection for each session, as browsers do
    // anyway.
    (MAX_SESSIONS_DRAFT13, 1),
];

/// What opens our control stream.
pub(super) fn control_stream() -> Bytes {
    let mut payload = BytesMut::new();
    for (id, value) in OURS {
        varint::encode(id, &mut payload);
        varint::encode(value, &mut payload);
    }
    let mut out = BytesMut::new();
    varint::encode(CONTROL_STREAM, &mut out);
    varint::encode(gate::SETTINGS, &mut out);
    varint::encode(payload.len() as u64, &mut out);
    out.put(payload);
    out.freeze()
}

/// What a client has to know before it asks for a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) webtransport: bool,
}

impl Peer {
    /// Reads the content of a SETTINGS frame as far as it can be read; that the frame is
    /// well formed is h3's to check.
    pub(super) fn parse(mut payload: &[u8]) -> Self {
        let mut peer = Self::default();
        while let Some((id, value, rest)) = setting(payload) {
            payload = rest;
            let dialects =
                [ENABLE_WEBTRANSPORT_DRAFT02, MAX_SESSIONS_DRAFT07, MAX_SESSIONS_DRAFT13];
            peer.webtransport |= dialects.contains(&id) && value > 0;
        }
        peer
    }
}

fn setting(payload: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (id, at) = varint::decode(payload)?;
    let rest = payload.get(at..)?;
    let (value, at) = varint::decode(rest)?;
    Some((id, value, rest.get(at..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_settings_name_every_dialect_once() {
        let wire = control_stream();
        assert_eq!(wire[..2], [0, 4]);
        let (len, at) = varint::decode(&wire[2..]).unwrap();
        let mut payload = &wire[2 + at..];
        assert_eq!(payload.len() as u64, len);
        let mut read = Vec::new();
        while let Some((id, value, rest)) = setting(payload) {
            read.push((id, value));
            payload = rest;
        }
        assert_eq!(read, OURS);
        read.dedup_by_key(|(id, _)| *id);
        assert_eq!(read.len(), OURS.len());
        assert!(Peer::parse(&wire[2 + at..]).webtransport);
    }

    #[test]
    fn a_peer_without_webtransport_is_told_apart() {
        assert_eq!(Peer::parse(b""), Peer { webtransport: false });
        assert_eq!(Peer::parse(b"\x33\x01"), Peer { webtransport: false });
        let mut off = BytesMut::new();
        varint::encode(MAX_SESSIONS_DRAFT07, &mut off);
        varint::encode(0, &mut off);
        assert_eq!(Peer::parse(&off), Peer { webtransport: false });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            Peer::parse(&bytes);
        }
    }
}
