//! The node: every part put together.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use alknet_call::{CallAdapter, CallLimits, OperationRegistry, Peers};
use alknet_core::{
    Access, Alpn, Audit, BoxFuture, Dispatcher, Endpoint, EndpointConfig, HandlerRegistry,
    IdentityProvider, Listener, NodeId, NodeIdentity, ResetKey, WebCertificates,
};
use alknet_forward::ForwardAdapter;
use alknet_git::{GitAdapter, GitServer};
use alknet_host::Accounts;
use alknet_http::{Decoy, HttpAdapter};
use alknet_sftp::{SftpAdapter, SftpServer};
use alknet_ssh::{ChannelService, HostKey, RevokedKeys, SshAdapter, SshConfig, SshLimits};
use alknet_vault::Purpose;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Additions, Services,
    audit::{AuditFile, AuditWriter},
    authorized_keys::AuthorizedKeys,
    certificates::{self, Certificates},
    chain::{ChainProvider, Sources},
    config::Config,
    failure::Failure,
    forward,
    git::{self, Hosting},
    home::{Home, ServeLock},
    imports,
    keys::Keys,
    live::Live,
    operations::{self, Parts},
    people::People,
    recordings::Recordings,
    routes::{self, Routes},
    sftp, shells,
    store::Store,
    web::{self, Web},
};

/// The protocol of HTTPS clients that name none.
const PLAIN_HTTPS: &str = "http/1.1";

/// What a node is told.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The flags of the command line are in it.
    pub(crate) config: Config,
    /// Names for a self-signed certificate.
    pub(crate) names: Vec<String>,
    pub(crate) name: String,
}

impl Settings {
    pub(crate) fn certificate(&self) -> certificates::Source {
        match &self.config.certificate {
            Some(files) => certificates::Source::Files {
                certificate: files.chain.to_path_buf(),
                key: files.key.to_path_buf(),
            },
            None => certificates::Source::SelfSigned { names: self.names.clone() },
        }
    }

    pub(crate) fn decoy(&self) -> Decoy {
        self.config.decoy.clone().map(Decoy::from).unwrap_or_default()
    }

    pub(crate) fn origins(&self) -> Vec<String> {
        self.config.origins.iter().cloned().map(String::from).collect()
    }

    pub(crate) fn cors_origins(&self) -> Vec<String> {
        self.config.api.cors_origins.iter().cloned().map(String::from).collect()
    }

    pub(crate) fn revoked_keys(&self) -> Option<PathBuf> {
        self.config.ssh.revoked_keys.as_deref().map(PathBuf::from)
    }

    /// Whether strangers see a page that says what this is.
    pub(crate) fn shows_itself(&self) -> bool {
        !self.config.cover && self.config.decoy.is_none()
    }
}

/// A node that serves.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) id: NodeId,
    pub(crate) account: String,
    home: Home,
    endpoint: Endpoint,
    audit: AuditWriter,
    live: Live,
    stop: CancellationToken,
    tasks: TaskTracker,
    lock: ServeLock,
}

