//! The closing handshake and its codes (RFC 6455, section 7).

use std::time::Duration;

use alknet_core::{AuditEvent, Code};
use tokio::time::Instant;

use super::{
    pattern,
    wire::{BINARY, CARRIERS, CLOSE, CONTINUE, Carrier, FIN, PING, Peer, TEXT, close, frame},
};
use crate::harness::Node;

/// How long a peer may take to answer a close frame.
const CLOSING: Duration = Duration::from_secs(5);

/// How the only session of this node ended, in the words of the audit log.
async fn session_end(node: &Node) -> String {
    assert_eq!(node.dispatcher.shutdown(CLOSING).await, 0);
    let ends = node.log.events().into_iter().filter(|e| {
        e.event == AuditEvent::SESSION_END && e.alpn.as_deref() == Some("alknet/abrupt")
    });
    let [end] = &ends.collect::<Vec<_>>()[..] else { panic!("one session") };
    end.reason.clone().unwrap()
}

/// Every code that may stand in a close frame (section 7.4) is answered with itself.
#[tokio::test]
async fn a_close_frame_is_answered_with_its_own_code() {
    let named = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013];
    let ours = (4000..4010).chain([4077, 4999]);
    let longest = "é".repeat(61);
    for code in named.into_iter().chain([3000, 3999]).chain(ours) {
        for reason in ["", "enough", longest.as_str()] {
            for carrier in CARRIERS {
                let node = Node::new();
                let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
                peer.send(&close(code, reason.as_bytes())).await;
                assert_eq!(peer.close_code().await, code, "{reason:?} over {carrier:?}");
            }
        }
    }
}

/// Section 7.4: not to be sent (1004, 1005, 1006, 1015), not assigned, out of range.
#[tokio::test]
async fn a_code_that_may_not_be_sent_is_a_protocol_error() {
    let never = [1004, 1005, 1006, 1015];
    let unassigned = [1016, 1100, 2000, 2999];
    let outside = [0, 1, 999, 5000, 65_535];
    for code in never.into_iter().chain(unassigned).chain(outside) {
        for carrier in CARRIERS {
            let node = Node::new();
            let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
            peer.send(&close(code, b"")).await;
            assert_eq!(peer.close_code().await, 1002, "{code} over {carrier:?}");
        }
    }
}

/// Section 5.5.1: no code at all is allowed, half of one is not, and a reason is UTF-8.
#[tokio::test]
async fn the_body_of_a_close_frame_is_empty_or_a_code_and_text() {
    let node = Node::new();
    for carrier in CARRIERS {
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        peer.send(&frame(FIN | CLOSE, b"")).await;
        assert_eq!(peer.closed().await, b"", "{carrier:?}");
        let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
        peer.send(&frame(FIN | CLOSE, &[0x03])).await;
        assert_eq!(peer.close_code().await, 1002, "{carrier:?}");
        for reason in [&b"\xff"[..], b"cut off \xce", b"\xed\xa0\x80"] {
            let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
            peer.send(&close(1000, reason)).await;
            assert_eq!(peer.close_code().await, 1007, "{reason:x?} over {carrier:?}");
        }
    }
}

/// What a handler that waits for data is told: a normal end, or a reset with a code of ours.
#[tokio::test]
async fn a_handler_learns_what_the_close_code_means() {
    let end = "failed: unexpected end of file".to_owned();
    let reset = |code: Code| format!("failed: {}", alknet_core::StreamReset(code));
    let mut cases = vec![
        (frame(FIN | CLOSE, b""), end.clone()),
        (close(1000, b"bye"), end.clone()),
        (close(1001, b""), end.clone()),
        (close(4000, b""), end),
        (close(1002, b""), reset(Code::PROTOCOL)),
        (close(1003, b""), reset(Code::PROTOCOL)),
        (close(1007, b""), reset(Code::PROTOCOL)),
        (close(1008, b""), reset(Code::REFUSED)),
        (close(1009, b""), reset(Code::LIMIT)),
        (close(1010, b""), reset(Code::INTERNAL)),
        (close(1011, b""), reset(Code::INTERNAL)),
        (close(1012, b""), reset(Code::SHUTTING_DOWN)),
        (close(1013, b""), reset(Code::LIMIT)),
        (close(3000, b""), reset(Code::INTERNAL)),
        (close(4999, b""), reset(Code::new(999))),
        // Not a code that may be sent, so it is a fault of the peer.
        (close(1006, b""), reset(Code::PROTOCOL)),
    ];
    for (code, _) in Code::TABLE.into_iter().skip(1) {
        let wire = 4000 + u16::try_from(code.value()).unwrap();
        cases.push((close(wire, b""), reset(code)));
    }
    for (bytes, reason) in cases {
        let node = Node::new();
        let mut peer = Peer::open(&node, Carrier::Memory, "/alknet/abrupt").await;
        peer.send(&bytes).await;
        peer.closed().await;
        assert_eq!(session_end(&node).await, reason, "{bytes:x?}");
    }
}

