//! The call protocol as docs/call.md publishes it, frame by frame, over real sockets: the
//! same conformance test over QUIC, TLS, WebTransport and WebSocket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod conformance;
mod node;
mod wire;

use crate::node::{Node, Via};

async fn holds(via: Via) {
    let node = Node::new();
    conformance::calls(&node, via).await;
    conformance::codes(&node, via).await;
    conformance::subscriptions(&node, via).await;
    conformance::aborts(&node, via).await;
    conformance::ids(&node, via).await;
    conformance::unknown(&node, via).await;
    conformance::broken_frames(&node, via).await;
    conformance::half_close(&node, via).await;
    conformance::the_other_way(&node, via).await;
    conformance::the_other_way_in_items(&node, via).await;
    conformance::a_lost_connection(&node, via).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_over_quic() {
    holds(Via::Quic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_over_tls() {
    holds(Via::Tls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_over_webtransport() {
    holds(Via::WebTransport("/alknet/call")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_over_webtransport_on_the_root() {
    holds(Via::WebTransport("/")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_over_websocket() {
    holds(Via::WebSocket).await;
}
