//! `alknet recordings list|play|export`.

mod play;

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use avt::{Terminal, observer::Transcript};
use clap::Subcommand;

use crate::{
    commands::plain,
    failure::Failure,
    home::Home,
    output,
    recordings::{Folder, Listed, Moment, Reader, State},
};

/// The largest terminal whose text is made out.
const MAX_SIDE: usize = 1000;

/// List, play and export recordings of terminals
///
/// What is recorded is said in the configuration, under [recordings]. Each recording is
/// checked against the hash that the audit log names.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet recordings list\n  alknet recordings play 20261122T153045Z-1f0c8b6a5d3e2f71"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    List(List),
    Play(play::Args),
    Export(Export),
}

/// Show the recordings, the oldest first
///
/// A state of "CHANGED" is a file that is not what it was at its end; "unknown" one that the
/// audit log does not name, or not any more.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet recordings list\n  alknet recordings list --json | jq '.[] | select(.state == \"changed\")'"
)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Write a recording to a file, as asciicast v2 or as text
///
/// The file is what `asciinema play` and other players take. Exit code 1, after everything is
/// written, where the recording does not match the audit log.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet recordings export 20261122T153045Z-1f0c8b6a5d3e2f71 --output session.cast\n  alknet recordings export 20261122T153045Z-1f0c8b6a5d3e2f71 --text | less"
)]
struct Export {
    /// The recording, as the list names it
    id: String,
    /// Where to write it; it must not exist [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only the text that the terminal showed
    #[arg(long)]
    text: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    match args.action {
        Action::List(args) => list(&args, home),
        Action::Play(args) => play::run(args, home).await,
        Action::Export(args) => export(&args, home),
    }
}

fn list(args: &List, home: &Home) -> Result<(), Failure> {
    let all = Folder::of(home).list(home)?;
    if args.json {
        return Ok(output::json(&all)?);
    }
    let rows: Vec<[String; 7]> = all.iter().map(row).collect();
    Ok(output::table(["id", "began", "who", "account", "length", "bytes", "state"], &rows)?)
}

fn row(one: &Listed) -> [String; 7] {
    // Whole seconds are enough to tell them apart.
    let length = format!("{:.0}s", one.seconds);
    [
        one.id.clone(),
        output::minute(one.began),
        plain(&one.about.name),
        plain(&one.about.account),
        length,
        one.bytes.to_string(),
        one.state.name().into(),
    ]
}

/// A recording by its id, checked.
fn find(home: &Home, id: &str) -> Result<(Listed, PathBuf), Failure> {
    let folder = Folder::of(home);
    let unknown = || {
        Failure::new(format!("there is no recording {id:?}"))
            .hint("`alknet recordings list` shows those that there are")
    };
    let listed = folder.find(home, id)?.ok_or_else(unknown)?;
    let path = folder.path(id).ok_or_else(unknown)?;
    Ok((listed, path))
}

/// Fails where a recording is not what the audit log says.
fn verdict(listed: &Listed) -> Result<(), Failure> {
    match listed.state {
        State::Verified => Ok(()),
        State::Live => Ok(output::note("the session goes on: this is the recording so far")?),
        State::Unknown => Ok(output::note(
            "the audit log does not name this recording: nothing says whether it was changed",
        )?),
        State::Changed => Err(Failure::new(format!(
            "the recording {} was changed: its BLAKE3 hash is {}, and the audit log names another",
            listed.id, listed.blake3
        ))),
    }
}

fn export(args: &Export, home: &Home) -> Result<(), Failure> {
    let (listed, path) = find(home, &args.id)?;
    let mut from = BufReader::new(File::open(path)?.take(listed.bytes));
    let mut to: Box<dyn io::Write> = match &args.output {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            Box::new(options.map_err(|error| {
                Failure::from(error).context(format!("writing {}", path.display()))
            })?)
        }
    };
    if args.text {
        text(from, &mut to)?;
    } else {
        io::copy(&mut from, &mut to)?;
    }
    to.flush()?;
    verdict(&listed)
}

/// What a terminal would have shown, line by line, and no control sequences.
fn text(from: impl io::BufRead, to: &mut impl io::Write) -> Result<(), Failure> {
    let mut reader = Reader::new(from)?;
    let side = |side: u32| usize::try_from(side).unwrap_or(MAX_SIDE).clamp(1, MAX_SIDE);
    let (columns, rows) = (side(reader.header().width), side(reader.header().height));
    let mut terminal = Terminal::new(columns, rows)?;
    let mut transcript = Transcript::new();
    let mut write = |lines: Vec<String>| lines.iter().try_for_each(|line| writeln!(to, "{line}"));
    while let Some(moment) = reader.next()? {
        match moment {
            Moment::Output(_, text) => write(terminal.feed_with(&*text, &mut transcript))?,
            Moment::Resize(_, columns, rows) => {
                let (columns, rows) = (columns.clamp(1, MAX_SIDE), rows.clamp(1, MAX_SIDE));
                write(terminal.resize_with(columns, rows, &mut transcript))?;
            }
            Moment::Other(_) => {}
        }
    }
    Ok(write(transcript.finish(&terminal))?)
}
