//! `alknet audit verify|tail`.

mod show;

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    time::Duration,
};

use clap::Subcommand;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    audit::{self, Head, Report, Tail},
    failure::Failure,
    home::{Home, HomeError},
    output,
};

/// How often `--follow` looks for more.
const TICK: Duration = Duration::from_millis(200);

/// Check and read the audit log
///
/// Each entry names the hash of the one before it. Both commands work while a node runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  alknet audit verify\n  alknet audit tail --follow")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Verify(Verify),
    Tail(TailArgs),
}

/// Check that no entry was changed, removed, inserted or moved
///
/// Walks the chain through all files, the oldest first, and prints its head. Note the head
/// somewhere else: --expect later proves that everything up to it is as it was. Exit code 1
/// where the chain breaks, with the file and the line.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet audit verify\n  alknet audit verify --expect \"$(cat head.txt)\"\n  alknet audit verify --json | jq -r .head > head.txt"
)]
struct Verify {
    /// An entry that has to be there: the head that was printed before
    #[arg(long, value_name = "SEQ:HASH")]
    expect: Option<Head>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Print the last entries
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet audit tail -n 50\n  alknet audit tail --follow --json | jq 'select(.event == \"refused\")'"
)]
struct TailArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    lines: usize,
    /// Wait for more, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Print the lines of the log as they are
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    match args.action {
        Action::Verify(args) => verify(&args, home),
        Action::Tail(args) => tail(&args, home).await,
    }
}

/// A change that the log does not show is one that its owner has to hear of.
pub(super) fn unrecorded(error: HomeError) -> Failure {
    Failure::from(error).context("the change was made, but the audit log could not be written")
}

fn verify(args: &Verify, home: &Home) -> Result<(), Failure> {
    let report = audit::verify(home, args.expect)?;
    if args.json {
        output::json(&report)?;
    } else {
        summary(&report)?;
    }
    match report.fault {
        None => Ok(()),
        Some(fault) => Err(Failure::from(fault)
            .context("the audit log does not hold")
            .hint("compare the files with a copy of them")),
    }
}

fn summary(report: &Report) -> io::Result<()> {
    let Report { files, entries, recovered, torn_bytes, .. } = report;
    output::line(format_args!("{:<9} {entries} in {files} files", "entries"))?;
    for (name, point) in [("first", &report.first), ("last", &report.last)] {
        if let Some(point) = point {
            let time = show::clean(&point.time);
            output::line(format_args!("{name:<9} {} at {time}", point.seq))?;
        }
    }
    if let Some(head) = report.head {
        output::line(format_args!("{:<9} {head}", "head"))?;
    }
    if report.first.as_ref().is_some_and(|first| first.seq > 1) {
        output::note("older entries are no longer kept: the chain holds from the first on")?;
    }
    if *recovered > 0 {
        output::note(format_args!("{recovered} writes were cut short by a crash, and are marked"))?;
    }
    if *torn_bytes > 0 {
        output::note(format_args!(
            "the last {torn_bytes} bytes are of a write that was cut short; the next start marks them"
        ))?;
    }
    Ok(())
}

async fn tail(args: &TailArgs, home: &Home) -> Result<(), Failure> {
    // Before anything is printed: a signal that comes early must not be lost.
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let mut tail = Tail::open(home, args.lines)?;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        if !print(&mut tail, args.json)? || !args.follow {
            return Ok(());
        }
        let [interrupt, terminate] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = ticks.tick() => {}
        }
        if reader_has_gone() {
            return Ok(());
        }
        tail.refresh()?;
    }
}

/// Prints what there is; `false` if nobody reads it any more.
fn print(tail: &mut Tail, json: bool) -> Result<bool, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut write = |line: &[u8]| {
        if json {
            out.write_all(line)?;
            out.write_all(b"\n")
        } else {
            writeln!(out, "{}", show::line(line))
        }
    };
    while let Some(line) = tail.next_line()? {
        if let Err(error) = write(&line) {
            return unread(error);
        }
    }
    out.flush().map_or_else(unread, |()| Ok(true))
}

fn unread(error: io::Error) -> Result<bool, Failure> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(false) } else { Err(error.into()) }
}

/// Whether stdout is a pipe that nobody reads: with nothing to print, a write would not
/// tell.
pub(super) fn reader_has_gone() -> bool {
    let stdout = io::stdout();
    let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let ready = !stdout.is_terminal() && poll(&mut watched, PollTimeout::ZERO).is_ok();
    let [stdout] = watched;
    ready && stdout.revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}
