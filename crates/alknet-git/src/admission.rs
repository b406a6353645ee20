//! Who may have an exchange, and what an exchange begins and ends with.

#[cfg(test)]
mod tests;

use std::{
    ops::Deref,
    os::unix::process::ExitStatusExt as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use alknet_core::{AuthContext, AuthMethod, Login};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Bounds, EngineError, Exchange, Framing},
    push::{Gate, Guard, Lease, Progress, clean_locks_of},
    repositories::{Repository, RepositoryError, Settings, files::Folder},
    request::{Request, Service},
    server::{Caller, GitError, GitServer, blocking},
    slots::{Slot, Who},
};

/// When a caller who may not know of a repository is told that there is none: later than any
/// disk takes to say whether there is.
const UNSEEN: Duration = Duration::from_millis(20);
/// How often it is tried to make a repository that comes and goes.
const TRIES: usize = 3;

/// A repository that a caller may have an exchange with, and the room for it. Only
/// [`GitServer::admit`] makes one. Dropped without an exchange, it leaves nothing behind.
#[derive(Debug)]
pub struct Admitted {
    repository: Repository,
    /// Its folder, whatever takes its name.
    folder: Arc<Folder>,
    caller: Caller,
    login: Option<Login>,
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

impl Admitted {
    /// Its open folder.
    pub(crate) fn folder(&self) -> Arc<Folder> {
        self.folder.clone()
    }

    /// Does something for the caller to its end, unless the credential of their request holds
    /// no more by then. As cancel safe as that.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, GitError> {
        let login = self.login.as_ref();
        let done = tokio::select! {
            done = work => Some(done),
            () = over(login) => None,
        };
        done.filter(|_| !login.is_some_and(Login::is_revoked)).ok_or(GitError::Ended)
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
        let mut lease = match request.service {
            Service::ReceivePack => Some(self.0.tenants.enter(&request.repository).await),
            Service::UploadPack | Service::UploadArchive => None,
        };
        let mut there = self.look(request, caller).await?;
        let login = login(caller)?;
        let slot = self.0.slots.take(who(caller), self.limits().patience).await;
        let slot = slot.map_err(|_| GitError::Busy)?;
        for _ in 0..TRIES {
            if let Some((repository, folder)) = there {
                let (folder, caller) = (Arc::new(folder), caller.clone());
                return Ok(Admitted { repository, folder, caller, login, slot, lease });
            }
            lease = self.make(request, lease).await?;
            // Somebody else may have made it, and have said more of it.
            there = self.look(request, caller).await?;
        }
        Err(RepositoryError::Exists(request.repository.clone()).into())
    }

