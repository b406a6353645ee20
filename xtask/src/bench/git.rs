//! The section on repositories: this node beside git's own servers, in one run.

mod data;
mod history;
mod servers;
mod ways;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use self::{
    data::Data,
    servers::{Daemon, Web},
    ways::Way,
};
use super::{
    report::{self, Table},
    servers::{Keys, Node, Sshd},
    ways::ALGORITHMS,
};
use crate::{files, sh, tools, web};

type Column = report::Column<Way, Data>;

/// The document's heading of this section.
pub(super) const HEADING: &str = "## Repositories\n";
const TRANSPORTS: [&str; 3] = ["tls", "quic", "webtransport"];

const CLONE: [Column; 2] = [
    Column { head: "clone, s", digits: 2, measure: ways::clone },
    Column { head: "pack alone, MB/s", digits: 0, measure: ways::pack },
];
const SMALL: [Column; 3] = [
    Column { head: "nothing new, ms", digits: 0, measure: ways::nothing_new },
    Column { head: "one of 50,000 branches, ms", digits: 0, measure: ways::one_of_many },
    Column { head: "all 50,000 branches, ms", digits: 0, measure: ways::all_of_many },
];
const PUSH: [Column; 2] = [
    Column { head: "1,000 objects, ms", digits: 0, measure: ways::push_small },
    Column { head: "10,000 objects, ms", digits: 0, measure: ways::push_large },
];

/// A part of the section, its text before the table, and what is measured.
struct Part {
    name: &'static str,
    title: &'static str,
    rounds: usize,
    text: &'static str,
    columns: &'static [Column],
}

const PARTS: [Part; 3] = [
    Part {
        name: "clone",
        title: "A clone",
        rounds: 3,
        text: "`git clone --bare` of 51,200 commits with 205,000 objects, merges among them, \
               packed with bitmaps. Most of it is the client's `index-pack`; \"pack alone\" is the \
               same pack thrown away as it comes, in MB/s, where above ×1 is faster.",
        columns: &CLONE,
    },
    Part {
        name: "refs",
        title: "Small fetches",
        rounds: 15,
        text: "`git fetch` of a branch that has nothing new, of the long history and of a repository \
               of 50,000 branches (one by its `ref-prefix`), and `git ls-remote --heads` of all of \
               these.",
        columns: &SMALL,
    },
    Part {
        name: "push",
        title: "Pushes",
        rounds: 5,
        text: "`git push` of one commit to a repository of another, of 1,000 and of 10,000 objects.",
        columns: &PUSH,
    },
];

/// What keeps a way from being as fast as the first row.
const IN_THE_WAY: &str = "
A small request costs what git daemon does without: a handshake with two certificates, the \
start of a helper (`git-remote-alknet`, as `git-remote-https` for HTTPS), and on the server that \
of git under a clean environment with the limits of the repository. A push starts the node's \
program as git's hooks too, which ask it what may change.
";

/// The whole section.
pub(super) fn section(root: &Path) -> Result<String> {
    let machine = report::machine(root)?;
    let git = sh::Cmd::new(root, "git").arg("--version").read()?;
    let bench = Bench::prepare(root, &[])?;
    let mut text = format!(
        "{HEADING}\n\
         Machine: {machine}, {}. Client and server share it, over loopback, and the \
         repositories are in memory. `cargo xtask bench git` measures this alone.\n\n\
         A row is a way to the same repositories. `git daemon` has no encryption and knows \
         nobody; `git http-backend` runs behind nginx by FastCGI; `sshd` is OpenSSH's, with \
         `{}` and `{}` as in the row of the node. The rows of alknet are `git clone alknet://…` \
         by each transport, OpenSSH's client through `alknet dial`, and smart HTTP. MB = 10^6 \
         bytes. Each cell has minimum / **median** / maximum, and the same of its ratios to git \
         daemon in the same rounds.\n",
        git.trim(),
        ALGORITHMS[0],
        ALGORITHMS[1],
    );
    text += IN_THE_WAY;
    for part in &PARTS {
        text += &bench.part(part, part.rounds)?;
    }
    Ok(text)
}

