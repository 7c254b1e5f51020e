//! Where a run takes place: a private Postgres, replicas behind proxies, and a folder for what they leave.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::Mutex;

use super::client::{self, Doors};
use super::clocks::Clocks;
use super::postgres::{Postgres, session};
use super::print;
use super::proxy::ProxyFaults;
use super::recorder::Recorder;
use super::replica::Replica;
use super::sabotage;
use super::topology::Topology;
use crate::chaos::args::{ChaosArgs, Fault, Sabotage};
use crate::harness::service;

/// How often a fault of the network concerns all replicas.
const ALL: f64 = 0.3;

/// A running testbed. Dropping it ends everything.
#[derive(Debug)]
pub(super) struct Testbed {
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// The server.
    pub postgres: Mutex<Postgres>,
    program: PathBuf,
    /// Its database, past all proxies.
    pub database_url: String,
    /// Sets the clocks of all that, if a fault of the run does.
    pub clocks: Option<Arc<Clocks>>,
    /// Where the tables are.
    schema: &'static str,
    /// Takes down what happens to it.
    pub recorder: Arc<Recorder>,
    // Last, when nothing uses it any more.
    _folder: Folder,
}

impl Testbed {
    /// Starts everything and makes the queues.
    pub(super) async fn open(args: &ChaosArgs) -> Result<(Self, Topology)> {
        let folder = Folder::make(args.data_dir.as_deref())?;
        let settings = args.sabotage.map(sabotage::settings).unwrap_or_default();
        let bin = args.service.postgres_bin.clone();
        let clocks = clocks(args, &folder.path)?.map(Arc::new);
        let environment = clocks.as_ref().map(|clocks| clocks.settable()).unwrap_or_default();
        let mut postgres = Postgres::start(&folder.path, bin, settings, environment).await?;
        let database_url = postgres.url();
        let program = args.service.program()?;
        // Versions without a schema of their own have their tables in `public`, where those of both versions use them then.
        let schema = if args.previous.is_some() { "public" } else { service::SCHEMA };
        service::migrate(args.previous.as_ref().unwrap_or(&program), &database_url, schema).await?;
        if args.standby {
            postgres.add_standby().await?;
        }
        // An earlier version need not know how to find the primary among several hosts.
        let servers = if args.previous.is_some() { vec![postgres.upstream()] } else { postgres.upstreams() };
        let programs: Vec<PathBuf> = args.previous.iter().cloned().chain([program.clone()]).collect();
        let mut replicas = Vec::new();
        for number in 0..args.replicas as usize {
            replicas.push(
                Replica::start(
                    number,
                    servers.clone(),
                    (args.serve_flags(), schema),
                    programs.clone(),
                    clocks.clone(),
                    &folder.path,
                )
                .await?,
            );
        }
        let topology = Topology::create(&client::plain(replicas[0].direct)?).await?;
        if let Some(sabotage) = args.sabotage {
            sabotage::install(&database_url, sabotage).await?;
        }
        let rules = topology.queues.iter().map(|queue| queue.rules).collect();
        let groups: Vec<usize> = topology.groups.iter().map(|group| group.queue).collect();
        let recorder = Arc::new(Recorder::new(rules, &groups));
        let postgres = Mutex::new(postgres);
        let testbed = Self { replicas, postgres, program, database_url, schema, clocks, recorder, _folder: folder };
        Ok((testbed, topology))
    }

    /// Brings the schema to this version while replicas of the previous one run on it.
    pub(super) async fn upgrade(&self) -> Result<()> {
        service::migrate(&self.program, &self.database_url, self.schema).await
    }

    /// Ends a sabotage whose harm would otherwise outlast the load.
    pub(super) async fn lift(&self, sabotage: Option<Sabotage>) -> Result<()> {
        match sabotage {
            Some(sabotage) => sabotage::lift(&self.database_url, sabotage).await,
            None => Ok(()),
        }
    }

    /// Where clients reach the replicas.
    pub(super) fn doors(&self) -> Arc<[Doors]> {
        let doors = |replica: &Replica| Doors { grpc: replica.grpc.address(), rest: replica.rest.address() };
        self.replicas.iter().map(doors).collect()
    }

    /// Any replica.
    pub(super) fn any_replica(&self, rng: &mut StdRng) -> &Replica {
        &self.replicas[rng.random_range(0..self.replicas.len())]
    }

    /// Any one of the replicas, or all.
    pub(super) fn some_replicas(&self, rng: &mut StdRng) -> Vec<&Replica> {
        if rng.random_bool(ALL) { self.replicas.iter().collect() } else { vec![self.any_replica(rng)] }
    }

    /// Ends all faults: everything runs, nothing stands in the way.
    pub(super) async fn heal(&self) -> Result<()> {
        for replica in &self.replicas {
            replica
                .databases
                .iter()
                .chain([&replica.grpc, &replica.rest])
                .for_each(|proxy| proxy.set(ProxyFaults::default()));
        }
        self.postgres.lock().await.start_again().await?;
        session(&self.database_url).await?.accept_appends().await.context("a fault does not end")?;
        for replica in &self.replicas {
            replica.ensure_running(&self.recorder).await?;
        }
        Ok(())
    }

    /// Ends everything in order, and notes what does not.
    pub(super) async fn close(&self) -> Result<()> {
        for replica in &self.replicas {
            replica.close(&self.recorder).await?;
        }
        self.postgres.lock().await.stop().await
    }
}

/// What the faults of clocks need, if there are any. Faults that were asked for by name are not left out.
fn clocks(args: &ChaosArgs, folder: &Path) -> Result<Option<Clocks>> {
    if !args.kinds().into_iter().any(Fault::is_of_clocks) {
        return Ok(None);
    }
    match Clocks::build(folder) {
        Err(error) if args.faults.is_empty() => {
            print(&format!("LEFT OUT: clock-drift, postgres-clock-stepped, which need a C compiler: {error:#}"))?;
            Ok(None)
        }
        built => Ok(Some(built.context("faults: clock-drift and postgres-clock-stepped need a C compiler")?)),
    }
}

/// The data of Postgres and the logs of the replicas.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn make(given: Option<&Path>) -> Result<Self> {
        let temporary = given.is_none();
        let path = match given {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("dms-chaos-{:016x}", rand::random::<u64>())),
        };
        ensure!(!path.join("postgres-0").exists(), "data-dir: {} has the data of an earlier run", path.display());
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
