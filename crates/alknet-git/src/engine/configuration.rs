//! The only configuration of git that exchanges go by, but for the repository's own.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::hook;

/// The file of the configuration, and the folder of hooks.
const FILE: &str = "config";
const HOOKS: &str = "hooks";
/// The bytes of the secret that nonces of signed pushes are made with.
const SEED: usize = 32;

/// What holds for every exchange, beside what depends on the node. Keys that a git does not
/// know mean nothing to it.
///
/// Pushes stay packs (`unpackLimit`): their objects can be checked by the pack's index, one
/// file is written and synced instead of many, and a large blob is never held in memory as a
/// whole. Whoever collects garbage joins the packs.
///
/// An id is all that is needed to fetch an object, as in version 2 of the protocol anyway:
/// clients of partial clones ask for what they lack by its id. Wants by name stay off: git's
/// own clients cannot read the answer where they make a shallow clone (2.47 and before).
const FIXED: &str = "\
[core]
\tfsync = committed,reference
\tattributesFile = /dev/null
\tbigFileThreshold = 64m
[safe]
\tdirectory = *
[init]
\tdefaultBranch = main
[gc]
\tauto = 0
\tautoDetach = false
[maintenance]
\tauto = false
[transfer]
\tfsckObjects = true
\thideRefs = refs/alknet
\tadvertiseSID = false
[fetch]
\tfsckObjects = true
[receive]
\tfsckObjects = true
\tunpackLimit = 1
\tautogc = false
\tupdateServerInfo = false
\tadvertiseAtomic = true
\tadvertisePushOptions = true
\tprocReceiveRefs = refs
\tcertNonceSlop = 600
\tkeepAlive = 5
\tshallowUpdate = false
[uploadpack]
\tallowFilter = true
\tallowAnySHA1InWant = true
\tadvertiseBundleURIs = true
\tkeepAlive = 5
[uploadarchive]
\tallowUnreachable = false
[pack]
\tdeltaCacheSize = 256m
\twindowMemory = 256m
";

/// Where the configuration and the hooks are.
#[derive(Debug, Clone)]
pub(super) struct Configuration {
    pub(super) file: PathBuf,
    pub(super) hooks: PathBuf,
    /// Whether signed pushes are taken.
    pub(super) signed: bool,
}

impl Configuration {
    /// Writes them to a folder that only this account can enter.
    pub(super) fn write(
        folder: &Path,
        program: &Path,
        allowed_signers: Option<&Path>,
    ) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let folder = fs::canonicalize(folder)?;
        let hooks = folder.join(HOOKS);
        link_hooks(&hooks, program)?;
        let mut text = Zeroizing::new(FIXED.as_bytes().to_vec());
        text.reserve_exact(4096 + hooks.as_os_str().len());
        text.extend_from_slice(b"[core]\n\thooksPath = ");
        quote(hooks.as_os_str(), &mut text)?;
        text.push(b'\n');
        if let Some(signers) = allowed_signers {
            let mut seed = Zeroizing::new([0; SEED]);
            getrandom::fill(&mut *seed).map_err(io::Error::other)?;
            let seed = Zeroizing::new(hex::encode(*seed));
            text.extend_from_slice(b"[receive]\n\tcertNonceSeed = ");
            text.extend_from_slice(seed.as_bytes());
            text.push(b'\n');
            text.extend_from_slice(b"[gpg \"ssh\"]\n\tallowedSignersFile = ");
            quote(signers.as_os_str(), &mut text)?;
            text.push(b'\n');
        }
        let file = folder.join(FILE);
        replace(&file, &text)?;
        Ok(Self { file, hooks, signed: allowed_signers.is_some() })
    }
}

/// Makes the folder of hooks anew: no other hook is left in it.
fn link_hooks(folder: &Path, program: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    hook::NAMES.iter().try_for_each(|name| symlink(program, folder.join(name)))
}

fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let new = file.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(&new)?.write_all(text)?;
    fs::rename(new, file)
}

/// Writes a value as git-config(1) has it, section "Syntax".
fn quote(value: &OsStr, to: &mut Vec<u8>) -> io::Result<()> {
    if value.as_bytes().contains(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path has a line break"));
    }
    to.push(b'"');
    for byte in value.as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            to.push(b'\\');
        }
        to.push(*byte);
    }
    to.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    #[test]
    fn git_reads_what_was_written_and_nobody_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a \"b\" \\ c;#");
        let written =
            || Configuration::write(&odd, Path::new("/x"), Some(Path::new("/s"))).unwrap();
        let it = written();
        let get = |key: &str| {
            let mut git = Command::new("git");
            let out = git.args(["config", "--file"]).arg(&it.file).args(["--get", key]).output();
            String::from_utf8(out.unwrap().stdout).unwrap().trim_end().to_owned()
        };
        assert_eq!(get("core.hooksPath"), it.hooks.to_str().unwrap());
        assert_eq!(get("gpg.ssh.allowedSignersFile"), "/s");
        assert_eq!(get("receive.fsckObjects"), "true");
        let seed = get("receive.certNonceSeed");
        assert_eq!(seed.len(), 64);
        assert!(it.signed);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&it.file), mode(&odd), mode(&it.hooks)), (0o600, 0o700, 0o700));

        fs::write(it.hooks.join("update"), "").unwrap();
        written();
        assert_ne!(get("receive.certNonceSeed"), seed, "each start has its own");
        let unsigned = Configuration::write(&odd, Path::new("/x"), None).unwrap();
        assert_eq!((unsigned.signed, get("receive.certNonceSeed")), (false, String::new()));
        let mut hooks: Vec<_> =
            fs::read_dir(&it.hooks).unwrap().flatten().map(|it| it.file_name()).collect();
        hooks.sort();
        assert_eq!(hooks, ["post-receive", "pre-receive", "proc-receive"]);
    }
}
