//! Who may use which account of the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use alknet_core::{Credential, Identity, Scopes};
use nix::unistd::{User, geteuid};
use tokio::time::timeout;

use crate::{
    Leader,
    account::{Account, AccountError, Switch},
    sys,
};

/// The key of a mapping that is for everybody.
pub const EVERYBODY: &str = "*";
/// How long the account database gets to answer: it may be a server elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody but root logs in while it exists.
const NO_LOGINS: &str = "/etc/nologin";
/// How long an id is, in characters.
const ID: usize = 12;
/// How much of a login name the audit log shows.
const SHOWN: usize = 32;

/// The accounts that a node serves, and to whom. Cheap to clone; a clone of one that is
/// mapped can be given another mapping later.
///
/// Without the rights of root there is one account, the node's own, and it is for whoever
/// may log in at all. With them an identity needs a mapping, and programs give up the
/// node's rights before they start.
///
/// ```
/// # use alknet_host::*;
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let own = Accounts::own(Account::current()?);
/// let mapping = AccountMap::from_iter([("alice", ["alice", "www-data"])]);
/// let mapped = Accounts::mapped(Account::current()?, mapping);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Accounts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: Account,
    /// `None`: there is no other account.
    mapping: Option<RwLock<AccountMap>>,
    leader: Option<Leader>,
}

/// Which accounts an identity may use: by its id or name, or [`EVERYBODY`]. The first of
/// them is the one that an identity gets where it names none.
///
/// Ids and names are apart: what has the form of an id is one, and whoever is merely called
/// that has no part in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountMap {
    entries: BTreeMap<String, Vec<String>>,
    /// Ids that have the node's own account, unless they have an entry.
    owners: BTreeSet<String>,
}

/// Whether a text has the form of an id that a node gives: twelve hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl<K, V, A> FromIterator<(K, V)> for AccountMap
where
    K: Into<String>,
    V: IntoIterator<Item = A>,
    A: Into<String>,
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let names = |names: V| names.into_iter().map(Into::into).collect();
        let entries = entries.into_iter().map(|(key, accounts)| (key.into(), names(accounts)));
        Self { entries: entries.collect(), owners: BTreeSet::new() }
    }
}

impl AccountMap {
    /// Gives the identity with this id the node's own account, unless it has an entry.
    pub fn with_owner(mut self, id: impl Into<String>) -> Self {
        self.owners.insert(id.into());
        self
    }

    /// Every account that somebody is mapped to.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.entries.values().flatten().map(String::as_str)
    }

    /// The accounts of an identity that it has an entry of its own for.
    fn entry(&self, identity: &Identity) -> Option<&[String]> {
        let by_id = self.entries.get(&identity.id).filter(|_| is_id(&identity.id));
        let by_name = || self.entries.get(&identity.name).filter(|_| !is_id(&identity.name));
        by_id.or_else(by_name).map(Vec::as_slice)
    }

    fn everybody(&self) -> &[String] {
        self.entries.get(EVERYBODY).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Why an identity does not get an account. For the audit log: whoever asks is told only
/// that they do not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountRefusal {
    /// The node serves one account, and it is another.
    #[error("login name {0:?} is not the node's account")]
    NotOwn(String),
    /// The node serves several accounts, and this one is not for the identity.
    #[error("login name {0:?} is not an account of theirs")]
    NotTheirs(String),
    /// The node has the rights of root and no account for the identity.
    #[error("no account is mapped to them, and the node runs as root")]
    NotMapped,
    /// There is no such account on the machine.
    #[error("the machine has no account {0:?}")]
    Unknown(String),
    /// The account may not be used now.
    #[error("the account {name:?} {state}")]
    Closed {
        /// Its login name.
        name: String,
        /// Why it may not.
        state: Closed,
    },
    /// Nobody but root may log in now.
    #[error("no logins: {NO_LOGINS} exists")]
    NoLogins,
    /// PAM does not let the account be used now.
    #[error("the account {name:?} is refused by PAM: {reason}")]
    Pam {
        /// Its login name.
        name: String,
        /// What PAM says.
        reason: String,
    },
    /// The account database could not be read.
    #[error("the account database could not be read: {0}")]
    Database(io::Error),
}

/// What is the matter with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// Its password is locked (`passwd -l`).
    #[error("is locked")]
    Locked,
    /// Its last day is over.
    #[error("has expired")]
    Expired,
}

impl Accounts {
    /// One account, for whoever may log in.
    pub fn own(account: Account) -> Self {
        Self(Arc::new(Inner { own: account, mapping: None, leader: None }))
    }

    /// The accounts of a machine, for a process with the rights of root that itself runs as
    /// `own`. Where an identity has no entry in the mapping there is one account for it if
    /// it may do everything, or is the owner by a key: the node's own, which it has by other
    /// ways in any case.
    pub fn mapped(own: Account, mapping: AccountMap) -> Self {
        Self(Arc::new(Inner { own, mapping: Some(RwLock::new(mapping)), leader: None }))
    }

    /// Like [`mapped`](Self::mapped), with programs of other accounts started by a leader, so
    /// that what an account has done to its own files cannot keep this process waiting.
    pub fn led(own: Account, mapping: AccountMap, leader: Leader) -> Self {
        let (mapping, leader) = (Some(RwLock::new(mapping)), Some(leader));
        Self(Arc::new(Inner { own, mapping, leader }))
    }

