//! The program under the memory limits of the manifests, as a real limit of the kernel on its data: it is attacked, and neither
//! ends nor fills its log, and somebody else is served all the time.

use tokio::task::JoinHandle;

use crate::support::attacker::Streams;
use crate::support::credentials::{SecretFile, tokens};
use crate::support::logged::Logged;
use crate::support::postgres::TestDatabase;
use crate::support::probe::Probe;
use crate::support::service::PROJECT;

const OTHER: &str = "0123456789abcdef0123456789abcdef";
/// `limits.memory` of deploy/kubernetes: of the service, and of a gateway on its own.
const SERVICE_KIB: u64 = 1_536 * 1_024;
const GATEWAY_KIB: u64 = 512 * 1_024;
/// Each flood has so many connections of a thousand streams: more than there are places for unknown callers, and few enough for a
/// machine that does other things meanwhile. How many are held is counted in `calls.rs`.
const CONNECTIONS: usize = 3;
/// What is resident at most.
const SERVICE_PEAK_KIB: u64 = 300 * 1_024;
const GATEWAY_PEAK_KIB: u64 = 200 * 1_024;
const LOG_BYTES_MAX: usize = 256 * 1_024;

const GRPC: (&str, &str) = ("content-type", "application/grpc");

type Headers = Vec<(&'static str, &'static str)>;

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

/// What is left of a program after floods that are still there.
async fn report(floods: Vec<JoinHandle<(usize, Vec<Streams>)>>, probe: &Probe, program: &Logged) -> (u64, String) {
    let (mut held, mut streams) = (Vec::new(), 0);
    for flood in floods {
        let (begun, connections) = flood.await.unwrap();
        streams += begun;
        held.push(connections);
    }
    probe.is_served(5).await;
    let (peak, log) = (program.resident_peak(), program.text().len());
    assert!(log < LOG_BYTES_MAX, "{log} bytes of log");
    (peak, format!("{streams} streams, {peak} KiB resident at most, {log} bytes of log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_lives_on_within_its_memory() {
    let database = TestDatabase::create().await;
    let file = SecretFile::new(&tokens(&[("owner", &[PROJECT], &["admin"]), ("attacker", &[OTHER], &["read-only"])]));
    let flags = ["--auth=tokens", &format!("--auth-tokens-file={}", file.0.display())];
    let service = Logged::serve_within(&database, SERVICE_KIB, &flags).await;
    let probe = Probe::start(&service.rest.showing("authorization", "Bearer owner")).await;
    let rest = service.rest_url();
    let floods = [
        flood(service.grpc.clone(), "POST", "/grpc.health.v1.Health/Watch".into(), vec![GRPC]),
        flood(rest.clone(), "POST", format!("/v1.0/{PROJECT}/queues"), vec![]),
        flood(
            service.grpc.clone(),
            "POST",
            "/dms.v1.QueueService/ListQueues".into(),
            vec![GRPC, ("authorization", "Bearer attacker")],
        ),
        flood(rest, "GET", format!("/v1.0/{OTHER}/queues"), vec![("authorization", "Bearer attacker")]),
    ];
    let (peak, report) = report(floods.into_iter().map(tokio::spawn).collect(), &probe, &service).await;
    println!("{report}");
    assert!(peak < SERVICE_PEAK_KIB, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_lives_on_within_its_memory() {
    let service = crate::hostile::calls::guarded(dms::net::NetLimits::default()).await.0;
    let gateway = Logged::gateway_within(&service.replica.grpc(), GATEWAY_KIB, &[]).await;
    let probe = Probe::start(&gateway.rest.showing("authorization", "Bearer owner")).await;
    let floods = [
        flood(gateway.rest_url(), "POST", format!("/v1.0/{PROJECT}/queues"), vec![]),
        flood(gateway.rest_url(), "GET", format!("/v1.0/{OTHER}/queues"), vec![("authorization", "Bearer attacker")]),
    ];
    let (peak, report) = report(floods.into_iter().map(tokio::spawn).collect(), &probe, &gateway).await;
    println!("{report}");
    assert!(peak < GATEWAY_PEAK_KIB, "{report}");
}
