//! Operations: what they are called, take, give, and do.

use std::{fmt, future::Future, marker::PhantomData, sync::Arc, time::Duration};

use alknet_core::{Action, AuthContext, BoxFuture, Scopes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{
    CallError, Context, ErrorCode, InvalidName, InvalidSchema, Items, OperationName, Schema,
};

/// What an operation gives: JSON text.
pub type Output = Box<RawValue>;

/// How long a query or a mutation may take, if the operation does not say.
const DEADLINE: Duration = Duration::from_secs(60);

/// What kind of operation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Safe to repeat, changes nothing.
    Query,
    /// Changes something.
    Mutation,
    /// Gives items until it ends.
    Subscription,
}

impl Kind {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Mutation => "mutation",
            Self::Subscription => "subscription",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who may use an operation, of those who may call at all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Whoever reached the call protocol.
    Public,
    /// Whoever has a scope that covers `call:NAMESPACE/NAME`.
    Scope,
    /// Whoever has that and this action, too.
    Also(Action<'static>),
    /// Whoever has that, or a grant of any part of this service: the operation belongs to it,
    /// and decides by itself what each caller may do.
    Service(&'static str),
}

/// A failure that an operation declares beside the standard ones.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct DeclaredError {
    /// The code on the wire.
    pub code: String,
    /// When it happens.
    #[serde(default)]
    pub description: String,
}

/// What the world is told of an operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Spec {
    /// What it is called.
    pub name: OperationName,
    /// What kind of operation it is.
    pub kind: Kind,
    /// What it does, for people (and models) who choose one.
    pub description: String,
    /// What it takes.
    pub input: Schema,
    /// What it gives: its output, or each item of a subscription.
    pub output: Schema,
    /// How it fails, beside the standard ways.
    pub errors: Vec<DeclaredError>,
    /// Whether a subscription can go on behind an item that carried an event.
    pub resumable: bool,
}

/// Rights that an operation has in place of its caller's.
#[derive(Debug, Clone)]
pub(crate) struct Elevation {
    pub(crate) scopes: Scopes,
    pub(crate) reason: &'static str,
}

/// Does the work of an operation. Typed functions are wrapped by [`Operation::query`] and
/// its siblings; whoever forwards calls elsewhere implements it.
pub trait Handler: Send + Sync + 'static {
    /// Runs one call. The input fits the schema. A subscription gives its items to `items`
    /// and then returns anything; the others return their output. Dropping the future must
    /// end the work.
    fn run(
        &self,
        context: Context,
        input: Value,
        items: Items,
    ) -> BoxFuture<'_, Result<Output, CallError>>;
}

/// One operation, ready to be registered.
pub struct Operation {
    pub(crate) spec: Spec,
    pub(crate) access: Access,
    pub(crate) grants: Scopes,
    pub(crate) elevation: Option<Elevation>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) handler: Arc<dyn Handler>,
}

/// The description of an operation makes no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidOperation {
    /// Its name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A schema.
    #[error(transparent)]
    Schema(#[from] InvalidSchema),
}

