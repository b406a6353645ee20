//! The handler of `alknet/git`.

use std::{error::Error as _, time::Duration};

use alknet_core::{Alpn, AuthContext, Code, Connection, HandlerError, ProtocolHandler, Stream};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::server::{Caller, GitServer};

/// How long a peer gets to take the last of an exchange, and to leave by itself: the end of the
/// connection would overtake it.
const PARTING: Duration = Duration::from_secs(1);

/// The handler of `alknet/git`: every stream that the peer opens is one exchange.
///
/// Register it with [`Access::Scope`](alknet_core::Access::Scope): whoever has some scope of
/// `git` gets in, and each exchange shows what their scopes name. Exchanges under way go on
/// when the node shuts down, and none is begun.
#[derive(Debug)]
pub struct GitAdapter {
    server: GitServer,
    draining: CancellationToken,
}

impl GitAdapter {
    /// A handler that serves as `server` does.
    pub fn new(server: GitServer) -> Self {
        Self { server, draining: CancellationToken::new() }
    }
}

impl ProtocolHandler for GitAdapter {
    fn name(&self) -> &'static str {
        "git"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("git"))
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let caller = Caller::of(auth);
        let limits = self.server.limits();
        let mut exchanges = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = self.draining.cancelled() => break,
                Some(ended) = exchanges.join_next() => log_panic(ended),
                stream = connection.accept_bi(), if exchanges.len() < limits.exchanges => {
                    let Ok(stream) = stream else { break };
                    exchanges.spawn(serve(self.server.clone(), stream, caller.clone()));
                }
                () = sleep(limits.start), if exchanges.is_empty() => {
                    connection.close(Code::TIMEOUT, "");
                    break;
                }
            }
        }
        let begun = !exchanges.is_empty();
        while let Some(ended) = exchanges.join_next().await {
            log_panic(ended);
        }
        if begun {
            let _ = timeout(PARTING, connection.closed()).await;
        }
        Ok(())
    }

    async fn shutdown(&self) {
        self.draining.cancel();
    }
}

async fn serve(server: GitServer, stream: Stream, caller: Caller) {
    if let Err(error) = server.serve(stream, &caller).await {
        tracing::debug!(%error, cause = error.source(), "a git exchange ended");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a git exchange panicked");
    }
}

#[cfg(test)]
mod tests;
