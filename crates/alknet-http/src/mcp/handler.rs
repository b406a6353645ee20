//! The methods of MCP.

use alknet_call::{ErrorCode, OperationRegistry, Request};
use alknet_core::AuthContext;
use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestMethod,
        CompleteRequestParams, CompleteResult, ListPromptsRequestMethod, ListPromptsResult,
        ListResourceTemplatesRequestMethod, ListResourceTemplatesResult,
        ListResourcesRequestMethod, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
        ServerConfig, Tool,
    },
    service::{NotificationContext, RequestContext},
};
use serde_json::Value;

use super::{
    answer::Lease,
    result::{self, Progress},
    tool::{INPUT, is_object, is_tool, operation_name, tool},
};

/// Answers the requests of one caller, or of one session.
pub(super) struct Tools {
    operations: OperationRegistry,
    info: ServerConfig,
    /// Who sent the request that this was made for. Later ones of a session bring their own.
    auth: AuthContext,
}

impl Tools {
    pub(super) fn new(
        operations: OperationRegistry,
        info: ServerConfig,
        auth: AuthContext,
    ) -> Self {
        Self { operations, info, auth }
    }

    fn visible(&self, auth: &AuthContext) -> Vec<Tool> {
        let visible = self.operations.visible(auth);
        let tools = visible.iter().filter(|operation| is_tool(operation));
        tools.map(|operation| tool(operation.spec())).collect()
    }

    async fn call(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let lease = lease(&context)?;
        let name = operation_name(&params.name).ok_or_else(unknown)?;
        let operation = self.operations.find(name.as_str(), &lease.auth);
        if operation.as_ref().is_some_and(|operation| !is_tool(operation)) {
            return Err(unknown());
        }
        let mut arguments = params.arguments.unwrap_or_default();
        let takes_object = operation.as_ref().is_none_or(|operation| {
            operation.spec().input.json().as_object().is_some_and(is_object)
        });
        let input = match takes_object {
            true => Value::Object(arguments),
            false => arguments.remove(INPUT).unwrap_or_default(),
        };
        let request = Request::new(name.as_str(), lease.auth.clone()).input(input);
        let execution = match self.operations.start(request) {
            Ok(execution) => execution,
            Err(error) if error.code == ErrorCode::NotFound => return Err(unknown()),
            Err(error) => return Ok(result::failed(&error).into()),
        };
        let progress = Progress::of(&context);
        let result = tokio::select! {
            result = result::of(execution, progress, &lease.shutdown) => result,
            // Dropping the execution has ended the operation. Nobody reads this.
            () = context.ct.cancelled() => return Err(cancelled()),
            () = lease.over() => return Err(cancelled()),
        };
        Ok(result.into())
    }
}

fn lease(context: &RequestContext<RoleServer>) -> Result<Lease, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    let lease = parts.and_then(|parts| parts.extensions.get::<Lease>()).cloned();
    lease.ok_or_else(|| ErrorData::internal_error("no caller", None))
}

/// The one answer for a tool that does not exist and for one that the caller may not use. It
/// does not repeat the name, so that the two are the same to the byte.
fn unknown() -> ErrorData {
    ErrorData::invalid_params("there is no such tool", None)
}

fn cancelled() -> ErrorData {
    ErrorData::internal_error("cancelled", None)
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        self.info.clone()
    }

    /// For what the transport checks of headers. It has no more than the name.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let operation = self.operations.find(operation_name(name)?.as_str(), &self.auth)?;
        is_tool(&operation).then(|| tool(operation.spec()))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self.visible(&lease(&context)?.auth);
        // What the caller may use can change at any time, and is nobody else's list.
        let list = ListToolsResult::with_all_items(tools).with_ttl_ms(0);
        Ok(list.with_cache_scope(CacheScope::Private))
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.call(params, context).await
    }

    async fn on_initialized(&self, _: NotificationContext<RoleServer>) {}

    // What the node has none of does not exist, rather than being an empty list.

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListPromptsRequestMethod>())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListResourcesRequestMethod>())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Err(ErrorData::method_not_found::<ListResourceTemplatesRequestMethod>())
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        Err(ErrorData::method_not_found::<CompleteRequestMethod>())
    }
}
