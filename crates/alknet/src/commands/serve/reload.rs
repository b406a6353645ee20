//! What a running node does when its configuration may have changed.

use std::time::Duration;

use tokio::sync::Mutex;

use super::Flags;
use crate::{
    config::{Config, Difference},
    control::Reloaded,
    failure::Failure,
    home::Home,
    live::Live,
    node::Settings,
};

/// Reads the configuration again and lets the node follow it.
#[derive(Debug)]
pub(crate) struct Reloader {
    home: Home,
    flags: Flags,
    live: Live,
    /// What the file said when the node started: keys that need a restart still hold.
    started: Config,
    /// What the file said last: the other keys hold.
    applied: Mutex<Config>,
}

impl Reloader {
    /// For a node that was started with `started`, as the file says it.
    pub(super) fn new(home: &Home, flags: Flags, live: Live, started: Config) -> Self {
        let applied = Mutex::new(started.clone());
        Self { home: home.clone(), flags, live, started, applied }
    }

    /// Takes over what can be, one call after the other. On an error nothing has changed,
    /// nor if the future is dropped.
    pub(crate) async fn reload(&self) -> Result<Reloaded, Failure> {
        let mut applied = self.applied.lock().await;
        let new = Config::load_checked(&self.home).await?;
        let Difference { live, fixed } = new.difference(&self.started, &applied)?;
        let overridden = |key: &String| self.flags.hold(key);
        let (overridden, mut changed) = live.into_iter().partition::<Vec<_>, _>(overridden);
        let (fixed_overridden, restart) =
            fixed.into_iter().partition::<Vec<_>, _>(|key| self.flags.hold(key));
        let certificate_changed = self.live.apply(&self.settings(new.clone())).await?;
        let certificate = "certificate".to_owned();
        if certificate_changed && !changed.contains(&certificate) {
            changed.push(certificate);
        }
        *applied = new;
        Ok(Reloaded { changed, restart, overridden: [overridden, fixed_overridden].concat() })
    }

    /// Reloads for somebody who waits for no answer: it goes to the log.
    pub(super) async fn reload_and_log(&self) {
        match self.reload().await {
            Ok(reloaded) => tracing::info!("read the configuration again: {reloaded}"),
            Err(failure) => tracing::error!(
                "the configuration is wrong, and the old one still holds: {}",
                failure.message()
            ),
        }
    }

    /// What holds now, and the keys whose values in the file wait for a restart.
    pub(crate) async fn in_effect(&self) -> Result<(Config, Vec<String>), Failure> {
        let applied = self.applied.lock().await;
        let Difference { fixed, .. } = applied.difference(&self.started, &applied)?;
        let waiting = fixed.into_iter().filter(|key| !self.flags.hold(key)).collect();
        Ok((self.flags.over(applied.in_effect(&self.started)?), waiting))
    }

    /// How long a shutdown waits for sessions.
    pub(super) async fn drain(&self) -> Duration {
        self.flags.over(self.applied.lock().await.clone()).drain.into()
    }

    /// What the node follows: what cannot change is as it was at the start.
    fn settings(&self, new: Config) -> Settings {
        let cover = self.started.cover;
        self.flags.settings(Config { cover, ..new })
    }
}
