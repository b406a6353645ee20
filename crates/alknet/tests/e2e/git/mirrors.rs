//! Mirrors of repositories behind real servers.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{
    flows::{OBJECTS, REFS, Remote, Work, sorted},
    http,
};
use crate::{
    client::{Client, account},
    limits::event_identity,
    node::{Home, Node},
    process::{eventually, output, output_with, stdout, text},
    ssh_clients::{Running, free_port},
};

/// The mirror.
const COPY: &str = "copies/tool";
/// Everything here is on this machine, where nothing is fetched from unless it is said.
const CONFIG: &str = "[git]\nmirror_networks = [\"127.0.0.0/8\"]\n";

/// A state folder with a mirror, and a repository elsewhere that somebody works on.
struct Rig<'a> {
    home: &'a Home,
    work: Work<'a>,
    /// The bare repository that the mirror is one of.
    source: &'a Path,
}

impl<'a> Rig<'a> {
    /// Sets the mirror of a source that has some history.
    fn new(home: &'a Home, local: &'a Remote, source: &'a Path, url: &str, more: &[&str]) -> Self {
        let rig = Self { home, work: Work::new(local, "mirror"), source };
        rig.work.seed("seed");
        rig.work.git("seed", &["branch", "trunk", "HEAD~1"]);
        rig.push();
        rig.there(&["symbolic-ref", "HEAD", "refs/heads/trunk"]);
        let set = [&["git", "mirror", COPY, url, "--json"], more].concat();
        let set: Value = serde_json::from_str(&stdout(&output(&mut home.alknet(&set)))).unwrap();
        assert_eq!(set["mirror"]["url"], url);
        rig
    }

    fn push(&self) {
        self.work.git("seed", &["push", "-q", "--mirror", self.source.to_str().unwrap()]);
    }

    fn there(&self, args: &[&str]) -> String {
        let folder = ["--git-dir", self.source.to_str().unwrap()];
        self.work.git(".", &[&folder, args].concat())
    }

    fn here(&self, args: &[&str]) -> String {
        let folder = self.home.path().join(format!("repos/{COPY}.git"));
        self.work.git(".", &[&["--git-dir", folder.to_str().unwrap()], args].concat())
    }

    /// Both are whole, with the same objects under the same refs.
    fn assert_same(&self) {
        let fsck = ["fsck", "--strict", "--full"];
        self.here(&fsck);
        self.there(&fsck);
        assert_eq!(self.here(REFS), self.there(REFS));
        let (here, there) = (self.here(OBJECTS), self.there(OBJECTS));
        assert!(!here.is_empty() && sorted(&here) == sorted(&there));
        assert_eq!(self.here(&["symbolic-ref", "HEAD"]), self.there(&["symbolic-ref", "HEAD"]));
    }

    /// What the state folder says of the mirror.
    fn status(&self) -> Value {
        let show = ["git", "show", COPY, "--json"];
        let shown = stdout(&output(&mut self.home.alknet(&show)));
        serde_json::from_str::<Value>(&shown).unwrap()["mirror"].take()
    }

    /// Follows the source by `look`, also where that takes force, until it goes, and then says
    /// so.
    #[track_caller]
    fn follows(&self, look: impl Fn() -> Output, go: impl FnOnce(), complaint: &str) {
        let look = || {
            eventually("a look", || {
                // The running node may be at it.
                Some(look()).filter(|looked| !text(looked).contains("looked after already"))
            })
        };
        stdout(&look());
        self.assert_same();
        // Whoever lets it look, what has come is in the audit log.
        let came = self.home.audited("a look", |event| event["event"] == "git-mirror");
        let (there, named) = (self.there(REFS), came["changes"].as_array().unwrap());
        assert_eq!((&came["repository"], named.len()), (&COPY.into(), there.lines().count()));
        let work = &self.work;
        work.git("seed", &["commit", "-q", "--amend", "-m", "another past"]);
        work.git("seed", &["branch", "-q", "-D", "feature/x"]);
        work.git("seed", &["tag", "-d", "light"]);
        work.git("seed", &["tag", "new"]);
        self.push();
        stdout(&look());
        self.assert_same();
        assert!(!self.here(REFS).contains("feature/x"));
        let status = self.status();
        assert!(status["failures"] == 0 && status["last_error"].is_null(), "{status}");
        let before = self.here(REFS);
        go();
        let failed = look();
        assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(said.starts_with("error: ") && said.contains(complaint), "{said}");
        let status = self.status();
        assert!(status["failures"].as_u64() >= Some(1), "{status}");
        assert!(status["last_error"].as_str().unwrap().contains(complaint), "{status}");
        assert_eq!(self.here(REFS), before);
    }
}

