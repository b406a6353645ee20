//! `alknet sftp-server`

mod log;
mod streams;

use std::{
    collections::BTreeSet,
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use alknet_core::{Audit, AuditEvent};
use alknet_sftp::{Export, Grant, REQUESTS, Rules, Session, SftpLimits, Shared, Trail, View};
use nix::unistd::User;
use rustix::{
    fs::Mode,
    process::{Resource, getrlimit},
};

use self::log::{Facility, Level, Report};
use crate::{failure::Failure, output};

/// Descriptors that are not for files of clients.
const SPARE: u64 = 16;

/// Serve SFTP on stdin and stdout
///
/// It takes the options of OpenSSH's sftp-server and can stand in its place. Requests, for
/// -p and -P, are named as -Q requests lists them. In DIR, %d is the home folder, %u the
/// login name and %% a percent sign.
///
/// Examples:
///   alknet sftp-server -Q requests
///   sftp -D 'alknet sftp-server -R'
///   Subsystem sftp /usr/bin/alknet sftp-server -l INFO     (in sshd_config)
///   ForceCommand /usr/bin/alknet sftp-server --root /srv/photos
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Log to stderr instead of the system's log
    #[arg(short = 'e')]
    stderr: bool,
    /// Change nothing: refuse whatever would write
    #[arg(short = 'R')]
    read_only: bool,
    /// Start in this folder instead of the home folder
    #[arg(short = 'd', value_name = "DIR")]
    folder: Option<String>,
    /// Show this folder as / and nothing outside of it. It takes no chroot and no rights of root
    #[arg(long, value_name = "DIR", conflicts_with = "folder")]
    root: Option<PathBuf>,
    /// The mode bits that new files and folders do not get, in octal
    #[arg(short = 'u', value_name = "UMASK", value_parser = umask)]
    umask: Option<u32>,
    /// Serve these requests alone
    #[arg(short = 'p', value_name = "LIST", value_delimiter = ',', value_parser = request)]
    allowed: Option<Vec<String>>,
    /// Refuse these requests
    #[arg(short = 'P', value_name = "LIST", value_delimiter = ',', value_parser = request)]
    denied: Vec<String>,
    /// What is logged
    #[arg(short = 'l', value_name = "LEVEL", value_enum, ignore_case = true, default_value_t = Level::Error)]
    level: Level,
    /// The facility of what goes to the system's log
    #[arg(short = 'f', value_name = "FACILITY", value_enum, ignore_case = true, default_value_t = Facility::Auth)]
    facility: Facility,
    /// Print what there is of something (requests) and end
    #[arg(short = 'Q', value_name = "FEATURE", value_parser = ["requests"])]
    query: Option<String>,
    /// Report what is done as lines of JSON on stderr: how a node asks for it
    #[arg(long, hide = true)]
    report: bool,
    /// How many files and folders may be open: the node's own bound
    #[arg(long, hide = true, value_name = "N")]
    handles: Option<usize>,
    /// What scp -D adds. As sftp-server does, nothing is made of it
    #[arg(hide = true, value_name = "IGNORED")]
    ignored: Vec<std::ffi::OsString>,
}

fn umask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| "write a umask in octal, as 022".into())
}

fn request(text: &str) -> Result<String, String> {
    match REQUESTS.contains(&text) {
        true => Ok(text.into()),
        false => Err("-Q requests lists them".into()),
    }
}

/// The whole of it: the state folder is not looked at, and it has threads of its own.
pub(crate) fn main(args: Args) -> ExitCode {
    log::start(args.level, args.facility, args.stderr || args.report);
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(args));
            // What hangs on a dead file system does not keep the process.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.query.is_some() {
        REQUESTS.iter().try_for_each(output::line)?;
        return Ok(());
    }
    if let Some(mask) = args.umask {
        rustix::process::umask(Mode::from_raw_mode(mask));
    }
    if let Some(folder) = &args.folder {
        let folder = expanded(folder);
        // As OpenSSH has it: the session begins all the same, where it is.
        if let Err(error) = std::env::set_current_dir(&folder) {
            tracing::error!(%error, folder, "cannot start there");
        }
    }
    let audit = if args.report { Audit::new(Report) } else { Audit::new(log::Deeds) };
    let trail = Trail::with(audit, AuditEvent::default());
    let set = |list: Vec<String>| BTreeSet::from_iter(list);
    let (read_only, denied) = (args.read_only, set(args.denied));
    let rules = Rules { read_only, allowed: args.allowed.map(set), denied };
    let view = match &args.root {
        Some(folder) => rooted(folder, args.read_only)?,
        None => View::account(Path::new("."))?,
    };
    let session =
        Session::new(view, Shared::new(limits(args.handles))).with_trail(trail).with_rules(rules);
    let (input, output) = streams::standard()?;
    Ok(session.serve(input, output).await?)
}

/// A folder as all that there is.
fn rooted(folder: &Path, read_only: bool) -> Result<View, Failure> {
    let export = Export::new("root", folder)?;
    let grant = Grant::new(&export, true, !read_only);
    let grant = grant.ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?;
    Ok(View::root(grant))
}

/// As many files as the process may have, or as it is told.
fn limits(handles: Option<usize>) -> SftpLimits {
    let mut limits = SftpLimits::default();
    let all = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let all = usize::try_from(all.saturating_sub(SPARE)).unwrap_or(usize::MAX);
    limits.handles = all.min(handles.unwrap_or(1 << 16));
    limits.identity_handles = limits.handles;
    limits.all_handles = limits.handles;
    limits
}

/// A folder with what stands for the account's own put in.
fn expanded(folder: &str) -> String {
    let user = User::from_uid(nix::unistd::geteuid()).ok().flatten();
    let (mut text, mut rest) = (String::new(), folder.chars());
    while let Some(c) = rest.next() {
        match (c, &user) {
            ('%', user) => match (rest.next(), user) {
                (Some('d'), Some(user)) => {
                    text.push_str(&String::from_utf8_lossy(user.dir.as_os_str().as_bytes()));
                }
                (Some('u'), Some(user)) => text.push_str(&user.name),
                (Some(other), _) => text.push(other),
                (None, _) => text.push('%'),
            },
            (c, _) => text.push(c),
        }
    }
    text
}

impl From<Level> for tracing_subscriber::filter::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Quiet => Self::OFF,
            Level::Fatal | Level::Error => Self::ERROR,
            Level::Info => Self::INFO,
            Level::Verbose | Level::Debug | Level::Debug1 => Self::DEBUG,
            Level::Debug2 | Level::Debug3 => Self::TRACE,
        }
    }
}

/// For errors of the operating system alone.
pub(super) type Outcome<T> = io::Result<T>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_openssh() {
        assert_eq!((umask("022"), umask("0777")), (Ok(0o022), Ok(0o777)));
        assert!(umask("8").is_err() && umask("1777").is_err() && umask("").is_err());
        assert!(request("posix-rename").is_ok() && request("posix-rename@openssh.com").is_err());
        let user = User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        assert_eq!(expanded("/a/%u/%%"), format!("/a/{}/%", user.name));
    }
}
