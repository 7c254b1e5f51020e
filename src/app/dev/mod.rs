//! `dms dev`: a private Postgres, the schema, the service and lines to paste, in one command.

mod examples;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dms_postgres::{Cluster, ClusterOptions};

use crate::app::server::{Server, ServerOptions};
use crate::app::service;
use crate::app::shutdown::Signals;
use crate::config::{DatabaseArgs, DevArgs};
use crate::store::schema::database;
use crate::store::{self, Database};

const DATABASE: &str = "dms";
/// Groups with metrics of their own; as in `dms serve`.
const METRICS_GROUPS_MAX: u32 = 1000;
const CRASH_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Runs until a signal ends it. The next run finds the same data.
pub async fn run(args: DevArgs) -> Result<()> {
    // An empty variable is how shells and compose files say "not set".
    let given = args.database_url.clone().filter(|url| !url.is_empty());
    let mut cluster = match given {
        Some(_) => None,
        None => Some(start_cluster(&args).await?),
    };
    let url = given.or_else(|| cluster.as_ref().map(|cluster| cluster.url(DATABASE))).unwrap_or_default();
    let schema = args.schema.clone();
    let database = Database::from(DatabaseArgs { database_url: url, schema });
    let ended = run_service(&args, database, cluster.as_mut()).await;
    let stopped = cluster.map_or(Ok(()), Cluster::stop);
    ended.and(stopped)
}

async fn start_cluster(args: &DevArgs) -> Result<Cluster> {
    let options = ClusterOptions {
        data_dir: Some(args.data_dir.clone()),
        durable: true,
        postgres_bin: args.postgres.postgres_bin.clone(),
        ..ClusterOptions::default()
    };
    tokio::task::spawn_blocking(move || Cluster::start(&options)).await?
}

async fn run_service(args: &DevArgs, database: Database, cluster: Option<&mut Cluster>) -> Result<()> {
    // Until here a signal simply ends us, and the server with us.
    let signals = Signals::catch()?;
    database::create_if_absent(&database).await?;
    store::migrate(&database).await?;
    let auth = args.auth.options_or_open()?;
    let options = service::server_options(
        database.clone(),
        auth,
        &args.traffic,
        &args.listen,
        service::settings(&args.broker, &args.memory),
    );
    let options = ServerOptions {
        admin_addr: args.admin_addr.0,
        metrics_groups_max: METRICS_GROUPS_MAX,
        allowed_hosts: args.hosts.allowed_hosts.clone(),
        ..options
    };
    let server = Server::start(options).await?;
    announce(&server, &database.url, cluster.as_deref())?;
    let ended = tokio::select! {
        () = signals.first() => Ok(()),
        crash = crash_of(cluster) => crash,
    };
    server.shutdown().await;
    ended
}

/// Waits for the server to end by itself, which it never should.
async fn crash_of(cluster: Option<&mut Cluster>) -> Result<()> {
    let Some(cluster) = cluster else { return std::future::pending().await };
    let mut interval = tokio::time::interval(CRASH_POLL_INTERVAL);
    loop {
        interval.tick().await;
        if let Some(status) = cluster.ended()? {
            bail!("the private Postgres server ended by itself ({status}): {}", cluster.log_tail());
        }
    }
}

fn announce(server: &Server, url: &str, cluster: Option<&Cluster>) -> Result<()> {
    let mut text = format!("\ndms is ready. gRPC: {}", server.grpc_addr());
    if let Some(address) = server.rest_addr() {
        text += &format!("   REST: http://{address}");
    }
    if let Some(address) = server.admin_addr() {
        text += &format!("\nMetrics: http://{address}/metrics");
    }
    if let Some(cluster) = cluster {
        text += &format!("\nData: {}\nDATABASE_URL='{url}'", cluster.data_dir().display());
    }
    text += "\n";
    text += &examples::lines(server.grpc_addr(), server.rest_addr());
    text += "\nCtrl-C stops the service and its Postgres; the data stays.\n";
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")
}
