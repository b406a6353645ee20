//! Refs, fetches and pushes.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use bytes::Bytes;

use super::{
    Asks,
    body::{self, Input, Running},
    refusal::Refusal,
    uncached,
};
use crate::{
    RepositoryName,
    admission::Admitted,
    engine::Framing,
    request::{Request as Wanted, Service},
};

/// The field that says which version of the protocol a client would like.
const PROTOCOL: &str = "git-protocol";
/// The newest version of the protocol.
const NEWEST: u8 = 2;

impl Asks {
    /// The refs and capabilities that an exchange begins with.
    pub(super) async fn refs(
        &self,
        repository: RepositoryName,
        request: Request,
    ) -> Result<Response, Refusal> {
        self.only(Method::GET, &repository, request.method()).await?;
        let service = request.uri().query().and_then(|query| query.strip_prefix("service="));
        let service = match service.and_then(Service::named) {
            Some(service @ (Service::UploadPack | Service::ReceivePack)) => service,
            Some(Service::UploadArchive) | None => {
                let message = "only the smart protocol is spoken here";
                let refusal = Refusal::Status(StatusCode::FORBIDDEN, message);
                return Err(self.seen(&repository, refusal).await);
            }
        };
        let wanted = Wanted::new(service, repository).version(version(request.headers()));
        let repository = self.server.admit(&wanted, &self.caller).await?;
        // Version 2, which is for fetches alone, begins without a greeting.
        let greets = service == Service::ReceivePack || wanted.version < NEWEST;
        let head = if greets { greeting(service) } else { Bytes::new() };
        let (framing, kind) = (Framing::Advertisement, "advertisement");
        self.run(wanted, repository, framing, Input::none(), (head, kind)).await
    }

    /// A fetch or a push.
    pub(super) async fn pack(
        &self,
        repository: RepositoryName,
        service: Service,
        request: Request,
    ) -> Result<Response, Refusal> {
        self.only(Method::POST, &repository, request.method()).await?;
        let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        // Also what keeps pages of other sites out: they cannot send this without asking.
        if kind != Some(media_type(service, "request").as_bytes()) {
            let message = "not the content type of such a request";
            let refusal = Refusal::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
            return Err(self.seen(&repository, refusal).await);
        }
        let (parts, body) = request.into_parts();
        let wanted = Wanted::new(service, repository).version(version(&parts.headers));
        let repository = self.server.admit(&wanted, &self.caller).await?;
        let input = Input::of(&parts.headers, body)?;
        self.run(wanted, repository, Framing::Stateless, input, (Bytes::new(), "result")).await
    }

    /// The repository, if the caller may read it.
    pub(super) async fn read(&self, repository: &RepositoryName) -> Result<Admitted, Refusal> {
        let wanted = Wanted::new(Service::UploadPack, repository.clone());
        Ok(self.server.admit(&wanted, &self.caller).await?)
    }

    /// A refusal, if the caller may know of the repository.
    pub(super) async fn seen(&self, repository: &RepositoryName, refusal: Refusal) -> Refusal {
        self.read(repository).await.err().unwrap_or(refusal)
    }

    async fn run(
        &self,
        wanted: Wanted,
        admitted: Admitted,
        framing: Framing,
        input: Input,
        (head, kind): (Bytes, &str),
    ) -> Result<Response, Refusal> {
        let kind = media_type(wanted.service, kind);
        let (output, pieces) = body::output();
        let Input { reader, fault } = input;
        let server = self.server.clone();
        let mut exchange = Running::new();
        exchange.spawn(
            async move { server.exchange(&wanted, admitted, framing, reader, output).await },
        );
        let body = body::answer(head, pieces, exchange, &fault).await?;
        Ok(answer(&kind, body))
    }
}

fn answer(kind: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::try_from(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    uncached(headers);
    response
}

/// The packet line and the end of a section that refs begin with.
fn greeting(service: Service) -> Bytes {
    let line = format!("# service={}\n", service.name());
    format!("{:04x}{line}0000", line.len() + 4).into()
}

fn media_type(service: Service, kind: &str) -> String {
    format!("application/x-{}-{kind}", service.name())
}

/// The version in `Git-Protocol`, such as `version=2:key=value`; 0 where it is none that
/// there is.
fn version(headers: &HeaderMap) -> u8 {
    let field = headers.get(PROTOCOL).and_then(|value| value.to_str().ok());
    let mut keys = field.into_iter().flat_map(|field| field.split(':'));
    let version = keys.find_map(|key| key.strip_prefix("version="));
    version.and_then(|version| version.parse().ok()).filter(|v| *v <= NEWEST).unwrap_or(0)
}
