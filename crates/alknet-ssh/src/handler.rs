//! The handler of `alknet/ssh`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use alknet_core::{
    Alpn, Audit, AuthContext, Code, Connection, HandlerError, IdentityProvider, ProtocolHandler,
    Refusals,
};
use alknet_host::{Accounts, Recorder, network::Policy};
use russh::{MethodKind, MethodSet, SshId, server};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{ChannelService, HostKey, KeyExchange, RevokedKeys, algorithms, transport, window};

/// Bounds of the SSH server, each with a default that suits a small node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SshLimits {
    /// SSH transports in progress on one connection: one per stream.
    pub transports: usize,
    /// Open channels of one SSH transport on which something runs or could be started.
    pub channels: usize,
    /// Forwarded connections of one SSH transport, those to the client's agent included.
    pub forwards: usize,
    /// What one SSH transport has the node listen on.
    pub listeners: usize,
    /// How long a login may take, from the first byte.
    pub login_timeout: Duration,
    /// How many keys a client may try.
    pub login_attempts: usize,
    /// How long processes that were told to hang up get to end before they are killed.
    pub hangup_grace: Duration,
    /// How long a client may be silent before it is asked for a sign of life. After three
    /// that went unanswered its transport is closed.
    pub keepalive: Duration,
    /// How many bytes go one way before new keys are exchanged: at most a gibibyte.
    pub rekey_bytes: usize,
    /// After how long new keys are exchanged.
    pub rekey_time: Duration,
}

impl Default for SshLimits {
    fn default() -> Self {
        Self {
            transports: 64,
            channels: 64,
            forwards: 128,
            listeners: 32,
            login_timeout: Duration::from_secs(30),
            login_attempts: 6,
            hangup_grace: Duration::from_secs(5),
            keepalive: Duration::from_secs(60),
            rekey_bytes: MOST_BYTES,
            rekey_time: Duration::from_secs(60 * 60),
        }
    }
}

/// What an [`SshAdapter`] is made from.
#[derive(Debug)]
pub struct SshConfig {
    /// The key that hosts prove themselves with.
    pub host_key: HostKey,
    /// Who has which key, and who is trusted through which authority.
    pub identities: Arc<dyn IdentityProvider>,
    /// Where logins and refusals are recorded.
    pub audit: Audit,
    /// Who sessions run as.
    pub accounts: Accounts,
    /// Bounds.
    pub limits: SshLimits,
    /// Which key exchanges are offered.
    pub key_exchange: KeyExchange,
    /// The variables that clients may set for what they run, besides those of the language
    /// and of the terminal's colours; a `*` at the end stands for any ending. Some change
    /// what a program loads or runs.
    pub accept_env: Vec<String>,
    /// Variables that everything that is run has, whatever clients set.
    pub set_env: Vec<(String, String)>,
    /// What clients are shown before they log in.
    pub banner: Option<String>,
    /// What is taken out of use, whoever it belongs to. A clone can be given another file
    /// later.
    pub revoked_keys: RevokedKeys,
    /// What subsystems and commands are offered to before they run as programs.
    pub services: Vec<Arc<dyn ChannelService>>,
    /// What clients may have of the network.
    pub network: Policy,
    /// What records sessions with a terminal, if anything does.
    pub recorder: Option<Arc<dyn Recorder>>,
}

/// The handler of `alknet/ssh`: every stream that the peer opens is one independent SSH
/// transport.
#[derive(Debug)]
pub struct SshAdapter {
    settings: Arc<Settings>,
}

/// What all transports of an adapter share.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) russh: Arc<server::Config>,
    pub(crate) identities: Arc<dyn IdentityProvider>,
    pub(crate) audit: Audit,
    /// What those are refused who have logged in.
    pub(crate) refusals: Refusals,
    pub(crate) accounts: Accounts,
    pub(crate) limits: SshLimits,
    pub(crate) revoked_keys: RevokedKeys,
    pub(crate) accept_env: Vec<String>,
    pub(crate) set_env: Vec<(String, String)>,
    pub(crate) banner: Option<String>,
    pub(crate) services: Vec<Arc<dyn ChannelService>>,
    pub(crate) network: Policy,
    pub(crate) recorder: Option<Arc<dyn Recorder>>,
    pub(crate) draining: CancellationToken,
}

impl SshAdapter {
    /// A handler with this configuration.
    pub fn new(config: SshConfig) -> Self {
        let settings = Settings {
            russh: Arc::new(russh_config(&config)),
            identities: config.identities,
            refusals: Refusals::new(config.audit.clone()),
            audit: config.audit,
            accounts: config.accounts,
            limits: config.limits,
            revoked_keys: config.revoked_keys,
            accept_env: config.accept_env,
            set_env: config.set_env,
            banner: config.banner,
            services: config.services,
            network: config.network,
            recorder: config.recorder,
            draining: CancellationToken::new(),
        };
        Self { settings: Arc::new(settings) }
    }
}

/// The largest channel packet, as OpenSSH has it.
pub(crate) const PACKET: u32 = 32 * 1024;

/// How much one key may encrypt: a gibibyte, as RFC 4253, section 9, recommends it.
const MOST_BYTES: usize = 1 << 30;

fn russh_config(config: &SshConfig) -> server::Config {
    let bytes = config.limits.rekey_bytes.min(MOST_BYTES);
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-alknet")),
        methods,
        // A rejection sleeps in the session loop. Guesses cost as much as they should
        // without it: attempts are few, and a key cannot be guessed.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: None,
        keys: vec![config.host_key.key().clone()],
        certificates: vec![config.host_key.certificate().clone()],
        preferred: algorithms::preferred(config.key_exchange),
        max_auth_attempts: config.limits.login_attempts,
        window_size: window::INITIAL,
        maximum_packet_size: PACKET,
        inactivity_timeout: None,
        keepalive_interval: Some(config.limits.keepalive),
        keepalive_max: 3,
        limits: russh::Limits::new(bytes, bytes, config.limits.rekey_time),
        ..server::Config::default()
    }
}

impl ProtocolHandler for SshAdapter {
    fn name(&self) -> &'static str {
        "ssh"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("ssh"))
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let mut transports = JoinSet::new();
        let limit = self.settings.limits.transports;
        loop {
            tokio::select! {
                stream = connection.accept_bi(), if transports.len() < limit => {
                    let Ok(mut stream) = stream else { break };
                    if auth.session.is_banned(&auth) {
                        stream.reset(Code::LIMIT);
                        continue;
                    }
                    let span = tracing::debug_span!("ssh", stream = stream.id());
                    let transport = transport::serve(self.settings.clone(), stream, auth.clone());
                    transports.spawn(transport.instrument(span));
                }
                Some(ended) = transports.join_next() => log_panic(ended),
                () = sleep(self.settings.limits.login_timeout), if transports.is_empty() => {
                    connection.close(Code::TIMEOUT, "");
                    break;
                }
            }
        }
        while let Some(ended) = transports.join_next().await {
            log_panic(ended);
        }
        Ok(())
    }

    async fn shutdown(&self) {
        self.settings.draining.cancel();
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "an SSH transport panicked");
    }
}
