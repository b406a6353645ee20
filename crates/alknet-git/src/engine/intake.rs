//! What a client sends, on its way to git: git itself keeps all of it in memory but for a pack.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use alknet_core::BoxFuture;
use gix::{ObjectId, hash::Kind, objs};
use tokio::io::{AsyncRead, ReadBuf};

use super::EngineError;
use crate::{
    push::{Gate, RefChange},
    request::Service,
};

/// The length of a packet line, which it begins with, in bytes.
const LENGTH: usize = 4;
/// How many changes are remembered.
const REMEMBERED: usize = 100;
/// The most that a client may send beside the pack of a push that is signed, in bytes: some ten
/// thousand refs. Git writes a certificate into the repository before anybody is asked.
const CERTIFICATE: u64 = 1 << 20;
/// What a certificate begins and ends with.
const BEGINS: &[u8] = b"push-cert";
const ENDS: &[u8] = b"push-cert-end\n";

/// The client of an exchange, of whom no more is taken than its request may have.
pub(super) struct Intake<R> {
    inner: R,
    seen: Arc<Seen>,
    reader: Lines,
    gate: Option<Arc<dyn Gate>>,
    /// Whether git may have what is held.
    asking: Option<BoxFuture<'static, bool>>,
    /// What has come and is not git's yet.
    held: Vec<u8>,
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
    Full,
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
    /// What is signed, as git puts it together, and whether this is where it is said.
    certificate: Option<Vec<u8>>,
    within: bool,
}

impl<R> Intake<R> {
    /// Of `inner`, which may send `most` bytes beside the pack of a push. A push that is
    /// `signed` unasked is not taken: git would keep what it says, whatever becomes of it.
    pub(super) fn new(inner: R, service: Service, most: u64, signed: bool) -> (Self, Arc<Seen>) {
        let seen = Arc::<Seen>::default();
        let part = if service == Service::ReceivePack { Part::Commands } else { Part::Other };
        let reader = Lines {
            part,
            left: most,
            line: Vec::new(),
            whole: LENGTH,
            options: false,
            signed,
            certificate: None,
            within: false,
        };
        let (gate, asking, held) = (None, None, Vec::new());
        (Self { inner, seen: seen.clone(), reader, gate, asking, held }, seen)
    }

    /// Asks `gate` before git has what keeps a certificate.
    pub(super) fn asking(self, gate: Option<Arc<dyn Gate>>) -> Self {
        Self { gate, ..self }
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
            Fault::Full => EngineError::Full,
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
        let Self { inner, seen, reader, gate, asking, held } = self.get_mut();
        let fail = |fault| {
            seen.lock().fault = Some(fault);
            Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
        };
        loop {
            if let Some(answer) = asking {
                let taken = ready!(answer.as_mut().poll(cx));
                *asking = None;
                if !taken {
                    held.clear();
                    return fail(Fault::Full);
                }
            }
            if !held.is_empty() {
                let now = held.len().min(buf.remaining());
                buf.put_slice(held.get(..now).unwrap_or_default());
                held.drain(..now);
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut *inner).poll_read(cx, buf))?;
            let came = buf.filled().get(before..).unwrap_or_default();
            if let Err(fault) = reader.take(came, seen) {
                buf.set_filled(before);
                return fail(fault);
            }
            let Some(certificate) = reader.signed_now() else { return Poll::Ready(Ok(())) };
            held.extend_from_slice(came);
            buf.set_filled(before);
            *asking = gate.clone().map(|gate| ask(gate, certificate));
        }
    }
}

