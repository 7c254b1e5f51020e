//! The user that the server runs as.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::environment;

/// Users to drop to when started as root, best first.
const UNPRIVILEGED: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// Ourselves, or the unprivileged user that root drops to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// The user of this process.
    Ourselves,
    /// User id and group id.
    Other(u32, u32),
}

impl Account {
    /// The account for a data folder. An existing cluster keeps its owner: a `postgres` user may have appeared since.
    pub(super) fn of_cluster(cluster: &Path) -> Result<Self> {
        let us = id(&["-u"])?;
        match fs::metadata(cluster) {
            Ok(owner) if us == 0 => Ok(Self::Other(owner.uid(), owner.gid())),
            Ok(owner) if owner.uid() == us => Ok(Self::Ourselves),
            Ok(owner) => bail!(
                "the Postgres cluster in {} belongs to user id {}; start dms as that user or give another --data-dir",
                cluster.display(),
                owner.uid()
            ),
            Err(_) => Self::for_new_cluster(),
        }
    }

    /// The account for a cluster that is yet to be made.
    pub(super) fn for_new_cluster() -> Result<Self> {
        if id(&["-u"])? != 0 {
            return Ok(Self::Ourselves);
        }
        UNPRIVILEGED
            .iter()
            .find_map(|name| Some(Self::Other(id(&["-u", name]).ok()?, id(&["-g", name]).ok()?)))
            .with_context(|| format!("Postgres does not run as root and none of the users {UNPRIVILEGED:?} exists"))
    }

    /// A command that runs as this account, outside folders it may not be allowed to enter.
    pub(super) fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        // The settings of this program have secrets, and every process of this account can read the environment of another one.
        command.current_dir("/").env_clear().envs(environment::inherited());
        if let Self::Other(user, group) = self {
            // Supplementary groups go too: std drops them when root changes the user id.
            command.uid(user).gid(group);
        }
        command
    }

    /// Whether this account may enter a folder, which depends on all folders above it.
    pub(super) fn can_enter(self, folder: &Path) -> bool {
        let probe = || self.command("/bin/sh").args(["-c", "cd -- \"$1\" 2>/dev/null", "sh"]).arg(folder).status();
        self == Self::Ourselves || probe().is_ok_and(|status| status.success())
    }

    /// Makes a folder that only this account can enter.
    pub(super) fn make_private_folder(self, folder: &Path) -> Result<()> {
        DirBuilder::new().mode(0o700).create(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        if let Self::Other(user, group) = self {
            chown(folder, Some(user), Some(group)).with_context(|| format!("cannot give away {}", folder.display()))?;
        }
        Ok(())
    }

    /// Whether a folder is one that [`Account::make_private_folder`] made, and not what somebody else put in its place.
    pub(super) fn owns_private_folder(self, folder: &Path) -> Result<bool> {
        let user = match self {
            Self::Ourselves => id(&["-u"])?,
            Self::Other(user, _) => user,
        };
        let found = fs::symlink_metadata(folder).with_context(|| format!("cannot look at {}", folder.display()))?;
        Ok(found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0)
    }
}

/// Asks `id`, which knows directory services where /etc/passwd does not tell.
fn id(arguments: &[&str]) -> Result<u32> {
    let output = Command::new("id").args(arguments).output().context("cannot run id")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("id {} does not tell a number", arguments.join(" ")))
}
