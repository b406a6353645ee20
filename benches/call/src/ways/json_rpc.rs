//! JSON-RPC by jsonrpsee, over a WebSocket in TLS.

use std::net::SocketAddr;

use anyhow::Result;
use jsonrpsee::{
    RpcModule,
    core::client::{ClientT as _, Subscription, SubscriptionClientT as _},
    core::to_json_raw_value,
    rpc_params,
    server::{Server, serve_with_graceful_shutdown, stop_channel},
    types::ErrorObjectOwned,
    ws_client::{WsClient, WsClientBuilder},
};
use tokio::task::JoinSet;
use tower::{Service as _, service_fn};

use super::{BoxFuture, Caller};
use crate::{
    note::{Note, Wanted},
    tls::{self, HOST, Listener, SelfSigned},
};

const CALL: &str = "notes_answer";
const ITEMS: &str = "notes_watch";
const ITEM: &str = "notes_item";
const END: &str = "notes_unwatch";
const ALPN: &str = "http/1.1";
/// A client whose buffer of items is full loses its subscription, so it holds them all.
const BUFFER: usize = 1 << 20;

fn module() -> Result<RpcModule<()>> {
    let mut module = RpcModule::new(());
    module.register_method(CALL, |params, (), _| {
        Ok::<_, ErrorObjectOwned>(params.one::<Note>()?.answer())
    })?;
    module.register_subscription(ITEMS, ITEM, END, async |params, pending, _, _| {
        let wanted: Wanted = params.one()?;
        let sink = pending.accept().await?;
        for note in wanted.notes() {
            sink.send(to_json_raw_value(&note)?).await?;
        }
        Ok(())
    })?;
    Ok(module)
}

pub(super) async fn serve(
    identity: &SelfSigned,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<SocketAddr> {
    let listener = Listener::bind(identity, ALPN).await?;
    let addr = listener.addr()?;
    let methods = module()?;
    let builder = Server::builder().to_service_builder();
    tasks.spawn(async move {
        let (stop, _handle) = stop_channel();
        let mut connections = JoinSet::new();
        while let Ok(stream) = listener.next().await {
            let (builder, methods, stop) = (builder.clone(), methods.clone(), stop.clone());
            let shutdown = stop.clone().shutdown();
            let service = service_fn(move |request| {
                let mut service = builder.clone().build(methods.clone(), stop.clone());
                async move { service.call(request).await }
            });
            connections.spawn(serve_with_graceful_shutdown(stream, service, shutdown));
        }
        Ok(())
    });
    Ok(addr)
}

pub(super) struct Client(WsClient);

impl Client {
    pub(super) async fn connect(addr: SocketAddr, certificate: &str) -> Result<Self> {
        let stream = tls::connect(addr, certificate, ALPN).await?;
        let builder = WsClientBuilder::new()
            .max_concurrent_requests(1024)
            .max_buffer_capacity_per_subscription(BUFFER);
        let url = format!("ws://{HOST}:{}", addr.port());
        Ok(Self(builder.build_with_stream(url, stream).await?))
    }
}

impl Caller for Client {
    fn call(&self, note: Note) -> BoxFuture<'_, Result<Note>> {
        Box::pin(async move { Ok(self.0.request(CALL, rpc_params![note]).await?) })
    }

    fn items(&self, wanted: Wanted) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let items = self.0.subscribe(ITEMS, rpc_params![wanted], END).await;
            let mut items: Subscription<Note> = items?;
            let mut count = 0;
            // It does not tell that it has ended.
            while count < wanted.items
                && let Some(item) = items.next().await
            {
                item?;
                count += 1;
            }
            Ok(count)
        })
    }
}
