//! What is wrong with a configuration.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io,
    path::{Path, PathBuf},
};

use alknet_core::WebCertificateError;
use alknet_host::AccountError;
use alknet_http::mcp::import::ImportError;
use alknet_ssh::RevokedKeysError;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::{home::HomeError, people::PeopleError, trusted_file::TrustError};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The state folder failed.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file cannot be read.
    #[error("{path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// It is not UTF-8.
    #[error("{path} is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It has these problems, and at least one.
    #[error("{}", list(.path, .problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// In the order of the file, as far as they have a place in it.
        problems: Vec<Problem>,
    },
    /// The reading was ended, as it is by a shutdown.
    #[error("the configuration was not read to its end")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl ConfigError {
    /// About a file with problems.
    pub(super) fn of(path: &Path) -> impl FnOnce(Vec<Problem>) -> Self {
        |problems| Self::Invalid { path: path.into(), problems }
    }

    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Invalid { problems, .. } => {
                let hints: Vec<String> = problems.iter().filter_map(Problem::hint).collect();
                (!hints.is_empty()).then(|| hints.join(" "))
            }
            Self::File { .. } | Self::NotText { .. } | Self::Interrupted(_) => None,
        }
    }
}

fn list(path: &Path, problems: &[Problem]) -> String {
    match problems {
        [one] => format!("{}: {one}", path.display()),
        _ => {
            let mut text = format!("{} has {} problems", path.display(), problems.len());
            for problem in problems {
                let _ = write!(text, "\n  {problem}");
            }
            text
        }
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The key, with the tables it is in, if it is about one.
    pub(super) key: Option<String>,
    /// The line in the file, from 1.
    pub(super) line: Option<usize>,
    pub(super) wrong: Wrong,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Wrong {
    /// The text is not TOML.
    #[error("{}", .0.message())]
    Syntax(Box<toml::de::Error>),
    /// There is no such key.
    #[error("there is no key {key:?}")]
    UnknownKey {
        /// With the tables it is in.
        key: String,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// The value is not of the right kind.
    #[error("{}", .0.message())]
    Value(Box<toml::de::Error>),
    /// It must last for some time.
    #[error("it must be longer than no time at all")]
    Zero,
    /// A named file cannot be read.
    #[error("{path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A folder was meant.
    #[error("{path} is not a folder")]
    NotAFolder {
        /// What it is not.
        path: PathBuf,
    },
    /// Certificate and key cannot be used.
    #[error(transparent)]
    Certificate(#[from] WebCertificateError),
    /// The keys would not be taken.
    #[error(transparent)]
    AuthorizedKeys(#[from] TrustError),
    /// The people of a file cannot be used.
    #[error(transparent)]
    People(#[from] PeopleError),
    /// The list of revoked keys cannot be used.
    #[error(transparent)]
    RevokedKeys(#[from] RevokedKeysError),
    /// No address.
    #[error("{text:?} is no address")]
    Address {
        /// What it is instead.
        text: String,
    },
    /// A file should hold a token.
    #[error("{path} holds no token")]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
    /// A server cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// An HTTP API cannot be imported.
    #[error(transparent)]
    ImportedApi(#[from] alknet_http::api::import::ImportError),
    /// The machine describes no such PAM service.
    #[error("there is no PAM service {service:?} in /etc/pam.d")]
    NoPamService {
        /// Its name.
        service: String,
    },
    /// Somebody is mapped to an account that the node cannot become.
    #[error(transparent)]
    Accounts(#[from] AccountError),
    /// A setting of git repositories cannot be used.
    #[error(transparent)]
    Git(#[from] alknet_git::InvalidSettings),
    /// A folder cannot be exported.
    #[error(transparent)]
    Export(#[from] alknet_sftp::ExportError),
    /// There is no home folder to look in.
    #[error(transparent)]
    NoFolder(#[from] etcetera::HomeDirError),
}

impl Problem {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match &self.wrong {
            Wrong::UnknownKey { nearest: Some(nearest), .. } => {
                Some(format!("did you mean {nearest:?}?"))
            }
            Wrong::UnknownKey { nearest: None, .. } => {
                Some("`alknet config reference` lists every key".into())
            }
            _ => None,
        }
    }

    /// What is wrong, with its causes.
    fn message(&self) -> String {
        let mut text = self.wrong.to_string();
        let mut cause = self.wrong.source();
        while let Some(error) = cause {
            // Some libraries print their cause and give it as the source as well.
            let message = error.to_string();
            if !text.ends_with(&message) {
                let _ = write!(text, ": {message}");
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match (&self.key, &self.wrong) {
            // It names the key itself.
            (_, Wrong::UnknownKey { .. }) | (None, _) => {}
            (Some(key), _) => write!(f, "{key}: ")?,
        }
        f.write_str(&self.message())
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Problem", 4)?;
        fields.serialize_field("key", &self.key)?;
        fields.serialize_field("line", &self.line)?;
        fields.serialize_field("message", &self.message())?;
        fields.serialize_field("hint", &self.hint())?;
        fields.end()
    }
}
