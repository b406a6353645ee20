//! A node with the shell handler, a network that fails on demand, and viewers.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use alknet_core::{
    Access, Alpn, Audit, AuthContext, BoxFuture, Connection, Dispatcher, HandlerRegistry, Identity,
    IdentityProvider as _, KeyFingerprint, Limits, Scopes, SingleStream, Stream, TransportKind,
};
use alknet_host::{Account, Accounts, Recorder};
use alknet_shell::{
    ShellAdapter, ShellConfig, ShellLimits, Shells,
    client::{self, DialError, Event, Outcome, Request, User, ViewError},
    wire::{Attached, Size, Terminal},
};
use alknet_testing::identities::{Identities, identity};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine, short enough that a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test when something does not happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: nothing happens"))
}

pub(crate) struct Node {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) identities: Arc<Identities>,
    pub(crate) shells: Shells,
    pub(crate) network: Network,
    home: TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut ShellLimits)) -> Self {
        Self::recorded(None, change)
    }

    pub(crate) fn recorded(
        recorder: Option<Arc<dyn Recorder>>,
        change: impl FnOnce(&mut ShellLimits),
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut account = Account::current().unwrap();
        account.home = home.path().into();
        account.shell = "/bin/sh".into();
        let identities = Arc::new(Identities::new());
        let mut limits = ShellLimits::default();
        change(&mut limits);
        let shells = Shells::new(ShellConfig {
            accounts: Accounts::own(account),
            identities: identities.clone(),
            audit: Audit::to_log(),
            recorder,
            limits,
        });
        let mut registry = HandlerRegistry::new();
        registry.register(ShellAdapter::new(shells.clone()), Access::Scope).unwrap();
        let dispatcher = Dispatcher::new(registry, Limits::default(), Audit::to_log());
        Self { dispatcher, identities, shells, network: Network::default(), home }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Somebody the node knows, with a key of theirs.
    pub(crate) fn knows(&self, name: &str, scopes: &[&str]) -> Identity {
        let who = identity(name, scopes);
        self.identities.add_key(KeyFingerprint::of_openssh_blob(name.as_bytes()), who.clone());
        who
    }

    pub(crate) fn forgets(&self, name: &str) {
        self.identities.revoke_key(&KeyFingerprint::of_openssh_blob(name.as_bytes()));
    }

    /// A connection over the network as it is then.
    pub(crate) fn connect(&self, who: &Identity) -> Connection {
        connect(&self.dispatcher, &self.network, who)
    }

    pub(crate) fn view(&self, who: &Identity, change: impl FnOnce(&mut Request)) -> Viewer {
        let (dispatcher, network) = (self.dispatcher.clone(), self.network.clone());
        let (identities, who) = (self.identities.clone(), who.clone());
        let dial = move || -> BoxFuture<'static, Result<Connection, DialError>> {
            let (dispatcher, network) = (dispatcher.clone(), network.clone());
            let (identities, who) = (identities.clone(), who.clone());
            Box::pin(async move {
                // As a handshake does it: who it is now.
                let known = identities.by_credential(&who.credential).await.unwrap();
                let id = who.id.clone();
                let unknown = || Identity { scopes: Scopes::default(), ..who };
                let who = known.map_or_else(unknown, |known| Identity { id, ..known });
                Ok(connect(&dispatcher, &network, &who))
            })
        };
        let terminal =
            Terminal { term: "xterm".into(), columns: 80, rows: 24, width: 0, height: 0 };
        let mut request = Request::new(terminal);
        change(&mut request);
        Viewer::start(dial, request)
    }
}

fn connect(dispatcher: &Dispatcher, network: &Network, who: &Identity) -> Connection {
    let (near, far) = network.link();
    let auth = AuthContext {
        identity: Some(Arc::new(who.clone())),
        ..AuthContext::anonymous(Alpn::service("shell").unwrap(), TransportKind::Memory, None)
    };
    let server = SingleStream::accepted(TransportKind::Memory, Stream::from_bistream(far));
    let server = Connection::new(server);
    match dispatcher.admit(auth) {
        Ok(admission) => drop(admission.start(server)),
        Err(refusal) => server.close(refusal.code(), ""),
    }
    Connection::new(SingleStream::dialled(TransportKind::Memory, Stream::from_bistream(near)))
}

/// Links that can be frozen, as by a cable that is pulled, and cut, as by a reset.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Links>>);

struct Links {
    frozen: watch::Sender<bool>,
    cut: CancellationToken,
    pumps: JoinSet<()>,
    made: usize,
}

impl Default for Links {
    fn default() -> Self {
        let frozen = watch::Sender::new(false);
        Self { frozen, cut: CancellationToken::new(), pumps: JoinSet::new(), made: 0 }
    }
}

