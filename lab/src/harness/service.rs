//! A replica of the service as a process of its own, so that its CPU and memory are its own too, and its end is.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dms_postgres::Launch;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::process::ProcessStat;
use super::signal::{self, Signal};

const READY_LIMIT: Duration = Duration::from_secs(30);
/// The longest that one look at the health may take.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

/// Where the tables of the service are, whatever the environment says.
pub const SCHEMA: &str = "dms";

/// How to run a replica.
#[derive(Debug)]
pub struct ServiceOptions<'a> {
    /// The program `dms`, of this version or of another one.
    pub program: &'a Path,
    /// A migrated database.
    pub database_url: &'a str,
    /// Where to listen for gRPC.
    pub grpc: SocketAddr,
    /// Where to listen for REST.
    pub rest: SocketAddr,
    /// More flags of `dms serve`.
    pub flags: &'a [String],
    /// More variables of its process.
    pub environment: &'a [(String, String)],
    /// Takes what it says.
    pub log: File,
}

/// A running replica. Dropping it ends it.
#[derive(Debug)]
pub struct Service {
    /// Where it is.
    pub address: Address,
    wrapper: Child,
}

/// Where a service listens.
#[derive(Debug, Clone)]
pub struct Address {
    /// URL.
    pub grpc: String,
    /// Its gateway, when known.
    pub rest: Option<SocketAddr>,
    /// Its process, when it is ours.
    pub process: Option<u32>,
}

impl Service {
    /// Starts `dms serve` on a migrated database and waits until it serves.
    pub async fn start(program: &Path, database_url: &str, flags: &[String]) -> Result<Self> {
        let log = std::io::stderr().as_fd().try_clone_to_owned().context("cannot share standard error")?.into();
        let (grpc, rest) = (free_address()?, free_address()?);
        let environment = &[];
        Self::start_at(ServiceOptions { program, database_url, grpc, rest, flags, environment, log }).await
    }

    /// The same at given addresses.
    pub async fn start_at(options: ServiceOptions<'_>) -> Result<Self> {
        let mut arguments: Vec<OsString> = vec![options.program.into(), "serve".into(), "--log=warn".into()];
        arguments.push(format!("--database-url={}", options.database_url).into());
        arguments.push(format!("--grpc-addr={}", options.grpc).into());
        arguments.push(format!("--rest-addr={}", options.rest).into());
        arguments.extend(options.flags.iter().map(Into::into));
        let launch = Launch { arguments, log: options.log, signal: "TERM", remove: None };
        let mut shell = Command::new("/bin/sh");
        // Variables, as an earlier version need not know them. It listens on the loopback interface only.
        shell.envs([("DMS_AUTH", "none"), ("DMS_ADMIN_ADDR", "off"), ("DMS_SCHEMA", SCHEMA)]);
        shell.envs(options.environment.iter().map(|(name, value)| (name, value)));
        let wrapper = launch.start(shell)?;
        let address = Address { grpc: format!("http://{}", options.grpc), rest: Some(options.rest), process: None };
        let mut service = Self { address, wrapper };
        service.wait_until_ready().await?;
        service.address.process = ProcessStat::children_of(service.wrapper.id()).into_iter().find(is_service);
        Ok(service)
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::send(signal, &[self.address.process.context("the process of the service is not known")?])
    }

    /// How it ended, when it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.wrapper.try_wait()?)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let channel = Channel::from_shared(self.address.grpc.clone())?.timeout(CHECK_LIMIT).connect_lazy();
        let mut health = HealthClient::new(channel);
        let deadline = Instant::now() + READY_LIMIT;
        while !is_serving(&mut health).await {
            if let Some(status) = self.wrapper.try_wait()? {
                bail!("the service did not start: {status}");
            }
            if Instant::now() > deadline {
                bail!("the service was not ready after {} s", READY_LIMIT.as_secs());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

async fn is_serving(health: &mut HealthClient<Channel>) -> bool {
    let answer = health.check(HealthCheckRequest::default()).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

impl Drop for Service {
    fn drop(&mut self) {
        // The wrapper ends the service when its standard input closes.
        drop(self.wrapper.stdin.take());
        let _ = self.wrapper.wait();
    }
}

/// The watcher of the wrapper is a shell.
fn is_service(process: &u32) -> bool {
    ProcessStat::read(*process).is_some_and(|stat| !stat.name.ends_with("sh"))
}

/// The program `dms`: the one that is given, or else the one that was built beside this program.
pub fn program(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        ensure!(given.is_file(), "program: there is no file {}", given.display());
        return Ok(given.to_owned());
    }
    let beside = std::env::current_exe().context("cannot find this program")?.with_file_name("dms");
    ensure!(
        beside.is_file(),
        "program: there is no {}; build it in the same profile, `cargo build --bin dms`, or name one with --program",
        beside.display()
    );
    Ok(beside)
}

/// Brings the schema of a database up to date with `dms migrate` of this program.
pub async fn migrate(program: &Path, database_url: &str, schema: &str) -> Result<()> {
    let mut command = tokio::process::Command::new(program);
    let status = command
        .args(["--log=warn", "migrate"])
        .env("DATABASE_URL", database_url)
        .env("DMS_SCHEMA", schema)
        .status()
        .await;
    let status = status.with_context(|| format!("program: cannot run {}", program.display()))?;
    ensure!(status.success(), "program: {} migrate ended with {status}", program.display());
    Ok(())
}

/// An address that nobody listens on at the moment.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}
