//! How a commit is named.

use std::{collections::HashSet, fmt, str::FromStr};

use gix::{
    ObjectId,
    bstr::ByteSlice as _,
    hash::Prefix,
    objs::{Kind, TagRefIter},
    refs::{FullName, Target},
};

use super::{BrowseError, opened::Opened};

/// The longest text, in bytes.
const MAX_TEXT: usize = 1024;
/// The most steps behind a name, and how far each goes.
const MAX_STEPS: usize = 32;
const MAX_BACK: u32 = 1_000_000;
const MAX_PARENT: u32 = 1000;
/// The fewest digits of an abbreviated id, as with git.
const MIN_DIGITS: usize = 4;
/// The most objects whose id may begin with an abbreviated one.
const MAX_CANDIDATES: usize = 256;
/// How many refs and tags may lead to each other.
const MAX_LINKS: usize = 16;

/// What names a commit: `HEAD`, a ref (`main`, `refs/tags/v1`), or an id, which may be
/// abbreviated; and steps back from there (`main~3`, `HEAD^2`).
///
/// Of what git knows beside (gitrevisions), nothing: no logs of refs (`main@{1}`), no search in
/// messages (`:/fix`), no ranges; and nothing begins like an option.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision {
    name: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// So many times to the first parent.
    Back(u32),
    /// To one of the parents; 0 stays.
    Parent(u32),
}

/// The text names no commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRevision {
    /// Too many bytes or steps.
    #[error("a revision has {MAX_TEXT} bytes and {MAX_STEPS} steps at most")]
    TooLong,
    /// Neither a ref nor an id can be called so.
    #[error("{0:?} is neither HEAD nor a ref nor an id")]
    Name(String),
    /// What stands behind the name is no step back.
    #[error("a revision ends in steps such as ~, ~3, ^ or ^2, not in {0:?}")]
    Step(String),
}

impl Revision {
    /// The commit that is checked out by who clones the repository.
    pub fn head() -> Self {
        Self { name: "HEAD".into(), steps: Vec::new() }
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self::head()
    }
}

impl FromStr for Revision {
    type Err = InvalidRevision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT {
            return Err(InvalidRevision::TooLong);
        }
        let (name, steps) = match text.find(['~', '^']) {
            Some(end) => text.split_at_checked(end).unwrap_or((text, "")),
            None => (text, ""),
        };
        // Refs may be called `-x`, but nobody needs to name them by what looks like an option.
        let is_name = gix::validate::reference::name_partial(name.into()).is_ok();
        if !is_name || name.starts_with('-') || name == "@" {
            return Err(InvalidRevision::Name(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), steps: parse_steps(steps)? })
    }
}

fn parse_steps(text: &str) -> Result<Vec<Step>, InvalidRevision> {
    let mut steps = Vec::new();
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let invalid = || InvalidRevision::Step(rest.to_owned());
        let behind = rest.strip_prefix(['~', '^']).ok_or_else(invalid)?;
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        let (digits, more) = behind.split_at_checked(end).ok_or_else(invalid)?;
        let count = match digits {
            "" => 1,
            digits => digits.parse::<u32>().map_err(|_| invalid())?,
        };
        let step = if sign == '~' { Step::Back(count) } else { Step::Parent(count) };
        if count > if sign == '~' { MAX_BACK } else { MAX_PARENT } {
            return Err(invalid());
        }
        steps.push(step);
        if steps.len() > MAX_STEPS {
            return Err(InvalidRevision::TooLong);
        }
        rest = more;
    }
    Ok(steps)
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.steps.iter().try_for_each(|step| match step {
            Step::Back(count) => write!(f, "~{count}"),
            Step::Parent(count) => write!(f, "^{count}"),
        })
    }
}

impl Opened {
    /// The commit that a revision names.
    pub(super) fn resolve(&self, revision: &Revision) -> Result<ObjectId, BrowseError> {
        let nowhere = || BrowseError::NoRevision(revision.to_string());
        let mut id = self.named(&revision.name)?.ok_or_else(nowhere)?;
        for step in &revision.steps {
            id = match *step {
                Step::Parent(0) => id,
                Step::Parent(which) => {
                    let parents = self.node(id)?.parents;
                    *parents.get(which as usize - 1).ok_or_else(nowhere)?
                }
                Step::Back(count) => {
                    for _ in 0..count {
                        id = *self.node(id)?.parents.first().ok_or_else(nowhere)?;
                    }
                    id
                }
            };
        }
        Ok(id)
    }

    /// The commit with a name, in the order in which git looks.
    fn named(&self, name: &str) -> Result<Option<ObjectId>, BrowseError> {
        if name == "HEAD" {
            return self.of_ref(name);
        }
        let digits = name.len();
        let full = self.hash().len_in_hex();
        let is_hex = name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex && digits == full {
            return match ObjectId::from_hex(name.as_bytes()) {
                Ok(id) => self.of_id(id),
                Err(_) => Ok(None),
            };
        }
        let places: &[&str] = match name.starts_with("refs/") {
            true => &[""],
            false => &["refs/", "refs/tags/", "refs/heads/"],
        };
        for place in places {
            if let Some(id) = self.of_ref(&format!("{place}{name}"))? {
                return Ok(Some(id));
            }
        }
        match is_hex && (MIN_DIGITS..full).contains(&digits) {
            true => self.abbreviated(name),
            false => Ok(None),
        }
    }

