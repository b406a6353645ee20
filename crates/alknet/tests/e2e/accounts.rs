//! Who a session runs as. A node that runs as root is in a mount namespace of its own, where
//! the machine has two further accounts.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    client::Client,
    node::{Home, Node},
    process::{output, output_with, stdout, text},
    terminal::Terminal,
};

const ALICE: u32 = 4711;
const BOB: u32 = 4712;
/// Both, and the numbers of further groups.
const STAFF: u32 = 4720;
const OPS: u32 = 4721;

/// Changes the machine for the node alone: `$0` is the folder of what stands in the place of
/// its files. The descriptor is what a careless service manager leaves open.
const ENTER: &str = r#"
    for file in passwd group shadow; do mount --bind "$0/$file" "/etc/$file" || exit 1; done
    if [ -d "$0/pam.d" ]; then mount --bind "$0/pam.d" /etc/pam.d || exit 1; fi
    if [ -e "$0/hangs" ]; then
        exec 8<>/dev/fuse
        options=fd=8,rootmode=40000,user_id=0,group_id=0,allow_other
        mount -i -t fuse -o $options hangs "$0/bob" || exit 1
    fi
    unset LD_PRELOAD
    exec 9<"$0/shadow"
    exec "$@"
"#;

/// A machine with the accounts alice and bob; `None` where nobody can become anybody.
pub(crate) struct Machine {
    pub(crate) folder: TempDir,
    pub(crate) home: Home,
}

impl Machine {
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        let machine = Self { folder, home: Home::new() };
        let (mut passwd, mut shadow) = (read("/etc/passwd"), read("/etc/shadow"));
        for (name, id) in [("alice", ALICE), ("bob", BOB)] {
            let home = machine.home_of(name);
            fs::create_dir(&home).unwrap();
            fs::set_permissions(&home, Permissions::from_mode(0o700)).unwrap();
            chown(&home, Some(id), Some(id)).unwrap();
            passwd += &format!("{name}:x:{id}:{id}::{}:/bin/sh\n", home.display());
            shadow += &format!("{name}:*:20000:0:99999:7:::\n");
        }
        let groups = format!(
            "alice:x:{ALICE}:\nbob:x:{BOB}:\nstaff2:x:{STAFF}:alice,bob\nops:x:{OPS}:alice\n"
        );
        machine.write("passwd", &passwd, 0o644);
        machine.write("group", &(read("/etc/group") + &groups), 0o644);
        machine.write("shadow", &shadow, 0o600);
        Some(machine)
    }

    /// Where an account is at home.
    pub(crate) fn home_of(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str, mode: u32) {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }

    /// The node of this machine with these lines of configuration.
    pub(crate) fn start(&self, config: &str) -> Node {
        fs::write(self.home.path().join("alknet.toml"), config).unwrap();
        let args = ["serve", "--listen", "127.0.0.1:0", "--json", "--drain", "1"];
        Node::run_unmapped(&self.home, self.inside(&self.home.alknet(&args)))
    }

    /// A command as it runs on this machine.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("unshare");
        inside.args(["--mount", "--propagation", "private", "sh", "-c", ENTER]);
        inside.arg(self.folder.path()).arg(command.get_program()).args(command.get_args());
        inside.env("ALKNET_HOME", self.home.path()).env_remove("ALKNET_LOG");
        inside
    }

    pub(crate) fn client(&self, name: &str, scopes: &str) -> Client {
        Client::known_to(&self.home, name, scopes)
    }

    fn refused(&self, reason: &str) {
        self.home.audited(reason, |event| {
            event["event"] == "refused"
                && event["reason"].as_str().is_some_and(|text| text.contains(reason))
        });
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap()
}

const MAPPED: &str = "[accounts]\nalice = [\"alice\", \"bob\"]\nbob = \"bob\"\n";

fn run(client: &Client, node: &Node, account: &str, line: &str) -> String {
    stdout(&output(client.ssh_as(node, "tls", account).arg(line)))
}

