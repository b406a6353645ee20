//! What somebody may do: grants, and the actions they cover.
//!
//! An action is a list of words, the broadest first, written with colons between them:
//! `proxy:connect:db.internal:5432`. A grant is a pattern of such words and covers every
//! action that begins with it: `proxy` covers all that the service can do,
//! `proxy:connect:*:443` covers port 443 on every host. A `*` stands for any word, or at the end of a word for any
//! ending: `files:read:team/*`. There is nothing but grants: what none covers is denied.

use std::{borrow::Cow, collections::BTreeSet, fmt, str::FromStr};

/// The longest text of a grant, in bytes.
const MAX_TEXT: usize = 512;
/// The most words of a grant.
const MAX_WORDS: usize = 8;

/// Something that somebody wants to do: `files`, `files:read:notes`.
///
/// Words that come from outside (a host, the name of a repository) are added with
/// [`word`](Self::word) and stand for themselves, whatever is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action<'a>(Vec<Cow<'a, str>>);

impl<'a> Action<'a> {
    /// The whole of a service: its name is one word, even with colons in it.
    pub fn service(name: &'a str) -> Self {
        Self(vec![Cow::Borrowed(name)])
    }

    /// The action narrowed by one more word.
    #[must_use]
    pub fn word(mut self, word: impl Into<Cow<'a, str>>) -> Self {
        self.0.push(word.into());
        self
    }
}

/// Text of our own, with colons between the words.
impl<'a> From<&'a str> for Action<'a> {
    fn from(text: &'a str) -> Self {
        Self(words(text).map(Cow::Borrowed).collect())
    }
}

/// As a grant of exactly this is written.
impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_words(f, self.0.iter().map(AsRef::as_ref))
    }
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Vec<String>);

/// The text is no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidScope {
    /// Nothing between two colons, or nothing at all.
    #[error("a scope has words with colons between them, as in files or files:read:notes")]
    Empty,
    /// A character that no word has.
    #[error("a scope has no {0:?}")]
    Character(char),
    /// A `*` that is not at the end of a word.
    #[error("a * stands at the end of a word: files:read:* or files:read:team/*")]
    Star,
    /// Too long or too many words.
    #[error("a scope has {MAX_WORDS} words and {MAX_TEXT} characters at most")]
    TooLong,
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_TEXT || words(text).count() > MAX_WORDS {
            return Err(InvalidScope::TooLong);
        }
        words(text).map(|word| checked(word).map(str::to_owned)).collect::<Result<_, _>>().map(Self)
    }
}

fn checked(word: &str) -> Result<&str, InvalidScope> {
    let plain = |c: char| c.is_alphanumeric() || "-_.@/+~%*:".contains(c);
    if word.is_empty() {
        return Err(InvalidScope::Empty);
    }
    if let Some(bad) = word.chars().find(|c| !plain(*c)) {
        return Err(InvalidScope::Character(bad));
    }
    match word.strip_suffix('*').unwrap_or(word).contains('*') {
        true => Err(InvalidScope::Star),
        false => Ok(word),
    }
}

impl Scope {
    /// Whether this grant covers an action.
    pub fn covers<'a>(&self, action: impl Into<Action<'a>>) -> bool {
        self.covers_words(&action.into().0)
    }

    fn covers_words<S: AsRef<str>>(&self, action: &[S]) -> bool {
        self.0.len() <= action.len()
            && self.0.iter().zip(action).all(|(mine, word)| matches(mine, word.as_ref()))
    }

    /// Whether this grant covers all or a part of an action.
    fn touches<S: AsRef<str>>(&self, action: &[S]) -> bool {
        !action.is_empty()
            && self.0.iter().zip(action).all(|(mine, word)| matches(mine, word.as_ref()))
    }

    /// What both cover.
    fn common(&self, other: &Self) -> Option<Self> {
        let (long, short) =
            if self.0.len() >= other.0.len() { (self, other) } else { (other, self) };
        let shared = long.0.iter().zip(&short.0).map(|(a, b)| narrower(a, b).cloned());
        let rest = long.0.iter().skip(short.0.len()).cloned().map(Some);
        shared.chain(rest).collect::<Option<_>>().map(Self)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_words(f, self.0.iter().map(String::as_str))
    }
}

/// Whether a word of a grant stands for `word`.
fn matches(pattern: &str, word: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => word.starts_with(beginning),
        None => pattern == word,
    }
}

