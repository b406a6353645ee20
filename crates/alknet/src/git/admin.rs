//! Changes to repositories, by a command beside the node or by an operation: what is asked for,
//! what is done, and what the audit log says of it.

use alknet_core::AuditEvent;
use alknet_git::{
    CredentialsFile, EventKind, InvalidMirrorUrl, InvalidName, InvalidRefPattern, InvalidSettings,
    Mirror, Overview, RefPattern, Repositories, Repository, RepositoryError, RepositoryName,
    Settings,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Span;

/// A repository to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    /// What to call it: words of lower-case letters, digits, '.', '_' and '-' with slashes
    /// between them.
    #[schemars(length(max = 200))]
    pub(crate) name: String,
    /// What it is, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub(crate) description: Option<String>,
    /// Whether it may be read without any grant.
    #[serde(default)]
    pub(crate) public: bool,
    /// The branch that clones begin with; the node's default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub(crate) default_branch: Option<String>,
}

/// A repository that is to be called otherwise.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    /// What it is called.
    #[schemars(length(max = 200))]
    pub(crate) name: String,
    /// What it is to be called.
    #[schemars(length(max = 200))]
    pub(crate) to: String,
}

/// A repository.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    /// What it is called.
    #[schemars(length(max = 200))]
    pub(crate) name: String,
}

/// What is to be set of a repository; what is left out stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configure {
    /// What it is called.
    #[schemars(length(max = 200))]
    pub(crate) name: String,
    /// What it is, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub(crate) description: Option<String>,
    /// Whether it may be read without any grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) public: Option<bool>,
    /// The branch that clones begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub(crate) default_branch: Option<String>,
    /// Branches or refs, or beginnings of refs and a *, that are to be protected: neither
    /// deleted nor moved to anything but a descendant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub(crate) protect: Vec<String>,
    /// Those that are to be protected no more, as they were given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub(crate) unprotect: Vec<String>,
    /// How large it may grow, in bytes; 0 is what holds for all repositories of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<u64>,
    /// Whether large files may be stored beside it (Git LFS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lfs: Option<bool>,
}

/// Where the content of a repository is to come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MirrorOf {
    /// What it is called. It is made if it is not there.
    #[schemars(length(max = 200))]
    pub(crate) name: String,
    /// Where from: https://HOST/PATH, or http://, git:// or ssh://, without a password, or, on
    /// the node itself, alknet://NODE/NAME. Left out, it looks for news now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub(crate) url: Option<String>,
    /// How often it looks for news; every hour if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) every: Option<Span>,
    /// Let it be a mirror no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stop: bool,
}

