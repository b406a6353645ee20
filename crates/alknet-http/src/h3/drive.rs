//! The CONNECT stream of a session: its close, in both directions.

use std::time::Duration;

use ::h3::{client, error::StreamError, quic, server};
use alknet_core::{Closed, ClosedBy, Code, Connection};
use bytes::{Buf as _, Bytes};
use tokio::time::timeout;

use super::{
    capsule, codes,
    hub::Hub,
    session::{FAREWELL, State, lost},
};

/// How long the QUIC connection may take to say why its streams failed.
const CAUSE: Duration = Duration::from_secs(1);

/// The sending half of a CONNECT stream, on either side.
pub(super) trait Tell: Send {
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), StreamError>> + Send;
    fn finish(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send;
    fn reset(&mut self, code: Code);
}

/// The receiving half of a CONNECT stream, on either side.
pub(super) trait Hear: Send {
    fn data(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> + Send;
}

macro_rules! connect_stream {
    ($side:ident) => {
        impl<S: quic::SendStream<Bytes> + Send> Tell for $side::RequestStream<S, Bytes> {
            async fn data(&mut self, data: Bytes) -> Result<(), StreamError> {
                self.send_data(data).await
            }

            async fn finish(&mut self) -> Result<(), StreamError> {
                self.finish().await
            }

            fn reset(&mut self, code: Code) {
                self.stop_stream(code.value().into());
            }
        }

        impl<S: quic::RecvStream + Send> Hear for $side::RequestStream<S, Bytes> {
            async fn data(&mut self) -> Result<Option<Bytes>, StreamError> {
                let data = self.recv_data().await?;
                Ok(data.map(|mut data| data.copy_to_bytes(data.remaining())))
            }
        }
    };
}

connect_stream!(server);
connect_stream!(client);

/// Runs a session's CONNECT stream until both sides know that it is over.
pub(super) async fn drive(
    mut tell: impl Tell,
    mut hear: impl Hear,
    (id, state): (u64, &State),
    hub: &Hub,
    quic: &Connection,
) {
    let closed = tokio::select! {
        closed = listen(&mut hear, quic) => closed,
        closed = state.over() => closed,
    };
    state.end(closed);
    hub.end(id);
    // A peer that takes no notice has its streams reset when the halves are dropped.
    let _ = timeout(FAREWELL, farewell(&mut tell, &mut hear, state.closed())).await;
}

/// Reads capsules until one of them, or the end of the stream, ends the session.
async fn listen(hear: &mut impl Hear, quic: &Connection) -> Closed {
    let mut capsules = capsule::Reader::default();
    loop {
        let close = match hear.data().await {
            Ok(Some(data)) => capsules.push(data),
            Ok(None) => Ok(Some(capsule::Close { code: Code::NORMAL, reason: String::new() })),
            Err(StreamError::RemoteTerminate { .. }) => {
                return lost(Code::NORMAL, "the session was reset");
            }
            Err(_) => return cause(quic).await,
        };
        match close {
            Ok(None) => {}
            Ok(Some(capsule::Close { code, reason })) => {
                return Closed { by: ClosedBy::Peer, code, reason };
            }
            Err(malformed) => return lost(Code::PROTOCOL, &malformed.to_string()),
        }
    }
}

/// How a session ended whose connection did.
async fn cause(quic: &Connection) -> Closed {
    match timeout(CAUSE, quic.closed()).await {
        Ok(closed) => of_connection(closed),
        Err(_) => lost(Code::NORMAL, "the session's stream failed"),
    }
}

/// The end of a connection as that of its sessions.
pub(super) fn of_connection(closed: Closed) -> Closed {
    let code = match closed.code {
        codes::NO_ERROR => Code::NORMAL,
        code => codes::from_wire(code).unwrap_or(code),
    };
    Closed { code, ..closed }
}

/// Says what there is to say and waits for the peer to end its side.
async fn farewell(tell: &mut impl Tell, hear: &mut impl Hear, closed: Closed) {
    let said = match closed.by {
        ClosedBy::Local => {
            let close = capsule::close(closed.code, &closed.reason);
            match tell.data(close).await {
                Ok(()) => tell.finish().await,
                Err(error) => Err(error),
            }
        }
        ClosedBy::Peer => tell.finish().await,
        ClosedBy::Lost => {
            let malformed = closed.code == Code::PROTOCOL;
            tell.reset(if malformed { codes::DATAGRAM_ERROR } else { codes::REQUEST_CANCELLED });
            return;
        }
    };
    if said.is_ok() {
        while let Ok(Some(_)) = hear.data().await {}
    }
}