impl Network {
    fn link(&self) -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
        let (client, near) = tokio::io::duplex(16 * 1024);
        let (far, server) = tokio::io::duplex(16 * 1024);
        let mut links = self.0.lock().unwrap();
        links.made += 1;
        let (frozen, cut) = (links.frozen.subscribe(), links.cut.clone());
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        let (up, down) = (frozen.clone(), frozen);
        links.pumps.spawn(async move {
            let both = async {
                tokio::join!(pump(near_read, far_write, up), pump(far_read, near_write, down))
            };
            let _ = cut.run_until_cancelled(both).await;
        });
        (client, server)
    }

    /// Nothing gets through from now on, or again.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.0.lock().unwrap().frozen.send_replace(frozen);
    }

    /// Ends every link there is.
    pub(crate) fn cut(&self) {
        let mut links = self.0.lock().unwrap();
        std::mem::take(&mut links.cut).cancel();
    }

    /// How many links there have been.
    pub(crate) fn made(&self) -> usize {
        self.0.lock().unwrap().made
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut frozen: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let _ = frozen.wait_for(|frozen| !frozen).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// A viewer and what it has seen.
pub(crate) struct Viewer {
    keys: mpsc::Sender<Bytes>,
    size: watch::Sender<Size>,
    leave: CancellationToken,
    seen: watch::Receiver<Seen>,
    ended: JoinSet<Result<Outcome, ViewError>>,
    shower: JoinSet<()>,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// All that was written to the terminal, screens among it.
    pub(crate) text: Vec<u8>,
    /// What of it was output.
    pub(crate) output: Vec<u8>,
    pub(crate) attached: Vec<Attached>,
    pub(crate) notices: Vec<(String, u32)>,
    pub(crate) away: usize,
    pub(crate) resets: usize,
}

impl Viewer {
    fn start(
        dial: impl Fn() -> BoxFuture<'static, Result<Connection, DialError>> + Send + Sync + 'static,
        request: Request,
    ) -> Self {
        let (keys, typed) = mpsc::channel(16);
        let (size, resized) = watch::channel(Size { columns: 0, rows: 0, width: 0, height: 0 });
        let leave = CancellationToken::new();
        let (events, mut shown) = mpsc::channel(1024);
        let (report, written) = watch::channel(0);
        let (saw, seen) = watch::channel(Seen::default());
        let user = User { typed, size: resized, leave: leave.clone(), events, written };
        let (mut ended, mut shower) = (JoinSet::new(), JoinSet::new());
        ended.spawn(client::view(Arc::new(dial), request, user));
        shower.spawn(async move {
            while let Some(event) = shown.recv().await {
                saw.send_modify(|seen| match event {
                    Event::Output(bytes, offset) => {
                        seen.text.extend_from_slice(&bytes);
                        seen.output.extend_from_slice(&bytes);
                        report.send_replace(offset);
                    }
                    Event::Screen(bytes) => seen.text.extend_from_slice(&bytes),
                    Event::Shown(offset) => drop(report.send_replace(offset)),
                    Event::Reset => seen.resets += 1,
                    Event::Attached(attached) => seen.attached.push(*attached),
                    Event::Notice { event, viewers } => seen.notices.push((event, viewers)),
                    Event::Away => seen.away += 1,
                    Event::Back => {}
                });
            }
        });
        Self { keys, size, leave, seen, ended, shower }
    }

    pub(crate) async fn types(&self, text: impl AsRef<[u8]>) {
        let bytes = text.as_ref().to_vec().into();
        soon("typing", self.keys.send(bytes)).await.unwrap();
    }

    /// Types if there is room; whether there was.
    pub(crate) fn tries(&self, text: impl AsRef<[u8]>) -> bool {
        self.keys.try_send(text.as_ref().to_vec().into()).is_ok()
    }

    pub(crate) fn leaves(&self) {
        self.leave.cancel();
    }

    pub(crate) fn resizes(&self, columns: u16, rows: u16) {
        self.size.send_replace(Size { columns, rows, width: 0, height: 0 });
    }

    /// Waits until what was seen fits.
    pub(crate) async fn until(&mut self, what: &str, fits: impl FnMut(&Seen) -> bool) {
        let seen = self.seen.clone();
        let waited = timeout(PATIENCE, self.seen.wait_for(fits)).await;
        if !matches!(waited, Ok(Ok(_))) {
            let text = String::from_utf8_lossy(&seen.borrow().text).into_owned();
            panic!("{what}: not seen in {text:?}");
        }
    }

    pub(crate) async fn sees(&mut self, text: &str) {
        let contains =
            |seen: &Seen| seen.text.windows(text.len()).any(|window| window == text.as_bytes());
        self.until(text, contains).await;
    }

    pub(crate) fn saw<T>(&self, f: impl FnOnce(&Seen) -> T) -> T {
        f(&self.seen.borrow())
    }

    pub(crate) async fn detaches(mut self) {
        self.until("the session", |seen| !seen.attached.is_empty()).await;
        self.leave.cancel();
        assert_eq!(self.ends().await.0.unwrap(), Outcome::Detached);
    }

    /// The outcome, and all that was seen.
    pub(crate) async fn ends(mut self) -> (Result<Outcome, ViewError>, Vec<u8>) {
        let outcome = soon("the end", self.ended.join_next()).await.unwrap().unwrap();
        soon("the last events", self.shower.join_next()).await.unwrap().unwrap();
        let text = self.seen.borrow().output.clone();
        (outcome, text)
    }
}

/// The code of a refusal.
#[track_caller]
pub(crate) fn code(result: Result<Outcome, ViewError>) -> alknet_shell::wire::RefusalCode {
    match result {
        Err(ViewError::Refused(refusal)) => refusal.code,
        other => panic!("no refusal: {other:?}"),
    }
}
