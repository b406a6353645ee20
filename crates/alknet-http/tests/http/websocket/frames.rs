//! Frames and messages (RFC 6455, section 5).

use super::{
    pattern,
    wire::{
        BINARY, CARRIERS, CLOSE, CONTINUE, Carrier, FIN, PING, PONG, Peer, TEXT, close, frame,
        frame_padded, frame_under, head, unmasked,
    },
};
use crate::harness::Node;

/// The most that a message may hold, in bytes.
const MAX: usize = 1 << 20;
const RSV: [u8; 3] = [0x40, 0x20, 0x10];

/// What is sent on a new WebSocket, and the close code that answers it.
type Case = (String, Vec<u8>, u16);

async fn answers(cases: &[Case]) {
    let node = Node::new();
    for carrier in CARRIERS {
        for (name, bytes, code) in cases {
            let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
            peer.send(bytes).await;
            assert_eq!(peer.refused().await, *code, "{name} over {carrier:?}");
        }
    }
}

/// Section 5.2: bits and opcodes that are reserved.
#[tokio::test]
async fn what_is_reserved_is_a_protocol_error() {
    let mut cases: Vec<Case> = Vec::new();
    for bit in RSV {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            let name = format!("opcode {opcode} with the reserved bit {bit:#x}");
            cases.push((name, frame(FIN | bit | opcode, &[0x03, 0xe8]), 1002));
        }
        let continued = [frame(BINARY, b"a"), frame(FIN | bit | CONTINUE, b"b")].concat();
        cases.push((format!("a continuation with the reserved bit {bit:#x}"), continued, 1002));
    }
    for opcode in (3..8).chain(11..16) {
        cases.push((format!("opcode {opcode}"), frame(FIN | opcode, b"x"), 1002));
        cases.push((format!("opcode {opcode}, empty"), frame(FIN | opcode, b""), 1002));
        cases.push((format!("opcode {opcode} in a fragment"), frame(opcode, b"x"), 1002));
    }
    answers(&cases).await;
}

/// Section 5.1: a client masks every frame.
#[tokio::test]
async fn an_unmasked_frame_is_a_protocol_error() {
    let case = |name: &str, bytes| (name.into(), bytes, 1002);
    answers(&[
        case("binary", unmasked(FIN | BINARY, b"x")),
        case("empty", unmasked(FIN | BINARY, b"")),
        case("ping", unmasked(FIN | PING, b"")),
        case("close", unmasked(FIN | CLOSE, &[0x03, 0xe8])),
        case("continuation", [frame(BINARY, b"a"), unmasked(FIN, b"b")].concat()),
    ])
    .await;
}

/// Section 5.4.
#[tokio::test]
async fn fragments_out_of_order_are_a_protocol_error() {
    let case = |name: &str, frames: &[Vec<u8>]| (name.into(), frames.concat(), 1002);
    let (first, middle, last) =
        (frame(BINARY, b"a"), frame(CONTINUE, b"b"), frame(FIN | CONTINUE, b"c"));
    answers(&[
        case("a last fragment with no first", std::slice::from_ref(&last)),
        case("a fragment with no first", std::slice::from_ref(&middle)),
        case("a fragment behind the last", &[first.clone(), last.clone(), middle.clone()]),
        case("a message within a message", &[first.clone(), frame(FIN | BINARY, b"x")]),
        case("a first fragment twice", &[first.clone(), first.clone()]),
        case("text within a message", &[first.clone(), frame(FIN | TEXT, b"x")]),
        case("a fragment of text within", &[first, middle, frame(TEXT, b"x")]),
    ])
    .await;
}

/// Section 5.5: at most 125 bytes, in one frame.
#[tokio::test]
async fn a_control_frame_too_long_or_in_fragments_is_a_protocol_error() {
    let mut cases: Vec<Case> = Vec::new();
    for opcode in [CLOSE, PING, PONG] {
        cases.push((format!("opcode {opcode} too long"), frame(FIN | opcode, &[7; 126]), 1002));
        cases.push((format!("opcode {opcode} in fragments"), frame(opcode, &[7; 8]), 1002));
        let both = [frame(opcode, &[7; 8]), frame(FIN | CONTINUE, &[7; 8])].concat();
        cases.push((format!("opcode {opcode} in two fragments"), both, 1002));
    }
    answers(&cases).await;
}

