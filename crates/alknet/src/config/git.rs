//! Git repositories that the node hosts.

use std::{num::NonZeroU32, path::Path};

use alknet_git::{Bounds, Defaults, GitLimits, MirrorPolicy};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FilePath, Network, Size, Span};

/// Git repositories; see alknet git.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Git {
    /// The folder of the repositories; without it, the folder repos of the state folder.
    #[schemars(example = &"/srv/git")]
    pub(crate) folder: Option<FilePath>,
    /// A folder with programs pre-receive, update and post-receive, which are run for pushes
    /// to every repository, and below a folder of its name for one. Nobody but the owner of the
    /// node may be able to change them.
    #[schemars(example = &"git-hooks")]
    pub(crate) hooks: Option<FilePath>,
    /// How long each of them may take.
    pub(crate) hook_deadline: Span,
    /// Whose signatures of pushes are verified: a file of allowed signers, as ssh-keygen has it.
    #[schemars(example = &"allowed_signers")]
    pub(crate) allowed_signers: Option<FilePath>,
    /// Whether repositories may be public: read without any grant.
    pub(crate) public: bool,
    /// The default branch of a new repository.
    pub(crate) default_branch: String,
    /// How large a repository may grow that has no quota of its own.
    #[schemars(example = &"10GiB")]
    pub(crate) quota: Option<Size>,
    /// The largest pack that is pushed.
    pub(crate) largest_push: Size,
    /// The largest object that is pushed, once it is unpacked.
    pub(crate) largest_object: Size,
    /// Fetches and pushes in progress over the whole node.
    pub(crate) exchanges: NonZeroU32,
    /// Fetches and pushes in progress of one identity, or of one address that has none.
    pub(crate) exchanges_per_identity: NonZeroU32,
    /// How long a fetch or a push may take.
    pub(crate) deadline: Span,
    /// How long nothing may be carried meanwhile.
    pub(crate) idle: Span,
    /// How much memory each process of git may take, without the files that it maps.
    pub(crate) memory: Size,
    /// Collect garbage after pushes, when there is enough, and all of it a week after the last
    /// time. What nothing has led to for two weeks goes then.
    pub(crate) automatic_gc: bool,
    /// Write a bundle of each repository when all of its garbage is collected, from which clones
    /// over HTTPS begin where the client has transfer.bundleURI. It takes as much room as the
    /// repository.
    pub(crate) bundles: bool,
    /// Networks that mirrors may fetch from beside the public Internet. Nothing on this machine
    /// or in a private network is fetched from unless it is named here.
    #[schemars(example = ["10.0.0.0/8"])]
    pub(crate) mirror_networks: Vec<Network>,
    /// The shortest time between two looks of a mirror for news.
    pub(crate) mirror_interval: Span,
    /// How long a mirror may take to fetch.
    pub(crate) mirror_deadline: Span,
    /// How many mirrors fetch at a time.
    pub(crate) mirrors_at_once: NonZeroU32,
}

impl Default for Git {
    fn default() -> Self {
        Self {
            folder: None,
            hooks: None,
            hook_deadline: Span::seconds(5 * 60),
            allowed_signers: None,
            public: true,
            default_branch: "main".into(),
            quota: None,
            largest_push: Size::mebibytes(16 << 10),
            largest_object: Size::mebibytes(2 << 10),
            exchanges: super::count(64),
            exchanges_per_identity: super::count(16),
            deadline: Span::seconds(12 * 60 * 60),
            idle: Span::seconds(10 * 60),
            memory: Size::mebibytes(2 << 10),
            automatic_gc: true,
            bundles: false,
            mirror_networks: Vec::new(),
            mirror_interval: Span::seconds(5 * 60),
            mirror_deadline: Span::seconds(60 * 60),
            mirrors_at_once: super::count(2),
        }
    }
}

impl Git {
    /// A path in the file starts where the file is.
    pub(super) fn settle(&mut self, root: &Path) {
        let paths = [&mut self.folder, &mut self.hooks, &mut self.allowed_signers];
        paths.into_iter().flatten().for_each(|path| path.settle(root));
    }

    /// What holds for all repositories.
    pub(crate) fn defaults(&self) -> Defaults {
        let mut defaults = Defaults::default();
        defaults.branch.clone_from(&self.default_branch);
        defaults.quota = self.quota.map(Size::bytes);
        defaults.public = self.public;
        defaults
    }

    /// How much is served at once, and for how long.
    pub(crate) fn limits(&self) -> GitLimits {
        let mut bounds = Bounds::default();
        bounds.memory = self.memory.bytes();
        bounds.pack = self.largest_push.bytes();
        bounds.idle = self.idle.into();
        bounds.total = self.deadline.into();
        let mut limits = GitLimits::default();
        limits.all_exchanges = size(self.exchanges);
        limits.exchanges_per_caller = size(self.exchanges_per_identity);
        limits.object = self.largest_object.bytes();
        limits.bounds = bounds;
        limits
    }

    /// What mirrors may do.
    pub(crate) fn mirrors(&self) -> MirrorPolicy {
        let mut policy = MirrorPolicy::default();
        policy.networks = self.mirror_networks.iter().copied().map(IpNet::from).collect();
        policy.shortest = self.mirror_interval.into();
        policy.deadline = self.mirror_deadline.into();
        policy.at_once = size(self.mirrors_at_once);
        policy
    }
}

fn size(count: NonZeroU32) -> usize {
    usize::try_from(count.get()).unwrap_or(usize::MAX)
}
