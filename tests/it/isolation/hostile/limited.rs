//! The program under the memory limits of the manifests, as a real limit of the kernel on its data: it is attacked with more than
//! would end it, and neither ends nor fills its log, and somebody else is served all the time. Without its own bound on memory the
//! same attack does end it.

use std::io::Write as _;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::isolation::memory::many_queues;
use crate::isolation::memory::process::MIB;
use crate::isolation::memory::unread::{Unread, unfinished};
use crate::support::attacker::Streams;
use crate::support::credentials::{SecretFile, tokens};
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;
use crate::support::probe::Probe;
use crate::support::service::PROJECT;
use dms_client::v1 as pb;

const OTHER: &str = "0123456789abcdef0123456789abcdef";
/// What a process has resident at most, of its budget in bytes.
const RESIDENT: f64 = 1.3;
/// The budgets, as they are unless set.
const SERVICE_BUDGET: usize = 1_024 * MIB;
const GATEWAY_BUDGET: usize = 320 * MIB;
/// Each flood of streams has so many connections of a thousand: more than there are places for unknown callers. How many are held is
/// counted in `calls.rs`.
const CONNECTIONS: usize = 3;
const LOG_BYTES_MAX: usize = 256 * 1_024;
/// How long a program without a bound may take to meet its end.
const PATIENCE: Duration = Duration::from_secs(180);

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const SEND: &str = "/dms.v1.MessageService/SendMessages";
const LIST: &str = "/dms.v1.QueueService/ListQueues";

type Headers = Vec<(&'static str, &'static str)>;

