//! Files as they are.

use std::{path::Path, sync::Arc};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use tower::ServiceExt as _;
use tower_http::services::ServeFile;

use super::{Asks, body, path::BundleName, refusal::Refusal};
use crate::{
    RepositoryName,
    admission::Admitted,
    bundle,
    engine::Traffic,
    server::{Caller, GitError, GitLimits, GitServer},
};

/// A file that is there, or the part of it that is asked for. `held`, which has the room for
/// it, is there as long as somebody takes it, and they may as long as it lets them.
pub(super) async fn answer(
    path: &Path,
    request: Request,
    limits: &GitLimits,
    traffic: Arc<Traffic>,
    held: impl AsRef<Admitted> + Send + Sync + 'static,
) -> Response {
    let Ok(response) = ServeFile::new(path).oneshot(request).await;
    let total = limits.bounds.total;
    let mut response = response.map(|file| body::download(Body::new(file), total, traffic, held));
    let headers = response.headers_mut();
    // Whoever pushes decides what is in it: no browser shall take it for a page of ours.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

impl Asks {
    /// A bundle that a clone begins with.
    pub(super) async fn bundle(
        &self,
        repository: RepositoryName,
        BundleName(name): BundleName,
        request: Request,
    ) -> Result<Response, Refusal> {
        self.only(axum::http::Method::GET, &repository, request.method()).await?;
        let repository = self.read(&repository).await?;
        let path = repository.path.join(bundle::FOLDER).join(&name);
        let open = move || (bundle::open(&repository, &name), repository, name);
        let opened = tokio::task::spawn_blocking(open).await;
        let (there, repository, file) = opened.map_err(|_| GitError::Interrupted)?;
        if there.map_err(GitError::Stream)?.is_none() {
            return Err(Refusal::Status(StatusCode::NOT_FOUND, "there is no such bundle"));
        }
        let (server, caller, traffic) =
            (self.server.clone(), self.caller.clone(), Arc::<Traffic>::default());
        let fetch = Fetch { server, caller, repository, file, traffic: traffic.clone() };
        Ok(answer(&path, request, self.server.limits(), traffic, fetch).await)
    }
}

/// Somebody gets a bundle. How much of it they got is in the audit log when it is dropped.
struct Fetch {
    server: GitServer,
    caller: Caller,
    repository: Admitted,
    file: String,
    traffic: Arc<Traffic>,
}

impl AsRef<Admitted> for Fetch {
    fn as_ref(&self) -> &Admitted {
        &self.repository
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let file = std::mem::take(&mut self.file);
        let (record, name) = (&self.server.0.record, &self.repository.name);
        record.bundle(&self.caller, name, file, self.traffic.sent());
    }
}
