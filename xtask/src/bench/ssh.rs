//! The section on commands, shells and files: this node beside OpenSSH's server, in one run.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use super::{
    report::{self, Table},
    servers::{Keys, Node, Sshd},
    ways::{self, ALGORITHMS, BYTES, Data, FILES, LOSSY, Way},
};
use crate::{
    netpath::{Conditions, NetPath, Side},
    sh, tools, web,
};

type Column = report::Column<Way, Data>;

/// The document's heading of this section.
pub(super) const HEADING: &str = "## Commands, shells and files\n";
const TRANSPORTS: [&str; 3] = ["tls", "quic", "webtransport"];

/// The path for delay and loss, each way: far above what is measured over it.
const PATH: Conditions = Conditions {
    rtt: Duration::from_millis(50),
    loss: 0,
    rate: Some(125_000_000),
    queue: Duration::from_millis(50),
    seed: 1,
};
/// Of a million packets: 1 %.
const LOSS: u32 = 10_000;

/// What keeps a way from being as fast as the first row.
const IN_THE_WAY: &str = "
Over loopback everything shares the cores of one machine. SSH within TLS or QUIC seals and opens \
each byte twice, and takes it through `alknet dial`: what that costs is missing where sshd and its \
client alone already keep two cores busy, and is not noticed over a network slower than that. \
`alknet/sftp` is encrypted once. QUIC does in user space, for each packet, what the kernel does \
for TCP once in 64 KiB; it pays where there is distance or loss. A small file by `sftp` is four \
requests that wait for each other, each of them through two more processes than with sshd.
";

const COMMANDS: [Column; 3] = [
    Column { head: "from the server, MB/s", digits: 0, measure: ways::receive },
    Column { head: "to the server, MB/s", digits: 0, measure: ways::send },
    LOGIN,
];
const LOGIN: Column = Column { head: "`true`, ms", digits: 0, measure: ways::login };
const FILE: [Column; 4] = [
    Column { head: "sftp put, MB/s", digits: 0, measure: ways::sftp_put },
    Column { head: "sftp get, MB/s", digits: 0, measure: ways::sftp_get },
    Column { head: "scp to the server, MB/s", digits: 0, measure: ways::scp_put },
    Column { head: "scp from the server, MB/s", digits: 0, measure: ways::scp_get },
];
const TREE: [Column; 4] = [
    Column { head: "put, files/s", digits: 0, measure: ways::tree_put },
    Column { head: "get, files/s", digits: 0, measure: ways::tree_get },
    Column { head: "scp to the server, files/s", digits: 0, measure: ways::tree_scp_put },
    Column { head: "scp from the server, files/s", digits: 0, measure: ways::tree_scp_get },
];
const DISTANT: [Column; 2] =
    [LOGIN, Column { head: "prompt, ms", digits: 0, measure: ways::prompt }];
const LOSSY_TRANSFERS: [Column; 2] = [
    Column { head: "from the server, MB/s", digits: 2, measure: ways::receive_for_a_while },
    Column { head: "to the server, MB/s", digits: 2, measure: ways::send_for_a_while },
];

/// A part of the section, its text before the table, and how it is measured.
struct Part {
    name: &'static str,
    title: &'static str,
    rounds: usize,
    text: fn() -> String,
    measure: fn(&Bench, usize) -> Result<String>,
}

const PARTS: [Part; 5] = [
    Part {
        name: "exec",
        title: "Commands",
        rounds: 3,
        text: || format!("A command that writes or reads {} MiB, and `true`.", BYTES >> 20),
        measure: |bench, rounds| bench.near(commands, &COMMANDS, rounds),
    },
    Part {
        name: "file",
        title: "One file",
        rounds: 3,
        text: || format!("Of {} MiB, in memory on both sides.", BYTES >> 20),
        measure: |bench, rounds| bench.near(files, &FILE, rounds),
    },
    Part {
        name: "tree",
        title: "Small files",
        rounds: 3,
        text: || {
            format!(
                "{FILES} files of 1 to 4096 bytes, 100 in each folder, by `put -r` and `get -r` of sftp, and `scp -r`."
            )
        },
        measure: |bench, rounds| bench.near(files, &TREE, rounds),
    },
    Part {
        name: "distant",
        title: "50 ms away",
        rounds: 5,
        text: || {
            "The prompt is that of a shell on a terminal, from the start of the client. The shell \
             reads no start-up files, which take as long on every way. `alknet ssh` runs OpenSSH's \
             client, which has about ten round trips to its prompt whatever it goes through; \
             `alknet sessions attach` (or `alknet ssh --attach`) is a client of its own, without \
             SSH."
                .to_owned()
        },
        measure: |bench, rounds| bench.far(shells, 0, &DISTANT, rounds),
    },
    Part {
        name: "lossy",
        title: "50 ms away, with 1 % of packets lost",
        rounds: 3,
        text: || {
            format!(
                "Each way. What a command without end wrote or read in {} s. TCP has cubic, Linux's \
                 default for congestion control.",
                LOSSY.as_secs(),
            )
        },
        measure: |bench, rounds| bench.far(lossy, LOSS, &LOSSY_TRANSFERS, rounds),
    },
];

