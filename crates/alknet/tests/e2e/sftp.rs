//! SFTP by real clients: with no SSH between, and as the subsystem of SSH sessions.

mod clients;

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{
    client::{Client, WAYS},
    node::{Home, Node},
    process::{LONG, eventually, output, output_of, stdout, text},
};

/// A node with an export, and somebody who may use it.
pub(crate) struct Rig {
    pub(crate) home: Home,
    pub(crate) node: Node,
    pub(crate) client: Client,
    pub(crate) export: tempfile::TempDir,
    /// Where the client keeps its own files.
    pub(crate) local: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(scopes: &str) -> Self {
        let (home, export) = (Home::new(), tempfile::tempdir().unwrap());
        let path = export.path().display();
        let config =
            format!("[sftp.exports.notes]\npath = \"{path}\"\nquota = \"64MiB\"\natomic = true\n");
        fs::write(home.path().join("alknet.toml"), config).unwrap();
        let node = Node::start(&home, &[]);
        let client = Client::known_to(&home, "tester", scopes);
        Self { home, node, client, export, local: tempfile::tempdir().unwrap() }
    }

    /// The command that joins a client to `alknet/sftp`.
    pub(crate) fn dial(&self, via: &str) -> String {
        let (program, id) = (env!("CARGO_BIN_EXE_alknet"), self.node.id());
        format!("{program} dial {} sftp --via {via} --pin {id}", self.node.address())
    }

    /// Has `sftp` do what a batch says, with no SSH between.
    fn batch_by(&self, via: &str, batch: &str) -> Output {
        let mut sftp = Command::new("sftp");
        sftp.arg("-D").arg(self.dial(via)).args(["-b", "-"]);
        sftp.env("ALKNET_HOME", self.client.home.path()).current_dir(self.local.path());
        run(sftp, batch)
    }
}

/// Runs a client with this on its standard input.
pub(crate) fn run(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A client that is refused does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    output_of(child, LONG)
}

/// Some megabytes that do not compress.
pub(crate) fn random(path: &Path, megabytes: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(megabytes << 20).unwrap()];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn an_export_by_every_transport() {
    let rig = Rig::new("sftp:read:notes,sftp:write:notes");
    let content = random(&rig.local.path().join("up"), 20);
    for via in WAYS {
        let batch = "put up notes/file\nget notes/file down\nrename notes/file notes/moved\n\
                     ls -l notes\nrm notes/moved\npwd\ndf notes\n";
        let done = stdout(&rig.batch_by(via, batch));
        assert!(done.contains("notes/moved") && done.contains("directory: /\n"), "{via}: {done}");
        assert_eq!(fs::read(rig.local.path().join("down")).unwrap(), content, "{via}");
        assert_eq!(fs::read_dir(rig.export.path()).unwrap().count(), 0);
    }
    let closed = rig.home.audited("an upload", |event| {
        event["event"] == "sftp-close" && event["bytes_written"] == 20 << 20
    });
    assert_eq!(
        (&closed["subject"], &closed["alpn"]),
        (&"/notes/file".into(), &"alknet/sftp".into())
    );
    assert!(closed["session"].is_u64());
    for event in ["sftp-open", "sftp-rename", "sftp-remove"] {
        rig.home.audited(event, |entry| entry["event"] == event);
    }
}

#[test]
fn nothing_of_the_machine_is_seen_by_who_has_an_export() {
    let rig = Rig::new("sftp:read:notes");
    fs::write(rig.export.path().join("f"), "content").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", rig.export.path().join("link")).unwrap();
    for batch in [
        "get /etc/passwd\n",
        "get notes/link\n",
        "get ../../../etc/passwd\n",
        "put /etc/hosts notes/new\n",
        "rm notes/f\n",
        "mkdir other\n",
    ] {
        let outcome = rig.batch_by("quic", batch);
        assert!(!outcome.status.success(), "{batch}: {}", text(&outcome));
    }
    assert_eq!(fs::read_dir(rig.local.path()).unwrap().count(), 0);
    stdout(&rig.batch_by("quic", "get notes/f\n"));
    assert_eq!(fs::read(rig.local.path().join("f")).unwrap(), b"content");
    rig.home.audited("what was not allowed", |event| {
        event["event"] == "refused" && event["reason"] == "sftp-remove: notes is read-only here"
    });
}

