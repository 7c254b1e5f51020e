//! `dms serve` and `dms gateway` as processes of their own, whose log and memory can be read.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpListener;
use std::process::{Child, Command};

use dms_lab::harness::signal::{self, Signal};

use super::calls::eventually;
use super::credentials::SecretFile;
use super::postgres::TestDatabase;
use super::rest::Rest;

/// The process; it ends with this value.
pub(crate) struct Logged {
    process: Child,
    log: SecretFile,
    pub rest: Rest,
    pub grpc: String,
    pub admin: String,
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Logged {
    /// On any migrated database, with these flags beside the addresses.
    pub(crate) async fn serve<F: AsRef<OsStr>>(database: &TestDatabase, flags: impl IntoIterator<Item = F>) -> Self {
        let (grpc, rest, admin) = (free_address(), free_address(), free_address());
        let log = SecretFile::text("");
        let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
        command.arg("serve").args(flags).arg(format!("--database-url={}", database.url()));
        command.arg(format!("--grpc-addr={grpc}")).arg(format!("--rest-addr={rest}"));
        command.arg(format!("--admin-addr={admin}"));
        let process = command.stderr(File::create(&log.0).unwrap()).spawn().unwrap();
        let (client, grpc) = (Rest::on(&format!("http://{rest}")), format!("http://{grpc}"));
        let logged = Self { process, log, rest: client, grpc, admin: format!("http://{admin}") };
        eventually("it listens", async || reqwest::get(format!("http://{rest}/readyz")).await.is_ok()).await;
        logged
    }

    /// As [`Logged::serve`], with this much memory: the kernel refuses more data, and the process would end.
    pub(crate) async fn serve_within(database: &TestDatabase, kib: u64, flags: &[&str]) -> Self {
        let (grpc, rest, admin) = (free_address(), free_address(), free_address());
        let url = database.url();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).chain([
            format!("--database-url={url}"),
            format!("--grpc-addr={grpc}"),
            format!("--rest-addr={rest}"),
            format!("--admin-addr={admin}"),
        ]);
        Self::within(kib, "serve", flags.collect(), [grpc, rest, admin]).await
    }

    /// A gateway in front of a service, with this much memory.
    pub(crate) async fn gateway_within(upstream: &str, kib: u64, flags: &[&str]) -> Self {
        let (rest, admin) = (free_address(), free_address());
        let flags = flags.iter().map(|flag| (*flag).to_owned()).chain([
            format!("--upstream={upstream}"),
            format!("--rest-addr={rest}"),
            format!("--admin-addr={admin}"),
        ]);
        Self::within(kib, "gateway", flags.collect(), [String::new(), rest, admin]).await
    }

    async fn within(kib: u64, what: &str, flags: Vec<String>, [grpc, rest, admin]: [String; 3]) -> Self {
        let log = SecretFile::text("");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -d {kib} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_dms"), what]);
        let process = command.args(flags).stderr(File::create(&log.0).unwrap()).spawn().unwrap();
        let client = Rest::on(&format!("http://{rest}"));
        let logged =
            Self { process, log, rest: client, grpc: format!("http://{grpc}"), admin: format!("http://{admin}") };
        eventually("it is ready", async || {
            let answer = reqwest::get(format!("http://{rest}/readyz")).await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        logged
    }

    /// Where REST listens.
    pub(crate) fn rest_url(&self) -> String {
        self.rest.root().to_owned()
    }

    /// Whether it has ended by itself, or was ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) {
        signal::send(Signal::Terminate, &[self.process.id()]).unwrap();
        assert!(self.process.wait().unwrap().success(), "{}", self.text());
    }

    /// The most memory that it has had resident.
    pub(crate) fn peak_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    /// What it has logged until now.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.log.0).unwrap()
    }
}