#[test]
fn a_session_is_its_account_and_nothing_more() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start(MAPPED);
    let alice = machine.client("alice", "ssh");
    let run = |line: &str| run(&alice, &node, "alice", line);
    let id = format!(
        "uid={ALICE}(alice) gid={ALICE}(alice) groups={ALICE}(alice),{STAFF}(staff2),{OPS}(ops)\n"
    );
    assert_eq!(run("id"), id);
    let home = machine.home_of("alice");
    assert_eq!(run("pwd; umask"), format!("{}\n0022\n", home.display()));
    let environment = run("env | sort | grep -v -e ^SSH_ -e ^_= -e ^PWD= -e ^OLDPWD= -e ^SHLVL=");
    let expected = format!(
        "HOME={}\nLOGNAME=alice\nMAIL=/var/mail/alice\nPATH=/usr/local/bin:/usr/bin:/bin:/usr/games\n\
         SHELL=/bin/sh\nUSER=alice\n",
        home.display()
    );
    assert_eq!(environment, expected);
    // `ls` itself has the folder open as 3.
    assert_eq!(
        run("ls /proc/self/fd").split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"]
    );
    // The second account of the list, by its name alone.
    let bob = output(alice.ssh_as(&node, "tls", "bob").arg("id -un; id -G"));
    assert_eq!(stdout(&bob), format!("bob\n{BOB} {STAFF}\n"));
}

#[test]
fn nothing_of_the_nodes_is_within_reach() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start(MAPPED);
    // The folder's own mode is not what protects it.
    fs::set_permissions(machine.home.path(), Permissions::from_mode(0o711)).unwrap();
    let alice = machine.client("alice", "ssh");
    let state = machine.home.path().display();
    for attempt in [
        format!("ls {state}"),
        format!("cat {state}/vault"),
        format!("cat {state}/node.db"),
        format!("cat {state}/audit.log"),
        format!("echo >> {state}/alknet.toml"),
        "cat /etc/shadow".into(),
        format!("kill -0 {}", node.pid()),
        format!("ls /proc/{}/fd", node.pid()),
        format!("cat /proc/{}/environ", node.pid()),
        // By each way there is to be somebody else.
        "perl -e '$> = 0; exit($> != 0)'".into(),
        "perl -e '$< = 0; exit($< != 0)'".into(),
        "perl -e '$) = 0; exit($) =~ /^4711/)'".into(),
        "perl -e 'use POSIX; exit(!defined POSIX::setuid(0))'".into(),
    ] {
        let tried = output(alice.ssh_as(&node, "tls", "alice").arg(&attempt));
        assert!(!tried.status.success(), "{attempt}: {}", text(&tried));
    }
}

/// Folders that are made by SFTP belong to the account, and where it may not make any there
/// is none.
#[test]
fn files_are_those_of_the_account() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start(MAPPED);
    fs::set_permissions(machine.home.path(), Permissions::from_mode(0o755)).unwrap();
    let alice = machine.client("alice", "sftp");
    let (made, forbidden) =
        (machine.home_of("alice").join("made"), machine.home.path().join("made"));
    let (init, mkdir) = (1, 14);
    let packet = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
        [&length[..], &[kind], body].concat()
    };
    let make = |id: u32, path: &Path| {
        let path = path.to_str().unwrap().as_bytes();
        let length = u32::try_from(path.len()).unwrap().to_be_bytes();
        packet(mkdir, &[&id.to_be_bytes()[..], &length, path, &[0; 4]].concat())
    };
    let requests = [packet(init, &[0, 0, 0, 3]), make(1, &forbidden), make(2, &made)].concat();
    let mut ssh = alice.ssh_as(&node, "tls", "alice");
    let done = output_with(ssh.args(["-s", "sftp"]), &requests);
    crate::process::eventually("the folder", || made.exists().then_some(()));
    assert_eq!(fs::metadata(&made).unwrap().uid(), ALICE, "{}", text(&done));
    assert!(!forbidden.exists());
}