    /// As the rights of this process have it: see [`is_privileged`](Self::is_privileged).
    /// Without those of root a mapping may name its own account alone.
    pub fn of_process(mapping: AccountMap, leader: Leader) -> Result<Self, AccountError> {
        let own = Account::current()?;
        if Self::is_privileged() {
            return Ok(Self::led(own, mapping, leader));
        }
        match mapping.accounts().find(|name| *name != own.name) {
            Some(other) => Err(AccountError::Other { other: other.into(), own: own.name }),
            None => Ok(Self::own(own)),
        }
    }

    /// Whether this process can start programs as other accounts.
    pub fn is_privileged() -> bool {
        geteuid().is_root()
    }

    /// Puts another mapping in the place of the present one. It holds for whatever is
    /// started from then on.
    pub fn set(&self, mapping: AccountMap) {
        if let Some(present) = &self.0.mapping {
            *present.write().unwrap_or_else(PoisonError::into_inner) = mapping;
        }
    }

    /// The account of the node itself.
    pub fn node(&self) -> &Account {
        &self.0.own
    }

    /// The login names that an identity may use, the one that it gets by itself first.
    pub fn names(&self, identity: &Identity) -> Vec<String> {
        let own = self.0.own.name.clone();
        let Some(mapping) = &self.0.mapping else { return vec![own] };
        let mapping = mapping.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = mapping.entry(identity) {
            return entry.to_vec();
        }
        let owner = mapping.owners.contains(&identity.id) && by_own_key(identity);
        let anything = Scopes::all().within(&identity.scopes);
        let own = (anything || owner).then_some(own);
        own.into_iter().chain(mapping.everybody().iter().cloned()).collect()
    }

    /// Refuses a login name that nobody could use here. Asked before it is known who they
    /// are, so that guesses at names cost nothing.
    pub fn serve(&self, name: &str) -> Result<(), AccountRefusal> {
        if self.0.mapping.is_none() && name != self.0.own.name {
            return Err(AccountRefusal::NotOwn(cut(name)));
        }
        Ok(())
    }

    /// The account of an identity by its login name; without one, the first that it may
    /// use. Cancel safe.
    pub async fn of(
        &self,
        identity: &Identity,
        name: Option<&str>,
    ) -> Result<Account, AccountRefusal> {
        let name = self.permitted(identity, name)?;
        if name == self.0.own.name {
            return Ok(self.0.own.clone());
        }
        let found = timeout(PATIENCE, self.find(name)).await;
        found.unwrap_or_else(|_| Err(AccountRefusal::Database(io::ErrorKind::TimedOut.into())))
    }

    async fn find(&self, name: String) -> Result<Account, AccountRefusal> {
        let leader = self.0.leader.clone();
        let by_pam = leader.as_ref().is_some_and(Leader::has_pam);
        let looked_up = tokio::task::spawn_blocking(move || open(look_up(&name)?, by_pam));
        let interrupted = |error| AccountRefusal::Database(io::Error::other(error));
        let account = looked_up.await.map_err(interrupted)??;
        if let Some(leader) = &leader {
            let name = &account.name;
            let refused = |reason| AccountRefusal::Pam { name: cut(name), reason };
            leader.check(name).await.map_err(refused)?;
        }
        Ok(Account { leader, ..account })
    }

    /// The login name, if the identity may use it.
    fn permitted(&self, identity: &Identity, name: Option<&str>) -> Result<String, AccountRefusal> {
        let mut names = self.names(identity).into_iter();
        match name {
            None => names.next().ok_or(AccountRefusal::NotMapped),
            Some(name) => {
                self.serve(name)?;
                let mut names = names.peekable();
                names.peek().ok_or(AccountRefusal::NotMapped)?;
                let found = names.find(|known| known == name);
                found.ok_or_else(|| AccountRefusal::NotTheirs(cut(name)))
            }
        }
    }
}

/// Not by a token, which may be one that somebody else was given for a part of it.
fn by_own_key(identity: &Identity) -> bool {
    matches!(identity.credential, Credential::Key(_))
}

fn cut(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

/// An account that may be used, by what this process sees. Whether it is closed is for PAM to
/// say where that is asked, which locked passwords may be nothing to. Blocks likewise.
fn open(account: Account, by_pam: bool) -> Result<Account, AccountRefusal> {
    let root = account.switch.as_ref().is_some_and(|switch| switch.uid.is_root());
    if !root && Path::new(NO_LOGINS).exists() {
        return Err(AccountRefusal::NoLogins);
    }
    if by_pam {
        return Ok(account);
    }
    match sys::closed(&account.name).map_err(AccountRefusal::Database)? {
        Some(state) => Err(AccountRefusal::Closed { name: cut(&account.name), state }),
        None => Ok(account),
    }
}

/// An account of the machine that is not this process's. Blocks for the account database.
pub(crate) fn look_up(name: &str) -> Result<Account, AccountRefusal> {
    let user = User::from_name(name)
        .map_err(|errno| AccountRefusal::Database(errno.into()))?
        .ok_or_else(|| AccountRefusal::Unknown(cut(name)))?;
    let switch = Switch::to(&user).map_err(AccountRefusal::Database)?;
    Ok(Account::from_user(user, Some(switch)))
}

#[cfg(test)]
mod tests;