fn ask(gate: Arc<dyn Gate>, certificate: Vec<u8>) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        let id = objs::compute_hash(Kind::Sha1, objs::Kind::Blob, &certificate);
        let id = id.unwrap_or_else(|_| ObjectId::null(Kind::Sha1));
        gate.signed(id, u64::try_from(certificate.len()).unwrap_or(u64::MAX)).await
    })
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

    /// What is signed, once all of it is there and git has not had its end.
    fn signed_now(&mut self) -> Option<Vec<u8>> {
        self.certificate.take_if(|_| self.part != Part::Commands)
    }

    fn command(&mut self, seen: &Seen) -> Result<(), Fault> {
        if self.part != Part::Commands {
            return Ok(());
        }
        let text = self.line.get(LENGTH..).unwrap_or_default();
        let mut parts = text.splitn(2, |byte| *byte == 0);
        let said = parts.next().unwrap_or_default();
        let command = said.trim_ascii_end();
        if self.within {
            self.within = said != ENDS;
            if self.within {
                self.certificate.get_or_insert_default().extend_from_slice(said);
            }
        } else {
            let mut features = parts.next().unwrap_or_default().split(u8::is_ascii_whitespace);
            self.options |= features.any(|it| it.starts_with(b"push-options"));
            if command == BEGINS {
                if !self.signed {
                    return Err(Fault::Signed);
                }
                self.within = true;
                self.left = self.left.min(CERTIFICATE);
            }
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
    use crate::push::{Push, Refused, Say};

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

    /// Says whether there is room, and with what it was asked.
    #[derive(Debug)]
    struct Room(bool, Mutex<Vec<(ObjectId, u64)>>);

    impl Gate for Room {
        fn signed(&self, certificate: ObjectId, bytes: u64) -> BoxFuture<'_, bool> {
            self.1.lock().unwrap().push((certificate, bytes));
            Box::pin(async {
                tokio::task::yield_now().await;
                self.0
            })
        }

        fn check<'a>(&'a self, _: Push, _: &'a Say) -> BoxFuture<'a, Refused> {
            unreachable!()
        }

        fn update<'a>(&'a self, _: Vec<RefChange>, _: &'a Say) -> BoxFuture<'a, Refused> {
            unreachable!()
        }

        fn done<'a>(&'a self, _: Vec<RefChange>, _: &'a Say) -> BoxFuture<'a, ()> {
            unreachable!()
        }

        fn unasked(&self, _: Vec<RefChange>, _: Option<String>) {}
    }

    #[tokio::test]
    async fn git_has_the_end_of_what_is_signed_once_there_is_room_for_it() {
        let change = format!("{} {} refs/heads/x\n", "0".repeat(40), "1".repeat(40));
        let begin = line("push-cert\0report-status");
        let [head, body] = ["certificate version 0.1\n\n", &change].map(line);
        let end = line("push-cert-end\n");
        let text = format!("{begin}{head}{body}{end}0000PACK");
        let whole = format!("certificate version 0.1\n\n{change}");
        let id = objs::compute_hash(Kind::Sha1, objs::Kind::Blob, whole.as_bytes()).unwrap();
        for (room, size) in [(true, 1), (true, 1000), (false, 1), (false, 1000)] {
            let gate = Arc::new(Room(room, Mutex::default()));
            let (intake, seen) = Intake::new(text.as_bytes(), Service::ReceivePack, 1000, true);
            let mut intake = intake.asking(Some(gate.clone()));
            let (mut all, mut buffer) = (Vec::new(), vec![0; size]);
            while let Ok(count @ 1..) = intake.read(&mut buffer).await {
                all.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(*gate.1.lock().unwrap(), [(id, whole.len() as u64)]);
            assert_eq!(seen.lock().fault, (!room).then_some(Fault::Full));
            let all = String::from_utf8(all).unwrap();
            assert!(if room {
                all == text
            } else {
                text.starts_with(&all) && !all.contains("0000P")
            });
        }
    }

    #[tokio::test]
    async fn what_is_signed_has_a_bound_of_its_own() {
        let junk = line(&"x".repeat(60_000)).repeat(40);
        let text = format!("{}{junk}", line("push-cert\0report-status"));
        let (count, seen) = read(Service::ReceivePack, &text, 64 << 20, true).await;
        assert_eq!((count as u64, seen.lock().fault), (CERTIFICATE + 27, Some(Fault::Long)));
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
