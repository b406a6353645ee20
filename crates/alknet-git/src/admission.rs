//! Who may have an exchange, and what an exchange begins and ends with.

use std::{
    ops::Deref,
    os::unix::process::ExitStatusExt as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Bounds, EngineError, Exchange, Framing},
    push::{Gate, Guard, Lease, Progress, clean_locks_of},
    repositories::{Repository, Settings},
    request::{Request, Service},
    server::{Caller, GitError, GitServer, blocking},
    slots::{Slot, Who},
};

/// When a caller who may not know of a repository is told that there is none: later than any
/// disk takes to say whether there is.
const UNSEEN: Duration = Duration::from_millis(20);

/// A repository that a caller may have an exchange with, and the room for it. Only
/// [`GitServer::admit`] makes one. Dropped without an exchange, it leaves nothing behind.
#[derive(Debug)]
pub struct Admitted {
    repository: Repository,
    caller: Caller,
    slot: Slot,
    /// Of a push.
    lease: Option<Lease>,
}

impl Deref for Admitted {
    type Target = Repository;

    fn deref(&self) -> &Repository {
        &self.repository
    }
}

impl GitServer {
    /// Lets a caller have what a request asks for, if they may, once there is room for it. A
    /// push makes the repository where the caller may; it goes again if nothing is pushed to
    /// it. A refusal is in the audit log. Cancel safe.
    ///
    /// Whoever may not know of a repository is refused as if there were none, at the same time.
    pub async fn admit(&self, request: &Request, caller: &Caller) -> Result<Admitted, GitError> {
        let begun = Instant::now();
        let admitted = self.let_in(request, caller).await;
        if let Err(error) = &admitted {
            if let GitError::NotFound(_) = error {
                sleep_until(begun + UNSEEN).await;
            }
            let (name, why) = (&request.repository, error.to_string());
            self.0.record.refused(caller, name, request.service, &why);
        }
        admitted
    }

    async fn let_in(&self, request: &Request, caller: &Caller) -> Result<Admitted, GitError> {
        let (name, rights) = (&request.repository, caller.rights());
        let pushes = request.service == Service::ReceivePack;
        let lease = match pushes {
            true => Some(self.0.tenants.enter(name).await),
            false => None,
        };
        let there = {
            let (repositories, name) = (self.repositories().clone(), name.clone());
            blocking(move || repositories.get(&name)).await
        };
        let there = match there {
            // That it fails tells that it is there.
            Err(error) if !rights.read(name) => {
                tracing::warn!(%name, %error, "a repository cannot be read");
                return Err(GitError::NotFound(name.clone()));
            }
            there => there?,
        };
        let may_make = pushes && rights.create(name) && rights.push(name);
        if let Some(repository) = &there {
            match (rights.read(name) || repository.settings.public, rights.push(name)) {
                (false, _) => return Err(GitError::NotFound(name.clone())),
                (true, false) if pushes => return Err(GitError::Forbidden(name.clone())),
                _ if pushes && repository.settings.mirror.is_some() => {
                    return Err(GitError::Mirror(name.clone()));
                }
                _ => {}
            }
        } else if !may_make {
            return Err(GitError::NotFound(name.clone()));
        }
        let slot = self.0.slots.take(who(caller), self.limits().patience).await;
        let slot = slot.map_err(|_| GitError::Busy)?;
        let (repository, lease) = match there {
            Some(repository) => (repository, lease),
            None => self.make(request, lease).await?,
        };
        Ok(Admitted { repository, caller: caller.clone(), slot, lease })
    }

    /// The lease goes along, so that a caller who does not wait leaves nothing behind.
    async fn make(
        &self,
        request: &Request,
        lease: Option<Lease>,
    ) -> Result<(Repository, Option<Lease>), GitError> {
        let (repositories, name) = (self.repositories().clone(), request.repository.clone());
        blocking(move || {
            let repository = repositories.create(&name, &Settings::default())?;
            lease.iter().for_each(|lease| lease.made(&repository.path));
            Ok((repository, lease))
        })
        .await
    }

