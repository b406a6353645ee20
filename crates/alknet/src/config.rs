//! The node's configuration: `alknet.toml` in the state folder. Every key is optional.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::home::{Home, HomeError};

/// The name of the file in the state folder.
const FILE: &str = "alknet.toml";
/// The port of a node unless another is given, to listen on and to dial.
pub(crate) const DEFAULT_PORT: u16 = 4433;

/// What `alknet.toml` says. Flags of the command line come before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where to listen, UDP and TCP alike; port 0 picks a free one.
    pub(crate) listen: Option<SocketAddr>,
    /// Offer HTTPS alone and hide every service in it.
    pub(crate) cover: bool,
    /// What strangers see: `404`, a folder of static files, or a URL (a reverse proxy; with
    /// `redirect:` before it a redirect).
    pub(crate) decoy: Option<String>,
    /// The certificate for browsers; without it a self-signed one is made.
    pub(crate) certificate: Option<Certificate>,
    /// Origins beside the node's own whose pages may connect.
    pub(crate) origins: Vec<String>,
    /// How long a shutdown waits for sessions to end, in seconds.
    pub(crate) drain: Option<u64>,
    /// Admit the keys of an `authorized_keys` file to SSH.
    pub(crate) authorized_keys: AuthorizedKeys,
}

/// PEM files of an X.509 certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// The chain, the node's own certificate first.
    pub(crate) chain: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// `true` is the file that OpenSSH uses; a path is that file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum AuthorizedKeys {
    /// None, or `~/.ssh/authorized_keys`.
    Default(bool),
    /// This one.
    File(PathBuf),
}

impl Default for AuthorizedKeys {
    fn default() -> Self {
        Self::Default(false)
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// It is not UTF-8.
    #[error("{path} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or a value is not what it should be.
    #[error("{path}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It has a key that does not exist.
    #[error("{path}: there is no key {key:?}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with the tables it is in.
        key: String,
        /// The one that was probably meant.
        nearest: Option<&'static str>,
    },
}

impl ConfigError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                Some(format!("did you mean {nearest:?}?"))
            }
            Self::UnknownKey { nearest: None, .. } => {
                Some(format!("the keys are {}", KEYS.join(", ")))
            }
            Self::NotText { .. } | Self::Invalid { .. } => None,
        }
    }
}

/// Every key, for hints.
const KEYS: [&str; 9] = [
    "listen",
    "cover",
    "decoy",
    "certificate",
    "certificate.chain",
    "certificate.key",
    "origins",
    "drain",
    "authorized_keys",
];

impl Config {
    /// Reads the file of a state folder; all defaults if there is none.
    pub(crate) fn load(home: &Home) -> Result<Self, ConfigError> {
        let path = home.path(FILE);
        let content = home.read(FILE)?.unwrap_or_default();
        let text =
            String::from_utf8(content).map_err(|_| ConfigError::NotText { path: path.clone() })?;
        let mut config = Self::parse(path, &text)?;
        config.settle_paths(home.root());
        Ok(config)
    }

    /// A path in the file starts where the file is, not where the program was started.
    fn settle_paths(&mut self, root: &Path) {
        if let Some(files) = &mut self.certificate {
            files.chain = root.join(&files.chain);
            files.key = root.join(&files.key);
        }
        if let AuthorizedKeys::File(file) = &mut self.authorized_keys {
            *file = root.join(&file);
        }
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, ConfigError> {
        let invalid = |path, source| ConfigError::Invalid { path, source: Box::new(source) };
        let table = match toml::from_str::<toml::Table>(text) {
            Ok(table) => table,
            Err(source) => return Err(invalid(path, source)),
        };
        if let Some(key) = unknown_key(&table) {
            let nearest = nearest(&key);
            return Err(ConfigError::UnknownKey { path, key, nearest });
        }
        toml::from_str(text).map_err(|source| invalid(path, source))
    }
}

fn unknown_key(table: &toml::Table) -> Option<String> {
    for (key, value) in table {
        if !KEYS.contains(&key.as_str()) {
            return Some(key.clone());
        }
        let inner = value.as_table().into_iter().flat_map(toml::Table::keys);
        let unknown =
            inner.map(|name| format!("{key}.{name}")).find(|name| !KEYS.contains(&name.as_str()));
        if unknown.is_some() {
            return unknown;
        }
    }
    None
}

fn nearest(key: &str) -> Option<&'static str> {
    let key = key.replace('-', "_").to_lowercase();
    KEYS.into_iter()
        .map(|known| (strsim::damerau_levenshtein(&key, known), known))
        .min()
        .filter(|(distance, known)| distance * 3 <= known.len())
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse("alknet.toml".into(), text)
    }

    #[test]
    fn nothing_is_needed() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            r#"
            listen = "[::]:443"
            cover = true
            decoy = "/srv/site"
            certificate = { chain = "chain.pem", key = "key.pem" }
            origins = ["https://example.org"]
            drain = 5
            authorized_keys = "keys"
            "#,
        )
        .unwrap();
        assert_eq!(config.listen, Some("[::]:443".parse().unwrap()));
        assert!(config.cover);
        assert_eq!(config.decoy.as_deref(), Some("/srv/site"));
        assert_eq!(config.certificate.unwrap().key, PathBuf::from("key.pem"));
        assert_eq!(config.origins, ["https://example.org"]);
        assert_eq!(config.drain, Some(5));
        assert_eq!(config.authorized_keys, AuthorizedKeys::File("keys".into()));
        let on = parse("authorized_keys = true").unwrap();
        assert_eq!(on.authorized_keys, AuthorizedKeys::Default(true));
    }

    #[test]
    fn a_path_starts_at_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path().join("state"))).unwrap();
        let text = "certificate = { chain = 'a.pem', key = '/b.pem' }\nauthorized_keys = 'keys'";
        home.write(FILE, text.as_bytes()).unwrap();
        let config = Config::load(&home).unwrap();
        let files = config.certificate.unwrap();
        assert_eq!((files.chain, files.key), (home.path("a.pem"), PathBuf::from("/b.pem")));
        assert_eq!(config.authorized_keys, AuthorizedKeys::File(home.path("keys")));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_the_nearest_name() {
        for (text, nearest) in [
            ("listne = 1", Some("listen")),
            ("Cover = true", Some("cover")),
            ("authorized-keys = true", Some("authorized_keys")),
            ("[certificate]\nchian = 'x'", Some("certificate.chain")),
            ("something = 1", None),
        ] {
            match parse(text) {
                Err(ConfigError::UnknownKey { nearest: found, .. }) => {
                    assert_eq!(found, nearest, "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_wrong_value_names_its_place() {
        let error = parse("cover = true\nlisten = 7\n").unwrap_err();
        let ConfigError::Invalid { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("line 2"), "{source}");
    }
}
