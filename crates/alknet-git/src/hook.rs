//! The programs that git runs as hooks of a push: this program again, by another name.
//!
//! `core.hooksPath` of the [`InstalledGit`](crate::InstalledGit) names a folder in which
//! `pre-receive`, `proc-receive` and `post-receive` are links to the node's own program. Each
//! hands to the node, over a Unix socket, what git says, and to git what the node answers.
//! `proc-receive` lets git do every update itself (`fall-through`); it is there because it can
//! refuse single refs, each with a reason, in one process for all of them; and because git,
//! which goes on where it finds no other hook, changes nothing where it does not find this one.
//! A hook that does not reach its node refuses, and so does one of another version than its node.

mod serve;
mod wire;

use std::{
    env, fmt,
    io::{self, Read, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::Duration,
};

use gix_packetline::{
    PacketLineRef,
    blocking_io::{StreamingPeekableIter, encode},
};
use rustix::process::{DumpableBehavior, dumpable_behavior};

pub(crate) use self::serve::{Course, serve};
use self::wire::{Hook, Question};
use crate::push::{Certificate, RefChange, Refused};

/// The variable that tells a hook where its node listens.
pub(crate) const SOCKET: &str = "ALKNET_PUSH";
/// How hooks are called.
pub(crate) const NAMES: [&str; 3] = ["pre-receive", "proc-receive", "post-receive"];
/// The most that git may say of one push, in bytes: some 300,000 refs.
const MAX_SAID: u64 = 48 << 20;
/// The most options of a push.
const MAX_OPTIONS: usize = 1000;
/// How long the node may be silent. It runs the owner's hooks meanwhile, which have shorter
/// deadlines of their own.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// The longest reason that fits in a packet line beside the name of a ref.
const MAX_REASON: usize = 1000;
/// How many refs are named where all are refused.
const NAMED: usize = 20;
const NO_CHANGE: &str = "git says something that is no change of a ref";
/// What the other refs of an atomic push are refused for.
const ATOMIC: &str = "another ref of this atomic push was refused";

/// Does what a hook of git's has to do, if this process was started as one: if it is called
/// `pre-receive`, `proc-receive` or `post-receive`. The `main` of a program whose
/// [`InstalledGit`](crate::InstalledGit) takes pushes calls it before anything else.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     if let Some(code) = alknet_git::hook::main() {
///         return code;
///     }
///     // The program itself.
///     std::process::ExitCode::SUCCESS
/// }
/// ```
pub fn main() -> Option<ExitCode> {
    let called = env::args_os().next()?;
    let name = Path::new(&called).file_name()?.to_str()?;
    let hook = Hook::named(name)?;
    Some(match run(hook) {
        Ok(code) => code,
        Err(error) => {
            // Git shows it to whoever pushes; a closed standard error is no reason to panic.
            let _ = writeln!(io::stderr(), "the node cannot be asked: {error}");
            ExitCode::FAILURE
        }
    })
}

/// This process's own program, for [`Setup::hooks`](crate::Setup::hooks): the very one that
/// runs, also once its file is replaced by a newer one or removed. It leads nowhere when the
/// process has ended.
pub fn program() -> io::Result<PathBuf> {
    // What has privileges of its file, as setcap(8) gives them, is hidden from what it starts.
    match dumpable_behavior()? {
        DumpableBehavior::Dumpable => Ok(format!("/proc/{}/exe", process::id()).into()),
        _ => env::current_exe(),
    }
}

fn run(hook: Hook) -> io::Result<ExitCode> {
    let socket = env::var_os(SOCKET).ok_or_else(|| invalid("this is no push to a node"))?;
    let node = UnixStream::connect(socket)?;
    node.set_read_timeout(Some(PATIENCE))?;
    let stdin = io::stdin().lock().take(MAX_SAID + 1);
    match hook {
        Hook::Proc => proc_receive(node, stdin),
        Hook::Pre | Hook::Post => {
            let question = Question { changes: changes(stdin)?, ..question(hook) };
            let refused = wire::ask(node, &question)?;
            let declined = hook == Hook::Pre
                && !question.changes.is_empty()
                && question.changes.iter().all(|it| refused.contains_key(&it.reference));
            Ok(if declined { decline(&refused) } else { ExitCode::SUCCESS })
        }
    }
}

/// Tells why each ref is refused, as git itself says only that all are.
fn decline(refused: &Refused) -> ExitCode {
    let mut stderr = io::stderr().lock();
    for (reference, why) in refused.iter().take(NAMED) {
        let _ = writeln!(stderr, "{reference}: {why}");
    }
    if let Some(more) = refused.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let _ = writeln!(stderr, "and {more} more");
    }
    ExitCode::FAILURE
}

