use proptest::prelude::*;

use super::*;

const SIZE: Size = Size { columns: 20, rows: 5, width: 0, height: 0 };

/// A terminal that was reset and painted.
fn painted(screen: &Screen, history: u32) -> Screen {
    let mut copy = Screen::new(SIZE);
    copy.feed(b"\x1bc");
    copy.feed(&screen.paint(history));
    copy
}

fn rows(screen: &Screen) -> Vec<String> {
    let lines = screen.terminal.screen().visible_lines();
    lines.map(|line| line.text().trim_end().to_owned()).collect()
}

fn history(screen: &Screen) -> Vec<String> {
    let primary = screen.terminal.primary_screen();
    let kept = primary.all_lines().count() - screen.terminal.size().1;
    let lines = primary.all_lines().take(kept);
    lines.map(|line| line.text().trim_end().to_owned()).collect()
}

fn same(a: &Screen, b: &Screen) {
    assert_eq!(rows(a), rows(b));
    assert_eq!(a.terminal.cursor().position(), b.terminal.cursor().position());
    assert_eq!(a.terminal.active_screen_kind(), b.terminal.active_screen_kind());
    assert_eq!(a.modes.dump(), b.modes.dump());
    let cells = |screen: &Screen| -> Vec<Cell> {
        screen.terminal.screen().visible_lines().flat_map(|line| line.cells().to_vec()).collect()
    };
    assert_eq!(cells(a), cells(b));
}

#[test]
fn a_painted_terminal_is_like_the_first() {
    let mut screen = Screen::new(SIZE);
    screen.feed("\x1b[1;31mred\x1b[m \x1b[38;2;1;2;3mdeep\x1b[m 界\r\n".as_bytes());
    screen.feed(b"\x1b]2;a title\x07\x1b[?1000;1006h\x1b[?2004h\x1b=\x1b[4 q");
    let copy = painted(&screen, 0);
    same(&screen, &copy);
    let modes = copy.modes.dump();
    for part in ["?1000h", "?1006h", "?2004h", "\x1b=", "4 q", "a title"] {
        assert!(modes.contains(part), "{part}");
    }
    screen.feed(b"\x1b[?2004l\x1bc");
    assert_eq!(screen.modes.dump(), "");
}

#[test]
fn a_paint_has_a_bound_whatever_is_on_the_screen() {
    let size = Size { columns: 500, rows: 300, width: 0, height: 0 };
    let mut screen = Screen::new(size);
    let line: String = (0..500)
        .map(|n| format!("\x1b[38;2;1{0:02};2{0:02};100;48;2;2{0:02};1{0:02};200mx", n % 50))
        .collect();
    for _ in 0..1300 {
        screen.feed(line.as_bytes());
        screen.feed(b"\r\n");
    }
    screen.feed(b"newest\r\n");
    screen.feed("\r\n".repeat(299).as_bytes());
    assert!(screen.history(1000).contains("newest"));
    screen.feed(b"\x1b[?1049h");
    for _ in 0..300 {
        screen.feed(line.as_bytes());
        screen.feed(b"\r\n");
    }
    assert!(screen.paint(1000).len() < 16 * 1024 * 1024);
    assert!(screen.history(1000).len() > MAX_HISTORY / 2);
}

#[test]
fn the_alternate_screen_and_what_is_behind_it() {
    let mut screen = Screen::new(SIZE);
    screen.feed(b"shell\x1b[?1049h\x1b[Hvim\x1b[3;3H\x1b[?25l");
    let mut copy = painted(&screen, 10);
    same(&screen, &copy);
    for terminal in [&mut screen, &mut copy] {
        terminal.feed(b"\x1b[?1049l");
    }
    assert_eq!(rows(&copy)[0], "shell");
    same(&screen, &copy);
}

#[test]
fn history_is_there_and_no_more_than_was_asked() {
    let mut screen = Screen::new(SIZE);
    for n in 0..30 {
        screen.feed(format!("line {n}\r\n").as_bytes());
    }
    screen.feed(b"wrapped round the right edge of it$ ");
    assert_eq!(history(&screen).len(), 27);
    let copy = painted(&screen, 1000);
    same(&screen, &copy);
    // The lines that were on the screen are painted over, not scrolled off.
    assert_eq!(history(&copy)[..27], history(&screen)[..]);
    assert_eq!(history(&painted(&screen, 2))[..2], ["line 25", "line 26"]);
    assert!(history(&painted(&screen, 0)).is_empty());
}

#[test]
fn a_cut_character_or_sequence_goes_on() {
    let text = "é界🦀\x1b[31mred\x1b]2;t\x07\x1b[?2004h".as_bytes();
    let mut whole = Screen::new(SIZE);
    whole.feed(text);
    for cut in 0..=text.len() {
        let mut screen = Screen::new(SIZE);
        screen.feed(&text[..cut]);
        let mut copy = painted(&screen, 0);
        copy.feed(&text[cut..]);
        assert_eq!(rows(&whole), rows(&copy), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn no_output_panics_and_what_follows_may_be_cut_anywhere(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        cut in 0usize..400,
        size in (0u16..600, 0u16..400),
    ) {
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        let mut screen = Screen::new(SIZE);
        screen.feed(head);
        screen.feed(tail);
        let _ = screen.paint(10);
        screen.resize(Size { columns: size.0, rows: size.1, width: 0, height: 0 });
        let mut whole = Screen::new(SIZE);
        whole.feed(&bytes);
        whole.resize(Size { columns: size.0, rows: size.1, width: 0, height: 0 });
        same(&screen, &whole);
    }
}
