//! The bearer tokens that other nodes gave this machine, in the file `credentials`.

use std::collections::BTreeMap;

use alknet_core::{NodeId, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::home::{Home, HomeError};

/// The name of the file in the state folder.
const FILE: &str = "credentials";

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CredentialsError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It is not what `alknet login` writes. The content is not shown: it is secret.
    #[error("the file {FILE:?} of the state folder is damaged")]
    Malformed,
}

impl CredentialsError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Malformed => Some("remove it and log in again".into()),
        }
    }
}

/// By node id.
type Nodes = BTreeMap<String, Entry>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    token: Zeroizing<String>,
}

/// The token for a node, if one was saved.
pub(crate) fn token(home: &Home, node: NodeId) -> Result<Option<Secret>, CredentialsError> {
    let mut nodes = parse(home.read_secret(FILE)?.as_ref().map(|content| content.as_slice()))?;
    Ok(nodes.remove(&node.to_string()).map(|entry| Secret::new(entry.token.as_str())))
}

/// Saves the token for a node in the place of an older one.
pub(crate) fn save(home: &Home, node: NodeId, token: &Secret) -> Result<(), CredentialsError> {
    home.update(FILE, |content| {
        let content = content.map(Zeroizing::new);
        let mut nodes = parse(content.as_ref().map(|content| content.as_slice()))?;
        let token = Zeroizing::new(token.expose().to_owned());
        nodes.insert(node.to_string(), Entry { token });
        let text = toml::to_string(&nodes).map_err(|_| CredentialsError::Malformed)?;
        Ok((Some(text.into_bytes()), ()))
    })
}

fn parse(content: Option<&[u8]>) -> Result<Nodes, CredentialsError> {
    toml::from_slice(content.unwrap_or_default()).map_err(|_| CredentialsError::Malformed)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_token_is_kept_for_its_node_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("state"))).unwrap();
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        assert!(token(&home, a).unwrap().is_none());
        save(&home, a, &Secret::new("first")).unwrap();
        save(&home, a, &Secret::new("second")).unwrap();
        assert_eq!(token(&home, a).unwrap().unwrap().expose(), "second");
        assert!(token(&home, b).unwrap().is_none());
        fs::set_permissions(home.path(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(token(&home, a), Err(CredentialsError::Home(_))));
    }

    #[test]
    fn a_damaged_file_does_not_show_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("state"))).unwrap();
        home.write(FILE, b"token = planted").unwrap();
        let error = token(&home, NodeId::from_bytes([1; 32])).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("planted"));
    }
}
