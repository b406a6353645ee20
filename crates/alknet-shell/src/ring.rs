//! A program's output, by offset.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The newest bytes of a stream, from some offset to its end.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    /// The offset of the first byte that is kept.
    start: u64,
}

impl Ring {
    /// The offset of the first byte that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// The offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Appends.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Forgets what is before `offset`, and beyond that whatever is more than `most` bytes.
    pub(crate) fn trim(&mut self, offset: u64, most: usize) {
        let excess = self.bytes.len().saturating_sub(most);
        let wanted = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let count = wanted.max(excess).min(self.bytes.len());
        self.bytes.drain(..count);
        self.start += count as u64;
        if self.bytes.is_empty() {
            self.bytes.shrink_to(most / 8);
        }
    }

    /// At most `most` bytes from `offset`; none where it is not kept.
    pub(crate) fn slice(&self, offset: u64, most: usize) -> Bytes {
        let Some(skip) = offset.checked_sub(self.start).and_then(|n| usize::try_from(n).ok())
        else {
            return Bytes::new();
        };
        let count = self.bytes.len().saturating_sub(skip).min(most);
        let (front, back) = self.bytes.as_slices();
        let mut out = BytesMut::with_capacity(count);
        let from_front = front.get(skip..).unwrap_or_default();
        out.extend_from_slice(from_front.get(..count).unwrap_or(from_front));
        let rest = count - out.len();
        let from_back = back.get(skip.saturating_sub(front.len())..).unwrap_or_default();
        out.extend_from_slice(from_back.get(..rest).unwrap_or(from_back));
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_slice_is_what_was_pushed(
            pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..50), 0u64..80, 1usize..60), 1..20),
            at in 0u64..600,
            most in 0usize..100,
        ) {
            let (mut ring, mut all) = (Ring::default(), Vec::new());
            for (piece, trim, limit) in pieces {
                ring.push(&piece);
                all.extend(piece);
                ring.trim(trim.min(all.len() as u64), limit);
                prop_assert!(ring.end() - ring.start() <= limit as u64);
            }
            prop_assert_eq!(ring.end(), all.len() as u64);
            let slice = ring.slice(at, most);
            if at >= ring.start() && at <= ring.end() {
                let from = usize::try_from(at).unwrap();
                let until = all.len().min(from + most);
                prop_assert_eq!(&slice[..], &all[from..until]);
            } else {
                prop_assert!(slice.is_empty());
            }
        }
    }
}
