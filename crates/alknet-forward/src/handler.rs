//! The handler of `alknet/forward`.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use alknet_core::{
    Alpn, Audit, AuditEvent, AuthContext, Code, Connection, HandlerError, Identity,
    ProtocolHandler, Refusals, Stream,
};
use alknet_host::network::{Connected, NetworkError, Policy, Target};
use tokio::{io::AsyncWriteExt as _, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    join::{ResetOnDrop, join},
    listen, udp,
    waiting::Waiting,
    wire::{self, Answer, ErrorCode, HeaderError, Opened, Refused, Request},
};

/// How long a client may take to say what it wants of a stream.
const REQUEST: Duration = Duration::from_secs(10);
/// How long the last bytes of a stream may take to arrive when the node shuts down.
const FAREWELL: Duration = Duration::from_secs(1);

/// How much of a client's text is in an entry of the audit log, in bytes.
const SHOWN: usize = 256;

/// The handler of `alknet/forward`: every stream that the peer opens is one connection,
/// one listener, or one association of datagrams. Register it with
/// [`Access::Scope`](alknet_core::Access::Scope).
#[derive(Debug, Clone)]
pub struct ForwardAdapter {
    policy: Policy,
    audit: Audit,
    waiting: Waiting,
    refusals: Refusals,
    draining: CancellationToken,
}

/// What the streams of one connection share.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) policy: Policy,
    pub(crate) caller: Arc<Identity>,
    pub(crate) waiting: Waiting,
    pub(crate) draining: CancellationToken,
    refusals: Refusals,
    audit: Audit,
    auth: Arc<AuthContext>,
}

/// Whoever has no identity may have nothing of the network.
#[derive(Debug, thiserror::Error)]
#[error("forwarding takes an identity")]
struct Anonymous;

impl ForwardAdapter {
    /// A handler under this policy. Refusals go to `audit`, and what is allowed as well if
    /// the policy's settings say so.
    pub fn new(policy: Policy, audit: Audit) -> Self {
        let (waiting, draining) = (Waiting::default(), CancellationToken::new());
        Self { policy, refusals: Refusals::new(audit.clone()), audit, waiting, draining }
    }
}

impl ProtocolHandler for ForwardAdapter {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn alpns(&self) -> Vec<Alpn> {
        Vec::from_iter(Alpn::service("forward"))
    }

    async fn handle(&self, connection: Connection, auth: AuthContext) -> Result<(), HandlerError> {
        let session = Session {
            policy: self.policy.clone(),
            caller: auth.identity.clone().ok_or(Anonymous)?,
            waiting: self.waiting.clone(),
            refusals: self.refusals.clone(),
            draining: self.draining.clone(),
            audit: self.audit.clone(),
            auth: Arc::new(auth),
        };
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_bi() => {
                    let Ok(stream) = stream else { break };
                    let span = tracing::debug_span!("forward", stream = stream.id());
                    streams.spawn(session.clone().serve(stream).instrument(span));
                }
                Some(ended) = streams.join_next() => ended?,
                () = self.draining.cancelled(), if streams.is_empty() => break,
            }
        }
        while let Some(ended) = streams.join_next().await {
            ended?;
        }
        session.refusals.settle(session.event(AuditEvent::REFUSED));
        Ok(())
    }

    async fn shutdown(&self) {
        self.draining.cancel();
    }
}

impl Session {
    async fn serve(self, mut stream: Stream) {
        let request = match timeout(REQUEST, wire::read::<Request>(&mut stream)).await {
            Ok(Ok(request)) => request,
            Ok(Err(HeaderError::Io(_))) => return stream.reset(Code::CANCELLED),
            Ok(Err(error)) => {
                let refused = Refused { code: ErrorCode::Unsupported, message: error.to_string() };
                return end(stream, &Answer::Error(refused)).await;
            }
            Err(_) => return stream.reset(Code::TIMEOUT),
        };
        let stopped = stream.stopped();
        match request {
            Request::Connect(place) => self.connect(stream, place.into()).await,
            Request::Udp {} => udp::serve(&self, stream).await,
            Request::Listen(place) => listen::serve(&self, stream, place.into()).await,
            Request::Accept { id } => match self.waiting.take(id, &self.caller) {
                Some(connected) => carry(stream, connected).await,
                None => {
                    let message = "no connection waits under this id".into();
                    let refused = Refused { code: ErrorCode::Gone, message };
                    end(stream, &Answer::Error(refused)).await;
                }
            },
            Request::Ping {} => end(stream, &Answer::Ok(Opened::default())).await,
        }
        if self.draining.is_cancelled() {
            // The connection is about to be closed, which drops what is under way.
            let _ = timeout(FAREWELL, stopped).await;
        }
    }

    async fn connect(&self, stream: Stream, target: Target) {
        match self.policy.connect(&self.caller, &target).await {
            Ok(connected) => {
                self.allowed("connect", &target);
                carry(stream, ResetOnDrop::new(connected)).await;
            }
            Err(error) => self.refuse(stream, "connect", &target, &error).await,
        }
    }

    /// Tells the client why not, and the audit log if the policy said so.
    pub(crate) async fn refuse(
        &self,
        stream: Stream,
        verb: &str,
        target: &(impl std::fmt::Display + ?Sized),
        error: &NetworkError,
    ) {
        self.note(verb, target, error);
        end(stream, &Answer::Error(error.into())).await;
    }

    /// Records a refusal; other failures are nothing for the audit log.
    pub(crate) fn note(
        &self,
        verb: &str,
        target: &(impl std::fmt::Display + ?Sized),
        error: &NetworkError,
    ) {
        if !error.is_refusal() {
            return tracing::debug!(%error, "{verb} failed");
        }
        let reason = format!("{verb} {}: {}", cut(target), cut(error));
        self.refusals.record(self.event(AuditEvent::REFUSED).because(reason));
    }

    /// Records what was allowed, where the owner wants that.
    pub(crate) fn allowed(&self, verb: &str, target: &(impl std::fmt::Display + ?Sized)) {
        if self.policy.settings().audit_destinations {
            let what = format!("{verb} {}", cut(target));
            self.audit.record(self.event("forwarded").because(what));
        }
    }

    fn event(&self, event: &'static str) -> AuditEvent {
        let session = self.auth.session.id();
        AuditEvent { session, ..AuditEvent::about(event, &self.auth) }
    }
}

/// Tells the client that it is connected, and carries the connection then.
async fn carry(mut stream: Stream, connected: ResetOnDrop<Connected>) {
    let opened = Opened {
        bound: Some(connected.socket.local().to_string()),
        peer: Some(connected.socket.remote().to_string()),
    };
    if wire::write(&mut stream, &Answer::Ok(opened)).await.is_ok() {
        join(stream, connected).await;
    }
}

/// The beginning of a text that a client chose, for the audit log.
fn cut(text: impl std::fmt::Display) -> String {
    let mut text = text.to_string();
    if text.len() > SHOWN {
        let whole = text.len();
        text.truncate(text.floor_char_boundary(SHOWN));
        let _ = write!(text, "… ({whole} bytes)");
    }
    text
}

/// The last that is said on a stream.
pub(crate) async fn end(mut stream: Stream, answer: &Answer) {
    let said = async {
        wire::write(&mut stream, answer).await?;
        stream.shutdown().await
    };
    if let Ok(Err(error)) = timeout(REQUEST, said).await {
        tracing::debug!(%error, "an answer was not taken");
    }
}
