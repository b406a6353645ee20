//! What a client sends, on its way to git: git itself keeps all of it in memory but for a pack.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::EngineError;
use crate::{push::RefChange, request::Service};

/// The length of a packet line, which it begins with, in bytes.
const LENGTH: usize = 4;
/// How many changes are remembered.
const REMEMBERED: usize = 100;

/// The client of an exchange, of whom no more is taken than its request may have.
pub(super) struct Intake<R> {
    inner: R,
    seen: Arc<Seen>,
    reader: Lines,
}

/// What was found in it. Shared by the reader and whoever started it.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    fault: Option<Fault>,
    wanted: Vec<RefChange>,
}

/// What is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Long,
    Signed,
}

/// Where in a request the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The commands of a push, as packet lines up to a flush.
    Commands,
    /// Its options, likewise.
    Options,
    /// Its pack, which has a limit of its own.
    Pack,
    /// Everything else.
    Other,
}

/// Follows the packet lines that a push begins with.
#[derive(Debug)]
struct Lines {
    part: Part,
    /// How many bytes there may still be before the pack.
    left: u64,
    /// The line that has begun, and how long it is as far as that is known.
    line: Vec<u8>,
    whole: usize,
    /// Whether options follow.
    options: bool,
    /// Whether a push may be signed.
    signed: bool,
}

impl<R> Intake<R> {
    /// Of `inner`, which may send `most` bytes beside the pack of a push. A push that is
    /// `signed` unasked is not taken: git would keep what it says, whatever becomes of it.
    pub(super) fn new(inner: R, service: Service, most: u64, signed: bool) -> (Self, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        let part = if service == Service::ReceivePack { Part::Commands } else { Part::Other };
        let line = Vec::new();
        let reader = Lines { part, left: most, line, whole: LENGTH, options: false, signed };
        (Self { inner, seen: seen.clone(), reader }, seen)
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the exchange ended, if it was for what the client sent.
    pub(super) fn fault(&self) -> Option<EngineError> {
        self.lock().fault.map(|fault| match fault {
            Fault::Long => EngineError::TooLong,
            Fault::Signed => EngineError::Signed,
        })
    }

    /// The changes of refs that the client has asked for; the first of them, if there are many.
    pub(super) fn wanted(&self) -> Vec<RefChange> {
        self.lock().wanted.clone()
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Intake<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, seen, reader } = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(inner).poll_read(cx, buf))?;
        let came = buf.filled().get(before..).unwrap_or_default();
        let Err(fault) = reader.take(came, seen) else { return Poll::Ready(Ok(())) };
        buf.set_filled(before);
        seen.lock().fault = Some(fault);
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }
}

impl Lines {
    fn take(&mut self, mut came: &[u8], seen: &Seen) -> Result<(), Fault> {
        while !came.is_empty() && self.part != Part::Pack {
            let wanted = match self.part {
                Part::Other => came.len(),
                _ => self.whole.saturating_sub(self.line.len()),
            };
            let (now, rest) = came.split_at(wanted.min(came.len()));
            came = rest;
            let count = u64::try_from(now.len()).unwrap_or(u64::MAX);
            self.left = self.left.checked_sub(count).ok_or(Fault::Long)?;
            if self.part != Part::Other {
                self.line.extend_from_slice(now);
                self.advance(seen)?;
            }
        }
        Ok(())
    }

    /// Looks at a line once its length is known, and once all of it is there.
    fn advance(&mut self, seen: &Seen) -> Result<(), Fault> {
        if self.line.len() < self.whole {
            return Ok(());
        }
        if self.whole > LENGTH {
            self.command(seen)?;
        } else {
            let digits = str::from_utf8(&self.line).ok();
            let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
            match length {
                // Whatever ends a section for git.
                Some(0..=2) if self.part == Part::Commands && self.options => {
                    self.part = Part::Options;
                }
                Some(0..=2) => self.part = Part::Pack,
                Some(LENGTH) => {}
                Some(length) if length > LENGTH => {
                    self.whole = length;
                    return Ok(());
                }
                // Git gives up here.
                _ => self.part = Part::Other,
            }
        }
        self.line.clear();
        self.whole = LENGTH;
        Ok(())
    }

