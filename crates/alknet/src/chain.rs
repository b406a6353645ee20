//! Several identity providers as one.

use std::sync::Arc;

use alknet_core::{
    Alpn, BoxFuture, Identity, IdentityProvider, KeyFingerprint, ProviderError, Secret,
    TicketRefusal,
};

/// Asks each provider in turn; the first that knows decides. A failure of one counts only
/// if no other knows: it never admits anybody.
#[derive(Debug)]
pub(crate) struct ChainProvider(Vec<Arc<dyn IdentityProvider>>);

impl ChainProvider {
    /// Joins providers, the one to ask first at the head.
    pub(crate) fn new(providers: Vec<Arc<dyn IdentityProvider>>) -> Self {
        Self(providers)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no identity provider")]
struct Empty;

impl IdentityProvider for ChainProvider {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            let mut answer = Ok(None);
            for provider in &self.0 {
                match provider.by_key(key).await {
                    Ok(Some(identity)) => return Ok(Some(identity)),
                    Ok(None) => {}
                    Err(error) => answer = Err(error),
                }
            }
            answer
        })
    }

    fn by_token<'a>(
        &'a self,
        token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            let mut answer = Ok(None);
            for provider in &self.0 {
                match provider.by_token(token).await {
                    Ok(Some(identity)) => return Ok(Some(identity)),
                    Ok(None) => {}
                    Err(error) => answer = Err(error),
                }
            }
            answer
        })
    }

    fn redeem_ticket<'a>(
        &'a self,
        ticket: &'a Secret,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async move {
            let mut answer = Ok(Err(TicketRefusal::Unknown));
            for provider in &self.0 {
                match provider.redeem_ticket(ticket, alpn).await {
                    Ok(Err(TicketRefusal::Unknown)) => {}
                    Ok(known) => return Ok(known),
                    Err(error) => answer = Err(error),
                }
            }
            answer
        })
    }

    fn issue_ticket<'a>(
        &'a self,
        identity: &'a Identity,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
        Box::pin(async move {
            let mut failure = None;
            for provider in &self.0 {
                match provider.issue_ticket(identity, alpn).await {
                    Ok(ticket) => return Ok(ticket),
                    Err(error) => _ = failure.get_or_insert(error),
                }
            }
            Err(failure.unwrap_or_else(|| ProviderError::new(Empty)))
        })
    }
}

#[cfg(test)]
mod tests {
    use alknet_core::Scopes;

    use super::*;

    /// Knows one key, or fails.
    #[derive(Debug)]
    struct Fake {
        knows: Option<u8>,
        fails: bool,
    }

    fn key(byte: u8) -> KeyFingerprint {
        KeyFingerprint::OpenSsh([byte; 32])
    }

    impl Fake {
        fn answer<T>(&self, answer: T) -> BoxFuture<'_, Result<T, ProviderError>>
        where
            T: Send + 'static,
        {
            let answer = if self.fails { Err(ProviderError::new(Empty)) } else { Ok(answer) };
            Box::pin(async { answer })
        }

        fn identity(&self) -> Identity {
            let id = format!("{:?}", self.knows);
            Identity { name: id.clone(), id, scopes: Scopes::all() }
        }
    }

    impl IdentityProvider for Fake {
        fn by_key<'a>(
            &'a self,
            asked: &'a KeyFingerprint,
        ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
            let known = self.knows.is_some_and(|byte| key(byte) == *asked);
            self.answer(known.then(|| self.identity()))
        }

        fn by_token<'a>(
            &'a self,
            _: &'a Secret,
        ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
            self.answer(self.knows.map(|_| self.identity()))
        }

        fn redeem_ticket<'a>(
            &'a self,
            _: &'a Secret,
            _: &'a Alpn,
        ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
            self.answer(Err(if self.knows.is_some() {
                TicketRefusal::Used
            } else {
                TicketRefusal::Unknown
            }))
        }

        fn issue_ticket<'a>(
            &'a self,
            _: &'a Identity,
            _: &'a Alpn,
        ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
            self.answer(Secret::new(format!("{:?}", self.knows)))
        }
    }

    fn chain(fakes: impl IntoIterator<Item = Fake>) -> ChainProvider {
        let dynamic = |fake| Arc::new(fake) as Arc<dyn IdentityProvider>;
        ChainProvider::new(fakes.into_iter().map(dynamic).collect())
    }

    const BROKEN: Fake = Fake { knows: None, fails: true };
    const EMPTY: Fake = Fake { knows: None, fails: false };

    fn knowing(byte: u8) -> Fake {
        Fake { knows: Some(byte), fails: false }
    }

    #[tokio::test]
    async fn the_first_that_knows_decides() {
        let chain = chain([EMPTY, knowing(1), knowing(2)]);
        assert_eq!(chain.by_key(&key(2)).await.unwrap().unwrap().id, "Some(2)");
        assert_eq!(chain.by_key(&key(3)).await.unwrap(), None);
        let holder = chain.by_token(&Secret::new("x")).await.unwrap().unwrap();
        assert_eq!(holder.id, "Some(1)");
        let alpn = Alpn::service("echo").unwrap();
        let refused = chain.redeem_ticket(&Secret::new("x"), &alpn).await.unwrap();
        assert_eq!(refused, Err(TicketRefusal::Used));
    }

    #[tokio::test]
    async fn a_failure_admits_nobody_and_hides_nobody() {
        let chain = chain([BROKEN, knowing(1)]);
        assert!(chain.by_key(&key(1)).await.unwrap().is_some());
        assert!(chain.by_key(&key(2)).await.is_err());
    }

    #[tokio::test]
    async fn the_first_that_can_issues_tickets() {
        let alpn = Alpn::service("echo").unwrap();
        let chain = chain([BROKEN, knowing(1), knowing(2)]);
        let identity = knowing(1).identity();
        let ticket = chain.issue_ticket(&identity, &alpn).await.unwrap();
        assert_eq!(ticket.expose(), "Some(1)");
    }
}
