//! The ALPN-stream proxy: a WebTransport session or a WebSocket on `/alknet/<name>` becomes
//! a connection with that ALPN.
//!
//! The path alone names the service. The caller's credential is their `Authorization`, or
//! a single-use ticket: among the offered subprotocols as `ticket.<secret>`, or in the query
//! as `ticket=<secret>`. Whatever is wrong, the answer is the decoy's, and the audit log has
//! the reason.

use std::sync::Arc;

use alknet_core::{
    Admission, Alpn, AuditEvent, AuthContext, AuthMethod, Dispatcher, IdentityProvider,
    NodeIdentity, ProviderError, Refusal, Secret, TicketRefusal, TransportKind,
};
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::{
    auth::{Authenticator, Link, Purpose},
    origin::Origins,
    proof,
    protocols::{self, Offer},
};

const WT_AVAILABLE: HeaderName = HeaderName::from_static("wt-available-protocols");
const WT_PROTOCOL: HeaderName = HeaderName::from_static("wt-protocol");

/// The service of WebTransport sessions that name none.
const ROOT: &str = "call";

/// Opens tunnels.
pub(crate) struct Gate {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) identities: Arc<dyn IdentityProvider>,
    pub(crate) node: Arc<NodeIdentity>,
    pub(crate) authenticator: Authenticator,
    pub(crate) origins: Origins,
}

/// Leave to open one tunnel.
pub(crate) struct Opening {
    pub(crate) admission: Admission,
    /// What the accepting answer says: the selected subprotocol, and the node's proof to
    /// callers who proved a key of theirs.
    pub(crate) headers: HeaderMap,
}

/// Why a tunnel does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("no service at this path")]
    NoService,
    #[error("foreign origin")]
    ForeignOrigin,
    #[error("no credential")]
    NoCredential,
    #[error(transparent)]
    Ticket(#[from] TicketRefusal),
    #[error("the node cannot prove itself on this connection")]
    NoProof,
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The dispatcher has put it into the audit log.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Gate {
    /// Decides on a request to open a tunnel of this kind.
    pub(crate) async fn open(
        &self,
        link: &Link,
        parts: &Parts,
        kind: TransportKind,
    ) -> Result<Opening, Closed> {
        let caller = self.authenticator.caller(link, parts, Purpose::Tunnel).await;
        let offer = offer(parts, kind);
        let alpn = service(parts.uri.path(), kind);
        let caller = AuthContext {
            transport: kind,
            alpn: alpn.clone().unwrap_or_else(|| link.auth.alpn.clone()),
            ..caller
        };
        let outcome = self.decide(link, parts, alpn, caller.clone(), &offer).await;
        if let Err(closed) = &outcome {
            self.note(link, &caller, closed);
        }
        outcome
    }

    async fn decide(
        &self,
        link: &Link,
        parts: &Parts,
        alpn: Option<Alpn>,
        caller: AuthContext,
        offer: &Offer,
    ) -> Result<Opening, Closed> {
        if !self.origins.admit(parts) {
            return Err(Closed::ForeignOrigin);
        }
        let alpn = alpn.ok_or(Closed::NoService)?;
        let caller = if caller.identity.is_some() {
            caller
        } else {
            let ticket = offer.ticket.clone().or_else(|| query_ticket(parts));
            self.redeem(caller, &ticket.ok_or(Closed::NoCredential)?, &alpn).await?
        };
        let headers = self.answer(link, &caller, offer)?;
        Ok(Opening { admission: self.dispatcher.admit(caller)?, headers })
    }

    async fn redeem(
        &self,
        caller: AuthContext,
        ticket: &Secret,
        alpn: &Alpn,
    ) -> Result<AuthContext, Closed> {
        if caller.session.is_banned(&caller) {
            return Err(Closed::NoCredential);
        }
        let identity = self.identities.redeem_ticket(ticket, alpn).await??;
        Ok(AuthContext { identity: Some(Arc::new(identity)), method: AuthMethod::Ticket, ..caller })
    }

    fn answer(
        &self,
        link: &Link,
        caller: &AuthContext,
        offer: &Offer,
    ) -> Result<HeaderMap, Closed> {
        let mut headers = HeaderMap::new();
        if let Some(protocol) = &offer.first {
            match caller.transport {
                TransportKind::WebTransport => {
                    headers.insert(WT_PROTOCOL, protocols::quoted(protocol));
                }
                _ => {
                    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
                }
            }
        }
        if caller.method == AuthMethod::Concealed {
            let value = proof::prove(&link.connection, &self.node).ok();
            let value = value.and_then(|value| HeaderValue::try_from(value).ok());
            headers.insert(proof::HEADER, value.ok_or(Closed::NoProof)?);
        }
        Ok(headers)
    }

    fn note(&self, link: &Link, caller: &AuthContext, closed: &Closed) {
        let harmless = match closed {
            Closed::Refused(_) => return,
            Closed::Ticket(_) => None,
            Closed::Provider(_) => Some("ticket provider"),
            Closed::NoService => Some("no service"),
            Closed::ForeignOrigin => Some("foreign origin"),
            Closed::NoCredential => Some("no credential"),
            Closed::NoProof => Some("no proof"),
        };
        if harmless.is_some_and(|kind| !link.refusals.is_first(kind)) {
            return;
        }
        if let Closed::Provider(error) = closed {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a ticket could not be looked up"
            );
        }
        let event = AuditEvent::about(AuditEvent::REFUSED, caller).because(closed);
        self.dispatcher.audit().record(event);
        if harmless.is_none() {
            caller.session.failed(caller, closed);
        }
    }
}

/// The service that a path leads to. A WebTransport session on the root is one of calls.
fn service(path: &str, kind: TransportKind) -> Option<Alpn> {
    match (path, kind) {
        ("/", TransportKind::WebTransport) => Alpn::service(ROOT).ok(),
        _ => Alpn::from_path(path),
    }
}

fn offer(parts: &Parts, kind: TransportKind) -> Offer {
    match kind {
        TransportKind::WebTransport => protocols::strings(&parts.headers, &WT_AVAILABLE),
        _ => protocols::tokens(&parts.headers, &header::SEC_WEBSOCKET_PROTOCOL),
    }
}

/// The last resort of clients that can send neither a header nor a subprotocol.
fn query_ticket(parts: &Parts) -> Option<Secret> {
    let mut pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == "ticket").map(|(_, value)| Secret::new(value))
}
