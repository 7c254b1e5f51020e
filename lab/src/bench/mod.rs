//! `dms-lab bench`: loads a service and reports what it reaches and what a message costs.
//!
//! - `workload` is what to run; `testbed` is where: processes of the service on a private Postgres, or running ones; `topics` makes
//!   the queues.
//! - `scenario` runs one load from fresh queues to a report; `load` is what its tasks share, `producer` and `consumer` are the
//!   tasks, `client` is how they call the service, its gateway or a peer.
//! - `meter` measures, `postgres_usage` reads what was spent, `ledger` proves the results right, `progress` and `report` show
//!   it all.
//! - `compare` puts loads against each other: the rows of `docs/benchmarks.md`.
//!
//! The service is a process of its own and the clients know its generated API only. Wrong results fail the benchmark, slow
//! ones never do.

pub mod args;
mod client;
mod compare;
mod consumer;
#[cfg(test)]
mod fake_service;
mod ledger;
mod load;
mod meter;
mod postgres_usage;
mod producer;
mod progress;
mod report;
mod scenario;
mod testbed;
mod topics;
mod workload;

use std::io::Write;

use anyhow::{Result, anyhow, bail};

use crate::bench::args::BenchArgs;
use crate::interrupt::Interrupt;
use report::Report;
use testbed::Testbed;
use workload::Workload;

/// Runs the scenarios, or the comparisons, and prints the reports on stdout; an error when a result is wrong.
pub async fn run(args: BenchArgs) -> Result<()> {
    args.check()?;
    // Until here a signal simply ends us, and the private Postgres with us.
    let mut testbed = Testbed::open(&args).await?;
    let interrupt = Interrupt::catch()?;
    let right = tokio::select! {
        right = run_all(&mut testbed, &args) => right,
        () = interrupt.first() => Err(anyhow!("interrupted")),
    };
    testbed.close().await?;
    if right? { Ok(()) } else { bail!("the benchmark found wrong results") }
}

async fn run_all(testbed: &mut Testbed, args: &BenchArgs) -> Result<bool> {
    if !args.compare.is_empty() {
        return compare::run(testbed, args).await;
    }
    let mut right = true;
    for scenario in args.scenario.scenarios() {
        let workload = Workload::from_args(args, *scenario);
        let report = scenario::run(testbed, &workload, scenario::STALL_LIMIT).await?;
        print(&report, args.json)?;
        right &= report.is_right();
    }
    Ok(right)
}

/// One table, or one line of JSON, per scenario.
fn print(report: &Report, json: bool) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::to_string(report)?)?;
    } else {
        writeln!(stdout, "{report}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
