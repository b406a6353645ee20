//! SFTP for the peers of a node: who sees what, and as which account.

use std::{ffi::OsString, fmt, io, path::PathBuf, sync::Arc};

use alknet_core::{Audit, AuthContext, Identity, Refusals, Stream};
use alknet_host::{Account, AccountRefusal, Accounts};

use crate::{
    export::{Export, Grant},
    helper,
    session::{Session, SessionError, SftpLimits, Shared},
    trail::Trail,
    view::View,
};

/// What an SFTP server is made from.
#[derive(Debug)]
pub struct SftpConfig {
    /// Who sessions run as.
    pub accounts: Accounts,
    /// Folders for those who may not see all files of an account.
    pub exports: Vec<Export>,
    /// Where it is recorded what is done to files.
    pub audit: Audit,
    /// Bounds.
    pub limits: SftpLimits,
    /// What serves an account that is not the node's own.
    pub helper: Option<Helper>,
}

/// A program that serves SFTP on its standard input and output, and writes what it does to
/// standard error, an audit event in JSON a line: `alknet sftp-server --report
/// --handles N`.
#[derive(Debug, Clone)]
pub struct Helper {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// An SFTP server for the peers of a node. Cheap to clone; clones share their bounds.
#[derive(Clone)]
pub struct SftpServer(Arc<Inner>);

struct Inner {
    accounts: Accounts,
    exports: Vec<Export>,
    audit: Audit,
    refusals: Refusals,
    shared: Shared,
    helper: Option<Helper>,
}

/// What a caller may see.
#[derive(Debug, Clone)]
pub enum Reach {
    /// All files of an account; `None` is the caller's first one.
    Account(Option<Account>),
    /// The exports that their scopes name.
    Exports,
}

/// A session could not be served to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SftpError {
    /// The caller has no account here.
    #[error("no account")]
    Account(#[from] AccountRefusal),
    /// Their home folder cannot be opened.
    #[error("the home folder of {account}")]
    Home {
        /// The login name.
        account: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The program that serves another account failed.
    #[error("the server for {account}")]
    Helper {
        /// The login name.
        account: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It ended with a status of failure.
    #[error("the server for the account ended with status {0}")]
    Status(i32),
}

impl SftpServer {
    /// A server with this configuration.
    pub fn new(config: SftpConfig) -> Self {
        let SftpConfig { accounts, exports, audit, limits, helper } = config;
        let (shared, refusals) = (Shared::new(limits), Refusals::new(audit.clone()));
        Self(Arc::new(Inner { accounts, exports, audit, refusals, shared, helper }))
    }

    /// What the scopes of an identity let them see: all files with `sftp`, exports with
    /// `sftp:read:NAME` and `sftp:write:NAME`. `None` if that is nothing.
    pub fn reach(&self, caller: &Identity) -> Option<Reach> {
        if caller.scopes.allow("sftp") {
            return Some(Reach::Account(None));
        }
        let some = self.0.exports.iter().any(|export| Grant::of(caller, export).is_some());
        some.then_some(Reach::Exports)
    }

    /// Serves one session on `stream` to its end. Dropped before that, the session is over
    /// and what it left unfinished is undone as [`Session::serve`] has it.
    pub async fn serve(
        &self,
        stream: Stream,
        caller: &Identity,
        auth: &AuthContext,
        reach: Reach,
    ) -> Result<(), SftpError> {
        let inner = &*self.0;
        let share = inner.shared.share(&caller.id);
        let trail = Trail::new(inner.audit.clone(), auth, caller).at(&share.pace, &inner.refusals);
        let view = match reach {
            Reach::Exports => {
                View::exports(inner.exports.iter().filter_map(|export| Grant::of(caller, export)))
            }
            Reach::Account(account) => {
                let account = match account {
                    Some(account) => account,
                    None => inner.accounts.of(caller, None).await?,
                };
                if account != *inner.accounts.node() {
                    return helper::serve(inner.helper.as_ref(), stream, &account, &trail).await;
                }
                View::account(&account.home)
                    .or_else(|_| View::account("/".as_ref()))
                    .map_err(|source| SftpError::Home { account: account.name, source })?
            }
        };
        let (output, input) = stream.split();
        let session = Session::new(view, inner.shared.clone()).with_share(share).with_trail(trail);
        Ok(session.serve(input, output).await?)
    }

    pub(crate) fn limits(&self) -> &SftpLimits {
        &self.0.shared.limits
    }
}

impl fmt::Debug for SftpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SftpServer").field("exports", &self.0.exports).finish_non_exhaustive()
    }
}
