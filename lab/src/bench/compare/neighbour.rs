//! One project beside another that asks for twenty times as much, and a service that is asked for three times what it can do.

use anyhow::Result;

use super::rows::{latency, ratio};
use super::runner::{Measured, Runner};
use super::section::{Section, Target};
use crate::bench::args::Scenario;
use crate::bench::scenario::{self, STALL_LIMIT};
use crate::bench::testbed::Testbed;
use crate::bench::workload::Workload;

/// Messages a second of the project whose latency counts, and of the other one.
const QUIET_RATE: u32 = 500;
const BUSY_RATE: u32 = 20 * QUIET_RATE;
/// Clients enough that calls are refused, and how much more than the peak they offer.
const OVERLOAD_CLIENTS: u32 = 4_096;
const OVERLOAD_FACTOR: f64 = 3.0;

/// The latency of a project, alone and beside a busy one.
pub(super) async fn compare(runner: &Runner<'_>) -> Result<Section> {
    let quiet = Workload { rate: Some(QUIET_RATE), clients: 8, ..runner.ours(Scenario::Both) };
    // It begins before the other and ends after it.
    let (warmup, duration) = (quiet.warmup / 2, quiet.duration + quiet.warmup * 2);
    let busy = Workload { rate: Some(BUSY_RATE), clients: 64, warmup, duration, ..quiet.clone() };
    let elsewhere = Testbed::at(runner.testbed.addresses.clone(), runner.testbed.database_url.clone());
    let measured = |load: &Workload| Measured { load: load.clone(), reports: Vec::new() };
    let (mut alone, mut beside, mut other) = (measured(&quiet), measured(&quiet), measured(&busy));
    for _ in 0..runner.rounds() {
        alone.reports.push(runner.once(&quiet).await?);
        let (busy, quiet) = tokio::join!(scenario::run(&elsewhere, &busy, STALL_LIMIT), runner.once(&quiet));
        other.reports.push(busy?);
        beside.reports.push(quiet?);
    }
    let p99 = |measured: &Measured| measured.median_of(latency("end to end", |latency| latency.p99_ms));
    let slower = p99(&beside).zip(p99(&alone)).map(|(beside, alone)| beside / alone);
    Ok(Section::new('p', "p. A project beside another with twenty times its load, 1 KB in batches of 10")
        .with_runs([&alone, &beside, &other])
        .with_figure('p', "p99 from send to consume beside the busy project against alone", slower, Target::AtMost(3.0))
        .with_note(
            "The quiet project alone, then beside the busy one, and the busy one; latency counts from when a call was due. Costs \
             of the last two are those of both together.",
        ))
}

/// What is still done when three times as much is asked for.
pub(super) async fn overload(runner: &Runner<'_>) -> Result<Section> {
    let peak = Workload { clients: 64, ..runner.ours(Scenario::Produce) };
    let [peak] = runner.in_turns([peak]).await?;
    let offered = (peak.rate() * OVERLOAD_FACTOR) as u32;
    let overload = Workload { clients: OVERLOAD_CLIENTS, rate: Some(offered), ..peak.load.clone() };
    let [overload] = runner.in_turns([overload]).await?;
    Ok(Section::new('q', "q. Three times the peak offered, 1 KB in batches of 10")
        .with_runs([&peak, &overload])
        .with_figure('q', "messages stored at 3 x the peak against the peak", ratio(&overload, &peak), Target::AtLeast(0.8))
        .with_note(format!(
            "The load is offered by {OVERLOAD_CLIENTS} clients, each with one call in flight; those that are refused come back \
             after the time that the service tells them.",
        )))
}
