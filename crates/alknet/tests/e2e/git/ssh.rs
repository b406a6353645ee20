//! Repositories by SSH, with the stock client.

use std::{fs, path::PathBuf, process::Output};

use super::flows::{self, Remote, Work};
use crate::{
    client::{Client, WAYS, account},
    node::{Home, Node},
    process::{output, stdout, text},
};

/// A node, and somebody whose ssh knows the way to it as `lab`.
pub(super) struct Rig {
    home: Home,
    _node: Node,
    client: Client,
    config: PathBuf,
}

impl Rig {
    pub(super) fn new(via: &str, scopes: &str) -> Self {
        let home = Home::new();
        flows::prepare(&home);
        let node = Node::start(&home, &[]);
        Self::on(home, node, via, scopes)
    }

    fn on(home: Home, node: Node, via: &str, scopes: &str) -> Self {
        let client = Client::known_to(&home, "tester", scopes);
        let config = configure(&client, &node, via);
        Self { home, _node: node, client, config }
    }

    pub(super) fn remote(&self) -> Remote {
        self.remote_as("git")
    }

    fn remote_as(&self, login: &str) -> Remote {
        let ssh = format!("ssh -F {}", self.config.display());
        Remote {
            base: format!("{login}@lab:"),
            repositories: self.home.path().join("repos"),
            environment: vec![("GIT_SSH_COMMAND".into(), ssh)],
            settings: Vec::new(),
            archives: true,
        }
    }

    fn ssh(&self, args: &[&str]) -> Output {
        let mut ssh = std::process::Command::new("ssh");
        ssh.arg("-F").arg(&self.config).args(args).env("SHELL", "/bin/sh");
        output(ssh.env_remove("SSH_AUTH_SOCK").env("HOME", self.client.home.path()))
    }
}