/// A change was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdminError {
    /// There is no such name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It is no pattern of refs.
    #[error(transparent)]
    Pattern(#[from] InvalidRefPattern),
    /// Nothing can be fetched from there.
    #[error(transparent)]
    Url(#[from] InvalidMirrorUrl),
    /// The repositories, or one of them, cannot be used so.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Done {
    /// As it is now, unless it is gone.
    pub(crate) repository: Option<Repository>,
    /// What is told to who listens, with the name that it is about.
    pub(crate) event: (EventKind, RepositoryName),
    /// What the audit log has.
    pub(crate) entry: AuditEvent,
}

impl Done {
    fn new(
        event: (EventKind, &'static str),
        name: &RepositoryName,
        repository: Option<Repository>,
        reason: Option<String>,
    ) -> Self {
        let (kind, event) = event;
        let about = Some(name.to_string());
        let entry = AuditEvent { event, repository: about, reason, ..AuditEvent::default() };
        // A repository that moved is told of by its new name.
        let told = repository.as_ref().map_or(name, |repository| &repository.name).clone();
        Self { repository, event: (kind, told), entry }
    }
}

/// Makes a repository. Waits for the disk, as all of these do.
pub(crate) fn create(all: &Repositories, wanted: &Create) -> Result<Done, AdminError> {
    let name: RepositoryName = wanted.name.parse()?;
    let mut settings = Settings::default();
    settings.description = wanted.description.clone().unwrap_or_default();
    settings.public = wanted.public;
    let branch = wanted.default_branch.as_deref().unwrap_or(&all.defaults().branch);
    let made = all.create_with_branch(&name, &settings, branch)?;
    let reason = wanted.public.then(|| "public".to_owned());
    Ok(Done::new((EventKind::Created, "git-create"), &name, Some(made), reason))
}

/// Gives it another name.
pub(crate) fn rename(all: &Repositories, wanted: &Rename) -> Result<Done, AdminError> {
    let (name, to) = (wanted.name.parse()?, wanted.to.parse()?);
    let renamed = all.rename(&name, &to)?;
    let reason = Some(format!("to {to}"));
    Ok(Done::new((EventKind::Renamed, "git-rename"), &name, Some(renamed), reason))
}

/// Removes it.
pub(crate) fn delete(all: &Repositories, wanted: &Named) -> Result<Done, AdminError> {
    let name = wanted.name.parse()?;
    all.delete(&name)?;
    Ok(Done::new((EventKind::Deleted, "git-delete"), &name, None, None))
}

/// How large the quota may become that somebody sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// As large as they like: the disk is theirs.
    None,
    /// As large as the node's own.
    Node,
    /// As large as it is now.
    Present,
}

impl Bound {
    /// Refuses a quota, as repositories have it of their own, beyond the bound.
    fn check(
        self,
        all: &Repositories,
        present: Option<u64>,
        wanted: Option<u64>,
    ) -> Result<(), InvalidSettings> {
        let effective = |own: Option<u64>| own.or_else(|| all.defaults().quota).unwrap_or(u64::MAX);
        let most = match self {
            Self::None => return Ok(()),
            Self::Node => effective(None),
            Self::Present => effective(None).min(effective(present)),
        };
        match effective(wanted) > most {
            true => Err(InvalidSettings::Quota(most)),
            false => Ok(()),
        }
    }
}

/// Changes its settings.
pub(crate) fn configure(
    all: &Repositories,
    wanted: &Configure,
    bound: Bound,
) -> Result<Done, AdminError> {
    let name = wanted.name.parse()?;
    let patterns = |texts: &[String]| -> Result<Vec<RefPattern>, InvalidRefPattern> {
        texts.iter().map(|text| text.parse()).collect()
    };
    let (protect, unprotect) = (patterns(&wanted.protect)?, patterns(&wanted.unprotect)?);
    let branch = wanted.default_branch.as_deref();
    let configured = all.configure_if(&name, branch, |settings| {
        if let Some(description) = &wanted.description {
            settings.description.clone_from(description);
        }
        settings.public = wanted.public.unwrap_or(settings.public);
        settings.lfs = wanted.lfs.unwrap_or(settings.lfs);
        if let Some(quota) = wanted.quota {
            let own = Some(quota).filter(|quota| *quota > 0);
            bound.check(all, settings.quota, own)?;
            settings.quota = own;
        }
        settings.protected.retain(|pattern| !unprotect.contains(pattern));
        for pattern in protect {
            if !settings.protected.contains(&pattern) {
                settings.protected.push(pattern);
            }
        }
        Ok(())
    })?;
    let reason = Some(wanted.summary());
    Ok(Done::new((EventKind::Settings, "git-configure"), &name, Some(configured), reason))
}

impl Configure {
    /// What is set, for the audit log.
    fn summary(&self) -> String {
        let list = |verb: &str, refs: &[String]| {
            (!refs.is_empty()).then(|| format!("{verb} {}", refs.join(" ")))
        };
        let parts = [
            self.description.as_ref().map(|_| "description".to_owned()),
            self.public.map(|public| if public { "public" } else { "private" }.to_owned()),
            self.default_branch.as_ref().map(|branch| format!("default branch {branch}")),
            list("protect", &self.protect),
            list("unprotect", &self.unprotect),
            self.quota.map(|bytes| format!("quota {bytes}")),
            self.lfs.map(|lfs| format!("lfs {lfs}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Makes it a mirror of an address, or a mirror no more. One that is not there is made, as a
/// mirror from the first, if it `may_make` any. Who asks it to look for news asks a
/// [`Keeper`](alknet_git::Keeper).
pub(crate) fn mirror(
    all: &Repositories,
    wanted: &MirrorOf,
    credentials: Option<CredentialsFile>,
    may_make: bool,
) -> Result<Done, AdminError> {
    let name: RepositoryName = wanted.name.parse()?;
    let mirror = match &wanted.url {
        Some(url) if !wanted.stop => {
            let mut mirror = Mirror::new(url.parse()?);
            if let Some(every) = wanted.every {
                mirror = mirror.every(every.into());
            }
            match credentials {
                Some(file) => Some(mirror.with_credentials(file)),
                None => Some(mirror),
            }
        }
        _ => None,
    };
    let reason = match &mirror {
        Some(mirror) => format!("a mirror of {}", mirror.url),
        None => "no mirror".into(),
    };
    if mirror.is_some() && may_make && all.get(&name)?.is_none() {
        let mut settings = Settings::default();
        settings.mirror.clone_from(&mirror);
        match all.create(&name, &settings) {
            // Somebody else was faster.
            Err(RepositoryError::Exists(_)) => {}
            made => {
                let made = Some(made?);
                let event = (EventKind::Created, "git-create");
                return Ok(Done::new(event, &name, made, Some(reason)));
            }
        }
    }
    let set = all.set_mirror(&name, mirror)?;
    Ok(Done::new((EventKind::Settings, "git-configure"), &name, Some(set), Some(reason)))
}

/// A repository, as those see it who look after it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Shown {
    /// What it is called.
    pub(crate) name: String,
    /// What it is, in a line.
    pub(crate) description: String,
    /// Whether it may be read without any grant.
    pub(crate) public: bool,
    /// The branch that clones begin with, which need not be there yet.
    pub(crate) default_branch: Option<String>,
    /// Whether it has no refs.
    pub(crate) empty: bool,
    /// How many bytes its files have, as of a moment ago.
    pub(crate) size: u64,
    /// When refs of it were changed for the last time, in seconds since 1970.
    pub(crate) updated: i64,
    /// Which refs are protected.
    pub(crate) protected: Vec<String>,
    /// How large it may grow, in bytes.
    pub(crate) quota: Option<u64>,
    /// Whether large files may be stored beside it.
    pub(crate) lfs: bool,
    /// Where its content comes from, if it is a mirror.
    pub(crate) mirror: Option<ShownMirror>,
}

/// Where the content of a repository comes from, and how that goes. Times are seconds since
/// 1970.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ShownMirror {
    /// Where from.
    pub(crate) url: String,
    /// How often it looks for news, in seconds.
    pub(crate) every: u64,
    /// When it looked for the last time.
    pub(crate) last_attempt: Option<i64>,
    /// When it did so with success.
    pub(crate) last_success: Option<i64>,
    /// Why the last look failed.
    pub(crate) last_error: Option<String>,
    /// How many looks have failed since the last success.
    pub(crate) failures: u32,
    /// When it looks again.
    pub(crate) next: i64,
}

/// A repository as it is now. Waits for the disk.
pub(crate) fn shown(all: &Repositories, one: &Repository) -> Result<Shown, RepositoryError> {
    let Overview { default_branch, empty, size, updated, .. } = all.overview(one)?;
    let Settings { description, public, protected, quota, lfs, mirror, .. } = one.settings.clone();
    let status = all.mirror_status(one)?;
    let mirror = mirror.map(|mirror| ShownMirror {
        url: mirror.url.to_string(),
        every: mirror.every.as_secs(),
        last_attempt: status.last_attempt,
        last_success: status.last_success,
        last_error: status.last_error,
        failures: status.failures,
        next: status.next,
    });
    Ok(Shown {
        name: one.name.to_string(),
        description,
        public,
        default_branch,
        empty,
        size,
        updated,
        protected: protected.iter().map(ToString::to_string).collect(),
        quota,
        lfs,
        mirror,
    })
}
