//! A node with the SSH handler, and clients for it.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use alknet_core::{
    Access, Alpn, Audit, AuditEvent, AuditSink, AuthContext, BoxFuture, Connection, Credential,
    Dispatcher, HandlerRegistry, Identity, Limits, NodeId, NodeIdentity, SingleStream, Stream,
    TransportKind,
};
use alknet_host::{
    Account, AccountMap, Accounts, Recorder as SessionRecorder,
    network::{Policy, Resolve, Rule, Settings, Share},
};
use alknet_ssh::{
    ChannelService, HostKey, KeyExchange, RevokedKeys, SshAdapter, SshConfig, SshLimits, UserKey,
};
use alknet_testing::{
    identities::{Identities, identity},
    memory,
};
use russh::{
    ChannelMsg, ChannelReadHalf, Sig, client,
    client::Handle,
    keys::{
        Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
        key::safe_rng,
        ssh_key::{HashAlg, public::KeyData},
    },
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

/// Long enough for a busy machine, short enough that a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test when something does not happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: nothing happens"))
}

/// Never finds out where a name is.
struct Nowhere;

impl Resolve for Nowhere {
    fn resolve<'a>(&'a self, _: &'a str, _: Share) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
        Box::pin(std::future::pending())
    }
}

pub(crate) struct Node {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) identities: Arc<Identities>,
    pub(crate) audit: Recorder,
    pub(crate) revoked: RevokedKeys,
    pub(crate) account: Account,
    pub(crate) accounts: Accounts,
    /// It allows nothing by itself.
    pub(crate) network: Policy,
    pub(crate) id: NodeId,
    home: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with_limits(|_| {})
    }

    pub(crate) fn with_limits(change: impl FnOnce(&mut SshLimits)) -> Self {
        let mut limits = SshLimits::default();
        change(&mut limits);
        Self::with(limits, Limits::default(), Vec::new(), None, None)
    }

    pub(crate) fn with_services(services: Vec<Arc<dyn ChannelService>>) -> Self {
        Self::with(SshLimits::default(), Limits::default(), services, None, None)
    }

    /// One that serves accounts to whom they are mapped, and they are to nobody yet.
    pub(crate) fn unmapped(services: Vec<Arc<dyn ChannelService>>) -> Self {
        let accounts = |own| Accounts::mapped(own, AccountMap::default());
        Self::serving(accounts, SshLimits::default(), Limits::default(), services, None, None)
    }

    pub(crate) fn with_recorder(recorder: Arc<dyn SessionRecorder>) -> Self {
        Self::with(SshLimits::default(), Limits::default(), Vec::new(), Some(recorder), None)
    }

    pub(crate) fn with_banner(banner: &str) -> Self {
        Self::with(SshLimits::default(), Limits::default(), Vec::new(), None, Some(banner))
    }

    pub(crate) fn with_node_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self::with(SshLimits::default(), limits, Vec::new(), None, None)
    }

    fn with(
        limits: SshLimits,
        of_node: Limits,
        services: Vec<Arc<dyn ChannelService>>,
        recorder: Option<Arc<dyn SessionRecorder>>,
        banner: Option<&str>,
    ) -> Self {
        Self::serving(Accounts::own, limits, of_node, services, recorder, banner)
    }

    fn serving(
        accounts: fn(Account) -> Accounts,
        limits: SshLimits,
        of_node: Limits,
        services: Vec<Arc<dyn ChannelService>>,
        recorder: Option<Arc<dyn SessionRecorder>>,
        banner: Option<&str>,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut account = Account::current().unwrap();
        account.home = home.path().into();
        account.shell = "/bin/bash".into();
        let accounts = accounts(account.clone());
        let node = NodeIdentity::from_seed(&[1; 32]).unwrap();
        let identities = Arc::new(Identities::new());
        let audit = Recorder::default();
        let revoked = RevokedKeys::default();
        let network = Policy::with_resolver(Settings::default(), Nowhere);
        let adapter = SshAdapter::new(SshConfig {
            host_key: HostKey::from_seed(&[2; 32], &node).unwrap(),
            identities: identities.clone(),
            audit: Audit::new(audit.clone()),
            accounts: accounts.clone(),
            limits,
            key_exchange: KeyExchange::default(),
            accept_env: vec!["LISTED".into(), "ANY_*".into()],
            set_env: vec![("ANY_SET".into(), "by the node".into())],
            banner: banner.map(str::to_owned),
            revoked_keys: revoked.clone(),
            recorder,
            services,
            network: network.clone(),
        });
        let mut registry = HandlerRegistry::new();
        registry.register(adapter, Access::Protocol).unwrap();
        let dispatcher = Dispatcher::new(registry, of_node, Audit::new(audit.clone()));
        let id = node.id();
        Self { dispatcher, identities, audit, revoked, account, accounts, network, id, home }
    }

    /// Where sessions start.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home().join(name)
    }

    /// A key of somebody with these scopes.
    pub(crate) fn user(&self, name: &str, scopes: &[&str]) -> Arc<PrivateKey> {
        let key = new_key();
        self.authorise(key.public_key(), name, scopes);
        key
    }

    pub(crate) fn authorise(&self, key: &PublicKey, name: &str, scopes: &[&str]) {
        let key = UserKey::parse(&key.to_openssh().unwrap()).unwrap();
        let credential = Credential::Key(key.fingerprint());
        let identity = Identity { credential, ..identity(name, scopes) };
        self.identities.add_key(key.fingerprint(), identity);
    }

    /// Lets callers with a grant connect to these, and listen on those.
    pub(crate) fn allow(&self, connect: &[&str], listen: &[&str]) {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let rule = Rule { connect: parsed(connect), listen: parsed(listen), ..Rule::default() };
        self.network.replace(Settings { rules: vec![rule], ..Settings::default() });
    }

    /// Takes somebody's key away, and looks for who has to leave.
    pub(crate) async fn revoke(&self, key: &PrivateKey) {
        let key = UserKey::parse(&key.public_key().to_openssh().unwrap()).unwrap();
        self.identities.revoke_key(&key.fingerprint());
        self.dispatcher.recheck(&*self.identities).await;
    }

    /// The client's end of a new connection that the handler serves.
    pub(crate) fn connect(&self) -> Connection {
        let (near, far) = memory::pair();
        let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4711));
        let alpn = Alpn::service("ssh").unwrap();
        let auth = AuthContext::anonymous(alpn, TransportKind::Memory, Some(peer));
        drop(self.dispatcher.admit(auth).unwrap().start(far));
        near
    }

    /// An SSH client on a connection of its own that has not logged in.
    pub(crate) async fn client(&self) -> Handle<Trust> {
        self.client_on(self.connect()).await
    }

    pub(crate) async fn client_on(&self, connection: Connection) -> Handle<Trust> {
        let stream = connection.open_bi().await.unwrap();
        let mut config = client::Config::default();
        config.preferred.host_key_certificates = vec![Algorithm::Ed25519].into();
        let trust = self.trust(connection);
        client::connect_stream(Arc::new(config), stream, trust).await.unwrap()
    }

    /// Trust in this node, holding a connection to it.
    pub(crate) fn trust(&self, connection: Connection) -> Trust {
        Trust { node: self.id, _connection: connection }
    }

    /// An SSH client that has logged in with a new key.
    pub(crate) async fn session(&self) -> Handle<Trust> {
        let key = self.user("alice", &["ssh"]);
        let mut client = self.client().await;
        assert!(self.log_in(&mut client, key).await);
        client
    }

    pub(crate) async fn log_in(&self, client: &mut Handle<Trust>, key: Arc<PrivateKey>) -> bool {
        log_in_as(client, &self.account.name, key).await
    }

    /// Serves TCP connections in the background for as long as the set lives.
    pub(crate) async fn listen(&self) -> (u16, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dispatcher = self.dispatcher.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                let (tcp, peer) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let alpn = Alpn::service("ssh").unwrap();
                let auth = AuthContext::anonymous(alpn, TransportKind::Tls, Some(peer));
                let stream = Stream::from_bistream(tcp);
                let connection = SingleStream::accepted(TransportKind::Tls, stream);
                drop(dispatcher.admit(auth).unwrap().start(Connection::new(connection)));
            }
        });
        (port, tasks)
    }
}

