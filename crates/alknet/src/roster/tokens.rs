//! Bearer tokens and the sessions of browsers.

use alknet_core::{AuditEvent, Secret};

use super::{ChangeError, Record};
use crate::store::{By, NewToken, Store, Token, TokenError};

type Changed<T> = Result<T, ChangeError<TokenError>>;

/// Makes a token; gives its secret, this once.
pub(crate) async fn create(
    store: &Store,
    new: NewToken<'_>,
    mut record: impl Record,
) -> Changed<(Secret, Token)> {
    let (secret, about) = store.create_token(new).await?;
    let scopes = Some(about.scopes.to_string());
    let created = AuditEvent { scopes, ..event("token-created", &about.id, Some(&about)) };
    record(vec![created]).map_err(ChangeError::Unrecorded)?;
    Ok((secret, about))
}

/// Ends a token or a session at once.
pub(crate) async fn revoke(
    store: &Store,
    by: By<'_>,
    id: &str,
    mut record: impl Record,
) -> Changed<()> {
    let tokens = store.tokens().await.map_err(TokenError::from)?;
    store.revoke(by, id).await?;
    let revoked = event("token-revoked", id, tokens.iter().find(|token| token.id == id));
    record(vec![revoked]).map_err(ChangeError::Unrecorded)
}

/// An entry of the audit log about a token.
fn event(event: &'static str, id: &str, token: Option<&Token>) -> AuditEvent {
    AuditEvent {
        event,
        transport: Some("local"),
        subject: Some(id.into()),
        name: token.map(|token| token.name.clone()),
        identity: token.map(|token| token.peer.clone()),
        ..AuditEvent::default()
    }
}
