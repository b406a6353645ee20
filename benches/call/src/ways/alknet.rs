//! `alknet/call` on a real endpoint, for a caller with a key and a scope.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use alknet_call::{
    CallAdapter, CallLimits, CallOptions, Context, Items, Operation, OperationRegistry, Peer, Peers,
};
use alknet_core::{
    Access, Alpn, Audit, AuthContext, Credential, Dial, Dialled, Dispatcher, Endpoint,
    EndpointConfig, HandlerRegistry, Identity, IdentityProvider, KeyFingerprint, Limits,
    NodeIdentity, Pin, ProviderError, SelfSigned, TransportKind, WebCertificates,
};
use anyhow::Result;
use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{BoxFuture, Caller};
use crate::{
    note::{Note, Wanted},
    tls::HOST,
};

const SERVER: [u8; 32] = [1; 32];
const CLIENT: [u8; 32] = [2; 32];
const CALL: &str = "notes/answer";
const ITEMS: &str = "notes/watch";

/// Knows one caller, whatever the key.
#[derive(Debug)]
struct Known;

impl IdentityProvider for Known {
    fn by_key<'a>(
        &'a self,
        key: &'a KeyFingerprint,
    ) -> BoxFuture<'a, Result<Option<Identity>, ProviderError>> {
        let scopes = ["call:notes/*"].into_iter().collect();
        let identity = Identity::new("id-caller", "caller", scopes, Credential::Key(*key));
        Box::pin(async { Ok(Some(identity)) })
    }
}

pub(super) fn serve(tasks: &mut JoinSet<Result<()>>) -> Result<SocketAddr> {
    let answer = Operation::query(CALL, async |_: Context, note: Note| Ok(note.answer()))?;
    let watch =
        Operation::subscription(ITEMS, async |_: Context, wanted: Wanted, items: Items<Note>| {
            for note in wanted.notes() {
                items.send(note).await?;
            }
            Ok(())
        })?;
    let operations = OperationRegistry::new(Audit::to_log(), [answer, watch])?;
    let adapter = CallAdapter::new(operations, CallLimits::default(), Peers::new());
    let mut registry = HandlerRegistry::new();
    registry.register(adapter, Access::Scope)?;
    let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
    let web = SelfSigned::generate(&[HOST.to_owned()], time::OffsetDateTime::now_utc())?;
    let config = EndpointConfig {
        listen: "127.0.0.1:0".parse()?,
        identity: Arc::new(NodeIdentity::from_seed(&SERVER)?),
        web: WebCertificates::new(web.current()?),
        hide_services: false,
        fallback: None,
        resets: None,
    };
    let endpoint = Endpoint::bind(&config, dispatcher, Arc::new(Known))?;
    let addr = endpoint.local_addr();
    tasks.spawn(async move {
        let _endpoint = endpoint;
        pending().await
    });
    Ok(addr)
}

/// One connection, on which both calls and subscriptions are made.
pub(super) struct Client {
    peer: Peer,
    _driver: JoinSet<()>,
}

impl Client {
    pub(super) async fn tls(addr: SocketAddr) -> Result<Self> {
        Self::on(dial()?.tls(addr).await?)
    }

    pub(super) async fn quic(addr: SocketAddr) -> Result<Self> {
        Self::on(dial()?.quic(addr).await?)
    }

    fn on(Dialled { connection, .. }: Dialled) -> Result<Self> {
        let nothing = OperationRegistry::new(Audit::to_log(), [])?;
        let auth = AuthContext::anonymous(alpn()?, TransportKind::Tls, None);
        let (limits, draining) = (CallLimits::default(), CancellationToken::new());
        let (peer, driver) = Peer::new(connection, nothing, auth, limits, draining);
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run());
        Ok(Self { peer, _driver: tasks })
    }
}

fn alpn() -> Result<Alpn> {
    Ok(Alpn::service("call")?)
}

fn dial() -> Result<Dial> {
    Ok(Dial {
        server_name: HOST.to_owned(),
        alpn: alpn()?,
        pin: Pin::Expect(NodeIdentity::from_seed(&SERVER)?.id()),
        key: Some(Arc::new(NodeIdentity::from_seed(&CLIENT)?)),
        timeout: Duration::from_secs(10),
    })
}

impl Caller for Client {
    fn call(&self, note: Note) -> BoxFuture<'_, Result<Note>> {
        Box::pin(async move { Ok(self.peer.call(CALL, &note).await?) })
    }

    fn items(&self, wanted: Wanted) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let items = self.peer.subscribe::<_, Note>(ITEMS, &wanted, CallOptions::default());
            let mut items = items.await?;
            let mut count = 0;
            while let Some(item) = items.next().await {
                item?;
                count += 1;
            }
            Ok(count)
        })
    }
}