    /// The repository, if the caller may have of it what they ask for; `None`: they may make
    /// it.
    async fn look(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Option<(Repository, Folder)>, GitError> {
        let (name, rights) = (&request.repository, caller.rights());
        let pushes = request.service == Service::ReceivePack;
        let there = {
            let (repositories, name) = (self.repositories().clone(), name.clone());
            blocking(move || repositories.get_open(&name)).await
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
        let Some((repository, folder)) = there else {
            return if may_make { Ok(None) } else { Err(GitError::NotFound(name.clone())) };
        };
        match (rights.read(name) || repository.settings.public, rights.push(name)) {
            (false, _) => Err(GitError::NotFound(name.clone())),
            (true, false) if pushes => Err(GitError::Forbidden(name.clone())),
            _ if pushes && repository.settings.mirror.is_some() => {
                Err(GitError::Mirror(name.clone()))
            }
            _ => Ok(Some((repository, folder))),
        }
    }

    /// Makes the repository, unless there is one. The lease goes along, so that a caller who
    /// does not wait leaves nothing behind.
    async fn make(
        &self,
        request: &Request,
        lease: Option<Lease>,
    ) -> Result<Option<Lease>, GitError> {
        let (repositories, name) = (self.repositories().clone(), request.repository.clone());
        blocking(move || match repositories.create(&name, &Settings::default()) {
            Ok(repository) => {
                lease.iter().for_each(|lease| lease.made(&repository.path));
                Ok(lease)
            }
            Err(RepositoryError::Exists(_)) => Ok(lease),
            Err(error) => Err(error),
        })
        .await
    }

    /// Serves an exchange, or a part of one, that [`admit`](Self::admit) has let in, and ends
    /// `output`. Fetches and pushes are recorded. An error of `input` tells that the client is
    /// gone, its end only that it has said all. Dropped before its end, the exchange stops, and
    /// what it has begun is taken back; but a push goes on whose refs may have changed.
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
        let guarded = request.service == Service::ReceivePack && framing != Framing::Advertisement;
        let guard = match guarded {
            true => Some(Arc::new(self.guard(&admitted)?)),
            false => None,
        };
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
            ending: self.0.ending.clone(),
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

    fn guard(&self, admitted: &Admitted) -> Result<Guard, GitError> {
        let Admitted { repository, folder, caller, lease, .. } = admitted;
        let folder = folder.id().map_err(|error| repository.failed(error))?;
        Ok(Guard {
            repositories: self.repositories().clone(),
            repository: repository.clone(),
            folder,
            identities: self.0.config.identities.clone(),
            caller: caller.clone(),
            news: lease.as_ref().and_then(Lease::news),
            hooks: self.0.config.hooks.clone(),
            largest: self.limits().object,
            record: self.0.record.clone(),
            progress: Mutex::<Progress>::default(),
        })
    }

    async fn serve_admitted(
        self,
        exchange: Exchange,
        admitted: Admitted,
        guard: Option<Arc<Guard>>,
    ) -> Result<(), EngineError> {
        let (service, framing, traffic) =
            (exchange.service, exchange.framing, exchange.traffic.clone());
        let stop = exchange.stop.clone();
        let mut serving = self.0.config.engine.serve(exchange);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = over(admitted.login.as_ref()) => {
                stop.cancel();
                serving.await
            }
        };
        if service != Service::ReceivePack && framing != Framing::Advertisement {
            let (caller, name) = (&admitted.caller, &admitted.repository.name);
            let failure = ended.as_ref().err().map(ToString::to_string);
            self.0.record.fetched(caller, name, service, &traffic, failure);
        }
        let Admitted { repository, slot, lease, login, .. } = admitted;
        let repositories = self.repositories().clone();
        if let Some(lease) = lease {
            let (failed, killed) = (ended.is_err(), ended.as_ref().is_err_and(is_killed));
            let settle = spawn_blocking(move || {
                if let Some(guard) = guard {
                    guard.finish();
                    let (changed, signed) = guard.outcome();
                    lease.came_to(changed, signed);
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
        drop((slot, login));
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

/// The login of a caller whose credential came with a request of HTTP, which nobody else looks
/// after: other connections end, and their exchanges with them, when their login is over.
fn login(caller: &Caller) -> Result<Option<Login>, GitError> {
    let AuthContext { method, transport, session, .. } = &caller.auth;
    let of_request = matches!(method, AuthMethod::Bearer | AuthMethod::Concealed);
    let identity = caller.identity.clone().filter(|_| of_request && !transport.is_tunnelled());
    let login = identity.map(|identity| session.login(identity)).transpose();
    login.map_err(|_| GitError::Busy)
}

/// Waits until a login does not hold any more; for ever if there is none.
async fn over(login: Option<&Login>) {
    match login {
        Some(login) => login.revoked().await,
        None => std::future::pending().await,
    }
}

/// For whom exchanges are counted together.
pub(crate) fn who(caller: &Caller) -> Who {
    match &caller.identity {
        Some(identity) => Who::Identity(identity.id.clone()),
        None => Who::stranger(caller.auth.remote_addr.map(|address| address.ip())),
    }
}
