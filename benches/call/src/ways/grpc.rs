//! gRPC by tonic, with its own TLS. What `protoc` would generate is written out.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::Result;
use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use tokio::task::JoinSet;
use tonic::{
    Request, Response, Status,
    body::Body,
    client,
    server::{self, NamedService, ServerStreamingService, UnaryService},
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
        server::TcpIncoming,
    },
};
use tonic_prost::ProstCodec;
use tower::Service;

use super::{BoxFuture, Caller};
use crate::{
    note::{Note, Wanted},
    tls::{HOST, SelfSigned},
};

const CALL: &str = "/bench.Notes/Answer";
const ITEMS: &str = "/bench.Notes/Watch";

/// The service.
#[derive(Clone)]
struct Notes;

impl NamedService for Notes {
    const NAME: &'static str = "bench.Notes";
}

struct Answer;

impl UnaryService<Note> for Answer {
    type Response = Note;
    type Future = BoxFuture<'static, Result<Response<Note>, Status>>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        Box::pin(async { Ok(Response::new(request.into_inner().answer())) })
    }
}

struct Watch;

impl ServerStreamingService<Wanted> for Watch {
    type Response = Note;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Note, Status>> + Send>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Wanted>) -> Self::Future {
        let notes: Self::ResponseStream =
            Box::pin(stream::iter(request.into_inner().notes().map(Ok)));
        Box::pin(async { Ok(Response::new(notes)) })
    }
}

impl Service<http::Request<Body>> for Notes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match request.uri().path() {
            CALL => Box::pin(async {
                let mut grpc = server::Grpc::new(ProstCodec::default());
                Ok(grpc.unary(Answer, request).await)
            }),
            ITEMS => Box::pin(async {
                let mut grpc = server::Grpc::new(ProstCodec::default());
                Ok(grpc.server_streaming(Watch, request).await)
            }),
            _ => Box::pin(async { Ok(Status::unimplemented("").into_http()) }),
        }
    }
}

pub(super) fn serve(identity: &SelfSigned, tasks: &mut JoinSet<Result<()>>) -> Result<SocketAddr> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
    let addr = incoming.local_addr()?;
    let identity = Identity::from_pem(&identity.certificate, &identity.key);
    let tls = ServerTlsConfig::new().identity(identity);
    let router = Server::builder().tls_config(tls)?.add_service(Notes);
    tasks.spawn(async move { Ok(router.serve_with_incoming(incoming).await?) });
    Ok(addr)
}

pub(super) struct Client(client::Grpc<Channel>);

impl Client {
    pub(super) async fn connect(addr: SocketAddr, certificate: &str) -> Result<Self> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate));
        let endpoint = Endpoint::from_shared(format!("https://{addr}"))?;
        let endpoint = endpoint.tls_config(tls.domain_name(HOST))?;
        Ok(Self(client::Grpc::new(endpoint.connect().await?)))
    }
}

impl Caller for Client {
    fn call(&self, note: Note) -> BoxFuture<'_, Result<Note>> {
        Box::pin(async move {
            let mut grpc = self.0.clone();
            grpc.ready().await?;
            let codec = ProstCodec::<Note, Note>::default();
            let path = PathAndQuery::from_static(CALL);
            Ok(grpc.unary(Request::new(note), path, codec).await?.into_inner())
        })
    }

    fn items(&self, wanted: Wanted) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            let mut grpc = self.0.clone();
            grpc.ready().await?;
            let codec = ProstCodec::<Wanted, Note>::default();
            let path = PathAndQuery::from_static(ITEMS);
            let answer = grpc.server_streaming(Request::new(wanted), path, codec).await?;
            let mut items = answer.into_inner();
            let mut count = 0;
            while items.message().await?.is_some() {
                count += 1;
            }
            Ok(count)
        })
    }
}
