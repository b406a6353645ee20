//! Repositories by `alknet://`, and what else goes over streams of `alknet/git`.

use std::{fs, process::Command};

use super::flows::{self, Remote, Work};
use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{output, stdout, text},
};

/// A node, and somebody whose git knows the way to it.
pub(crate) struct Rig {
    pub(crate) home: Home,
    pub(crate) node: Node,
    pub(crate) client: Client,
}

impl Rig {
    pub(crate) fn new(scopes: &str) -> Self {
        let home = Home::new();
        flows::prepare(&home);
        let node = Node::start(&home, &[]);
        let client = Client::known_to(&home, "tester", scopes);
        install_helper(&client.home);
        Self { home, node, client }
    }

    /// The repositories by the remote helper.
    pub(crate) fn remote(&self, via: &str) -> Remote {
        self.remote_of(&self.client.home, via)
    }

    /// The same for another machine.
    fn remote_of(&self, client: &Home, via: &str) -> Remote {
        let path = std::env::var("PATH").unwrap();
        Remote {
            base: format!("alknet://{}/", self.node.address()),
            repositories: self.home.path().join("repos"),
            environment: vec![
                ("PATH".into(), format!("{}:{path}", client.path().join("bin").display())),
                ("ALKNET_HOME".into(), client.path().display().to_string()),
                ("ALKNET_VIA".into(), via.into()),
            ],
            settings: Vec::new(),
            archives: true,
        }
    }

    /// Somebody else's machine, known to the node or not.
    fn other(&self, scopes: Option<&str>) -> Client {
        let client = match scopes {
            Some(scopes) => Client::known_to(&self.home, "other", scopes),
            None => Client::new(),
        };
        install_helper(&client.home);
        client
    }
}

/// As a user does it once.
pub(super) fn install_helper(client: &Home) {
    let bin = client.path().join("bin");
    let dir = bin.to_str().unwrap();
    let mut install = client.alknet(&["git", "install-helper", "--dir", dir, "--json"]);
    // Nothing of the user's own is changed.
    let config = client.path().join("gitconfig");
    let installed = output(install.env("GIT_CONFIG_GLOBAL", &config));
    let installed: serde_json::Value = serde_json::from_str(&stdout(&installed)).unwrap();
    assert_eq!(installed["found"], false);
    let set = fs::read_to_string(&config).unwrap();
    assert!(installed["submodules"] == true && set.contains("allow = always"), "{set}");
    assert!(bin.join("git-remote-alknet").exists());
}

#[test]
fn every_flow_over_quic() {
    flows::all(&Rig::new("git").remote("quic"));
}

#[test]
fn every_flow_over_tls() {
    flows::all(&Rig::new("git").remote("tls"));
}

#[test]
fn every_flow_over_webtransport() {
    flows::all(&Rig::new("git").remote("webtransport"));
}

#[test]
fn every_flow_over_websocket() {
    flows::all(&Rig::new("git").remote("websocket"));
}

/// The helper in the place of which `alknet dial` and git's own `ext::` do as well.
#[test]
fn a_stream_is_all_it_takes() {
    let rig = Rig::new("git");
    let work = rig.remote("quic");
    Work::new(&work, "ext").publish();
    let program = env!("CARGO_BIN_EXE_alknet");
    let remote = Remote {
        base: format!("ext::{program} dial {} git %G/", rig.node.address()),
        ..rig.remote("auto")
    };
    let work = Work::new(&remote, "ext");
    let url = work.url("a");
    work.git(".", &["-c", "protocol.ext.allow=always", "clone", "-q", "--mirror", &url, "copy"]);
    work.assert_same("copy", "a");
}

#[test]
fn a_node_is_found_as_everywhere_else() {
    let rig = Rig::new("git");
    let remote = rig.remote("quic");
    let work = Work::new(&remote, "names");
    work.publish();
    let id = rig.node.id().to_string();
    for (node, repository) in [
        (rig.node.address().to_string(), "flows/names-a.git"),
        (format!("localhost:{}", rig.node.port()), "flows/names-a"),
        (id, "/flows/names-a/".trim_start_matches('/')),
    ] {
        let url = format!("alknet://{node}/{repository}");
        let listed = work.git(".", &["ls-remote", &url, "HEAD"]);
        assert!(listed.ends_with("\tHEAD"), "{url}: {listed}");
        // Without the slashes as well.
        work.git(".", &["ls-remote", &url.replacen("alknet://", "alknet::", 1)]);
    }
    // git's own setting counts where the variable is not set.
    let mut list = work.command(".", &["-c", "alknet.via=pigeon", "ls-remote", &work.url("a")]);
    list.env_remove("ALKNET_VIA");
    let refused = output(&mut list);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && complaint.contains("alknet.via"), "{complaint}");
}

#[test]
fn the_first_meeting_is_told_and_another_identity_is_an_error() {
    let rig = Rig::new("git");
    let remote = rig.remote("tls");
    let work = Work::new(&remote, "pins");
    work.publish();
    // A machine that has not been here before, with the same key.
    fs::remove_file(rig.client.home.path().join("known_nodes")).unwrap();
    let list = || work.output(".", &["ls-remote", &work.url("a")]);
    let met = text(&list());
    assert!(met.contains("trusted from now on"), "{met}");
    assert!(!text(&list()).contains("trusted"));
    let pins = rig.client.home.path().join("known_nodes");
    let known = fs::read_to_string(&pins).unwrap();
    let id = rig.node.id().to_string();
    fs::write(&pins, known.replace(&id, &rig.client.home.id())).unwrap();
    let refused = list();
    assert_eq!(refused.status.code(), Some(128));
    let said = text(&refused);
    assert!(said.contains("identity") && said.contains("hint: "), "{said}");
}

