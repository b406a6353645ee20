//! The handler for `http/1.1`, `h2` and `h3`.

use std::{fmt, sync::Arc, time::Duration};

use alknet_core::{
    Alpn, AuthContext, Connection, Dispatcher, HandlerError, IdentityProvider, NodeIdentity,
    ProtocolHandler,
};
use arc_swap::ArcSwap;
use axum::Router;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, Routes, Served},
    auth::{Authenticator, Link},
    decoy::{Decoy, DecoyError, Site},
    h3,
    live::Live,
    origin::Origins,
    serve,
    tunnel::Gate,
};

const H1: &str = "http/1.1";
const H2: &str = "h2";
const H3: &str = "h3";

/// How much one HTTP connection may ask for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpLimits {
    /// How long a request's header may take over HTTP/1.1, and how long a connection may
    /// wait for its next request.
    pub header_timeout: Duration,
    /// The longest header section, in bytes.
    pub max_header: usize,
    /// The longest body that our own endpoints and the routes' extractors take, in bytes.
    pub max_body: usize,
    /// Requests in progress on one HTTP/2 connection.
    pub max_streams: u32,
}

/// nginx's own defaults, where it has them.
impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(60),
            max_header: 32 * 1024,
            max_body: 1024 * 1024,
            max_streams: 128,
        }
    }
}

/// HTTP/1.1, HTTP/2 and HTTP/3 on one set of routes, and the tunnels to services inside
/// them.
///
/// Made by [`HttpAdapter::builder`], and registered with [`Access::Public`]: it decides for
/// every request by itself who may have what.
///
/// [`Access::Public`]: alknet_core::Access::Public
pub struct HttpAdapter {
    app: Arc<App>,
    limits: HttpLimits,
    cover: bool,
    shutdown: CancellationToken,
}

/// Configures an [`HttpAdapter`].
#[must_use = "a builder does nothing until it builds"]
pub struct Builder {
    dispatcher: Dispatcher,
    identities: Arc<dyn IdentityProvider>,
    node: Arc<NodeIdentity>,
    public: Router,
    private: Router,
    decoy: Decoy,
    alt_svc: Option<u16>,
    allowed_origins: Vec<String>,
    basic: Vec<String>,
    cover: bool,
    limits: HttpLimits,
}

impl HttpAdapter {
    /// Begins to configure an adapter. Tunnels lead to the services of `dispatcher`, so it
    /// must not know this adapter: see [`Dispatcher::extend`].
    pub fn builder(
        dispatcher: Dispatcher,
        identities: Arc<dyn IdentityProvider>,
        node: Arc<NodeIdentity>,
    ) -> Builder {
        Builder {
            dispatcher,
            identities,
            node,
            public: Router::new(),
            private: Router::new(),
            decoy: Decoy::default(),
            alt_svc: None,
            allowed_origins: Vec::new(),
            basic: Vec::new(),
            cover: false,
            limits: HttpLimits::default(),
        }
    }

    /// A handle to what can change while the adapter serves; to be had before the adapter
    /// goes into a registry.
    pub fn live(&self) -> Live {
        Live {
            site: self.app.site.clone(),
            origins: self.app.gate.origins.clone(),
            routes: self.app.routes.clone(),
            max_body: self.app.max_body,
        }
    }
}

impl Builder {
    /// Routes that are open to all. Handlers find the caller in `Extension<AuthContext>`
    /// and the HTTP connection in `Extension<Connection>`. What must not be seen by all
    /// answers [`Conceal`](crate::Conceal). Fallbacks of the routers are not used.
    pub fn public(self, routes: Router) -> Self {
        Self { public: self.public.merge(routes), ..self }
    }

    /// Routes for callers with an identity; for everybody else they do not exist.
    pub fn private(self, routes: Router) -> Self {
        Self { private: self.private.merge(routes), ..self }
    }