/// One answer, and then silence, whatever else was sent (section 5.5.1): much more, too, than
/// the system holds for a server that does not read it.
#[tokio::test]
async fn what_follows_a_close_frame_is_ignored() {
    let much = frame(FIN | BINARY, &pattern(1 << 20)).repeat(8);
    let followers = [
        close(4001, b"again"),
        frame(FIN | PING, b"there?"),
        frame(FIN | BINARY, b"data"),
        frame(FIN | TEXT, b"\xff"),
        b"no frame at all".to_vec(),
        much,
    ];
    for carrier in CARRIERS {
        for follower in &followers {
            let node = Node::new();
            let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
            peer.send(&[close(4005, b""), follower.clone()].concat()).await;
            let len = follower.len();
            assert_eq!(peer.next().await, Some((FIN | CLOSE, vec![0x0f, 0xa5])), "{len}");
            assert_eq!(peer.next().await, None, "{len} bytes over {carrier:?}");
        }
    }
}

/// The same for a frame that is refused: the client learns why, although it still sends.
#[tokio::test]
async fn a_refusal_arrives_although_more_is_on_the_way() {
    let much = frame(FIN | BINARY, &pattern(1 << 20)).repeat(8);
    for (fault, code) in [(frame(FIN | 3, b""), 1002), (frame(FIN | TEXT, b"text"), 1003)] {
        for carrier in CARRIERS {
            let node = Node::new();
            let mut peer = Peer::open(&node, carrier, "/alknet/echo").await;
            peer.send(&[fault.clone(), much.clone()].concat()).await;
            // After text the server awaits the client's close frame, as section 7.1.2 has it.
            peer.send(&close(code, b"")).await;
            assert_eq!(peer.close_code().await, code, "{carrier:?}");
        }
    }
}

/// The handler is done; what the client still sends does not come to it, nor is answered,
/// until its own close frame ends it all.
#[tokio::test]
async fn a_server_that_closes_waits_for_the_answer() {
    for carrier in CARRIERS {
        let node = Node::new();
        let mut peer = Peer::open(&node, carrier, "/alknet/abrupt").await;
        peer.send(&frame(FIN | BINARY, b"x")).await;
        assert_eq!(peer.next().await, Some((FIN | CLOSE, vec![0x0f, 0xed])), "{carrier:?}");
        peer.send(&frame(FIN | BINARY, b"more")).await;
        peer.send(&frame(FIN | PING, b"there?")).await;
        peer.send(&[frame(BINARY, b"half"), frame(CONTINUE, b"")].concat()).await;
        peer.send(&close(4077, b"")).await;
        assert_eq!(peer.next().await, None, "{carrier:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_a_close_is_cut_off() {
    let node = Node::new();
    let mut peer = Peer::open(&node, Carrier::Memory, "/alknet/abrupt").await;
    let begun = Instant::now();
    peer.send(&frame(FIN | BINARY, b"x")).await;
    assert_eq!(peer.next().await, Some((FIN | CLOSE, vec![0x0f, 0xed])));
    assert_eq!(peer.next().await, None);
    assert_eq!(begun.elapsed().as_secs(), CLOSING.as_secs());
}

/// Both close at once: each close frame is the answer to the other.
#[tokio::test]
async fn close_frames_that_cross_are_answers() {
    for carrier in CARRIERS {
        let node = Node::new();
        let mut peer = Peer::open(&node, carrier, "/alknet/abrupt").await;
        peer.send(&[frame(FIN | BINARY, b"x"), close(4005, b"")].concat()).await;
        let (first, payload) = peer.next().await.unwrap();
        assert_eq!(first, FIN | CLOSE);
        // Whichever came first decides what it says.
        assert!(payload == [0x0f, 0xed] || payload == [0x0f, 0xa5], "{payload:x?}");
        assert_eq!(peer.next().await, None, "{carrier:?}");
    }
}

/// A transport that ends with no close frame (section 7.1.5: code 1006, which is not sent)
/// is no end of the stream: what came may be a part.
#[tokio::test]
async fn a_transport_that_ends_without_a_close_frame_is_lost() {
    for part in [&b""[..], &frame(FIN | PING, b""), &frame(BINARY, b"half"), &[0x82, 0x85, 1, 2]] {
        let node = Node::new();
        let mut peer = Peer::open(&node, Carrier::Memory, "/alknet/abrupt").await;
        peer.send(part).await;
        peer.hang_up().await;
        while let Some((first, _)) = peer.next().await {
            assert_ne!(first, FIN | CLOSE, "there is nobody to tell");
        }
        assert_eq!(session_end(&node).await, "failed: connection reset", "{part:x?}");
    }
}
