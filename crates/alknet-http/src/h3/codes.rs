//! Error codes on the wire of HTTP/3 and WebTransport, and our own among them.

use alknet_core::Code;

/// RFC 9297, section 5.2: a capsule or datagram that cannot be read.
pub(super) const DATAGRAM_ERROR: Code = Code::new(0x33);
/// RFC 9114, section 8.1: nothing is wrong.
pub(super) const NO_ERROR: Code = Code::new(0x100);
/// A stream of a kind that is not taken.
pub(super) const STREAM_CREATION_ERROR: Code = Code::new(0x103);
/// A frame that breaks its layout or size.
pub(super) const FRAME_ERROR: Code = Code::new(0x106);
/// The peer wants more than this side gives.
pub(super) const EXCESSIVE_LOAD: Code = Code::new(0x107);
/// A stream id that cannot be one.
pub(super) const ID_ERROR: Code = Code::new(0x108);
/// The request was not looked at.
pub(super) const REQUEST_REJECTED: Code = Code::new(0x10b);
/// The request or its answer is given up.
pub(super) const REQUEST_CANCELLED: Code = Code::new(0x10c);
/// The request ended before it was one.
pub(super) const REQUEST_INCOMPLETE: Code = Code::new(0x10d);

/// The session of this stream is over (draft-ietf-webtrans-http3).
pub(super) const SESSION_GONE: Code = Code::new(0x170d_7b68);
/// The session of this stream did not come, or too many streams wait for theirs.
pub(super) const BUFFERED_STREAM_REJECTED: Code = Code::new(0x3994_bd84);

/// The first and last HTTP/3 codes that stand for WebTransport application codes.
const FIRST: u64 = 0x52e4_a40f_a8db;
const LAST: u64 = 0x52e5_ac98_3162;

/// A session's own code as it stands on the HTTP/3 wire. WebTransport carries 32 bits:
/// a larger code becomes the largest.
pub(super) fn to_wire(code: Code) -> Code {
    let code = u64::from(app_code(code));
    Code::new(FIRST + code + code / 0x1e)
}

/// The session's own code in an HTTP/3 code, if it is one.
pub(super) fn from_wire(code: Code) -> Option<Code> {
    let value = code.value();
    // Every 31st number is reserved to exercise peers and stands for nothing.
    let reserved = value % 0x1f == 0x21 % 0x1f;
    if !(FIRST..=LAST).contains(&value) || reserved {
        return None;
    }
    let shifted = value - FIRST;
    Some(Code::new(shifted - shifted / 0x1f))
}

/// The 32 bits of a code that a WebTransport capsule carries.
pub(super) fn app_code(code: Code) -> u32 {
    u32::try_from(code.value()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_range_are_those_of_the_draft() {
        assert_eq!(to_wire(Code::new(0)).value(), FIRST);
        assert_eq!(to_wire(Code::new(u64::from(u32::MAX))).value(), LAST);
        assert_eq!(to_wire(Code::MAX).value(), LAST);
        assert_eq!(from_wire(Code::new(FIRST - 1)), None);
        assert_eq!(from_wire(Code::new(LAST + 1)), None);
        assert_eq!(from_wire(NO_ERROR), None);
    }

    #[test]
    fn reserved_codes_stand_for_nothing() {
        let wire: Vec<u64> = (0..100).map(|n| to_wire(Code::new(n)).value()).collect();
        for value in FIRST..wire[99] {
            let code = from_wire(Code::new(value));
            assert_eq!(code.is_some(), wire.contains(&value), "{value:#x}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(code: u32) {
            let code = Code::new(u64::from(code));
            prop_assert_eq!(from_wire(to_wire(code)), Some(code));
        }

        #[test]
        fn any_code_maps_without_a_panic(code: u64) {
            from_wire(Code::new(code));
            to_wire(Code::new(code));
        }
    }
}
