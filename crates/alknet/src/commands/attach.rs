//! Attaching to a session of a node: `alknet ssh --attach` and `alknet sessions attach`.

mod escape;
mod painter;
mod tty;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use alknet_core::{Alpn, BoxFuture, Code, Connection, NodeId};
use alknet_host::Account;
use alknet_http::TunnelError;
use alknet_shell::{
    Name,
    client::{self, DialError, Outcome, Request, User, ViewError},
    wire::{RefusalCode, Size, Terminal},
};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use self::{
    escape::{Command, Escapes},
    painter::Painter,
};
use super::dial::{Reach, told_to_end};
use crate::{
    connect::{self, ConnectError, ReachError, Via},
    failure::Failure,
    home::Home,
    output,
};

/// The service.
pub(super) const SERVICE: &str = "shell";
/// What is assumed of a terminal where there is none.
const NO_TERMINAL: Size = Size { columns: 80, rows: 24, width: 0, height: 0 };
/// Events that wait to be shown.
const EVENTS: usize = 1024;
/// How much is typed at once, in bytes.
const TYPED: usize = 16 * 1024;
/// How much a person may have typed that waits, in bytes: what leaves is looked for in all of
/// it.
const HELD: usize = 1024 * 1024;
/// How many bytes of variables a new session is given; they share a frame with the command.
const VARIABLES: usize = 1024;
/// How many lines that have scrolled off are asked for.
const HISTORY: u32 = 1000;
/// What is told about keys.
const HELP: &str = "\r\n~.  leave; the session runs on\r\n~~  type ~\r\n~?  this help\r\n\
                    (after the beginning of a line)\r\n";

/// What to attach to, and how.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// `[USER@]NODE`.
    pub(crate) node: String,
    /// Which session; none is the one that was attached last.
    pub(crate) name: Option<Name>,
    /// Whether it may be started.
    pub(crate) create: bool,
    /// What a new one runs.
    pub(crate) command: Option<String>,
    pub(crate) read_only: bool,
    /// How long to look for a node that is out of reach.
    pub(crate) patience: Option<Duration>,
    pub(crate) reach: Reach,
}

impl Attachment {
    /// As `alknet ssh --attach NODE [NAME]` has it.
    pub(crate) fn named(
        node: String,
        name: &[std::ffi::OsString],
        reach: Reach,
    ) -> Result<Self, Failure> {
        let name = match name {
            [] => None,
            [name] => {
                let name = name.to_string_lossy().parse::<Name>();
                Some(name.map_err(|error| Failure::usage(error.to_string()))?)
            }
            [..] => {
                let hint = "alknet sessions attach NODE NAME -- COMMAND runs a command";
                return Err(Failure::usage("--attach takes the name of a session").hint(hint));
            }
        };
        let (create, command, read_only, patience) = (true, None, false, None);
        Ok(Self { node, name, create, command, read_only, patience, reach })
    }
}

/// Attaches until the session ends or the user leaves.
pub(crate) async fn attach(home: &Home, what: Attachment) -> Result<(), Failure> {
    let interrupted = told_to_end()?;
    let resized = signal(SignalKind::window_change())?;
    let terminal = tty::size();
    let (account, node) = match what.node.rsplit_once('@') {
        Some((account, node)) => (Some(account.to_owned()), node.to_owned()),
        None => (None, what.node.clone()),
    };
    let request = request(&what, account, terminal.unwrap_or(NO_TERMINAL));
    let dial = dialler(home, node, &what.reach);
    let (queue, typed) = mpsc::channel(16);
    let (resize, size) = watch::channel(terminal.unwrap_or(NO_TERMINAL));
    let (events, seen) = mpsc::channel(EVENTS);
    let (report, written) = watch::channel(0);
    let (leave, there) = (CancellationToken::new(), CancellationToken::new());
    let user = User { typed, size, leave: leave.clone(), events, written };
    let painter = Painter::new(terminal, there.clone());
    let mut show = std::pin::pin!(painter.show(seen, report));
    let mut viewed = std::pin::pin!(client::view(Arc::new(dial), request, user));
    let keys = Keys { queue, resize, leave, held: BytesMut::new() };
    let typing = keys.pass_on(there, interrupted, resized, terminal.is_some());
    let outcome = tokio::select! {
        outcome = &mut viewed => {
            // What was seen before the end is shown before it.
            show.await?;
            outcome
        }
        shown = &mut show => {
            shown?;
            viewed.await
        }
        never = typing => match never? {},
    };
    finish(outcome, terminal.is_some())
}