    /// Serves an exchange, or a part of one, that [`admit`](Self::admit) has let in, and ends
    /// `output`. Fetches and pushes are recorded. An error of `input` tells that the client is
    /// gone, its end only that it has said all. Dropped before its end, the exchange stops, and
    /// what it has begun is taken back.
    pub async fn exchange(
        &self,
        request: &Request,
        admitted: Admitted,
        framing: Framing,
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), GitError> {
        let stop = CancellationToken::new();
        let _stops = stop.clone().drop_guard();
        let guard = (request.service == Service::ReceivePack && framing != Framing::Advertisement)
            .then(|| Arc::new(self.guard(&admitted)));
        let exchange = Exchange {
            service: request.service,
            framing,
            version: request.version,
            repository: admitted.repository.path.clone(),
            input: Box::new(input),
            output: Box::new(output),
            gate: guard.clone().map(|guard| guard as Arc<dyn Gate>),
            bounds: self.bounds(&admitted.repository.settings),
            traffic: Arc::default(),
            stop,
        };
        let served = self.clone().serve_admitted(exchange, admitted, guard);
        let done = self.0.tasks.spawn(served).await;
        Ok(done.map_err(|_| GitError::Interrupted)??)
    }

    /// A pack that is larger than all that a repository may have need not arrive.
    fn bounds(&self, settings: &Settings) -> Bounds {
        let bounds = self.limits().bounds.clone();
        let pack = settings.quota.unwrap_or(u64::MAX).clamp(1, bounds.pack.max(1));
        Bounds { pack, ..bounds }
    }

    fn guard(&self, admitted: &Admitted) -> Guard {
        let Admitted { repository, caller, lease, .. } = admitted;
        Guard {
            repository: repository.clone(),
            caller: caller.clone(),
            news: lease.as_ref().and_then(Lease::news),
            hooks: self.0.config.hooks.clone(),
            largest: self.limits().object,
            record: self.0.record.clone(),
            progress: Mutex::<Progress>::default(),
        }
    }

    async fn serve_admitted(
        self,
        exchange: Exchange,
        admitted: Admitted,
        guard: Option<Arc<Guard>>,
    ) -> Result<(), EngineError> {
        let (service, framing, traffic) =
            (exchange.service, exchange.framing, exchange.traffic.clone());
        let ended = self.0.config.engine.serve(exchange).await;
        if service != Service::ReceivePack && framing != Framing::Advertisement {
            let (caller, name) = (&admitted.caller, &admitted.repository.name);
            let failure = ended.as_ref().err().map(ToString::to_string);
            self.0.record.fetched(caller, name, service, &traffic, failure);
        }
        let Admitted { repository, slot, lease, .. } = admitted;
        let repositories = self.repositories().clone();
        if let Some(lease) = lease {
            let (failed, killed) = (ended.is_err(), ended.as_ref().is_err_and(is_killed));
            let settle = spawn_blocking(move || {
                if let Some(guard) = guard {
                    guard.finish();
                    if killed {
                        // Neither another push nor a collection is at work.
                        let collection = repositories.hold_off_collection(&repository.name);
                        let alone = collection.is_some() && lease.is_alone();
                        clean_locks_of(&repository.path, &guard.refs(), alone);
                    }
                }
                if failed {
                    lease.disturbed(&repository.path);
                }
            });
            // A panic there is of no concern to the client.
            let _ = settle.await;
        }
        drop(slot);
        ended
    }
}

/// Whether the engine may have had no time to take back what it had begun.
fn is_killed(error: &EngineError) -> bool {
    match error {
        EngineError::Failed { status, .. } => status.signal().is_some(),
        EngineError::NoHooks => false,
        _ => true,
    }
}

/// For whom exchanges are counted together.
pub(crate) fn who(caller: &Caller) -> Who {
    match &caller.identity {
        Some(identity) => Who::Identity(identity.id.clone()),
        None => Who::stranger(caller.auth.remote_addr.map(|address| address.ip())),
    }
}
