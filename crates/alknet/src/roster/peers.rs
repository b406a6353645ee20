//! Peers, their keys and authorities.

use alknet_core::{AuditEvent, KeyFingerprint};

use super::{ChangeError, Record};
use crate::store::{Added, By, Peer, PeerChange, PeerError, Store, StoredAuthority};

type Changed<T> = Result<T, ChangeError<PeerError>>;

/// Adds a peer, or keys and authorities to one that is there.
pub(crate) async fn add(
    store: &Store,
    name: &str,
    change: PeerChange<'_>,
    mut record: impl Record,
) -> Changed<Added> {
    let found = store.peer(name).await.map_err(PeerError::from)?;
    let before = found.filter(|peer| peer.name == name);
    let added = store.add_peer(name, change).await?;
    if let Some(peer) = store.peer(name).await.map_err(PeerError::from)? {
        let changes = additions(before.as_ref(), &peer, change.scopes.is_some());
        record(changes).map_err(ChangeError::Unrecorded)?;
    }
    Ok(added)
}

/// What is to be removed: these keys and authorities, or, if there are none, the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Removal<'a> {
    pub(crate) keys: &'a [KeyFingerprint],
    pub(crate) authorities: &'a [KeyFingerprint],
    /// Of the authorities, these principals alone; all of them, if there are none.
    pub(crate) principals: &'a [String],
}

/// Removes a peer with its keys and tokens, or some of its keys and authorities.
pub(crate) async fn remove(
    store: &Store,
    by: By<'_>,
    name: &str,
    Removal { keys, authorities, principals }: Removal<'_>,
    mut record: impl Record,
) -> Changed<()> {
    let peer = store.peer(name).await.map_err(PeerError::from)?;
    let mut record = |event| record(vec![event]).map_err(ChangeError::Unrecorded);
    if keys.is_empty() && authorities.is_empty() {
        store.remove_peer(by, name).await?;
        return record(event("peer-removed", name, peer.as_ref()));
    }
    for fingerprint in keys {
        store.remove_key(by, name, fingerprint).await?;
        let key = Some(fingerprint.to_string());
        record(AuditEvent { key, ..event("key-removed", name, peer.as_ref()) })?;
    }
    let some = principals.iter().map(|principal| Some(principal.as_str()));
    let principals: Vec<_> = some.chain(principals.is_empty().then_some(None)).collect();
    for authority in authorities {
        for principal in &principals {
            store.remove_authority(by, name, authority, *principal).await?;
            record(AuditEvent {
                key: Some(authority.to_string()),
                reason: principal.map(|principal| format!("for the principal {principal:?}")),
                ..event("authority-removed", name, peer.as_ref())
            })?;
        }
    }
    Ok(())
}

/// An entry of the audit log about a peer.
fn event(event: &'static str, name: &str, peer: Option<&Peer>) -> AuditEvent {
    AuditEvent {
        event,
        transport: Some("local"),
        subject: peer.map(|peer| peer.id.clone()),
        name: Some(name.into()),
        ..AuditEvent::default()
    }
}

/// What adding has changed: the peer itself, then each key.
fn additions(before: Option<&Peer>, peer: &Peer, granted: bool) -> Vec<AuditEvent> {
    let verb = if before.is_none() { "peer-added" } else { "peer-changed" };
    let scopes = Some(peer.scopes.to_string());
    let changed = AuditEvent { scopes, ..event(verb, &peer.name, Some(peer)) };
    let had = |key: &str| {
        before.is_some_and(|peer| peer.keys.iter().any(|known| known.fingerprint == key))
    };
    let keys = peer.keys.iter().filter(|key| !had(&key.fingerprint)).map(|key| AuditEvent {
        key: Some(key.fingerprint.clone()),
        ..event("key-added", &peer.name, Some(peer))
    });
    let trusted = |of: &StoredAuthority| {
        let same = |known: &StoredAuthority| {
            (&known.fingerprint, &known.principal) == (&of.fingerprint, &of.principal)
        };
        before.is_some_and(|peer| peer.authorities.iter().any(same))
    };
    let authorities = peer.authorities.iter().filter(|of| !trusted(of)).map(|of| AuditEvent {
        key: Some(of.fingerprint.clone()),
        reason: Some(format!("for the principal {:?}", of.principal)),
        ..event("authority-added", &peer.name, Some(peer))
    });
    granted.then_some(changed).into_iter().chain(keys).chain(authorities).collect()
}