/// Looks for news as a command beside the repositories.
fn now(home: &Home) -> Output {
    output(&mut home.alknet(&["git", "mirror", COPY, "--now"]))
}

/// A state folder that may fetch from this machine.
fn home() -> Home {
    let home = Home::new();
    fs::write(home.path().join("alknet.toml"), CONFIG).unwrap();
    home
}

/// git with nothing of a remote's.
fn local(home: &Home) -> Remote {
    Remote {
        base: String::new(),
        repositories: home.path().join("repos"),
        environment: Vec::new(),
        settings: Vec::new(),
        archives: false,
    }
}

/// An empty bare repository in a folder.
fn bare(folder: &Path) -> PathBuf {
    let path = folder.join("source.git");
    stdout(&output(Command::new("git").args(["init", "-q", "--bare"]).arg(&path)));
    path
}

#[test]
fn of_gits_own_daemon() {
    let (home, elsewhere, port) = (home(), Home::new(), free_port());
    let (local, source) = (local(&home), bare(elsewhere.path()));
    let folder = stdout(&output(Command::new("git").arg("--exec-path")));
    // Not by `git daemon`, whose child would outlive it.
    let mut daemon = Command::new(Path::new(folder.trim()).join("git-daemon"));
    daemon.args(["--export-all", "--listen=127.0.0.1", "--reuseaddr"]);
    daemon.arg(format!("--port={port}")).arg(format!("--base-path={}", elsewhere.path().display()));
    let daemon = Running(daemon.stderr(Stdio::null()).spawn().unwrap());
    eventually("the daemon", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
    let url = format!("git://127.0.0.1:{port}/source.git");
    let rig = Rig::new(&home, &local, &source, &url, &[]);
    rig.follows(|| now(&home), || drop(daemon), "unable to connect to 127.0.0.1");
}

/// The key is the mirror's, and the host key is remembered.
#[test]
fn of_a_repository_behind_sshd() {
    let (home, elsewhere, port) = (home(), Client::new(), free_port());
    let folder = elsewhere.home.path();
    let (local, source) = (local(&home), bare(folder));
    let (config, host) = (folder.join("sshd_config"), folder.join("host"));
    let start = || {
        let _ = fs::remove_file(&host);
        let mut make = Command::new("ssh-keygen");
        stdout(&output(make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&host)));
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(&config).stderr(Stdio::null());
        let sshd = Running(sshd.spawn().unwrap());
        eventually("sshd", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        sshd
    };
    let text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
         StrictModes no\nUsePAM no\nPidFile none\n",
        host.display(),
        elsewhere.key().with_extension("pub").display()
    );
    fs::write(&config, text).unwrap();
    drop(fs::create_dir_all("/run/sshd"));
    let sshd = start();
    let url = format!("ssh://{}@127.0.0.1:{port}{}", account(), source.display());
    let key = elsewhere.key().to_str().unwrap();
    let rig = Rig::new(&home, &local, &source, &url, &["--credentials", key]);
    rig.follows(|| now(&home), || drop(sshd), "Connection refused");

    // Another host in its place is not taken for it.
    let _other = start();
    let refused = String::from_utf8_lossy(&now(&home).stderr).into_owned();
    assert!(refused.contains("IDENTIFICATION HAS CHANGED"), "{refused}");
    // Without a key there is none of the account's.
    let set = ["git", "mirror", COPY, url.as_str()];
    stdout(&output(&mut home.alknet(&set)));
    fs::remove_file(home.path().join(format!("repos/{COPY}.git/alknet-known-hosts"))).unwrap();
    let refused = String::from_utf8_lossy(&now(&home).stderr).into_owned();
    assert!(refused.contains("Permission denied"), "{refused}");
}

