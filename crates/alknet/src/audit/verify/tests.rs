use std::fs;

use proptest::prelude::*;

use super::{
    super::{
        Limits, append_once,
        files::ACTIVE,
        tests::{Folder, event, small},
    },
    *,
};

/// A log of several files, with a torn line in the newest.
fn filled() -> Folder {
    let folder = Folder::new();
    folder.serve(small(100), &["a", "b", "c", "d", "e", "f", "g", "h"]);
    let torn = [folder.text(ACTIVE), b"{\"seq\":99,".to_vec()].concat();
    fs::write(folder.home.path(ACTIVE), torn).unwrap();
    folder.serve(Limits::default(), &["i"]);
    let report = folder.holds();
    assert!(report.files > 2 && report.recovered == 1, "{report:?}");
    folder
}

fn lines(folder: &Folder, name: &str) -> Vec<String> {
    let text = String::from_utf8(folder.text(name)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Changes the lines of a file; gives what `verify` says.
fn tampered(folder: &Folder, name: &str, change: impl FnOnce(&mut Vec<String>)) -> Report {
    let mut changed = lines(folder, name);
    change(&mut changed);
    let text: String = changed.iter().map(|line| format!("{line}\n")).collect();
    fs::write(folder.home.path(name), text).unwrap();
    folder.report()
}

#[track_caller]
fn fault(report: &Report) -> (&str, u64, &Problem) {
    let fault = report.fault.as_ref().unwrap_or_else(|| panic!("{report:?}"));
    assert!(!report.ok);
    (&fault.file, fault.line, &fault.problem)
}

#[test]
fn each_way_of_tampering_is_named_with_its_place() {
    let names = filled().names();
    let (first, second) = (names[0].as_str(), names[1].as_str());
    let edit = |line: &mut String| *line = line.replace("refused", "allowed");
    let number = |folder: &Folder, name: &str, line: usize| {
        Entry::parse(lines(folder, name)[line].as_bytes()).unwrap().seq
    };

    let folder = filled();
    let report = tampered(&folder, first, |lines| edit(&mut lines[1]));
    assert_eq!(fault(&report), (first, 2, &Problem::Changed));

    // The last line of a file: the next file tells.
    let folder = filled();
    let last = lines(&folder, first).len();
    let report = tampered(&folder, first, |lines| edit(lines.last_mut().unwrap()));
    assert_eq!(fault(&report), (first, last as u64, &Problem::Changed));

    // The hash that a line names, and not the line before it.
    let folder = filled();
    let report = tampered(&folder, second, |lines| {
        lines[1] = lines[1].replacen("\"prev\":\"", "\"prev\":\"00", 1);
        let end = lines[1].find("\",\"event").unwrap();
        lines[1].replace_range(end - 2..end, "");
    });
    assert_eq!(fault(&report), (second, 2, &Problem::Changed));

    let folder = filled();
    let gone = number(&folder, second, 1);
    let report = tampered(&folder, second, |lines| drop(lines.remove(1)));
    assert_eq!(fault(&report), (second, 2, &Problem::Missing { from: gone, to: gone }));

    let folder = filled();
    let report = tampered(&folder, first, |lines| drop(lines.remove(0)));
    assert_eq!(fault(&report), (first, 1, &Problem::NoBeginning));

    let folder = filled();
    let (found, expected) = (number(&folder, first, 2), number(&folder, first, 1));
    let report = tampered(&folder, first, |lines| lines.swap(1, 2));
    assert_eq!(fault(&report), (first, 2, &Problem::Reordered { found, expected }));

    let folder = filled();
    let seq = number(&folder, second, 0);
    let report = tampered(&folder, second, |lines| lines.insert(1, lines[0].clone()));
    assert_eq!(fault(&report), (second, 2, &Problem::Repeated { seq }));

    let folder = filled();
    let report = tampered(&folder, second, |lines| lines.insert(1, "junk".into()));
    assert_eq!(fault(&report), (second, 2, &Problem::NoEntry));

    let folder = filled();
    let report = tampered(&folder, first, |lines| lines[1].truncate(30));
    assert_eq!(fault(&report), (first, 2, &Problem::NoEntry));

    let folder = filled();
    let text = folder.text(first);
    fs::write(folder.home.path(first), &text[..text.len() - 9]).unwrap();
    assert_eq!(fault(&folder.report()), (first, last as u64, &Problem::CutShort));

    let folder = filled();
    fs::remove_file(folder.home.path(second)).unwrap();
    let report = folder.report();
    assert!(matches!(fault(&report), (_, 1, Problem::Missing { .. })), "{report:?}");

    let folder = filled();
    fs::write(folder.home.path(second), "").unwrap();
    assert_eq!(fault(&folder.report()), (second, 1, &Problem::NoBeginning));
}

#[test]
fn what_a_crash_left_is_covered() {
    let is_torn = |line: &String| Entry::parse(line.as_bytes()).is_none();
    let folder = filled();
    let torn = lines(&folder, ACTIVE).iter().position(is_torn).unwrap();
    let report = tampered(&folder, ACTIVE, |lines| lines[torn].push('x'));
    assert_eq!(fault(&report), (ACTIVE, torn as u64 + 2, &Problem::TornChanged));

    let folder = filled();
    let report = tampered(&folder, ACTIVE, |lines| drop(lines.remove(torn)));
    assert_eq!(fault(&report), (ACTIVE, torn as u64 + 1, &Problem::TornChanged));

    let folder = filled();
    let report = tampered(&folder, ACTIVE, |lines| drop(lines.remove(torn + 1)));
    assert_eq!(fault(&report), (ACTIVE, torn as u64 + 1, &Problem::NoEntry));
}

/// A chain that somebody makes anew is a chain: only who noted an entry of the old one can
/// tell.
#[test]
fn an_expected_entry_tells_what_the_chain_alone_cannot() {
    let folder = filled();
    let head = folder.holds().head.unwrap();
    let check = |folder: &Folder, head: Head| verify(&folder.home, Some(head)).unwrap();
    assert!(check(&folder, head).ok);
    append_once(&folder.home, event()).unwrap();
    assert!(check(&folder, head).ok, "a later entry changes nothing");
    assert!(check(&folder, Head::NONE).ok, "the place before the first");

    let rewritten = filled();
    assert!(rewritten.holds().ok);
    let report = check(&rewritten, head);
    assert_eq!(fault(&report).2, &Problem::Unexpected { seq: head.seq });

    let report = tampered(&folder, ACTIVE, |lines| lines.truncate(1));
    assert!(report.ok);
    assert_eq!(fault(&check(&folder, head)).2, &Problem::EndsEarly { seq: head.seq });

    let first = folder.names()[0].clone();
    fs::remove_file(folder.home.path(&first)).unwrap();
    let report = folder.holds();
    let start = report.first.unwrap().seq;
    let before = Head { seq: start - 1, ..head };
    assert_eq!(fault(&check(&folder, before)).2, &Problem::Unexpected { seq: start - 1 });
    let older = Head { seq: start - 2, ..head };
    assert_eq!(fault(&check(&folder, older)).2, &Problem::BeginsLate { seq: start - 2 });

    let empty = Folder::new();
    assert!(empty.holds().ok);
    assert_eq!(fault(&check(&empty, head)).2, &Problem::EndsEarly { seq: head.seq });
}

/// A line without an end is not read into memory.
#[test]
fn an_endless_line_is_no_entry() {
    let folder = filled();
    let name = folder.names()[0].clone();
    let report = tampered(&folder, &name, |lines| lines[1] += &" ".repeat(8 << 20));
    assert_eq!(fault(&report), (&*name, 2, &Problem::NoEntry));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any one byte, in any file but for the last line of all.
    #[test]
    fn any_changed_byte_is_found(which: prop::sample::Index, at: prop::sample::Index, flip in 1..=255_u8) {
        let folder = filled();
        let names = folder.names();
        let name = which.get(&names);
        let mut text = folder.text(name);
        let mut end = text.len();
        if name == ACTIVE {
            end = text[..end - 1].iter().rposition(|b| *b == b'\n').unwrap();
        }
        text[at.index(end)] ^= flip;
        fs::write(folder.home.path(name), text).unwrap();
        let report = folder.report();
        prop_assert!(!report.ok && report.fault.is_some(), "{:?}", report);
    }

    /// Any lines moved, left out or doubled, but for leaving out the end.
    #[test]
    fn any_rearrangement_is_found(order in prop::collection::vec(0..8_usize, 0..9)) {
        let folder = filled();
        let name = folder.names()[0].clone();
        let before = lines(&folder, &name);
        let after: Vec<_> = order.iter().filter_map(|i| before.get(*i).cloned()).collect();
        prop_assume!(after != before);
        let report = tampered(&folder, &name, |lines| *lines = after);
        prop_assert!(!report.ok, "{:?}", report);
    }

    /// Whatever stands in the file, it is read, written to and named.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), whole: bool) {
        let folder = if whole { filled() } else { Folder::new() };
        let text = [folder.text(ACTIVE), bytes].concat();
        fs::write(folder.home.path(ACTIVE), text).unwrap();
        folder.report();
        folder.serve(small(100), &["after"]);
        prop_assert!(folder.holds().entries > 0);
    }
}
