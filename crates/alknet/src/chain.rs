//! Several identity providers as one.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use alknet_core::{
    Alpn, BoxFuture, Credential, Identity, IdentityProvider, KeyFingerprint, ProviderError, Secret,
    TicketRefusal,
};
use arc_swap::ArcSwap;

use crate::store::{Source, redeemed};

/// How many principals of a certificate are looked up, as many as OpenSSH reads.
const MAX_PRINCIPALS: usize = 256;

/// Asks each provider in turn; the first that knows decides, and a failure of one that was
/// asked before admits nobody. The list can be exchanged at any time; a
/// question under way is answered by the list that it began with.
///
/// A ticket is kept by one provider, and whether the credential behind it still holds is
/// asked of all.
#[derive(Debug)]
pub(crate) struct ChainProvider {
    sources: ArcSwap<Sources>,
    /// How often they were exchanged.
    replaced: AtomicU64,
    /// One of them cannot tell its version: that has been logged.
    fails: AtomicBool,
}

/// The one to ask first at the head.
pub(crate) type Sources = Vec<Arc<dyn Source>>;

impl ChainProvider {
    /// Joins providers, the one to ask first at the head.
    pub(crate) fn new(providers: Sources) -> Self {
        let sources = ArcSwap::from_pointee(providers);
        Self { sources, replaced: AtomicU64::default(), fails: AtomicBool::default() }
    }

