//! What is under load: a running service, or a private Postgres with services and peers on it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dms_postgres::{Cluster, ClusterOptions};
use tonic::transport::{Channel, Endpoint};

use super::client::{Client, GrpcClient, PgmqClient, RawClient, RestClient};
use super::workload::Workload;
use crate::bench::args::{BenchArgs, GROUPS_MAX, QUEUES_MAX, System};
use crate::harness::service::{self, Address, Service};
use crate::sql::baselines::Peer;

/// Longer than any call of the benchmark may take, the longest poll included.
const CALL_LIMIT: Duration = Duration::from_secs(90);
/// A service takes a thousand calls at a time on one connection.
const CALLS_PER_CONNECTION: u32 = 900;
/// After a checkpoint each page goes to the WAL once more as a whole. A distance between checkpoints that no load reaches, not
/// even the one of minutes beside an open transaction, keeps that out of all alike: Postgres begins one at about half of
/// `max_wal_size`. The other settings are the defaults of Postgres.
const PRIVATE_SETTINGS: [(&str, &str); 2] = [("max_wal_size", "24GB"), ("checkpoint_timeout", "30min")];

/// Where the load goes.
#[derive(Debug)]
pub(super) struct Testbed {
    /// A project of this run alone.
    pub project_id: String,
    /// The service, by replica.
    pub addresses: Vec<Address>,
    /// The Postgres behind it, when known.
    pub database_url: Option<String>,
    // Dropped in this order: the services, then what they need.
    services: Vec<Service>,
    cluster: Option<Cluster>,
}

impl Testbed {
    /// The target, or a private Postgres with a service.
    pub(super) async fn open(args: &BenchArgs) -> Result<Self> {
        let database_url = args.database_url.clone();
        if let Some(target) = &args.target {
            let address = Address { grpc: target.clone(), rest: args.rest_target, process: None };
            return Ok(Self::at(vec![address], database_url));
        }
        let (cluster, database_url) = match database_url {
            Some(url) => (None, url),
            None => start_cluster(args).await?,
        };
        service::migrate(&args.service.program()?, &database_url, service::SCHEMA).await?;
        install_pgmq(args, &database_url).await?;
        let mut testbed = Self { cluster, ..Self::at(Vec::new(), Some(database_url)) };
        testbed.start_service(args).await?;
        Ok(testbed)
    }

    /// Services that run already.
    pub(super) fn at(addresses: Vec<Address>, database_url: Option<String>) -> Self {
        let project_id = format!("bench-{:016x}", rand::random::<u64>());
        Self { project_id, addresses, database_url, services: Vec::new(), cluster: None }
    }

    /// Starts one more replica.
    pub(super) async fn start_service(&mut self, args: &BenchArgs) -> Result<()> {
        let url = self.database_url.as_deref().context("database-url: not known")?;
        let quotas = [format!("--queues-per-project={QUEUES_MAX}"), format!("--groups-per-queue={GROUPS_MAX}")];
        let flags = [&quotas[..], &args.service.serve].concat();
        let service = Service::start(&args.service.program()?, url, &flags).await?;
        self.addresses.push(service.address.clone());
        self.services.push(service);
        Ok(())
    }

    /// Stops the replica that was started last.
    pub(super) fn stop_service(&mut self) {
        self.addresses.pop();
        self.services.pop();
    }

    /// The clients of a load, in the order of their numbers.
    pub(super) async fn clients(&self, workload: &Workload) -> Result<Vec<Client>> {
        let channels = if workload.system == System::Grpc { self.channels(workload).await? } else { Vec::new() };
        (0..workload.clients).map(|index| self.client(workload, &channels, index)).collect()
    }

    fn client(&self, workload: &Workload, channels: &[Channel], index: u32) -> Result<Client> {
        let project = self.project_id.clone();
        let database_url = || self.database_url.clone().context("database-url: not known");
        Ok(match workload.system {
            System::Grpc => {
                let channel = channels[index as usize % channels.len()].clone();
                Client::Grpc(Box::new(GrpcClient::new(project, channel)))
            }
            System::Rest => {
                let replica = index as usize % workload.replicas as usize;
                let address = self.addresses[replica].rest.context("rest-target: not known")?;
                Client::Rest(Box::new(RestClient::new(project, address)))
            }
            System::Pgmq => Client::Pgmq(PgmqClient::new(database_url()?)),
            System::Raw => Client::Raw(RawClient::new(database_url()?, index)),
        })
    }

    /// Connections to the replicas in turns, so that clients with neighbouring numbers are on different ones.
    pub(super) async fn channels(&self, workload: &Workload) -> Result<Vec<Channel>> {
        let replicas = workload.replicas as usize;
        ensure!(replicas <= self.addresses.len(), "{replicas} replicas wanted, {} run", self.addresses.len());
        let mut channels = Vec::new();
        let needed = workload.clients.div_ceil(CALLS_PER_CONNECTION).max(workload.connections) as usize;
        for index in 0..needed.next_multiple_of(replicas) {
            channels.push(connect(&self.addresses[index % replicas].grpc).await?);
        }
        Ok(channels)
    }

    /// Stops the private services and their Postgres.
    pub(super) async fn close(self) -> Result<()> {
        let Self { services, cluster, .. } = self;
        tokio::task::spawn_blocking(move || {
            drop(services);
            cluster.map_or(Ok(()), Cluster::stop)
        })
        .await?
    }
}

/// A connection to a service.
pub(super) async fn connect(url: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("target: '{url}' is not a URL"))?;
    let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).timeout(CALL_LIMIT).tcp_nodelay(true);
    endpoint.connect().await.with_context(|| format!("cannot reach the service at {url}"))
}

/// A throw-away Postgres, as durable as one in production, and the URL of its database.
async fn start_cluster(args: &BenchArgs) -> Result<(Option<Cluster>, String)> {
    let settings = PRIVATE_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres_bin = args.service.postgres_bin.clone();
    let options = ClusterOptions { durable: true, postgres_bin, settings, ..ClusterOptions::default() };
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await??;
    let url = cluster.url("postgres");
    Ok((Some(cluster), url))
}

async fn install_pgmq(args: &BenchArgs, database_url: &str) -> Result<()> {
    let Some(file) = &args.pgmq_sql else { return Ok(()) };
    let sql = fs::read_to_string(file).with_context(|| format!("pgmq-sql: cannot read {}", file.display()))?;
    let mut peer = Peer::connect(database_url).await?;
    peer.install_pgmq(&sql).await.context("pgmq-sql: Postgres refused it")?;
    peer.close().await;
    Ok(())
}