/// Text is never taken (1003). What is not even text says so (1007, section 8.1), and does
/// at its first wrong byte.
#[tokio::test]
async fn text_is_refused_and_what_is_no_text_as_such() {
    let case = |name: &str, frames: &[Vec<u8>], code| (name.into(), frames.concat(), code);
    let whole = |text: &[u8]| frame(FIN | TEXT, text);
    let mut cases = vec![
        case("text", &[whole("κόσμε".as_bytes())], 1003),
        case("empty text", &[whole(b"")], 1003),
        case("with a NUL", &[whole(b"a\0b")], 1003),
        case("a noncharacter", &[whole("\u{fffe}".as_bytes())], 1003),
        case("the last code point", &[whole("\u{10ffff}".as_bytes())], 1003),
        case(
            "split within a character",
            &[frame(TEXT, &[0xce]), frame(CONTINUE, b""), frame(FIN | CONTINUE, &[0xba])],
            1003,
        ),
        case("the fault in the first of many", &[frame(TEXT, &[b'a', 0xff])], 1007),
        case("a character cut off", &[frame(TEXT, &[0xce]), frame(FIN | CONTINUE, b"")], 1007),
        case("a character broken off", &[frame(TEXT, &[0xce]), frame(CONTINUE, b"a")], 1007),
    ];
    let faults: [(&str, &[u8]); 6] = [
        ("a lone continuation byte", &[0x80]),
        ("an overlong slash", &[0xc0, 0xaf]),
        ("an overlong NUL", &[0xe0, 0x80, 0x80]),
        ("a surrogate", &[0xed, 0xa0, 0x80]),
        ("beyond the last code point", &[0xf4, 0x90, 0x80, 0x80]),
        ("a byte that never occurs", &[0xfe]),
    ];
    cases.extend(faults.map(|(name, bytes)| case(name, &[whole(bytes)], 1007)));
    answers(&cases).await;
}

/// A frame that announces too much is refused by its head alone; fragments, by the one that
/// makes it too much.
#[tokio::test]
async fn what_is_too_long_is_refused_before_it_comes() {
    let case = |name: &str, bytes, code| (name.into(), bytes, code);
    let full = frame(BINARY, &pattern(MAX));
    answers(&[
        case("one byte too many", head(FIN | BINARY, MAX as u64 + 1), 1009),
        case("2^32", head(FIN | BINARY, 1 << 32), 1009),
        case("2^63 - 1", head(FIN | BINARY, (1 << 63) - 1), 1009),
        case("2^63, whose top bit must be 0", head(FIN | BINARY, 1 << 63), 1009),
        case("2^64 - 1", head(BINARY, u64::MAX), 1009),
        case("a ping", head(FIN | PING, u64::MAX), 1009),
        case("a second fragment", [full, frame(CONTINUE, b"x")].concat(), 1009),
        case("text", head(FIN | TEXT, 1 << 40), 1009),
        case("a continuation", [frame(BINARY, b"a"), head(CONTINUE, 1 << 40)].concat(), 1009),
    ])
    .await;
}

/// The lengths at which the encoding changes, and the longest of all.
#[tokio::test]
async fn messages_of_every_length_encoding_arrive() {
    let node = Node::new();
    for carrier in CARRIERS {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        for len in [1, 2, 125, 126, 127, 128, 65_535, 65_536] {
            let data = pattern(len);
            peer.send(&frame(FIN | BINARY, &data)).await;
            assert!(peer.receive(len).await.0 == data, "{len} over {carrier:?}");
        }
    }
}

/// Exactly the bound, in one frame and in fragments with empty ones among them.
#[tokio::test]
async fn the_longest_message_passes_whole_and_in_fragments() {
    let node = Node::new();
    let data = pattern(MAX);
    let mut fragments = frame(BINARY, b"");
    for piece in data.chunks(99_991) {
        fragments.extend(frame(CONTINUE, piece));
        fragments.extend(frame(CONTINUE, b""));
    }
    fragments.extend(frame(FIN | CONTINUE, b""));
    for bytes in [frame(FIN | BINARY, &data), fragments] {
        for carrier in CARRIERS {
            let mut peer = Peer::open(&node, carrier, "/alknet/sink").await;
            peer.send(&bytes).await;
            peer.send(&frame(FIN | BINARY, b"")).await;
            assert_eq!(peer.receive(8).await.0, (MAX as u64).to_be_bytes(), "{carrier:?}");
        }
    }
}

#[tokio::test]
async fn a_mask_is_taken_off_whatever_it_is() {
    let node = Node::new();
    for carrier in CARRIERS {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        for mask in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0, 0, 0, 0x80]] {
            for len in 1..20 {
                let data = pattern(len);
                peer.send(&frame_under(mask, FIN | BINARY, &data)).await;
                assert_eq!(peer.receive(len).await.0, data, "{mask:x?} over {carrier:?}");
            }
        }
    }
}

