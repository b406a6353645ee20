//! What an `alknet://` URL leads to.

use std::str::FromStr;

use alknet_git::{InvalidName, RepositoryName};

/// How URLs of this kind begin.
const SCHEME: &str = "alknet://";

/// A repository on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `HOST[:PORT]`, a saved name or a node id.
    pub(super) node: String,
    pub(super) repository: RepositoryName,
}

/// The text is no such URL.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidUrl {
    /// No node or no repository.
    #[error("the URL is not alknet://NODE/REPOSITORY")]
    Form,
    /// A login name, which nothing would become of.
    #[error("the URL has a login name before '@': this machine's key says who it is")]
    User,
    /// No repository is called that.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl FromStr for Address {
    type Err = InvalidUrl;

    /// `alknet://NODE/REPOSITORY`, or what follows `alknet::` in git's other notation.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix(SCHEME).unwrap_or(text);
        let (node, path) = text.split_once('/').ok_or(InvalidUrl::Form)?;
        if node.contains('@') {
            return Err(InvalidUrl::User);
        }
        if node.is_empty() || path.is_empty() || path.starts_with('/') {
            return Err(InvalidUrl::Form);
        }
        Ok(Self { node: node.to_owned(), repository: RepositoryName::from_path(path)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_node_and_a_repository() {
        for (url, node, repository) in [
            ("alknet://example.org/notes", "example.org", "notes"),
            ("alknet://example.org:4433/team/notes.git", "example.org:4433", "team/notes"),
            ("alknet://[::1]:4433/notes/", "[::1]:4433", "notes"),
            ("alknet://lab/notes", "lab", "notes"),
            ("lab/team/notes", "lab", "team/notes"),
            ("alknet://ed25519:abc/notes", "ed25519:abc", "notes"),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!((address.node.as_str(), address.repository.as_str()), (node, repository));
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for url in [
            "",
            "alknet://",
            "alknet://lab",
            "alknet://lab/",
            "alknet:///notes",
            "alknet://me@lab/notes",
            "alknet://lab/../notes",
            "alknet://lab/--upload-pack=x",
            "alknet://lab/-x",
            "alknet://lab/a%2fb",
            "alknet://lab//notes",
            "alknet://lab/Notes",
            "https://lab/notes",
        ] {
            assert!(url.parse::<Address>().is_err(), "{url}");
        }
    }
}
