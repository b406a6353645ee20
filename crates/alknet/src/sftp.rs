//! SFTP on the node: as a service of its own, and as the subsystem of SSH sessions.

use std::{env, error::Error as _, ffi::OsString};

use alknet_core::{Audit, BoxFuture, Identity};
use alknet_host::Accounts;
use alknet_sftp::{Helper, Reach, SftpConfig, SftpLimits, SftpServer};
use alknet_ssh::{Asker, ChannelService, Request, ServiceChannel};

use crate::{
    config::{ConfigError, Sftp},
    failure::Failure,
};

/// The exit status of a session that failed.
const FAILED: u32 = 1;

/// The server that the configuration describes.
pub(crate) async fn server(
    config: &Sftp,
    accounts: &Accounts,
    audit: &Audit,
) -> Result<SftpServer, Failure> {
    let config = config.clone();
    let exports = tokio::task::spawn_blocking(move || {
        config.exports.iter().map(|(name, export)| export.open(name)).collect::<Result<Vec<_>, _>>()
    });
    let exports = exports.await.map_err(ConfigError::Interrupted)??;
    let limits = SftpLimits::default();
    let helper = Helper { program: env::current_exe()?, arguments: arguments(&limits) };
    Ok(SftpServer::new(SftpConfig {
        accounts: accounts.clone(),
        exports,
        audit: audit.clone(),
        limits,
        helper: Some(helper),
    }))
}

/// What is said to this program where it serves another account: the bounds of a session are
/// its own to keep.
fn arguments(limits: &SftpLimits) -> Vec<OsString> {
    let handles = limits.handles.to_string();
    ["sftp-server", "--report", "--handles", &handles].map(Into::into).into()
}

/// The subsystem `sftp` of SSH sessions.
#[derive(Debug)]
pub(crate) struct Subsystem(pub(crate) SftpServer);

impl Subsystem {
    /// Whoever may have a shell has all files by it; others see what they would see without
    /// SSH.
    fn reach(&self, caller: &Identity) -> Option<Reach> {
        let shell = caller.scopes.allow("ssh:shell");
        if shell { Some(Reach::Account(None)) } else { self.0.reach(caller) }
    }
}

impl ChannelService for Subsystem {
    fn name(&self) -> &'static str {
        "sftp"
    }

    fn needs_no_account(&self, identity: &Identity) -> bool {
        matches!(self.reach(identity), Some(Reach::Exports))
    }

    fn takes(&self, request: Request<'_>, asker: Asker<'_>) -> bool {
        request == Request::Subsystem("sftp") && self.reach(asker.identity).is_some()
    }

    fn serve(&self, channel: ServiceChannel) -> BoxFuture<'static, u32> {
        let (server, reach) = (self.0.clone(), self.reach(&channel.caller));
        Box::pin(async move {
            let ServiceChannel { stream, caller, account, auth, .. } = channel;
            let reach = match reach {
                // SSH has settled as whom they log in.
                Some(Reach::Account(_)) if account.is_some() => Reach::Account(account),
                Some(Reach::Exports) => Reach::Exports,
                Some(Reach::Account(_)) | None => return FAILED,
            };
            match server.serve(stream, &caller, &auth, reach).await {
                Ok(()) => 0,
                Err(error) => {
                    tracing::debug!(%error, cause = error.source(), "an SFTP session failed");
                    FAILED
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::commands::Cli;

    #[test]
    fn the_process_for_another_account_is_told_the_bound_of_a_session() {
        let arguments = arguments(&SftpLimits::default());
        assert_eq!(arguments.last().unwrap(), "512");
        Cli::try_parse_from([OsString::from("alknet")].into_iter().chain(arguments)).unwrap();
    }
}