/// Of two words that some word fits both, the one that fewer fit.
fn narrower<'a>(a: &'a String, b: &'a String) -> Option<&'a String> {
    // A pattern fits another as a word does: `ab*` begins with `a`.
    if matches(b, a) {
        Some(a)
    } else if matches(a, b) {
        Some(b)
    } else {
        None
    }
}

/// The words of a text. Brackets keep the colons of an IPv6 address in one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let bracketed = text.strip_prefix('[').and_then(|text| text.split_once(']'));
        if let Some((word, after)) = bracketed
            && (after.is_empty() || after.starts_with(':'))
        {
            rest = after.strip_prefix(':');
            return Some(word);
        }
        let (word, after) = match text.split_once(':') {
            Some((word, after)) => (word, Some(after)),
            None => (text, None),
        };
        rest = after;
        Some(word)
    })
}

fn write_words<'a>(
    f: &mut fmt::Formatter<'_>,
    words: impl Iterator<Item = &'a str>,
) -> fmt::Result {
    for (i, word) in words.enumerate() {
        if i > 0 {
            f.write_str(":")?;
        }
        if word.contains(':') {
            write!(f, "[{word}]")?;
        } else {
            f.write_str(word)?;
        }
    }
    Ok(())
}

/// What somebody may do: any number of grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(BTreeSet<Scope>);

impl Scopes {
    /// Everything.
    pub fn all() -> Self {
        Self([Scope(vec!["*".into()])].into())
    }

    /// Whether a grant covers the action.
    pub fn allow<'a>(&self, action: impl Into<Action<'a>>) -> bool {
        self.covering(action).is_some()
    }

    /// The grant that covers an action.
    pub fn covering<'a>(&self, action: impl Into<Action<'a>>) -> Option<&Scope> {
        let action = action.into();
        self.0.iter().find(|scope| scope.covers_words(&action.0))
    }

    /// Whether all or a part of a service is granted: enough to reach its handler, which
    /// then decides about each action.
    pub fn admit(&self, service: &str) -> bool {
        self.touch(Action::service(service))
    }

    /// Whether all or a part of an action is granted: `files:write:notes` by
    /// `files:write:notes:drafts/*`.
    pub fn touch<'a>(&self, action: impl Into<Action<'a>>) -> bool {
        let action = action.into();
        self.0.iter().any(|scope| scope.touches(&action.0))
    }

    /// Whether everything that `self` grants is granted by a single grant of `other`.
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|scope| other.0.iter().any(|wider| wider.covers_words(&scope.0)))
    }

    /// What both grant.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        Self(pairs.filter_map(|(a, b)| a.common(b)).collect())
    }

    /// The grants in order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

/// Text that is no grant grants nothing.
impl<'a> FromIterator<&'a str> for Scopes {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        texts.into_iter().filter_map(|text| text.parse::<Scope>().ok()).collect()
    }
}

