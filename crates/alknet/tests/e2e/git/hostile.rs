//! Whoever means harm to repositories: names that lead out, packs that are none, floods, and
//! strangers who want to know what there is.

mod floods;
mod hooks;
mod packs;
mod paths;
mod rights;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use alknet_core::{Connection, Dial, NodeIdentity, Stream};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    client::Client,
    https::dial,
    node::{Home, Node},
    process::{LONG, SOON, eventually, output, stdout},
};

/// No id of an object.
const ZERO: &str = "0000000000000000000000000000000000000000";
/// What a node and its processes may grow by, whatever is sent to them. An object is held
/// whole by git, up to what the node lets it.
const GROWTH: u64 = 1 << 30;

/// What git's processes may have of memory is far less than an attack asks for.
const CONFIG: &str = "[git]\nmemory = \"512MiB\"\nhooks = \"git-hooks\"\n";

/// A node with a repository of somebody's, beside things that nobody may reach.
struct Rig {
    home: Home,
    node: Node,
    /// The client's, by ssh and `alknet dial`.
    client: Client,
    /// The same person's, for streams by hand.
    key: Arc<NodeIdentity>,
    /// Of everything about git.
    token: String,
    /// The tip of `notes`, and that of what lies outside.
    tip: String,
    secret: String,
    before: Tree,
    local: TempDir,
}

impl Rig {
    fn new() -> Self {
        let (home, local) = (Home::new(), TempDir::new().unwrap());
        let repositories = home.path().join("repos");
        fs::create_dir(&repositories).unwrap();
        fs::create_dir(home.path().join("git-hooks")).unwrap();
        let tip = seed(local.path(), "work", &repositories.join("notes.git"));
        // A repository that a name could lead to.
        let secret = seed(local.path(), "other", &home.path().join("secret.git"));
        fs::write(home.path().join("alknet.toml"), CONFIG).unwrap();
        let node = Node::start(&home, &[]);
        let client = Client::known_to(&home, "tester", "git");
        let key = NodeIdentity::from_seed(&[7; 32]).unwrap();
        let id = key.id().to_string();
        let add = ["peer", "add", "tester", "--key", &id, "--scope", "git"];
        stdout(&output(&mut home.alknet(&add)));
        let token = stdout(&output(&mut home.alknet(&["token", "create", "--scope", "git"])));
        let before = tree(&home);
        Self {
            node,
            client,
            key: Arc::new(key),
            token: token.trim().to_owned(),
            tip,
            secret,
            before,
            home,
            local,
        }
    }

    async fn connect(&self, via: &str) -> Connection {
        let call = Dial { key: Some(self.key.clone()), ..dial("alknet/git") };
        let dialled = match via {
            "quic" => call.quic(self.node.address()).await,
            _ => call.tls(self.node.address()).await,
        };
        dialled.unwrap().connection
    }

    /// Sends this on a stream of its own and gives all that comes back.
    async fn ask(&self, via: &str, bytes: &[u8]) -> Vec<u8> {
        let connection = self.connect(via).await;
        exchange(connection.open_bi().await.unwrap(), bytes).await
    }

    /// What a push of this command and this pack is answered.
    async fn push(&self, command: &str, pack: &[u8]) -> String {
        let mut bytes = line("git-receive-pack /notes\0host=x\0");
        bytes.extend(line(&format!("{command}\0report-status\n")));
        bytes.extend(b"0000");
        bytes.extend(pack);
        String::from_utf8_lossy(&self.ask("tls", &bytes).await).into_owned()
    }

    /// git with nothing of the caller's own, in the local folder.
    fn git(&self, args: &[&str]) -> Command {
        git(self.local.path(), args)
    }

    /// Where git finds a repository with no helper installed.
    fn url(&self, repository: &str) -> String {
        let (program, id) = (env!("CARGO_BIN_EXE_alknet"), self.node.id());
        let home = self.client.home.path().display();
        let dial = format!("{program} dial {} git --via tls --pin {id}", self.node.address());
        format!("ext::env ALKNET_HOME={home} {dial} %G/{repository}")
    }

    /// Everything is as it was, and an ordinary client is served.
    #[track_caller]
    fn unharmed(&self) {
        eventually("the repositories are as they were", || {
            let now = tree(&self.home);
            let changed =
                Vec::from_iter(now.iter().filter(|it| self.before.get(it.0) != Some(it.1)));
            let gone = self.before.keys().find(|path| !now.contains_key(*path));
            (changed.is_empty() && gone.is_none()).then_some(())
        });
        let clone = TempDir::new_in(self.local.path()).unwrap();
        let mut git = self.git(&["clone", "--quiet", "--bare", &self.url("notes")]);
        stdout(&output(git.arg(clone.path())));
        assert_eq!(tip(clone.path()), self.tip);
        assert!(!self.node.log().contains("panicked"), "{}", self.node.log());
        let canary = Path::new("/").join(CANARY);
        assert!(!canary.exists() && !self.home.path().join("repos").join(CANARY).exists());
    }
}

