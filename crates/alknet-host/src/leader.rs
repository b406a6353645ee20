//! How a program of another account starts: by way of a leader.
//!
//! The leader is this program again, as root ([`lead`]). It becomes the account, enters the
//! folder and turns into the program, so that process, group and terminal are the program's
//! own. All that could wait for the account's files, or go by what a client has set, happens
//! in it and not in the node: it starts with no environment and in the root folder, and
//! reads from a descriptor what the program is to have.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command as Program, ExitCode, Stdio},
};

use rustix::fs::{MemfdFlags, memfd_create};
use tokio::process::Command;

use crate::{account::Switch, accounts::look_up, pam, sys};

/// What a leader is called, and its first argument: how this program knows that it is one.
const LEADER: &str = "alknet-session";
/// In the place of a PAM service: none is asked.
const NO_SERVICE: &str = "";
/// The service that is asked where none is named and this one is described.
const USUAL: &str = "alknet";
/// The exit status where there is no session.
const REFUSED: u8 = 254;
/// What the message of a refusal begins with.
const SAYS: &str = "alknet: no session: ";
/// How much of it the audit log shows.
const SHOWN: usize = 200;
/// The most that a program can be given, in bytes: more than a kernel would take.
const MAX_GIVEN: u64 = 4 << 20;
/// What PAM's environment does not change.
const OURS: [&str; 5] = ["HOME", "USER", "LOGNAME", "SHELL", "TERM"];

/// How programs of other accounts start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// This program.
    program: PathBuf,
    /// The service of PAM that opens sessions, where one does.
    service: Option<String>,
}

impl Leader {
    /// By `program`: this process's own file, whose `main` has to call [`lead`] before
    /// anything else.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), service: None }
    }

    /// With sessions that a service of PAM opens: a name in `/etc/pam.d`.
    pub fn with_pam(self, service: impl Into<String>) -> Self {
        Self { service: Some(service.into()), ..self }
    }

    /// With the service `alknet`, if the machine describes it and has PAM.
    pub fn with_usual_pam(self) -> Self {
        if pam::describes(USUAL) && pam::is_there() { self.with_pam(USUAL) } else { self }
    }

    /// Whether the machine describes a service of PAM.
    pub fn describes(service: &str) -> bool {
        pam::describes(service)
    }

    /// Whether PAM is asked.
    pub(crate) fn has_pam(&self) -> bool {
        self.service.is_some()
    }

    /// Whether PAM lets an account be used now; if not, why. Cancel safe.
    pub(crate) async fn check(&self, account: &str) -> Result<(), String> {
        let Some(service) = &self.service else { return Ok(()) };
        let mut command = self.base(service, account);
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        sys::isolate(&mut command, false);
        match command.kill_on_drop(true).output().await {
            Ok(done) if done.status.success() => Ok(()),
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr);
                let said = said.trim_end().trim_start_matches(SAYS).chars().take(SHOWN);
                Err(said.map(|c| if c.is_control() { ' ' } else { c }).collect())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// A program of an account, in a session. Arguments may be added.
    pub(crate) fn command(&self, account: &str, arg0: &OsStr, program: &OsStr) -> Command {
        let mut command = self.base(self.service.as_deref().unwrap_or(NO_SERVICE), account);
        command.arg(arg0).arg(program);
        command
    }

    /// The same without a session of PAM.
    pub(crate) fn plain(&self, account: &str, program: &OsStr) -> Command {
        let mut command = self.base(NO_SERVICE, account);
        command.arg(program).arg(program);
        command
    }

    fn base(&self, service: &str, account: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0(LEADER).args([LEADER, service, account]);
        command
    }
}

/// Takes the variables and the folder from a command that starts by a leader, and gives them
/// to the leader in a way that nothing goes by before it has become the account. To be called
/// last, before each start of a command of an [`Account`](crate::Account); a
/// [`Process`](crate::Process) does. A leader without it starts nothing.
pub fn hand_over(command: &mut Command) -> io::Result<()> {
    let inner = command.as_std();
    if inner.get_args().next() != Some(OsStr::new(LEADER)) {
        return Ok(());
    }
    let folder = inner.get_current_dir().unwrap_or_else(|| Path::new("/"));
    let mut given = File::from(memfd_create("session", MemfdFlags::CLOEXEC)?);
    given.write_all(&encode(folder, inner.get_envs())?)?;
    given.rewind()?;
    command.env_clear().current_dir("/");
    sys::pass(command, given.into());
    Ok(())
}

/// The folder and each variable, with a zero byte behind.
fn encode<'a>(
    folder: &Path,
    variables: impl Iterator<Item = (&'a OsStr, Option<&'a OsStr>)>,
) -> io::Result<Vec<u8>> {
    let mut all = folder.as_os_str().as_bytes().to_vec();
    let mut zeroes = 1;
    all.push(0);
    for (name, value) in variables.filter_map(|(name, value)| Some((name, value?))) {
        all.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
        zeroes += 1;
    }
    let whole = all.iter().filter(|byte| **byte == 0).count() == zeroes;
    if whole && all.len() as u64 <= MAX_GIVEN { Ok(all) } else { Err(invalid()) }
}

