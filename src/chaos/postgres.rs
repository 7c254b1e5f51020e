//! The private Postgres: killed, and started again on the same data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::recorder::Recorder;
use crate::harness::process::ProcessStat;
use crate::harness::signal::{self, Signal};
use crate::postgres::{Cluster, ClusterOptions};
use crate::store::faults::FaultSession;

/// How long sessions may take to end, and new ones to be accepted, around a restart.
const RESTART_LIMIT: Duration = Duration::from_secs(120);
/// A backend that was killed is noticed at once, or it had ended before.
const NOTICE_LIMIT: Duration = Duration::from_secs(3);
/// Few enough that faults can take all.
const MAX_CONNECTIONS: &str = "100";

/// Which processes are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// The postmaster; the others notice.
    Postmaster,
    /// The postmaster and all its children at once.
    All,
}

/// The server, as durable as one in production. One fault at a time has it.
#[derive(Debug)]
pub struct Postgres {
    options: ClusterOptions,
    url: String,
    cluster: Option<Cluster>,
}

impl Postgres {
    /// Makes a cluster in this folder and starts it.
    pub async fn start(
        folder: &Path,
        postgres_bin: Option<PathBuf>,
        settings: &[(&'static str, &'static str)],
    ) -> Result<Self> {
        let ours = [("max_connections", MAX_CONNECTIONS)];
        let settings = ours.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = settings.collect();
        let options = ClusterOptions { data_dir: Some(folder.to_owned()), durable: true, postgres_bin, settings };
        let mut postgres = Self { options, url: String::new(), cluster: None };
        postgres.start_again().await?;
        postgres.url = postgres.cluster()?.url("postgres");
        Ok(postgres)
    }

    /// The URL of its database, past all proxies.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The socket it listens on, the same after every start.
    pub fn socket(&self) -> Result<PathBuf> {
        Ok(self.cluster()?.socket())
    }

    fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().context("Postgres does not run")
    }

    /// Starts the server unless it runs.
    pub async fn start_again(&mut self) -> Result<()> {
        if let Some(status) = self.cluster.as_mut().map(Cluster::ended).transpose()?.flatten() {
            let log = self.cluster()?.log_tail();
            anyhow::bail!("Postgres ended by itself ({status}): {log}");
        }
        if self.cluster.is_none() {
            let options = self.options.clone();
            self.cluster = Some(spawn_blocking(move || Cluster::start(&options)).await??);
        }
        Ok(())
    }

    /// Kills the server and starts it again after a pause.
    pub async fn kill(&mut self, victims: Victims, pause: Duration, recorder: &Recorder) -> Result<()> {
        let postmaster = self.cluster()?.pid()?;
        let mut processes = vec![postmaster];
        if victims == Victims::All {
            processes.extend(ProcessStat::children_of(postmaster));
        }
        let began = recorder.now();
        signal::send(Signal::Kill, &processes)?;
        // Dropped, it waits for the postmaster, which has ended; the next start waits for the others.
        let cluster = self.cluster.take();
        spawn_blocking(move || drop(cluster)).await?;
        sleep(pause).await;
        let started = self.start_again().await;
        // Up to the end of the last of its processes something may have been committed that a crash takes back.
        recorder.crash(recorder.since(began));
        started
    }

    /// Stops the server in order and starts it again after a pause.
    pub async fn restart(&mut self, pause: Duration) -> Result<()> {
        self.stop().await?;
        sleep(pause).await;
        self.start_again().await
    }

    /// Stops the server in order.
    pub async fn stop(&mut self) -> Result<()> {
        match self.cluster.take() {
            Some(cluster) => spawn_blocking(move || cluster.stop()).await?,
            None => Ok(()),
        }
    }

    /// Kills one process of the server, which makes it restart all others.
    pub async fn kill_backend(&mut self, backend: u32, recorder: &Recorder) -> Result<()> {
        let mut witness = FaultSession::connect(&self.url).await?;
        let began = recorder.now();
        signal::send(Signal::Kill, &[backend])?;
        let deadline = Instant::now() + NOTICE_LIMIT;
        while witness.is_there().await && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
        let accepting = session(&self.url).await.map(drop);
        recorder.crash(recorder.since(began));
        accepting
    }
}

/// A session with a server that may be starting.
pub async fn session(url: &str) -> Result<FaultSession> {
    let deadline = Instant::now() + RESTART_LIMIT;
    loop {
        match FaultSession::connect(url).await {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() > deadline => return Err(error).context("Postgres does not come back"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
