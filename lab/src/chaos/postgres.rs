//! The private Postgres: killed, started again on the same data, replaced by its standby. It stays at one address.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dms_postgres::{Cluster, ClusterOptions};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::clocks::Environment;
use super::proxy::{Proxy, Upstream};
use super::recorder::Recorder;
use crate::harness::process::ProcessStat;
use crate::harness::signal::{self, Signal};
use crate::sql::faults::FaultSession;

/// How long sessions may take to end, and new ones to be accepted, around a restart.
const RESTART_LIMIT: Duration = Duration::from_secs(120);
/// A backend that was killed is noticed at once, or it had ended before.
const NOTICE_LIMIT: Duration = Duration::from_secs(3);
/// How long a standby may take to catch up.
const STANDBY_LIMIT: Duration = Duration::from_secs(60);
const DATABASE: &str = "postgres";
/// Few connections, so that faults can take all; a standby that looks for its primary often, and finds what it missed.
const SETTINGS: [(&str, &str); 3] =
    [("max_connections", "100"), ("wal_retrieve_retry_interval", "100ms"), ("wal_keep_size", "1GB")];

/// Which processes are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victims {
    /// The postmaster; the others notice.
    Postmaster,
    /// The postmaster and all its children at once.
    All,
}

/// The server, as durable as one in production. One fault at a time has it.
#[derive(Debug)]
pub(super) struct Postgres {
    /// Where its clusters are, each in a folder of its own.
    folder: PathBuf,
    clusters: u32,
    options: ClusterOptions,
    /// In front of the present one: for the suite itself.
    front: Proxy,
    /// With a standby: in front of each of the two, whichever is the primary.
    hosts: Vec<Proxy>,
    primary: usize,
    cluster: Option<Cluster>,
    standby: Option<Cluster>,
}

impl Postgres {
    /// Makes a cluster in this folder and starts it.
    pub(super) async fn start(
        folder: &Path,
        postgres_bin: Option<PathBuf>,
        settings: &[(&'static str, &'static str)],
        environment: Environment,
    ) -> Result<Self> {
        let settings = SETTINGS.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let data_dir = folder.join("postgres-0");
        let options = ClusterOptions {
            data_dir: Some(data_dir),
            durable: true,
            postgres_bin,
            settings: settings.collect(),
            environment,
        };
        let cluster = start(options.clone()).await?;
        let front = Proxy::start(Upstream::Unix(cluster.socket())).await?;
        let folder = folder.to_owned();
        Ok(Self {
            folder,
            clusters: 1,
            options,
            front,
            hosts: Vec::new(),
            primary: 0,
            cluster: Some(cluster),
            standby: None,
        })
    }

    /// The URL of its database, past all proxies that misbehave.
    pub(super) fn url(&self) -> String {
        Cluster::url_at(self.front.address(), DATABASE)
    }

    /// Where it is reached, by a client that takes one address.
    pub(super) fn upstream(&self) -> Upstream {
        Upstream::Tcp(self.front.address())
    }

    /// Where its servers are reached: with a standby two, of which a client has to find the primary.
    pub(super) fn upstreams(&self) -> Vec<Upstream> {
        match self.hosts.as_slice() {
            [] => vec![self.upstream()],
            hosts => hosts.iter().map(|host| Upstream::Tcp(host.address())).collect(),
        }
    }

    /// The host that is not the primary leads to this standby from now on.
    async fn place_standby(&mut self, primary: Upstream, standby: Upstream) -> Result<()> {
        match self.hosts.get(1 - self.primary) {
            Some(host) => host.redirect(standby),
            None => self.hosts = vec![Proxy::start(primary).await?, Proxy::start(standby).await?],
        }
        Ok(())
    }

    fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().context("Postgres does not run")
    }

    /// Starts the server unless it runs.
    pub(super) async fn start_again(&mut self) -> Result<()> {
        for cluster in [&mut self.cluster, &mut self.standby].into_iter().flatten() {
            if let Some(status) = cluster.ended()? {
                bail!("Postgres ended by itself ({status}): {}", cluster.log_tail());
            }
        }
        if self.cluster.is_none() {
            self.cluster = Some(start(self.options.clone()).await?);
        }
        Ok(())
    }

    /// Kills the server and starts it again after a pause.
    pub(super) async fn kill(&mut self, victims: Victims, pause: Duration, recorder: &Recorder) -> Result<()> {
        let began = recorder.now();
        self.end_at_once(victims).await?;
        sleep(pause).await;
        let started = self.start_again().await;
        // Up to the end of the last of its processes something may have been committed that a crash takes back.
        recorder.crash(recorder.since(began));
        started
    }

    async fn end_at_once(&mut self, victims: Victims) -> Result<()> {
        let postmaster = self.cluster()?.pid()?;
        let mut processes = vec![postmaster];
        if victims == Victims::All {
            processes.extend(ProcessStat::children_of(postmaster));
        }
        signal::send(Signal::Kill, &processes)?;
        // Dropped, it waits for the postmaster, which has ended; the next start waits for the others.
        let cluster = self.cluster.take();
        Ok(spawn_blocking(move || drop(cluster)).await?)
    }

    /// Stops the server in order and starts it again after a pause.
    pub(super) async fn restart(&mut self, pause: Duration) -> Result<()> {
        stop(self.cluster.take()).await?;
        sleep(pause).await;
        self.start_again().await
    }

    /// Stops everything in order.
    pub(super) async fn stop(&mut self) -> Result<()> {
        stop(self.cluster.take()).await?;
        stop(self.standby.take()).await
    }

    /// Kills one process of the server, which makes it restart all others.
    pub(super) async fn kill_backend(&mut self, backend: u32, recorder: &Recorder) -> Result<()> {
        let mut witness = FaultSession::connect(&self.url()).await?;
        let began = recorder.now();
        signal::send(Signal::Kill, &[backend])?;
        let deadline = Instant::now() + NOTICE_LIMIT;
        while witness.is_there().await && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
        let accepting = session(&self.url()).await.map(drop);
        recorder.crash(recorder.since(began));
        accepting
    }

    /// Gives the server a synchronous standby: from now on no commit is answered that is not there too.
    pub(super) async fn add_standby(&mut self) -> Result<()> {
        let data_dir = self.folder.join(format!("postgres-{}", self.clusters));
        self.clusters += 1;
        let options = ClusterOptions { data_dir: Some(data_dir.clone()), ..self.options.clone() };
        let primary = self.cluster.take().context("Postgres does not run")?;
        let bin = options.postgres_bin.clone();
        let copy = move || {
            let copied = primary.copy_as_standby(&data_dir, bin.as_deref());
            (primary, copied)
        };
        let (primary, copied) = spawn_blocking(copy).await?;
        let primary_at = Upstream::Unix(primary.socket());
        self.cluster = Some(primary);
        copied?;
        let standby = start(options).await?;
        self.place_standby(primary_at, Upstream::Unix(standby.socket())).await?;
        self.standby = Some(standby);
        session(&self.url()).await?.require_standby().await?;
        self.wait_for_standby().await
    }

    async fn wait_for_standby(&self) -> Result<()> {
        let deadline = Instant::now() + STANDBY_LIMIT;
        while !session(&self.url()).await?.has_standby().await? {
            ensure!(Instant::now() < deadline, "the standby does not catch up");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Kills the server for good and promotes its standby, which gets a standby of its own where the lost one was. Nobody
    /// tells the replicas: their URL names both hosts.
    pub(super) async fn fail_over(&mut self, recorder: &Recorder) -> Result<()> {
        self.wait_for_standby().await?;
        let began = recorder.now();
        self.end_at_once(Victims::All).await?;
        let standby = self.standby.take().context("there is no standby")?;
        FaultSession::connect(&standby.url(DATABASE)).await?.promote().await?;
        self.front.redirect(Upstream::Unix(standby.socket()));
        self.primary = 1 - self.primary;
        let lost = self.options.data_dir.replace(standby.data_dir().to_owned());
        self.cluster = Some(standby);
        recorder.crash(recorder.since(began));
        if let Some(lost) = lost {
            fs::remove_dir_all(&lost).with_context(|| format!("cannot remove {}", lost.display()))?;
        }
        self.add_standby().await
    }
}

async fn start(options: ClusterOptions) -> Result<Cluster> {
    spawn_blocking(move || Cluster::start(&options)).await?
}

async fn stop(cluster: Option<Cluster>) -> Result<()> {
    match cluster {
        Some(cluster) => spawn_blocking(move || cluster.stop()).await?,
        None => Ok(()),
    }
}

/// A session with a server that may be starting.
pub(super) async fn session(url: &str) -> Result<FaultSession> {
    let deadline = Instant::now() + RESTART_LIMIT;
    loop {
        match FaultSession::connect(url).await {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() > deadline => return Err(error).context("Postgres does not come back"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
