//! One cluster and its running server.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::binaries::{self, Binaries};
use super::folders::Folders;
use crate::process::Launch;

pub(super) const SUPERUSER: &str = "postgres";
/// Recovery after a crash may have much to read.
const READY_LIMIT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const LOG_TAIL_BYTES: usize = 2000;

/// What kind of cluster to start.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Where the data is kept. `None`: a temporary folder, deleted when the server ends, also when we are killed.
    pub data_dir: Option<PathBuf>,
    /// Whether a commit reaches the disk. Off is for tests only.
    pub durable: bool,
    /// The folder with `initdb` and `postgres`; `None`: look for it.
    pub postgres_bin: Option<PathBuf>,
    /// More server settings, which win over ours.
    pub settings: Vec<(String, String)>,
    /// More variables of its processes.
    pub environment: Vec<(String, String)>,
}

/// A running server. Dropping it stops the server too.
#[derive(Debug)]
pub struct Cluster {
    pub(super) folders: Folders,
    pub(super) sockets: PathBuf,
    wrapper: Child,
}

impl Cluster {
    /// Makes the cluster when there is none, starts its server and waits until it is ready. Blocks.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let folders = options.data_dir.as_deref().map_or_else(Folders::throwaway, Folders::kept)?;
        let started = launch(&folders, options);
        if started.is_err() && options.data_dir.is_none() {
            // There is no server yet that would do it.
            let _ = fs::remove_dir_all(&folders.root);
        }
        let (wrapper, sockets) = started?;
        let mut server = Self { folders, sockets, wrapper };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        let host = percent_encoded(&self.sockets.to_string_lossy());
        format!("postgres:///{database}?host={host}&port=5432&user={SUPERUSER}&sslmode=disable")
    }

    /// The same for whoever reaches its [`Cluster::socket`] by way of a TCP address.
    pub fn url_at(address: SocketAddr, database: &str) -> String {
        format!("postgres://{SUPERUSER}@{address}/{database}?sslmode=disable")
    }

    /// The same for whoever reaches the primary at one of several addresses, and a standby at the others.
    pub fn url_at_any(addresses: &[SocketAddr], database: &str) -> String {
        match addresses {
            [address] => Self::url_at(*address, database),
            several => {
                let hosts: Vec<String> = several.iter().map(SocketAddr::to_string).collect();
                let hosts = hosts.join(",");
                format!("postgres://{SUPERUSER}@{hosts}/{database}?sslmode=disable&target_session_attrs=read-write")
            }
        }
    }

    /// The unix socket it listens on.
    pub fn socket(&self) -> PathBuf {
        self.sockets.join(".s.PGSQL.5432")
    }

    /// The folder that holds the cluster.
    pub fn data_dir(&self) -> &Path {
        &self.folders.root
    }

    /// The process id of the server; its other processes are children of it.
    pub fn pid(&self) -> Result<u32> {
        let file = fs::read_to_string(self.folders.cluster().join("postmaster.pid"))?;
        file.lines().next().unwrap_or_default().parse().context("postmaster.pid has no process id")
    }

    /// How the server ended, when it has ended by itself.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.wrapper.try_wait()?)
    }

    /// What the server said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folders.log()).unwrap_or_default()).into_owned()
    }

    /// The end of what the server said.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.folders.log()).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).trim().to_owned()
    }

    /// Ends the sessions, writes a checkpoint and waits for the server to end. Blocks.
    pub fn stop(mut self) -> Result<()> {
        let status = self.end()?;
        if !status.success() {
            bail!("Postgres ended with {status}: {}", self.log_tail());
        }
        Ok(())
    }

    /// Closes the pipe that the wrapper watches.
    fn end(&mut self) -> Result<ExitStatus> {
        drop(self.wrapper.stdin.take());
        let status = self.wrapper.wait().context("cannot wait for Postgres")?;
        if !self.sockets.starts_with(&self.folders.root) {
            let _ = fs::remove_dir(&self.sockets);
        }
        Ok(status)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.is_ready() {
            if let Some(status) = self.ended()? {
                bail!("Postgres did not start ({status}): {}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("Postgres was not ready after {} s: {}", READY_LIMIT.as_secs(), self.log_tail());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Line 8 of postmaster.pid is the server's state.
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.folders.cluster().join("postmaster.pid")).unwrap_or_default();
        file.lines().nth(7).is_some_and(|state| state.trim() == "ready")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Starts the server and tells the folder of its socket.
fn launch(folders: &Folders, options: &ClusterOptions) -> Result<(Child, PathBuf)> {
    let cluster = folders.cluster();
    let binaries = binaries::find(options.postgres_bin.as_deref(), version_of(&cluster)?, folders.account)?;
    let log = folders.locked_log()?;
    if !cluster.exists() {
        initdb(&binaries, folders, options.durable)?;
    }
    // The lock on the log proves that it is stale, even when its process id has been given to another process.
    remove_if_present(&cluster.join("postmaster.pid"))?;
    let sockets = folders.sockets()?;
    let launch = Launch {
        arguments: server_arguments(&binaries, &cluster, &sockets, options),
        log,
        signal: if options.data_dir.is_none() { "QUIT" } else { "INT" },
        remove: options.data_dir.is_none().then_some(folders.root.as_path()),
    };
    let mut shell = folders.account.command("/bin/sh");
    shell.envs(options.environment.iter().map(|(name, value)| (name, value)));
    Ok((launch.start(shell)?, sockets))
}

/// Makes the cluster beside its place and moves it there, so that an interrupted initdb leaves nothing half made.
fn initdb(binaries: &Binaries, folders: &Folders, durable: bool) -> Result<()> {
    let unfinished = folders.root.join("cluster.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("cannot remove an unfinished cluster")?;
    }
    folders.account.make_private_folder(&unfinished)?;
    let mut command = folders.account.command(binaries.folder.join("initdb"));
    command.arg("-D").arg(&unfinished).args(["-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    command.args(["--data-checksums", "--no-instructions"]).args((!durable).then_some("--no-sync"));
    let output = command.output().context("cannot run initdb")?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(&unfinished, folders.cluster()).context("cannot move the new cluster to its place")
}

fn server_arguments(binaries: &Binaries, cluster: &Path, sockets: &Path, options: &ClusterOptions) -> Vec<OsString> {
    let on_disk = if options.durable { "on" } else { "off" };
    let quoted_sockets = format!("\"{}\"", sockets.to_string_lossy().replace('"', "\"\""));
    let ours = [
        ("listen_addresses", ""),
        ("unix_socket_directories", &quoted_sockets),
        ("unix_socket_permissions", "0700"),
        ("port", "5432"),
        ("max_connections", "200"),
        ("log_checkpoints", "off"),
        ("fsync", on_disk),
        ("full_page_writes", on_disk),
    ];
    let more = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut arguments = vec![binaries.folder.join("postgres").into_os_string(), "-D".into(), cluster.into()];
    for (name, value) in ours.into_iter().chain(more) {
        arguments.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    arguments
}

/// The major version that made the cluster, when there is one.
pub(super) fn version_of(cluster: &Path) -> Result<Option<u32>> {
    if !cluster.exists() {
        return Ok(None);
    }
    let version = fs::read_to_string(cluster.join("PG_VERSION"))
        .with_context(|| format!("{} is not a Postgres cluster", cluster.display()))?;
    Ok(version.trim().parse().ok())
}

fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