/// A node's smart HTTP, behind a certificate that only the mirror's own setting trusts.
#[test]
fn of_a_repository_by_https() {
    let (home, elsewhere) = (home(), http::Rig::new());
    let local = local(&home);
    let create = ["git", "create", "team/tool"];
    stdout(&output(&mut elsewhere.home.alknet(&create)));
    let source = elsewhere.home.path().join("repos/team/tool.git");
    let token = elsewhere.token("git:read:team/tool");
    let credentials = home.path().join("credentials");
    let (url, port) = (format!("{}team/tool", elsewhere.base()), elsewhere.node.port());
    fs::write(&credentials, format!("https://any:{token}@localhost:{port}\n")).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    let more = ["--credentials", credentials.to_str().unwrap()];
    let rig = Rig::new(&home, &local, &source, &url, &more);
    let untrusted = String::from_utf8_lossy(&now(&home).stderr).into_owned();
    assert!(untrusted.contains("certificate"), "{untrusted}");
    rig.here(&["config", "http.sslCAInfo", elsewhere.authority.to_str().unwrap()]);

    // Who may not read it learns nothing of it.
    let wrong = format!("https://any:{}@localhost:{port}\n", elsewhere.token("git:read:other"));
    let right = fs::read_to_string(&credentials).unwrap();
    fs::write(&credentials, &wrong).unwrap();
    let refused = String::from_utf8_lossy(&now(&home).stderr).into_owned();
    assert!(refused.contains("not found") && !refused.contains("alk_"), "{refused}");
    assert_eq!(fs::read_to_string(&credentials).unwrap(), wrong);
    fs::write(&credentials, right).unwrap();

    let http::Rig { node, .. } = elsewhere;
    rig.follows(|| now(&home), || drop(node), "Failed to connect to localhost");
    assert!(!rig.status().to_string().contains(&token));
}

/// A node with a repository, and another that mirrors it.
struct Nodes {
    there: Home,
    source: Node,
    here: Home,
    local: Remote,
    repository: PathBuf,
}

impl Nodes {
    fn new() -> Self {
        let (there, here) = (Home::new(), home());
        let source = Node::start(&there, &[]);
        stdout(&output(&mut there.alknet(&["git", "create", "team/tool"])));
        let repository = there.path().join("repos/team/tool.git");
        let local = local(&here);
        Self { there, source, here, local, repository }
    }

    /// As its owner does there.
    fn grant(&self, scopes: &str) {
        let id = self.here.id();
        let add = ["peer", "add", "copies", "--key", &id, "--scope", scopes];
        stdout(&output(&mut self.there.alknet(&add)));
    }

    fn url(&self) -> String {
        format!("alknet://{}/team/tool", self.source.address())
    }

    fn rig(&self) -> Rig<'_> {
        Rig::new(&self.here, &self.local, &self.repository, &self.url(), &[])
    }
}