/// Exports are the node's own: by SSH as without it.
#[test]
fn an_export_needs_no_account() {
    let Some(machine) = Machine::new() else { return };
    let notes = machine.folder.path().join("notes");
    fs::create_dir(&notes).unwrap();
    fs::write(notes.join("note"), "a note").unwrap();
    let export = format!("[sftp.exports.notes]\npath = \"{}\"\n", notes.display());
    let node = machine.start(&format!("{export}{MAPPED}"));
    let guest = machine.client("guest", "sftp:read:notes");
    let local = TempDir::new().unwrap();
    let sftp = |client: &Client, login: &str, batch: &str| {
        let ssh = client.ssh_as(&node, "tls", login);
        let mut sftp = Command::new("sftp");
        // All of the options, and no more: the last argument is the host.
        let options: Vec<_> = ssh.get_args().collect();
        sftp.args(["-b", "-"]).args(options).current_dir(local.path());
        sftp.env("ALKNET_HOME", client.home.path());
        output_with(&mut sftp, batch.as_bytes())
    };
    for login in ["guest", "root", "alice"] {
        let batch = "ls\nget notes/note\n-get /etc/passwd\n-put /etc/hosts notes/x\n";
        let done = sftp(&guest, login, batch);
        assert!(done.status.success(), "{login}: {}", text(&done));
        assert_eq!(fs::read(local.path().join("note")).unwrap(), b"a note");
        fs::remove_file(local.path().join("note")).unwrap();
        assert_eq!(fs::read_dir(local.path()).unwrap().count(), 0, "{login}");
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 1, "{login}");
        for asked in [&["id"][..], &["-tt", "id"], &["-s", "other"], &["-tt"]] {
            let mut ssh = guest.ssh_as(&node, "tls", login);
            let refused = output_with(ssh.args(asked), b"id\nexit\n");
            assert!(!refused.status.success(), "{login} {asked:?}: {}", text(&refused));
            assert!(!text(&refused).contains("uid="), "{login} {asked:?}: {}", text(&refused));
        }
    }
    machine.refused("no account is mapped to them, and the node runs as root");
    machine.home.audited("the login", |event| {
        event["event"] == "authenticated"
            && event["alpn"] == "alknet/ssh"
            && event.get("account").is_none()
            && event["reason"] == "login name \"alice\", without an account"
    });
    // Those who would need one for it do not get in, with an export or without.
    for scopes in ["sftp", "ssh:shell,sftp:read:notes", "sftp:read:other"] {
        let other = machine.client(&format!("with-{}", scopes.len()), scopes);
        assert!(!sftp(&other, "guest", "ls\n").status.success(), "{scopes}");
    }
}

#[test]
fn a_terminal_belongs_to_the_account() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start(MAPPED);
    let alice = machine.client("alice", "ssh");
    let mut ssh = alice.ssh_as(&node, "quic", "alice");
    ssh.arg("-tt");
    let mut terminal = Terminal::run(&ssh, 24, 100);
    terminal.type_line("stat -c 'mode:%U:%G:%a' $(tty)");
    terminal.expect("mode:alice:tty:620");
    // As `su` and `script` do.
    terminal.type_line("echo reopened$((40+2)) > $(tty)");
    terminal.expect("reopened42");
    terminal.type_line("echo login:$0");
    terminal.expect("login:-sh");
    terminal.type_line("exit 3");
    assert_eq!(terminal.wait(), Some(3));
}

#[test]
fn without_a_mapping_only_the_owner_has_an_account() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start("[accounts]\nalice = \"alice\"\n");
    let (carol, alice) = (machine.client("carol", "ssh,call"), machine.client("alice", "ssh"));
    for account in ["root", "alice", "carol", "nobody"] {
        let refused = output(carol.ssh_as(&node, "tls", account).arg("id"));
        assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
    }
    machine.refused("no account is mapped to them, and the node runs as root");
    for account in ["root", "bob"] {
        let refused = output(alice.ssh_as(&node, "tls", account).arg("id"));
        assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
        machine.refused(&format!("login name \"{account}\" is not an account of theirs"));
    }
    let owner = machine.client("me", "*");
    assert_eq!(run(&owner, &node, "root", "id -u"), "0\n");
    let refused = output(owner.ssh_as(&node, "tls", "alice").arg("id"));
    assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
}

/// `authorized_keys` is the file of the node's account.
#[test]
fn the_owners_keys_are_for_the_nodes_account() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start("authorized_keys = \"keys\"\n[accounts]\nalice = \"alice\"\n");
    let client = Client::new();
    let keys = machine.home.path().join("keys");
    fs::write(&keys, client.public_key()).unwrap();
    fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run(&client, &node, "root", "id -un"), "root\n");
    let refused = output(client.ssh_as(&node, "tls", "alice").arg("id"));
    assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
}