/// What `alknet ssh-config` prints, and the key that a user has besides.
fn configure(client: &Client, node: &Node, via: &str) -> PathBuf {
    let (address, pin) = (node.address().to_string(), node.id().to_string());
    let arguments = ["ssh-config", "--name", "lab", "--via", via, "--pin", &pin, &address];
    let block = stdout(&output(&mut client.home.alknet(&arguments)));
    let key = client.key().display();
    let own = format!("    IdentityFile {key}\n    IdentitiesOnly yes\n    BatchMode yes\n");
    let config = client.home.path().join("ssh_config");
    fs::write(&config, block + &own).unwrap();
    config
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_flow_over_ssh() {
    flows::all(&Rig::new("quic", "git").remote());
}

#[test]
fn every_transport_carries_it() {
    for via in WAYS {
        // Inside HTTPS nobody gets to SSH who has no grant of it.
        let rig = Rig::new(via, "git,ssh");
        let remote = rig.remote();
        let work = Work::new(&remote, "way");
        work.publish();
        work.clone_to("copy", &["--mirror"]);
        work.assert_same("copy", "a");
    }
}

/// Nobody has an account where a node of root's maps none; repositories need none.
#[test]
fn nobody_needs_an_account_for_repositories() {
    let home = Home::new();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--json", "--drain", "1"];
    let node = Node::run_unmapped(&home, home.alknet(&serve));
    let rig = Rig::on(home, node, "tls", "git:read:*,git:write:*,git:create:*");
    let remote = rig.remote();
    let work = Work::new(&remote, "account");
    work.publish();
    work.clone_to("copy", &["--mirror"]);
    work.assert_same("copy", "a");
    if nix::unistd::getuid().is_root() {
        assert_eq!(rig.ssh(&[&format!("{}@lab", account()), "true"]).status.code(), Some(255));
    }
}

#[test]
fn what_is_unknown_or_private_is_told_alike() {
    let rig = Rig::new("tls", "git");
    Work::new(&rig.remote(), "private").publish();
    let other = Client::known_to(&rig.home, "other", "git:read:elsewhere");
    let config = configure(&other, &rig._node, "tls");
    let stranger = Rig { client: other, config, ..rig };
    let said = |repository: &str| {
        let name = format!("flows/private-{repository}");
        let mut said = String::new();
        for command in ["git-upload-pack", "git-receive-pack", "git-upload-archive"] {
            let refused = stranger.ssh(&["git@lab", &format!("{command} '/{name}.git'")]);
            assert_eq!((refused.status.code(), refused.stdout.len()), (Some(128), 0));
            said += &stderr(&refused);
        }
        said.replace(&name, "NAME")
    };
    let (private, missing) = (said("a"), said("b"));
    assert_eq!(private, missing);
    assert!(private.contains("error: there is no repository NAME"), "{private}");
    let remote = stranger.remote();
    let work = Work::new(&remote, "private");
    let complaint = work.refused(".", &["clone", &work.url("a"), "copy"]);
    assert!(complaint.contains("there is no repository"), "{complaint}");
}

#[test]
fn there_is_no_shell_and_no_terminal() {
    let rig = Rig::new("quic", "git,ssh");
    for arguments in [&["git@lab"][..], &["git@lab", "id"]] {
        let told = rig.ssh(arguments);
        let said = stderr(&told);
        assert_eq!(told.status.code(), Some(1), "{said}");
        assert!(said.contains("Hi tester") && said.contains("no shell"), "{said}");
        assert!(told.stdout.is_empty());
    }
    assert!(stderr(&rig.ssh(&["-tt", "git@lab"])).contains("PTY allocation request failed"));
    assert!(!rig.ssh(&["-s", "git@lab", "sftp"]).status.success());
    // As themselves they have one.
    let own = format!("{}@lab", account());
    assert_eq!(stdout(&rig.ssh(&[&own, "echo there"])), "there\n");
}

#[test]
fn a_command_is_a_request_and_nothing_more() {
    let rig = Rig::new("quic", "git");
    let remote = rig.remote();
    let work = Work::new(&remote, "command");
    work.publish();
    let flag = rig.home.path().join("flag");
    let touch = format!("touch {}", flag.display());
    for command in [
        &format!("git-upload-pack 'flows/command-a'; {touch}"),
        &format!("git-upload-pack '$({touch})'"),
        &format!("git-upload-pack '`{touch}`'"),
        &format!("git-upload-pack --upload-pack='{touch}' 'flows/command-a'"),
        "git-upload-pack '../../../etc'",
        "git-upload-pack '-x'",
        "git-upload-pack '--help'",
        "git-upload-pack",
        "git -c core.editor=x upload-pack 'flows/command-a'",
        "git-shell -c id",
        "git gc",
    ] {
        let refused = rig.ssh(&["git@lab", command]);
        assert!(matches!(refused.status.code(), Some(1 | 128)), "{command}: {}", text(&refused));
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty(), "{command}");
    }
    work.refused(".", &["clone", "--upload-pack", &touch, &work.url("a"), "copy"]);
    work.refused("seed", &["push", "--receive-pack", &touch, "origin", "main"]);
    assert!(!flag.exists());
}

/// Whoever may have a shell reaches the files of their account, as with any SSH server; whoever
/// may not reaches repositories under whatever name.
#[test]
fn another_login_name_means_files_where_there_is_a_shell() {
    let rig = Rig::new("quic", "git,ssh");
    let remote = rig.remote();
    let work = Work::new(&remote, "login");
    work.publish();
    let mine = rig.remote_as(&account());
    let url = mine.url("flows/login-a");
    let complaint = work.refused(".", &["ls-remote", &url]);
    assert!(complaint.contains("does not appear to be a git repository"), "{complaint}");
    let own = rig.home.path().join("account/own.git");
    work.git(".", &["clone", "-q", "--bare", "seed", own.to_str().unwrap()]);
    let listed = work.git(".", &["ls-remote", &mine.url("own.git"), "HEAD"]);
    assert!(listed.ends_with("\tHEAD"), "{listed}");

    let other = Client::known_to(&rig.home, "other", "git:read:*");
    let config = configure(&other, &rig._node, "quic");
    let rig = Rig { client: other, config, ..rig };
    let theirs = rig.remote_as(&account());
    let work = Work::new(&theirs, "login");
    let listed = work.git(".", &["ls-remote", &work.url("a"), "HEAD"]);
    assert!(listed.ends_with("\tHEAD"), "{listed}");
    work.refused(".", &["ls-remote", &theirs.url("own.git")]);
}
