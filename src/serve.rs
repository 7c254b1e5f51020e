//! `dms serve` and `dms gateway`: one service, until a signal ends it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::auth::AuthOptions;
use crate::broker::BrokerOptions;
use crate::config::{BrokerArgs, GatewayArgs, ListenArgs, ServeArgs, TrafficArgs, UpstreamTlsArgs};
use crate::gateway;
use crate::server::{self, Server, ServerOptions};
use crate::shutdown::Signals;
use crate::tls::Protocol;

/// Runs the service on an existing database.
pub async fn service(args: ServeArgs) -> Result<()> {
    let signals = Signals::catch()?;
    let auth = args.auth.options()?;
    let options = server_options(args.database.database_url, auth, &args.traffic, &args.listen, &args.broker);
    let options = ServerOptions {
        admin_addr: args.admin.admin_addr.0,
        metrics_groups_max: args.admin.metrics_groups_max,
        ..options
    };
    let options = ServerOptions { grpc_tls: args.tls.grpc(&args.grpc_tls), rest_tls: args.tls.rest(), ..options };
    let server = Server::start(options).await?;
    signals.first().await;
    server.shutdown().await;
    Ok(())
}

/// The options of a service on this database, without TLS.
pub(crate) fn server_options(
    database_url: String,
    auth: AuthOptions,
    traffic: &TrafficArgs,
    listen: &ListenArgs,
    broker: &BrokerArgs,
) -> ServerOptions {
    ServerOptions {
        broker: BrokerOptions { database_url, settings: broker.into(), clock: None },
        auth,
        limits: traffic.into(),
        grpc_addr: listen.grpc_addr,
        grpc_tls: None,
        rest_addr: listen.rest.rest_addr.0,
        rest_tls: None,
        admin_addr: None,
        metrics_groups_max: 0,
        shutdown_limit: listen.shutdown.shutdown_limit.0,
    }
}

/// Runs the REST gateway in front of a remote service.
pub async fn gateway(args: GatewayArgs) -> Result<()> {
    let signals = Signals::catch()?;
    let address = args.rest.rest_addr.0.context("the gateway needs an address: --rest-addr is off")?;
    let upstream = upstream(args.upstream, &args.upstream_tls)?;
    let mut background = Vec::new();
    let listener = server::listener(address, Protocol::Rest, args.tls.rest(), &mut background).await?;
    tracing::info!(address = %listener.address(), "REST gateway ready");
    let stop = CancellationToken::new();
    let mut serving = tokio::spawn(listener.serve(gateway::router(upstream).into(), stop.clone()));
    tokio::select! {
        ended = &mut serving => return ended.map_err(Into::into),
        () = signals.first() => stop.cancel(),
    }
    let limit = args.shutdown.shutdown_limit.0;
    if tokio::time::timeout(limit, serving).await.is_err() {
        tracing::warn!("calls were still in flight after {} s", limit.as_secs());
    }
    Ok(())
}

/// Connects with the first call, and again whenever the connection is lost.
fn upstream(url: String, tls: &UpstreamTlsArgs) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(url)?.tcp_nodelay(true);
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint.connect_lazy());
    }
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut config = ClientTlsConfig::new();
    config = match &tls.upstream_ca {
        Some(authorities) => config.ca_certificate(Certificate::from_pem(read(authorities)?)),
        None => config.with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&tls.upstream_cert, &tls.upstream_key) {
        config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(endpoint.tls_config(config)?.connect_lazy())
}
