//! The API of Git LFS: batches, the basic transfer, and locks.

mod json;

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Query, Request},
    http::{HeaderValue, Method, StatusCode, Uri, header, uri::Authority},
    response::Response,
};
use futures_util::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{error::Elapsed, timeout};

use self::json::{
    Action, Actions, Batch, Done, Fault, Lock, Locked, LockedOnes, Message, Object, Operation,
    OursAndTheirs, Outcome, ToList, ToLock, ToUnlock, ToVerify,
};
use super::{Asks, PREFIX, file, path::LfsTarget, refusal::Refusal, uncached};
use crate::{
    RepositoryName,
    lfs::{
        MAX_BATCH, Verdict,
        locks::{Filter, Unlocked},
        objects::Oid,
        root::path_of,
    },
};

/// What requests and answers are.
const JSON: &str = "application/vnd.git-lfs+json";
/// The longest request in JSON, in bytes, and how long it may take.
const MAX_JSON: usize = 1024 * 1024;
const JSON_TIME: Duration = Duration::from_secs(60);

impl Asks {
    pub(super) async fn lfs(
        &self,
        repository: RepositoryName,
        target: LfsTarget,
        request: Request,
    ) -> Result<Response, Refusal> {
        let answered = match target {
            LfsTarget::Batch => self.batch(repository, request).await,
            LfsTarget::Object(oid) => self.object(repository, oid, request).await,
            LfsTarget::Verify => self.verify(repository, request).await,
            LfsTarget::Locks if request.method() == Method::GET => {
                self.locks(repository, request.uri()).await
            }
            LfsTarget::Locks => self.lock(repository, request).await,
            LfsTarget::VerifyLocks => self.locks_of_both(repository, request).await,
            LfsTarget::Unlock(id) => self.unlock(repository, id, request).await,
        };
        match answered {
            Err(Refusal::Status(status, message)) => Ok(said(status, message)),
            Err(Refusal::Forbidden) if self.caller.identity.is_some() => {
                Ok(said(StatusCode::FORBIDDEN, "you may not push to this repository"))
            }
            answered => answered,
        }
    }

