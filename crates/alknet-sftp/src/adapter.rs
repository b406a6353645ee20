//! The handler of `alknet/sftp`.

use std::{error::Error as _, sync::Arc};

use alknet_core::{
    Alpn, AuthContext, Code, Connection, HandlerError, Identity, ProtocolHandler, Stream,
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::server::{Reach, SftpServer};

/// The handler of `alknet/sftp`: every stream that the peer opens is one SFTP session.
///
/// Register it with [`Access::Scope`](alknet_core::Access::Scope): whoever has some scope of
/// `sftp` gets in, and each session shows what their scopes name.
#[derive(Debug)]
pub struct SftpAdapter {
    server: SftpServer,
    draining: CancellationToken,
}

/// The caller's scopes name nothing that is here.
#[derive(Debug, thiserror::Error)]
#[error("none of the scopes of {0} is for anything that is exported")]
struct Nothing(String);

impl SftpAdapter {
    /// A handler that serves as `server` does.
    pub fn new(server: SftpServer) -> Self {
        Self { server, draining: CancellationToken::new() }
    }
}

impl ProtocolHandler for SftpAdapter {
    fn name(&self) -> &'static str {
        "sftp"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("sftp"))
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let Some(caller) = auth.identity.clone() else {
            return Err(HandlerError::new("the caller is not known"));
        };
        let Some(reach) = self.server.reach(&caller) else {
            connection.close(Code::REFUSED, "");
            return Err(Nothing(caller.name.clone()).into());
        };
        let limits = self.server.limits().clone();
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi(), if sessions.len() < limits.sessions => {
                    let Ok(stream) = stream else { break };
                    let session =
                        serve(self.server.clone(), stream, caller.clone(), auth.clone(), reach.clone());
                    sessions.spawn(session);
                }
                Some(ended) = sessions.join_next() => log_panic(ended),
                () = sleep(limits.start), if sessions.is_empty() => {
                    connection.close(Code::TIMEOUT, "");
                    break;
                }
                () = self.draining.cancelled(), if sessions.is_empty() => break,
            }
        }
        while let Some(ended) = sessions.join_next().await {
            log_panic(ended);
        }
        Ok(())
    }

    async fn shutdown(&self) {
        self.draining.cancel();
    }
}

async fn serve(
    server: SftpServer,
    stream: Stream,
    caller: Arc<Identity>,
    auth: AuthContext,
    reach: Reach,
) {
    if let Err(error) = server.serve(stream, &caller, &auth, reach).await {
        tracing::debug!(%error, cause = error.source(), "an SFTP session ended");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an SFTP session panicked");
    }
}
