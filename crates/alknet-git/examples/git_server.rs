//! A folder of repositories on standard input and output, for
//! `git clone "ext::target/debug/examples/git_server /srv/repos %G/notes"`: whoever starts it
//! may do everything. The same program is what git runs as its hooks.

#![allow(clippy::print_stderr, reason = "an example")]

use std::{env, error::Error, process::ExitCode, sync::Arc};

use alknet_core::{
    Alpn, Audit, AuthContext, Credential, Identity, KeyFingerprint, Scopes, Stream, TransportKind,
};
use alknet_git::{Caller, GitConfig, GitServer, InstalledGit, Repositories, Setup};

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = alknet_git::hook::main() {
        return Ok(code);
    }
    let folder = env::args_os().nth(1).ok_or("name a folder of repositories")?;
    let run = tempfile::tempdir()?;
    let repositories = Repositories::open(folder.as_ref())?;
    let engine =
        InstalledGit::find()?.set_up(&Setup::new(run.path(), alknet_git::hook::program()?))?;
    let server = GitServer::new(GitConfig::new(repositories, engine, Audit::to_log()));

    let everything = Scopes::from_iter(["git"]);
    let key = Credential::Key(KeyFingerprint::of_openssh_blob(b"nobody's"));
    let you = Identity::new("you", "you", everything, key);
    let alpn = Alpn::service("git")?;
    let auth = AuthContext {
        identity: Some(Arc::new(you)),
        ..AuthContext::anonymous(alpn, TransportKind::Memory, None)
    };
    let serve = async {
        let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
        server.serve(Stream::from_bistream(stream), &Caller::of(auth)).await
    };
    tokio::runtime::Runtime::new()?.block_on(serve)?;
    Ok(ExitCode::SUCCESS)
}
