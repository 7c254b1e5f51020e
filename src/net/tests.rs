//! A connection as a whole, with a clock that the tests turn.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::call::{Call, Calls};
use super::connection::Connection;
use super::greeting::Heard;
use super::heads::Heads;
use super::newcomers::Newcomers;
use super::serve::Http;
use super::signpost::{Ports, Signpost};
use super::slots::Slots;
use super::sweep::Present;
use super::{Audience, NetLimits, health_checks};
use crate::net::tls::Protocol;
use crate::observe::metrics::Connections;

/// One tenth is for unknown callers.
const LIMITS: NetLimits = NetLimits { connections_max: 10, calls_max: 50 };

const IDLE: Duration = Duration::from_secs(90);

/// Answers of one piece and of many; `/known` is a call with good credentials.
fn routes() -> Router {
    let known = get(async |request: Request| {
        let call: &Call = request.extensions().get().unwrap();
        let refused = call.belongs_to("owner").is_err();
        call.was_known("owner");
        if refused { "refused" } else { "known" }
    });
    let large = get(async || vec![b'x'; 200_000]);
    let small = get(async || "small");
    let checks = health_checks(Router::new().route("/healthz", get(async || "alive")));
    let slow = get(async || std::future::pending::<()>().await);
    Router::new()
        .route("/known", known)
        .route("/slow", slow)
        .route("/large", large)
        .route("/small", small)
        .merge(checks)
}

struct Served {
    client: Option<DuplexStream>,
    ended: JoinHandle<()>,
    _swept: tokio_util::task::AbortOnDropHandle<()>,
}

fn serve() -> Served {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (peer, must_go) = ("127.0.0.1:1".parse().unwrap(), Arc::new(Notify::new()));
    let (place, _) = Newcomers::new(10).enter("127.0.0.1".parse().unwrap(), Arc::clone(&must_go));
    let connection = Connection::new(peer, must_go, place, Slots::new(10), false, Connections::default());
    let connection = Arc::new(connection.ending_idle(Some(IDLE)));
    let present = Arc::new(Present::default());
    let signpost = Signpost::new(Protocol::Rest, Audience::Public, Ports::default());
    let http = Http::new(routes().into(), Calls::new(LIMITS), signpost, Some(IDLE));
    let swept = {
        let present = Arc::clone(&present);
        tokio::spawn(async move { present.look_after().await })
    };
    let ended = tokio::spawn(async move {
        let _looked_after = present.enter(&connection);
        let heard = Heard::new(ours, Arc::clone(&connection), Heads::default());
        http.serve(heard, connection, None, CancellationToken::new()).await;
    });
    Served { client: Some(theirs), ended, _swept: tokio_util::task::AbortOnDropHandle::new(swept) }
}

impl Served {
    async fn http2(&mut self, window: u32) -> SendRequest<Bytes> {
        let stream = self.client.take().unwrap();
        let (client, connection) = Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn lasts(&self, seconds: u64) -> bool {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        !self.ended.is_finished()
    }
}

fn slow() -> http::Request<()> {
    http::Request::get("http://h/slow").body(()).unwrap()
}

async fn ask(client: &SendRequest<Bytes>, path: &str) -> h2::RecvStream {
    let mut client = client.clone().ready().await.unwrap();
    let request = http::Request::get(format!("http://h{path}")).body(()).unwrap();
    client.send_request(request, true).unwrap().0.await.unwrap().into_body()
}

/// All of a body, or why not.
async fn read(mut body: h2::RecvStream) -> Result<usize, h2::Error> {
    let mut size = 0;
    while let Some(piece) = body.data().await {
        size += piece.as_ref().map_or(0, Bytes::len);
        body.flow_control().release_capacity(piece?.len()).unwrap();
    }
    Ok(size)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_slowly_comes_as_a_whole() {
    let mut served = serve();
    let client = served.http2(1_000).await;
    let _known = ask(&client, "/known").await;
    assert_eq!(read(ask(&client, "/large").await).await.unwrap(), 200_000);
    assert_eq!(read(ask(&client, "/small").await).await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_ends_alone() {
    let mut served = serve();
    let client = served.http2(20_000).await;
    assert_eq!(read(ask(&client, "/known").await).await.unwrap(), 5);
    let unread = ask(&client, "/large").await;
    assert!(served.lasts(65).await);
    let error = read(unread).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    assert_eq!(read(ask(&client, "/small").await).await.unwrap(), 5);
    assert!(served.lasts(IDLE.as_secs() - 10).await);
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_whose_library_holds_an_answer_that_is_not_read() {
    let mut served = serve();
    let client = served.http2(1).await;
    let _unread = ask(&client, "/known").await;
    assert!(served.lasts(59).await);
    assert!(!served.lasts(20).await);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_credentials_leaves_after_a_while() {
    let mut served = serve();
    let client = served.http2(65_535).await;
    for _ in 0..3 {
        assert_eq!(read(ask(&client, "/healthz").await).await.unwrap(), 5);
        assert!(served.lasts(50).await, "health checks are answered");
    }
    assert_eq!(read(ask(&client, "/small").await).await.unwrap(), 5);
    assert!(!served.lasts(30).await);
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_credentials_stays() {
    let mut served = serve();
    let client = served.http2(65_535).await;
    assert_eq!(read(ask(&client, "/known").await).await.unwrap(), 5);
    for _ in 0..40 {
        assert!(served.lasts(IDLE.as_secs() - 5).await);
        assert_eq!(read(ask(&client, "/small").await).await.unwrap(), 5);
    }
    // An open call is no idling, however long it takes.
    let slow = client.clone().ready().await.unwrap().send_request(slow(), true).unwrap().0;
    assert!(served.lasts(300).await);
    drop(slow);
    assert!(!served.lasts(IDLE.as_secs() + 10).await);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_http_1_outlives_what_balancers_keep() {
    let mut served = serve();
    let mut client = served.client.take().unwrap();
    let request = b"GET /known HTTP/1.1\r\nhost: h\r\n\r\n";
    for _ in 0..2 {
        client.write_all(request).await.unwrap();
        let mut answer = [0; 1_000];
        let size = client.read(&mut answer).await.unwrap();
        assert!(answer[..size].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..size]));
        assert!(served.lasts(80).await);
    }
    assert!(!served.lasts(20).await);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_unknown_call_gives_way() {
    let mut served = serve();
    let client = served.http2(0).await;
    let mut unread = Vec::new();
    for _ in 0..6 {
        unread.push(ask(&client, "/large").await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = unread.remove(0);
    assert_eq!(read(first).await.unwrap_err().reason(), Some(h2::Reason::CANCEL));
    assert!(tokio::time::timeout(Duration::from_secs(1), unread[4].data()).await.is_err(), "the last is still there");
}
