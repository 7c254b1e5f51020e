//! `dms dev` as a newcomer meets it: one process from nothing to answers, and what is left when it ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::storage::cluster::{Folder, eventually, kill};

/// A running `dms dev` and what it printed.
struct Dev {
    process: Child,
    printed: Vec<String>,
}

impl Dev {
    fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    fn start_with(data_dir: &Path, variables: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_dms"))
            .args(["dev", "--grpc-addr", "127.0.0.1:0", "--rest-addr", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env_remove("DATABASE_URL")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = Vec::new();
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line.starts_with("Ctrl-C") {
                return Self { process, printed };
            }
            printed.push(line);
        }
        panic!("dms dev ended: {:?}\n{}", process.wait(), printed.join("\n"));
    }

    fn end(mut self, signal: Signal) -> std::process::ExitStatus {
        kill(signal, self.process.id());
        self.process.wait().unwrap()
    }

    /// The lines to paste below this heading.
    fn examples(&self, heading: &str) -> String {
        let lines = self.printed.iter().skip_while(|line| !line.starts_with(heading)).skip(1);
        let lines: Vec<_> = lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).collect();
        assert!(!lines.is_empty(), "{heading}");
        lines.iter().map(|line| format!("{}\n", line.trim())).collect()
    }

    fn queues_url(&self) -> String {
        let line = self.printed.iter().find_map(|line| line.split_once("REST: ")).unwrap();
        format!("{}/v1.0/demo/queues", line.1)
    }

    async fn queue_names(&self) -> Vec<String> {
        let answer: Value = reqwest::get(self.queues_url()).await.unwrap().json().await.unwrap();
        let queues = answer["queues"].as_array().unwrap().clone();
        queues.iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect()
    }

    async fn create_queue(&self, name: &str) {
        let answer =
            reqwest::Client::new().post(self.queues_url()).json(&json!({ "name": name })).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }

    fn server_pid(data_dir: &Path) -> u32 {
        let file = std::fs::read_to_string(data_dir.join("cluster/postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A failed test must not leave it behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_outlives_an_orderly_end_and_a_kill() {
    let folder = Folder::new();
    let dev = Dev::start(&folder.0);
    dev.create_queue("first").await;
    assert!(dev.end(Signal::INT).success());
    assert!(!folder.0.join("cluster/postmaster.pid").exists(), "Postgres runs on");

    let dev = Dev::start(&folder.0);
    assert_eq!(dev.queue_names().await, ["first"]);
    dev.create_queue("second").await;
    assert!(!dev.end(Signal::KILL).success());

    let dev = Dev::start(&folder.0);
    assert_eq!(dev.queue_names().await, ["first", "second"]);
    assert!(dev.end(Signal::TERM).success());
}

#[tokio::test]
async fn postgres_does_not_outlive_a_killed_service() {
    let folder = Folder::new();
    let dev = Dev::start(&folder.0);
    dev.end(Signal::KILL);
    eventually("Postgres runs on", || !folder.0.join("cluster/postmaster.pid").exists());
}

#[test]
#[cfg(target_os = "linux")]
fn postgres_is_told_no_secrets() {
    const KEYS: &str = r#"{"keys":[{"access":"AK","secret":"hunter2","name":"n","projects":["p"],"roles":["admin"]}]}"#;
    let folder = Folder::new();
    let variables = [("DMS_AUTH", "aksk"), ("DMS_AUTH_AKSK", KEYS), ("PGPASSWORD", "hunter2"), ("TZ", "UTC")];
    let dev = Dev::start_with(&folder.0, &variables);
    let server = Dev::server_pid(&folder.0);
    // The shells that watch over it too: all that were started by this process, and what they started.
    let mut family = vec![server];
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let parent = std::fs::read_to_string(process.path().join("status")).ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            line.trim().parse::<u32>().ok()
        });
        if parent.is_some_and(|parent| parent == dev.process.id() || parent == server) {
            family.extend(process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
    }
    assert!(family.len() > 3, "{family:?}");
    for pid in family {
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { continue };
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("hunter2") && !environment.contains("DMS_AUTH"), "{pid}: {environment}");
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&arguments).contains("hunter2"), "{pid}");
    }
    let environment = std::fs::read(format!("/proc/{server}/environ")).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("TZ=UTC"));
    assert!(dev.end(Signal::TERM).success());
}

#[tokio::test]
async fn a_crash_of_postgres_ends_the_service_with_a_failure() {
    let folder = Folder::new();
    let mut dev = Dev::start(&folder.0);
    kill(Signal::KILL, Dev::server_pid(&folder.0));
    let status = dev.process.wait().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[tokio::test]
async fn curl_lines_work_as_printed() {
    let folder = Folder::new();
    let dev = Dev::start(&folder.0);
    let output = Command::new("sh").args(["-eu", "-c", &dev.examples("Try it with curl")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    for expected in [r#""state":0"#, r#""body":{"order":1}"#, r#"{"success":1,"fail":0}"#] {
        assert!(text.contains(expected), "{expected}\n{text}{errors}");
    }
    assert_eq!(dev.queue_names().await, [""; 0]);
    assert!(dev.end(Signal::INT).success());
}
