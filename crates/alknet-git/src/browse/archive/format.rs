//! tar and zip.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::atomic::Ordering,
};

use flate2::{Compression, write::GzEncoder};
use gix::{ObjectId, bstr::ByteSlice as _};
use tar::{EntryType, Header};
use time::OffsetDateTime;
use zip::{
    CompressionMethod, DateTime, ZipWriter,
    result::ZipError,
    write::{SimpleFileOptions, StreamWriter},
};

use super::{Cut, Format, Output};

/// What stands in an archive under a name.
pub(super) enum Kept<'a> {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Its content.
        data: &'a [u8],
        /// Whether it is a program.
        executable: bool,
    },
    /// A symbolic link: where it leads.
    Link(&'a [u8]),
}

impl Kept<'_> {
    /// The permissions, as `git archive` gives them.
    fn mode(&self) -> u32 {
        match self {
            Kept::Folder | Kept::File { executable: true, .. } => 0o775,
            Kept::File { executable: false, .. } => 0o664,
            Kept::Link(_) => 0o777,
        }
    }
}

/// Packs files. All are of the same time.
pub(super) struct Writer {
    packer: Packer,
    cut: Cut,
}

enum Packer {
    Tar { tar: Box<tar::Builder<Packed>>, time: u64 },
    Zip { zip: Box<ZipWriter<StreamWriter<Output>>>, time: DateTime },
}

/// The bytes of a tar archive, packed or not.
enum Packed {
    Plain(Output),
    Gzip(Box<GzEncoder<Output>>),
}

impl Writer {
    pub(super) fn new(format: Format, output: Output, time: i64, commit: ObjectId) -> Self {
        let cut = output.cut.clone();
        let seconds = u64::try_from(time).unwrap_or_default();
        let tar = |packed| Packer::Tar { tar: Box::new(tar::Builder::new(packed)), time: seconds };
        let packer = match format {
            Format::Tar => tar(Packed::Plain(output)),
            Format::TarGz => {
                tar(Packed::Gzip(Box::new(GzEncoder::new(output, Compression::default()))))
            }
            Format::Zip => {
                let mut zip = Box::new(ZipWriter::new_stream(output));
                // As git does: what the archive is of.
                let _ = zip.set_comment(commit.to_string());
                Packer::Zip { zip, time: dos_time(time) }
            }
        };
        Self { packer, cut }
    }

    /// Adds a file or a folder, whose path ends in a slash.
    pub(super) fn put(&mut self, path: &[u8], kept: &Kept<'_>) -> io::Result<()> {
        match &mut self.packer {
            Packer::Tar { tar, time } => put_tar(tar, *time, path, kept),
            Packer::Zip { zip, time } => put_zip(zip, *time, path, kept).map_err(of_zip),
        }
    }

    /// Writes the end.
    pub(super) fn finish(self) -> io::Result<()> {
        let mut output = match self.packer {
            Packer::Tar { tar, .. } => match tar.into_inner()? {
                Packed::Plain(output) => output,
                Packed::Gzip(gzip) => gzip.finish()?,
            },
            Packer::Zip { zip, .. } => zip.finish().map_err(of_zip)?.into_inner(),
        };
        output.flush()
    }

    /// Gives it up: nothing more is written, also where the end would be when it is dropped.
    pub(super) fn cut(self) {
        self.cut.store(true, Ordering::Relaxed);
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(output) => output.write(bytes),
            Self::Gzip(gzip) => gzip.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn put_tar(
    tar: &mut tar::Builder<Packed>,
    time: u64,
    path: &[u8],
    kept: &Kept<'_>,
) -> io::Result<()> {
    let path = Path::new(OsStr::from_bytes(path));
    let mut header = Header::new_gnu();
    header.set_mode(kept.mode());
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_size(0);
    match kept {
        Kept::Folder => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, path, io::empty())
        }
        Kept::File { data, .. } => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(data.len() as u64);
            tar.append_data(&mut header, path, *data)
        }
        Kept::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            tar.append_link(&mut header, path, Path::new(OsStr::from_bytes(target)))
        }
    }
}

fn put_zip(
    zip: &mut ZipWriter<StreamWriter<Output>>,
    time: DateTime,
    path: &[u8],
    kept: &Kept<'_>,
) -> Result<(), ZipError> {
    // Names in a zip archive are UTF-8.
    let path = path.to_str_lossy();
    let options = SimpleFileOptions::default()
        .last_modified_time(time)
        .unix_permissions(kept.mode())
        .compression_method(CompressionMethod::Deflated);
    match kept {
        Kept::Folder => zip.add_directory(path, options),
        Kept::File { data, .. } => {
            zip.start_file(path, options)?;
            zip.write_all(data).map_err(ZipError::Io)
        }
        Kept::Link(target) => zip.add_symlink(path, target.to_str_lossy(), options),
    }
}

fn of_zip(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// A time as zip has it; its first where it has none for this one.
fn dos_time(time: i64) -> DateTime {
    let known = OffsetDateTime::from_unix_timestamp(time).ok().and_then(|time| {
        let year = u16::try_from(time.year()).ok()?;
        let (month, day) = (time.month().into(), time.day());
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        DateTime::from_date_and_time(year, month, day, hour, minute, second).ok()
    });
    known.unwrap_or_default()
}
