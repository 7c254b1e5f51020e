//! The private Postgres: what is kept, what is refused, what is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use dms::store::schema::database;
use dms_postgres::{Cluster, ClusterOptions};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

/// A folder that is removed with this value.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(std::env::temp_dir().join(format!("dms-test-{}", Uuid::new_v4().simple())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn start(data_dir: &Path) -> anyhow::Result<Cluster> {
    let postgres_bin = std::env::var_os("DMS_POSTGRES_BIN").map(Into::into);
    Cluster::start(&ClusterOptions { data_dir: Some(data_dir.to_owned()), postgres_bin, ..ClusterOptions::default() })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Sends a signal without the program `kill`, which minimal systems lack.
pub(crate) fn kill(signal: Signal, pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_kept_cluster_is_exclusive_and_finds_its_data_again() {
    let folder = Folder::new();
    let cluster = start(&folder.0).unwrap();
    block_on(database::create_if_absent(&cluster.url("kept"))).unwrap();
    let refused = start(&folder.0).unwrap_err().to_string();
    assert!(refused.contains("is in use by another dms"), "{refused}");
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
    cluster.stop().unwrap();

    let cluster = start(&folder.0).unwrap();
    block_on(database::create_from_template(&cluster.url("postgres"), "copy", "kept")).unwrap();
    cluster.stop().unwrap();
}

#[test]
fn a_stale_pid_file_does_not_hinder_a_start() {
    let folder = Folder::new();
    start(&folder.0).unwrap().stop().unwrap();
    // The process id has been given to somebody else since: to us.
    let stale = format!("{}\n{}\n1\n5432\n/tmp\n\n0\nready   \n", std::process::id(), folder.0.display());
    fs::write(folder.0.join("cluster/postmaster.pid"), stale).unwrap();
    let cluster = start(&folder.0).unwrap();
    assert_ne!(cluster.pid().unwrap(), std::process::id());
    block_on(database::create_if_absent(&cluster.url("works"))).unwrap();
}

#[test]
fn a_crash_of_the_server_is_noticed_and_recovered_from() {
    let folder = Folder::new();
    let mut cluster = start(&folder.0).unwrap();
    assert_eq!(cluster.ended().unwrap(), None);
    kill(Signal::KILL, cluster.pid().unwrap());
    eventually("the crash goes unnoticed", || cluster.ended().unwrap().is_some());
    drop(cluster);
    start(&folder.0).unwrap().stop().unwrap();
}

#[test]
fn an_interrupted_set_up_begins_again() {
    let folder = Folder::new();
    fs::create_dir_all(folder.0.join("cluster.new/base")).unwrap();
    start(&folder.0).unwrap().stop().unwrap();
}

#[test]
fn a_path_too_long_for_a_socket_is_no_hindrance() {
    let folder = Folder::new();
    let cluster = start(&folder.0.join("long and 'odd' name ".repeat(6).trim())).unwrap();
    block_on(database::create_if_absent(&cluster.url("works"))).unwrap();
    cluster.stop().unwrap();
}

#[test]
fn a_throw_away_cluster_leaves_nothing() {
    let postgres_bin = std::env::var_os("DMS_POSTGRES_BIN").map(Into::into);
    let cluster = Cluster::start(&ClusterOptions { postgres_bin, ..ClusterOptions::default() }).unwrap();
    let folder = cluster.data_dir().to_owned();
    block_on(database::create_if_absent(&cluster.url("works"))).unwrap();
    cluster.stop().unwrap();
    assert!(!folder.exists());
}

#[test]
fn a_folder_without_a_server_is_named() {
    let options = ClusterOptions { postgres_bin: Some("/nowhere".into()), ..ClusterOptions::default() };
    let error = Cluster::start(&options).unwrap_err().to_string();
    assert!(error.starts_with("no PostgreSQL server 15 or newer found"), "{error}");
    assert!(error.ends_with("/nowhere lacks postgres or initdb"), "{error}");
}

/// `scripts/setup-postgres` looks before there is a program to ask, in the same places.
#[test]
fn the_set_up_finds_the_server_that_the_program_finds() {
    let printed = |command: &mut Command| {
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let found = printed(Command::new("scripts/setup-postgres").arg("--find"));
    assert_eq!(found, printed(Command::new(env!("CARGO_BIN_EXE_dms")).args(["--log=error", "postgres-bin"])));
}