fn request(what: &Attachment, account: Option<String>, size: Size) -> Request {
    let Size { columns, rows, width, height } = size;
    let term = std::env::var("TERM").unwrap_or_default();
    let mut request = Request::new(Terminal { term, columns, rows, width, height });
    request.name.clone_from(&what.name);
    request.create = what.create && !what.read_only;
    request.command.clone_from(&what.command);
    request.account = account;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| Account::may_be_set(name, value));
    request.env = few(variables);
    request.read_only = what.read_only;
    request.history = HISTORY;
    request.patience = what.patience;
    request
}

/// Makes connections to the node, which has to prove the same identity each time.
fn dialler(
    home: &Home,
    node: String,
    reach: &Reach,
) -> impl Fn() -> BoxFuture<'static, Result<Connection, DialError>> + Send + Sync + 'static {
    let (home, via) = (home.clone(), reach.via);
    let pin = Arc::new(std::sync::OnceLock::<NodeId>::new());
    if let Some(id) = reach.pin {
        let _ = pin.set(id);
    }
    move || Box::pin(dial(home.clone(), node.clone(), via, pin.clone()))
}

async fn dial(
    home: Home,
    node: String,
    via: Via,
    pin: Arc<std::sync::OnceLock<NodeId>>,
) -> Result<Connection, DialError> {
    let alpn = Alpn::service(SERVICE).map_err(DialError::last)?;
    match connect::reach(&home, &node, pin.get().copied(), alpn, via).await {
        Ok(connected) => {
            let _ = pin.set(connected.node);
            Ok(connected.connection)
        }
        Err(error) if is_final(&error) => Err(DialError::last(error)),
        Err(error) if is_refusal(&error) => Err(DialError::refused(error)),
        Err(error) => Err(DialError::new(error)),
    }
}

/// Whether another node answers: no further try can mend that.
fn is_final(error: &ReachError) -> bool {
    matches!(
        error,
        ReachError::Pin(_)
            | ReachError::NotPinned { .. }
            | ReachError::Connect { source: ConnectError::WrongIdentity(_), .. }
    )
}

/// Whether the node was there and did not let this machine in.
fn is_refusal(error: &ReachError) -> bool {
    let ReachError::Connect { source, .. } = error else { return false };
    matches!(source, ConnectError::Tunnel { source: TunnelError::Refused(_), .. })
}

/// Variables in order, as far as there is room.
fn few(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut room = VARIABLES;
    let all: BTreeMap<_, _> = variables.collect();
    let fits = |(name, value): &(String, String)| {
        let left = room.checked_sub(name.len() + value.len());
        room = left.unwrap_or(room);
        left.is_some()
    };
    all.into_iter().filter(fits).collect()
}

/// What the user types and does, on its way to the session.
struct Keys {
    queue: mpsc::Sender<Bytes>,
    resize: watch::Sender<Size>,
    leave: CancellationToken,
    /// What waits for room in the queue.
    held: BytesMut,
}

impl Keys {
    /// Passes it on for as long as anybody wants to know; what is typed, once the session is
    /// `there`.
    async fn pass_on(
        mut self,
        there: CancellationToken,
        interrupted: impl Future<Output = ()>,
        mut resized: tokio::signal::unix::Signal,
        person: bool,
    ) -> Result<std::convert::Infallible, Failure> {
        let mut interrupted = std::pin::pin!(interrupted);
        let queue = self.queue.clone();
        let mut stdin = tokio::io::stdin();
        let mut buffer = vec![0; TYPED];
        let mut escapes = person.then(Escapes::default);
        let most = if person { HELD } else { 1 };
        let mut open = true;
        loop {
            let read = open && there.is_cancelled() && self.held.len() < most;
            tokio::select! {
                () = &mut interrupted => return self.leave().await,
                () = there.cancelled(), if !there.is_cancelled() => {}
                Some(()) = resized.recv() => {
                    if let Some(size) = tty::size() {
                        self.resize.send_replace(size);
                    }
                }
                room = queue.reserve(), if !self.held.is_empty() => {
                    let Ok(room) = room else { return std::future::pending().await };
                    room.send(self.held.split_to(self.held.len().min(TYPED)).freeze());
                }
                count = stdin.read(&mut buffer), if read => {
                    let count = count?;
                    // A terminal has no end that could be passed on: the session goes on.
                    open = count > 0;
                    let typed = buffer.get(..count).unwrap_or_default();
                    if self.typed(typed, escapes.as_mut())? {
                        return self.leave().await;
                    }
                }
            }
        }
    }

