//! What an archive leaves out: `export-ignore` in the revision's own `.gitattributes`
//! (gitattributes, "Creating an archive").
//!
//! Whoever pushes writes these files, so that of all that they say only what leads to
//! `export-ignore` is kept, the brake is asked before each pattern, and a single one cannot
//! take long.

use std::collections::{HashMap, HashSet};

use gix::{
    ObjectId,
    attrs::{self, StateRef},
    bstr::{BStr, ByteSlice as _},
    glob::{Pattern, pattern::Case, wildmatch::Mode},
    objs::Kind,
};

use super::{Brake, BrowseError, Opened};

/// The attribute, and its number.
const IGNORE: &str = "export-ignore";
const IGNORED: usize = 0;
/// The largest file of attributes, and the most that hold in a folder together, in bytes.
const MAX_FILE: u64 = 256 * 1024;
const MAX_HELD: u64 = 1024 * 1024;
/// A line of so many bytes says nothing, as with git.
const MAX_LINE: usize = 2048;
/// The most `**` in a pattern, each of which doubles the time until it is known that a path
/// does not match. Single stars do not: one that fails ends those before it.
const MAX_STARS: usize = 4;

/// The number of an attribute, and whether it is set: not taken away, and without a value.
type Assigned = (usize, bool);

/// The attributes that hold in a folder.
pub(super) struct Attributes {
    /// The numbers of `export-ignore` and of all macros: only the root defines some.
    names: HashMap<String, usize>,
    /// What each macro stands for, by its number.
    macros: HashMap<usize, Vec<Assigned>>,
    /// The files, that of the root first.
    files: Vec<File>,
    /// How large they are together.
    held: u64,
}

struct File {
    rules: Vec<Rule>,
    /// How long the path of its folder is, with its slash.
    base: usize,
    size: u64,
}

struct Rule {
    pattern: Pattern,
    assigned: Vec<Assigned>,
}

impl Attributes {
    pub(super) fn new() -> Self {
        let names = HashMap::from([(IGNORE.to_owned(), IGNORED)]);
        Self { names, macros: HashMap::new(), files: Vec::new(), held: 0 }
    }

    /// Adds those of a folder, whose path ends in a slash unless it is the root.
    pub(super) fn enter(
        &mut self,
        opened: &Opened,
        folder: &BStr,
        id: ObjectId,
    ) -> Result<(), BrowseError> {
        let size = opened.header(id)?.size();
        let held = self.held.saturating_add(size);
        for (size, limit) in [(size, MAX_FILE), (held, MAX_HELD)] {
            if size > limit {
                return Err(BrowseError::TooLarge { size, limit });
            }
        }
        let mut buffer = Vec::new();
        let data = opened.find(id, Kind::Blob, &mut buffer)?;
        let lines = data.split(|&byte| byte == b'\n');
        let lines = lines.map(|line| if line.len() < MAX_LINE { line } else { b"" });
        let text = lines.collect::<Vec<_>>().join(&b'\n');
        // Macros are defined at the root alone, as with git.
        if folder.is_empty() {
            self.define(&text);
        }
        let rules = self.rules(&text, folder)?;
        self.files.push(File { rules, base: folder.len(), size });
        self.held = held;
        Ok(())
    }

    /// Takes those away that were added last.
    pub(super) fn leave(&mut self) {
        if let Some(file) = self.files.pop() {
            self.held -= file.size;
        }
    }

    /// Whether a file or a folder is left out.
    pub(super) fn is_ignored(
        &self,
        brake: &Brake,
        path: &BStr,
        is_folder: bool,
    ) -> Result<bool, BrowseError> {
        let mut decided = HashSet::new();
        for file in self.files.iter().rev() {
            let path = path.get(file.base..).unwrap_or_default().as_bstr();
            let name = path.rfind_byte(b'/').map(|slash| slash + 1);
            for rule in file.rules.iter().rev() {
                brake.check()?;
                if rule.assigned.iter().all(|(name, _)| decided.contains(name)) {
                    continue;
                }
                let (case, mode) = (Case::Sensitive, Mode::NO_MATCH_SLASH_LITERAL);
                let pattern = &rule.pattern;
                if !pattern.matches_repo_relative_path(path, name, Some(is_folder), case, mode) {
                    continue;
                }
                if let Some(is_ignored) = self.decide(rule, &mut decided) {
                    return Ok(is_ignored);
                }
            }
        }
        Ok(false)
    }

    /// Decides upon attributes that no stronger rule has decided upon, the last of a line and
    /// what it stands for first; whether a file is left out, once that is known.
    fn decide(&self, rule: &Rule, decided: &mut HashSet<usize>) -> Option<bool> {
        let mut open = rule.assigned.clone();
        while let Some((name, is_set)) = open.pop() {
            if name == IGNORED {
                return Some(is_set);
            }
            if decided.insert(name) && is_set {
                open.extend(self.macros.get(&name).into_iter().flatten());
            }
        }
        None
    }

    /// Learns the macros of a file, which may stand for others behind them; of two with one
    /// name the last counts.
    fn define(&mut self, text: &[u8]) {
        let defined = || {
            attrs::parse(text).flatten().filter_map(|(kind, assigned, _)| match kind {
                attrs::parse::Kind::Macro(name) => Some((name, assigned)),
                attrs::parse::Kind::Pattern(_) => None,
            })
        };
        for (name, _) in defined() {
            let number = self.names.len();
            self.names.entry(name.as_str().to_owned()).or_insert(number);
        }
        for (name, assigned) in defined() {
            let number = self.names.get(name.as_str()).copied();
            if let (Some(number), Some(assigned)) = (number, self.known(assigned)) {
                self.macros.insert(number, assigned);
            }
        }
    }

    fn rules(&self, text: &[u8], folder: &BStr) -> Result<Vec<Rule>, BrowseError> {
        let mut rules = Vec::new();
        // A line that is none is passed over, as by git.
        for (kind, assigned, line) in attrs::parse(text).flatten() {
            let attrs::parse::Kind::Pattern(pattern) = kind else { continue };
            let Some(assigned) = self.known(assigned).filter(|it| !it.is_empty()) else { continue };
            if pattern.text.find_iter("**").count() > MAX_STARS {
                let path = format!("{folder}.gitattributes");
                return Err(BrowseError::Stars { path, line, limit: MAX_STARS });
            }
            rules.push(Rule { pattern, assigned });
        }
        Ok(rules)
    }

    /// Those attributes of a line that may lead to `export-ignore`; `None` if one of all cannot
    /// be, so that git passes over the line.
    fn known(&self, line: attrs::parse::Iter<'_>) -> Option<Vec<Assigned>> {
        let mut known = Vec::new();
        for assigned in line {
            let assigned = assigned.ok()?;
            if let Some(&number) = self.names.get(assigned.name.as_str()) {
                known.push((number, matches!(assigned.state, StateRef::Set)));
            }
        }
        Some(known)
    }
}
