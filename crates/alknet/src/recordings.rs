//! Recordings of terminals, in the folder `recordings` of the state folder.
//!
//! A recording is a file in asciicast v2. While it is written its name ends with `.part`; at
//! its end it gets its name, and the audit log an entry with its length and BLAKE3 hash. What
//! a node that was killed has left half-written is ended by the next one that starts.

mod cast;
mod folder;
mod recorder;

pub(crate) use cast::{Moment, Reader};
pub(crate) use folder::{Folder, Limits, Listed, State};
pub(crate) use recorder::{Recordings, Rules};

/// The event of the audit log that names a recording and its hash.
const RECORDED: &str = "recording";
/// The event of one that was removed to keep within the limits.
const REMOVED: &str = "recording-removed";