#[test]
fn of_a_repository_of_another_node_by_the_running_one() {
    let nodes = Nodes::new();
    nodes.grant("git:read:team/tool");
    let (id, url) = (nodes.source.id().to_string(), nodes.url());
    let Nodes { there, source, here, local, repository } = nodes;
    let rig = Rig::new(&here, &local, &repository, &url, &[]);
    let node = Node::start(&here, &[]);
    let admin = Client::known_to(&here, "admin", "git:admin:copies/*");
    let address = node.address().to_string();
    let look = ["git", "mirror", COPY, "--now", "--node", &address];
    let look = || output(&mut admin.home.alknet(&look));
    rig.follows(look, || drop(source), "cannot be fetched from");
    // The other node knows who that was, and who it was is known here.
    let fetched = there.audited("a fetch", |event| event["event"] == "git-fetch");
    assert_eq!(fetched["identity"], event_identity(&there, "copies"));
    let known = fs::read_to_string(here.path().join("known_nodes")).unwrap();
    assert!(known.contains(&id), "{known}");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// A token that somebody has saved is theirs, and no node's.
#[test]
fn of_another_node_with_the_identity_of_this_one_alone() {
    let nodes = Nodes::new();
    let rig = nodes.rig();
    let stranger = now(&nodes.here);
    assert_eq!(stranger.status.code(), Some(1), "{}", text(&stranger));
    assert!(text(&stranger).contains("hint: it has to know this node"), "{}", text(&stranger));
    let token = stdout(&output(&mut nodes.there.alknet(&["token", "create", "--scope", "git"])));
    let (address, id) = (nodes.source.address().to_string(), nodes.source.id().to_string());
    let login = ["login", address.as_str(), "--pin", &id];
    stdout(&output_with(&mut nodes.here.alknet(&login), token.as_bytes()));
    // To a person it opens the repository.
    let list = ["git", "list", "--node", &address];
    assert!(stdout(&output(&mut nodes.here.alknet(&list))).contains("team/tool"));
    assert_eq!(now(&nodes.here).status.code(), Some(1));
    assert_eq!(rig.here(REFS), "");
    nodes.grant("git:read:elsewhere");
    let refused = text(&now(&nodes.here));
    assert!(refused.contains("there is no repository team/tool"), "{refused}");
}

#[test]
fn of_no_other_node_than_the_one_that_is_known() {
    let nodes = Nodes::new();
    nodes.grant("git:read:team/tool");
    let rig = nodes.rig();
    stdout(&now(&nodes.here));
    rig.assert_same();
    let pins = nodes.here.path().join("known_nodes");
    let known = fs::read_to_string(&pins).unwrap();
    fs::write(&pins, known.replace(&nodes.source.id().to_string(), &nodes.here.id())).unwrap();
    let refused = text(&now(&nodes.here));
    assert!(refused.contains("identity") && refused.contains("listening in"), "{refused}");
    rig.assert_same();
}

/// The rule for addresses holds for nodes too, before anybody is connected to.
#[test]
fn of_no_node_in_a_network_that_is_not_named() {
    let nodes = Nodes::new();
    nodes.grant("git:read:team/tool");
    let rig = nodes.rig();
    fs::remove_file(nodes.here.path().join("alknet.toml")).unwrap();
    let refused = text(&now(&nodes.here));
    for said in ["fetches nothing", "mirror_networks"] {
        assert!(refused.contains(said), "{refused}");
    }
    assert!(rig.status()["last_error"].as_str().unwrap().contains("fetches nothing"));
    assert!(!nodes.here.path().join("known_nodes").exists());
    assert!(nodes.there.audit().iter().all(|event| event["event"] != "git-fetch"));
}

/// Whoever administers a repository does not borrow the node's identity.
#[test]
fn of_another_node_by_nobody_from_afar() {
    let nodes = Nodes::new();
    nodes.grant("git:read:team/tool");
    let node = Node::start(&nodes.here, &[]);
    let admin = Client::known_to(&nodes.here, "admin", "git");
    let (address, url) = (node.address().to_string(), nodes.url());
    let set = ["git", "mirror", COPY, &url, "--node", &address];
    let refused = output(&mut admin.home.alknet(&set));
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("a command on this one"), "{}", text(&refused));
    assert!(!nodes.here.path().join(format!("repos/{COPY}.git")).exists());
}