    /// What everything else looks like. [`Decoy::NotFound`] if it is not set.
    pub fn decoy(self, decoy: Decoy) -> Self {
        Self { decoy, ..self }
    }

    /// Tells clients of HTTP/1.1 and HTTP/2 that HTTP/3 is on this UDP port.
    pub fn alt_svc(self, port: u16) -> Self {
        Self { alt_svc: Some(port), ..self }
    }

    /// Other origins, such as `https://app.example`, whose pages may open tunnels.
    pub fn allowed_origins(self, origins: Vec<String>) -> Self {
        Self { allowed_origins: origins, ..self }
    }

    /// Takes a token as the password of the Basic scheme (RFC 7617) for all paths that begin
    /// with `prefix`: for clients that know no other scheme, such as git.
    pub fn basic(mut self, prefix: impl Into<String>) -> Self {
        self.basic.push(prefix.into());
        self
    }

    /// Cover: what stands outside the decoy looks like nginx, too. Malformed HTTP/1.1 is
    /// answered in its words, and HTTP/2 has its settings; WebSockets are then opened over
    /// HTTP/1.1 alone, because the setting that HTTP/2 needs for them (RFC 8441) is one
    /// that nginx never sends. The decoy is the same either way.
    pub fn cover(self, cover: bool) -> Self {
        Self { cover, ..self }
    }

    /// Bounds other than the default ones.
    pub fn limits(self, limits: HttpLimits) -> Self {
        Self { limits, ..self }
    }

    /// The adapter, ready to be registered.
    pub fn build(self) -> Result<HttpAdapter, DecoyError> {
        let site = Site::new(self.decoy)?;
        let routes = Routes::new(self.public, self.private, &site, self.limits.max_body);
        let (audit, shutdown) = (self.dispatcher.audit().clone(), CancellationToken::new());
        let app = App {
            gate: Gate {
                authenticator: Authenticator {
                    identities: self.identities.clone(),
                    audit,
                    basic: self.basic,
                },
                dispatcher: self.dispatcher,
                identities: self.identities,
                node: self.node,
                origins: Origins::new(self.allowed_origins),
            },
            routes: Arc::new(ArcSwap::from_pointee(routes)),
            site,
            alt_svc: self.alt_svc.and_then(alt_svc),
            max_body: self.limits.max_body,
            shutdown: shutdown.clone(),
        };
        Ok(HttpAdapter { app: Arc::new(app), limits: self.limits, cover: self.cover, shutdown })
    }
}

fn alt_svc(port: u16) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok()
}

impl ProtocolHandler for HttpAdapter {
    fn name(&self) -> &'static str {
        "http"
    }

    fn alpns(&self) -> Vec<Alpn> {
        [H1, H2, H3].into_iter().filter_map(|name| Alpn::new(name).ok()).collect()
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let version = auth.alpn.clone();
        let link = Arc::new(Link::new(connection.clone(), auth));
        let _ends_tasks = link.over.clone().drop_guard();
        let served = Served { app: self.app.clone(), link: link.clone() };
        let shutdown = self.shutdown.clone();
        let outcome = match version.as_str() {
            H3 => h3::serve(connection, Arc::new(served), shutdown).await.map_err(Into::into),
            H2 => serve::http2(served, &self.limits, self.cover, shutdown).await,
            _ => serve::http1(served, &self.limits, self.cover, shutdown).await,
        };
        if let Err(error) = outcome {
            // Any peer can break HTTP; that is no failure of the handler.
            tracing::debug!(%version, error = &*error, "an HTTP connection broke");
        }
        link.tasks.close();
        link.tasks.wait().await;
        Ok(())
    }

    async fn shutdown(&self) {
        self.shutdown.cancel();
    }
}

impl fmt::Debug for HttpAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAdapter")
            .field("site", &self.app.site)
            .field("limits", &self.limits)
            .field("cover", &self.cover)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("decoy", &self.decoy).finish_non_exhaustive()
    }
}
