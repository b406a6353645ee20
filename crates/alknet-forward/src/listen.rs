//! Listening on the node for a client.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use alknet_core::{Code, RecvStream, SendStream, Stream};
use alknet_host::network::{Connected, Listener, Target};
use tokio::{
    io::AsyncWriteExt as _,
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::{
    handler::Session,
    join::ResetOnDrop,
    waiting::Waiting,
    wire::{self, Answer, Id, Opened, Told},
};

/// How long a connection waits to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many wait at a time; more stay in the listener's backlog.
const MAX_WAITING: usize = 64;

/// Serves a stream that asked to listen, to the end of that stream.
pub(crate) async fn serve(session: &Session, mut stream: Stream, target: Target) {
    let listener = match session.policy.listen(&session.caller, &target).await {
        Ok(listener) => listener,
        Err(error) => return session.refuse(stream, "listen", &target, &error).await,
    };
    session.allowed("listen", &target);
    let bound = listener.local().map(|local| local.to_string()).ok();
    let answer = Answer::Ok(Opened { bound, peer: None });
    if wire::write(&mut stream, &answer).await.is_err() {
        return;
    }
    let (mut send, mut recv) = stream.split();
    let mut told = TellTale { waiting: session.waiting.clone(), pending: VecDeque::new() };
    let ended = tokio::select! {
        ended = tell(session, &listener, &mut send, &mut told) => ended,
        () = ended_by_peer(&mut recv) => Ok(()),
        () = session.draining.cancelled() => Ok(()),
    };
    let closed = match ended {
        Ok(()) => send.shutdown().await,
        Err(error) => Err(error),
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "a listener's stream broke off");
        send.reset(Code::CANCELLED);
    }
}

/// Connections that were told of, in the order in which their time is over; those that were
/// taken may be among them. Those that still wait are broken off on drop.
struct TellTale {
    waiting: Waiting,
    pending: VecDeque<(Instant, Id)>,
}

impl Drop for TellTale {
    fn drop(&mut self) {
        self.pending.iter().for_each(|(_, id)| self.waiting.forget(*id));
    }
}

async fn tell(
    session: &Session,
    listener: &Listener,
    send: &mut SendStream,
    told: &mut TellTale,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MAX_WAITING));
    loop {
        if told.pending.len() >= 2 * MAX_WAITING {
            told.waiting.retain(&mut told.pending);
        }
        let over = told.pending.front().map(|(over, _)| *over);
        let (place, accepted) = tokio::select! {
            // Whoever takes a connection makes room for the next.
            accepted = async {
                let place = room.clone().acquire_owned().await.map_err(io::Error::other);
                (place, listener.accept().await)
            } => accepted,
            () = sleep_until(over.unwrap_or_else(Instant::now)), if over.is_some() => {
                if let Some((_, id)) = told.pending.pop_front() {
                    told.waiting.forget(id);
                }
                continue;
            }
        };
        let connected = ResetOnDrop::new(accepted);
        let (id, peer) = (Id::random()?, peer_of(&connected.socket));
        session.waiting.keep(id, &session.caller, connected, place?);
        told.pending.push_back((Instant::now() + PATIENCE, id));
        wire::write(send, &Told::Incoming { id, peer }).await?;
    }
}

fn peer_of(connected: &Connected) -> String {
    connected.remote().to_string()
}

/// The client says nothing more: whatever comes is the end.
async fn ended_by_peer(recv: &mut RecvStream) {
    while let Ok(Some(_)) = recv.chunk(1024).await {}
}