/// `limits.memory` of the container that serves, in the manifest of a workload.
fn memory_limit(manifest: &str) -> u64 {
    let path = format!("{}/deploy/kubernetes/{manifest}/deployment.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    // Containers that serve have probes, those that begin have none.
    let (_, serving) = text.split_once("livenessProbe:").unwrap();
    let (_, limits) = serving.split_once("limits:").unwrap();
    let memory = limits.lines().find_map(|line| line.trim().strip_prefix("memory: ")?.strip_suffix("Mi")).unwrap();
    memory.parse().unwrap()
}

/// What an attack holds for as long as it goes on.
#[derive(Default)]
struct Held {
    connections: Vec<Unread>,
    bodies: Vec<h2::SendStream<bytes::Bytes>>,
    streams: Vec<TcpStream>,
}

impl Held {
    /// So many large requests on HTTP/2 that do not end: on gRPC.
    async fn on_grpc(mut self, url: &str, requests: usize) -> Self {
        let body = format!("\"{}\"", "x".repeat(1_400_000)).into();
        let messages = vec![pb::NewMessage { body, ..Default::default() }];
        let send = pb::SendMessagesRequest { project_id: OTHER.into(), messages, ..Default::default() };
        for number in 0..requests {
            if number % 100 == 0 {
                self.connections.push(Unread::open(url).await);
            }
            let connection = self.connections.last_mut().unwrap();
            self.bodies.push(connection.begin(SEND, ["attacker", "second"][number % 2], &send).await);
        }
        self
    }

    /// The same on REST, from other addresses: half of them on cleartext HTTP/2, half on HTTP/1.
    async fn on_rest(mut self, url: &str, requests: usize) -> Self {
        let path = format!("/v1.0/{OTHER}/queues/q/messages");
        for number in 0..requests / 2 {
            let peer = 100 + u8::try_from(number / 100).unwrap();
            if number % 100 == 0 {
                self.connections.push(Unread::open_from(url, peer).await);
            }
            let connection = self.connections.last_mut().unwrap();
            self.bodies.push(connection.post(&path, "attacker", MIB).await);
            self.streams.push(unfinished(url, peer + 50, &path, "attacker", MIB).await);
        }
        self
    }

    /// Lists of twenty thousand queues, each some megabytes, that nobody reads.
    async fn unread_lists(mut self, url: &str, calls: usize) -> Self {
        let everything = pb::ListQueuesRequest { project_id: OTHER.into(), ..Default::default() };
        for _ in 0..calls / 20 {
            let mut connection = Unread::open(url).await;
            for _ in 0..20 {
                connection.call(LIST, "attacker", &everything).await;
            }
            self.connections.push(connection);
        }
        self
    }
}

/// Connections full of streams that are never ended and answers that are not read; how many streams.
async fn flood(url: String, method: &'static str, path: String, headers: Headers) -> (usize, Vec<Streams>) {
    let (mut held, mut streams) = (Vec::new(), 0);
    for _ in 0..CONNECTIONS {
        let mut connection = Streams::open(&url, 0).await;
        streams += connection.fill(1_000, method, &path, &headers, false).await;
        held.push(connection);
    }
    (streams, held)
}

/// Somebody else is served while attacks go on, and what the program has resident and has logged is bounded.
async fn lives_on(program: &Logged, probe: &Probe, floods: Vec<JoinHandle<(usize, Vec<Streams>)>>, budget: usize) {
    let (mut held, mut streams) = (Vec::new(), 0);
    for flood in floods {
        let (begun, connections) = flood.await.unwrap();
        streams += begun;
        held.push(connections);
    }
    probe.is_served(5).await;
    let (peak, log) = (program.peak_bytes(), program.text().len());
    let report = format!("{streams} streams, {} MiB resident at most, {log} bytes of log", peak / MIB);
    let _shown = writeln!(std::io::stderr(), "{report}");
    assert!(log < LOG_BYTES_MAX && peak as f64 <= RESIDENT * budget as f64, "{report}");
}

fn credentials() -> SecretFile {
    SecretFile::new(&tokens(&[
        ("owner", &[PROJECT], &["admin"]),
        ("attacker", &[OTHER], &["read-only"]),
        ("second", &[OTHER], &["read-only"]),
    ]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_lives_on_within_its_memory() {
    let database = TestDatabase::create().await;
    let file = credentials();
    let flags = ["--auth=tokens", &format!("--auth-tokens-file={}", file.0.display())];
    let limit = memory_limit("base");
    let service = Logged::serve_within(&database, limit * 1_024, &flags).await;
    many_queues(&database, OTHER).await;
    let probe = Probe::start(&service.rest.showing("authorization", "Bearer owner")).await;
    let rest = service.rest_url();
    let floods = [
        flood(service.grpc.clone(), "POST", "/grpc.health.v1.Health/Watch".into(), vec![GRPC]),
        flood(rest.clone(), "POST", format!("/v1.0/{PROJECT}/queues"), vec![]),
        flood(service.grpc.clone(), "POST", LIST.into(), vec![GRPC, ("authorization", "Bearer attacker")]),
        flood(rest.clone(), "GET", format!("/v1.0/{OTHER}/quotas/dms"), vec![("authorization", "Bearer attacker")]),
    ];
    let floods = floods.into_iter().map(tokio::spawn).collect();
    // Each of them alone is more than the limit.
    let held = Held::default().on_grpc(&service.grpc, requests_beyond(limit)).await;
    probe.is_served(2).await;
    let held = held.on_rest(&rest, requests_beyond(limit)).await;
    probe.is_served(2).await;
    let _held = held.unread_lists(&service.grpc, 160).await;
    lives_on(&service, &probe, floods, SERVICE_BUDGET).await;
}

/// As many bodies of a megabyte as are more than this limit in MiB, with a tenth on top.
fn requests_beyond(limit: u64) -> usize {
    usize::try_from(limit).unwrap() * 11 / 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_bound_is_ended_by_the_same_requests() {
    let database = TestDatabase::create().await;
    let file = credentials();
    let credentials = format!("--auth-tokens-file={}", file.0.display());
    let limit = memory_limit("base");
    let flags = ["--auth=tokens", &credentials, "--memory-max=1024GiB"];
    let mut service = Logged::serve_within(&database, limit * 1_024, &flags).await;
    let attack = tokio::spawn({
        let url = service.grpc.clone();
        async move { Held::default().on_grpc(&url, requests_beyond(limit)).await }
    });
    let begun = Instant::now();
    while !service.has_ended() {
        assert!(begun.elapsed() < PATIENCE, "{} MiB are resident, and it lives", service.peak_bytes() / MIB);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    attack.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_lives_on_within_its_memory() {
    let service = crate::isolation::hostile::calls::guarded(dms::net::NetLimits::default()).await.0;
    let limit = memory_limit("components/gateway");
    let gateway = Logged::gateway_within(&service.replica.grpc(), limit * 1_024, &[]).await;
    let probe = Probe::start(&gateway.rest.showing("authorization", "Bearer owner")).await;
    let floods = [
        flood(gateway.rest_url(), "POST", format!("/v1.0/{PROJECT}/queues"), vec![]),
        flood(gateway.rest_url(), "GET", format!("/v1.0/{OTHER}/queues"), vec![("authorization", "Bearer attacker")]),
    ];
    let floods = floods.into_iter().map(tokio::spawn).collect();
    let _held = Held::default().on_rest(&gateway.rest_url(), 2 * requests_beyond(limit)).await;
    lives_on(&gateway, &probe, floods, GATEWAY_BUDGET).await;
}
