//! The keys that mean something here and not there, as with ssh.

/// What a user asks this side for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Leave,
    Help,
}

/// Finds `~.` and `~?` at the beginning of a line.
#[derive(Debug)]
pub(super) struct Escapes {
    /// Whether nothing has been typed on this line.
    fresh: bool,
    /// Whether a `~` is withheld.
    tilde: bool,
}

impl Default for Escapes {
    fn default() -> Self {
        Self { fresh: true, tilde: false }
    }
}

impl Escapes {
    /// What of this is for the other side, and what for this one; after a [`Command::Leave`]
    /// the rest is dropped.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<Command>) {
        let (mut out, mut command) = (Vec::with_capacity(bytes.len() + 1), None);
        for byte in bytes {
            match (std::mem::take(&mut self.tilde), byte) {
                (true, b'.') => return (out, Some(Command::Leave)),
                (true, b'?') => {
                    command = Some(Command::Help);
                    continue;
                }
                (true, b'~') => {}
                (true, _) => out.push(b'~'),
                (false, b'~') if self.fresh => {
                    self.tilde = true;
                    continue;
                }
                (false, _) => {}
            }
            out.push(*byte);
            self.fresh = matches!(byte, b'\r' | b'\n');
        }
        (out, command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&str]) -> (String, Option<Command>) {
        let (mut escapes, mut out) = (Escapes::default(), Vec::new());
        let mut command = None;
        for piece in pieces {
            let (bytes, asked) = escapes.typed(piece.as_bytes());
            out.extend(bytes);
            command = command.or(asked);
        }
        (String::from_utf8(out).unwrap(), command)
    }

    #[test]
    fn commands_stand_at_the_beginning_of_a_line() {
        assert_eq!(all(&["~."]), ("".into(), Some(Command::Leave)));
        assert_eq!(all(&["ls\r~", "."]), ("ls\r".into(), Some(Command::Leave)));
        assert_eq!(all(&["~?ls\r"]), ("ls\r".into(), Some(Command::Help)));
        assert_eq!(all(&["a~.b"]), ("a~.b".into(), None));
        assert_eq!(all(&["~~."]), ("~.".into(), None));
        assert_eq!(all(&["~", "/x\r"]), ("~/x\r".into(), None));
    }
}
