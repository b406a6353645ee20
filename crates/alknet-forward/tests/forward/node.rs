//! A node in this process.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use alknet_core::{
    Alpn, Audit, AuditEvent, AuditSink, AuthContext, BoxFuture, Connection, ProtocolHandler as _,
    TransportKind,
};
use alknet_forward::{Dial, DialError, ForwardAdapter};
use alknet_host::network::{Policy, Rule, Settings};
use alknet_testing::{identities::identity, memory};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

/// What the node recorded.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<AuditEvent>>>);

impl AuditSink for Record {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Record {
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().filter_map(|event| event.reason.clone()).collect()
    }
}

pub(crate) struct Node {
    pub(crate) adapter: ForwardAdapter,
    pub(crate) policy: Policy,
    pub(crate) record: Record,
    sessions: Mutex<JoinSet<()>>,
}

impl Node {
    /// A node that allows everything on its own machine.
    pub(crate) fn new() -> Arc<Self> {
        let all = || vec!["localhost:*".parse().unwrap()];
        let rule = Rule { connect: all(), listen: all(), udp: all(), scope: None };
        Self::with(Settings { rules: vec![rule], ..Settings::default() })
    }

    pub(crate) fn with(settings: Settings) -> Arc<Self> {
        let (policy, record) = (Policy::new(settings), Record::default());
        let adapter = ForwardAdapter::new(policy.clone(), Audit::new(record.clone()));
        Arc::new(Self { adapter, policy, record, sessions: Mutex::default() })
    }

    /// A connection of somebody with all of forwarding.
    pub(crate) fn connect(&self, name: &str) -> Connection {
        self.connect_by(name, TransportKind::Memory)
    }

    pub(crate) fn connect_by(&self, name: &str, kind: TransportKind) -> Connection {
        let (near, far) = memory::pair_of_kind(kind);
        let mut auth = AuthContext::anonymous(Alpn::service("forward").unwrap(), kind, None);
        auth.identity = Some(Arc::new(identity(name, &["forward"])));
        let adapter = self.adapter.clone();
        self.sessions.lock().unwrap().spawn(async move {
            adapter.handle(far, auth).await.unwrap();
        });
        near
    }

    /// Ends every session where it stands.
    pub(crate) async fn cut(&self) {
        let mut sessions = std::mem::take(&mut *self.sessions.lock().unwrap());
        sessions.shutdown().await;
    }

    /// Waits until every session is over.
    pub(crate) async fn over(&self) {
        let mut sessions = std::mem::take(&mut *self.sessions.lock().unwrap());
        while let Some(ended) = sessions.join_next().await {
            ended.unwrap();
        }
    }
}

/// Gives out connections as they were put in; `None` is a failure.
pub(crate) struct Script(Mutex<VecDeque<Option<Connection>>>);

impl Script {
    pub(crate) fn of(connections: impl IntoIterator<Item = Option<Connection>>) -> Self {
        Self(Mutex::new(connections.into_iter().collect()))
    }
}

impl Dial for Script {
    fn dial(&self) -> BoxFuture<'_, Result<Connection, DialError>> {
        let next = self.0.lock().unwrap().pop_front();
        Box::pin(async move {
            match next {
                Some(Some(connection)) => Ok(connection),
                Some(None) => Err(DialError::new("nobody there")),
                None => Err(DialError::is_final("another node")),
            }
        })
    }
}

/// Sends back what comes.
pub(crate) async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let listener = listener.into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    port
}

/// A word there and back.
pub(crate) async fn says(stream: &mut alknet_core::Stream, word: &str) {
    stream.write_all(word.as_bytes()).await.unwrap();
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, word.as_bytes());
}
