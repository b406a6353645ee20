//! Close codes of WebSockets (RFC 6455, section 7.4) and ours.

use alknet_core::Code;

pub(crate) const NORMAL: u16 = 1000;
pub(crate) const PROTOCOL_ERROR: u16 = 1002;
pub(crate) const UNSUPPORTED_DATA: u16 = 1003;
const GOING_AWAY: u16 = 1001;
const NO_STATUS: u16 = 1005;
pub(crate) const INVALID_PAYLOAD: u16 = 1007;
const POLICY: u16 = 1008;
pub(crate) const TOO_BIG: u16 = 1009;
const INTERNAL: u16 = 1011;
const RESTART: u16 = 1012;
const TRY_LATER: u16 = 1013;
/// Where the range for applications begins that carries our codes.
const OURS: u16 = 4000;
/// The largest of our codes that fits; greater ones become it.
const LARGEST: u64 = 999;

/// The close code for a code of ours.
pub(crate) fn to_wire(code: Code) -> u16 {
    match u16::try_from(code.value().min(LARGEST)) {
        Ok(0) | Err(_) => NORMAL,
        Ok(value) => OURS + value,
    }
}

/// What a peer's close code means. A browser that leaves the page sends 1001, and a peer
/// without anything to say sends none: both are a normal end.
pub(crate) fn from_wire(code: Option<u16>) -> Code {
    match code.unwrap_or(NO_STATUS) {
        NORMAL | GOING_AWAY | NO_STATUS => Code::NORMAL,
        PROTOCOL_ERROR | UNSUPPORTED_DATA | INVALID_PAYLOAD => Code::PROTOCOL,
        POLICY => Code::REFUSED,
        TOO_BIG | TRY_LATER => Code::LIMIT,
        RESTART => Code::SHUTTING_DOWN,
        INTERNAL => Code::INTERNAL,
        code @ 4000..=4999 => Code::new(u64::from(code - OURS)),
        _ => Code::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_code_survives_the_wire() {
        for (code, name) in Code::TABLE {
            assert_eq!(from_wire(Some(to_wire(code))), code, "{name}");
        }
    }

    #[test]
    fn the_mapping_is_wire_format_and_stays() {
        assert_eq!(to_wire(Code::NORMAL), 1000);
        assert_eq!(to_wire(Code::INTERNAL), 4001);
        assert_eq!(to_wire(Code::new(999)), 4999);
        assert_eq!(to_wire(Code::MAX), 4999);
        assert_eq!(from_wire(None), Code::NORMAL);
        assert_eq!(from_wire(Some(4000)), Code::NORMAL);
        assert_eq!(from_wire(Some(3999)), Code::INTERNAL);
    }
}