/// One part alone: `NAME [ROUNDS [BINARY…]]`. The binaries, if there are any, are compared in
/// place of the one that is built.
pub(super) fn part(root: &Path, args: &[String]) -> Result<String> {
    let part = args.first().and_then(|name| PARTS.iter().find(|part| part.name == name));
    let Some(part) = part else {
        let names = PARTS.map(|part| part.name).join(", ");
        bail!("the parts of `cargo xtask bench git` are {names}");
    };
    let rounds = args.get(1).map_or(Ok(part.rounds), |rounds| rounds.parse())?;
    let binaries = Vec::from_iter(args.iter().skip(2).map(PathBuf::from));
    Bench::prepare(root, &binaries)?.part(part, rounds)
}

/// The servers, and what they serve.
struct Bench {
    data: Data,
    ways: Vec<Way>,
    _servers: (Daemon, Web, Sshd, Vec<Node>),
    _folder: Folder,
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Bench {
    fn prepare(root: &Path, binaries: &[PathBuf]) -> Result<Self> {
        tools::need(root, tools::BENCH)?;
        let mut binaries = binaries.to_vec();
        if binaries.is_empty() {
            web::build(root)?;
            sh::cargo(root, ["build", "--release", "-p", "alknet"]).run()?;
            binaries.push(sh::target_dir(root)?.join("release/alknet"));
        }
        let memory = Path::new("/dev/shm");
        let target = root.join("target/xtask");
        let parent = if memory.is_dir() { memory } else { &target };
        let folder = Folder(parent.join(format!("alknet-bench-git-{}", std::process::id())));
        let dir = &folder.0;
        fs::create_dir_all(dir)?;
        let served = dir.join("served");
        fs::create_dir_all(&served)?;
        let data = Data::make(&target.join("bench-git"), &served, dir)?;
        let keys = Keys::make(dir)?;
        let mut nodes = Vec::new();
        for (index, binary) in binaries.iter().enumerate() {
            nodes.push(node(&dir.join(format!("binary-{index}")), binary, &keys, &served)?);
        }
        let (daemon, web) = (Daemon::start(&served)?, Web::start(dir, &served)?);
        let sshd = Sshd::start(dir, &keys, Ipv4Addr::LOCALHOST)?;
        let mut ways = vec![
            Way::daemon(&daemon),
            Way::http(&web),
            Way::https(&web),
            Way::sshd(&keys, &sshd, &served),
        ];
        for (index, node) in nodes.iter().enumerate() {
            let label = if index == 0 { String::new() } else { format!(" ({})", index + 1) };
            ways.extend(TRANSPORTS.map(|via| Way::native(via, &label, node)));
            ways.push(Way::ssh(&label, &keys, node));
            ways.push(Way::smart_http(&label, node, &node.token()?));
        }
        Ok(Self { data, ways, _servers: (daemon, web, sshd, nodes), _folder: folder })
    }

    fn part(&self, part: &Part, rounds: usize) -> Result<String> {
        let Part { title, text, columns, .. } = part;
        let table = Table::measure(&self.ways, columns, rounds, &self.data)?.markdown();
        Ok(format!("\n### {title}\n\n{text} {rounds} rounds.\n\n{table}"))
    }
}

/// A node whose repositories are those of all servers.
fn node(dir: &Path, binary: &Path, keys: &Keys, served: &Path) -> Result<Node> {
    let home = Node::home(dir, Ipv4Addr::LOCALHOST);
    fs::create_dir_all(&home)?;
    std::os::unix::fs::symlink(served, home.join("repos"))?;
    // What is pushed to is made anew for each push, under whatever still worked in it.
    files::write(&home.join("alknet.toml"), b"[git]\nautomatic_gc = false\n")?;
    Node::start(dir, binary, keys, Ipv4Addr::LOCALHOST)
}
