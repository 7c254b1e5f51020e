//! `dms serve` and `dms gateway`: one service, until a signal ends it.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tonic::transport::Endpoint;

use crate::auth::AuthOptions;
use crate::broker::BrokerOptions;
use crate::config::{BrokerArgs, GatewayArgs, ListenArgs, ServeArgs};
use crate::gateway;
use crate::server::{Server, ServerOptions};
use crate::shutdown::Signals;

/// Runs the service on an existing database.
pub async fn service(args: ServeArgs) -> Result<()> {
    let signals = Signals::catch()?;
    let auth = args.auth.options()?;
    let server = Server::start(server_options(args.database.database_url, auth, &args.listen, &args.broker)).await?;
    signals.first().await;
    server.shutdown().await;
    Ok(())
}

/// The options of a service on this database.
pub(crate) fn server_options(
    database_url: String,
    auth: AuthOptions,
    listen: &ListenArgs,
    broker: &BrokerArgs,
) -> ServerOptions {
    ServerOptions {
        broker: BrokerOptions { database_url, settings: broker.into(), clock: None },
        auth,
        grpc_addr: listen.grpc_addr,
        rest_addr: listen.rest.rest_addr.0,
        shutdown_limit: listen.shutdown.shutdown_limit.0,
    }
}

/// Runs the REST gateway in front of a remote service.
pub async fn gateway(args: GatewayArgs) -> Result<()> {
    let signals = Signals::catch()?;
    let address = args.rest.rest_addr.0.context("the gateway needs an address: --rest-addr is off")?;
    // Connects with the first call, and again whenever the connection is lost.
    let upstream = Endpoint::from_shared(args.upstream)?.tcp_nodelay(true).connect_lazy();
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let address: SocketAddr = listener.local_addr()?;
    tracing::info!(%address, "REST gateway ready");
    // axum leaves Nagle's algorithm on, which costs 40 ms an answer.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = axum::serve(listener, gateway::router(upstream)).with_graceful_shutdown(async { drop(stopped.await) });
    let mut serving = tokio::spawn(served.into_future());
    tokio::select! {
        ended = &mut serving => return Ok(ended??),
        () = signals.first() => {}
    }
    drop(stop);
    let limit = args.shutdown.shutdown_limit.0;
    if tokio::time::timeout(limit, serving).await.is_err() {
        tracing::warn!("calls were still in flight after {} s", limit.as_secs());
    }
    Ok(())
}
