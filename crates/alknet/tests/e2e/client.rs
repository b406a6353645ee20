//! Somebody with an SSH key and a machine of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use alknet_core::NodeId;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    node::{Home, Node},
    process::{output, stdout},
};

/// The transports by which a native client reaches a service.
pub(crate) const WAYS: [&str; 4] = ["quic", "tls", "webtransport", "websocket"];

pub(crate) struct Client {
    pub(crate) home: Home,
    key: PathBuf,
}

impl Client {
    /// Unknown to every node.
    pub(crate) fn new() -> Self {
        let home = Home::new();
        let key = home.path().join("ssh-key");
        stdout(&output(
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key),
        ));
        Self { home, key }
    }

    /// Known to a node by its SSH key and its machine's key.
    pub(crate) fn known_to(node: &Home, name: &str, scopes: &str) -> Self {
        let client = Self::new();
        let public = client.public_key();
        let id = client.home.id();
        let add = ["peer", "add", name, "--key", &public, "--key", &id, "--scope", scopes];
        stdout(&output(&mut node.alknet(&add)));
        client
    }

    /// The file of the SSH key.
    pub(crate) fn key(&self) -> &Path {
        &self.key
    }

    /// The line of the SSH key's public half.
    pub(crate) fn public_key(&self) -> String {
        fs::read_to_string(self.key.with_extension("pub")).unwrap().trim().to_owned()
    }

    /// `ssh` to a node by a transport; the remote command is to be added. It trusts the
    /// node's identity and nothing else, twice over: `alknet dial` pins it, and ssh
    /// takes it for the authority behind the host key.
    pub(crate) fn ssh(&self, node: &Node, via: &str) -> Command {
        self.ssh_as(node, via, &account())
    }

    pub(crate) fn ssh_as(&self, node: &Node, via: &str, account: &str) -> Command {
        let known_hosts = self.known_hosts(node.id());
        let dial = format!(
            "ProxyCommand={} dial {} ssh --via {via} --pin {}",
            env!("CARGO_BIN_EXE_alknet"),
            node.address(),
            node.id()
        );
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-i"]).arg(&self.key);
        let known_hosts = format!("UserKnownHostsFile={}", known_hosts.display());
        // Host certificates name the node by its id.
        let alias = format!("HostKeyAlias={}", node.id());
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=none",
            &known_hosts,
            &alias,
            &dial,
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("{account}@node"));
        ssh.env("ALKNET_HOME", self.home.path()).env("SHELL", "/bin/sh").env_remove("ALKNET_LOG");
        ssh
    }

    /// Written once: another ssh may be reading it.
    fn known_hosts(&self, node: NodeId) -> PathBuf {
        let file = self.home.path().join(format!("known_hosts-{}", node.short()));
        if !file.exists() {
            fs::write(&file, format!("@cert-authority * {}\n", openssh_key(node))).unwrap();
        }
        file
    }
}

/// The account that the node serves: the one it runs as.
pub(crate) fn account() -> String {
    nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name
}

/// A node's identity as OpenSSH writes an Ed25519 key (RFC 8709).
fn openssh_key(id: NodeId) -> String {
    const KIND: &[u8] = b"ssh-ed25519";
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let blob = [field(KIND), field(id.as_bytes())].concat();
    format!("ssh-ed25519 {}", STANDARD.encode(blob))
}
