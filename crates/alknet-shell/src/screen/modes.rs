//! The modes of a terminal that change nothing on the screen: what the mouse reports, how
//! a paste is marked, which shape the cursor has.

use std::{collections::BTreeSet, fmt};

use vte::{Params, Perform};

/// The private modes that are kept track of beside those of the screen itself: mouse
/// reports and their encodings, reports of the focus, marked pastes.
const KNOWN: [u16; 11] = [9, 1000, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 2004];
/// The longest title, in bytes.
const MAX_TITLE: usize = 256;

/// Follows the modes through a program's output.
#[derive(Default)]
pub(super) struct Modes {
    parser: vte::Parser,
    state: State,
}

#[derive(Default)]
struct State {
    private: BTreeSet<u16>,
    keypad: bool,
    /// The parameter of DECSCUSR.
    cursor: u16,
    title: String,
}

impl Modes {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.parser.advance(&mut self.state, bytes);
    }

    /// What sets a terminal that was reset to these modes.
    pub(super) fn dump(&self) -> String {
        let State { private, keypad, cursor, title } = &self.state;
        let mut out: String = private.iter().map(|mode| format!("\x1b[?{mode}h")).collect();
        if *keypad {
            out.push_str("\x1b=");
        }
        if *cursor != 0 {
            out.push_str(&format!("\x1b[{cursor} q"));
        }
        if !title.is_empty() {
            out.push_str(&format!("\x1b]2;{title}\x07"));
        }
        out
    }
}

impl fmt::Debug for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.state.private).finish()
    }
}

impl Perform for State {
    fn csi_dispatch(&mut self, params: &Params, between: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        let mut all = params.iter().filter_map(|param| param.first().copied());
        match (between, action) {
            (b"?", 'h') => self.private.extend(all.filter(|mode| KNOWN.contains(mode))),
            (b"?", 'l') => all.for_each(|mode| {
                self.private.remove(&mode);
            }),
            (b" ", 'q') => self.cursor = all.next().filter(|style| *style <= 6).unwrap_or(0),
            (b"!", 'p') => self.keypad = false,
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, between: &[u8], _ignore: bool, byte: u8) {
        match (between, byte) {
            ([], b'=') => self.keypad = true,
            ([], b'>') => self.keypad = false,
            ([], b'c') => *self = Self::default(),
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell: bool) {
        let [b"0" | b"2", rest @ ..] = params else { return };
        let title = String::from_utf8_lossy(&rest.join(&b';')).into_owned();
        // What would end the sequence early must not be in a title that is sent on.
        self.title = title.chars().filter(|c| !c.is_control()).collect();
        while self.title.len() > MAX_TITLE {
            self.title.pop();
        }
    }
}