/// Grants with commas between them; no text, no grants.
impl FromStr for Scopes {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(|scope| scope.trim().parse::<Scope>()).collect()
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{scope}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(text: &str) -> Scopes {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_covers_what_begins_with_it() {
        let some = scopes("git,ssh");
        assert!(some.allow("ssh") && some.allow("ssh:forward:db:5432"));
        assert!(!some.allow("ss") && !some.allow("*") && !some.allow("sshd"));
        assert!(Scopes::all().allow("anything") && Scopes::all().allow("*"));
        assert!(!Scopes::default().allow("") && !some.allow(""));
    }

    #[test]
    fn a_finer_grant_admits_to_the_service_and_to_nothing_else_there() {
        let some = scopes("ssh:forward:*:443,git:read:team/*,call:files/*");
        assert!(some.admit("ssh") && some.admit("git") && !some.admit("mail"));
        assert!(!some.allow("ssh") && !some.allow("ssh:shell"));
        assert!(some.allow("ssh:forward:example.org:443"));
        assert!(!some.allow("ssh:forward:example.org:4430"));
        assert!(some.allow("git:read:team/notes") && !some.allow("git:write:team/notes"));
        assert!(!some.allow("git:read:other") && !some.allow("git:read"));
        assert!(some.allow("call:files/list") && !some.allow("call:filesystem"));
    }

    #[test]
    fn an_action_is_touched_by_grants_for_all_and_for_parts_of_it() {
        let notes = "files:write:notes";
        for scope in ["*", "files", "files:write:*", notes, "files:write:n*:drafts/*"] {
            assert!(scopes(scope).touch(notes), "{scope}");
        }
        for scope in ["", "file", "files:read:notes", "files:write:other:drafts/*"] {
            assert!(!scopes(scope).touch(notes), "{scope}");
        }
    }

    #[test]
    fn a_word_from_outside_cannot_become_two() {
        let some = scopes("ssh:forward:db:5432,ssh:forward:[2001:db8::1]:22");
        let forward = |host: &'static str, port: &'static str| {
            Action::from("ssh:forward").word(host).word(port)
        };
        assert!(some.allow(forward("db", "5432")));
        assert!(!some.allow(forward("db:5432", "1")));
        assert!(some.allow(forward("2001:db8::1", "22")));
        assert!(!some.allow(forward("*", "22")));
        assert_eq!(forward("::1", "22").to_string(), "ssh:forward:[::1]:22");
    }

    #[test]
    fn what_is_no_grant_is_an_error() {
        use InvalidScope as E;
        for (text, error) in [
            ("", E::Empty),
            ("ssh:", E::Empty),
            (":ssh", E::Empty),
            ("a b", E::Character(' ')),
            ("a\u{1b}", E::Character('\u{1b}')),
            ("a*b", E::Star),
            ("**", E::Star),
            ("[a", E::Character('[')),
            (&"x".repeat(600), E::TooLong),
            ("a:a:a:a:a:a:a:a:a", E::TooLong),
        ] {
            assert_eq!(text.parse::<Scope>(), Err(error), "{text:?}");
        }
        assert_eq!(Scopes::from_iter(["ssh", "a b"]), scopes("ssh"));
        assert!("ssh,,git".parse::<Scopes>().is_err());
        assert!("".parse::<Scopes>().unwrap().is_empty());
    }

    #[test]
    fn what_two_grant_together() {
        for (a, b, common) in [
            ("*", "ssh,git:read", "git:read,ssh"),
            ("git:*:notes", "git:read", "git:read:notes"),
            ("call:files/*", "call:f*", "call:files/*"),
            ("ssh", "git", ""),
            ("ssh:forward", "ssh:shell", ""),
        ] {
            assert_eq!(scopes(a).common(&scopes(b)), scopes(common), "{a} and {b}");
        }
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{1,2}", "[ab]{0,2}\\*", Just("::1".to_owned())]
    }

    fn scope() -> impl Strategy<Value = Scope> {
        prop::collection::vec(word(), 1..4).prop_map(Scope)
    }

    fn some() -> impl Strategy<Value = Scopes> {
        prop::collection::vec(scope(), 0..4).prop_map(Scopes::from_iter)
    }

    fn action() -> impl Strategy<Value = Action<'static>> {
        let word = prop_oneof!["[ab]{1,3}", Just("::1".to_owned())];
        prop::collection::vec(word.prop_map(Cow::Owned), 1..5).prop_map(Action)
    }

    proptest! {
        #[test]
        fn text_round_trips(scopes in some()) {
            prop_assert_eq!(scopes.to_string().parse::<Scopes>(), Ok(scopes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,64}") {
            if let Ok(scopes) = text.parse::<Scopes>() {
                prop_assert_eq!(scopes.to_string().parse::<Scopes>(), Ok(scopes));
            }
        }

        #[test]
        fn common_is_what_both_allow(a in some(), b in some(), action in action()) {
            let both = a.allow(action.clone()) && b.allow(action.clone());
            prop_assert_eq!(a.common(&b).allow(action), both);
        }

        #[test]
        fn within_allows_no_more(a in some(), b in some(), action in action()) {
            if a.within(&b) && a.allow(action.clone()) {
                prop_assert!(b.allow(action));
            }
        }

        #[test]
        fn common_is_within_both(a in some(), b in some()) {
            prop_assert!(a.common(&b).within(&a) && a.common(&b).within(&b));
        }

        #[test]
        fn who_may_act_is_admitted(scopes in some(), action in action()) {
            if scopes.allow(action.clone()) {
                prop_assert!(scopes.admit(&action.0[0]));
            }
        }

        #[test]
        fn more_words_are_never_denied(scopes in some(), action in action(), more in "[a-z:*]{1,8}") {
            if scopes.allow(action.clone()) {
                prop_assert!(scopes.allow(action.word(more)));
            }
        }
    }
}
