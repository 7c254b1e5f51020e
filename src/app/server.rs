//! The composition root: broker, services, gateway, listeners, health; started and stopped in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ServiceDoor, TrafficLimits, health::Health};
use crate::app::admin;
use crate::auth::{AuthOptions, Authenticator};
use crate::broker::{Broker, BrokerOptions, Settings};
use crate::domain::hosts::HostName;
use crate::domain::{Error, Result};
use crate::gateway::hosts::{self, HostRules};
use crate::gateway::{self, RestOptions, cors};
use crate::memory::Use;
use crate::net::tls::{self, Protocol, TlsOptions};
use crate::net::{Audience, Calls, Listener, NetLimits, Ports};
use crate::observe::metrics::Credentials;
use crate::reload::Freshness;
use crate::store::health::diagnosis::Diagnosis;

/// Probes learn within the sum of both that Postgres has gone.
const READINESS_INTERVAL: Duration = Duration::from_secs(1);
const READINESS_LIMIT: Duration = Duration::from_secs(2);
/// How long the broker may take to end once no call is left; without Postgres its last steps may never come.
const BROKER_LIMIT: Duration = Duration::from_secs(5);

/// What the admin listener bears: of connections a fifth, and of calls a tenth, for none of them shows who makes it.
pub(crate) const OPERATORS: NetLimits = NetLimits { connections_max: 500, calls_max: 1_000 };

/// What a server needs to know.
#[derive(Debug)]
pub struct ServerOptions {
    /// The broker and its database, migrated before.
    pub broker: BrokerOptions,
    /// How callers prove who they are.
    pub auth: AuthOptions,
    /// What each project may ask for.
    pub limits: TrafficLimits,
    /// Where to listen for gRPC; port 0 takes any.
    pub grpc_addr: SocketAddr,
    /// TLS of that listener.
    pub grpc_tls: Option<TlsOptions>,
    /// How old its connections get, if there is an end to it.
    pub grpc_connection_age: Option<Duration>,
    /// Where to listen for REST, if at all.
    pub rest_addr: Option<SocketAddr>,
    /// TLS of that listener.
    pub rest_tls: Option<TlsOptions>,
    /// What else it does.
    pub rest: RestOptions,
    /// Where to listen for operators, if at all.
    pub admin_addr: Option<SocketAddr>,
    /// Groups with metrics of their own.
    pub metrics_groups_max: u32,
    /// What requests without credentials may call it, beside addresses and names inside of a network.
    pub allowed_hosts: Vec<HostName>,
    /// How many connections and calls there may be.
    pub net: NetLimits,
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
    admin_addr: Option<SocketAddr>,
    /// The ways to prove who one is; none when nobody has to.
    auth: Vec<&'static str>,
    stop: CancellationToken,
    background: Vec<JoinHandle<()>>,
    listeners: Vec<JoinHandle<()>>,
    shutdown_limit: Duration,
}

impl Server {
    /// Binds the listeners, starts the broker and serves.
    pub async fn start(options: ServerOptions) -> Result<Self> {
        Self::start_on(options, async |_, _| Ok(())).await
    }

    /// The same on a database that `usable` has nothing against. What this machine has is looked at before: ports and files.
    pub(crate) async fn start_on(
        mut options: ServerOptions,
        usable: impl AsyncFnOnce(&mut Diagnosis, &Settings) -> Result<()>,
    ) -> Result<Self> {
        let mut background = Vec::new();
        let bound = Bound::bind(&mut options, &mut background).await?;
        let (grpc_addr, rest_addr) = (bound.grpc.address(), bound.rest.as_ref().map(Listener::address));
        let admin_addr = bound.admin.as_ref().map(Listener::address);
        warn_if_open(&options.auth, [Some(grpc_addr), rest_addr]);
        let methods = options.auth.names();
        let rest_hosts =
            rest_hosts(&options.auth, rest_addr, &options.allowed_hosts).and_pages_of(&options.rest.origins);
        let ports = Ports { grpc: Some(grpc_addr), rest: rest_addr };
        let auth = Authenticator::load(options.auth).await?;
        let broker = Broker::start_if(options.broker, usable).await?;
        let health = Health::new().await;
        let secrets = [bound.grpc.freshness(), bound.rest.as_ref().and_then(Listener::freshness)];
        show_freshness(broker.metrics().credentials(), secrets.into_iter().flatten().chain(auth.freshness()));
        let net = options.net.within(broker.memory());
        let calls = Calls::new(net);
        let routes = api::routes(broker.clone(), auth.clone(), options.limits, net.calls_max);
        let stop = CancellationToken::new();
        // Health asks for no credentials.
        let grpc_routes = api::with_reflection(routes.clone(), &auth)?.add_service(health.grpc());
        let held = broker.memory().part(Use::Connections);
        let grpc =
            bound.grpc.renewing(options.grpc_connection_age).reserving(held).counting(broker.metrics().connections());
        let grpc = grpc.beside(ports);
        let mut listeners = vec![tokio::spawn(grpc.serve(grpc_routes, net, calls.clone(), stop.clone()))];
        if let Some(rest) = bound.rest {
            let door = Arc::new(ServiceDoor(auth.clone()));
            let app = gateway::router(routes, broker.memory().clone(), broker.metrics().rest().clone(), door);
            let app = hosts::guarded(cors::allowing(app, &options.rest.origins).merge(health.rest()), rest_hosts);
            let rest = rest.reserving(held).counting(broker.metrics().connections());
            let rest = rest.beside(ports).idling(options.rest.idle);
            listeners.push(tokio::spawn(rest.serve(app.into(), net, calls, stop.clone())));
        }
        if let Some(admin) = bound.admin {
            let app = admin::of_service(broker.clone(), health.rest(), options.metrics_groups_max, ports);
            let app = hosts::guarded(app, HostRules::inside_and(&options.allowed_hosts));
            let admin = admin.beside(ports);
            listeners.push(tokio::spawn(admin.serve(app.into(), OPERATORS, Calls::new(OPERATORS), stop.clone())));
        }
        background.push(tokio::spawn(watch_readiness(broker.clone(), health.clone())));
        background.push(tokio::spawn(auth.follow_sources()));
        show_readiness(&broker, &health, true).await;
        let shutdown_limit = options.shutdown_limit;
        Ok(Self {
            broker,
            health,
            grpc_addr,
            rest_addr,
            admin_addr,
            auth: methods,
            stop,
            background,
            listeners,
            shutdown_limit,
        })
    }