/// What commands that should never run would make.
const CANARY: &str = "alknet-e2e-canary";

/// Makes a repository of a few commits in a bare folder; its tip.
fn seed(local: &Path, work: &str, bare: &Path) -> String {
    let folder = local.join(work);
    fs::create_dir(&folder).unwrap();
    stdout(&output(&mut git(&folder, &["init", "--quiet", "--initial-branch=main", "."])));
    for number in 0..3 {
        fs::write(folder.join("file"), format!("{work} {number}\n").repeat(200)).unwrap();
        fs::write(folder.join(format!("{work}-{number}")), work).unwrap();
        stdout(&output(&mut git(&folder, &["add", "."])));
        stdout(&output(&mut git(&folder, &["commit", "--quiet", "--message", work])));
    }
    let clone = ["clone", "--quiet", "--bare", "--no-hardlinks", "."];
    stdout(&output(git(&folder, &clone).arg(bare)));
    tip(bare)
}

fn tip(repository: &Path) -> String {
    let parse = ["rev-parse", "refs/heads/main"];
    stdout(&output(&mut git(repository, &parse))).trim().to_owned()
}

fn git(folder: &Path, args: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org"])
        .args(["-c", "protocol.ext.allow=always", "-c", "safe.directory=*"])
        .args(args)
        .env_remove("ALKNET_LOG")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0");
    git
}

/// A packet line (gitprotocol-common, section "pkt-line Format").
fn line(text: &str) -> Vec<u8> {
    [format!("{:04x}", text.len() + 4).as_bytes(), text.as_bytes()].concat()
}

/// Sends all of this, ends, and gives what comes back until the stream ends in some way.
async fn exchange(stream: Stream, bytes: &[u8]) -> Vec<u8> {
    let (mut send, mut recv) = stream.split();
    let mut answer = Vec::new();
    let sending = async {
        // The node may well have enough before it has everything.
        let _ = send.write_all(bytes).await;
        let _ = send.shutdown().await;
    };
    let reading = async { while recv.read_buf(&mut answer).await.is_ok_and(|count| count > 0) {} };
    timeout(LONG, async { tokio::join!(sending, reading) }).await.unwrap();
    answer
}

/// The files, links and folders of the repositories and what is beside them, with their
/// content and rights.
type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

fn tree(home: &Home) -> Tree {
    let mut tree = Tree::new();
    for folder in ["repos", "secret.git"] {
        walk(&home.path().join(folder), &mut tree);
    }
    // What a node keeps there changes; that there is nothing else does not.
    for entry in fs::read_dir(home.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tree.entry(path).or_default();
        }
    }
    tree
}

/// What another walker takes away meanwhile is not there.
fn walk(path: &Path, tree: &mut Tree) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let mut content = Vec::new();
    if metadata.is_symlink() {
        content = fs::read_link(path).unwrap().into_os_string().into_encoded_bytes();
    } else if metadata.is_file() {
        content = fs::read(path).unwrap_or_default();
    } else if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.map_while(Result::ok) {
            walk(&entry.path(), tree);
        }
    }
    tree.insert(path.to_owned(), (metadata.mode(), content));
}

/// Watches how much memory a process and all that it starts have, at their most.
struct Memory {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    watch: Option<thread::JoinHandle<()>>,
    before: u64,
}

impl Memory {
    fn watch(pid: u32) -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, highest) = (stop.clone(), peak.clone());
        let watch = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                highest.fetch_max(resident(pid), Ordering::Relaxed);
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        Self { stop, peak, watch: Some(watch), before: resident(pid) }
    }

    /// Ends the watch; by how much there was more than in the beginning.
    fn grown(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.watch.take().unwrap().join().unwrap();
        self.peak.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

/// The resident memory of a process and its descendants, in bytes.
fn resident(root: u32) -> u64 {
    let processes = processes();
    let mut family = vec![root];
    let mut sum = 0;
    while let Some(parent) = family.pop() {
        let its = processes.iter().filter(|it| it.parent == parent).map(|it| it.id);
        family.extend(its);
        sum += processes.iter().find(|it| it.id == parent).map_or(0, |it| it.pages * 4096);
    }
    sum
}

/// How many processes a process has started that are still there.
fn children(id: u32) -> usize {
    processes().iter().filter(|it| it.parent == id).count()
}

struct Process {
    id: u32,
    parent: u32,
    /// In memory.
    pages: u64,
}

/// Every process (proc(5), `stat`).
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let process = |stat: String| {
        let (id, rest) = stat.split_once(" (")?;
        let fields = Vec::from_iter(rest.rsplit_once(") ")?.1.split(' '));
        let parent = fields.get(1)?.parse().ok()?;
        Some(Process { id: id.parse().ok()?, parent, pages: fields.get(21)?.parse().ok()? })
    };
    stats.filter_map(process).collect()
}