    async fn batch(&self, name: RepositoryName, request: Request) -> Result<Response, Refusal> {
        let base = base(&name, &request);
        let batch: Batch = self.posted(&name, request).await?;
        let upload = batch.operation == Operation::Upload;
        let lfs = self.server.lfs(&name, upload, &self.caller).await?;
        if batch.hash_algo.is_some_and(|algorithm| algorithm != "sha256") {
            return Err(Refusal::Status(
                StatusCode::CONFLICT,
                "objects are named by their SHA-256",
            ));
        }
        if batch.transfers.is_some_and(|ways| !ways.iter().any(|way| way == "basic")) {
            return Err(unprocessable("only the basic transfer is served"));
        }
        if batch.objects.len() > MAX_BATCH {
            let message = "too many objects at once";
            return Err(Refusal::Status(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        let base = base.ok_or_else(no_host)?;
        let wanted: Option<Vec<(Oid, u64)>> =
            batch.objects.iter().map(|o| Some((o.oid.parse().ok()?, o.size))).collect();
        let wanted = wanted.ok_or_else(|| unprocessable("objects are named by their SHA-256"))?;
        let verdicts = lfs.judge(wanted.clone(), upload).await?;
        let objects = wanted.into_iter().zip(verdicts);
        let objects =
            objects.map(|((oid, size), verdict)| outcome(&base, &oid, size, verdict, upload));
        let (transfer, hash_algo) = ("basic", "sha256");
        Ok(json(StatusCode::OK, &Done { transfer, objects: objects.collect(), hash_algo }))
    }

    /// Sends or takes an object.
    async fn object(
        &self,
        name: RepositoryName,
        oid: Oid,
        request: Request,
    ) -> Result<Response, Refusal> {
        if *request.method() == Method::PUT {
            return self.take(name, oid, request).await;
        }
        self.only(Method::GET, &name, request.method()).await?;
        let lfs = self.server.lfs(&name, false, &self.caller).await?;
        match lfs.open(&oid).await? {
            Some((there, _)) => {
                let (path, limits) = (path_of(&there), self.server.limits());
                Ok(file::answer(&path, request, limits, Arc::default(), lfs).await)
            }
            None => Err(no_object()),
        }
    }

    async fn take(
        &self,
        name: RepositoryName,
        oid: Oid,
        request: Request,
    ) -> Result<Response, Refusal> {
        let lfs = self.server.lfs(&name, true, &self.caller).await?;
        if request.headers().contains_key(header::CONTENT_ENCODING) {
            let message = "an object is sent as it is";
            return Err(Refusal::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let size = request.headers().get(header::CONTENT_LENGTH);
        let size = size.and_then(|size| size.to_str().ok()?.parse().ok());
        let endless = Refusal::Status(StatusCode::LENGTH_REQUIRED, "an object has a length");
        let mut incoming = lfs.receive(&oid, size.ok_or(endless)?).await?;
        let mut pieces = request.into_body().into_data_stream();
        let arrival = async {
            while let Some(piece) = incoming.wait(pieces.next()).await? {
                let cut = |_| Refusal::Status(StatusCode::BAD_REQUEST, "the body was cut off");
                incoming.write(&piece.map_err(cut)?).await?;
            }
            Ok::<_, Refusal>(())
        };
        let arrival = timeout(self.server.limits().bounds.total, arrival);
        lfs.as_ref().during(arrival).await?.map_err(late)??;
        incoming.finish().await?;
        Ok(Response::new(Body::empty()))
    }

    async fn verify(&self, name: RepositoryName, request: Request) -> Result<Response, Refusal> {
        let object: Object = self.posted(&name, request).await?;
        let lfs = self.server.lfs(&name, true, &self.caller).await?;
        let oid = object.oid.parse().map_err(|_| no_object())?;
        match lfs.objects.size(&oid).await? {
            Some(size) if size == object.size => Ok(Response::new(Body::empty())),
            Some(_) => Err(unprocessable("the object has another size")),
            None => Err(no_object()),
        }
    }

    async fn locks(&self, name: RepositoryName, uri: &Uri) -> Result<Response, Refusal> {
        let lfs = self.server.lfs(&name, false, &self.caller).await?;
        let asked = Query::<ToList>::try_from_uri(uri);
        let Query(asked) = asked.map_err(|_| unprocessable("no such question about locks"))?;
        let (locks, next_cursor) = lfs.locks.list(asked.into()).await?;
        let locks = locks.into_iter().map(Lock::from).collect();
        Ok(json(StatusCode::OK, &LockedOnes { locks, next_cursor }))
    }

    async fn locks_of_both(
        &self,
        name: RepositoryName,
        request: Request,
    ) -> Result<Response, Refusal> {
        let asked: ToVerify = self.posted(&name, request).await?;
        let lfs = self.server.lfs(&name, true, &self.caller).await?;
        let (locks, next_cursor) = lfs.locks.list(Filter::from(asked)).await?;
        let caller = self.caller.identity.as_deref();
        let (ours, theirs): (Vec<_>, Vec<_>) =
            locks.into_iter().partition(|(_, lock)| lock.is_of(caller));
        let [ours, theirs] = [ours, theirs].map(|all| all.into_iter().map(Lock::from).collect());
        Ok(json(StatusCode::OK, &OursAndTheirs { ours, theirs, next_cursor }))
    }

    async fn lock(&self, name: RepositoryName, request: Request) -> Result<Response, Refusal> {
        let wanted: ToLock = self.posted(&name, request).await?;
        let lfs = self.server.lfs(&name, true, &self.caller).await?;
        let caller = self.caller.identity.as_deref().ok_or(Refusal::Forbidden)?;
        Ok(match lfs.locks.lock(wanted.path, caller).await? {
            Ok(made) => json(StatusCode::CREATED, &Locked { lock: made.into(), message: None }),
            Err(there) => {
                let message = Some("the file is locked already");
                json(StatusCode::CONFLICT, &Locked { lock: there.into(), message })
            }
        })
    }

    async fn unlock(
        &self,
        name: RepositoryName,
        id: String,
        request: Request,
    ) -> Result<Response, Refusal> {
        let ToUnlock { force } = self.posted(&name, request).await?;
        let lfs = self.server.lfs(&name, true, &self.caller).await?;
        let caller = self.caller.identity.as_deref().ok_or(Refusal::Forbidden)?;
        Ok(match lfs.locks.unlock(id, caller, force).await? {
            Unlocked::Done(lock) => {
                json(StatusCode::OK, &Locked { lock: lock.into(), message: None })
            }
            Unlocked::Theirs(lock) => {
                let message = Some("the lock is somebody else's");
                json(StatusCode::FORBIDDEN, &Locked { lock: lock.into(), message })
            }
            Unlocked::Missing => said(StatusCode::NOT_FOUND, "there is no such lock"),
        })
    }

    /// What was posted. Whoever may not see the repository learns of no fault in it.
    async fn posted<T: DeserializeOwned>(
        &self,
        name: &RepositoryName,
        request: Request,
    ) -> Result<T, Refusal> {
        self.only(Method::POST, name, request.method()).await?;
        // Whoever may push is let in once it is known what they want: that may make it.
        let reads = match self.caller.rights().push(name) {
            true => None,
            false => Some(self.read(name).await?),
        };
        match (parsed(request).await, reads) {
            (Err(refusal), None) => Err(self.seen(name, refusal).await),
            (posted, _) => posted,
        }
    }
}

async fn parsed<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    // Also what keeps pages of other sites out: they cannot send this without asking.
    if kind.and_then(|kind| kind.split(';').next()).map(str::trim) != Some(JSON) {
        let message = "the content type is application/vnd.git-lfs+json";
        return Err(Refusal::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let read = timeout(JSON_TIME, to_bytes(request.into_body(), MAX_JSON)).await;
    let long = |_| Refusal::Status(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
    let bytes = read.map_err(late)?.map_err(long)?;
    serde_json::from_slice(&bytes).map_err(|_| unprocessable("the body is not what it should be"))
}

/// Where the large files of a repository are, for whoever has sent the request. Nodes speak
/// HTTPS, and a proxy in front of one passes on the host that it was asked for.
fn base(name: &RepositoryName, request: &Request) -> Option<String> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => request.headers().get(header::HOST)?.to_str().ok()?.parse::<Authority>().ok()?,
    };
    let plain = !authority.as_str().contains('@');
    plain.then(|| format!("https://{authority}{PREFIX}{name}.git/info/lfs"))
}

fn outcome(base: &str, oid: &Oid, size: u64, verdict: Verdict, upload: bool) -> Outcome {
    let object = format!("{base}/objects/{oid}");
    let fault = |code: StatusCode, message| Some(Fault { code: code.as_u16(), message });
    let (actions, error) = match (upload, verdict) {
        (true, Verdict::There) => (None, None),
        (true, Verdict::Missing) => {
            let verify = Some(Action { href: format!("{base}/verify") });
            (Some(Actions { upload: Some(Action { href: object }), verify, download: None }), None)
        }
        (false, Verdict::There) => {
            let download = Some(Action { href: object });
            (Some(Actions { download, upload: None, verify: None }), None)
        }
        (false, Verdict::Missing) => {
            (None, fault(StatusCode::NOT_FOUND, "there is no such object"))
        }
        (_, Verdict::OtherSize) => {
            (None, fault(StatusCode::UNPROCESSABLE_ENTITY, "the object has another size"))
        }
        (_, Verdict::Full) => {
            (None, fault(StatusCode::INSUFFICIENT_STORAGE, "there is no room for the object"))
        }
    };
    Outcome { oid: oid.to_string(), size, actions, error }
}

fn json(status: StatusCode, content: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(serde_json::to_vec(content).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    uncached(headers);
    response
}

fn said(status: StatusCode, message: &'static str) -> Response {
    json(status, &Message { message })
}

fn no_object() -> Refusal {
    Refusal::Status(StatusCode::NOT_FOUND, "there is no such object")
}

fn no_host() -> Refusal {
    Refusal::Status(StatusCode::BAD_REQUEST, "the request is for no host")
}

fn late(_: Elapsed) -> Refusal {
    Refusal::Status(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")
}

fn unprocessable(message: &'static str) -> Refusal {
    Refusal::Status(StatusCode::UNPROCESSABLE_ENTITY, message)
}
