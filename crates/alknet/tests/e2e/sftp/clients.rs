//! The clients that people use, over SSH: sftp, scp, sshfs, lftp, rclone.

use std::{
    fs,
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use super::{Rig, random, run};
use crate::client::account;
use crate::process::{LONG, eventually, output, output_of, stdout, text};

/// A file on either side, and a folder of the account that is served.
struct Over {
    rig: Rig,
    remote: tempfile::TempDir,
    content: Vec<u8>,
    ssh: PathBuf,
}

impl Over {
    fn new(scopes: &str) -> Self {
        let (rig, remote) = (Rig::new(scopes), tempfile::tempdir().unwrap());
        let content = random(&rig.local.path().join("up"), 8);
        let ssh = rig.local.path().join("ssh");
        Self { ssh: script(&ssh, &rig), rig, remote, content }
    }

    fn remote(&self, name: &str) -> String {
        format!("node:{}", self.at(name))
    }

    fn at(&self, name: &str) -> String {
        self.remote.path().join(name).display().to_string()
    }

    fn local(&self, name: &str) -> String {
        self.rig.local.path().join(name).display().to_string()
    }

    fn there(&self, name: &str) -> bool {
        fs::read(self.remote.path().join(name)).is_ok_and(|found| found == self.content)
    }

    fn here(&self, name: &str) -> bool {
        fs::read(self.rig.local.path().join(name)).is_ok_and(|found| found == self.content)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("ALKNET_HOME", self.rig.client.home.path());
        command.env("HOME", self.rig.local.path()).env("SHELL", "/bin/sh");
        command
    }
}

/// A program that is `ssh` with all that it needs to reach the node: the options of the test
/// client's own, and whatever it is given, without the name of the host.
fn script(path: &Path, rig: &Rig) -> PathBuf {
    let ssh = rig.client.ssh(&rig.node, "quic");
    let quoted: Vec<String> =
        ssh.get_args().map(|it| format!("'{}'", it.to_str().unwrap())).collect();
    let (host, options) = quoted.split_last().unwrap();
    let text = format!(
        "#!/bin/sh\n\
         n=$#; while [ $n -gt 0 ]; do a=$1; shift; n=$((n-1));\n\
         case $a in node|*@node) set -- \"$@\" {host};; *) set -- \"$@\" \"$a\";; esac; done\n\
         exec ssh {} \"$@\"\n",
        options.join(" ")
    );
    fs::write(path, text).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

#[test]
fn sftp() {
    let over = Over::new("ssh");
    let mut sftp = over.command("sftp");
    sftp.arg("-S").arg(&over.ssh).args(["-b", "-", "node"]).current_dir(over.rig.local.path());
    let batch =
        format!("cd {}\nput up\nget up down\nln -s up link\nls -l\n", over.remote.path().display());
    let listed = stdout(&run(sftp, &batch));
    assert!(listed.contains("link"), "{listed}");
    assert!(over.there("up") && over.here("down"));
    let closed = over.rig.home.audited("the upload", |event| {
        event["event"] == "sftp-close" && event["bytes_written"] == 8 << 20
    });
    assert_eq!(closed["alpn"], "alknet/ssh");
}

#[test]
fn scp_both_ways_ends_with_success() {
    let over = Over::new("ssh");
    let scp = |from: &str, to: &str| {
        let mut scp = over.command("scp");
        // It asks for the subsystem unless it is told otherwise.
        stdout(&output(scp.arg("-S").arg(&over.ssh).args(["-s", "-p", from, to])));
    };
    scp(&over.local("up"), &over.remote("up"));
    scp(&over.remote("up"), &over.local("down"));
    assert!(over.there("up") && over.here("down"));
}

#[test]
fn sshfs() {
    assert!(Path::new("/dev/fuse").exists(), "there is no FUSE here, which this test is about");
    let over = Over::new("ssh");
    let mounted = tempfile::tempdir().unwrap();
    let mut sshfs = over.command("sshfs");
    sshfs.arg("-f").arg("-o").arg(format!("ssh_command={}", over.ssh.display()));
    sshfs.arg(over.remote("")).arg(mounted.path());
    let child = sshfs.spawn().unwrap();
    fs::write(over.remote.path().join("first"), "x").unwrap();
    eventually("the mount", || mounted.path().join("first").exists().then_some(()));
    let at = |name: &str| mounted.path().join(name);
    fs::copy(over.local("up"), at("up")).unwrap();
    assert_eq!(fs::read(at("up")).unwrap(), over.content);
    fs::create_dir(at("folder")).unwrap();
    fs::rename(at("up"), at("folder/moved")).unwrap();
    std::os::unix::fs::symlink("folder/moved", at("link")).unwrap();
    assert_eq!(fs::read(at("link")).unwrap(), over.content);
    fs::hard_link(at("folder/moved"), at("second")).unwrap();
    fs::OpenOptions::new().write(true).open(at("second")).unwrap().set_len(5).unwrap();
    assert_eq!(fs::metadata(over.at("folder/moved")).unwrap().len(), 5);
    assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 4);
    stdout(&output(Command::new("fusermount3").arg("-u").arg(mounted.path())));
    let ended = output_of(child, LONG);
    assert!(ended.status.success(), "{}", text(&ended));
}

#[test]
fn lftp() {
    let over = Over::new("ssh");
    let script = format!(
        "set sftp:connect-program '{} -a -x'; set net:max-retries 1; set cmd:fail-exit yes;\n\
         open sftp://node:; cd {}; put {}; get up -o {}; mirror -R {} mirrored; ls\n",
        over.ssh.display(),
        over.remote.path().display(),
        over.local("up"),
        over.local("down"),
        over.local(""),
    );
    let mut lftp = over.command("lftp");
    let listed = stdout(&output(lftp.args(["-c", &script])));
    assert!(listed.contains("mirrored"), "{listed}");
    assert!(over.there("up") && over.here("down") && over.there("mirrored/up"));
}

/// A port at which each connection is joined to a stream of `alknet/ssh`: rclone has an SSH
/// client of its own, which speaks to TCP alone.
fn bridge(over: &Over) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (node, id) = (over.rig.node.address().to_string(), over.rig.node.id().to_string());
    let home = over.rig.client.home.path().to_owned();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = OwnedFd::from(socket.unwrap());
            let mut dial = Command::new(env!("CARGO_BIN_EXE_alknet"));
            dial.args(["dial", &node, "ssh", "--via", "tls", "--pin", &id]);
            dial.env("ALKNET_HOME", &home).stdin(socket.try_clone().unwrap()).stdout(socket);
            // It ends with its connection.
            let mut child = dial.spawn().unwrap();
            thread::spawn(move || child.wait());
        }
    });
    port
}

