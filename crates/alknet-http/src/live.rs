//! What changes while an adapter serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;

use crate::{
    app::Routes,
    decoy::{Decoy, DecoyError, Site},
    origin::Origins,
};

/// The settings of an [`HttpAdapter`](crate::HttpAdapter) that can change while it serves,
/// as [`HttpAdapter::live`](crate::HttpAdapter::live) gives them.
///
/// A change holds for every request that comes after it, on connections old and new.
/// Answers under way and open tunnels go on as they began. Requests take no lock to read
/// them.
#[derive(Debug, Clone)]
pub struct Live {
    pub(crate) site: Site,
    pub(crate) origins: Origins,
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) max_body: usize,
}

impl Live {
    /// What everything looks like that is not to be seen. On an error the old decoy stays.
    pub fn set_decoy(&self, decoy: Decoy) -> Result<(), DecoyError> {
        self.site.replace(decoy)
    }

    /// The origins, such as `https://app.example`, whose pages may open tunnels beside the
    /// node's own.
    pub fn set_allowed_origins(&self, origins: Vec<String>) {
        self.origins.replace(origins);
    }

    /// The routes in the place of those that [`Builder::public`](crate::Builder::public) and
    /// [`Builder::private`](crate::Builder::private) gave.
    pub fn set_routes(&self, public: Router, private: Router) {
        let routes = Routes::new(public, private, &self.site, self.max_body);
        self.routes.store(Arc::new(routes));
    }
}