    fn command(&mut self, seen: &Seen) -> Result<(), Fault> {
        if self.part != Part::Commands {
            return Ok(());
        }
        let text = self.line.get(LENGTH..).unwrap_or_default();
        let mut parts = text.splitn(2, |byte| *byte == 0);
        let command = parts.next().unwrap_or_default().trim_ascii_end();
        let mut features = parts.next().unwrap_or_default().split(u8::is_ascii_whitespace);
        self.options |= features.any(|it| it.starts_with(b"push-options"));
        if command == b"push-cert" && !self.signed {
            return Err(Fault::Signed);
        }
        let mut found = seen.lock();
        if found.wanted.len() < REMEMBERED {
            found.wanted.extend(str::from_utf8(command).ok().and_then(RefChange::from_line));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn line(text: &str) -> String {
        format!("{:04x}{text}", text.len() + LENGTH)
    }

    /// What is read of it, a byte at a time and all at once.
    async fn read(service: Service, text: &str, most: u64, signed: bool) -> (usize, Arc<Seen>) {
        let (mut intake, seen) = Intake::new(text.as_bytes(), service, most, signed);
        let mut count = 0;
        while let Ok(1..) = intake.read(&mut [0; 1]).await {
            count += 1;
        }
        let (mut intake, whole) = Intake::new(text.as_bytes(), service, most, signed);
        let all = intake.read_to_end(&mut Vec::new()).await;
        let faults = [&seen, &whole].map(|it| it.lock().fault);
        assert_eq!(faults[0], faults[1]);
        assert_eq!(all.is_err(), faults[0].is_some());
        (count, seen)
    }

    #[tokio::test]
    async fn only_what_is_before_a_pack_counts() {
        let change = format!("{} {} refs/heads/x", "0".repeat(40), "1".repeat(40));
        let commands = line(&format!("{change}\0report-status agent=x"));
        let with_options = line(&format!("{change}\0report-status push-options"));
        let pack = format!("PACK{}", "x".repeat(5000));
        let options = line("option");
        let push = |text: String, signed| async move {
            read(Service::ReceivePack, &text, 300, signed).await
        };

        let whole = format!("{commands}0000{pack}");
        let (count, seen) = push(whole.clone(), false).await;
        assert_eq!((count, seen.lock().fault), (whole.len(), None));
        assert_eq!(seen.wanted(), [RefChange::from_line(&change).unwrap()]);
        let whole = format!("{with_options}0000{options}0000{pack}");
        assert_eq!(push(whole.clone(), false).await.0, whole.len());

        for long in [
            format!("{commands}{commands}{commands}0000{pack}"),
            format!("{with_options}0000{}", options.repeat(100)),
            format!("{commands}zzzz{pack}"),
            format!("fff0{pack}"),
        ] {
            let (count, seen) = push(long, false).await;
            assert_eq!((count, seen.lock().fault), (300, Some(Fault::Long)));
        }
        let signed = format!("{}{commands}0000{pack}", line("push-cert\0push-options"));
        assert_eq!(push(signed, false).await.1.lock().fault, Some(Fault::Signed));
    }

    #[tokio::test]
    async fn all_of_a_fetch_counts() {
        let text = format!("0000{}", "x".repeat(300));
        let (count, seen) = read(Service::UploadPack, &text, 300, true).await;
        assert_eq!((count, seen.lock().fault), (300, Some(Fault::Long)));
        let (count, seen) = read(Service::UploadPack, &text, 304, true).await;
        assert_eq!((count, seen.lock().fault), (304, None));
    }
}
