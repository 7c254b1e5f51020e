//! Where a cluster lives.
//!
//! ```text
//! <root>/lock            held by the dms process that uses the cluster
//! <root>/cluster/        Postgres's own data directory
//! <root>/sockets/        the unix socket, unless the path would be too long for one
//! <root>/postgres.log    what the server says; locked for as long as any process of the server lives
//! ```

use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::account::Account;
use super::binaries::{SYSTEM_FOLDER, absolute};

/// The shortest limit of the systems we know (macOS 103, Linux 107 bytes).
const SOCKET_PATH_BYTES_MAX: usize = 103;
const SOCKET_NAME: &str = "/.s.PGSQL.5432";
/// How long the server of a killed run may take to shut down.
const PREVIOUS_RUN_LIMIT: Duration = Duration::from_secs(60);

/// The folders of one cluster, with the lock on them.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) root: PathBuf,
    pub(super) account: Account,
    lock: File,
}

impl Folders {
    /// A kept data directory, made when it is absent.
    pub(super) fn kept(data_dir: &Path) -> Result<Self> {
        let (root, account) = place(&absolute(data_dir))?;
        let lock = lock(&root)?;
        Ok(Self { root, account, lock })
    }

    /// A new folder among the temporary files, which the server removes when it has ended.
    pub(super) fn throwaway() -> Result<Self> {
        let account = Account::for_new_cluster()?;
        let name = format!("dms-{}", uuid::Uuid::new_v4().simple());
        let root = absolute(&std::env::temp_dir()).join(&name);
        let usable = fits_socket(&root.join("sockets")) && account.can_enter(&std::env::temp_dir());
        let root = if usable { root } else { Path::new("/tmp").join(name) };
        account.make_private_folder(&root)?;
        let lock = lock(&root)?;
        Ok(Self { root, account, lock })
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// The folder of the unix socket, made when it is absent.
    pub(super) fn sockets(&self) -> Result<PathBuf> {
        let mut folder = self.root.join("sockets");
        if !fits_socket(&folder) {
            let mut hasher = DefaultHasher::new();
            self.root.hash(&mut hasher);
            folder = PathBuf::from(format!("/tmp/dms-sockets-{:016x}", hasher.finish()));
        }
        if fs::symlink_metadata(&folder).is_err() {
            self.account.make_private_folder(&folder)?;
        }
        if !self.account.owns_private_folder(&folder)? {
            bail!("{} is not a folder that only the user of the server can enter; remove it", folder.display());
        }
        Ok(folder)
    }

    /// The server's log file, empty and locked. The lock passes to the server with the open file, so having it proves that
    /// no server of an earlier run is left.
    pub(super) fn locked_log(&self) -> Result<File> {
        let path = self.log();
        let log = File::options().create(true).append(true).open(&path).context("cannot open the log of Postgres")?;
        let deadline = Instant::now() + PREVIOUS_RUN_LIMIT;
        while let Err(error) = log.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(error).context("cannot lock the log of Postgres"),
                TryLockError::WouldBlock if Instant::now() > deadline => {
                    bail!("the Postgres server of an earlier run still uses {}; stop it", self.root.display())
                }
                TryLockError::WouldBlock => thread::sleep(Duration::from_millis(20)),
            }
        }
        log.set_len(0).context("cannot empty the log of Postgres")?;
        Ok(log)
    }
}

impl Drop for Folders {
    /// Closing the file would not do: a process that was just forked has it open until it becomes another program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

fn fits_socket(folder: &Path) -> bool {
    folder.as_os_str().len() + SOCKET_NAME.len() <= SOCKET_PATH_BYTES_MAX
}

/// The data directory and the account for it, or a system folder when that account cannot get at the directory (root's
/// checkout under a closed home).
fn place(data_dir: &Path) -> Result<(PathBuf, Account)> {
    fs::create_dir_all(data_dir).with_context(|| format!("cannot create {}", data_dir.display()))?;
    let account = Account::of_cluster(&data_dir.join("cluster"))?;
    if account.can_enter(data_dir) {
        return Ok((data_dir.to_owned(), account));
    }
    let name: Vec<u8> = data_dir.as_os_str().as_bytes().iter().map(|&b| if b == b'/' { b'-' } else { b }).collect();
    let name = String::from_utf8_lossy(&name).trim_matches(['-', '.']).to_owned();
    let root = Path::new(SYSTEM_FOLDER).join(name);
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let account = Account::of_cluster(&root.join("cluster"))?;
    tracing::warn!(
        "the unprivileged user of the Postgres server cannot enter {}: the data is kept in {}",
        data_dir.display(),
        root.display()
    );
    Ok((root, account))
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let mut lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            bail!("data directory {} is in use by another dms (process {})", root.display(), holder.trim())
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the data directory"),
    }
    lock.set_len(0)?;
    writeln!(lock, "{}", std::process::id())?;
    Ok(lock)
}
