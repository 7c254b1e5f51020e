//! The benchmark against a service that works, and against ones that don't.

use std::time::Duration;

use clap::Parser;

use super::fake_service::{FakeService, Misdeed, STALL};
use super::report::Report;
use super::scenario;
use super::testbed::Testbed;
use super::workload::Workload;
use crate::bench::args::{BenchArgs, Scenario};
use crate::harness::service::Address;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    bench: BenchArgs,
}

async fn run(misdeed: Misdeed, scenario: Scenario, flags: &[&str]) -> Report {
    try_run(misdeed, scenario, flags).await.unwrap()
}

async fn try_run(misdeed: Misdeed, scenario: Scenario, flags: &[&str]) -> anyhow::Result<Report> {
    let target = FakeService::start(misdeed).await;
    let fixed = ["bench", "--clients", "4", "--connections", "2", "--warmup", "0", "--size", "200"];
    // A backlog ends the window when it has been read.
    let duration = ["--duration", if scenario == Scenario::Consume { "60" } else { "1" }];
    let args = Program::try_parse_from(fixed.iter().chain(&duration).chain(flags)).unwrap().bench;
    let testbed = Testbed::at(vec![Address { grpc: target, rest: None, process: None }], None);
    scenario::run(&testbed, &Workload::from_args(&args, scenario), Duration::from_millis(500)).await
}

#[tokio::test]
async fn a_right_service_passes_every_scenario() {
    for scenario in [Scenario::Produce, Scenario::Consume, Scenario::Both] {
        let report = run(Misdeed::None, scenario, &["--groups", "2", "--backlog", "2000"]).await;
        assert!(report.is_right() && report.errors.is_empty(), "{report}");
        assert!(report.verified_messages > 0 && report.seconds > 0.0, "{report}");
        assert_eq!(report.sent_per_second > 0.0, scenario.sends(), "{report}");
        assert_eq!(report.acked_per_second > 0.0, scenario.consumes(), "{report}");
        assert_eq!((report.cost.wal_bytes, report.cost.service_cpu_us), (None, None));
    }
}

#[tokio::test]
async fn a_backlog_is_read_by_every_group() {
    let report = run(Misdeed::None, Scenario::Consume, &["--groups", "2", "--backlog", "1000", "--batch", "7"]).await;
    // 250 messages for each of 4 producers, in whole batches of 7.
    assert_eq!(report.verified_messages, 4 * 252);
    let acks: u64 = report.latencies.iter().filter(|latency| latency.call == "ack").map(|latency| latency.count).sum();
    assert_eq!(acks, 2 * 4 * 252 / 7);
    assert!(report.is_cut_short() && report.to_string().contains("shorter than the 60 s"), "{report}");
}

#[tokio::test]
async fn lost_messages_are_noticed() {
    let report = run(Misdeed::Loses, Scenario::Consume, &["--backlog", "1000"]).await;
    assert_eq!((report.faults.lost, report.is_right()), (10, false), "{report}");
}

#[tokio::test]
async fn doubled_messages_are_noticed() {
    let report = run(Misdeed::Doubles, Scenario::Both, &[]).await;
    assert!((1..=10).contains(&report.faults.duplicates) && !report.is_right(), "{report}");
}

#[tokio::test]
async fn damaged_messages_are_noticed() {
    let report = run(Misdeed::Damages, Scenario::Consume, &["--backlog", "100"]).await;
    assert_eq!((report.faults.damaged, report.faults.lost), (1, 1), "{report}");
}

#[tokio::test]
async fn wrong_counters_are_noticed() {
    let report = run(Misdeed::Miscounts, Scenario::Produce, &[]).await;
    assert_eq!((report.faults.wrong_answers, report.is_right()), (1, false), "{report}");
}

#[tokio::test]
async fn overload_is_counted_and_is_no_fault() {
    let report = run(Misdeed::Refuses, Scenario::Both, &[]).await;
    assert!(report.is_right(), "{report}");
    assert!(report.errors["send ResourceExhausted"] > 0, "{report}");
    assert!(report.order_checked, "{report}");
}

#[tokio::test]
async fn a_backlog_that_could_not_be_stored_is_an_error() {
    let refusal = try_run(Misdeed::Refuses, Scenario::Consume, &["--backlog", "1000"]).await.unwrap_err().to_string();
    assert!(refusal.contains("of 1000 messages") && refusal.contains("send ResourceExhausted"), "{refusal}");
}

#[tokio::test]
async fn a_stall_is_charged_to_every_message_that_was_due_meanwhile() {
    let report = run(Misdeed::Stalls, Scenario::Both, &["--rate", "200", "--batch", "1"]).await;
    assert!(report.is_right(), "{report}");
    for call in ["send", "end to end"] {
        let latency = report.latencies.iter().find(|latency| latency.call == call).unwrap();
        assert!(latency.p95_ms > STALL.as_secs_f64() * 500.0, "{report}");
    }
}

#[tokio::test]
async fn unexpected_errors_are_a_fault() {
    let report = run(Misdeed::Breaks, Scenario::Both, &[]).await;
    assert!(report.faults.wrong_answers > 0 && !report.is_right(), "{report}");
    assert!(report.errors["ack Internal"] > 0 && !report.order_checked, "{report}");
}