    /// The commit that a ref leads to, if it may be seen.
    fn of_ref(&self, name: &str) -> Result<Option<ObjectId>, BrowseError> {
        let Ok(mut name) = FullName::try_from(name) else { return Ok(None) };
        for _ in 0..MAX_LINKS {
            match self.reference(&name)?.map(|found| found.target) {
                Some(Target::Object(id)) => return self.peeled(id),
                Some(Target::Symbolic(next)) => name = next,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The commit that an object leads to; `None` where it is something else.
    pub(super) fn peeled(&self, id: ObjectId) -> Result<Option<ObjectId>, BrowseError> {
        let id = self.untagged(id)?;
        Ok((self.header(id)?.kind() == Kind::Commit).then_some(id))
    }

    /// What an object leads to that may be a tag, or a tag of a tag.
    pub(super) fn untagged(&self, mut id: ObjectId) -> Result<ObjectId, BrowseError> {
        let mut buffer = Vec::new();
        for _ in 0..MAX_LINKS {
            if self.header(id)?.kind() != Kind::Tag {
                return Ok(id);
            }
            let data = self.find(id, Kind::Tag, &mut buffer)?;
            let target = TagRefIter::from_bytes(data, self.hash()).target_id();
            id = target.map_err(|error| self.failed(error))?;
        }
        Ok(id)
    }

    /// The commit with an id, if some ref reaches it.
    fn of_id(&self, id: ObjectId) -> Result<Option<ObjectId>, BrowseError> {
        let kind = match self.try_header(id)? {
            Some(header) => header.kind(),
            None => return Ok(None),
        };
        match kind {
            Kind::Commit => Ok(self.is_reachable(id)?.then_some(id)),
            Kind::Tag if self.is_tip(id)? => self.peeled(id),
            Kind::Tag | Kind::Tree | Kind::Blob => Ok(None),
        }
    }

    /// The one commit that a ref reaches and whose id begins so.
    fn abbreviated(&self, digits: &str) -> Result<Option<ObjectId>, BrowseError> {
        // Gix would guess from the digits alone which hash they are of.
        let padded = format!("{digits:0<width$}", width = self.hash().len_in_hex());
        let id = ObjectId::from_hex(padded.as_bytes()).ok();
        let prefix = id.and_then(|id| Prefix::new(&id, digits.len()).ok());
        let Some(prefix) = prefix else { return Ok(None) };
        let mut candidates = HashSet::new();
        let found = self.git().objects.lookup_prefix(prefix, Some(&mut candidates));
        found.map_err(|error| self.failed(error))?;
        let ambiguous = || BrowseError::Ambiguous(digits.to_owned());
        if candidates.len() > MAX_CANDIDATES {
            return Err(ambiguous());
        }
        let mut only = None;
        for id in candidates {
            if self.of_id(id)?.is_some_and(|_| only.replace(id).is_some()) {
                return Err(ambiguous());
            }
        }
        only.map_or(Ok(None), |id| self.peeled(id))
    }

    /// A ref of exactly this name, if it may be seen.
    pub(super) fn reference(
        &self,
        name: &FullName,
    ) -> Result<Option<gix::refs::Reference>, BrowseError> {
        let found = self.git().refs.try_find(name.as_ref());
        let found = found.map_err(|error| self.failed(error))?;
        // It is looked for in several places, of which only the first is meant.
        Ok(found.filter(|found| found.name == *name && !self.is_hidden(name.as_bstr().as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn steps_go_back_from_a_name() {
        let read = |text: &str| text.parse::<Revision>().map(|revision| revision.to_string());
        for (text, written) in [
            ("HEAD", "HEAD"),
            ("main", "main"),
            ("refs/heads/a-b/c", "refs/heads/a-b/c"),
            ("main~", "main~1"),
            ("v1.0^2~3^", "v1.0^2~3^1"),
            ("0123abcd^0", "0123abcd^0"),
            ("a@b", "a@b"),
            ("ü", "ü"),
        ] {
            assert_eq!(read(text).unwrap(), written, "{text}");
        }
    }

    #[test]
    fn nothing_else_is_a_revision() {
        for text in [
            "",
            "@",
            "-x",
            "--all",
            "-",
            "a..b",
            "a...b",
            "^a",
            "~",
            "^",
            ":/fix",
            ":a",
            "a:b",
            "a@{1}",
            "@{u}",
            "a b",
            "a\n",
            "a\0",
            "a?",
            "a*",
            "[a",
            "a\\b",
            "/a",
            "a/",
            "a//b",
            "a.lock",
            ".a",
            "a/.b",
            "a.",
            "a^{commit}",
            "a^{}",
            "a^{/fix}",
            "a^@",
            "a^!",
            "a^-",
            "a~x",
            "a~-1",
            "a~99999999999",
            "a~1000001",
            "a^1001",
            "a~1b",
            "a\u{7f}",
        ] {
            assert!(text.parse::<Revision>().is_err(), "{text:?}");
        }
        assert_eq!("a".repeat(1025).parse::<Revision>(), Err(InvalidRevision::TooLong));
        assert_eq!(
            ("a".to_owned() + &"~".repeat(33)).parse::<Revision>(),
            Err(InvalidRevision::TooLong)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,64}") {
            if let Ok(revision) = text.parse::<Revision>() {
                let odd = ["..", "@{", ":", " ", "\0", "\n"];
                let is_odd = text.starts_with('-') || odd.iter().any(|it| text.contains(it));
                prop_assert!(!is_odd);
                prop_assert_eq!(revision.to_string().parse::<Revision>(), Ok(revision));
            }
        }

        #[test]
        fn what_is_written_is_read(
            name in "[a-zA-Z0-9][a-zA-Z0-9_/-]{0,12}[a-z]",
            steps in "((~|\\^)[0-9]{0,3}){0,8}",
        ) {
            prop_assume!(!name.contains("//") && !name.ends_with('/'));
            let text = format!("{name}{steps}");
            let revision: Revision = text.parse().unwrap();
            prop_assert_eq!(&revision.name, &name);
            prop_assert_eq!(revision.steps.len(), steps.matches(['~', '^']).count());
        }
    }
}
