//! One replica of the service behind proxies: one between it and Postgres, two between its clients and it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dms_postgres::Cluster;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::checker::Rule;
use super::clocks::Clocks;
use super::proxy::{Proxy, Upstream};
use super::recorder::Recorder;
use crate::harness::service::{Service, ServiceOptions, free_address};
use crate::harness::signal::Signal;

/// How long calls in flight may take to end after a SIGTERM.
const SHUTDOWN_FLAG: &str = "--shutdown-limit=5s";
/// That, what the broker takes, and a margin for a machine that is busy.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long a replica may take to start while Postgres comes back.
const START_LIMIT: Duration = Duration::from_secs(120);
/// What a replica should never say.
const BAD_WORDS: [&str; 3] = ["panicked at", "corrupt segment", "dead letter lost"];

/// A replica at addresses that stay the same.
#[derive(Debug)]
pub(super) struct Replica {
    /// Between it and each server of Postgres.
    pub databases: Vec<Proxy>,
    /// In front of its gRPC port.
    pub grpc: Proxy,
    /// In front of its REST port.
    pub rest: Proxy,
    /// Its gRPC port itself.
    pub direct: SocketAddr,
    number: usize,
    rest_port: SocketAddr,
    /// Of `dms serve`.
    flags: Vec<String>,
    /// What it runs, in turns.
    programs: Vec<PathBuf>,
    launches: AtomicUsize,
    clocks: Option<Arc<Clocks>>,
    schema: &'static str,
    drift_ppm: AtomicI64,
    log: PathBuf,
    service: Mutex<Option<Service>>,
}

impl Replica {
    /// Starts it on the first of these programs; each time it starts again it is on the next. `folder` takes its log.
    pub(super) async fn start(
        number: usize,
        postgres: Vec<Upstream>,
        (flags, schema): (Vec<String>, &'static str),
        programs: Vec<PathBuf>,
        clocks: Option<Arc<Clocks>>,
        folder: &Path,
    ) -> Result<Self> {
        let (direct, rest_port) = (free_address()?, free_address()?);
        let mut databases = Vec::new();
        for server in postgres {
            databases.push(Proxy::start(server).await?);
        }
        let replica = Self {
            databases,
            grpc: Proxy::start(Upstream::Tcp(direct)).await?,
            rest: Proxy::start(Upstream::Tcp(rest_port)).await?,
            direct,
            number,
            rest_port,
            flags: flags.into_iter().chain([SHUTDOWN_FLAG.to_owned()]).collect(),
            programs,
            launches: AtomicUsize::new(0),
            clocks,
            schema,
            drift_ppm: AtomicI64::new(0),
            log: folder.join(format!("replica-{number}.log")),
            service: Mutex::new(None),
        };
        *replica.service.lock().await = Some(replica.launch().await?);
        Ok(replica)
    }

    async fn launch(&self) -> Result<Service> {
        let log =
            File::options().create(true).append(true).open(&self.log).context("cannot open the log of a replica")?;
        let hosts: Vec<SocketAddr> = self.databases.iter().map(Proxy::address).collect();
        let database_url = Cluster::url_at_any(&hosts, "postgres");
        let turn = self.launches.fetch_add(1, Ordering::Relaxed) % self.programs.len();
        let drift_ppm = self.drift_ppm.load(Ordering::Relaxed);
        let drifting = self.clocks.as_ref().filter(|_| drift_ppm != 0).map(|clocks| clocks.drifting(drift_ppm));
        // As a variable: an earlier version need not know it.
        let schema = ("DMS_SCHEMA".to_owned(), self.schema.to_owned());
        let environment: Vec<(String, String)> = drifting.unwrap_or_default().into_iter().chain([schema]).collect();
        let options = ServiceOptions {
            program: &self.programs[turn],
            database_url: &database_url,
            grpc: self.direct,
            rest: self.rest_port,
            flags: &self.flags,
            environment: &environment,
            log,
        };
        Service::start_at(options).await
    }

    /// Has it run again, whatever was done to it. One that has ended though nobody ended it is a violation.
    pub(super) async fn ensure_running(&self, recorder: &Recorder) -> Result<()> {
        let mut service = self.service.lock().await;
        if let Some(status) = service.as_mut().map(Service::ended).transpose()?.flatten() {
            recorder.violation(Rule::Recovery, format!("replica {} ended by itself: {status}", self.number));
            *service = None;
        }
        let deadline = Instant::now() + START_LIMIT;
        while service.is_none() {
            match self.launch().await {
                Ok(launched) => *service = Some(launched),
                // It gives up when Postgres is away; whatever runs it starts it again.
                Err(error) if Instant::now() > deadline => return Err(error).context("a replica does not start"),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
        Ok(())
    }

    /// From its next start on its clocks run so many parts in a million fast.
    pub(super) fn drift(&self, ppm: i64) {
        self.drift_ppm.store(ppm, Ordering::Relaxed);
    }

    /// kill -9; it stays down for a while.
    pub(super) async fn kill(&self, down: Duration, recorder: &Recorder) -> Result<()> {
        let mut running = self.service.lock().await;
        let Some(service) = running.take() else { return Ok(()) };
        service.signal(Signal::Kill)?;
        spawn_blocking(move || drop(service)).await?;
        drop(running);
        sleep(down).await;
        self.ensure_running(recorder).await
    }

    /// SIGTERM, and waits for its end, which is in order; it stays down for a while.
    pub(super) async fn stop(&self, down: Duration, recorder: &Recorder) -> Result<()> {
        let running = self.service.lock().await;
        if let Err(error) = end(running).await {
            recorder.violation(Rule::Recovery, format!("replica {}: {error:#}", self.number));
        }
        sleep(down).await;
        self.ensure_running(recorder).await
    }

    /// Stops its process and lets it go on after a while. Nothing else is done to it meanwhile.
    pub(super) async fn freeze(&self, time: Duration) -> Result<()> {
        let running = self.service.lock().await;
        let Some(service) = running.as_ref() else { return Ok(()) };
        service.signal(Signal::Stop)?;
        sleep(time).await;
        service.signal(Signal::Continue)
    }

    /// Ends it for good, and looks for what it should not have said.
    pub(super) async fn close(&self, recorder: &Recorder) -> Result<()> {
        if let Err(error) = end(self.service.lock().await).await {
            recorder.violation(Rule::Recovery, format!("replica {}: {error:#}", self.number));
        }
        let log = std::fs::read(&self.log).context("cannot read the log of a replica")?;
        let log = String::from_utf8_lossy(&log);
        for line in log.lines().filter(|line| BAD_WORDS.iter().any(|words| line.contains(words))) {
            recorder.violation(Rule::Recovery, format!("replica {} said: {line}", self.number));
        }
        Ok(())
    }
}

/// Ends a process in order.
async fn end(mut running: MutexGuard<'_, Option<Service>>) -> Result<()> {
    let Some(mut service) = running.take() else { return Ok(()) };
    service.signal(Signal::Terminate)?;
    let deadline = Instant::now() + STOP_LIMIT;
    let status = loop {
        match service.ended()? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                service.signal(Signal::Kill)?;
                bail!("still ran {} s after SIGTERM", STOP_LIMIT.as_secs());
            }
            None => sleep(Duration::from_millis(20)).await,
        }
    };
    ensure!(status.success(), "ended with {status} after SIGTERM");
    Ok(())
}
