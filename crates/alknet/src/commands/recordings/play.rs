//! `alknet recordings play`.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal as _, Read as _, Write as _},
    time::Duration,
};

use rustix::termios::{
    LocalModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{find, verdict};
use crate::{
    failure::Failure,
    home::Home,
    recordings::{Moment, Reader},
};

/// Puts a terminal back in order, whatever was played on it: modes of its own, colours, the
/// cursor, the first screen, the mouse, bracketed paste.
const RESET: &str = "\x1b[!p\x1b[0m\x1b[?25h\x1b[?1049l\x1b[?1000;1002;1003;1004;1006l\x1b[?2004l";

/// Play a recording in this terminal
///
/// Everything goes to the terminal as it did then, control sequences included, and the
/// terminal is put in order at the end. Ctrl-C ends it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  alknet recordings play 20261122T153045Z-1f0c8b6a5d3e2f71 --speed 4 --idle-limit 2"
)]
pub(super) struct Args {
    /// The recording, as the list names it
    id: String,
    /// How many times as fast
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// The longest pause, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = parse_pause)]
    idle_limit: Option<Duration>,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if speed.is_finite() && speed > 0.0 { Ok(speed) } else { Err("more than 0".into()) }
}

fn parse_pause(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl Args {
    /// How long to wait between two moments of a recording.
    fn pause(&self, pause: Duration) -> Duration {
        let pause = pause.min(self.idle_limit.unwrap_or(Duration::MAX));
        Duration::try_from_secs_f64(pause.as_secs_f64() / self.speed).unwrap_or(Duration::MAX)
    }
}

pub(super) async fn run(args: Args, home: &Home) -> Result<(), Failure> {
    let (listed, path) = find(home, &args.id)?;
    let mut reader = Reader::new(BufReader::new(File::open(path)?.take(listed.bytes)))?;
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let [interrupt, terminate] = &mut signals;
    let _quiet = Quiet::begin();
    tokio::select! {
        played = play(&args, &mut reader) => played?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    drop(_quiet);
    verdict(&listed)
}

async fn play(args: &Args, reader: &mut Reader<impl io::BufRead>) -> Result<(), Failure> {
    let mut shown = Duration::ZERO;
    while let Some(moment) = reader.next()? {
        let pause = args.pause(moment.at().saturating_sub(shown));
        shown = shown.max(moment.at());
        if !pause.is_zero() {
            sleep(pause).await;
        }
        if let Moment::Output(_, text) = moment {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
    }
    Ok(())
}

/// Keeps what the terminal answers to the recording, and what is typed meanwhile, from the
/// screen and from the shell.
struct Quiet(Option<Termios>);

impl Quiet {
    fn begin() -> Self {
        let input = rustix::stdio::stdin();
        if !io::stdout().is_terminal() {
            return Self(None);
        }
        let before = tcgetattr(input).ok();
        if let Some(mut settings) = before.clone() {
            // Ctrl-C goes on to be a signal.
            settings.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
            let _ = tcsetattr(input, OptionalActions::Now, &settings);
        }
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if !io::stdout().is_terminal() {
            return;
        }
        let _ = io::stdout().lock().write_all(RESET.as_bytes());
        let _ = io::stdout().lock().flush();
        if let Some(before) = &self.0 {
            let input = rustix::stdio::stdin();
            let _ = tcflush(input, QueueSelector::IFlush);
            let _ = tcsetattr(input, OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_cut_and_then_shortened() {
        let args = |speed, idle_limit| Args { id: String::new(), speed, idle_limit };
        let second = Duration::from_secs(1);
        assert_eq!(args(1.0, None).pause(second * 5), second * 5);
        assert_eq!(args(2.0, Some(second * 2)).pause(second * 10), second);
        assert_eq!(args(0.5, None).pause(second), second * 2);
        assert_eq!(args(f64::MIN_POSITIVE, None).pause(second), Duration::MAX);
        for wrong in ["0", "-1", "inf", "nan", "fast", ""] {
            assert!(parse_speed(wrong).is_err(), "{wrong}");
        }
        for wrong in ["-1", "nan", "soon"] {
            assert!(parse_pause(wrong).is_err(), "{wrong}");
        }
    }
}