/// What a program is to have.
#[derive(Debug, PartialEq)]
struct Given {
    folder: OsString,
    variables: Vec<(OsString, OsString)>,
}

impl Given {
    fn read(from: File) -> io::Result<Self> {
        let mut all = Vec::new();
        from.take(MAX_GIVEN + 1).read_to_end(&mut all)?;
        if all.len() as u64 > MAX_GIVEN || all.pop() != Some(0) {
            return Err(invalid());
        }
        let mut parts = all.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        let folder = OsString::from_vec(parts.next().ok_or_else(invalid)?);
        let variables = parts.map(|text| {
            let end = text.iter().position(|byte| *byte == b'=')?;
            let (name, value) = text.split_at_checked(end)?;
            let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((owned(name), owned(value.get(1..)?)))
        });
        let variables = variables.collect::<Option<_>>().ok_or_else(invalid)?;
        Ok(Self { folder, variables })
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

/// Leads a session if this process was started to, and does not come back then but with the
/// exit code. To be called before anything else: there must be no other thread.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     if let Some(code) = alknet_host::lead() {
///         return code;
///     }
///     std::process::ExitCode::SUCCESS
/// }
/// ```
pub fn lead() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    if args.next()? != LEADER || args.next()? != LEADER {
        return None;
    }
    // There is none, and PAM's modules are to go by none.
    sys::clear_environment();
    match act(args) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{SAYS}{error}");
            Some(ExitCode::from(REFUSED))
        }
    }
}

/// Becomes a program; without one, checks the account.
fn act(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let mut text = || args.next().and_then(|arg| arg.into_string().ok()).ok_or_else(invalid);
    let (service, name) = (text()?, text()?);
    let (Some(arg0), Some(program)) = (args.next(), args.next()) else {
        return pam::check(&service, &name);
    };
    let given = Given::read(sys::passed()?)?;
    let account = look_up(&name).map_err(io::Error::other)?;
    sys::usual_umask();
    let mut switch = account.switch.ok_or_else(invalid)?;
    let mut changed = Vec::new();
    if service != NO_SERVICE {
        changed = pam::open_session(&service, &name, &switch, &given.variables)?;
        // PAM may have added groups; those hold.
        switch.groups = rustix::process::getgroups()?;
    }
    let changed = changed.into_iter().filter(|(name, _)| !OURS.iter().any(|it| name == it));
    let mut command = Program::new(program);
    command.arg0(arg0).args(args).env_clear().envs(given.variables).envs(changed);
    become_at_exec(&mut command, switch, given.folder)?;
    Err(command.exec())
}

/// The home is entered if it can be; another folder has to be.
fn become_at_exec(command: &mut Program, switch: Switch, folder: OsString) -> io::Result<()> {
    let strict = folder.as_bytes() != switch.home.as_bytes();
    let home = std::ffi::CString::new(folder.into_vec())?;
    sys::become_at_exec(command, Switch { home, ..switch }, strict);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(command: &Command) -> io::Result<Vec<u8>> {
        let inner = command.as_std();
        encode(inner.get_current_dir().unwrap(), inner.get_envs())
    }

    fn read(bytes: &[u8]) -> io::Result<Given> {
        let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        file.rewind()?;
        Given::read(file)
    }

    /// The dynamic linker of the leader, which root runs, goes by what is in its environment.
    #[test]
    fn a_leader_starts_with_no_environment() {
        let mut command = Leader::new("/nowhere").command("alice", "-sh".as_ref(), "sh".as_ref());
        command.current_dir("/home/alice").env_clear().env("LD_PRELOAD", "/x.so").env("A", "b=c");
        let bytes = given(&command).unwrap();
        hand_over(&mut command).unwrap();
        let inner = command.as_std();
        assert_eq!(inner.get_envs().count(), 0);
        assert_eq!(inner.get_current_dir(), Some(Path::new("/")));
        let variable = |name: &str, value: &str| (name.into(), value.into());
        let variables = vec![variable("A", "b=c"), variable("LD_PRELOAD", "/x.so")];
        assert_eq!(read(&bytes).unwrap(), Given { folder: "/home/alice".into(), variables });
        // What starts by no leader keeps its own.
        let mut command = Command::new("sh");
        command.env("A", "b");
        hand_over(&mut command).unwrap();
        assert_eq!(command.as_std().get_envs().count(), 1);
    }

    #[test]
    fn what_is_handed_over_is_what_arrives_or_nothing() {
        let mut command = Command::new("x");
        command.current_dir("/").env("A", "b\0LD_PRELOAD=/x.so");
        assert!(given(&command).is_err());
        for wrong in [&b""[..], b"/", b"/\0A", b"/\0A\0", b"/\0A=b"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&vec![0; usize::try_from(MAX_GIVEN).unwrap() + 1]).is_err());
        assert_eq!(read(b"/\0").unwrap().variables, []);
    }
}
