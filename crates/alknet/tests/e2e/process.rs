//! Child processes with a deadline.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Enough for anything that is not meant to move much data.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Enough for hundreds of megabytes through a debug build.
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// Runs a command to its end and gives what it printed.
pub(crate) fn output(command: &mut Command) -> Output {
    output_of(
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(),
        SOON,
    )
}

/// Like [`output`], with something on standard input.
pub(crate) fn output_with(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A child that does not read its input is its own affair.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = output_of(child, SOON);
    writer.join().unwrap();
    output
}

/// What a command prints first, while its input stays open.
pub(crate) fn first_bytes(command: &mut Command) -> [u8; 8] {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let guard = Deadline::kill(child.id(), SOON);
    let mut first = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!guard.passed());
    first
}

/// Waits for a child, and kills it where that takes too long.
pub(crate) fn output_of(child: Child, limit: Duration) -> Output {
    let pid = child.id();
    let guard = Deadline::kill(pid, limit);
    let output = child.wait_with_output().unwrap();
    assert!(!guard.passed(), "not done in {limit:?}: {}", text(&output));
    output
}

/// What a finished command said, for failures.
pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Its standard output as text, if it succeeded.
#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a process says on standard error. It is kept in a file that has no name: whatever
/// the process wrote before it answered somebody is there once the answer is, which a
/// thread that reads a pipe could not promise.
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempfile().unwrap())
    }

    /// The process's end of it.
    pub(crate) fn end(&self) -> Stdio {
        self.0.try_clone().unwrap().into()
    }

    /// All so far.
    pub(crate) fn text(&self) -> String {
        // The position is the writer's.
        let mut text = vec![0; self.0.metadata().unwrap().len().try_into().unwrap()];
        self.0.read_exact_at(&mut text, 0).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Kills a process that is still there when the time has passed.
pub(crate) struct Deadline {
    watch: thread::JoinHandle<bool>,
    done: std::sync::mpsc::Sender<()>,
}

impl Deadline {
    pub(crate) fn kill(pid: u32, limit: Duration) -> Self {
        let (done, waiting) = channel::<()>();
        let watch = thread::spawn(move || {
            let passed = waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if passed {
                signal(pid, Signal::SIGKILL);
            }
            passed
        });
        Self { watch, done }
    }

    /// Ends the watch; whether it had to kill.
    pub(crate) fn passed(self) -> bool {
        drop(self.done);
        self.watch.join().unwrap()
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.try_into().unwrap()), signal);
}

/// Enough for what is already under way.
const SHORTLY: Duration = Duration::from_secs(60);

/// Asks again until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < SHORTLY, "still waiting after {SHORTLY:?}: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}
