//! The database as the node's identity provider.

use alknet_core::{
    Alpn, BoxFuture, Credential, Identity, IdentityProvider, KeyFingerprint, ProviderError, Secret,
    TicketRefusal,
};

use super::Sqlite;
use crate::store::{Source, redeemed};

impl IdentityProvider for Sqlite {
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

    fn by_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
        principals: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            self.trusted_through(authority, principals).await.map_err(ProviderError::new)
        })
    }

    fn knows_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async move { self.is_authority(authority).await.map_err(ProviderError::new) })
    }

    fn by_credential<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        match credential {
            Credential::Token(id) => {
                Box::pin(
                    async move { self.holder_of_token_id(id).await.map_err(ProviderError::new) },
                )
            }
            Credential::Key(key) => self.by_key(key),
            Credential::Authority { key, principal } => {
                self.by_authority(key, std::slice::from_ref(principal))
            }
            // A kind that is not stored here.
            _ => Box::pin(async { Ok(None) }),
        }
    }

    fn redeem_ticket<'a>(
        &'a self,
        ticket: &'a Secret,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async move {
            match self.take_ticket(ticket, alpn).await? {
                Ok(issued) => {
                    let now = self.by_credential(&issued.credential).await?;
                    Ok(redeemed(&issued, now))
                }
                Err(refusal) => Ok(Err(refusal)),
            }
        })
    }

    fn issue_ticket<'a>(
        &'a self,
        identity: &'a Identity,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
        Box::pin(async move { self.new_ticket(identity, alpn).await.map_err(ProviderError::new) })
    }

    fn version(&self) -> BoxFuture<'_, Result<u64, ProviderError>> {
        Box::pin(async move { self.watcher.revision().await.map_err(ProviderError::new) })
    }
}

impl Source for Sqlite {
    fn take_ticket<'a>(
        &'a self,
        ticket: &'a Secret,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async move { self.use_ticket(ticket, alpn).await.map_err(ProviderError::new) })
    }
}
