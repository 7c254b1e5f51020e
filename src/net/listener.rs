//! Listeners: TCP, TLS if there is any, and HTTP on top.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use super::NetLimits;
use super::call::Calls;
use super::connection::Connection;
use super::greeting::Heard;
use super::heads::Heads;
use super::newcomers::Newcomers;
use super::serve::Http;
use super::signpost::{Ports, Signpost};
use super::slots::Slots;
use super::sweep::Present;
use crate::domain::{Error, Result};
use crate::memory::{ByteBudget, CONNECTION_BYTES};
use crate::net::tls::Protocol;
use crate::observe::log_limit::LogLimit;
use crate::observe::metrics::{Connections, Cut};
use crate::reload::{Freshness, Watched};

const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client that has not shaken hands by then is dropped.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// How long an idle connection is kept unless told otherwise: longer than balancers keep theirs, which is a minute in most.
pub(crate) const IDLE_DEFAULT: Duration = Duration::from_secs(75);

static CROWDED: LogLimit = LogLimit::new();

/// Who comes to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Anybody: a caller who shows no good credentials has to leave after a while.
    Public,
    /// Operators and their tools, who need no credentials.
    Operators,
}

/// A bound address.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    protocol: Protocol,
    tls: Option<Arc<Watched<ServerConfig>>>,
    audience: Audience,
    /// How old a connection gets.
    age: Option<Duration>,
    /// Where the memory of its connections is counted.
    memory: Option<ByteBudget>,
    cuts: Connections,
    /// How long it is kept without a call.
    idle_max: Option<Duration>,
    ports: Ports,
}

