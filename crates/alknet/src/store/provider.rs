//! The database as the node's identity provider.

use alknet_core::{
    Alpn, BoxFuture, Identity, IdentityProvider, KeyFingerprint, ProviderError, Secret,
    TicketRefusal,
};

use super::{Store, StoreError, common, scopes};

impl Store {
    async fn holder_of_key(&self, key: &KeyFingerprint) -> Result<Option<Identity>, StoreError> {
        let row: Option<(String, String, String, String)> = sqlx::query_as(
            "SELECT peers.id, peers.name, peers.scopes, peer_keys.scopes
             FROM peer_keys JOIN peers ON peers.id = peer_keys.peer
             WHERE peer_keys.fingerprint = $1",
        )
        .bind(key.to_string())
        .fetch_optional(&self.pool)
        .await?;
        match (row, key) {
            (Some((id, name, limit, granted)), _) => {
                let scopes = common(&scopes(&granted), &scopes(&limit));
                Ok(Some(Identity { id, name, scopes }))
            }
            (None, KeyFingerprint::Ed25519(_)) => self.holder_of_derived_key(key).await,
            (None, _) => Ok(None),
        }
    }
}

impl IdentityProvider for Store {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { self.holder_of_key(key).await.map_err(ProviderError::new) })
    }

    fn by_token<'a>(
        &'a self,
        token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move { self.holder_of_token(token).await.map_err(ProviderError::new) })
    }

    fn redeem_ticket<'a>(
        &'a self,
        ticket: &'a Secret,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async move { self.use_ticket(ticket, alpn).await.map_err(ProviderError::new) })
    }

    fn issue_ticket<'a>(
        &'a self,
        identity: &'a Identity,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
        Box::pin(async move { self.new_ticket(identity, alpn).await.map_err(ProviderError::new) })
    }
}
