//! Server binaries: where they may be, and which of them to take.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::account::Account;

/// Older servers lack what the schema uses.
const MAJOR_MIN: u32 = 15;
/// Where `scripts/setup-postgres` puts a fetched server: in the checkout, or here when the checkout is closed to the
/// unprivileged user of a root start.
pub(super) const SYSTEM_FOLDER: &str = "/var/lib/dms";
/// How deep a `bin` folder may lie in a fetched package.
const FETCHED_DEPTH_MAX: usize = 6;

/// A folder with `initdb` and `postgres` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The folder.
    pub folder: PathBuf,
    /// 15 for PostgreSQL 15.18.
    pub major: u32,
}

/// The binaries that a new cluster would get: those of `setting`, else the first usable ones on this machine.
pub fn find_binaries(setting: Option<&Path>) -> Result<Binaries> {
    find(setting, None, Account::for_new_cluster()?)
}

/// As [`find_binaries`], for an existing cluster that only version `wanted` can open.
pub(super) fn find(setting: Option<&Path>, wanted: Option<u32>, account: Account) -> Result<Binaries> {
    let folders = setting.map_or_else(candidates, |folder| vec![folder.to_owned()]);
    let mut refused = String::new();
    for folder in folders {
        match probe(&folder, wanted, account) {
            Ok(binaries) => return Ok(binaries),
            Err(reason) => write!(refused, "; {} {reason}", folder.display())?,
        }
    }
    let version = wanted.map_or_else(|| format!("{MAJOR_MIN} or newer"), |major| major.to_string());
    bail!(
        "no PostgreSQL server {version} found: run scripts/setup-postgres, or install it (Debian, Ubuntu: the package \
         postgresql; macOS: brew install postgresql@17), or name its folder with --postgres-bin{refused}"
    )
}

fn probe(folder: &Path, wanted: Option<u32>, account: Account) -> Result<Binaries, String> {
    if !folder.join("postgres").is_file() || !folder.join("initdb").is_file() {
        return Err("lacks postgres or initdb".to_owned());
    }
    let Ok(output) = account.command(folder.join("postgres")).arg("--version").output() else {
        return Err("cannot be run by the user of the server".to_owned());
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(major) = major_version(&text).filter(|_| output.status.success()) else {
        return Err("does not run on this machine".to_owned());
    };
    match wanted {
        Some(wanted) if wanted != major => Err(format!("is version {major}, the cluster was made by {wanted}")),
        None if major < MAJOR_MIN => Err(format!("is version {major}")),
        _ => Ok(Binaries { folder: folder.to_owned(), major }),
    }
}

/// The 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(2)?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).map_or(version, |end| &version[..end]);
    digits.parse().ok()
}

/// Folders that may hold a server, best first.
fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for fetched in [Path::new(".dms/postgres"), &Path::new(SYSTEM_FOLDER).join("postgres")] {
        bin_folders(&absolute(fetched), FETCHED_DEPTH_MAX, &mut folders);
    }
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        folders.extend(versions_in(Path::new(parent), prefix));
    }
    folders.extend(pg_config_folder());
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    folders.retain(|folder| folder.join("postgres").is_file());
    folders
}

/// `bin` in the subfolders whose name begins with `prefix`, highest version first.
fn versions_in(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = subfolders(parent)
        .filter_map(|folder| {
            let rest = folder.file_name()?.to_str()?.strip_prefix(prefix)?.trim_start_matches('@').to_owned();
            Some((rest.parse().unwrap_or(0), folder.join("bin")))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

fn bin_folders(parent: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    for folder in subfolders(parent) {
        if folder.ends_with("bin") {
            found.push(folder);
        } else if depth > 0 {
            bin_folders(&folder, depth - 1, found);
        }
    }
}

fn subfolders(parent: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir())
}

fn pg_config_folder() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// The server's working directory is not ours, so its paths must not depend on it.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::major_version;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres"), None);
    }
}
