//! The trait that every protocol implements, and what it declares.

use std::{error::Error, fmt, future::Future};

use crate::{Alpn, AuthContext, Connection, Scopes, connection::BoxFuture};

/// Who may reach a handler on its own ALPN. There is no default: a handler is registered
/// with one, in writing.
///
/// Inside HTTPS (WebTransport, WebSocket) an identity with the ALPN's scope, or with one of
/// those that stand here, is always needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Anybody may begin; the protocol authenticates by itself before it does anything.
    Protocol,
    /// An identity with the scope named like the ALPN ([`Alpn::short`]).
    Scope,
    /// An identity with that scope or any of these: what is behind the handler belongs to
    /// several services, and it decides about each.
    ScopeOr(&'static [&'static str]),
}

impl Access {
    /// Whether native callers need an identity.
    pub(crate) fn needs_identity(self) -> bool {
        matches!(self, Self::Scope | Self::ScopeOr(_))
    }

    /// Whether somebody with these scopes may reach the handler of an ALPN.
    pub(crate) fn admits(self, alpn: &Alpn, scopes: &Scopes) -> bool {
        let others = if let Self::ScopeOr(others) = self { others } else { &[] };
        scopes.admit(alpn.short()) || others.iter().any(|service| scopes.admit(service))
    }
}

/// What a handler ended with: any error, opaque, shown in the log with its causes.
pub struct HandlerError(Box<dyn Error + Send + Sync>);

impl HandlerError {
    /// Wraps an error.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The error and all its causes on one line.
impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A protocol on the node. Implementors write `async fn`.
pub trait ProtocolHandler: Send + Sync + 'static {
    /// The name of the handler in messages: `ssh`, `http`.
    fn name(&self) -> &'static str;

    /// The ALPNs it serves.
    fn alpns(&self) -> Vec<Alpn>;

    /// Serves one connection to its end. The connection is closed when this returns, with
    /// [`Code::NORMAL`](crate::Code::NORMAL) or, after an error or a panic, with
    /// [`Code::INTERNAL`](crate::Code::INTERNAL). The future is dropped at the deadline of
    /// a shutdown.
    fn handle(
        &self,
        connection: Connection,
        auth: AuthContext,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// The node is shutting down: end what is idle, tell peers where the protocol can.
    /// Connections still running are closed by the deadline.
    fn shutdown(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The `dyn` twin of [`ProtocolHandler`] for the registry's map.
pub(crate) trait DynHandler: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn handle(
        &self,
        connection: Connection,
        auth: AuthContext,
    ) -> BoxFuture<'_, Result<(), HandlerError>>;
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

impl<H: ProtocolHandler> DynHandler for H {
    fn name(&self) -> &'static str {
        ProtocolHandler::name(self)
    }

    fn handle(
        &self,
        connection: Connection,
        auth: AuthContext,
    ) -> BoxFuture<'_, Result<(), HandlerError>> {
        Box::pin(ProtocolHandler::handle(self, connection, auth))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(ProtocolHandler::shutdown(self))
    }
}
