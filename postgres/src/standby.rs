//! A standby: a copy of a running cluster that follows it, once it is started.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::binaries;
use super::cluster::{Cluster, SUPERUSER, version_of};
use super::folders::Folders;

impl Cluster {
    /// Copies this cluster, while it runs, to a data directory of its own. A server started there is a standby. Blocks.
    pub fn copy_as_standby(&self, data_dir: &Path, postgres_bin: Option<&Path>) -> Result<()> {
        let folders = Folders::kept(data_dir)?;
        let binaries = binaries::find(postgres_bin, version_of(&self.folders.cluster())?, folders.account)?;
        // The account cannot make it where the folder above is ours.
        folders.account.make_private_folder(&folders.cluster())?;
        let mut command = folders.account.command(binaries.folder.join("pg_basebackup"));
        command.arg("-D").arg(folders.cluster()).arg("-h").arg(&self.sockets).args(["-p", "5432", "-U", SUPERUSER]);
        command.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
        let output = command.output().context("cannot run pg_basebackup")?;
        ensure!(output.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}