/// What git's variables tell of the push.
fn question(hook: Hook) -> Question {
    let variable = |name: &str| Some(env::var_os(name)?.to_string_lossy().into_owned());
    let count = variable("GIT_PUSH_OPTION_COUNT").and_then(|count| count.parse().ok());
    let options = 0..count.unwrap_or(0_usize).min(MAX_OPTIONS);
    Question {
        hook,
        changes: Vec::new(),
        quarantine: env::var_os("GIT_QUARANTINE_PATH").map(Into::into),
        options: options.filter_map(|nth| variable(&format!("GIT_PUSH_OPTION_{nth}"))).collect(),
        certificate: Certificate::from_variables(variable),
    }
}

/// The lines of git: two ids and a name.
fn changes(mut stdin: impl Read) -> io::Result<Vec<RefChange>> {
    let mut text = String::new();
    stdin.read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SAID {
        return Err(invalid("too many refs at once"));
    }
    let change = |line| RefChange::from_line(line).ok_or_else(|| invalid(NO_CHANGE));
    text.lines().map(change).collect()
}

/// The dialogue of githooks(5), section "proc-receive".
fn proc_receive(node: UnixStream, stdin: impl Read) -> io::Result<ExitCode> {
    let mut lines = StreamingPeekableIter::new(stdin, &[PacketLineRef::Flush], false);
    let greeting = texts(&mut lines)?;
    let capabilities = greeting.first().and_then(|line| line.split_once('\0'));
    let atomic = capabilities.is_some_and(|(_, all)| all.split(' ').any(|it| it == "atomic"));
    let mut stdout = io::stdout().lock();
    encode::text_to_write(b"version=1", &mut stdout)?;
    encode::flush_to_write(&mut stdout)?;
    stdout.flush()?;

    lines.reset();
    let changes = texts(&mut lines)?.into_iter().map(|line| RefChange::from_line(&line));
    let changes: Option<Vec<_>> = changes.collect();
    let changes = changes.ok_or_else(|| invalid(NO_CHANGE))?;
    let question = Question { changes, ..question(Hook::Proc) };
    let refused = wire::ask(node, &question)?;

    let mut report = Vec::new();
    for change in &question.changes {
        let name = &change.reference;
        let why = refused.get(name).map(String::as_str);
        match why.or_else(|| (atomic && !refused.is_empty()).then_some(ATOMIC)) {
            Some(why) => line(&mut report, format_args!("ng {name} {}", reason(why)))?,
            None => {
                line(&mut report, format_args!("ok {name}"))?;
                line(&mut report, format_args!("option fall-through"))?;
            }
        }
    }
    encode::flush_to_write(&mut report)?;
    stdout.write_all(&report)?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The texts up to the next flush packet.
fn texts(lines: &mut StreamingPeekableIter<impl Read>) -> io::Result<Vec<String>> {
    let mut texts = Vec::new();
    while let Some(line) = lines.read_line() {
        let line = line?.map_err(|_| invalid("git says something that is no packet line"))?;
        let text = line.as_text().ok_or_else(|| invalid("a packet line has no text"))?;
        let text = str::from_utf8(text.as_slice());
        texts.push(text.map_err(|_| invalid("the name of a ref is no UTF-8"))?.to_owned());
    }
    Ok(texts)
}

fn line(to: &mut Vec<u8>, text: fmt::Arguments<'_>) -> io::Result<()> {
    encode::text_to_write(text.to_string().as_bytes(), to).map(drop)
}

/// On one line, and not too long for it.
fn reason(why: &str) -> String {
    why.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_this_process_is_found_whatever_becomes_of_its_file() {
        let program = program().unwrap();
        assert!(program.starts_with("/proc"), "{program:?}");
        assert_eq!(std::fs::read_link(program).unwrap(), env::current_exe().unwrap());
    }
}
