//! `dms gateway`: the REST gateway alone, in front of a service that is somewhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::app::admin;
use crate::app::server::{OPERATORS, admin_listener, drain, end, listener, show_freshness};
use crate::app::upstream::Upstream;
use crate::domain::Result;
use crate::domain::hosts::HostName;
use crate::gateway::hosts::{self, HostRules};
use crate::gateway::{self, Remote, RemoteDoor, RestOptions, cors};
use crate::memory::{Memory, Use};
use crate::net::readiness::Readiness;
use crate::net::tls::{Protocol, TlsOptions};
use crate::net::{Calls, Listener, NetLimits, Ports, health_checks};
use crate::observe::metrics::GatewayMetrics;

/// Probes learn within the sum of both that the service has gone.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// Calls at a time on each connection to the service, which takes a thousand; they are not spread quite evenly.
const CALLS_PER_CONNECTION: usize = 900;

/// What a gateway needs to know.
#[derive(Debug)]
pub struct StandaloneOptions {
    /// The way to the service.
    pub upstream: Upstream,
    /// Where to listen for REST; port 0 takes any.
    pub rest_addr: SocketAddr,
    /// TLS of that listener.
    pub rest_tls: Option<TlsOptions>,
    /// What else it does.
    pub rest: RestOptions,
    /// Where to listen for operators, if at all.
    pub admin_addr: Option<SocketAddr>,
    /// What requests to the admin address may call it, beside addresses and names inside of a network.
    pub allowed_hosts: Vec<HostName>,
    /// How many connections and calls there may be.
    pub net: NetLimits,
    /// Bytes that it may hold in all.
    pub memory_max: usize,
    /// How long calls in flight may take to end at a shutdown.
    pub shutdown_limit: Duration,
}

/// A running gateway.
#[derive(Debug)]
pub struct Standalone {
    readiness: Readiness,
    rest_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    stop: CancellationToken,
    background: Vec<JoinHandle<()>>,
    listeners: Vec<JoinHandle<()>>,
    shutdown_limit: Duration,
}

impl Standalone {
    /// Binds the listeners and serves. Calls reach the service as soon as it is there.
    pub async fn start(options: StandaloneOptions) -> Result<Self> {
        let StandaloneOptions {
            upstream: Upstream { channel: upstream, endpoint },
            rest_addr,
            rest_tls,
            rest: RestOptions { idle, origins },
            admin_addr,
            allowed_hosts,
            net,
            memory_max,
            shutdown_limit,
        } = options;
        let memory = Memory::of_gateway(memory_max)?;
        let net = net.within(&memory);
        let mut background = Vec::new();
        let rest = listener("--rest-addr", rest_addr, Protocol::Rest, rest_tls, &mut background).await?;
        let rest = rest.reserving(memory.part(Use::Connections));
        let admin = admin_listener(admin_addr, &mut background).await?;
        let (rest_addr, admin_addr) = (rest.address(), admin.as_ref().map(Listener::address));
        let ports = Ports { grpc: None, rest: Some(rest_addr) };
        let (readiness, metrics) = (Readiness::default(), GatewayMetrics::default());
        let rest = rest.counting(metrics.connections());
        let sources = [rest.freshness(), endpoint.as_ref().and_then(|endpoint| endpoint.freshness())];
        show_freshness(metrics.credentials(), sources.into_iter().flatten());
        background.extend(endpoint.map(|endpoint| tokio::spawn(endpoint.follow())));
        let stop = CancellationToken::new();
        let app =
            gateway::router(Remote(upstream.clone()), memory.clone(), metrics.rest().clone(), Arc::new(RemoteDoor));
        let app = cors::allowing(app, &origins).merge(health_checks(readiness.probes()));
        let app = hosts::guarded(app, HostRules::any());
        let mut listeners = vec![serve(rest.beside(ports).idling(idle), app, net, &stop)];
        if let Some(admin) = admin {
            let app = admin::of_gateway(metrics.clone(), memory, readiness.probes(), ports);
            let app = hosts::guarded(app, HostRules::inside_and(&allowed_hosts));
            listeners.push(serve(admin.beside(ports), app, OPERATORS, &stop));
        }
        tracing::info!(address = %rest_addr, "REST gateway listens");
        background.push(tokio::spawn(follow(upstream, readiness.clone(), metrics)));
        Ok(Self { readiness, rest_addr, admin_addr, stop, background, listeners, shutdown_limit })
    }

    /// Where REST listens.
    pub fn rest_addr(&self) -> SocketAddr {
        self.rest_addr
    }

    /// Where operators look, if they can.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Returns when a listener has ended by itself, which it never should.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Stops in order: probes told, no new connections, calls in flight ended.
    pub async fn shutdown(self) {
        end(self.background).await;
        self.readiness.set(false);
        self.stop.cancel();
        drain(self.listeners, self.shutdown_limit).await;
    }
}

/// Serves until told to stop. When one listener ends, so do the others.
fn serve(listener: Listener, app: Router, limits: NetLimits, stop: &CancellationToken) -> JoinHandle<()> {
    let (stopped, guard) = (stop.clone(), stop.clone().drop_guard());
    tokio::spawn(async move {
        let _stops_the_others = guard;
        listener.serve(app.into(), limits, Calls::new(limits), stopped).await;
    })
}

/// Tells the probes and the metrics when the service goes and comes back.
async fn follow(upstream: Channel, readiness: Readiness, metrics: GatewayMetrics) {
    let mut health = HealthClient::new(upstream);
    let mut before = None;
    loop {
        let seen = look(&mut health).await;
        let ready = seen.is_ok();
        readiness.set(ready);
        metrics.set_upstream_up(ready);
        if before.replace(ready) != Some(ready) {
            match seen {
                Ok(()) => tracing::info!("the service behind the gateway is ready"),
                Err(why) => tracing::warn!(%why, "the service behind the gateway is not ready"),
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Asks `grpc.health.v1`; why the service is not ready, when it is not.
async fn look(health: &mut HealthClient<Channel>) -> Result<(), String> {
    match tokio::time::timeout(LOOK_LIMIT, health.check(HealthCheckRequest::default())).await {
        Ok(Ok(answer)) => match answer.get_ref().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(other.as_str_name().to_owned()),
        },
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_elapsed) => Err(format!("no answer within {} s", LOOK_LIMIT.as_secs())),
    }
}

/// What connections to the service can carry of these limits: calls that found no free stream would wait for another's long poll.
pub fn within(upstream_connections: u16, limits: NetLimits) -> NetLimits {
    let calls = usize::from(upstream_connections) * CALLS_PER_CONNECTION;
    NetLimits { calls_max: limits.calls_max.min(calls), ..limits }
}
