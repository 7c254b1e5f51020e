//! The composition root: broker, services, gateway, listeners, health; started and stopped in order.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use crate::api::{self, health::Health};
use crate::auth::{AuthOptions, Authenticator};
use crate::broker::{Broker, BrokerOptions};
use crate::domain::{Error, Result};
use crate::gateway;

/// Probes learn within the sum of both that Postgres has gone.
const READINESS_INTERVAL: Duration = Duration::from_secs(1);
const READINESS_LIMIT: Duration = Duration::from_secs(2);
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
const HTTP2_KEEPALIVE: Duration = Duration::from_secs(30);
/// Calls at a time on one connection; a client may hold all its long polls on one.
const CALLS_PER_CONNECTION_MAX: u32 = 10_000;
/// The HTTP/2 library ends a connection when the small frames that wait unread, counted with up to 256 bytes each, exceed half
/// of this window. A burst of all the calls above must fit.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// How long the broker may take to end once no call is left; without Postgres its last steps may never come.
const BROKER_LIMIT: Duration = Duration::from_secs(5);
/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server needs to know.
#[derive(Debug)]
pub struct ServerOptions {
    /// The broker and its database, migrated before.
    pub broker: BrokerOptions,
    /// How callers prove who they are.
    pub auth: AuthOptions,
    /// Where to listen for gRPC; port 0 takes any.
    pub grpc_addr: SocketAddr,
    /// Where to listen for REST, if at all.
    pub rest_addr: Option<SocketAddr>,
    /// How long calls in flight may take to end at a shutdown.
    pub shutdown_limit: Duration,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    broker: Broker,
    health: Health,
    grpc_addr: SocketAddr,
    rest_addr: Option<SocketAddr>,
    stop: CancellationToken,
    background: Vec<JoinHandle<()>>,
    listeners: Vec<JoinHandle<()>>,
    shutdown_limit: Duration,
}

impl Server {
    /// Binds the listeners, starts the broker and serves.
    pub async fn start(options: ServerOptions) -> Result<Self> {
        let grpc = bind(options.grpc_addr).await?;
        let rest = match options.rest_addr {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        let (grpc_addr, rest_addr) = (local_addr(&grpc)?, rest.as_ref().map(local_addr).transpose()?);
        warn_if_open(&options.auth, [Some(grpc_addr), rest_addr]);
        let auth = Authenticator::load(options.auth)?;
        let broker = Broker::start(options.broker).await?;
        let health = Health::new().await;
        let routes = api::routes(broker.clone(), auth.clone());
        let stop = CancellationToken::new();
        // Health stands outside of what bounds calls and asks for credentials.
        let grpc_routes = api::with_reflection(routes.clone(), &auth)?.add_service(health.grpc());
        let mut listeners = vec![tokio::spawn(serve(grpc, grpc_routes, false, stop.clone()))];
        if let Some(listener) = rest {
            let app = gateway::router(routes).merge(health.rest());
            listeners.push(tokio::spawn(serve(listener, app.into(), true, stop.clone())));
        }
        let readiness = tokio::spawn(watch_readiness(broker.clone(), health.clone()));
        let background = vec![readiness, tokio::spawn(auth.follow_sources())];
        health.set(true).await;
        let shutdown_limit = options.shutdown_limit;
        Ok(Self { broker, health, grpc_addr, rest_addr, stop, background, listeners, shutdown_limit })
    }

    /// Where gRPC listens.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where REST listens, if it does.
    pub fn rest_addr(&self) -> Option<SocketAddr> {
        self.rest_addr
    }

    /// Stops in order: probes told, long polls answered, no new connections, calls in flight ended, broker stopped.
    pub async fn shutdown(self) {
        for task in self.background {
            task.abort();
            // An aborted task may still be inside its last step; health must not come back after it.
            let _aborted = task.await;
        }
        self.health.set(false).await;
        self.broker.stop_waiting();
        self.stop.cancel();
        self.health.close().await;
        let drained = async {
            for listener in self.listeners {
                let _ended = listener.await;
            }
        };
        if tokio::time::timeout(self.shutdown_limit, drained).await.is_err() {
            tracing::warn!(limit = ?self.shutdown_limit, "calls are still in flight at the limit of the shutdown");
        }
        if tokio::time::timeout(BROKER_LIMIT, self.broker.shutdown()).await.is_err() {
            tracing::warn!(limit = ?BROKER_LIMIT, "the broker has not ended in time: is Postgres away?");
        }
    }
}

fn warn_if_open(auth: &AuthOptions, listeners: [Option<SocketAddr>; 2]) {
    for address in listeners.into_iter().flatten().filter(|address| !address.ip().is_loopback()) {
        if matches!(auth, AuthOptions::Open) {
            tracing::warn!(%address, "whoever reaches this address may do anything: --auth is none");
        }
    }
}

async fn bind(addr: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(addr).await.map_err(|error| Error::internal(format!("cannot listen on {addr}: {error}")))
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::internal(format!("a listener without an address: {error}")))
}

/// Serves one listener until told to stop, then until its calls have ended. HTTP/1 is for REST.
async fn serve(listener: TcpListener, routes: Routes, http1: bool, stop: CancellationToken) {
    // Nagle's algorithm would hold back small answers for 40 ms.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
    let incoming = incoming.then(async |accepted| {
        if accepted.is_err() {
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted
    });
    let server = tonic::transport::Server::builder()
        .accept_http1(http1)
        .http2_keepalive_interval(Some(HTTP2_KEEPALIVE))
        .initial_connection_window_size(Some(CONNECTION_WINDOW_BYTES))
        .max_concurrent_streams(Some(CALLS_PER_CONNECTION_MAX))
        .serve_with_incoming_shutdown(routes.prepare(), incoming, stop.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "a listener ended");
    }
}

/// Tells the probes when Postgres goes and comes back.
async fn watch_readiness(broker: Broker, health: Health) {
    loop {
        tokio::time::sleep(READINESS_INTERVAL).await;
        let ping = tokio::time::timeout(READINESS_LIMIT, broker.ping()).await;
        health.set(matches!(ping, Ok(Ok(())))).await;
    }
}
