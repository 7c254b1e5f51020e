//! Listeners: TCP, TLS if there is any, and HTTP on top.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};

use crate::accepted::Accepted;
use crate::domain::{Error, Result};
use crate::tls::Protocol;
use crate::watched::{Freshness, Watched};

const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
const HTTP2_KEEPALIVE: Duration = Duration::from_secs(30);
/// Calls at a time on one connection; a client may hold all its long polls on one.
const CALLS_PER_CONNECTION_MAX: u32 = 10_000;
/// The HTTP/2 library ends a connection when the small frames that wait unread, counted with up to 256 bytes each, exceed half
/// of this window. A burst of all the calls above must fit.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections of one listener; more are closed at once.
const CONNECTIONS_MAX: usize = 10_000;
/// A client that has not shaken hands by then is dropped.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes at a time; further clients wait.
const HANDSHAKES_MAX: usize = 1024;

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<Arc<Watched<ServerConfig>>>,
    /// How old a connection gets.
    age: Option<Duration>,
}

impl Listener {
    /// Binds; connections wait until it serves.
    pub async fn bind(addr: SocketAddr, protocol: Protocol, tls: Option<Arc<Watched<ServerConfig>>>) -> Result<Self> {
        let failed = |error| Error::internal(format!("cannot listen on {addr}: {error}"));
        let tcp = TcpListener::bind(addr).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, address, protocol, tls, age: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How its certificates do, if it has any.
    pub fn freshness(&self) -> Option<Arc<Freshness>> {
        self.tls.as_ref().and_then(|tls| tls.freshness())
    }

    /// Asks clients for a new connection when theirs is about this old, if there is a limit: up to a tenth more or less, other in each process,
    /// so that the clients of all replicas do not come at once. Only for HTTP/2, where no call is cut by it.
    #[must_use]
    pub fn renewing(self, age: Option<Duration>) -> Self {
        Self { age: age.map(|age| age.mul_f64(rand::random_range(0.9..=1.1))), ..self }
    }

    /// Serves until told to stop, then until its calls have ended.
    pub async fn serve(self, routes: Routes, stop: CancellationToken) {
        // Nagle's algorithm would hold back small answers for 40 ms.
        let incoming = TcpIncoming::from(self.tcp).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
        let incoming = incoming.then(async |accepted| {
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            accepted
        });
        let http = http(self.protocol, self.age);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let incoming = incoming.filter_map(move |accepted| in_place(accepted, &places));
        match self.tls {
            None => {
                let plain = incoming.map(|accepted| accepted.map(|(stream, place)| Accepted::new(stream, place)));
                serve(plain, http, routes, stop).await;
            }
            Some(tls) => serve(shake_hands(incoming, tls), http, routes, stop).await,
        }
    }
}

type Placed = (TcpStream, OwnedSemaphorePermit);

/// A connection with its place, if there is one.
fn in_place(accepted: io::Result<TcpStream>, places: &Arc<Semaphore>) -> Option<io::Result<Placed>> {
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => return Some(Err(error)),
    };
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => Some(Ok((stream, place))),
        Err(_) => {
            tracing::warn!(connections = CONNECTIONS_MAX, "too many connections: a new one is closed");
            None
        }
    }
}

fn http(protocol: Protocol, age: Option<Duration>) -> Server {
    let server = Server::builder()
        .accept_http1(protocol == Protocol::Rest)
        .http2_keepalive_interval(Some(HTTP2_KEEPALIVE))
        .initial_connection_window_size(Some(CONNECTION_WINDOW_BYTES))
        .max_concurrent_streams(Some(CALLS_PER_CONNECTION_MAX));
    match age {
        // Without a time of grace: tonic would cut the calls at its end, and would not ask the client before.
        Some(age) => server.max_connection_age(age),
        None => server,
    }
}

async fn serve<S>(incoming: impl Stream<Item = io::Result<S>>, http: Server, routes: Routes, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    if let Err(error) = http.serve_with_incoming_shutdown(routes.prepare(), incoming, stop.cancelled_owned()).await {
        tracing::error!(%error, "a listener ended");
    }
}

/// Connections with TLS. Handshakes run beside each other, so that a slow client holds up nobody.
fn shake_hands(
    incoming: impl Stream<Item = io::Result<Placed>> + Send + 'static,
    tls: Arc<Watched<ServerConfig>>,
) -> ReceiverStream<io::Result<Accepted<TlsStream<TcpStream>>>> {
    let (sender, receiver) = mpsc::channel(HANDSHAKES_MAX);
    tokio::spawn(async move {
        let mut incoming = std::pin::pin!(incoming);
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = incoming.next() => accepted,
                () = sender.closed() => None,
            };
            let (Some(accepted), Ok(place)) = (accepted, Arc::clone(&places).acquire_owned().await) else { return };
            let Ok((stream, connection)) = accepted else { continue };
            let (acceptor, sender) = (TlsAcceptor::from(tls.get()), sender.clone());
            tokio::spawn(async move {
                let _held_until_done = place;
                if let Some(stream) = handshake(&acceptor, stream).await {
                    let _closed = sender.send(Ok(Accepted::new(stream, connection))).await;
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_elapsed) => None,
    }
}
