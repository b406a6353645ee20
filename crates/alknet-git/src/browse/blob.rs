//! Files.

use std::str;

use gix::objs::Kind;
use schemars::JsonSchema;
use serde::Serialize;

use super::{BrowseError, Revision, TreePath, bounds::json_len, opened::Opened, tree::EntryKind};

/// The longest range, and how long it is without a wish, in bytes.
const MAX_RANGE: usize = 2 * 1024 * 1024;
const RANGE: usize = 1024 * 1024;
/// The longest text as JSON, in bytes. What is longer is no text that people read.
const MAX_TEXT: usize = 3 * 1024 * 1024;
/// Where git looks for a NUL, which no text has.
const LOOKED_AT: usize = 8000;

/// Which file is asked for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BlobQuery {
    /// In which revision.
    pub revision: Revision,
    /// Where it is.
    pub path: TreePath,
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// How long it is at most, in bytes.
    pub limit: Option<usize>,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blob {
    /// The id of the commit.
    pub rev: String,
    /// The id of the content.
    pub id: String,
    /// What kind of file it is.
    pub kind: FileKind,
    /// How large the whole is, in bytes.
    pub size: u64,
    /// Whether it is no text: there is a NUL in its first 8000 bytes, as git has it.
    pub binary: bool,
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// The range.
    pub content: Vec<u8>,
    /// Whether there is more behind it.
    pub truncated: bool,
}

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FileKind {
    /// A file.
    Blob,
    /// A program.
    Executable,
    /// A symbolic link, whose content is its target.
    Link,
}

impl Blob {
    /// The range as text, if it is one.
    pub fn text(&self) -> Option<&str> {
        let text = str::from_utf8(&self.content).ok();
        text.filter(|text| !self.binary && json_len(text) <= MAX_TEXT)
    }
}

/// The file that is asked for.
pub(super) fn blob(opened: &Opened, query: &BlobQuery) -> Result<Blob, BrowseError> {
    let commit = opened.resolve(&query.revision)?;
    let (mode, id) = opened.at(commit, &query.path)?;
    let kind = match EntryKind::from(mode.kind()) {
        EntryKind::Blob => FileKind::Blob,
        EntryKind::Executable => FileKind::Executable,
        EntryKind::Link => FileKind::Link,
        EntryKind::Tree | EntryKind::Commit => {
            return Err(BrowseError::NotAFile(query.path.to_string()));
        }
    };
    let size = opened.header(id)?.size();
    let limit = opened.largest() as u64;
    if size > limit {
        return Err(BrowseError::TooLarge { size, limit });
    }
    let mut buffer = Vec::new();
    let data = opened.find(id, Kind::Blob, &mut buffer)?;
    let binary = is_binary(data);
    let wish = query.limit.unwrap_or(RANGE).min(MAX_RANGE);
    let range = range(data, query.offset, wish, binary);
    let offset = query.offset.min(size);
    Ok(Blob {
        rev: commit.to_string(),
        id: id.to_string(),
        kind,
        size,
        binary,
        offset,
        content: range.to_vec(),
        truncated: offset.saturating_add(range.len() as u64) < size,
    })
}

/// A part of a content; of a text it ends between two characters.
fn range(data: &[u8], offset: u64, limit: usize, binary: bool) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
    let rest = data.get(start..).unwrap_or_default();
    let range = rest.get(..limit).unwrap_or(rest);
    match str::from_utf8(range) {
        Err(error) if !binary && error.error_len().is_none() && range.len() < rest.len() => {
            let whole = range.get(..error.valid_up_to()).unwrap_or_default();
            if whole.is_empty() { range } else { whole }
        }
        _ => range,
    }
}

/// Whether a content is no text, as git guesses.
pub(super) fn is_binary(data: &[u8]) -> bool {
    data.iter().take(LOOKED_AT).any(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_of_text_ends_between_characters() {
        let text = "aü€😀".as_bytes();
        assert_eq!(range(text, 0, 2, false), b"a");
        assert_eq!(range(text, 1, 4, false), "ü".as_bytes());
        assert_eq!(range(text, 1, 5, false), "ü€".as_bytes());
        assert_eq!(range(text, 0, 2, true), &text[..2], "bytes are bytes");
        assert_eq!(range(text, 99, 5, false), b"");
        assert_eq!(range(text, u64::MAX, 5, false), b"");
        // Less than a character is asked for: it is no text, but there is progress.
        assert_eq!(range(text, 1, 1, false), &text[1..2]);
    }

    proptest! {
        #[test]
        fn the_ranges_are_the_whole(data in prop::collection::vec(any::<u8>(), 0..64), limit in 1usize..9) {
            let mut all = Vec::new();
            while all.len() < data.len() {
                let part = range(&data, all.len() as u64, limit, is_binary(&data));
                prop_assert!(!part.is_empty() && part.len() <= limit);
                all.extend_from_slice(part);
            }
            prop_assert_eq!(all, data);
        }

        #[test]
        fn the_ranges_of_a_text_are_texts(text in "[aü€😀\n]{0,40}", limit in 4usize..9) {
            let (data, mut at) = (text.as_bytes(), 0);
            while at < data.len() {
                let part = range(data, at as u64, limit, false);
                prop_assert!(str::from_utf8(part).is_ok());
                at += part.len();
            }
        }
    }
}
