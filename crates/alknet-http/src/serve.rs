//! HTTP/1.1 and HTTP/2 on the one stream of a TLS connection.

use std::{convert::Infallible, error::Error, pin::pin, time::Duration};

use alknet_core::Stream;
use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::Served, body, frames::Frames, handler::HttpLimits, linger::Lingering, wire::Wire,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// How long the connection may take to yield its stream.
const STREAM: Duration = Duration::from_secs(10);
/// How often a silent HTTP/2 peer is pinged, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// What a client may send on one stream of HTTP/2, and on all of a connection, before it is
/// read, in bytes. The second is the larger by far: curl 7.88 sends no more of an upload where
/// both are used up at once.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// What nginx announces over HTTP/2.
const NGINX_WINDOW: u32 = 65_536;
const NGINX_MAX_FRAME: u32 = 16_777_215;

/// Serves HTTP/1.1 until the peer is done or, after `shutdown`, until the request in
/// progress is. Under cover what hyper answers by itself is put into nginx's words.
pub(crate) async fn http1(
    served: Served,
    limits: &HttpLimits,
    cover: bool,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let io = TokioIo::new(Wire::new(stream(&served).await?, cover));
    let until = shutdown.child_token();
    let _ends_lingering = until.clone().drop_guard();
    let lingering = Lingering::new(served.link.tasks.clone(), until);
    let service = service_fn(|request: Request<Incoming>| {
        respond(&served, request.map(|body| lingering.body(body)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.max_header)
        .title_case_headers(true)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        done = &mut connection => return Ok(done?),
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Serves HTTP/2 likewise. Under cover its settings are those of nginx.
pub(crate) async fn http2(
    served: Served,
    limits: &HttpLimits,
    cover: bool,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let io = TokioIo::new(Frames::new(stream(&served).await?));
    let tasks = Tasks { tracker: served.link.tasks.clone(), over: served.link.over.clone() };
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header).unwrap_or(u32::MAX));
    if cover {
        builder.initial_stream_window_size(NGINX_WINDOW).max_frame_size(NGINX_MAX_FRAME);
    } else {
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_connect_protocol();
    }
    let last = &watch::Sender::new(Instant::now());
    let served = &served;
    let service = service_fn(move |request| {
        last.send_replace(Instant::now());
        let served = served.clone();
        async move { respond(&served, request).await }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    tokio::select! {
        done = &mut connection => return Ok(done?),
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        // What is under way goes on to its end; whoever wants more connects again.
        () = quiet(last, limits.header_timeout) => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Waits until no request has come for so long.
async fn quiet(last: &watch::Sender<Instant>, patience: Duration) {
    loop {
        let end = *last.borrow() + patience;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

async fn stream(served: &Served) -> Result<Stream, BoxError> {
    Ok(timeout(STREAM, served.link.connection.accept_bi()).await??)
}

async fn respond<B>(served: &Served, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    Ok(served.respond(request.map(body::guarded)).await)
}

/// Spawns what HTTP/2 needs beside the connection, tied to the connection's life.
#[derive(Clone)]
struct Tasks {
    tracker: TaskTracker,
    over: CancellationToken,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let over = self.over.clone();
        self.tracker.spawn(over.run_until_cancelled_owned(task).map(drop));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_quiet_so_long_after_its_last_request() {
        let patience = Duration::from_secs(60);
        let (begin, last) = (Instant::now(), watch::Sender::new(Instant::now()));
        let busy = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                last.send_replace(Instant::now());
            }
        };
        tokio::join!(quiet(&last, patience), busy);
        assert_eq!(begin.elapsed(), Duration::from_secs(150) + patience);
    }
}
