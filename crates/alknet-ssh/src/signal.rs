//! Signals by the names of RFC 4254, section 6.10.

use russh::Sig;
use rustix::process::Signal;

/// The signal a client names, if it is one of the RFC's.
pub(crate) fn from_wire(signal: &Sig) -> Option<Signal> {
    Some(match signal {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(name) if name == "USR2" => Signal::USR2,
        Sig::Custom(_) => return None,
    })
}

/// The name of the signal that ended a process. One that the RFC does not name is given as
/// OpenSSH gives it.
pub(crate) fn to_wire(number: i32) -> Sig {
    match Signal::from_named_raw(number) {
        Some(Signal::ABORT) => Sig::ABRT,
        Some(Signal::ALARM) => Sig::ALRM,
        Some(Signal::FPE) => Sig::FPE,
        Some(Signal::HUP) => Sig::HUP,
        Some(Signal::ILL) => Sig::ILL,
        Some(Signal::INT) => Sig::INT,
        Some(Signal::KILL) => Sig::KILL,
        Some(Signal::PIPE) => Sig::PIPE,
        Some(Signal::QUIT) => Sig::QUIT,
        Some(Signal::SEGV) => Sig::SEGV,
        Some(Signal::TERM) => Sig::TERM,
        Some(Signal::USR1) => Sig::USR1,
        Some(Signal::USR2) => Sig::Custom("USR2".into()),
        _ => Sig::Custom("SIG@openssh.com".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_rfc_round_trip() {
        for signal in [
            Sig::ABRT,
            Sig::ALRM,
            Sig::FPE,
            Sig::HUP,
            Sig::ILL,
            Sig::INT,
            Sig::KILL,
            Sig::PIPE,
            Sig::QUIT,
            Sig::SEGV,
            Sig::TERM,
            Sig::USR1,
            Sig::Custom("USR2".into()),
        ] {
            let number = from_wire(&signal).unwrap().as_raw();
            assert_eq!(format!("{:?}", to_wire(number)), format!("{signal:?}"));
        }
        assert!(from_wire(&Sig::Custom("STOP".into())).is_none());
    }
}
