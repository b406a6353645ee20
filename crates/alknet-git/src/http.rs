//! Repositories by smart HTTP (gitprotocol-http), with the API of Git LFS beside it, as routes
//! of axum.
//!
//! | path below `/alknet/git/` | what it is |
//! |---|---|
//! | `NAME[.git]/info/refs?service=…` | refs and capabilities |
//! | `NAME[.git]/git-upload-pack`, `NAME[.git]/git-receive-pack` | fetches and pushes |
//! | `NAME[.git]/info/lfs/…` | batches, objects and locks of Git LFS |
//! | `NAME[.git]/bundles/FILE` | bundles that a clone begins with |
//!
//! # Who is asked who they are
//! The caller is in `Extension<AuthContext>`. A cookie, which a browser also sends for pages
//! of others, counts for nothing here. Whoever has no credential is answered 401 for every
//! path, whether anything is there or not, except for a fetch from a public repository. To
//! whoever has one, a repository that they may not see is one that does not exist. Both
//! answers have the extension [`Unseen`], for a node that hides to put its own in the place.
//!
//! # Bodies
//! Requests and answers are passed on as they come, however long they are. A request may be
//! compressed by gzip, and then has 64 MiB at most. A file that is taken or sent counts as an
//! exchange, and ends when a client takes nothing of it for a minute, or sends less than a KiB a
//! second. A client that is not read to the end, or that goes away, ends git with it, unless refs
//! may have changed by then. So does a credential that does not hold any more. A file that comes
//! with it is not kept then, and one that goes breaks off.

mod body;
mod file;
mod lfs;
mod pack;
mod path;
mod refusal;

use alknet_core::{AuthContext, AuthMethod};
use axum::{
    Extension, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    response::Response,
    routing::any,
};

use crate::{
    name::RepositoryName,
    server::{Caller, GitServer},
};
use path::{Place, Target};
use refusal::Refusal;

pub use refusal::Unseen;

/// What the path of every repository begins with.
pub const PREFIX: &str = "/alknet/git/";

/// The routes of a server: all that begins with [`PREFIX`]. They need an
/// `Extension<AuthContext>`.
pub fn routes(server: GitServer) -> Router {
    Router::new().route(&format!("{PREFIX}{{*path}}"), any(serve)).with_state(server)
}

async fn serve(
    State(server): State<GitServer>,
    Extension(auth): Extension<AuthContext>,
    request: Request,
) -> Response {
    let asks = Asks { caller: caller(auth, request.headers()), server };
    match asks.answer(request).await {
        Ok(response) => response,
        Err(refusal) => refusal.answer(&asks.caller),
    }
}

/// Who asks, without what a page of another site makes their browser send.
fn caller(auth: AuthContext, headers: &HeaderMap) -> Caller {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    if foreign || auth.method == AuthMethod::Cookie {
        let auth = AuthContext { identity: None, method: AuthMethod::None, ..auth };
        return Caller::of(auth);
    }
    Caller::of(auth)
}

/// A caller, and whom they ask.
#[derive(Debug)]
struct Asks {
    caller: Caller,
    server: GitServer,
}

impl Asks {
    async fn answer(&self, request: Request) -> Result<Response, Refusal> {
        let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default();
        let Place { repository, target } = Place::parse(path).ok_or(Refusal::Unseen)?;
        match target {
            Target::Refs => self.refs(repository, request).await,
            Target::Pack(service) => self.pack(repository, service, request).await,
            Target::Lfs(target) => self.lfs(repository, target, request).await,
            Target::Bundle(name) => self.bundle(repository, name, request).await,
        }
    }

    /// Refuses another method; whoever may not see the repository learns nothing of it.
    async fn only(
        &self,
        allowed: Method,
        repository: &RepositoryName,
        method: &Method,
    ) -> Result<(), Refusal> {
        if *method == allowed {
            return Ok(());
        }
        self.read(repository).await?;
        Err(Refusal::Method(allowed))
    }
}

/// What keeps an answer out of every cache, as git writes it.
fn uncached(headers: &mut HeaderMap) {
    let (expires, pragma) = ("Fri, 01 Jan 1980 00:00:00 GMT", "no-cache");
    headers.insert(header::EXPIRES, HeaderValue::from_static(expires));
    headers.insert(header::PRAGMA, HeaderValue::from_static(pragma));
    let control = "no-cache, max-age=0, must-revalidate";
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
}

#[cfg(test)]
mod tests;
