//! OpenSSH's own regression tests (Debian: openssh-tests) against the SSH server, behind as
//! much of sshd's command line as they need (`crates/alknet-ssh/examples/regress_sshd`), and
//! against `alknet sftp-server`. Each is run with sshd first: what does not pass with that
//! here says nothing.

mod table;

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use wait_timeout::ChildExt as _;

use self::table::{FIXED_PORTS, LISTS, NOT_WITH_SSHD, TESTS, Verdict};
use crate::{files, programs, sh::Cmd, tools};

/// Where the package has them.
const SUITE: &str = "/usr/lib/openssh/regress";
/// The longest test takes three minutes with sshd.
const DEADLINE: Duration = Duration::from_secs(10 * 60);
/// The first test's port. Some use the next two as well, and none those of another.
const PORT: u16 = 24_200;
const PORTS_OF_A_TEST: u16 = 10;
/// How many tests run at a time, each in a copy of the suite. They mostly wait.
const LANES: usize = 3;

/// ssh, but that it knows of no algorithm that the server does not offer: some tests go
/// through all that there are.
const SSH: &str = r#"#!/bin/sh
asked=
for word; do
	if [ "$asked" = yes ]; then
		case $word in
		key-plain) list="${LIST_key_plain-ssh-ed25519 ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521 ssh-rsa}" ;;
		kex) list="curve25519-sha256 curve25519-sha256@libssh.org" ;;
		cipher | cipher-auth) list="aes128-gcm@openssh.com aes256-gcm@openssh.com chacha20-poly1305@openssh.com" ;;
		mac) list="${LIST_mac-hmac-sha2-256-etm@openssh.com hmac-sha2-512-etm@openssh.com}" ;;
		*) break ;;
		esac
		printf '%s\n' $list
		exit
	fi
	[ "$word" = -Q ] && asked=yes
done
exec /usr/bin/ssh "$@"
"#;

/// What a test is run against.
struct Servers {
    name: &'static str,
    sshd: PathBuf,
    sftp: PathBuf,
}

/// Has the run look at sshd alone, with every test of the suite.
const CALIBRATE: &str = "--calibrate";

/// Runs every test that applies, or those that are named: with sshd and then with ours.
pub(super) fn run(root: &Path, args: &[String]) -> Result<()> {
    let (options, names): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.starts_with('-'));
    let unknown = options.iter().find(|option| **option != CALIBRATE);
    ensure!(unknown.is_none(), "the only option is {CALIBRATE}");
    let calibrate = !options.is_empty();
    every_test_is_known()?;
    let built = programs::build(root)?;
    let dir = root.join("target/xtask/conformance/openssh");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    script(&dir.join("ssh"), SSH)?;
    let sftp = dir.join("sftp-server");
    script(
        &sftp,
        &format!("#!/bin/sh\nexec {} sftp-server \"$@\"\n", built.join("alknet").display()),
    )?;
    let ours = Servers { name: "ours", sshd: built.join("examples/regress_sshd"), sftp };
    let theirs = Servers {
        name: "sshd",
        sshd: tools::find("sshd").context("no sshd")?,
        sftp: "/usr/lib/openssh/sftp-server".into(),
    };
    let (next, fixed_ports) = (AtomicUsize::new(0), Mutex::new(()));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let lane = |number: usize| {
            let suite = dir.join(format!("suite-{number}"));
            Cmd::new(&dir, "cp").args(["-a", SUITE]).arg(&suite).run()?;
            while let Some((name, verdict)) = TESTS.get(next.fetch_add(1, Ordering::Relaxed)) {
                if names.is_empty() || names.iter().any(|it| it == name) {
                    let (ours, theirs, fixed_ports) = (&ours, &theirs, &fixed_ports);
                    let lane = Lane { dir: &dir, suite: &suite, ours, theirs, fixed_ports };
                    let failure = lane.judge(name, verdict, calibrate);
                    failed.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
                }
            }
            anyhow::Ok(())
        };
        let lanes: Vec<_> = (0..LANES).map(|number| scope.spawn(move || lane(number))).collect();
        let mut ended = lanes.into_iter().map(|lane| lane.join());
        ended.try_for_each(|lane| lane.unwrap_or_else(|_| bail!("a lane panicked")))
    })?;
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Fails when the suite has a test that nobody has looked at.
fn every_test_is_known() -> Result<()> {
    let makefile = fs::read_to_string(Path::new(SUITE).join("Makefile"))?;
    let list = makefile.split_once("LTESTS=").context("the suite lists no tests")?.1;
    let list = list.split("\n\n").next().unwrap_or_default();
    let listed: Vec<&str> = list.split_whitespace().filter(|word| *word != "\\").collect();
    ensure!(!listed.is_empty(), "the suite lists no tests");
    let unknown: Vec<&str> =
        listed.into_iter().filter(|name| !TESTS.iter().any(|(known, _)| known == name)).collect();
    ensure!(unknown.is_empty(), "tests that nobody has looked at: {}", unknown.join(", "));
    Ok(())
}