#[test]
fn rclone() {
    let over = Over::new("ssh");
    let port = bridge(&over).to_string();
    let rclone = |args: &[&str]| {
        let mut rclone = over.command("rclone");
        rclone.args(args).args(["--sftp-host", "127.0.0.1", "--sftp-port", &port]);
        rclone.args(["--sftp-user", &account(), "--sftp-key-file"]).arg(over.rig.client.key());
        rclone.args(["--sftp-shell-type", "none", "--config", "/dev/null", "--retries", "1"]);
        stdout(&output(&mut rclone))
    };
    let there = format!(":sftp:{}", over.remote.path().display());
    rclone(&["copy", &over.local("up"), &there]);
    rclone(&["copyto", &format!("{there}/up"), &over.local("down")]);
    assert!(over.there("up") && over.here("down"));
    assert!(rclone(&["lsl", &there]).contains("8388608"));
}

#[test]
fn an_export_over_ssh_by_who_has_no_shell() {
    let over = Over::new("sftp:read:notes,sftp:write:notes");
    let mut scp = over.command("scp");
    scp.arg("-S").arg(&over.ssh).args(["-s", &over.local("up"), "node:notes/up"]);
    stdout(&output(&mut scp));
    assert_eq!(fs::read(over.rig.export.path().join("up")).unwrap(), over.content);
    let mut ssh = over.command(over.ssh.to_str().unwrap());
    assert!(!output(ssh.args(["node", "true"])).status.success());
}
