//! Subsystems as sshd has them: programs.

use std::{convert::Infallible, process::Stdio, sync::Arc};

use alknet_core::BoxFuture;
use alknet_ssh::{Asker, ChannelService, Request, ServiceChannel};
use tokio::io::{AsyncWriteExt as _, copy};

/// A command line that serves a subsystem.
#[derive(Debug)]
pub(crate) struct Subsystem {
    name: String,
    line: String,
}

impl Subsystem {
    pub(crate) fn of(name: &str, line: &str) -> Arc<dyn ChannelService> {
        Arc::new(Self { name: name.into(), line: line.into() })
    }
}

impl ChannelService for Subsystem {
    fn name(&self) -> &'static str {
        "subsystem"
    }

    fn takes(&self, request: Request<'_>, asker: Asker<'_>) -> bool {
        request == Request::Subsystem(&self.name) && asker.identity.scopes.allow("subsystem")
    }

    fn serve(&self, channel: ServiceChannel) -> BoxFuture<'static, u32> {
        let command = channel.account.as_ref().map(|account| account.shell_command(&self.line));
        Box::pin(async move {
            let Some(mut command) = command else { return 1 };
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let Ok(mut child) = command.spawn() else { return 1 };
            let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take())
            else {
                return 1;
            };
            let (mut send, mut recv) = channel.stream.split();
            let feed = async {
                let _ = copy(&mut recv, &mut input).await;
                let _ = input.shutdown().await;
                drop(input);
                std::future::pending::<Infallible>().await
            };
            tokio::select! {
                _ = copy(&mut output, &mut send) => {}
                never = feed => match never {},
            }
            let status = child.wait().await.ok().and_then(|status| status.code());
            status.and_then(|code| u32::try_from(code).ok()).unwrap_or(1)
        })
    }
}