#[test]
fn who_has_no_scope_of_files_does_not_get_in() {
    let rig = Rig::new("ssh");
    assert!(!rig.batch_by("quic", "pwd\n").status.success());
    let other = Rig::new("sftp:read:other");
    assert!(!other.batch_by("quic", "pwd\n").status.success());
}

#[test]
fn an_upload_that_is_cut_off_leaves_nothing() {
    let rig = Rig::new("sftp:write:notes,sftp:read:notes");
    random(&rig.local.path().join("up"), 60);
    let mut sftp = Command::new("sftp");
    // At a rate that leaves time to look.
    sftp.args(["-l", "8000", "-b", "-", "-D"]).arg(rig.dial("tls"));
    sftp.env("ALKNET_HOME", rig.client.home.path()).current_dir(rig.local.path());
    let mut child = sftp.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"put up notes/up\n").unwrap();
    rig.home.audited("the upload's start", |event| {
        event["event"] == "sftp-open" && event["subject"] == "/notes/up"
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let closed = rig.home.audited("the upload's end", |event| {
        event["event"] == "sftp-close" && event["subject"] == "/notes/up"
    });
    assert_eq!(closed["reason"], "the session ended");
    eventually("an empty folder", || {
        (fs::read_dir(rig.export.path()).unwrap().count() == 0).then_some(())
    });
}

#[test]
fn what_is_too_much_for_the_quota_is_not_there_afterwards() {
    let rig = Rig::new("sftp:write:notes,sftp:read:notes");
    random(&rig.local.path().join("up"), 65);
    let outcome = rig.batch_by("quic", "put up notes/up\n");
    assert!(!outcome.status.success(), "{}", text(&outcome));
    assert_eq!(fs::read_dir(rig.export.path()).unwrap().count(), 0);
}

#[test]
fn all_files_of_the_account_and_names_that_are_no_text() {
    let rig = Rig::new("sftp");
    let name = OsStr::from_bytes(b"caf\xe9 \xff");
    let remote = tempfile::tempdir().unwrap();
    fs::write(remote.path().join(name), "content").unwrap();
    let batch = format!(
        "lcd {}\ncd {}\nget *\nput *\n",
        rig.local.path().display(),
        remote.path().display()
    );
    stdout(&rig.batch_by("quic", &batch));
    assert_eq!(fs::read(rig.local.path().join(name)).unwrap(), b"content");
    assert_eq!(fs::read_dir(remote.path()).unwrap().count(), 1);
}

/// `alknet sftp-server` in the place of OpenSSH's.
#[test]
fn the_server_by_itself() {
    let home = Home::new();
    let local = tempfile::tempdir().unwrap();
    let serve = |options: &str, batch: &str| {
        let mut sftp = Command::new("sftp");
        let server = format!("{} sftp-server {options}", env!("CARGO_BIN_EXE_alknet"));
        sftp.arg("-D").arg(server).args(["-b", "-"]).current_dir(local.path());
        sftp.env("ALKNET_HOME", home.path().join("none"));
        run(sftp, batch)
    };
    stdout(&serve("-e -u 077 -l INFO", "put /etc/hosts f\nmkdir d\n"));
    let mode = |name: &str| {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(local.path().join(name)).unwrap().mode() & 0o777
    };
    assert_eq!(mode("d"), 0o700);
    assert!(!serve("-R", "rm f\n").status.success());
    assert!(!serve("-P remove", "rm f\n").status.success());
    assert!(!serve("-p open,close,stat,lstat,realpath", "rm f\n").status.success());
    let started = stdout(&serve("-d /usr", "pwd\n"));
    assert!(started.contains("directory: /usr\n"), "{started}");
    stdout(&serve("-P rename", "rm f\n"));
    // The bound that a node gives it.
    stdout(&serve("--handles 1", "put /etc/hosts f\nrm f\n"));
    assert!(!serve("--handles 0", "put /etc/hosts f\n").status.success());
    let requests = stdout(&output(&mut home.alknet(&["sftp-server", "-Q", "requests"])));
    assert!(requests.starts_with("open\nclose\n") && requests.ends_with("users-groups-by-id\n"));
    // It is no part of a node: there is no state folder after it.
    assert!(!home.path().join("none").exists());
}
