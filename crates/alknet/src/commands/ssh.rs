//! `alknet ssh`

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use alknet_core::{Alpn, Code, NodeId};

use super::dial::Reach;
use crate::{
    connect::{self, Via},
    failure::Failure,
    home::Home,
    known_nodes,
};

/// Run ssh to a node's shell, with host key and transport set up
///
/// The host key is checked against the node's identity, so ssh asks nothing. Everything
/// after the node goes to ssh as it is.
///
/// Examples:
///   alknet ssh root@example.org
///   alknet ssh --via webtransport example.org uname -a
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// [USER@]NODE, where NODE is HOST[:PORT], a saved name, a node id, or a link
    node: String,
    #[command(flatten)]
    reach: Reach,
    /// Arguments for ssh and the command to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    args: Vec<OsString>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let (user, node) = match args.node.rsplit_once('@') {
        Some((user, node)) => (Some(user), node),
        None => (None, args.node.as_str()),
    };
    let address = known_nodes::resolve(home, node)?.address;
    let id = match args.reach.pin {
        Some(id) => id,
        None => identity(home, node, args.reach.via).await?,
    };
    // ssh takes its name for the host from here: for messages, and for its configuration.
    let host = if node.starts_with("https://") { address.as_str() } else { node };
    let known_hosts = known_hosts(home, id)?;
    let mut ssh = Command::new("ssh");
    ssh.arg("-o").arg(proxy_command(home, &address, id, args.reach.via)?);
    ssh.arg("-o").arg(format!("HostKeyAlias={id}"));
    ssh.arg("-o").arg(option("UserKnownHostsFile", &known_hosts)?);
    ssh.args(["-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"]);
    if let Some(user) = user {
        ssh.arg("-l").arg(user);
    }
    ssh.arg(host).args(&args.args);
    // Returns only if ssh could not be run.
    let error = ssh.exec();
    Err(Failure::from(error).context("running ssh").hint("install OpenSSH's client"))
}

/// Who the node is: known already, or found out, and pinned, by connecting once.
pub(super) async fn identity(home: &Home, node: &str, via: Via) -> Result<NodeId, Failure> {
    if let Some(id) = known_nodes::resolve(home, node)?.id {
        return Ok(id);
    }
    let connected = connect::reach(home, node, None, Alpn::service("ssh")?, via).await?;
    connected.end(Code::NORMAL).await;
    Ok(connected.node)
}

/// A `known_hosts` file in which the node's identity is the authority for its host key.
fn known_hosts(home: &Home, id: NodeId) -> Result<std::path::PathBuf, Failure> {
    let name = format!("run/known_hosts-{}", id.short());
    let line = alknet_ssh::known_hosts_line(&id.to_string(), id)?;
    home.write(&name, format!("{line}\n").as_bytes())?;
    Ok(home.path(&name))
}

fn proxy_command(home: &Home, node: &str, id: NodeId, via: Via) -> Result<OsString, Failure> {
    let program = std::env::current_exe()?;
    let mut command = OsString::from("ProxyCommand=");
    command.push(quoted(&program)?);
    command.push(" --home ");
    command.push(quoted(home.root())?);
    command.push(format!(" dial --via {via} --pin {id} "));
    command.push(quoted(Path::new(node))?);
    command.push(" ssh");
    Ok(command)
}

/// For the shell that runs a ProxyCommand: in single quotes, and `%` doubled for ssh itself.
fn quoted(path: &Path) -> Result<OsString, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::new("a path is not UTF-8"))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%")).into())
}

/// An ssh option whose value is a path: in double quotes, since ssh splits at spaces.
fn option(name: &str, path: &Path) -> Result<OsString, Failure> {
    if path.as_os_str().as_bytes().iter().any(|b| matches!(b, b'"' | b'\\' | b'\n')) {
        return Err(Failure::new(
            "the path of the state folder has a character that ssh cannot take",
        ));
    }
    let mut option = OsString::from(format!("{name}=\""));
    option.push(path.to_string_lossy().replace('%', "%%"));
    option.push("\"");
    Ok(option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_the_shell_and_ssh() {
        assert_eq!(quoted(Path::new("/a b/it's 5%")).unwrap(), r"'/a b/it'\''s 5%%'");
        assert!(option("X", Path::new("/a\"b")).is_err());
        assert_eq!(option("X", Path::new("/a b%")).unwrap(), "X=\"/a b%%\"");
    }
}
