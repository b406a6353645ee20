//! Terminal modes as RFC 4254, section 8, encodes them.

use russh::Pty;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios,
};

/// The value of a special character that is switched off on the wire.
const DISABLED: u32 = 255;

/// Applies what a client sent. Modes that this system does not have are left out.
pub(crate) fn apply(settings: &mut Termios, modes: &[(Pty, u32)]) {
    for &(mode, value) in modes {
        let on = value != 0;
        if let Some(index) = special(mode) {
            // 0 is _POSIX_VDISABLE on Linux.
            let code = if value == DISABLED { 0 } else { u8::try_from(value).unwrap_or(0) };
            settings.special_codes[index] = code;
        } else if let Some(flag) = input(mode) {
            settings.input_modes.set(flag, on);
        } else if let Some(flag) = output(mode) {
            settings.output_modes.set(flag, on);
        } else if let Some(flag) = local(mode) {
            settings.local_modes.set(flag, on);
        } else {
            control(settings, mode, value);
        }
    }
}

fn control(settings: &mut Termios, mode: Pty, value: u32) {
    let on = value != 0;
    let modes = &mut settings.control_modes;
    match mode {
        Pty::PARENB => modes.set(ControlModes::PARENB, on),
        Pty::PARODD => modes.set(ControlModes::PARODD, on),
        Pty::CS7 | Pty::CS8 if on => {
            modes.remove(ControlModes::CSIZE);
            modes.insert(if mode == Pty::CS7 { ControlModes::CS7 } else { ControlModes::CS8 });
        }
        // A pseudo-terminal sends at no speed: one that cannot be set is no loss.
        Pty::TTY_OP_ISPEED => drop(settings.set_input_speed(value)),
        Pty::TTY_OP_OSPEED => drop(settings.set_output_speed(value)),
        _ => {}
    }
}

fn special(mode: Pty) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Pty::VINTR => SpecialCodeIndex::VINTR,
        Pty::VQUIT => SpecialCodeIndex::VQUIT,
        Pty::VERASE => SpecialCodeIndex::VERASE,
        Pty::VKILL => SpecialCodeIndex::VKILL,
        Pty::VEOF => SpecialCodeIndex::VEOF,
        Pty::VEOL => SpecialCodeIndex::VEOL,
        Pty::VEOL2 => SpecialCodeIndex::VEOL2,
        Pty::VSTART => SpecialCodeIndex::VSTART,
        Pty::VSTOP => SpecialCodeIndex::VSTOP,
        Pty::VSUSP => SpecialCodeIndex::VSUSP,
        Pty::VREPRINT => SpecialCodeIndex::VREPRINT,
        Pty::VWERASE => SpecialCodeIndex::VWERASE,
        Pty::VLNEXT => SpecialCodeIndex::VLNEXT,
        Pty::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Pty) -> Option<InputModes> {
    Some(match mode {
        Pty::IGNPAR => InputModes::IGNPAR,
        Pty::PARMRK => InputModes::PARMRK,
        Pty::INPCK => InputModes::INPCK,
        Pty::ISTRIP => InputModes::ISTRIP,
        Pty::INLCR => InputModes::INLCR,
        Pty::IGNCR => InputModes::IGNCR,
        Pty::ICRNL => InputModes::ICRNL,
        Pty::IXON => InputModes::IXON,
        Pty::IXANY => InputModes::IXANY,
        Pty::IXOFF => InputModes::IXOFF,
        Pty::IMAXBEL => InputModes::IMAXBEL,
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        Pty::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn output(mode: Pty) -> Option<OutputModes> {
    Some(match mode {
        Pty::OPOST => OutputModes::OPOST,
        Pty::ONLCR => OutputModes::ONLCR,
        Pty::OCRNL => OutputModes::OCRNL,
        Pty::ONOCR => OutputModes::ONOCR,
        Pty::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}

fn local(mode: Pty) -> Option<LocalModes> {
    Some(match mode {
        Pty::ISIG => LocalModes::ISIG,
        Pty::ICANON => LocalModes::ICANON,
        Pty::ECHO => LocalModes::ECHO,
        Pty::ECHOE => LocalModes::ECHOE,
        Pty::ECHOK => LocalModes::ECHOK,
        Pty::ECHONL => LocalModes::ECHONL,
        Pty::NOFLSH => LocalModes::NOFLSH,
        Pty::TOSTOP => LocalModes::TOSTOP,
        Pty::IEXTEN => LocalModes::IEXTEN,
        Pty::ECHOCTL => LocalModes::ECHOCTL,
        Pty::ECHOKE => LocalModes::ECHOKE,
        Pty::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}
