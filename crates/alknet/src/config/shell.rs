//! Shells that outlive their connections.

use std::{num::NonZeroU32, time::Duration};

use alknet_shell::ShellLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Span;

/// Shells that outlive their connections; see alknet sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shell {
    /// Sessions of one identity.
    pub(crate) sessions: NonZeroU32,
    /// Viewers of one session, those that are away among them.
    pub(crate) viewers: NonZeroU32,
    /// How long a session goes on that nobody looks at; 0s is for ever.
    pub(crate) detached: Span,
}

impl Default for Shell {
    fn default() -> Self {
        Self { sessions: super::count(16), viewers: super::count(16), detached: Span::seconds(0) }
    }
}

impl Shell {
    /// As the sessions take them.
    pub(crate) fn limits(&self) -> ShellLimits {
        let size = |count: NonZeroU32| usize::try_from(count.get()).unwrap_or(usize::MAX);
        let mut limits = ShellLimits::default();
        limits.sessions = size(self.sessions);
        limits.viewers = size(self.viewers);
        let detached = Duration::from(self.detached);
        limits.detached = (!detached.is_zero()).then_some(detached);
        limits
    }
}
