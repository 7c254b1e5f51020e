//! `dms bench`: loads a service over gRPC and reports what it reaches and what a message costs.
//!
//! - `site` is the service under load, `scenario` runs one load on it from fresh queues to a report.
//! - `load` is what the client tasks share; `producer` and `consumer` are the tasks; `payload` writes and checks bodies.
//! - `meter` measures, `postgres_usage` reads what Postgres spent, `ledger` proves the results right, `progress` and `report`
//!   show it all.
//!
//! The clients know the generated gRPC API only, also when the service runs in the same process. Wrong results fail the
//! benchmark, slow ones never do.

mod consumer;
#[cfg(test)]
mod fake_service;
mod ledger;
mod load;
mod meter;
mod payload;
mod postgres_usage;
mod producer;
mod progress;
mod report;
mod scenario;
mod site;

use std::io::Write;

use anyhow::{Result, anyhow, bail};

use crate::config::BenchArgs;
use crate::shutdown::Signals;
use report::Report;
use site::Site;

/// Runs the scenarios and prints the reports on stdout; an error when a result is wrong.
pub async fn run(args: BenchArgs) -> Result<()> {
    args.check()?;
    // Until here a signal simply ends us, and the private Postgres with us.
    let site = Site::open(&args).await?;
    let signals = Signals::catch()?;
    let reports = tokio::select! {
        reports = run_scenarios(&site, &args) => reports,
        () = signals.first() => Err(anyhow!("interrupted")),
    };
    site.close().await?;
    if reports?.iter().all(Report::is_right) { Ok(()) } else { bail!("the benchmark found wrong results") }
}

async fn run_scenarios(site: &Site, args: &BenchArgs) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for scenario in args.scenario.scenarios() {
        let report = scenario::run(site, args, *scenario, scenario::STALL_LIMIT).await?;
        print(&report, args.json)?;
        reports.push(report);
    }
    Ok(reports)
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