impl Operation {
    /// A query: an async function from an input to an output, whose types give the schemas.
    pub fn query<I, O, F, R>(name: &str, function: F) -> Result<Self, InvalidOperation>
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        O: Serialize + JsonSchema + 'static,
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        Self::unary(name, Kind::Query, function)
    }

    /// A mutation; otherwise like [`query`](Self::query).
    pub fn mutation<I, O, F, R>(name: &str, function: F) -> Result<Self, InvalidOperation>
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        O: Serialize + JsonSchema + 'static,
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        Self::unary(name, Kind::Mutation, function)
    }

    /// A subscription: an async function that gives its items to an [`Items`] and returns
    /// when there are no more.
    pub fn subscription<I, O, F, R>(name: &str, function: F) -> Result<Self, InvalidOperation>
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        O: Serialize + JsonSchema + Send + 'static,
        F: Fn(Context, I, Items<O>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), CallError>> + Send + 'static,
    {
        let spec = Spec::new(
            name,
            Kind::Subscription,
            Schema::of_input::<I>()?,
            Schema::of_output::<O>()?,
        )?;
        Ok(Self::raw(spec, Subscribe(function, PhantomData)))
    }

    fn unary<I, O, F, R>(name: &str, kind: Kind, function: F) -> Result<Self, InvalidOperation>
    where
        I: DeserializeOwned + JsonSchema + Send + 'static,
        O: Serialize + JsonSchema + 'static,
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, CallError>> + Send + 'static,
    {
        let spec = Spec::new(name, kind, Schema::of_input::<I>()?, Schema::of_output::<O>()?)?;
        Ok(Self::raw(spec, Unary(function, PhantomData)))
    }

    /// An operation with schemas from elsewhere.
    pub fn raw(spec: Spec, handler: impl Handler) -> Self {
        let deadline = (spec.kind != Kind::Subscription).then_some(DEADLINE);
        Self {
            spec,
            access: Access::Scope,
            grants: Scopes::default(),
            elevation: None,
            deadline,
            handler: Arc::new(handler),
        }
    }

    /// Says what it does.
    #[must_use]
    pub fn describe(mut self, description: &str) -> Self {
        description.clone_into(&mut self.spec.description);
        self
    }

    /// Says who may use it; [`Access::Scope`] if this is not called.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Declares a failure. What an operation fails with and has not declared becomes
    /// `INTERNAL`.
    #[must_use]
    pub fn error(mut self, code: &str, description: &str) -> Self {
        let (code, description) = (code.to_owned(), description.to_owned());
        self.spec.errors.push(DeclaredError { code, description });
        self
    }

    /// What it may do in turn: its calls run with what both this and its caller's scopes
    /// cover. Nothing, if this is not called.
    #[must_use]
    pub fn grants(self, scopes: Scopes) -> Self {
        Self { grants: scopes, ..self }
    }

    /// What its calls in turn may do whoever the caller is. Each such call that the caller
    /// could not have made is in the audit log with this reason.
    #[must_use]
    pub fn elevated(self, scopes: Scopes, reason: &'static str) -> Self {
        Self { elevation: Some(Elevation { scopes, reason }), ..self }
    }

    /// The longest a call may take; `None`: for ever. A minute, if this is not called;
    /// subscriptions have no bound of their own.
    #[must_use]
    pub fn deadline(self, deadline: Option<Duration>) -> Self {
        Self { deadline, ..self }
    }

    /// Says that a subscription can go on behind an item: see [`Context::after`].
    #[must_use]
    pub fn resumable(mut self) -> Self {
        self.spec.resumable = true;
        self
    }

    /// What the world is told of it.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether the caller may use it; otherwise it does not exist for them.
    pub fn is_for(&self, auth: &AuthContext) -> bool {
        let scope = || auth.allows(Action::service("call").word(self.spec.name.as_str()));
        match &self.access {
            Access::Public => true,
            Access::Scope => scope(),
            Access::Also(action) => scope() && auth.allows(action.clone()),
            Access::Service(service) => {
                let scopes = auth.identity.as_ref().map(|identity| &identity.scopes);
                scope() || scopes.is_some_and(|scopes| scopes.admit(service))
            }
        }
    }

    /// The failure as it may leave the operation.
    pub(crate) fn admitted(&self, error: CallError) -> CallError {
        match &error.code {
            ErrorCode::Other(code) if !self.spec.errors.iter().any(|known| known.code == *code) => {
                CallError::internal(format!("{} failed with {code}, undeclared", self.spec.name))
            }
            _ => error,
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("name", &self.spec.name)
            .field("kind", &self.spec.kind)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Spec {
    /// An operation with no more than this.
    pub fn new(
        name: &str,
        kind: Kind,
        input: Schema,
        output: Schema,
    ) -> Result<Self, InvalidOperation> {
        let name = name.parse()?;
        let (description, errors) = (String::new(), Vec::new());
        Ok(Self { name, kind, description, input, output, errors, resumable: false })
    }
}

/// An output as JSON text.
pub(crate) fn output(value: &impl Serialize) -> Result<Output, CallError> {
    serde_json::value::to_raw_value(value).map_err(CallError::internal)
}

fn input<I: DeserializeOwned>(value: Value) -> Result<I, CallError> {
    serde_json::from_value(value).map_err(|error| CallError::invalid_input(error.to_string()))
}

type Typed<I, O> = PhantomData<fn(I) -> O>;

struct Unary<I, O, F>(F, Typed<I, O>);

impl<I, O, F, R> Handler for Unary<I, O, F>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + 'static,
    F: Fn(Context, I) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, CallError>> + Send + 'static,
{
    fn run(
        &self,
        context: Context,
        value: Value,
        _: Items,
    ) -> BoxFuture<'_, Result<Output, CallError>> {
        let running = input(value).map(|input| (self.0)(context, input));
        Box::pin(async { output(&running?.await?) })
    }
}

struct Subscribe<I, O, F>(F, Typed<I, O>);

impl<I, O, F, R> Handler for Subscribe<I, O, F>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(Context, I, Items<O>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), CallError>> + Send + 'static,
{
    fn run(
        &self,
        context: Context,
        value: Value,
        items: Items,
    ) -> BoxFuture<'_, Result<Output, CallError>> {
        let running = input(value).map(|input| (self.0)(context, input, items.typed()));
        Box::pin(async {
            running?.await?;
            Ok(RawValue::NULL.to_owned())
        })
    }
}