/// Where tests run one after the other.
struct Lane<'a> {
    dir: &'a Path,
    suite: &'a Path,
    ours: &'a Servers,
    theirs: &'a Servers,
    /// Who has the ports that several tests have written down.
    fixed_ports: &'a Mutex<()>,
}

impl Lane<'_> {
    /// What is not as the table has it.
    fn judge(&self, name: &str, verdict: &Verdict, calibrate: bool) -> Option<String> {
        if let Verdict::Partly(why) | Verdict::NotApplicable(why) = verdict
            && !calibrate
        {
            eprintln!("  {name}: left out: {why}");
            return None;
        }
        let number = TESTS.iter().position(|(known, _)| *known == name).unwrap_or_default();
        let port = PORT + u16::try_from(number).unwrap_or_default() * PORTS_OF_A_TEST;
        let known = NOT_WITH_SSHD.iter().find(|(known, _)| *known == name);
        match (self.test(name, port, self.theirs), known) {
            (Ok(()), None) => eprintln!("  {name}: passed with sshd"),
            (Ok(()), Some(_)) => return Some(format!("{name} passes with sshd after all")),
            (Err(error), Some((_, why))) => eprintln!("  {name}: {why} ({error:#})"),
            (Err(error), None) => {
                return Some(format!("{name} says nothing here: with sshd, {error:#}"));
            }
        }
        if calibrate {
            return None;
        }
        match self.test(name, port + PORTS_OF_A_TEST / 2, self.ours) {
            Ok(()) => {
                eprintln!("  {name}: passed");
                None
            }
            Err(error) => Some(format!("{name} fails, and passes with sshd: {error:#}")),
        }
    }

    fn test(&self, name: &str, port: u16, servers: &Servers) -> Result<()> {
        let _alone = FIXED_PORTS
            .contains(&name)
            .then(|| self.fixed_ports.lock().unwrap_or_else(PoisonError::into_inner));
        test(self, name, port, servers)
    }
}

/// Runs one test to its end.
fn test(lane: &Lane<'_>, name: &str, port: u16, servers: &Servers) -> Result<()> {
    let (dir, suite) = (lane.dir, lane.suite);
    let log = dir.join(format!("{name}.{}.log", servers.name));
    let output = File::create(&log)?;
    let mut command = Command::new("sh");
    command
        .arg(suite.join("test-exec.sh"))
        .arg(suite)
        .arg(suite.join(format!("{name}.sh")))
        .current_dir(suite)
        .env("OBJ", suite)
        .env("BUILDDIR", suite)
        .env("TEST_SHELL", "sh")
        .env("TEST_SSH_SSH", dir.join("ssh"))
        .env("TEST_SSH_SSHD", &servers.sshd)
        .env("TEST_SSH_SFTPSERVER", &servers.sftp)
        .env("TEST_SSH_PORT", port.to_string())
        .env("TEST_SSH_UNSAFE_PERMISSIONS", "1")
        .env("SUDO", "")
        .envs(LISTS.iter().filter(|(test, ..)| *test == name).map(|(_, list, of)| (list, of)))
        .env_remove("SSH_AUTH_SOCK")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // What a test leaves behind goes with it.
        .process_group(0);
    let mut child = command.spawn()?;
    let group = format!("-{}", child.id());
    let status = child.wait_timeout(DEADLINE)?;
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    child.wait()?;
    let pid_file = suite.join("pidfile");
    if let Ok(pid) = fs::read_to_string(&pid_file) {
        // Before, because sshd removes it when it is told to end.
        fs::remove_file(&pid_file)?;
        let _ = Command::new("kill").arg(pid.trim()).stderr(Stdio::null()).status();
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
    let last = said.lines().rev().find(|line| !line.starts_with('+')).unwrap_or_default();
    match status {
        None => bail!("it did not end in {} s", DEADLINE.as_secs()),
        // A test that does not run is no test that passes.
        Some(status) if status.success() && !said.to_lowercase().contains("skipped") => Ok(()),
        Some(_) => bail!("{last} ({})", log.display()),
    }
}

fn script(path: &Path, text: &str) -> Result<()> {
    files::write(path, text.as_bytes())?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
