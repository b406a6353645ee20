//! What HTTP serves beside the tunnels to services.

use std::sync::Arc;

use alknet_call::OperationRegistry;
use alknet_git::GitServer;
use alknet_http::{
    api,
    mcp::{self, Mcp},
};
use axum::Router;

use crate::{
    git,
    node::Settings,
    web::{self, Web},
};

/// Makes the routes of a node, for the settings of the moment. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    pub(crate) web: Arc<Web>,
    pub(crate) operations: OperationRegistry,
    /// The repositories.
    pub(crate) git: GitServer,
    /// Has sessions, and so stays when the routes change.
    pub(crate) mcp: Mcp,
}

/// The operations as an MCP server.
pub(crate) fn mcp(operations: &OperationRegistry, settings: &Settings) -> Mcp {
    Mcp::new(operations.clone(), mcp::Server::new(&settings.name, env!("CARGO_PKG_VERSION")))
}

impl Routes {
    /// The routes open to all.
    pub(crate) fn public(&self, settings: &Settings) -> Router {
        let shows_itself = settings.shows_itself();
        let router = web::public(self.web.clone(), shows_itself);
        if !shows_itself {
            return router;
        }
        router
            .merge(api::preflights(&of_api(settings)))
            .merge(self.mcp.challenge())
            .merge(git::http::public(self.git.clone()))
    }

    /// The routes for known callers.
    pub(crate) fn private(&self, settings: &Settings) -> Router {
        let router = web::private(self.web.clone(), settings.shows_itself())
            .merge(api::routes(self.operations.clone(), of_api(settings)))
            .merge(self.mcp.routes());
        if settings.shows_itself() {
            return router;
        }
        router.merge(git::http::hidden(self.git.clone()))
    }
}

fn of_api(settings: &Settings) -> api::Settings {
    let mut api = api::Settings::default();
    api.version = env!("CARGO_PKG_VERSION").to_owned();
    api.cors_origins = settings.cors_origins();
    api
}
