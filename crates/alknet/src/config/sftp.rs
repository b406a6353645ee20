//! Folders that the node exports by SFTP.

use std::{collections::BTreeMap, path::Path};

use alknet_sftp::Export;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FilePath, Size, problem::Wrong};

/// The SFTP server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sftp {
    /// Folders by the names under which they are exported: to whoever has the scope
    /// sftp:read:NAME or sftp:write:NAME, and nothing of the machine besides. With path, the
    /// folder; where wanted quota, how much all its files may hold together; and atomic, by
    /// which an upload takes its name when it is whole, and one that is broken off leaves
    /// nothing.
    #[schemars(example = Sftp::example())]
    pub(crate) exports: BTreeMap<String, SftpExport>,
}

/// A folder that is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SftpExport {
    /// The folder.
    pub(crate) path: FilePath,
    /// How much all its files may hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<Size>,
    /// Uploads take their names when they are whole, and else leave nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) atomic: bool,
}

impl Sftp {
    fn example() -> BTreeMap<String, SftpExport> {
        let quota = Some(Size::mebibytes(10 << 10));
        let (path, atomic) = ("/srv/notes".into(), true);
        [("notes".into(), SftpExport { path, quota, atomic })].into()
    }

    /// A path in the file starts where the file is.
    pub(super) fn settle(&mut self, root: &Path) {
        self.exports.values_mut().for_each(|export| export.path.settle(root));
    }
}

impl SftpExport {
    /// As the server takes it. Blocks for the disk.
    pub(crate) fn open(&self, name: &str) -> Result<Export, Wrong> {
        let mut export = Export::new(name, &self.path)?;
        if let Some(quota) = self.quota {
            export = export.with_quota(quota.bytes());
        }
        Ok(if self.atomic { export.with_atomic_uploads() } else { export })
    }
}
