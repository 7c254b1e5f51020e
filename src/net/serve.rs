//! HTTP on one connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use super::answer::Answer;
use super::call::{Calls, ENDS_STREAM};
use super::connection::Connection;
use super::request::Arriving;
use super::signpost::Signpost;

const HTTP2_KEEPALIVE: Duration = Duration::from_secs(30);
/// Calls at a time on one connection. Each has a cost before anybody knows whose it is; a client with more long polls opens more
/// connections.
pub(super) const CALLS_PER_CONNECTION_MAX: u32 = 1_000;
/// The HTTP/2 library ends a connection when the small frames that wait unread, counted with up to 256 bytes each, exceed half
/// of this window. A burst of all the calls above must fit; and so much may wait for handlers that do not read.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// All headers of a request or an answer of HTTP/2.
const HTTP2_HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// All headers of a request of HTTP/1, with its first line.
const HTTP1_HEADERS_BYTES_MAX: usize = 64 * 1024;
/// What the HTTP/2 library holds of an answer that is not sent.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that were reset before anybody looked at them, and streams that had to be reset here, before the connection ends.
const PENDING_RESETS_MAX: usize = 100;
const OWN_RESETS_MAX: usize = 1_024;
/// How long HTTP/1 may rest on a connection where there is no idling.
const HEAD_AWAITED_MAX: Duration = Duration::from_secs(10);

/// How the connections of a listener are served. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Http {
    builder: Builder<Streams>,
    routes: Routes,
    calls: Calls,
    signpost: Signpost,
}

impl Http {
    /// With these routes; `calls` are those of the process. Where gRPC is spoken, HTTP/1 is only for the answer of the signpost.
    pub(super) fn new(routes: Routes, calls: Calls, signpost: Signpost, idle_max: Option<Duration>) -> Self {
        let mut builder = Builder::new(Streams);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_KEEPALIVE)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .max_header_list_size(HTTP2_HEADERS_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(OWN_RESETS_MAX);
        builder
            .http1()
            .timer(TokioTimer::new())
            // From the end of the request before; from the first byte on heads.rs has a shorter limit.
            .header_read_timeout(idle_max.unwrap_or(HEAD_AWAITED_MAX))
            .max_buf_size(HTTP1_HEADERS_BYTES_MAX);
        Self { builder, routes: routes.prepare(), calls, signpost }
    }

    /// Serves until the end, or until told to stop: then until the calls have ended.
    pub(super) async fn serve<S>(
        &self,
        stream: S,
        connection: Arc<Connection>,
        age: Option<Duration>,
        stop: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| {
            answer(self.routes.clone(), self.signpost, self.calls.clone(), Arc::clone(&connection), request)
        });
        let mut http = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let must_go = connection.must_go();
        let mut ends = pin!(async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = aged(age) => {}
                () = connection.should_go() => {}
            }
        });
        let mut leaving = false;
        loop {
            tokio::select! {
                ended = http.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, peer = %connection.peer(), "a connection failed");
                    }
                    return;
                }
                () = must_go.notified() => {
                    tracing::debug!(peer = %connection.peer(), "a connection is cut");
                    return;
                }
                () = ends.as_mut(), if !leaving => {
                    leaving = true;
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn aged(age: Option<Duration>) {
    match age {
        Some(age) => tokio::time::sleep(age).await,
        None => std::future::pending().await,
    }
}

/// One call, with its place from here until its answer is sent.
async fn answer(
    mut routes: Routes,
    signpost: Signpost,
    calls: Calls,
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let call = calls.begin(Arc::clone(&connection));
    request.extensions_mut().insert(call.clone());
    let response = match signpost.answer(&request) {
        Some(response) => response,
        None if request.version() < Version::HTTP_2 => {
            routes.call(request.map(|body| Body::new(Arriving::new(body, call.clone())))).await?
        }
        None => routes.call(request.map(Body::new)).await?,
    };
    if !response.body().is_end_stream() {
        connection.answers_with(&call);
    }
    Ok(response.map(|body| Answer::new(body, call)))
}

/// Serves each stream of HTTP/2 in a task of its own, which can be told to end.
#[derive(Debug, Clone, Copy)]
struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let ends = Arc::new(Notify::new());
        let told = Arc::clone(&ends);
        // It is large, and would be copied into each of the futures around it.
        let stream = Box::pin(stream);
        tokio::spawn(ENDS_STREAM.scope(ends, async move {
            tokio::select! {
                biased;
                () = stream => {}
                () = told.notified() => {}
            }
        }));
    }
}
