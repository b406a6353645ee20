//! Datagrams for a client.

use std::{collections::HashSet, io, sync::Arc};

use alknet_core::{Code, Stream};
use alknet_host::network::{Association, NetworkError};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{
    Address,
    datagram::{Datagram, DatagramReceiver, DatagramSender},
    handler::Session,
    wire::{self, Answer, Opened},
};

/// Datagrams that wait for their destination's name to be resolved; more are lost, as the
/// network may lose them.
const MAX_RESOLVING: usize = 16;
/// The longest datagram, in bytes.
const MAX_PAYLOAD: usize = 65535;
/// Refused destinations that one association has in the audit log.
const MAX_NOTED: usize = 32;

/// Serves a stream that asked for datagrams, to the end of either direction.
pub(crate) async fn serve(session: &Session, mut stream: Stream) {
    let association = match session.policy.udp(session.caller.clone()) {
        Ok(association) => Arc::new(association),
        Err(error) => return session.refuse(stream, "udp", "", &error).await,
    };
    if wire::write(&mut stream, &Answer::Ok(Opened::default())).await.is_err() {
        return;
    }
    let (send, recv) = stream.split();
    let (mut send, mut recv) = (DatagramSender::new(send, None), DatagramReceiver::new(recv, None));
    let outcome = tokio::select! {
        outcome = up(session, &association, &mut recv) => outcome,
        outcome = down(&association, &mut send) => outcome,
    };
    let outcome = match outcome {
        Ok(()) => send.finish().await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an association broke off");
        send.stream.reset(Code::CANCELLED);
    }
}

async fn up(
    session: &Session,
    association: &Arc<Association>,
    recv: &mut DatagramReceiver,
) -> io::Result<()> {
    let mut resolving: JoinSet<(Address, Result<(), NetworkError>)> = JoinSet::new();
    let mut noted = HashSet::new();
    loop {
        let (address, sent) = tokio::select! {
            datagram = recv.recv() => {
                let Some(Datagram { address, payload }) = datagram? else { return Ok(()) };
                if association.is_known(&address.host(), address.port()) {
                    let sent = association.send(&address.host(), address.port(), &payload).await;
                    (address, sent)
                } else {
                    // A slow name holds up nothing but its own datagrams.
                    if resolving.len() < MAX_RESOLVING {
                        resolving.spawn(resolve_and_send(association.clone(), address, payload));
                    }
                    continue;
                }
            }
            Some(sent) = resolving.join_next() => sent.map_err(io::Error::other)?,
        };
        // Once for each: a client may send thousands a second.
        if let Err(error) = sent
            && noted.len() < MAX_NOTED
            && noted.insert(address.clone())
        {
            session.note("udp", &address, &error);
        }
    }
}

async fn resolve_and_send(
    association: Arc<Association>,
    address: Address,
    payload: Bytes,
) -> (Address, Result<(), NetworkError>) {
    let sent = association.send(&address.host(), address.port(), &payload).await;
    (address, sent)
}

async fn down(association: &Association, send: &mut DatagramSender) -> io::Result<()> {
    let mut buffer = vec![0; MAX_PAYLOAD];
    loop {
        let (length, from) = association.recv(&mut buffer).await?;
        let payload = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        send.send(&Datagram { address: from.into(), payload }).await?;
    }
}
