//! The ways to call, each with its server and its client.

mod alknet;
mod grpc;
mod http;
mod json_rpc;

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::{
    note::{Note, Wanted},
    tls::SelfSigned,
};

pub(crate) const WAYS: [&str; 5] = ["alknet, TLS", "alknet, QUIC", "tonic", "axum", "jsonrpsee"];

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One connection to a server.
pub(crate) trait Caller: Send + Sync {
    /// One call, and its answer.
    fn call(&self, note: Note) -> BoxFuture<'_, Result<Note>>;

    /// A subscription to its end; how many items came.
    fn items(&self, wanted: Wanted) -> BoxFuture<'_, Result<u64>>;
}

/// Where the servers are.
#[derive(Serialize, Deserialize)]
pub(crate) struct Servers {
    certificate: String,
    alknet: SocketAddr,
    grpc: SocketAddr,
    http: SocketAddr,
    json_rpc: SocketAddr,
}

/// Starts all the servers; they end with the tasks.
pub(crate) async fn serve() -> Result<(Servers, JoinSet<Result<()>>)> {
    let mut tasks = JoinSet::new();
    let identity = SelfSigned::generate()?;
    let servers = Servers {
        alknet: alknet::serve(&mut tasks)?,
        grpc: grpc::serve(&identity, &mut tasks)?,
        http: http::serve(&identity, &mut tasks).await?,
        json_rpc: json_rpc::serve(&identity, &mut tasks).await?,
        certificate: identity.certificate,
    };
    Ok((servers, tasks))
}

/// Connects by one of [`WAYS`].
pub(crate) async fn connect(way: &str, servers: &Servers) -> Result<Arc<dyn Caller>> {
    let Servers { certificate, .. } = servers;
    Ok(match way {
        "alknet, TLS" => Arc::new(alknet::Client::tls(servers.alknet).await?),
        "alknet, QUIC" => Arc::new(alknet::Client::quic(servers.alknet).await?),
        "tonic" => Arc::new(grpc::Client::connect(servers.grpc, certificate).await?),
        "axum" => Arc::new(http::Client::connect(servers.http, certificate).await?),
        "jsonrpsee" => Arc::new(json_rpc::Client::connect(servers.json_rpc, certificate).await?),
        _ => bail!("no such way"),
    })
}