/// The same words for everything that is not theirs to know of.
#[test]
fn a_stranger_cannot_tell_what_is_private_from_what_is_not_there() {
    let rig = Rig::new("git");
    Work::new(&rig.remote("quic"), "private").publish();
    for scopes in [None, Some("sftp"), Some("git:read:elsewhere,git:write:flows/private")] {
        let client = rig.other(scopes);
        for via in WAYS {
            let remote = rig.remote_of(&client.home, via);
            let work = Work::new(&remote, "stranger");
            work.seed("mine");
            let said = |name: &str| {
                let url = remote.url(name);
                let push = ["push", &url, "main"];
                let archive = format!("--remote={url}");
                let said = [
                    work.refused(".", &["ls-remote", &url]),
                    work.refused(".", &["clone", &url, "copy"]),
                    work.refused("mine", &push),
                    work.refused(".", &["archive", &archive, "main"]),
                ];
                said.join("\n").replace(name, "NAME")
            };
            // The first time has a line more, about the node that is met.
            said("flows/private-c");
            let (private, missing) = (said("flows/private-a"), said("flows/private-b"));
            assert_eq!(private, missing, "{via} {scopes:?}");
            assert!(!private.contains("HEAD"), "{private}");
        }
    }
    assert!(!rig.home.path().join("repos/flows/private-b.git").exists());
}

/// What a reader may not do, they are told of; what is public, they may read.
#[test]
fn a_reader_reads_and_does_not_write() {
    let rig = Rig::new("git");
    Work::new(&rig.remote("quic"), "read").publish();
    let reader = rig.other(Some("git:read:flows/*"));
    let remote = rig.remote_of(&reader.home, "tls");
    let work = Work::new(&remote, "read");
    work.clone_to("copy", &["--mirror"]);
    work.assert_same("copy", "a");
    work.clone_to("mine", &[]);
    work.commit("mine", 30);
    let complaint = work.refused("mine", &["push", "origin", "main"]);
    assert!(complaint.contains("you may not push"), "{complaint}");
    let complaint = work.refused("mine", &["push", &work.url("new"), "main"]);
    assert!(complaint.contains("there is no repository"), "{complaint}");
}

#[test]
fn names_that_lead_elsewhere_lead_nowhere() {
    let rig = Rig::new("git");
    let remote = rig.remote("quic");
    let work = Work::new(&remote, "names");
    work.publish();
    fs::create_dir_all(rig.home.path().join("secret.git")).unwrap();
    for name in [
        "../secret",
        "flows/../../secret",
        "--upload-pack=id",
        "-x",
        "flows//names-a",
        "flows/names-a.git/objects",
        "Flows/names-a",
        "flows/%2e%2e/x",
        "",
    ] {
        let url = remote.url(name);
        assert!(!work.refused(".", &["ls-remote", "--", &url]).is_empty(), "{name}");
        work.refused("seed", &["push", "--", &url, "main"]);
    }
    // Another program at the other end is not to be had, and what is asked for is not run.
    let flag = work.at("flag");
    let program = format!("--upload-pack=touch {} ; git-upload-pack", flag.display());
    let listed = work.output(".", &["ls-remote", &program, &work.url("a")]);
    assert!(text(&listed).contains("not supported"), "{}", text(&listed));
    assert!(!flag.exists());
    let folders = fs::read_dir(rig.home.path().join("repos")).unwrap().flatten();
    let names: Vec<_> = folders.map(|it| it.file_name()).filter(|it| it != "flows").collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with('.')), "{names:?}");
}

/// git may go at any moment; the helper has nothing to say about it.
#[test]
fn the_helper_ends_with_git() {
    let rig = Rig::new("git");
    let remote = rig.remote("tls");
    let work = Work::new(&remote, "ends");
    work.publish();
    let helper = |input: &[u8], args: &[&str]| {
        let mut command = Command::new(rig.client.home.path().join("bin/git-remote-alknet"));
        command.args(args).envs(remote.environment.iter().cloned());
        crate::process::output_with(&mut command, input)
    };
    let url = work.url("a");
    let done = helper(b"capabilities\n\n", &["origin", &url]);
    assert_eq!(stdout(&done), "connect\noption\n\n");
    let connected = helper(b"connect git-upload-pack\n", &["origin", &url]);
    assert!(stdout(&connected).starts_with('\n'), "{}", text(&connected));
    for (args, status) in [
        (&["origin"][..], 2),
        (&["origin", "alknet://lab"], 1),
        (&["origin", "alknet://me@lab/x"], 1),
        (&["origin", "alknet://127.0.0.1:1/x"], 1),
    ] {
        let failed = helper(b"connect git-upload-pack\n", args);
        assert_eq!(failed.status.code(), Some(status), "{}", text(&failed));
        assert!(failed.stdout.is_empty() && text(&failed).contains("error: "));
    }
    let unknown = helper(b"list\n", &["origin", &url]);
    assert_eq!(unknown.status.code(), Some(1));
}
