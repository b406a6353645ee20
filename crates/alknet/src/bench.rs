//! What `cargo bench` measures. It is no part of the program.

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use alknet_core::{Alpn, Credential, IdentityProvider as _, KeyFingerprint, NodeId, Secret};

use crate::{home::Home, store::sqlite::Sqlite};

/// How long each look-up of one kind took.
#[derive(Debug)]
pub struct Lookups {
    /// What was looked up.
    pub what: &'static str,
    /// In the order of the measurement.
    pub took: Vec<Duration>,
}

/// Fills a new store in `folder` with `count` peers, each with a key and a token, and looks
/// `rounds` of them up in every way.
pub async fn identities(
    folder: &Path,
    count: usize,
    rounds: usize,
) -> Result<Vec<Lookups>, Box<dyn Error>> {
    let store = Sqlite::open(&Home::open(Some(folder.to_owned()))?).await?;
    let tokens = store.fill(count).await?;
    // All over the table, and none twice.
    let some: Vec<usize> =
        (0..rounds).filter_map(|round| (round * count).checked_div(rounds)).collect();
    let of = |index: &usize| Credential::Key(KeyFingerprint::Ed25519(key(*index)));
    let keys: Vec<Credential> = some.iter().map(of).collect();
    let tokens: Vec<&Secret> = some.iter().filter_map(|index| tokens.get(*index)).collect();
    let mut all = vec![by_credential(&store, "a key", &keys).await?];
    let (first, holders) = by_token(&store, "a token, which notes the use", &tokens).await?;
    all.push(first);
    all.push(by_token(&store, "a token again", &tokens).await?.0);
    all.push(by_credential(&store, "a token of a live session", &holders).await?);
    all.push(tickets(&store, &keys).await?);
    store.close().await;
    Ok(all)
}

/// The key of a peer: any 32 bytes will do.
pub(crate) fn key(index: usize) -> NodeId {
    let mut bytes = [0xa5; 32];
    for (byte, digit) in bytes.iter_mut().zip(index.to_be_bytes()) {
        *byte = digit;
    }
    NodeId::from_bytes(bytes)
}

async fn by_credential(
    store: &Sqlite,
    what: &'static str,
    credentials: &[Credential],
) -> Result<Lookups, Box<dyn Error>> {
    let mut took = Vec::new();
    for credential in credentials {
        let start = Instant::now();
        let found = store.by_credential(credential).await?;
        took.push(start.elapsed());
        found.ok_or("somebody is missing")?;
    }
    Ok(Lookups { what, took })
}

async fn by_token(
    store: &Sqlite,
    what: &'static str,
    tokens: &[&Secret],
) -> Result<(Lookups, Vec<Credential>), Box<dyn Error>> {
    let (mut took, mut holders) = (Vec::new(), Vec::new());
    for token in tokens {
        let start = Instant::now();
        let found = store.by_token(token).await?;
        took.push(start.elapsed());
        holders.push(found.ok_or("somebody is missing")?.credential);
    }
    Ok((Lookups { what, took }, holders))
}

async fn tickets(store: &Sqlite, keys: &[Credential]) -> Result<Lookups, Box<dyn Error>> {
    let (alpn, mut took) = (Alpn::service("echo")?, Vec::new());
    for key in keys {
        let holder = store.by_credential(key).await?.ok_or("somebody is missing")?;
        let ticket = store.issue_ticket(&holder, &alpn).await?;
        let start = Instant::now();
        let found = store.redeem_ticket(&ticket, &alpn).await?;
        took.push(start.elapsed());
        found?;
    }
    Ok(Lookups { what: "a ticket, which is used up", took })
}
