//! `alknet ssh`

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use alknet_core::{Alpn, Code, NodeId};

use super::{
    attach::{self, Attachment},
    dial::Reach,
};
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
///   alknet ssh --attach example.org build
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// [USER@]NODE, where NODE is HOST[:PORT], a saved name, a node id, or a link
    node: String,
    /// Look at a session that goes on without a connection, by `alknet sessions attach`: its
    /// name may follow the node
    #[arg(long)]
    attach: bool,
    #[command(flatten)]
    reach: Reach,
    /// Arguments for ssh and the command to run
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    args: Vec<OsString>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    if args.attach {
        return attach::attach(home, Attachment::named(args.node, &args.args, args.reach)?).await;
    }
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
    let mut ssh = Command::new("ssh");
    for (name, value) in options(home, &address, id, args.reach.via)? {
        ssh.arg("-o").arg(format!("{name}={value}"));
    }
    if !names_control_path(&args.args) {
        // ssh takes a connection that is there before it looks at any host key, and by the
        // user's configuration that may be one to another server of the same name.
        ssh.args(["-o", "ControlPath=none"]);
    }
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

/// Whether ssh's arguments say which connection to share, `none` included.
fn names_control_path(args: &[OsString]) -> bool {
    let mut args = args.iter().map(|arg| arg.as_bytes());
    while let Some([b'-', flags @ ..]) = args.next()
        && flags != b"-"
    {
        let Some(at) = flags.iter().position(|flag| TAKE_VALUES.contains(flag)) else { continue };
        let (_, rest) = flags.split_at(at);
        let value = match rest {
            [_] => args.next(),
            [_, value @ ..] => Some(value),
            [] => None,
        };
        let is_path = |value: &[u8]| {
            let name = value.trim_ascii_start().get(..CONTROL_PATH.len());
            name.is_some_and(|name| name.eq_ignore_ascii_case(CONTROL_PATH))
        };
        if rest.starts_with(b"S") || (rest.starts_with(b"o") && value.is_some_and(is_path)) {
            return true;
        }
    }
    false
}

/// The options of ssh that have a value.
const TAKE_VALUES: &[u8] = b"BbcDEeFIiJLlmOopPQRSWw";
const CONTROL_PATH: &[u8] = b"ControlPath";

/// What ssh has to be told to reach a node and to trust it alone, as in its configuration.
pub(super) fn options(
    home: &Home,
    address: &str,
    id: NodeId,
    via: Via,
) -> Result<[(&'static str, String); 5], Failure> {
    let known_hosts = known_hosts(home, id)?;
    Ok([
        ("HostKeyAlias", id.to_string()),
        ("UserKnownHostsFile", path_value(&known_hosts)?),
        ("GlobalKnownHostsFile", "/dev/null".into()),
        ("StrictHostKeyChecking", "yes".into()),
        ("ProxyCommand", proxy_command(home, address, id, via)?),
    ])
}

/// A `known_hosts` file in which the node's identity is the authority for its host key.
fn known_hosts(home: &Home, id: NodeId) -> Result<std::path::PathBuf, Failure> {
    let name = format!("known_hosts-{}", id.short());
    let line = alknet_ssh::known_hosts_line(&id.to_string(), id)?;
    home.write(&name, format!("{line}\n").as_bytes())?;
    Ok(home.path(&name))
}

fn proxy_command(home: &Home, node: &str, id: NodeId, via: Via) -> Result<String, Failure> {
    let (program, home) = (quoted(&std::env::current_exe()?)?, quoted(home.root())?);
    let node = quoted(Path::new(node))?;
    Ok(format!("{program} --home {home} dial --via {via} --pin {id} {node} ssh"))
}

/// For the shell that runs a ProxyCommand: in single quotes, and `%` doubled for ssh itself.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::new("a path is not UTF-8"))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%")))
}

/// A path as the value of an ssh option: in double quotes, since ssh splits at spaces.
fn path_value(path: &Path) -> Result<String, Failure> {
    if path.as_os_str().as_bytes().iter().any(|b| matches!(b, b'"' | b'\\' | b'\n')) {
        return Err(Failure::new(
            "the path of the state folder has a character that ssh cannot take",
        ));
    }
    let text = path.to_str().ok_or_else(|| Failure::new("a path is not UTF-8"))?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_shared_only_as_the_user_says() {
        let named = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            names_control_path(&words)
        };
        for line in [
            "-S /run/x",
            "-S/run/x uname",
            "-MS x",
            "-p 22 -o ControlPath=x",
            "-ocontrolpath=none",
            "-v -o ControlPath x",
        ] {
            assert!(named(line), "{line}");
        }
        for line in [
            "",
            "-M",
            "uname -S x",
            "-- -S x",
            "-i -S uname",
            "-l -oControlPath=x",
            "-o ControlMaster=auto",
            "-o",
        ] {
            assert!(!named(line), "{line}");
        }
    }

    #[test]
    fn quoting_survives_the_shell_and_ssh() {
        assert_eq!(quoted(Path::new("/a b/it's 5%")).unwrap(), r"'/a b/it'\''s 5%%'");
        assert!(path_value(Path::new("/a\"b")).is_err());
        assert_eq!(path_value(Path::new("/a b%")).unwrap(), "\"/a b%%\"");
    }
}
