//! The whole program with one more service: `alknet/echo`, which sends back what it gets.
//!
//! A service is one type and one line of `main`. Nothing here is about a transport, and yet
//! all of them lead to it: QUIC and TLS by its ALPN, WebTransport and WebSocket by the path
//! `/alknet/echo`. To make one of your own, copy this file into a crate with the
//! dependencies `alknet`, `alknet-core` and `tokio`, and change `echo`.
//!
//! ```sh
//! cargo build -p alknet --examples
//! alias own_service=target/debug/examples/own_service
//! own_service peer add me --key "$(alknet id)" --scope echo
//! own_service serve --listen 127.0.0.1:4433
//! ```
//!
//! and, with the node's own program or with any other `alknet`, in another terminal:
//!
//! ```sh
//! echo hello | alknet dial 127.0.0.1:4433 echo
//! echo hello | alknet dial 127.0.0.1:4433 echo --via websocket
//! ```

use std::{io, process::ExitCode};

use alknet_core::{
    Access, Alpn, AuthContext, Connection, ConnectionError, HandlerError, ProtocolHandler, Stream,
};
use tokio::{io::AsyncWriteExt as _, task::JoinSet};

fn main() -> ExitCode {
    // Whoever has the scope `echo`; `alknet peer` and `alknet token` hand it out.
    alknet::main_with(|services| services.register(Echo, Access::Scope))
}

/// The handler for `alknet/echo`.
struct Echo;

impl ProtocolHandler for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Alpn::service("echo").into_iter().collect()
    }

    /// One connection. It has as many streams as its transport gives: over TLS and over a
    /// WebSocket that is one.
    async fn handle(&self, connection: Connection, _auth: AuthContext) -> Result<(), HandlerError> {
        // Dropped with the connection, and the streams that still run with it.
        let mut streams = JoinSet::new();
        loop {
            match connection.accept_bi().await {
                Ok(stream) => drop(streams.spawn(echo(stream))),
                Err(ConnectionError::Closed(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            while streams.try_join_next().is_some() {}
        }
    }
}

/// One stream, to the end of its input. A peer that does not read is not read from either.
async fn echo(stream: Stream) -> io::Result<()> {
    let (mut send, mut recv) = stream.split();
    tokio::io::copy(&mut recv, &mut send).await?;
    send.shutdown().await
}