impl Listener {
    /// Binds; connections wait until it serves.
    pub async fn bind(addr: SocketAddr, protocol: Protocol, tls: Option<Arc<Watched<ServerConfig>>>) -> Result<Self> {
        let failed = |error| Error::internal(format!("cannot listen on {addr}: {error}"));
        let tcp = TcpListener::bind(addr).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let idle_max = (protocol == Protocol::Rest).then_some(IDLE_DEFAULT);
        Ok(Self {
            tcp,
            address,
            protocol,
            tls,
            audience: Audience::Public,
            age: None,
            memory: None,
            cuts: Connections::default(),
            idle_max,
            ports: Ports::default(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How its certificates do, if it has any.
    pub(crate) fn freshness(&self) -> Option<Arc<Freshness>> {
        self.tls.as_ref().and_then(|tls| tls.freshness())
    }

    /// For others than anybody.
    #[must_use]
    pub(crate) fn for_audience(self, audience: Audience) -> Self {
        Self { audience, ..self }
    }

    /// Keeps connections without a call for this time.
    #[must_use]
    pub(crate) fn idling(self, idle_max: Duration) -> Self {
        Self { idle_max: Some(idle_max), ..self }
    }

    /// Tells callers of another protocol where to go.
    #[must_use]
    pub fn beside(self, ports: Ports) -> Self {
        Self { ports, ..self }
    }

    /// Asks clients for a new connection when theirs is about this old, if there is a limit: up to a tenth more or less, other in each process,
    /// so that the clients of all replicas do not come at once. Only for HTTP/2, where no call is cut by it.
    #[must_use]
    pub(crate) fn renewing(self, age: Option<Duration>) -> Self {
        Self { age: age.map(|age| age.mul_f64(rand::random_range(0.9..=1.1))), ..self }
    }

    /// Counts the memory of its connections in this budget, which has room for as many as there may be.
    #[must_use]
    pub(crate) fn reserving(self, memory: &ByteBudget) -> Self {
        Self { memory: Some(memory.clone()), ..self }
    }

    /// Counts there which connections it ends.
    #[must_use]
    pub(crate) fn counting(self, cuts: &Connections) -> Self {
        Self { cuts: cuts.clone(), ..self }
    }

    /// Serves until told to stop, then until its calls have ended. `calls` are those of the process.
    pub async fn serve(self, routes: Routes, limits: NetLimits, calls: Calls, stop: CancellationToken) {
        // Nagle's algorithm would hold back small answers for 40 ms.
        let incoming = TcpIncoming::from(self.tcp).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
        let signpost = Signpost::new(self.protocol, self.audience, self.ports);
        let door = Arc::new(Door {
            newcomers: Newcomers::new(limits.unknown_connections_max()),
            settled: calls.connections(),
            heads: Heads::default(),
            present: Arc::default(),
            http: Http::new(routes, calls, signpost, self.idle_max),
            tls: self.tls,
            trusting: self.audience == Audience::Operators,
            age: self.age,
            memory: self.memory,
            cuts: self.cuts,
            idle_max: self.idle_max,
            stop: stop.clone(),
        });
        let connections = TaskTracker::new();
        tokio::select! {
            () = accept(incoming, &door, &connections) => {}
            () = door.present.look_after() => {}
            () = stop.cancelled() => {}
        }
        connections.close();
        tokio::select! {
            () = connections.wait() => {}
            () = door.present.look_after() => {}
        }
    }
}

/// Takes connections until it is dropped, and the port is closed with it.
async fn accept(incoming: TcpIncoming, door: &Arc<Door>, connections: &TaskTracker) {
    let mut incoming = pin!(incoming);
    while let Some(accepted) = incoming.next().await {
        let Ok(stream) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Ok(peer) = stream.peer_addr() {
            connections.spawn(Arc::clone(door).serve(stream, peer));
        }
    }
}

/// What the connections of a listener share.
struct Door {
    newcomers: Arc<Newcomers>,
    settled: Arc<Slots>,
    heads: Heads,
    present: Arc<Present>,
    http: Http,
    tls: Option<Arc<Watched<ServerConfig>>>,
    trusting: bool,
    age: Option<Duration>,
    memory: Option<ByteBudget>,
    cuts: Connections,
    idle_max: Option<Duration>,
    stop: CancellationToken,
}

impl Door {
    /// One connection from its beginning to its end.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let connection = Arc::new(self.enter(peer));
        let _looked_after = self.present.enter(&connection);
        let held = self.memory.as_ref().map(|memory| memory.reservation(None));
        // Not refused any more: how many there may be is known, and for who has to go another one has come.
        held.iter().for_each(|held| held.grow_anyway(CONNECTION_BYTES));
        let heard = |connection: &Arc<Connection>| (Arc::clone(connection), self.heads.clone());
        let Some(tls) = &self.tls else {
            let (held, heads) = heard(&connection);
            return self.http.serve(Heard::new(stream, held, heads), connection, self.age, self.stop.clone()).await;
        };
        let (acceptor, must_go) = (TlsAcceptor::from(tls.get()), connection.must_go());
        let shaken = tokio::select! {
            shaken = self.handshake(&acceptor, stream) => shaken,
            () = must_go.notified() => None,
            () = self.stop.cancelled() => None,
        };
        if let Some(stream) = shaken {
            let (held, heads) = heard(&connection);
            self.http.serve(Heard::new(stream, held, heads), connection, self.age, self.stop.clone()).await;
        }
    }

    async fn handshake(&self, acceptor: &TlsAcceptor, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_elapsed) => {
                self.cuts.cut(Cut::Silent);
                None
            }
        }
    }

    fn enter(&self, peer: SocketAddr) -> Connection {
        let must_go = Arc::new(Notify::new());
        let (place, crowded) = self.newcomers.enter(peer.ip(), Arc::clone(&must_go));
        if crowded {
            self.cuts.cut(Cut::Crowd);
        }
        if crowded && let Some(left_out) = CROWDED.admits() {
            let message =
                "too many connections without good credentials: the oldest of the address with most of them is closed";
            tracing::warn!(%peer, left_out, "{message}");
        }
        Connection::new(peer, must_go, place, Arc::clone(&self.settled), self.trusting, self.cuts.clone())
            .ending_idle(self.idle_max)
    }
}
