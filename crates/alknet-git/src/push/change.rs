//! What becomes of a ref.

use gix::ObjectId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What becomes of a ref. An id of zeros stands for no object, as in git's protocol: such a ref
/// is made, or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RefChange {
    /// The whole name of the ref.
    pub reference: String,
    /// What it names before.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub old: ObjectId,
    /// What it names afterwards.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pub new: ObjectId,
}

impl RefChange {
    /// The change that a line of git's says: the old id, the new one and the name.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let mut id = || ObjectId::from_hex(words.next()?.as_bytes()).ok();
        let (old, new) = (id()?, id()?);
        Some(Self { reference: words.next()?.to_owned(), old, new })
    }

    /// As git has it.
    pub fn to_line(&self) -> String {
        let Self { reference, old, new } = self;
        format!("{old} {new} {reference}")
    }

    /// Whether it is about a ref below `refs/` that can be: git hands to hooks also what it
    /// then refuses, such as a path out of the repository.
    pub(crate) fn is_of_a_ref(&self) -> bool {
        self.reference.starts_with("refs/")
            && gix::refs::FullName::try_from(self.reference.as_str()).is_ok()
    }

    /// Whether it makes the ref.
    pub fn creates(&self) -> bool {
        self.old.is_null()
    }

    /// Whether it deletes the ref.
    pub fn deletes(&self) -> bool {
        self.new.is_null()
    }
}

fn write<S: Serializer>(id: &ObjectId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectId, D::Error> {
    let text = String::deserialize(deserializer)?;
    ObjectId::from_hex(text.as_bytes()).map_err(|_| D::Error::custom("no object id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_ref_is_called_is_told_apart() {
        let of = |name: &str| {
            let id = ObjectId::null(gix::hash::Kind::Sha1);
            RefChange { reference: name.into(), old: id, new: id }.is_of_a_ref()
        };
        assert!(of("refs/heads/main") && of("refs/heads/a/b.c"));
        for odd in [
            "HEAD",
            "/etc/x",
            "refs/../x",
            "refs/heads/../../../b.git/packed-refs",
            "refs/heads/a.lock",
            "refs/heads/a\nb",
            "refs/heads/a b",
            "refs//x",
            "refs/heads/",
            "refs/heads/.a",
        ] {
            assert!(!of(odd), "{odd:?}");
        }
    }

    #[test]
    fn a_line_of_git_s_is_read_and_written() {
        let (old, new) = ("0".repeat(40), "1".repeat(40));
        let line = format!("{old} {new} refs/heads/a b");
        let change = RefChange::from_line(&line).unwrap();
        assert!(change.creates() && !change.deletes());
        assert_eq!((change.reference.as_str(), change.to_line()), ("refs/heads/a b", line));
        let json = serde_json::to_value(&change).unwrap();
        assert_eq!(json["new"], new);
        assert_eq!(serde_json::from_value::<RefChange>(json).unwrap(), change);
        for wrong in ["", "x", &old, &format!("{old} {new}"), &format!("{old} x refs/heads/a")] {
            assert_eq!(RefChange::from_line(wrong), None, "{wrong:?}");
        }
    }
}