impl Node {
    /// Opens the state folder and starts to serve.
    pub(crate) async fn start(
        home: &Home,
        settings: Settings,
        more: Services,
    ) -> Result<Self, Failure> {
        let lock = home.serve_lock()?;
        let keys = Keys::open(home).await?;
        let identity = Arc::new(keys.identity()?);
        let host_key = HostKey::from_seed(keys.key(Purpose::SshHost)?.expose(), &identity)?;
        let store = Store::open(home).await?;
        let seed = keys.key(Purpose::WebCertificate)?;
        let certificates = Arc::new(Certificates::open(home, settings.certificate(), seed)?);
        let (audit_file, audit_writer) = AuditFile::open(home, settings.config.audit.limits())?;
        let audit = Audit::new(audit_file);
        let identities = Arc::new(ChainProvider::new(providers(&store, &settings.config)?));
        let rules = settings.config.recordings.rules();
        let recordings = Recordings::open(home, audit.clone(), rules)?;
        let accounts = accounts(&settings.config)?;

        let web = Arc::new(Web {
            store: store.clone(),
            identities: identities.clone(),
            node: identity.clone(),
            audit: audit.clone(),
            accounts: accounts.clone(),
            name: settings.name.clone(),
            certificates: certificates.published.clone(),
        });
        let revoked_keys = RevokedKeys::new(settings.revoked_keys());
        let network = forward::policy(&settings.config.forward, &accounts);
        let sftp = sftp::server(&settings.config.sftp, &accounts, &audit).await?;
        let git = git::host(home, &settings.config.git, &audit, &identity, &identities).await?;
        let ssh = SshConfig {
            revoked_keys: revoked_keys.clone(),
            recorder: Some(Arc::new(recordings.clone())),
            services: channel_services(&sftp, &git.server),
            network: network.clone(),
            ..ssh(host_key, &web, &settings.config)
        };
        let offered = services(ssh, sftp, &git.server, more, &audit, &settings.config)?;
        let listener = Listener::bind(settings.config.listen)?;
        let parts = parts(home, &web, &certificates, &offered, &git, listener.local_addr());
        operations::mount(&offered.operations, parts)?;
        let Offered { services, operations, .. } = offered;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        imports::start(&settings.config, &operations, &tasks, &stop).await?;
        let mcp = routes::mcp(&operations, &settings);
        let routes = Routes { web, mcp, operations, git: git.server.clone() };
        web::metrics::record();
        let faces = Faces::new(&identity, &certificates, &keys)?;
        let (endpoint, http) =
            listen(&settings, listener, faces, &services, identities.clone(), &routes)?;
        let account = accounts.node().name.clone();
        let live = Live {
            recordings,
            http,
            accounts,
            certificates: certificates.clone(),
            identities,
            network,
            revoked_keys,
            routes,
            store: store.clone(),
        };
        home.write_address(endpoint.local_addr())?;

        let (identities, keeper) = (live.identities.clone(), git.keeper);
        let until_stopped = |task: BoxFuture<'static, ()>| {
            tasks.spawn(stop.clone().run_until_cancelled_owned(task));
        };
        until_stopped(Box::pin(certificates.keep_fresh()));
        until_stopped(Box::pin(async move { match services.watch(&*identities).await {} }));
        until_stopped(Box::pin(async move { keeper.run().await }));
        Ok(Self {
            store,
            id: identity.id(),
            account,
            home: home.clone(),
            endpoint,
            audit: audit_writer,
            live,
            stop,
            tasks,
            lock,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// What can be called.
    pub(crate) fn operations(&self) -> &OperationRegistry {
        &self.live.routes.operations
    }

    /// The server of the repositories.
    pub(crate) fn git(&self) -> &GitServer {
        &self.live.routes.git
    }

    /// What takes new settings while it serves.
    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    /// The claim on the state folder.
    pub(crate) fn lock(&self) -> &ServeLock {
        &self.lock
    }

    /// Ends it in order; how many sessions had to be closed at the deadline.
    pub(crate) async fn stop(self, deadline: Duration) -> Result<usize, Failure> {
        let began = Instant::now();
        let closed = self.endpoint.shutdown(deadline).await;
        // A push may be without a session by now, and not yet done.
        self.live.routes.git.shutdown(deadline.saturating_sub(began.elapsed())).await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        // What has just ended is written to its end, and named in the audit log.
        self.live.recordings.settle(deadline);
        self.store.close().await;
        // The audit log is written by a thread of its own: this waits for the disk.
        self.audit.finish();
        self.home.remove_address()?;
        Ok(closed)
    }
}

/// Who knows the callers, the first to ask at the head. Also for settings to come.
pub(crate) fn providers(store: &Store, config: &Config) -> Result<Sources, Failure> {
    let mut providers = vec![store.source()];
    if let Some(path) = &config.identities {
        providers.push(Arc::new(People::open(path.to_path_buf())?));
    }
    if let Some(path) = config.authorized_keys.file()? {
        providers.push(Arc::new(AuthorizedKeys::new(path)));
    }
    Ok(providers)
}

/// Who may use which account.
fn accounts(config: &Config) -> Result<Accounts, Failure> {
    let leader = config.pam.leader(&std::env::current_exe()?);
    Ok(Accounts::of_process(config.accounts.mapping(), leader)?)
}

/// SSH by itself.
fn ssh(host_key: HostKey, web: &Web, config: &Config) -> SshConfig {
    SshConfig {
        host_key,
        identities: web.identities.clone(),
        audit: web.audit.clone(),
        accounts: web.accounts.clone(),
        limits: SshLimits::default(),
        key_exchange: config.ssh.key_exchange.into(),
        accept_env: config.ssh.accept_env.clone(),
        set_env: config.ssh.set_env.iter().cloned().map(Into::into).collect(),
        banner: config.ssh.banner.as_ref().map(|text| format!("{}\n", text.trim_end())),
        revoked_keys: RevokedKeys::new(None),
        recorder: None,
        services: Vec::new(),
        network: forward::policy(&config.forward, &web.accounts),
    }
}

/// What a node offers.
struct Offered {
    services: Dispatcher,
    operations: OperationRegistry,
    /// Who can be called in turn.
    peers: Peers,
}

/// What the node's own operations work on.
fn parts(
    home: &Home,
    web: &Web,
    certificates: &Arc<Certificates>,
    offered: &Offered,
    git: &Hosting,
    address: SocketAddr,
) -> Parts {
    Parts {
        home: home.clone(),
        store: web.store.clone(),
        identities: web.identities.clone(),
        certificates: certificates.clone(),
        dispatcher: offered.services.clone(),
        peers: offered.peers.clone(),
        accounts: web.accounts.clone(),
        git: git.server.clone(),
        keeper: git.keeper.clone(),
        id: web.node.id(),
        name: web.name.clone(),
        address,
        started: Instant::now(),
    }
}

/// The services of the node, a new protocol is one line here, and what can be called.
fn services(
    ssh: SshConfig,
    sftp: SftpServer,
    git: &GitServer,
    more: Services,
    audit: &Audit,
    config: &Config,
) -> Result<Offered, Failure> {
    let mut all = Additions { handlers: HandlerRegistry::new(), operations: Vec::new() };
    let forward = ForwardAdapter::new(ssh.network.clone(), audit.clone());
    all.register(forward, Access::Scope)?;
    let (accounts, identities) = (ssh.accounts.clone(), ssh.identities.clone());
    let (recorder, limits) = (ssh.recorder.clone(), config.shell.limits());
    let shells = shells::adapter(accounts, identities, audit.clone(), recorder, limits);
    all.register(shells, Access::Scope)?;
    all.register(SshAdapter::new(ssh), config.ssh.access.into())?;
    all.register(SftpAdapter::new(sftp), Access::Scope)?;
    all.register(GitAdapter::new(git.clone()), Access::Scope)?;
    more(&mut all)?;
    let operations = OperationRegistry::new(audit.clone(), all.operations)?;
    let peers = Peers::new();
    let call = CallAdapter::new(operations.clone(), CallLimits::default(), peers.clone());
    // The operations on repositories go by grants of git alone.
    all.handlers.register(call, Access::ScopeOr(&["git"]))?;
    let services = Dispatcher::new(all.handlers, config.limits.of_node(), audit.clone());
    Ok(Offered { services, operations, peers })
}

/// What the node shows of itself in a handshake.
struct Faces {
    identity: Arc<NodeIdentity>,
    web: WebCertificates,
    resets: ResetKey,
}

/// What SSH channels carry beside programs.
fn channel_services(sftp: &SftpServer, git: &GitServer) -> Vec<Arc<dyn ChannelService>> {
    vec![Arc::new(sftp::Subsystem(sftp.clone())), Arc::new(git::ssh::Commands(git.clone()))]
}

impl Faces {
    fn new(
        identity: &Arc<NodeIdentity>,
        certificates: &Certificates,
        keys: &Keys,
    ) -> Result<Self, Failure> {
        let resets = ResetKey::new(keys.key(Purpose::QuicTokens)?.expose());
        Ok(Self { identity: identity.clone(), web: certificates.tls.clone(), resets })
    }
}

/// Puts HTTP in front of the services, and all of it on one port.
fn listen(
    settings: &Settings,
    listener: Listener,
    faces: Faces,
    services: &Dispatcher,
    identities: Arc<dyn IdentityProvider>,
    routes: &Routes,
) -> Result<(Endpoint, alknet_http::Live), Failure> {
    let config = &settings.config;
    let http = HttpAdapter::builder(services.clone(), identities.clone(), faces.identity.clone())
        .public(routes.public(settings))
        .private(routes.private(settings))
        .decoy(settings.decoy())
        .allowed_origins(settings.origins())
        .basic(git::http::PREFIX)
        .cover(config.cover)
        .alt_svc(listener.local_addr().port())
        .build()?;
    let live = http.live();
    let dispatcher = services.extend(http, Access::Public)?;
    let config = EndpointConfig {
        listen: config.listen,
        identity: faces.identity,
        web: faces.web,
        hide_services: config.cover,
        fallback: Some(Alpn::new(PLAIN_HTTPS)?),
        resets: Some(faces.resets),
    };
    Ok((Endpoint::start(listener, &config, dispatcher, identities)?, live))
}
