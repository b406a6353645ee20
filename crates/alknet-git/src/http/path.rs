//! What a path asks for.

use crate::{lfs::objects::Oid, name::RepositoryName, request::Service};

/// What ends the name of a repository in a path.
const SUFFIX: &str = ".git/";
/// What comes behind it that needs no such end.
const REFS: &str = "info/refs";
const LFS: &str = "info/lfs/";
const BUNDLES: &str = "bundles/";
const BUNDLE: &str = ".bundle";

/// A repository and a part of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) repository: RepositoryName,
    pub(super) target: Target,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Refs and capabilities.
    Refs,
    /// A fetch or a push.
    Pack(Service),
    /// Large files.
    Lfs(LfsTarget),
    /// What a clone begins with.
    Bundle(BundleName),
}

/// The last word of the address of a bundle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BundleName(pub(super) String);

/// A part of the API of Git LFS.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LfsTarget {
    /// What is to be done with which objects.
    Batch,
    /// An object itself.
    Object(Oid),
    /// Whether one has arrived.
    Verify,
    /// All locks.
    Locks,
    /// Those that matter to a push.
    VerifyLocks,
    /// One to take away.
    Unlock(String),
}

impl Place {
    /// Reads what stands behind the prefix. No part of it is ever encoded, so `%` is in none.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (name, rest) = split(path)?;
        Some(Self { repository: name.parse().ok()?, target: target(rest)? })
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    // No word of a name ends in .git, so the first end is the one.
    if let Some(found) = path.split_once(SUFFIX) {
        return Some(found);
    }
    let services = [Service::UploadPack, Service::ReceivePack].map(Service::name);
    let plain = services.into_iter().chain([REFS]).find(|end| path.ends_with(end));
    let at = match plain {
        Some(end) => path.len().checked_sub(end.len())?,
        None => {
            let found = |part: &str| path.find(&format!("/{part}"));
            found(LFS).or_else(|| path.ends_with(BUNDLE).then(|| found(BUNDLES))?)? + 1
        }
    };
    let (name, rest) = path.split_at_checked(at)?;
    Some((name.strip_suffix('/')?, rest))
}

fn target(rest: &str) -> Option<Target> {
    match rest {
        REFS => Some(Target::Refs),
        "git-upload-pack" => Some(Target::Pack(Service::UploadPack)),
        "git-receive-pack" => Some(Target::Pack(Service::ReceivePack)),
        _ => match rest.strip_prefix(BUNDLES) {
            Some(name) => bundle(name).map(Target::Bundle),
            None => lfs(rest.strip_prefix(LFS)?).map(Target::Lfs),
        },
    }
}

fn bundle(name: &str) -> Option<BundleName> {
    let number = name.strip_suffix(BUNDLE)?;
    number.bytes().all(|b| b.is_ascii_digit()).then(|| BundleName(name.to_owned()))
}

fn lfs(rest: &str) -> Option<LfsTarget> {
    Some(match rest {
        "objects/batch" => LfsTarget::Batch,
        "verify" => LfsTarget::Verify,
        "locks" => LfsTarget::Locks,
        "locks/verify" => LfsTarget::VerifyLocks,
        _ => match rest.strip_prefix("objects/") {
            Some(oid) => LfsTarget::Object(oid.parse().ok()?),
            None => {
                let id = rest.strip_prefix("locks/")?.strip_suffix("/unlock")?;
                let named = !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit());
                named.then(|| LfsTarget::Unlock(id.to_owned()))?
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<(String, Target)> {
        Place::parse(path).map(|place| (place.repository.to_string(), place.target))
    }

    #[test]
    fn a_path_is_a_repository_and_a_part_of_it() {
        let oid = "0".repeat(64);
        let object = LfsTarget::Object(oid.parse().unwrap());
        for (rest, target) in [
            ("info/refs", Target::Refs),
            ("git-upload-pack", Target::Pack(Service::UploadPack)),
            ("git-receive-pack", Target::Pack(Service::ReceivePack)),
            ("info/lfs/objects/batch", Target::Lfs(LfsTarget::Batch)),
            (&format!("info/lfs/objects/{oid}"), Target::Lfs(object)),
            ("info/lfs/verify", Target::Lfs(LfsTarget::Verify)),
            ("info/lfs/locks", Target::Lfs(LfsTarget::Locks)),
            ("info/lfs/locks/verify", Target::Lfs(LfsTarget::VerifyLocks)),
            ("info/lfs/locks/0a1b/unlock", Target::Lfs(LfsTarget::Unlock("0a1b".into()))),
            ("bundles/17.bundle", Target::Bundle(BundleName("17.bundle".into()))),
        ] {
            for name in ["notes", "team/notes"] {
                let found = parsed(&format!("{name}.git/{rest}")).unwrap();
                assert_eq!((found.0.as_str(), &found.1), (name, &target), "{rest}");
                assert_eq!(parsed(&format!("{name}/{rest}")), Some(found), "{rest}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_path_never_names_what_is_outside(path in "(\\PC|[./a-z%]|\\.git/|info/lfs/){0,30}") {
            if let Some(place) = Place::parse(&path) {
                let name = place.repository.as_str();
                proptest::prop_assert!(path.starts_with(name) && !name.contains(".."));
                proptest::prop_assert!(!path.contains('%'));
            }
        }
    }

    #[test]
    fn what_is_no_part_of_a_repository_is_nothing() {
        for path in [
            "",
            "notes",
            "notes.git",
            "notes.git/",
            "/info/refs",
            "info/refs",
            ".git/info/refs",
            "notesinfo/refs",
            "notes.git/HEAD",
            "notes.git/objects/info/packs",
            "notes.git/config",
            "notes.git/info/refs/",
            "notes.git//info/refs",
            "notes.git/git-upload-archive",
            "notes.git.git/info/refs",
            "../notes.git/info/refs",
            "notes.git/../notes.git/info/refs",
            "%2e%2e/notes.git/info/refs",
            "..%2fnotes.git/info/refs",
            "team%2fnotes.git/info/refs",
            "notes.git/info%2frefs",
            "Notes.git/info/refs",
            "-notes.git/info/refs",
            "notes.git/info/lfs/objects/../../../config",
            "notes.git/info/lfs/objects/%2e%2e",
            "notes.git/info/lfs/objects/0",
            "notes.git/info/lfs/locks//unlock",
            "notes.git/info/lfs/locks/../unlock",
            "notes.git/info/lfs/",
            "notes.git/bundles/",
            "notes.git/bundles/../config",
            "notes.git/bundles/part",
        ] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }
}
