//! The handler of `alknet/shell`.

use std::time::Duration;

use alknet_core::{Alpn, AuthContext, Code, Connection, HandlerError, ProtocolHandler, Scopes};
use tokio::{task::JoinSet, time::sleep};

use crate::{Shells, attachment};

/// How long a connection may be without a stream.
const IDLE: Duration = Duration::from_secs(30);

/// What starts, types and ends.
const TYPE: &str = "shell:type";
/// What looks on.
const VIEW: &str = "shell:view";

/// Whether these scopes are enough to start, type and end.
pub(crate) fn may_type(scopes: &Scopes) -> bool {
    scopes.allow(TYPE)
}

/// The handler of `alknet/shell`: every stream that the peer opens is one attachment or one
/// request.
#[derive(Debug)]
pub struct ShellAdapter {
    shells: Shells,
}

impl ShellAdapter {
    /// A handler for these sessions.
    pub fn new(shells: Shells) -> Self {
        Self { shells }
    }
}

impl ProtocolHandler for ShellAdapter {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("shell"))
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let Some(identity) = auth.identity.clone().filter(|it| it.scopes.allow(VIEW)) else {
            connection.close(Code::REFUSED, "");
            return Ok(());
        };
        let closing = self.shells.closing();
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi(), if streams.len() < self.shells.limits().streams => {
                    let Ok(stream) = stream else { break };
                    let (shells, auth) = (self.shells.clone(), auth.clone());
                    streams.spawn(attachment::serve(shells, stream, auth, identity.clone()));
                }
                Some(ended) = streams.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an attachment panicked");
                    }
                }
                () = closing.cancelled(), if streams.is_empty() => {
                    connection.close(Code::SHUTTING_DOWN, "");
                    break;
                }
                () = sleep(IDLE), if streams.is_empty() => {
                    connection.close(Code::TIMEOUT, "");
                    break;
                }
            }
        }
        self.shells.settle(&auth);
        Ok(())
    }

    async fn shutdown(&self) {
        self.shells.shutdown().await;
    }
}
