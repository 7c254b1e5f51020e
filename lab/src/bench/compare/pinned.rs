//! A transaction held open for minutes while the service is under load: nothing that dies meanwhile can be removed.

use std::time::Duration;

use anyhow::{Context, Result};

use super::runner::{Measured, Runner, rate};
use super::section::{Section, Target};
use crate::bench::args::Scenario;
use crate::bench::workload::Workload;
use crate::sql::instance::{Instance, STATISTICS_LAG};

/// How long the transaction is open, measured time included.
const OPEN: Duration = Duration::from_secs(300);

/// Measures the end of the open transaction, where it hurts most, between two loads without one.
pub(super) async fn compare(runner: &Runner<'_>) -> Result<Section> {
    let load = runner.ours(Scenario::Both);
    let before = runner.once(&load).await?;
    let long = Workload { warmup: OPEN.saturating_sub(runner.duration()), ..load.clone() };
    let url = runner.testbed.database_url.as_deref().context("database-url: not known")?;
    let mut instance = Instance::connect(url).await?;
    let mut holder = Instance::connect(url).await?;
    holder.hold_snapshot().await?;
    let open = runner.once(&long).await?;
    // The sessions are idle now.
    tokio::time::sleep(STATISTICS_LAG).await;
    let dead = instance.dead_tuples().await?;
    drop(holder);
    let after = runner.once(&load).await?;
    let ratio = rate(&open) / ((rate(&before) + rate(&after)) / 2.0);
    let none = Measured { load, reports: vec![before, after] };
    let dead: Vec<String> = dead.iter().map(|(table, count)| format!("{table} {count}")).collect();
    Ok(Section::new('k', "k. A transaction held open under load against none, 1 KB in batches of 10")
        .with_runs([&none])
        .with_report(&open)
        .with_figure('k', "rate at the end of the open transaction against none", Some(ratio), Target::AtLeast(0.9))
        .with_note(format!(
            "The transaction was open for {} s; the last {} s of it were measured. Dead row versions then: {}.",
            OPEN.max(runner.duration()).as_secs(),
            runner.duration().as_secs(),
            dead.join(", ")
        )))
}