    /// Asks these from now on.
    pub(crate) fn replace(&self, providers: Sources) {
        self.sources.store(Arc::new(providers));
        self.replaced.fetch_add(1, Ordering::Release);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no identity provider")]
struct Empty;

impl ChainProvider {
    /// Logs the beginning of a failure, not its duration.
    fn note(&self, failure: Option<&ProviderError>) {
        let before = self.fails.swap(failure.is_some(), Ordering::Relaxed);
        if let Some(error) = failure.filter(|_| !before) {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "an identity provider cannot be watched");
        }
    }
}

/// The first answer that knows somebody. Who cannot be asked might have known them, with
/// fewer rights than somebody who is asked later: a failure is the answer then.
async fn first<'a>(
    answers: impl Iterator<Item = BoxFuture<'a, Result<Option<Identity>, ProviderError>>>,
) -> Result<Option<Identity>, ProviderError> {
    for answer in answers {
        if let Some(identity) = answer.await? {
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

impl IdentityProvider for ChainProvider {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(
            async move { first(self.sources.load_full().iter().map(|it| it.by_key(key))).await },
        )
    }

    fn by_token<'a>(
        &'a self,
        token: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            first(self.sources.load_full().iter().map(|it| it.by_token(token))).await
        })
    }

    fn by_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
        principals: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            let sources = self.sources.load_full();
            for principal in principals.iter().take(MAX_PRINCIPALS).map(slice::from_ref) {
                let asked = sources.iter().map(|it| it.by_authority(authority, principal));
                if let Some(identity) = first(asked).await? {
                    return Ok(Some(identity));
                }
            }
            Ok(None)
        })
    }

    fn knows_authority<'a>(
        &'a self,
        authority: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(async move {
            for source in self.sources.load_full().iter() {
                if source.knows_authority(authority).await? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    fn by_credential<'a>(
        &'a self,
        credential: &'a Credential,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        Box::pin(async move {
            first(self.sources.load_full().iter().map(|it| it.by_credential(credential))).await
        })
    }

    /// Of all together. One that fails counts as unchanged for as long as it does, so that
    /// the others are still heard.
    fn version(&self) -> BoxFuture<'_, Result<u64, ProviderError>> {
        Box::pin(async move {
            let mut all = DefaultHasher::new();
            self.replaced.load(Ordering::Acquire).hash(&mut all);
            let mut failure = None;
            for source in self.sources.load_full().iter() {
                match source.version().await {
                    Ok(version) => Some(version).hash(&mut all),
                    Err(error) => {
                        None::<u64>.hash(&mut all);
                        failure = Some(error);
                    }
                }
            }
            self.note(failure.as_ref());
            Ok(all.finish())
        })
    }

    fn redeem_ticket<'a>(
        &'a self,
        ticket: &'a Secret,
        alpn: &'a Alpn,
    ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
        Box::pin(async move {
            let mut answer = Ok(Err(TicketRefusal::Unknown));
            for source in self.sources.load_full().iter() {
                match source.take_ticket(ticket, alpn).await {
                    Ok(Err(TicketRefusal::Unknown)) => {}
                    Ok(Ok(issued)) => {
                        let now = self.by_credential(&issued.credential).await?;
                        return Ok(redeemed(&issued, now));
                    }
                    Ok(refused) => return Ok(refused),
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
            for provider in self.sources.load_full().iter() {
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
            Identity::new(id.clone(), id, Scopes::all(), Credential::Key(key(0)))
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

        fn issue_ticket<'a>(
            &'a self,
            _: &'a Identity,
            _: &'a Alpn,
        ) -> BoxFuture<'a, Result<Secret, ProviderError>> {
            self.answer(Secret::new(format!("{:?}", self.knows)))
        }
    }

    impl Source for Fake {
        fn take_ticket<'a>(
            &'a self,
            ticket: &'a Secret,
            _: &'a Alpn,
        ) -> BoxFuture<'a, Result<Result<Identity, TicketRefusal>, ProviderError>> {
            let known = self.knows.is_some_and(|byte| ticket.expose() == format!("ticket {byte}"));
            // It stands for a key, whoever has that.
            let identity = Identity { credential: Credential::Key(key(9)), ..self.identity() };
            self.answer(if known { Ok(identity) } else { Err(TicketRefusal::Unknown) })
        }
    }

    fn chain(fakes: impl IntoIterator<Item = Fake>) -> ChainProvider {
        let dynamic = |fake| Arc::new(fake) as Arc<dyn Source>;
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
    }

    #[tokio::test]
    async fn who_cannot_be_asked_might_have_known_somebody_with_less() {
        let broken_first = chain([BROKEN, knowing(1)]);
        assert!(broken_first.by_key(&key(1)).await.is_err());
        let credential = Credential::Key(key(1));
        assert!(broken_first.by_credential(&credential).await.is_err());
        let broken_last = chain([knowing(1), BROKEN]);
        assert!(broken_last.by_key(&key(1)).await.unwrap().is_some());
        assert!(broken_last.by_key(&key(2)).await.is_err());
    }

    /// Knows the key 9 as somebody.
    #[derive(Debug)]
    struct Ninth(&'static str);

    impl IdentityProvider for Ninth {
        fn by_key<'a>(
            &'a self,
            asked: &'a KeyFingerprint,
        ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
            let scopes = Scopes::from_iter(["ssh"]);
            let identity = Identity::new(self.0, self.0, scopes, Credential::Key(*asked));
            Box::pin(async move { Ok((*asked == key(9)).then_some(identity)) })
        }
    }

    impl Source for Ninth {}

    #[tokio::test]
    async fn a_ticket_holds_as_long_as_any_provider_knows_its_credential() {
        let alpn = Alpn::service("echo").unwrap();
        let ticket = Secret::new("ticket 1");
        let redeem = async |others: Vec<Arc<dyn Source>>| {
            let mut sources: Vec<Arc<dyn Source>> = vec![Arc::new(EMPTY), Arc::new(knowing(1))];
            sources.extend(others);
            ChainProvider::new(sources).redeem_ticket(&ticket, &alpn).await
        };
        assert_eq!(redeem(vec![]).await.unwrap(), Err(TicketRefusal::Revoked));
        let known = redeem(vec![Arc::new(Ninth("Some(1)"))]).await.unwrap().unwrap();
        assert_eq!(known.scopes.to_string(), "ssh");
        let other = redeem(vec![Arc::new(Ninth("other"))]).await.unwrap();
        assert_eq!(other, Err(TicketRefusal::Revoked));
        assert!(redeem(vec![Arc::new(BROKEN)]).await.is_err());
    }

    #[tokio::test]
    async fn the_version_moves_with_each_provider_and_with_the_list() {
        let fixture = crate::store::tests::fixture().await;
        let store = &fixture.store;
        let chain = ChainProvider::new(vec![Arc::new(store.clone()), Arc::new(EMPTY)]);
        let before = chain.version().await.unwrap();
        assert_eq!(chain.version().await.unwrap(), before);
        let link = store.create_signin().await.unwrap();
        let session = store.signin(&link).await.unwrap().unwrap().session;
        assert_eq!(chain.version().await.unwrap(), before);
        store.signout(&session).await.unwrap();
        let signed_out = chain.version().await.unwrap();
        assert_ne!(signed_out, before);
        chain.replace(vec![Arc::new(store.clone()), Arc::new(EMPTY)]);
        let replaced = chain.version().await.unwrap();
        assert_ne!(replaced, signed_out);
        store.close().await;
        chain.version().await.unwrap();
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
