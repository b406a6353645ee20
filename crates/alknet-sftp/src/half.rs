//! Files that there was no room for.

use rustix::fs::{AtFlags, statat, unlinkat};

use crate::{
    fault::{Fault, Outcome},
    file::File,
    handles::Open,
    session::Context,
};

impl Context {
    /// Removes a file whose upload found no room, if it was made by that upload, has its name
    /// still and is not open elsewhere; what is said of it then. What was there before stays:
    /// to resume is to go on with it.
    pub(crate) fn sweep(&self, open: &Open) -> Option<Fault> {
        let file = open.file().ok()?;
        let (path, fault) = file.half()?;
        if !open.is_alone() || !self.removed(path, file).unwrap_or(false) {
            return None;
        }
        let text = format!("the upload is not whole and was removed: {}", fault.message);
        Some(Fault::failure(text))
    }

    /// Removes the file at a path, if it is this one.
    fn removed(&self, path: &[u8], file: &File) -> Outcome<bool> {
        let (folder, name) = self.view.locate(path)?.parent()?;
        let (mine, there) =
            (file.stat()?, statat(&folder, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?);
        if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino) {
            return Ok(false);
        }
        unlinkat(&folder, name.as_slice(), AtFlags::empty())?;
        Ok(true)
    }
}