/// The whole section.
pub(super) fn section(root: &Path) -> Result<String> {
    let machine = report::machine(root)?;
    let bench = Bench::prepare(root, &[])?;
    let mut text = format!(
        "{HEADING}\n\
         Machine: {machine}. Client and server share it. `cargo xtask bench ssh` measures this \
         alone.\n\n\
         A row is a way to the server. `sshd` is OpenSSH's own over plain TCP. `tls`, `quic` and \
         the like are OpenSSH's clients through `ProxyCommand alknet dial --via …` to `alknet \
         serve`, so that they carry a second encryption and a second process of the client. \
         `alknet/sftp` is OpenSSH's sftp on that service, by `sftp -D 'alknet dial NODE sftp'`, \
         with no SSH. All of SSH is with `{}` and `{}`. MB = 10^6 bytes. Each cell has minimum \
         / **median** / maximum, and the same of its ratios to sshd in the same rounds.\n",
        ALGORITHMS[0], ALGORITHMS[1],
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
        bail!("the parts of `cargo xtask bench ssh` are {names}");
    };
    let rounds = args.get(1).map_or(Ok(part.rounds), |rounds| rounds.parse())?;
    let binaries = Vec::from_iter(args.iter().skip(2).map(PathBuf::from));
    Bench::prepare(root, &binaries)?.part(part, rounds)
}

/// What all parts need.
struct Bench {
    dir: PathBuf,
    binaries: Vec<PathBuf>,
    keys: Keys,
    data: Data,
}

/// The servers at one end, a node for each binary.
struct Servers {
    sshd: Sshd,
    nodes: Vec<(String, Node)>,
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
        let dir = root.join("target/xtask/bench");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let (keys, data) = (Keys::make(&dir)?, Data::make(&dir)?);
        Ok(Self { dir, binaries, keys, data })
    }

    fn part(&self, part: &Part, rounds: usize) -> Result<String> {
        let measured = (part.measure)(self, rounds)?;
        Ok(format!("\n### {}\n\n{} {rounds} rounds.\n\n{measured}", part.title, (part.text)()))
    }

    /// Measures over loopback.
    fn near(&self, ways: Ways, columns: &[Column], rounds: usize) -> Result<String> {
        let servers = self.servers(Ipv4Addr::LOCALHOST)?;
        let ways = ways(&self.keys, &servers);
        Ok(Table::measure(&ways, columns, rounds, &self.data)?.markdown())
    }

    /// Measures over a path with delay and loss.
    fn far(&self, ways: Ways, loss: u32, columns: &[Column], rounds: usize) -> Result<String> {
        let path = NetPath::start(PATH)?;
        path.tcp_congestion_control("cubic")?;
        let servers = path.at(Side::Server, || self.servers(Side::Server.address()))??;
        let ways = ways(&self.keys, &servers);
        path.at(Side::Client, || {
            // The first login of each way also makes its host key known.
            Table::measure(&ways, &[LOGIN], 1, &self.data)?;
            path.lose(loss);
            Ok(Table::measure(&ways, columns, rounds, &self.data)?.markdown())
        })?
    }

    fn servers(&self, address: Ipv4Addr) -> Result<Servers> {
        let mut nodes = Vec::new();
        for (index, binary) in self.binaries.iter().enumerate() {
            let dir = self.dir.join(format!("binary-{index}"));
            fs::create_dir_all(&dir)?;
            let label = if index == 0 { String::new() } else { format!(" ({})", index + 1) };
            nodes.push((label, Node::start(&dir, binary, &self.keys, address)?));
        }
        Ok(Servers { sshd: Sshd::start(&self.dir, &self.keys, address)?, nodes })
    }
}

/// The rows of a table, the baseline first.
type Ways = fn(&Keys, &Servers) -> Vec<Way>;

/// OpenSSH's clients over these transports.
fn through(keys: &Keys, servers: &Servers, transports: &[&str]) -> Vec<Way> {
    let mut ways = vec![Way::to_sshd(keys, &servers.sshd)];
    for (label, node) in &servers.nodes {
        let through =
            transports.iter().map(|via| Way::through(via, label, keys, &servers.sshd, node));
        ways.extend(through);
    }
    ways
}

fn commands(keys: &Keys, servers: &Servers) -> Vec<Way> {
    through(keys, servers, &["tls", "quic", "webtransport", "websocket"])
}

fn files(keys: &Keys, servers: &Servers) -> Vec<Way> {
    let mut ways = through(keys, servers, &TRANSPORTS);
    for (label, node) in &servers.nodes {
        ways.extend(["tls", "quic"].map(|via| Way::sftp(via, label, node)));
    }
    ways
}

fn shells(keys: &Keys, servers: &Servers) -> Vec<Way> {
    let mut ways = through(keys, servers, &TRANSPORTS);
    for (label, node) in &servers.nodes {
        ways.extend([Way::alknet_ssh(label, keys, node), Way::attached(label, node)]);
    }
    ways
}

fn lossy(keys: &Keys, servers: &Servers) -> Vec<Way> {
    through(keys, servers, &TRANSPORTS)
}
