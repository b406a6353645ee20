//! A request's body as it arrives.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use ::h3::{
    error::{Code, StreamError},
    server::RequestStream,
};
use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::adapter::HttpRecv;

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request was given up or broken")]
    Stream(#[from] StreamError),
    #[error("the body is not as long as its content-length")]
    Length,
}

type Arrived = Result<Frame<Bytes>, BodyError>;

/// The body of one request. QUIC's flow control holds the peer back while nobody reads;
/// dropped before its end, it tells the peer to send no more.
pub(super) struct RequestBody {
    stream: RequestStream<HttpRecv, Bytes>,
    /// What was there when the request was.
    first: Option<Arrived>,
    /// Of the content-length: what is to come.
    left: Option<u64>,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Data,
    Trailers,
    End,
}

impl RequestBody {
    /// `length` is that of the content-length.
    pub(super) fn new(stream: RequestStream<HttpRecv, Bytes>, length: Option<u64>) -> Self {
        let mut body = Self { stream, first: None, left: length, state: State::Data };
        // Most requests end with their header: who passes one on should not announce a body.
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(first) = body.poll_arrival(&mut nobody) {
            body.first = first;
        }
        body
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrived>> {
        if self.state == State::Data {
            match ready!(self.poll_data(cx)) {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => self.state = State::Trailers,
                Err(error) => return Poll::Ready(Some(Err(self.fail(error)))),
            }
        }
        if self.state == State::End {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.stream.poll_recv_trailers(cx));
        self.state = State::End;
        let trailers = trailers.map_err(BodyError::Stream).transpose();
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let Some(mut data) = ready!(self.stream.poll_recv_data(cx))? else {
            let short = self.left.is_some_and(|left| left > 0);
            return Poll::Ready(if short { Err(BodyError::Length) } else { Ok(None) });
        };
        let data = data.copy_to_bytes(data.remaining());
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or(BodyError::Length)?;
        }
        Poll::Ready(Ok(Some(data)))
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.state = State::End;
        if matches!(error, BodyError::Length) {
            self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        }
        error
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.poll_arrival(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::End && self.first.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            Some(Err(_)) | None => 0,
        };
        match (self.state, self.left) {
            (State::Data, None) => SizeHint::default(),
            (State::Data, Some(left)) => SizeHint::with_exact(first + left),
            (State::Trailers | State::End, _) => SizeHint::with_exact(first),
        }
    }
}
