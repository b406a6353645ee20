//! What can be called: one registry for every way in.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alknet_core::{Audit, AuditEvent, AuthContext, Scopes};
use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Access, CallError, Context, Execution, Kind, Operation, OperationName, Peer, discovery,
};

type Operations = BTreeMap<OperationName, Arc<Operation>>;

/// What a grant to call is called.
pub(crate) const SERVICE: &str = "call";

/// The operations of a node. Cheap to clone; every clone is the same registry.
#[derive(Clone)]
pub struct OperationRegistry(Arc<Shared>);

struct Shared {
    audit: Audit,
    operations: ArcSwap<Operations>,
    /// The namespaces that can be exchanged while the node runs.
    mounted: Mutex<HashSet<String>>,
}

/// Operations do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Two have the same name.
    #[error("two operations are called {0}")]
    Duplicate(OperationName),
    /// An operation outside of the namespace that it is mounted with.
    #[error("{0} is not in the namespace {1}")]
    Outside(OperationName, String),
    /// The namespace belongs to operations that stay.
    #[error("the namespace {0} is taken")]
    Taken(String),
}

/// A call to be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The name of the operation.
    pub operation: String,
    /// Its input.
    pub input: Value,
    /// Who calls.
    pub auth: AuthContext,
    /// How long the caller will wait.
    pub timeout: Option<Duration>,
    /// The event behind which a subscription goes on.
    pub after: Option<String>,
    pub(crate) peer: Option<Peer>,
    pub(crate) depth: u8,
}

impl Request {
    /// A call without input.
    pub fn new(operation: impl Into<String>, auth: AuthContext) -> Self {
        Self {
            operation: operation.into(),
            input: Value::Null,
            auth,
            timeout: None,
            after: None,
            peer: None,
            depth: 0,
        }
    }

    /// With this input.
    #[must_use]
    pub fn input(self, input: Value) -> Self {
        Self { input, ..self }
    }
}

impl OperationRegistry {
    /// These operations, and the ones that tell of them (`services/…`). Calls that change
    /// something are recorded in `audit`.
    pub fn new(
        audit: Audit,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<Self, RegisterError> {
        let mut all = Operations::new();
        for operation in discovery::operations().into_iter().chain(operations) {
            insert(&mut all, operation)?;
        }
        let operations = ArcSwap::from_pointee(all);
        Ok(Self(Arc::new(Shared { audit, operations, mounted: Mutex::default() })))
    }

    /// Puts these operations in place of all that were mounted in this namespace before.
    /// Calls in progress go on.
    pub fn mount(
        &self,
        namespace: &str,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<(), RegisterError> {
        let mut mounted = self.0.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Operations::clone(&self.0.operations.load());
        let is_taken = all.keys().any(|name| name.namespace() == namespace);
        if is_taken && !mounted.contains(namespace) {
            return Err(RegisterError::Taken(namespace.to_owned()));
        }
        all.retain(|name, _| name.namespace() != namespace);
        for operation in operations {
            if operation.spec.name.namespace() != namespace {
                return Err(RegisterError::Outside(operation.spec.name, namespace.to_owned()));
            }
            insert(&mut all, operation)?;
        }
        mounted.insert(namespace.to_owned());
        self.0.operations.store(Arc::new(all));
        Ok(())
    }

    /// An operation, if it exists and the caller may use it: the two cannot be told apart.
    pub fn find(&self, name: &str, auth: &AuthContext) -> Option<Arc<Operation>> {
        self.any(name).filter(|operation| operation.is_for(auth))
    }

    /// Whether the node has an operation of this name, whoever may use it.
    pub fn contains(&self, name: &str) -> bool {
        self.any(name).is_some()
    }

    fn any(&self, name: &str) -> Option<Arc<Operation>> {
        self.0.operations.load().get(name).cloned()
    }

    /// What the caller may use, in order of the names.
    pub fn visible(&self, auth: &AuthContext) -> Vec<Arc<Operation>> {
        let all = self.0.operations.load();
        all.values().filter(|operation| operation.is_for(auth)).cloned().collect()
    }

    /// Everything, whoever may use it.
    pub(crate) fn all(&self) -> Vec<Arc<Operation>> {
        self.0.operations.load().values().cloned().collect()
    }

    /// Whether somebody with these scopes may call at all: they have a grant of `call`, or of a
    /// service with operations of its own ([`Access::Service`]).
    pub fn admits(&self, scopes: &Scopes) -> bool {
        let is_theirs = |operation: &Arc<Operation>| match &operation.access {
            Access::Service(service) => scopes.admit(service),
            Access::Public | Access::Scope | Access::Also(_) => false,
        };
        scopes.admit(SERVICE) || self.0.operations.load().values().any(is_theirs)
    }

    /// The namespaces of what the caller may use.
    pub fn namespaces(&self, auth: &AuthContext) -> BTreeSet<String> {
        let names = self.visible(auth);
        names.iter().map(|operation| operation.spec.name.namespace().to_owned()).collect()
    }

    /// Checks the caller's rights and the input, and starts the operation.
    pub fn start(&self, mut request: Request) -> Result<Execution, CallError> {
        let operation = self.operation(&request)?;
        let mut input = std::mem::take(&mut request.input);
        // Nothing is an object without members, where one is expected.
        if input.is_null() && operation.spec.input.check(&input).is_err() {
            input = Value::Object(Map::new());
        }
        operation.spec.input.check(&input)?;
        let bounds = [request.timeout, operation.deadline];
        let deadline =
            bounds.into_iter().flatten().min().and_then(|t| Instant::now().checked_add(t));
        let over = CancellationToken::new();
        if operation.spec.kind == Kind::Mutation && request.depth == 0 {
            let subject = Some(operation.spec.name.to_string());
            let called = AuditEvent { subject, ..AuditEvent::about(crate::CALLED, &request.auth) };
            self.audit().record(called);
        }
        let context =
            Context::new(self.clone(), operation.clone(), request, deadline, over.clone());
        Ok(Execution::new(operation, context, input, deadline, over))
    }

    fn operation(&self, request: &Request) -> Result<Arc<Operation>, CallError> {
        let name = request.operation.as_str();
        match self.any(name) {
            Some(operation) if operation.is_for(&request.auth) => Ok(operation),
            Some(_) => {
                let subject = Some(name.to_owned());
                let refused =
                    AuditEvent { subject, ..AuditEvent::about(AuditEvent::REFUSED, &request.auth) };
                self.audit().record(refused.because("operation not granted"));
                Err(CallError::not_found())
            }
            // An operation may call what its caller serves; the caller can do that itself.
            None if request.depth > 0 => {
                let served = request.peer.as_ref().and_then(|peer| peer.served(name));
                served.ok_or_else(CallError::not_found)
            }
            None => Err(CallError::not_found()),
        }
    }

    /// The node's audit log.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }
}

fn insert(all: &mut Operations, operation: Operation) -> Result<(), RegisterError> {
    let name = operation.spec.name.clone();
    match all.insert(name.clone(), Arc::new(operation)) {
        None => Ok(()),
        Some(_) => Err(RegisterError::Duplicate(name)),
    }
}

impl fmt::Debug for OperationRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.operations.load().keys()).finish()
    }
}