/// Section 5.4: control frames may come between fragments, and are answered at once.
#[tokio::test]
async fn pings_between_fragments_are_answered_in_kind() {
    let node = Node::new();
    for carrier in CARRIERS {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        peer.send(&frame(BINARY, b"one ")).await;
        for len in [0, 1, 124, 125] {
            let ping = pattern(len);
            peer.send(&frame(FIN | PING, &ping)).await;
            assert_eq!(peer.next().await, Some((FIN | PONG, ping)), "{carrier:?}");
            peer.send(&frame(CONTINUE, b"and ")).await;
            // A pong that nobody asked for is nothing (section 5.5.3).
            peer.send(&frame(FIN | PONG, &pattern(len))).await;
        }
        peer.send(&frame(FIN | CONTINUE, b"two")).await;
        let whole = b"one and and and and two";
        assert_eq!(peer.receive(whole.len()).await, (whole.to_vec(), vec![]), "{carrier:?}");
    }
}

#[tokio::test]
async fn a_close_between_fragments_is_answered_and_the_message_dropped() {
    let node = Node::new();
    for carrier in CARRIERS {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        peer.send(&[frame(BINARY, b"half"), close(1000, b"")].concat()).await;
        assert_eq!(peer.next().await, Some((FIN | CLOSE, vec![0x03, 0xe8])), "{carrier:?}");
        assert_eq!(peer.next().await, None);
    }
}

#[tokio::test]
async fn a_message_may_come_in_any_number_of_fragments() {
    let node = Node::new();
    let data = pattern(5000);
    let mut frames = frame(BINARY, b"");
    for byte in &data {
        frames.extend(frame(CONTINUE, &[*byte]));
        frames.extend(frame(CONTINUE, b""));
    }
    frames.extend(frame(FIN | CONTINUE, b""));
    for carrier in CARRIERS {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        peer.send(&frames).await;
        assert!(peer.receive(data.len()).await.0 == data, "{carrier:?}");
    }
}

/// Each byte by itself, so that every field of a head is cut in two somewhere.
#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let node = Node::new();
    for carrier in [Carrier::Memory, Carrier::Tls] {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        for len in [3, 200, 70_000] {
            let data = pattern(len);
            let bytes = frame(FIN | BINARY, &data);
            let (head, payload) = bytes.split_at(20.min(bytes.len()));
            for byte in head {
                peer.send(&[*byte]).await;
                tokio::task::yield_now().await;
            }
            peer.send(payload).await;
            assert!(peer.receive(len).await.0 == data, "{len} over {carrier:?}");
        }
    }
}

/// RFC 6455, section 5.2, has senders use the shortest length. A longer one means the same
/// and is taken; the bound holds for what it says.
#[tokio::test]
async fn a_length_in_more_bytes_than_it_needs_counts_as_what_it_says() {
    let node = Node::new();
    for carrier in CARRIERS {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        for bits in [16, 64] {
            peer.send(&frame_padded(bits, FIN | BINARY, b"hello")).await;
            assert_eq!(peer.receive(5).await.0, b"hello", "{bits} bits over {carrier:?}");
            peer.send(&frame_padded(bits, FIN | PING, b"hello")).await;
            assert_eq!(peer.next().await, Some((FIN | PONG, b"hello".to_vec())));
        }
    }
}

/// An empty message ends the client's direction, also in fragments; the other one goes on.
#[tokio::test]
async fn an_empty_message_ends_one_direction() {
    let node = Node::new();
    let whole = frame(FIN | BINARY, b"");
    let fragments = [frame(BINARY, b""), frame(FIN | CONTINUE, b"")].concat();
    for end in [whole, fragments] {
        for carrier in CARRIERS {
            let mut peer = Peer::open(&node, carrier, "/alknet/sink").await;
            peer.send(&[frame(FIN | BINARY, &pattern(300)), end.clone()].concat()).await;
            assert_eq!(peer.receive(8).await.0, 300_u64.to_be_bytes(), "{carrier:?}");
            assert_eq!(peer.next().await, Some((FIN | BINARY, vec![])), "the other end");
            assert_eq!(peer.next().await, Some((FIN | CLOSE, vec![0x03, 0xe8])));
            peer.send(&close(1000, b"")).await;
            assert_eq!(peer.next().await, None);
        }
    }
}
