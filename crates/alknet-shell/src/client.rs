//! The viewer's side: a session over one connection after the other.

mod line;
pub(crate) mod state;
mod view;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use alknet_core::{BoxFuture, Closed, Connection, ConnectionError};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    name::{Id, Name},
    wire::{Attach, Attached, Exit, FromClient, FromNode, Listed, Refusal, Size, Terminal, Which},
};

/// Makes connections to one node for `alknet/shell`.
pub trait Dial: Send + Sync + 'static {
    /// One try. It may be dropped, and several may be made at once.
    fn dial(&self) -> BoxFuture<'static, Result<Connection, DialError>>;
}

impl<F> Dial for F
where
    F: Fn() -> BoxFuture<'static, Result<Connection, DialError>> + Send + Sync + 'static,
{
    fn dial(&self) -> BoxFuture<'static, Result<Connection, DialError>> {
        self()
    }
}

/// There is no connection.
#[derive(Debug)]
pub struct DialError {
    source: Box<dyn Error + Send + Sync>,
    kind: DialFailure,
}

/// What a failure to connect says of the tries to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DialFailure {
    Passing,
    Refused,
    Last,
}

impl DialError {
    /// A failure that may pass.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: source.into(), kind: DialFailure::Passing }
    }

    /// The node, or what stands in its place, lets this caller in no more: a few of these in
    /// a row and no further try is made.
    pub fn refused(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: source.into(), kind: DialFailure::Refused }
    }

    /// A failure that no further try can mend: another node answers.
    pub fn last(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: source.into(), kind: DialFailure::Last }
    }

    /// What went wrong.
    pub fn into_source(self) -> Box<dyn Error + Send + Sync> {
        self.source
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")
    }
}

impl Error for DialError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// Whom to look at, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// Which session; none is the one that was attached last.
    pub name: Option<Name>,
    /// Whether it is started if there is none.
    pub create: bool,
    /// What a new one runs instead of the login shell.
    pub command: Option<String>,
    /// Whom a new one runs as, where the identity has several accounts.
    pub account: Option<String>,
    /// The terminal at the beginning.
    pub terminal: Terminal,
    /// Variables for a new session.
    pub env: std::collections::BTreeMap<String, String>,
    /// Only looks on.
    pub read_only: bool,
    /// How many lines that have scrolled off are wanted.
    pub history: u32,
    /// How long to try to come back; `None`: for ever.
    pub patience: Option<Duration>,
}

impl Request {
    /// The session that was attached last, or a new one.
    pub fn new(terminal: Terminal) -> Self {
        Self {
            name: None,
            create: true,
            command: None,
            account: None,
            terminal,
            env: std::collections::BTreeMap::new(),
            read_only: false,
            history: 0,
            patience: None,
        }
    }

    fn attach(
        &self,
        viewer: Id,
        attempt: u64,
        session: Option<Id>,
        place: Option<u64>,
        size: Size,
    ) -> FromClient {
        let name = if session.is_some() { None } else { self.name.clone() };
        let Size { columns, rows, width, height } = size;
        let term = self.terminal.term.clone();
        FromClient::Attach(Attach {
            viewer,
            attempt,
            which: Which { name, session },
            create: self.create && session.is_none(),
            command: self.command.clone().filter(|_| session.is_none()),
            account: self.account.clone(),
            terminal: Terminal { term, columns, rows, width, height },
            // Only a new session has a use for it.
            env: if session.is_none() { self.env.clone() } else { Default::default() },
            read_only: self.read_only,
            output: place,
            history: self.history,
        })
    }
}

/// What the user sees.
#[derive(Debug)]
pub enum Event {
    /// The viewer is attached, again each time that it was away.
    Attached(Box<Attached>),
    /// The terminal has to be reset: a screen follows.
    Reset,
    /// Bytes for the terminal.
    Screen(Bytes),
    /// The screen is whole; this is what to report as written.
    Shown(u64),
    /// Bytes for the terminal, and what to report once they are written.
    Output(Bytes, u64),
    /// Something around the viewer.
    Notice {
        /// `joined`, `left` or `resized`.
        event: String,
        /// How many viewers are attached.
        viewers: u32,
    },
    /// The node is out of reach, and looked for.
    Away,
    /// The connection is alive after all.
    Back,
}

/// How a viewer's time ended well.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended.
    Exited(Exit),
    /// The user left; the program runs on.
    Detached,
}

/// Why a viewer's time ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The node will not have it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no way to the node.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The node has closed the connection for good.
    #[error("the node has ended the connection: {0}")]
    Closed(Closed),
    /// The node took the connection and not the viewer, again and again.
    #[error("the node ends each connection before the session is there")]
    TurnedAway,
    /// The user left before the session was there.
    #[error("left before the session was there")]
    Left,
    /// The request does not fit into the frame that it has to fit in.
    #[error("the command and the variables of a session are 4 KiB at most")]
    TooLong,
    /// It was out of reach for too long.
    #[error("the node was out of reach for too long; the session runs on there")]
    OutOfReach,
    /// The node broke the protocol.
    #[error("the node broke the protocol: {0}")]
    Protocol(Box<dyn Error + Send + Sync>),
    /// The system has no random numbers.
    #[error("there are no random numbers")]
    Random(#[source] getrandom::Error),
    /// Nobody takes what is seen any more.
    #[error("nobody looks any more")]
    Unwatched,
}

/// The user's side of [`view`](fn@view).
#[derive(Debug)]
pub struct User {
    /// What the user types, taken while there is room; a viewer that looks on only drops it.
    /// The user leaves by dropping the other end.
    pub typed: mpsc::Receiver<Bytes>,
    /// How large the terminal is, from the first change on.
    pub size: watch::Receiver<Size>,
    /// Cancelled when the user leaves, at whatever point: nothing that waits is in its way.
    pub leave: CancellationToken,
    /// What the user sees.
    pub events: mpsc::Sender<Event>,
    /// Up to where output has been written.
    pub written: watch::Receiver<u64>,
}

/// Looks at a session until it ends or the user leaves. Whenever the connection is lost, or
/// seems to be, others are tried beside it, once a second, and the session goes on where it
/// was: no byte is lost or doubled in either direction.
///
/// The first connection is tried once: its failure is returned. What was typed before the user
/// leaves is still sent if the node is within reach. The queue of `events` should have
/// room for a few hundred.
pub async fn view(dial: Arc<dyn Dial>, request: Request, user: User) -> Result<Outcome, ViewError> {
    view::view(dial, request, user).await
}

/// How a connection for one request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The node will not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The node ended the stream without an answer.
    #[error("the node ended the stream without an answer")]
    NoAnswer,
    /// The node's answer is none.
    #[error("the node broke the protocol")]
    Protocol,
}

/// Which sessions the caller has on a node.
pub async fn list(connection: &Connection) -> Result<Vec<Listed>, RequestError> {
    match line::ask(connection, &FromClient::List).await? {
        FromNode::Sessions { sessions } => Ok(sessions),
        FromNode::Error(refusal) => Err(refusal.into()),
        _ => Err(RequestError::Protocol),
    }
}

/// Ends a session of the caller; gives its name.
pub async fn end(connection: &Connection, which: Which) -> Result<Name, RequestError> {
    match line::ask(connection, &FromClient::End(which)).await? {
        FromNode::Ended { name } => Ok(name),
        FromNode::Error(refusal) => Err(refusal.into()),
        _ => Err(RequestError::Protocol),
    }
}
