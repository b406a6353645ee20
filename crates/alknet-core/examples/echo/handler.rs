//! A whole protocol: sends back what it gets, stream by stream.

use alknet_core::{
    Alpn, AuthContext, Connection, ConnectionError, HandlerError, ProtocolHandler, Stream,
};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};

/// The handler for `alknet/echo`.
#[derive(Debug)]
pub(crate) struct Echo;

impl ProtocolHandler for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Alpn::service("echo").into_iter().collect()
    }

    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        let mut streams = JoinSet::new();
        loop {
            match connection.accept_bi().await {
                Ok(stream) => drop(streams.spawn(echo(stream))),
                Err(ConnectionError::Closed(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            // Finished streams leave the set here; a peer cannot have more open than the
            // transport's limit.
            while streams.try_join_next().is_some() {}
        }
    }
}

async fn echo(stream: Stream) -> std::io::Result<()> {
    let (mut send, mut recv) = stream.split();
    tokio::io::copy(&mut recv, &mut send).await?;
    send.shutdown().await
}
