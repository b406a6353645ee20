//! What an operation knows of the call it serves, and its way to call others.

use std::{fmt, pin::Pin, sync::Arc, task, time::Duration};

use alknet_core::{Action, AuditEvent, AuthContext, Identity};
use futures_util::Stream;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    CallError, Execution, OperationRegistry, Peer, Request,
    operation::{Elevation, Operation},
};

/// How deep operations may call each other.
const DEPTH: u8 = 16;

/// One call, as its operation sees it. Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    registry: OperationRegistry,
    operation: Arc<Operation>,
    auth: AuthContext,
    peer: Option<Peer>,
    deadline: Option<Instant>,
    after: Option<String>,
    depth: u8,
    over: CancellationToken,
}

impl Context {
    pub(crate) fn new(
        registry: OperationRegistry,
        operation: Arc<Operation>,
        request: Request,
        deadline: Option<Instant>,
        over: CancellationToken,
    ) -> Self {
        let Request { auth, peer, after, depth, .. } = request;
        Self(Arc::new(Inner { registry, operation, auth, peer, deadline, after, depth, over }))
    }

    /// Who calls. Their scopes are what this call may use: in a nested call, what every
    /// operation on the way may do as well.
    pub fn auth(&self) -> &AuthContext {
        &self.0.auth
    }

    /// Whether the caller may do this.
    pub fn allows<'a>(&self, action: impl Into<Action<'a>>) -> bool {
        self.0.auth.allows(action)
    }

    /// When the call will be over; it is ended then by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// The event behind which a resumed subscription goes on.
    pub fn after(&self) -> Option<&str> {
        self.0.after.as_deref()
    }

    /// Waits until the call is over for whatever reason: for work that runs elsewhere. The
    /// operation's own future is dropped then. Cancel safe.
    pub async fn over(&self) {
        self.0.over.cancelled().await;
    }

    /// The other end of the connection that the call came by, if it came by one: whoever
    /// serves operations to the node there.
    pub fn peer(&self) -> Option<&Peer> {
        self.0.peer.as_ref()
    }

    /// The registry that the operation is in.
    pub fn registry(&self) -> &OperationRegistry {
        &self.0.registry
    }

    /// Calls a query or a mutation, of the node or of the caller's own connection, with what
    /// both the caller and this operation may do. Dropping the future aborts it.
    pub async fn call<I, O>(&self, operation: &str, input: &I) -> Result<O, CallError>
    where
        I: Serialize + Sync,
        O: DeserializeOwned,
    {
        // A chain of calls is a chain of futures within each other, which has to be boxed somewhere.
        let output = Box::pin(self.start(operation, input)?.output()).await?;
        serde_json::from_str(output.get()).map_err(CallError::internal)
    }

    /// Subscribes; otherwise like [`call`](Self::call).
    pub fn subscribe<I, O>(&self, operation: &str, input: &I) -> Result<Nested<O>, CallError>
    where
        I: Serialize,
        O: DeserializeOwned,
    {
        Ok(Nested { execution: self.start(operation, input)?, item: std::marker::PhantomData })
    }

    fn start(&self, name: &str, input: &impl Serialize) -> Result<Execution, CallError> {
        let Inner { registry, operation, auth, peer, deadline, depth, .. } = &*self.0;
        if *depth >= DEPTH {
            return Err(CallError::unavailable("operations call each other too deeply"));
        }
        let request = Request {
            input: serde_json::to_value(input).map_err(CallError::internal)?,
            timeout: deadline.map(|end| end.saturating_duration_since(Instant::now())),
            peer: peer.clone(),
            depth: depth + 1,
            ..Request::new(name, self.narrowed())
        };
        match (registry.find(name, &request.auth), &operation.elevation) {
            (None, Some(elevation)) => self.elevated(name, request, elevation, auth),
            _ => registry.start(request),
        }
    }

    /// The caller with no more than what this operation may do.
    fn narrowed(&self) -> AuthContext {
        let scopes = |identity: &Identity| identity.scopes.common(&self.0.operation.grants);
        self.with_scopes(|identity| Identity { scopes: scopes(identity), ..identity.clone() })
    }

    fn with_scopes(&self, change: impl Fn(&Identity) -> Identity) -> AuthContext {
        let auth = &self.0.auth;
        let identity = auth.identity.as_deref().map(|identity| Arc::new(change(identity)));
        AuthContext { identity, ..auth.clone() }
    }

    fn elevated(
        &self,
        name: &str,
        request: Request,
        elevation: &Elevation,
        auth: &AuthContext,
    ) -> Result<Execution, CallError> {
        let scopes = &elevation.scopes;
        let elevated =
            self.with_scopes(|identity| Identity { scopes: scopes.clone(), ..identity.clone() });
        if self.0.registry.find(name, &elevated).is_some() {
            let event = AuditEvent {
                subject: Some(name.to_owned()),
                name: Some(self.0.operation.spec.name.to_string()),
                scopes: Some(scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
                ..AuditEvent::about(crate::ELEVATED, auth).because(elevation.reason)
            };
            self.0.registry.audit().record(event);
        }
        self.0.registry.start(Request { auth: elevated, ..request })
    }

    /// How long the call may still take.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.deadline.map(|end| end.saturating_duration_since(Instant::now()))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("operation", &self.0.operation.spec.name)
            .field("depth", &self.0.depth)
            .finish_non_exhaustive()
    }
}

/// The items of a subscription that an operation made. Dropping it aborts the subscription.
#[derive(Debug)]
pub struct Nested<O> {
    execution: Execution,
    item: std::marker::PhantomData<fn() -> O>,
}

impl<O: DeserializeOwned> Stream for Nested<O> {
    type Item = Result<O, CallError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> task::Poll<Option<Self::Item>> {
        self.execution.poll_item(cx).map(|item| {
            item.map(|item| serde_json::from_str(item?.output.get()).map_err(CallError::internal))
        })
    }
}