fn call(client: &Client, node: &Node, operation: &str, input: &str) -> std::process::Output {
    let at = node.address().to_string();
    let id = node.id().to_string();
    output(&mut client.home.alknet(&["call", "--pin", &id, &at, operation, input]))
}

#[test]
fn an_operation_runs_commands_as_the_callers_account() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start(MAPPED);
    let alice = machine.client("alice", "call,exec:run");
    let sub = machine.home_of("alice").join("sub");
    fs::create_dir(&sub).unwrap();
    let input = r#"{"command": "id -un; pwd; echo $LANG", "cwd": "sub", "env": {"LANG": "C"}}"#;
    let ran = stdout(&call(&alice, &node, "exec/run", input));
    // In as many pieces as it may come.
    for part in ["alice\\n".to_owned(), format!("{}\\n", sub.display()), "C\\n".to_owned()] {
        assert!(ran.contains(&part), "{part}: {ran}");
    }
    // As root it would be one.
    let ran = call(&alice, &node, "exec/run", r#"{"command": "pwd", "cwd": "/root"}"#);
    assert!(!text(&ran).contains("/root\\n"), "{}", text(&ran));
    let carol = machine.client("carol", "call,exec:run");
    let refused = call(&carol, &node, "exec/run", r#"{"command": "id"}"#);
    assert!(text(&refused).contains("no account of the machine for you"), "{}", text(&refused));
    let owner = machine.client("me", "*");
    let ran = call(&owner, &node, "exec/run", r#"{"command": "id -un"}"#);
    assert!(text(&ran).contains("root\\n"), "{}", text(&ran));
}

/// Who may add peers comes to no account by that.
#[test]
fn a_delegate_gives_nobody_an_account_that_is_not_theirs() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start("[accounts]\nalice = \"alice\"\nbob = \"bob\"\ngone = \"root\"\n");
    let _alice = machine.client("alice", "ssh:shell");
    let bob = machine.client("bob", "call,ssh:shell");
    let key = Client::new().public_key();
    for (operation, input) in [
        ("peers/update", format!(r#"{{"name": "alice", "add_keys": ["{key}"]}}"#)),
        ("peers/add", format!(r#"{{"name": "gone", "scopes": ["ssh"], "keys": ["{key}"]}}"#)),
        ("tokens/create", r#"{"peer": "alice", "scopes": ["ssh:shell"]}"#.to_owned()),
    ] {
        let input = input.replace("\"ssh\"", "\"ssh:shell\"");
        let refused = call(&bob, &node, operation, &input);
        assert!(text(&refused).contains("that are not yours"), "{operation}: {}", text(&refused));
    }
    let new = format!(r#"{{"name": "carol", "scopes": ["ssh:shell"], "keys": ["{key}"]}}"#);
    stdout(&call(&bob, &node, "peers/add", &new));
}

/// Neither what one account does to its home nor a server that is away stops the node.
#[test]
fn a_home_that_never_answers_keeps_nobody_else_waiting() {
    let Some(machine) = Machine::new() else { return };
    if !Path::new("/dev/fuse").exists() {
        return;
    }
    machine.write("hangs", "", 0o644);
    let node = machine.start(MAPPED);
    let (alice, bob) = (machine.client("alice", "ssh"), machine.client("bob", "ssh,sftp"));
    let workers = std::thread::available_parallelism().unwrap().get();
    let mut waiting: Vec<_> = (0..workers + 2)
        .map(|_| bob.ssh_as(&node, "tls", "bob").arg("id").spawn().unwrap())
        .collect();
    crate::process::eventually("the logins", || {
        let logins = machine.home.audit();
        let all = logins.iter().filter(|event| event["account"] == "bob").count();
        (all > workers + 1).then_some(())
    });
    for _ in 0..3 {
        assert_eq!(run(&alice, &node, "alice", "id -un"), "alice\n");
    }
    for ssh in &mut waiting {
        assert!(ssh.try_wait().unwrap().is_none(), "nothing hangs");
        ssh.kill().unwrap();
        ssh.wait().unwrap();
    }
}

#[test]
fn a_closed_account_is_refused() {
    let Some(machine) = Machine::new() else { return };
    let node =
        machine.start("[accounts]\ncarol = [\"locked\", \"expired\", \"gone\", \"alice\"]\n");
    let add = |file: &str, line: &str| {
        let path = machine.folder.path().join(file);
        fs::write(&path, fs::read_to_string(&path).unwrap() + line + "\n").unwrap();
    };
    for (name, id) in [("locked", 4731), ("expired", 4732)] {
        add("passwd", &format!("{name}:x:{id}:{id}::/:/bin/sh"));
    }
    add("shadow", "locked:!*:20000:0:99999:7:::");
    add("shadow", "expired:*:10000:0:99999:7::10000:");
    let carol = machine.client("carol", "ssh");
    for (name, reason) in [
        ("locked", "the account \"locked\" is locked"),
        ("expired", "the account \"expired\" has expired"),
        ("gone", "the machine has no account \"gone\""),
    ] {
        let refused = output(carol.ssh_as(&node, "tls", name).arg("id"));
        assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
        machine.refused(reason);
    }
    assert_eq!(run(&carol, &node, "alice", "id -un"), "alice\n");
}

#[test]
fn a_mapping_is_changed_while_the_node_serves() {
    let Some(machine) = Machine::new() else { return };
    let node = machine.start(MAPPED);
    let bob = machine.client("bob", "ssh");
    assert_eq!(run(&bob, &node, "bob", "id -un"), "bob\n");
    fs::write(machine.home.path().join("alknet.toml"), "[accounts]\nbob = \"alice\"\n").unwrap();
    node.signal(Signal::SIGHUP);
    crate::process::eventually("the new mapping", || {
        let now = output(bob.ssh_as(&node, "tls", "alice").arg("id -un"));
        (now.stdout == b"alice\n").then_some(())
    });
    let refused = output(bob.ssh_as(&node, "tls", "bob").arg("id"));
    assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
}

/// Other accounts are for root to become: the mistake is named before anything starts.
#[test]
fn an_ordinary_node_serves_its_own_account_alone() {
    let home = Home::new();
    let nobody = 65534;
    let as_user = |mut command: Command| {
        if nix::unistd::geteuid().is_root() {
            use std::os::unix::process::CommandExt as _;
            command.uid(nobody).gid(nobody);
        }
        output(&mut command)
    };
    let file = home.path().join("alknet.toml");
    fs::write(&file, "[accounts]\nalice = \"no-such-account\"\n").unwrap();
    if nix::unistd::geteuid().is_root() {
        give(home.path(), nobody);
        give(&file, nobody);
    }
    let checked = as_user(home.alknet(&["config", "check"]));
    let said = text(&checked);
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot become no-such-account: only root can"), "{said}");
    assert!(said.contains("line 1: accounts"), "{said}");
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
}

/// A machine whose PAM does and says what these lines make it.
fn with_pam(machine: &Machine, lines: &str) {
    fs::create_dir(machine.folder.path().join("pam.d")).unwrap();
    machine.write("pam.d/alknet", lines, 0o644);
    machine.write(
        "pam.d/other",
        "auth required pam_deny.so\naccount required pam_deny.so\n",
        0o644,
    );
}

#[test]
fn pam_opens_and_closes_the_session() {
    let Some(machine) = Machine::new() else { return };
    let trace = machine.folder.path().join("trace");
    machine.write(
        "hook",
        &format!(
            "#!/bin/sh\necho \"$PAM_TYPE $PAM_USER $PAM_TTY $PAM_SERVICE $(id -u)\" >> {}\n",
            trace.display()
        ),
        0o755,
    );
    machine.write("env", "FROM_PAM=yes\nHOME=/nowhere\n", 0o644);
    let folder = machine.folder.path().display();
    with_pam(
        &machine,
        &format!(
            "account required pam_unix.so\n\
             session required pam_exec.so {folder}/hook\n\
             session required pam_limits.so conf={folder}/limits\n\
             session required pam_env.so envfile={folder}/env user_readenv=0\n"
        ),
    );
    machine.write("limits", "alice hard nofile 321\n", 0o644);
    let node = machine.start(MAPPED);
    let alice = machine.client("alice", "ssh");
    let line = "id -u; id -G; echo $FROM_PAM $HOME; ulimit -Hn; ls /proc/self/fd | wc -l; \
                ps -o pid=,pgid=,sess= -p $$ | awk '{print $1==$2 && $2==$3}'; exit 7";
    let ran = output(alice.ssh_as(&node, "tls", "alice").arg(line));
    assert_eq!(ran.status.code(), Some(7), "{}", text(&ran));
    let expected = format!(
        "{ALICE}\n{ALICE} {STAFF} {OPS}\nyes {}\n321\n4\n1\n",
        machine.home_of("alice").display()
    );
    assert_eq!(String::from_utf8_lossy(&ran.stdout), expected, "{}", text(&ran));
    let traced = || fs::read_to_string(&trace).unwrap_or_default();
    crate::process::eventually("the end of the session", || {
        (traced() == "open_session alice ssh alknet 0\nclose_session alice ssh alknet 0\n")
            .then_some(())
    });
    // In a terminal: signals, job control and the end of the client are what they are without.
    let mut ssh = alice.ssh_as(&node, "tls", "alice");
    ssh.arg("-tt");
    let mut terminal = Terminal::run(&ssh, 24, 100);
    // dash loses the key while it starts something, and gives the terminal away late.
    terminal.type_line(
        "sh -c 'until [ $(ps -o tpgid= -p $$) -eq $$ ]; do :; done; echo ready:$((6*6)); \
         exec sleep 1000'",
    );
    terminal.expect("ready:36");
    terminal.type_line("\u{3}");
    terminal.type_line("echo after:$((6*7)); stat -c 'owner:%U' $(tty)");
    terminal.expect("after:42");
    terminal.expect("owner:alice");
    drop(terminal);
    crate::process::eventually("the end of the second session", || {
        (traced().matches("close_session").count() == 2).then_some(())
    });
    assert!(traced().contains("open_session alice /dev/pts/"), "{}", traced());
}

/// The dynamic linker of each process writes a file, as whoever that is.
#[test]
fn what_a_client_sets_is_obeyed_by_its_account_alone() {
    let Some(machine) = Machine::new() else { return };
    for pam in [false, true] {
        if pam {
            with_pam(&machine, "account required pam_permit.so\nsession required pam_permit.so\n");
        }
        let node = machine.start(&format!("{MAPPED}[ssh]\naccept_env = [\"*\"]\n"));
        let alice = Client::known_to(&machine.home, if pam { "bob" } else { "alice" }, "ssh");
        let account = if pam { "bob" } else { "alice" };
        let home = machine.home_of(account);
        let mut ssh = alice.ssh_as(&node, "tls", account);
        let trace = format!("SetEnv=LD_DEBUG=files LD_DEBUG_OUTPUT={}/trace", home.display());
        let ran = output(ssh.args(["-o", &trace, "id -u"]));
        let traces = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        let users: Vec<u32> = traces.map(|it| it.uid()).collect();
        let id = if pam { BOB } else { ALICE };
        assert!(!users.is_empty() && users.iter().all(|user| *user == id), "{users:?} {ran:?}");
    }
}

/// A program that waits for all its children does not wait for the keeper of its session.
#[test]
fn a_program_has_no_child_that_it_did_not_start() {
    let Some(machine) = Machine::new() else { return };
    with_pam(&machine, "account required pam_permit.so\nsession required pam_permit.so\n");
    let node = machine.start(MAPPED);
    let alice = machine.client("alice", "ssh");
    let line = "exec perl -e 'alarm 20; 1 while wait != -1; print \"none\\n\"'";
    assert_eq!(run(&alice, &node, "alice", line), "none\n");
}

#[test]
fn who_pam_refuses_has_no_session() {
    let Some(machine) = Machine::new() else { return };
    with_pam(&machine, "account required pam_deny.so\nsession required pam_permit.so\n");
    let node = machine.start(MAPPED);
    let alice = machine.client("alice", "ssh");
    let refused = output(alice.ssh_as(&node, "tls", "alice").arg("id"));
    assert_eq!(refused.status.code(), Some(255), "{}", text(&refused));
    machine.refused("the account \"alice\" is refused by PAM: ");
}
