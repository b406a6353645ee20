//! Which transport won the last race to an address: it gets the head start of the next.
//!
//! A hint that may be lost or wrong, so no failure here matters.

use std::collections::BTreeMap;

use super::Via;
use crate::home::{Home, HomeError};

/// The name of the file in the state folder.
const FILE: &str = "via.json";
/// How many addresses are remembered.
const MAX: usize = 256;

pub(super) fn recall(home: &Home, address: &str) -> Option<Via> {
    parse(home.read(FILE).ok()?)?.get(address).and_then(|name| via(name))
}

pub(super) fn remember(home: &Home, address: &str, via: Via) {
    let outcome = home.update(FILE, |content| {
        let mut winners = parse(content).unwrap_or_default();
        if winners.len() >= MAX {
            winners.clear();
        }
        winners.insert(address.into(), via.to_string());
        Ok::<_, HomeError>((serde_json::to_vec(&winners).ok(), ()))
    });
    if let Err(error) = outcome {
        tracing::debug!(%error, "remembering the transport");
    }
}

fn parse(content: Option<Vec<u8>>) -> Option<BTreeMap<String, String>> {
    serde_json::from_slice(&content?).ok()
}

fn via(name: &str) -> Option<Via> {
    let all = [Via::Quic, Via::Tls, Via::Webtransport, Via::Websocket];
    all.into_iter().find(|via| via.to_string() == name)
}