    /// Says in the log what runs where.
    pub(crate) fn announce(&self) {
        let shown =
            |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
        let (version, database) = (env!("CARGO_PKG_VERSION"), self.broker.database());
        let (grpc, rest, admin) = (self.grpc_addr, shown(self.rest_addr), shown(self.admin_addr));
        tracing::info!(version, %grpc, rest, admin, database, auth = ?self.auth, "dms serves");
    }

    /// Where gRPC listens.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// Where REST listens, if it does.
    pub fn rest_addr(&self) -> Option<SocketAddr> {
        self.rest_addr
    }

    /// Where operators look, if they can.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Stops in order: probes told, long polls answered, no new connections, calls in flight ended, broker stopped.
    pub async fn shutdown(self) {
        end(self.background).await;
        self.health.set(false).await;
        self.broker.stop_waiting();
        self.stop.cancel();
        self.health.close().await;
        drain(self.listeners, self.shutdown_limit).await;
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

/// A browser on this machine reaches what listens on its loopback addresses, so a page in it must not, where nobody has to show credentials.
fn rest_hosts(auth: &AuthOptions, address: Option<SocketAddr>, allowed: &[HostName]) -> HostRules {
    match (auth, address) {
        (AuthOptions::Open, Some(address)) if address.ip().is_loopback() => HostRules::inside_and(allowed),
        _ => HostRules::any(),
    }
}

/// The listeners, bound before anything starts: a port that is taken is known before anything serves.
struct Bound {
    grpc: Listener,
    rest: Option<Listener>,
    admin: Option<Listener>,
}

impl Bound {
    async fn bind(options: &mut ServerOptions, background: &mut Vec<JoinHandle<()>>) -> Result<Self> {
        let (grpc_tls, rest_tls) = (options.grpc_tls.take(), options.rest_tls.take());
        let grpc = listener("--grpc-addr", options.grpc_addr, Protocol::Grpc, grpc_tls, background).await?;
        let rest = match options.rest_addr {
            Some(addr) => Some(listener("--rest-addr", addr, Protocol::Rest, rest_tls, background).await?),
            None => None,
        };
        let admin = admin_listener(options.admin_addr, background).await?;
        Ok(Self { grpc, rest, admin })
    }
}

/// Binds, and follows the files of its certificate. Services on one machine have the same defaults, so a complaint names
/// the flag.
pub(crate) async fn listener(
    flag: &str,
    addr: SocketAddr,
    protocol: Protocol,
    options: Option<TlsOptions>,
    background: &mut Vec<JoinHandle<()>>,
) -> Result<Listener> {
    let tls = match options {
        Some(options) => Some(tls::load(options, protocol).await?),
        None => None,
    };
    background.extend(tls.iter().map(|tls| tokio::spawn(Arc::clone(tls).follow())));
    let bound = Listener::bind(addr, protocol, tls).await;
    bound.map_err(|error| Error::internal(format!("{flag}: {}", error.message())))
}

/// The same for operators, if they have one.
pub(crate) async fn admin_listener(
    addr: Option<SocketAddr>,
    background: &mut Vec<JoinHandle<()>>,
) -> Result<Option<Listener>> {
    match addr {
        Some(addr) => {
            let bound = listener("--admin-addr", addr, Protocol::Rest, None, background).await?;
            Ok(Some(bound.for_audience(Audience::Operators)))
        }
        None => Ok(None),
    }
}

/// Shows in the metrics how fresh these are.
pub(crate) fn show_freshness(credentials: &Credentials, sources: impl IntoIterator<Item = Arc<Freshness>>) {
    for source in sources {
        credentials.follow(source.what(), move || source.sample());
    }
}

/// Ends tasks. An aborted one may still be inside of its last step; health must not come back after it.
pub(crate) async fn end(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.abort();
        let _aborted = task.await;
    }
}

/// Waits until listeners that were told to stop have ended, and their calls with them.
pub(crate) async fn drain(listeners: Vec<JoinHandle<()>>, limit: Duration) {
    let drained = async {
        for listener in listeners {
            let _ended = listener.await;
        }
    };
    if tokio::time::timeout(limit, drained).await.is_err() {
        tracing::warn!(?limit, "calls are still in flight at the limit of the shutdown");
    }
}

/// Tells the probes and the metrics when Postgres goes and comes back.
async fn watch_readiness(broker: Broker, health: Health) {
    loop {
        tokio::time::sleep(READINESS_INTERVAL).await;
        let ping = tokio::time::timeout(READINESS_LIMIT, broker.ping()).await;
        show_readiness(&broker, &health, matches!(ping, Ok(Ok(())))).await;
    }
}

async fn show_readiness(broker: &Broker, health: &Health, postgres_up: bool) {
    broker.metrics().replica().set_postgres_up(postgres_up);
    health.set(postgres_up).await;
}