pub(crate) async fn log_in_as(
    client: &mut Handle<Trust>,
    name: &str,
    key: Arc<PrivateKey>,
) -> bool {
    let key = PrivateKeyWithHashAlg::new(key, Some(HashAlg::Sha512));
    let answer = client.authenticate_publickey(name, key).await;
    answer.is_ok_and(|answer| answer.success())
}

pub(crate) fn new_key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap())
}

/// Trusts the host key that the node's identity certified, and holds the connection.
pub(crate) struct Trust {
    node: NodeId,
    _connection: Connection,
}

impl client::Handler for Trust {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::Certificate(certificate) = key else { return Ok(false) };
        let authority =
            KeyData::from(russh::keys::ssh_key::public::Ed25519PublicKey(*self.node.as_bytes()));
        let authority = PublicKey::from(authority).fingerprint(HashAlg::Sha256);
        Ok(certificate.cert_type().is_host() && certificate.validate([&authority]).is_ok())
    }
}

/// Keeps every audit event.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Recorder {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Recorder {
    pub(crate) fn events(&self) -> Vec<AuditEvent> {
        self.0.lock().unwrap().clone()
    }

    /// The events of one kind, in order.
    pub(crate) fn of(&self, kind: &str) -> Vec<AuditEvent> {
        self.events().into_iter().filter(|event| event.event == kind).collect()
    }

    /// Why callers were refused, in order.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let refused = |event: &AuditEvent| event.event == AuditEvent::REFUSED;
        self.events().into_iter().filter(refused).filter_map(|event| event.reason).collect()
    }
}

/// What came out of a program.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: Option<u32>,
    pub(crate) signal: Option<Sig>,
    pub(crate) refused: bool,
    /// Whether nothing came after the exit status or signal but the channel's end.
    pub(crate) ordered: bool,
}

impl Outcome {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs a command and reads everything that comes of it.
pub(crate) async fn run(client: &Handle<Trust>, command: &str) -> Outcome {
    let channel = client.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    let (mut read, write) = channel.split();
    write.eof().await.unwrap();
    outcome(&mut read).await
}

/// Reads a channel to its end.
pub(crate) async fn outcome(read: &mut ChannelReadHalf) -> Outcome {
    let mut outcome = Outcome { ordered: true, ..Outcome::default() };
    let reading = async {
        while let Some(message) = read.wait().await {
            let over = outcome.status.is_some() || outcome.signal.is_some();
            match message {
                ChannelMsg::Data { data } => {
                    outcome.ordered &= !over;
                    outcome.stdout.extend_from_slice(&data);
                }
                ChannelMsg::ExtendedData { data, ext: 1 } => {
                    outcome.ordered &= !over;
                    outcome.stderr.extend_from_slice(&data);
                }
                ChannelMsg::ExitStatus { exit_status } => outcome.status = Some(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => outcome.signal = Some(signal_name),
                ChannelMsg::Failure => {
                    outcome.refused = true;
                    return;
                }
                ChannelMsg::Close => return,
                _ => {}
            }
        }
    };
    soon("the program", reading).await;
    outcome
}