    /// Keeps what is for the other side; whether the user leaves.
    fn typed(&mut self, typed: &[u8], escapes: Option<&mut Escapes>) -> io::Result<bool> {
        let Some(escapes) = escapes else {
            self.held.extend_from_slice(typed);
            return Ok(false);
        };
        let (bytes, command) = escapes.typed(typed);
        self.held.extend_from_slice(&bytes);
        if command == Some(Command::Help) {
            output::note(HELP)?;
        }
        Ok(command == Some(Command::Leave))
    }

    /// Leaves, after what was typed before as far as there is room for it.
    async fn leave(mut self) -> Result<std::convert::Infallible, Failure> {
        while !self.held.is_empty()
            && let Ok(room) = self.queue.try_reserve()
        {
            room.send(self.held.split_to(self.held.len().min(TYPED)).freeze());
        }
        self.leave.cancel();
        std::future::pending().await
    }
}

/// What the end means for whoever sits there, or for the script.
fn finish(outcome: Result<Outcome, ViewError>, person: bool) -> Result<(), Failure> {
    match outcome {
        Ok(Outcome::Detached) => {
            if person {
                output::note("left; the session runs on")?;
            }
            Ok(())
        }
        Ok(Outcome::Exited(exit)) if exit.status == Some(0) => Ok(()),
        Ok(Outcome::Exited(exit)) => match exit.signal {
            Some(signal) => Err(Failure::new(format!("the session was ended by SIG{signal}"))),
            None => Err(Failure::silent()),
        },
        Err(error) => Err(explained(error)),
    }
}

fn explained(error: ViewError) -> Failure {
    match error {
        ViewError::Dial(error) => match error.into_source().downcast::<ReachError>() {
            Ok(error) => Failure::from(*error),
            Err(error) => Failure::new(error.to_string()),
        },
        ViewError::Closed(closed) => closed_for_good(closed.code),
        ViewError::TurnedAway => refused().hint("--via quic tells more"),
        ViewError::Refused(refusal) => {
            let hint = match refusal.code {
                RefusalCode::Gone => Some("alknet sessions list NODE shows what runs there"),
                RefusalCode::NotFound => {
                    Some("alknet sessions list NODE shows what there is for this machine")
                }
                RefusalCode::Limit => Some("alknet sessions end NODE NAME makes room"),
                _ => None,
            };
            let failure = Failure::from(refusal);
            hint.into_iter().fold(failure, Failure::hint)
        }
        ViewError::TooLong => Failure::usage(error.to_string())
            .hint("a script that is copied there may be as long as it likes"),
        error => error.into(),
    }
}

fn refused() -> Failure {
    Failure::new("the node refused the connection").hint(
        "the node has to know this machine: add what `alknet id` prints here to a peer there, \
         with the scope shell",
    )
}

/// What the end of a connection means.
pub(super) fn closed_for_good(code: Code) -> Failure {
    match code {
        Code::REVOKED => Failure::new("the node has revoked the access"),
        Code::SHUTTING_DOWN => {
            Failure::new("the node is shutting down, and the session ends with it")
        }
        _ => refused(),
    }
}

/// Reads a time such as `30s`.
pub(super) fn parse_patience(text: &str) -> Result<Duration, String> {
    let span = text.parse::<crate::config::Span>();
    span.map(Duration::from).map_err(|error: crate::config::InvalidSpan| error.to_string())
}

/// So that errors of the terminal say what they are about.
fn at_terminal(error: io::Error) -> Failure {
    Failure::from(error).context("setting up the terminal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_typed_before_leaving_is_sent() {
        let (queue, mut typed) = mpsc::channel(4);
        let (resize, _size) = watch::channel(NO_TERMINAL);
        let leave = CancellationToken::new();
        let mut keys = Keys { queue, resize, leave: leave.clone(), held: BytesMut::new() };
        assert!(keys.typed(b"make\r~.rest", Some(&mut Escapes::default())).unwrap());
        let left = tokio::select! {
            never = keys.leave() => match never.unwrap() {},
            () = leave.cancelled() => typed.try_recv().unwrap(),
        };
        assert_eq!(left, "make\r");
    }

    #[test]
    fn variables_share_a_frame() {
        let variables = [("LANG", 10), ("LC_ALL", 4000), ("LC_TIME", 20)];
        let few = few(variables.into_iter().map(|(name, len)| (name.into(), "x".repeat(len))));
        assert_eq!(few.into_keys().collect::<Vec<_>>(), ["LANG", "LC_TIME"]);
    }
}
