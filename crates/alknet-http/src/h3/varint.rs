//! QUIC's variable-length integers (RFC 9000, section 16).

use bytes::{BufMut, BytesMut};

/// The largest value, 2^62 - 1.
pub(super) const MAX: u64 = (1 << 62) - 1;

/// The most bytes that one integer takes.
pub(super) const MAX_LEN: usize = 8;

/// The integer at the start of `input` and how many bytes it takes; `None` while it is
/// not all there.
pub(super) fn decode(input: &[u8]) -> Option<(u64, usize)> {
    let first = *input.first()?;
    let len = len_of(first);
    let rest = input.get(1..len)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, b| value << 8 | u64::from(*b));
    Some((value, len))
}

/// How many bytes the integer takes that begins with `first`.
pub(super) fn len_of(first: u8) -> usize {
    1 << (first >> 6)
}

/// Appends `value` in as few bytes as it needs; a value beyond [`MAX`] becomes it.
pub(super) fn encode(value: u64, out: &mut BytesMut) {
    let value = value.min(MAX);
    let bytes = value.to_be_bytes();
    let (len, mark) = match value {
        0..=0x3f => (1, 0x00),
        0x40..=0x3fff => (2, 0x40),
        0x4000..=0x3fff_ffff => (4, 0x80),
        _ => (8, 0xc0),
    };
    let start = out.len();
    out.put_slice(bytes.get(MAX_LEN - len..).unwrap_or(&bytes));
    if let Some(first) = out.get_mut(start) {
        *first |= mark;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9000, appendix A.1.
    #[test]
    fn the_examples_of_the_rfc() {
        for (bytes, value) in [
            (&[0x25][..], 37),
            (&[0x40, 0x25], 37),
            (&[0x7b, 0xbd], 15_293),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
        ] {
            assert_eq!(decode(bytes), Some((value, bytes.len())));
        }
    }

    #[test]
    fn a_cut_off_integer_is_not_there_yet() {
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&[0x40]), None);
        assert_eq!(decode(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8]), None);
    }

    #[test]
    fn a_value_that_does_not_fit_saturates() {
        let mut out = BytesMut::new();
        encode(u64::MAX, &mut out);
        assert_eq!(decode(&out), Some((MAX, 8)));
    }

    proptest! {
        #[test]
        fn round_trips(shift in 0u32..62, noise: u64) {
            let value = noise & MAX >> shift;
            let mut out = BytesMut::new();
            encode(value, &mut out);
            prop_assert_eq!(decode(&out), Some((value, out.len())));
            let shortest = match value {
                0..=63 => 1,
                64..=16_383 => 2,
                16_384..=1_073_741_823 => 4,
                _ => 8,
            };
            prop_assert_eq!(out.len(), shortest);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes: Vec<u8>) {
            if let Some((value, len)) = decode(&bytes) {
                prop_assert!(value <= MAX && len <= bytes.len());
            }
        }
    }
}
