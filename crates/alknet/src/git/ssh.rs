//! Repositories by SSH: what git has a login shell run at the other end, without a shell.

use std::error::Error as _;

use alknet_core::{BoxFuture, Stream};
use alknet_git::{Caller, EngineError, Framing, GitError, GitServer, RemoteCommand};
use alknet_ssh::{Asker, ChannelService, Request, ServiceChannel};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::commands::plain;

/// The login name that means repositories, whatever accounts the machine has.
const LOGIN: &str = "git";
/// The variable by which git says which version of its protocol it would like.
const PROTOCOL: &str = "GIT_PROTOCOL";
/// What takes a shell, by which the same commands mean the files of an account.
const SHELL: &str = "ssh:shell";
/// The exit status of what was refused or failed, as git itself has it.
const FAILED: u32 = 128;
/// That of who asked for a shell, as from other hosts of repositories.
const NO_SHELL: u32 = 1;

/// git's commands on SSH channels: they mean the node's repositories under the login name
/// `git`, and of whoever may not have a shell under any name.
#[derive(Debug)]
pub(crate) struct Commands(pub(crate) GitServer);

impl ChannelService for Commands {
    fn name(&self) -> &'static str {
        "git"
    }

    fn login_name(&self) -> Option<&'static str> {
        Some(LOGIN)
    }

    fn variables(&self) -> &'static [&'static str] {
        &[PROTOCOL]
    }

    fn takes(&self, request: Request<'_>, asker: Asker<'_>) -> bool {
        let scopes = &asker.identity.scopes;
        let no_shell = asker.account.is_none() || !scopes.allow(SHELL);
        let named = asker.login_name == LOGIN;
        match request {
            Request::Command(command) if is_ours(command) => named || no_shell,
            // There is nothing else to be had, and this says so.
            Request::Command(_) | Request::Shell => no_shell && (named || scopes.admit("git")),
            Request::Subsystem(_) => false,
        }
    }

    fn serve(&self, channel: ServiceChannel) -> BoxFuture<'static, u32> {
        Box::pin(serve(self.0.clone(), channel))
    }
}

fn is_ours(command: &[u8]) -> bool {
    RemoteCommand::parse(command, "").is_some()
}

async fn serve(server: GitServer, channel: ServiceChannel) -> u32 {
    let ServiceChannel { stream, mut stderr, command, variables, caller, auth, .. } = channel;
    let protocol = variables.iter().rev().find(|(name, _)| name == PROTOCOL);
    let protocol = protocol.map_or("", |(_, value)| value.as_str());
    let asked = command.as_deref().and_then(|command| RemoteCommand::parse(command, protocol));
    let Some(asked) = asked else {
        let who = plain(&caller.name);
        let text = format!("Hi {who}: there are git repositories here, and no shell.");
        complain(&mut stderr, &text).await;
        return NO_SHELL;
    };
    let caller = Caller { identity: Some(caller), auth };
    let served = match asked {
        Ok(command) => perform(&server, command, &caller, stream).await,
        Err(error) => Err(error.into()),
    };
    match served {
        Ok(()) => 0,
        Err(error) => {
            tracing::debug!(%error, cause = error.source(), "a git exchange ended");
            // git has spoken for itself, where it got so far.
            if !matches!(error, GitError::Engine(EngineError::Failed { .. })) {
                complain(&mut stderr, &format!("error: {}", error.told())).await;
            }
            status(&error)
        }
    }
}

async fn perform(
    server: &GitServer,
    command: RemoteCommand,
    caller: &Caller,
    stream: Stream,
) -> Result<(), GitError> {
    match command {
        RemoteCommand::Exchange(request) => {
            let admitted = server.admit(&request, caller).await?;
            let (output, input) = stream.split();
            server.exchange(&request, admitted, Framing::Stateful, input, output).await
        }
        RemoteCommand::LargeFiles { repository, operation } => {
            let (output, input) = stream.split();
            server.lfs_transfer(repository, operation, caller, input, output).await
        }
        other => {
            tracing::warn!(?other, "a command of git's that is not served");
            Err(GitError::Interrupted)
        }
    }
}

/// What git's own exit status was, where it got so far.
fn status(error: &GitError) -> u32 {
    match error {
        GitError::Engine(EngineError::Failed { status, .. }) => {
            status.code().and_then(|code| u32::try_from(code).ok()).unwrap_or(FAILED)
        }
        _ => FAILED,
    }
}

async fn complain(stderr: &mut (impl AsyncWrite + Unpin), text: &str) {
    // Who is gone need not be told.
    let _ = stderr.write_all(format!("{text}\n").as_bytes()).await;
    let _ = stderr.flush().await;
}

#[cfg(test)]
mod tests {
    use alknet_core::Audit;
    use alknet_git::{GitConfig, InstalledGit, Repositories};
    use alknet_host::Account;
    use alknet_testing::identities::identity;

    use super::*;

    fn takes(request: Request<'_>, login_name: &str, scopes: &[&str], account: bool) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity("alice", scopes);
        let account = account.then(|| Account::current().unwrap());
        let asker = Asker { identity: &identity, login_name, account: account.as_ref() };
        let repositories = Repositories::open(folder.path()).unwrap();
        let engine = InstalledGit::named("git");
        let config = GitConfig::new(repositories, engine, Audit::to_log());
        Commands(GitServer::new(config)).takes(request, asker)
    }

    #[test]
    fn who_may_have_a_shell_gets_repositories_by_the_name_of_git_alone() {
        let command = Request::Command(b"git-upload-pack 'x'");
        for (login, scopes, account, taken) in [
            ("git", &["ssh"][..], false, true),
            ("git", &["ssh"], true, true),
            ("git", &["git:read:x"], false, true),
            ("alice", &["ssh", "git"], true, false),
            ("alice", &["git"], true, true),
            ("alice", &["*"], true, false),
        ] {
            assert_eq!(takes(command, login, scopes, account), taken, "{login} {scopes:?}");
        }
    }

    #[test]
    fn other_commands_are_taken_where_they_could_not_run() {
        for request in [Request::Command(b"id"), Request::Shell] {
            assert!(takes(request, "git", &["ssh"], false));
            assert!(takes(request, "alice", &["git:read:x"], true));
            assert!(!takes(request, "git", &["ssh"], true), "an account may be called git");
            assert!(!takes(request, "alice", &["sftp"], true));
        }
        assert!(!takes(Request::Subsystem("sftp"), "git", &["git"], false));
    }
}
