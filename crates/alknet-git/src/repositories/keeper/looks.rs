//! Mirrors that are looking for news.

use std::{collections::HashMap, future::pending};

use tokio::task::{Id, JoinSet};

use crate::name::RepositoryName;

/// Looks in progress, and of whom they are. Dropped, it ends them.
#[derive(Debug, Default)]
pub(super) struct Looks {
    tasks: JoinSet<()>,
    names: HashMap<Id, RepositoryName>,
}

impl Looks {
    /// Whether this one looks already.
    pub(super) fn has(&self, name: &RepositoryName) -> bool {
        self.names.values().any(|it| it == name)
    }

    pub(super) fn begin(
        &mut self,
        name: RepositoryName,
        look: impl Future<Output = ()> + Send + 'static,
    ) {
        self.names.insert(self.tasks.spawn(look).id(), name);
    }

    /// Waits until one ends, by a panic too; for ever where there is none. Cancel safe.
    pub(super) async fn ended(&mut self) {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return pending().await,
        };
        self.names.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mirror_looks_again_after_a_look_that_went_wrong() {
        let name: RepositoryName = "a".parse().unwrap();
        let mut looks = Looks::default();
        looks.begin(name.clone(), async { panic!("this one is meant") });
        assert!(looks.has(&name) && !looks.has(&"b".parse().unwrap()));
        looks.ended().await;
        assert!(!looks.has(&name));
        looks.begin(name.clone(), async {});
        looks.ended().await;
        assert!(!looks.has(&name) && looks.names.is_empty());
    }
}
