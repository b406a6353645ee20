//! What git complains of to a client, in the text beside its answer (gitprotocol-pack, section
//! "Packfile Data", side-band).

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// The length of a packet line, which it begins with, in bytes.
const LENGTH: usize = 4;
/// The band of texts for people.
const TEXT: u8 = 2;
/// How much of the texts is kept, in bytes: the end, for progress comes first.
const KEPT: usize = 4096;
/// How git says that a pack is larger than it may be.
const LARGE: &[u8] = b"pack exceeds maximum allowed size";

/// What git has said.
#[derive(Debug, Default)]
pub(super) struct Complaint(Mutex<Vec<u8>>);

/// What git answers, on its way to the client.
#[derive(Debug)]
pub(super) struct Answer<R> {
    inner: R,
    complaint: Arc<Complaint>,
    /// What is said to whoever pushes too large a pack, until it is.
    remark: Option<String>,
    place: Place,
    /// What has come and is not the client's yet.
    held: Vec<u8>,
}

/// Where in the packet lines an answer is.
#[derive(Debug, Default)]
struct Place {
    /// What has come of a length.
    head: Vec<u8>,
    /// How much of a packet is still to come.
    left: usize,
    /// Whether that is text, as its first byte says.
    is_text: Option<bool>,
    /// These are no packet lines.
    lost: bool,
}

impl Complaint {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, text: &[u8]) {
        let mut all = self.lock();
        all.extend_from_slice(text);
        let surplus = all.len().saturating_sub(KEPT);
        all.drain(..surplus);
    }

    /// What went wrong, if git has said so, there or in `other`, which it has said elsewhere.
    pub(super) fn errors(&self, other: &str) -> Option<String> {
        let text = format!("{}\n{other}", String::from_utf8_lossy(&self.lock()));
        let lines = text.split(['\n', '\r']).map(str::trim);
        let is_error = |line: &&str| ["error: ", "fatal: "].iter().any(|it| line.starts_with(it));
        let errors: Vec<_> = lines.filter(is_error).take(2).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }

    fn is_of_size(&self) -> bool {
        self.lock().windows(LARGE.len()).any(|it| it == LARGE)
    }
}

impl<R> Answer<R> {
    /// That of `inner`. Whoever pushes a pack that is too large is told the `remark` as well.
    pub(super) fn new(inner: R, complaint: Arc<Complaint>, remark: Option<String>) -> Self {
        Self { inner, complaint, remark, place: Place::default(), held: Vec::new() }
    }

    /// Follows what came; what is after the place for the remark, where it has that.
    fn follow<'a>(&mut self, mut came: &'a [u8]) -> Option<&'a [u8]> {
        while let Some((first, rest)) = came.split_first().filter(|_| !self.place.lost) {
            let place = &mut self.place;
            if place.left == 0 {
                place.length(*first);
                came = rest;
                continue;
            }
            let Some(is_text) = place.is_text else {
                place.is_text = Some(*first == TEXT);
                place.left -= 1;
                came = rest;
                continue;
            };
            let (piece, rest) = came.split_at(place.left.min(came.len()));
            came = rest;
            place.left -= piece.len();
            if is_text {
                self.complaint.add(piece);
                if place.left == 0 && self.remark.is_some() && self.complaint.is_of_size() {
                    return Some(came);
                }
            }
        }
        None
    }
}

impl Place {
    fn length(&mut self, digit: u8) {
        self.head.push(digit);
        if self.head.len() < LENGTH {
            return;
        }
        let digits = str::from_utf8(&self.head).ok();
        match digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()) {
            Some(length) => self.left = length.saturating_sub(LENGTH),
            None => self.lost = true,
        }
        self.is_text = None;
        self.head.clear();
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Answer<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let came = buf.filled().get(before..).unwrap_or_default();
            let count = came.len();
            let Some(after) = this.follow(came).map(<[u8]>::to_vec) else {
                return Poll::Ready(Ok(()));
            };
            let remark = this.remark.take().unwrap_or_default();
            this.held = format!("{:04x}\u{2}{remark}", remark.len() + LENGTH + 1).into();
            this.follow(&after);
            this.held.extend_from_slice(&after);
            buf.set_filled(before + (count - after.len()));
            return Poll::Ready(Ok(()));
        }
        let now = this.held.len().min(buf.remaining());
        buf.put_slice(this.held.get(..now).unwrap_or_default());
        this.held.drain(..now);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn line(text: &str) -> String {
        format!("{:04x}{text}", text.len() + LENGTH)
    }

    /// What becomes of it, read a byte at a time and all at once, and what was wrong.
    async fn read(text: &str) -> (String, Option<String>) {
        let mut read = Vec::new();
        for size in [1, 7, 10_000] {
            let complaint = Arc::<Complaint>::default();
            let mut answer =
                Answer::new(text.as_bytes(), complaint.clone(), Some("quota\n".into()));
            let (mut all, mut buffer) = (Vec::new(), vec![0; size]);
            while let count @ 1.. = answer.read(&mut buffer).await.unwrap() {
                all.extend_from_slice(&buffer[..count]);
            }
            read.push((String::from_utf8(all).unwrap(), complaint.errors("")));
        }
        assert!(read[0] == read[1] && read[1] == read[2], "{read:?}");
        read.remove(0)
    }

    #[tokio::test]
    async fn who_pushes_too_much_is_told_why_and_the_rest_stays_as_it_is() {
        let head = format!("{}{}0000", line("1234 refs/heads/x\0y"), line("\u{1}data"));
        let (one, two) =
            (line("\u{2}Receiving\rfatal: pack exceeds "), "maximum allowed size (1)\n");
        let (two, rest) = (line(&format!("\u{2}{two}")), format!("{}0000", line("\u{1}unpack")));
        let (all, errors) = read(&format!("{head}{one}{two}{two}{rest}")).await;
        let remark = line("\u{2}quota\n");
        assert_eq!(all, format!("{head}{one}{two}{remark}{two}{rest}"));
        assert_eq!(errors.as_deref(), Some("fatal: pack exceeds maximum allowed size (1)"));
    }

    #[tokio::test]
    async fn what_is_no_complaint_is_not_changed() {
        let said = line("fatal: pack exceeds maximum allowed size");
        for text in [format!("{said}0000"), "no packets".to_owned(), line("\u{2}x")] {
            assert_eq!(read(&text).await, (text, None));
        }
    }

    #[test]
    fn what_is_kept_is_the_end() {
        let complaint = Complaint::default();
        (0..1000).for_each(|_| complaint.add(b"progress\r"));
        complaint.add(b"error: a\nfatal: b\n");
        assert_eq!(complaint.errors("fatal: c").as_deref(), Some("error: a; fatal: b"));
        assert!(complaint.lock().len() <= KEPT);
        assert_eq!(Complaint::default().errors("x\nfatal: c").as_deref(), Some("fatal: c"));
        assert_eq!(Complaint::default().errors("x"), None);
    }
}
