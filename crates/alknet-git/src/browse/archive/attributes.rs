//! What an archive leaves out: `export-ignore` in the revision's own `.gitattributes`
//! (gitattributes, "Creating an archive").

use std::path::{Path, PathBuf};

use gix::{
    ObjectId,
    attrs::{
        Search,
        search::{MetadataCollection, Outcome},
    },
    bstr::{BStr, ByteSlice as _},
    glob::pattern::Case,
    objs::Kind,
};

use super::{BrowseError, Opened};

/// The attribute.
const IGNORE: &str = "export-ignore";
/// The largest file of attributes, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// The attributes that hold in a folder.
pub(super) struct Attributes {
    search: Search,
    names: MetadataCollection,
    outcome: Outcome,
}

impl Attributes {
    pub(super) fn new() -> Self {
        let (search, names) = (Search::default(), MetadataCollection::default());
        let mut outcome = Outcome::default();
        outcome.initialize_with_selection(&names, [IGNORE]);
        Self { search, names, outcome }
    }

    /// Adds those of a folder, whose path ends in a slash unless it is the root; whether there
    /// are some.
    pub(super) fn enter(
        &mut self,
        opened: &Opened,
        folder: &BStr,
        id: ObjectId,
    ) -> Result<bool, BrowseError> {
        let size = opened.header(id)?.size();
        if size > MAX_FILE {
            return Err(BrowseError::TooLarge { size, limit: MAX_FILE });
        }
        let mut buffer = Vec::new();
        let data = opened.find(id, Kind::Blob, &mut buffer)?;
        let at = PathBuf::from(folder.to_os_str_lossy().into_owned()).join(".gitattributes");
        // Macros are defined at the root alone, as with git.
        let (root, macros) = (Some(Path::new("")), folder.is_empty());
        let added = self.search.add_patterns_buffer(data, at, root, &mut self.names, macros);
        added.map_err(BrowseError::Archive)?;
        self.outcome.initialize_with_selection(&self.names, [IGNORE]);
        Ok(true)
    }

    /// Takes those away that were added last.
    pub(super) fn leave(&mut self) {
        self.search.pop_pattern_list();
    }

    /// Whether a file or a folder is left out.
    pub(super) fn is_ignored(&mut self, path: &BStr, is_folder: bool) -> bool {
        if self.search.num_pattern_lists() == 0 {
            return false;
        }
        self.outcome.reset();
        let found = self.search.pattern_matching_relative_path(
            path,
            Case::Sensitive,
            Some(is_folder),
            &mut self.outcome,
        );
        found && self.outcome.iter_selected().any(|it| it.assignment.state.is_set())
    }
}
