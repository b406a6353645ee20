//! Bytes are the same frames however they are cut, no room is made beyond the longest frame,
//! and what was read is written as it was.
#![no_main]

use alknet_call::wire::{EventEnvelope, FrameError, MAX_FRAME, encode, split};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

/// The frames in `bytes`, which come in `pieces`, and why there are no more, if it is not
/// that the next one is not all there.
fn frames(bytes: &[u8], pieces: &[u8]) -> (Vec<Bytes>, Option<FrameError>) {
    let (mut buffer, mut frames, mut rest) = (BytesMut::new(), Vec::new(), bytes);
    for piece in pieces.iter().map(|piece| usize::from(*piece)).chain([usize::MAX]) {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        buffer.extend_from_slice(now);
        rest = later;
        loop {
            match split(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
            assert!(buffer.len() <= bytes.len());
        }
        // A buffer that grows may double.
        assert!(buffer.capacity() <= 2 * (MAX_FRAME + 4) + 2 * bytes.len());
    }
    (frames, None)
}

/// Writes a frame again, and reads that.
fn round_trip(frame: &[u8]) {
    assert!(frame.len() <= MAX_FRAME);
    let Ok(read) = EventEnvelope::parse(frame) else { return };
    let mut written = BytesMut::from(&encode(read.kind, &read.id, &read.payload).unwrap()[..]);
    let again = split(&mut written).unwrap().unwrap();
    assert!(written.is_empty());
    let again = EventEnvelope::parse(&again).unwrap();
    assert_eq!((again.kind, &again.id), (read.kind, &read.id));
    assert_eq!(again.payload.get(), read.payload.get());
}

fuzz_target!(|input: (&[u8], Vec<&[u8]>, &[u8])| {
    // Frames of the right length get further than noise, which comes behind them.
    let (pieces, whole, noise) = input;
    let mut bytes = Vec::new();
    for frame in whole {
        bytes.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend(frame);
    }
    bytes.extend(noise);
    let (cut, why) = frames(&bytes, pieces);
    let (at_once, why_at_once) = frames(&bytes, &[]);
    assert_eq!(cut, at_once);
    assert_eq!(why.map(|error| error.to_string()), why_at_once.map(|error| error.to_string()));
    cut.iter().for_each(|frame| round_trip(frame));
});
