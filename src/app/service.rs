//! `dms serve` and `dms gateway`: one service, until a signal ends it.

use anyhow::{Context, Result, bail};

use crate::app::gateway::{self, Standalone, StandaloneOptions};
use crate::app::server::{Server, ServerOptions};
use crate::app::shutdown::Signals;
use crate::app::upstream::Upstream;
use crate::auth::AuthOptions;
use crate::broker::{BrokerOptions, Settings};
use crate::config::{BrokerArgs, GatewayArgs, ListenArgs, MemoryArgs, ServeArgs, TrafficArgs};
use crate::doctor::connections;
use crate::store::Database;

/// Runs the service on an existing database.
pub async fn service(args: ServeArgs) -> Result<()> {
    let mut signals = Signals::catch()?;
    let auth = args.auth.options()?;
    let options =
        server_options(args.database.into(), auth, &args.traffic, &args.listen, settings(&args.broker, &args.memory));
    let options = ServerOptions {
        admin_addr: args.admin.address.admin_addr.0,
        metrics_groups_max: args.admin.metrics_groups_max,
        allowed_hosts: args.admin.address.hosts.allowed_hosts,
        ..options
    };
    let options = ServerOptions { grpc_tls: args.tls.grpc(&args.grpc_tls), rest_tls: args.tls.rest(), ..options };
    let starting = Server::start_on(options, connections::say_at_start);
    let server = tokio::select! {
        started = starting => started?,
        // Whatever it waits for: nothing has been promised to anybody yet.
        () = signals.next() => {
            tracing::info!("ended while starting");
            return Ok(());
        }
    };
    server.announce();
    signals.first().await;
    server.shutdown().await;
    Ok(())
}

/// The settings of the message engine, with the memory it may use.
pub(crate) fn settings(broker: &BrokerArgs, memory: &MemoryArgs) -> Settings {
    Settings { memory_max: memory.memory_max.0, ..broker.into() }
}

/// The options of a service on this database, without TLS.
pub(crate) fn server_options(
    database: Database,
    auth: AuthOptions,
    traffic: &TrafficArgs,
    listen: &ListenArgs,
    settings: Settings,
) -> ServerOptions {
    ServerOptions {
        broker: BrokerOptions { database, settings, clock: None },
        auth,
        limits: traffic.into(),
        grpc_addr: listen.grpc_addr,
        grpc_tls: None,
        grpc_connection_age: listen.grpc_connection_age.map(|age| age.0),
        rest_addr: listen.rest.rest_addr.0,
        rest_tls: None,
        rest: (&listen.rest).into(),
        admin_addr: None,
        metrics_groups_max: 0,
        allowed_hosts: Vec::new(),
        net: (&listen.net).into(),
        shutdown_limit: listen.shutdown.shutdown_limit.0,
    }
}

/// Runs the REST gateway in front of a remote service.
pub async fn gateway(args: GatewayArgs) -> Result<()> {
    let signals = Signals::catch()?;
    let (connections, age) = (args.upstream_connections, args.upstream_connection_age.0);
    let options = StandaloneOptions {
        upstream: Upstream::connect(args.upstream, connections, age, &args.upstream_tls).await?,
        rest_addr: args.rest.rest_addr.0.context("the gateway needs an address: --rest-addr is off")?,
        rest_tls: args.tls.rest(),
        rest: (&args.rest).into(),
        admin_addr: args.admin.admin_addr.0,
        allowed_hosts: args.admin.hosts.allowed_hosts,
        net: gateway::within(connections, (&args.net).into()),
        memory_max: args.memory.memory_max.0,
        shutdown_limit: args.shutdown.shutdown_limit.0,
    };
    let gateway = Standalone::start(options).await?;
    tokio::select! {
        () = gateway.stopped() => bail!("a listener of the gateway has ended"),
        () = signals.first() => gateway.shutdown().await,
    }
    Ok(())
}
