//! The node: every part put together.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use alknet_core::{
    Access, Alpn, Audit, Dispatcher, Endpoint, EndpointConfig, HandlerRegistry, IdentityProvider,
    Limits, Listener, NodeId, NodeIdentity,
};
use alknet_http::{Decoy, HttpAdapter};
use alknet_ssh::{Account, HostKey, SshAdapter, SshConfig, SshLimits};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Services,
    audit::{AuditFile, AuditWriter},
    authorized_keys::AuthorizedKeys,
    certificates::{Certificates, Source},
    chain::ChainProvider,
    failure::Failure,
    home::{Home, ServeLock},
    keys::{Keys, Purpose},
    store::Store,
    web::{self, Web},
};

/// The protocol of HTTPS clients that name none.
const PLAIN_HTTPS: &str = "http/1.1";

/// What a node is told.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) cover: bool,
    /// What strangers see; without one and without cover, a page that says what this is.
    pub(crate) decoy: Option<Decoy>,
    pub(crate) certificate: Source,
    pub(crate) origins: Vec<String>,
    pub(crate) authorized_keys: Option<PathBuf>,
    pub(crate) name: String,
}

/// A node that serves.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) id: NodeId,
    pub(crate) account: String,
    home: Home,
    endpoint: Endpoint,
    audit: AuditWriter,
    stop: CancellationToken,
    tasks: TaskTracker,
    _lock: ServeLock,
}

impl Node {
    /// Opens the state folder and starts to serve.
    pub(crate) async fn start(
        home: &Home,
        settings: Settings,
        more: Services,
    ) -> Result<Self, Failure> {
        let lock = home.serve_lock()?;
        let keys = Keys::open(home)?;
        let identity = Arc::new(keys.identity()?);
        let host_key = HostKey::from_seed(&*keys.seed(Purpose::SshHost)?, &identity)?;
        let store = Store::open(home).await?;
        let certificates = Certificates::open(home, settings.certificate.clone())?;
        let (audit_file, audit_writer) = AuditFile::open(home)?;
        let audit = Audit::new(audit_file);
        let identities = identities(&store, settings.authorized_keys.clone());
        let account = Account::current()?;

        let web = Arc::new(Web {
            store: store.clone(),
            node: identity.clone(),
            audit: audit.clone(),
            account: account.name.clone(),
            name: settings.name.clone(),
            certificates: certificates.published.clone(),
        });
        let ssh = SshConfig {
            host_key,
            identities: identities.clone(),
            audit: audit.clone(),
            account: account.clone(),
            limits: SshLimits::default(),
        };
        let services = services(ssh, more, audit)?;
        let endpoint = listen(&settings, &identity, &certificates, &services, identities, web)?;
        home.write_address(endpoint.local_addr())?;

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(certificates.keep_fresh()));
        Ok(Self {
            store,
            id: identity.id(),
            account: account.name,
            home: home.clone(),
            endpoint,
            audit: audit_writer,
            stop,
            tasks,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Ends it in order; how many sessions had to be closed at the deadline.
    pub(crate) async fn stop(self, deadline: Duration) -> Result<usize, Failure> {
        let closed = self.endpoint.shutdown(deadline).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
        // The audit log is written by a thread of its own: this waits for the disk.
        self.audit.finish();
        self.home.remove_address()?;
        Ok(closed)
    }
}

fn identities(store: &Store, authorized_keys: Option<PathBuf>) -> Arc<dyn IdentityProvider> {
    let store: Arc<dyn IdentityProvider> = Arc::new(store.clone());
    match authorized_keys {
        None => store,
        Some(path) => {
            Arc::new(ChainProvider::new(vec![store, Arc::new(AuthorizedKeys::new(path))]))
        }
    }
}

/// The services of the node: a new protocol is one line here.
fn services(ssh: SshConfig, more: Services, audit: Audit) -> Result<Dispatcher, Failure> {
    let mut registry = HandlerRegistry::new();
    registry.register(SshAdapter::new(ssh), Access::Protocol)?;
    more(&mut registry)?;
    Ok(Dispatcher::new(registry, Limits::default(), audit))
}

/// Puts HTTP in front of the services, and all of it on one port.
fn listen(
    settings: &Settings,
    identity: &Arc<NodeIdentity>,
    certificates: &Certificates,
    services: &Dispatcher,
    identities: Arc<dyn IdentityProvider>,
    web: Arc<Web>,
) -> Result<Endpoint, Failure> {
    let shows_itself = !settings.cover && settings.decoy.is_none();
    let listener = Listener::bind(settings.listen)?;
    let http = HttpAdapter::builder(services.clone(), identities.clone(), identity.clone())
        .public(web::public(web.clone(), shows_itself))
        .private(web::private(web, shows_itself))
        .decoy(settings.decoy.clone().unwrap_or_default())
        .allowed_origins(settings.origins.clone())
        .cover(settings.cover)
        .alt_svc(listener.local_addr().port());
    let dispatcher = services.extend(http.build()?, Access::Public)?;
    let config = EndpointConfig {
        listen: settings.listen,
        identity: identity.clone(),
        web: certificates.tls.clone(),
        hide_services: settings.cover,
        fallback: Some(Alpn::new(PLAIN_HTTPS)?),
    };
    Ok(Endpoint::start(listener, &config, dispatcher, identities)?)
}
