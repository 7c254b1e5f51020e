//! Faults that are sessions of Postgres.

use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;
use tokio::time::{Instant, sleep};

use super::Scene;
use crate::chaos::postgres::session;
use crate::sql::faults::{HotRow, Refusal, Slots};
use crate::sql::instance::Instance;

/// More than Postgres takes.
const SLOTS_MAX: usize = 200;

/// Some sessions of the service end, several times.
pub(super) async fn terminate_backends(scene: &mut Scene<'_>) -> Result<()> {
    let mut session = session(&scene.testbed.database_url).await?;
    for _ in 0..scene.rng.random_range(1..=5) {
        session.terminate_backends(scene.rng.random_range(0.1..=1.0)).await?;
        sleep(Duration::from_millis(scene.rng.random_range(20..500))).await;
    }
    session.close().await;
    Ok(())
}

/// There is no connection left for the service: its own end, and others are there before it can make new ones.
pub(super) async fn take_slots(scene: &mut Scene<'_>) -> Result<()> {
    let url = &scene.testbed.database_url;
    let mut session = session(url).await?;
    let mut slots = Slots::default();
    let end = Instant::now() + scene.span();
    while Instant::now() < end {
        slots.take(url, SLOTS_MAX).await?;
        session.terminate_backends(0.7).await?;
        slots.take(url, SLOTS_MAX).await?;
        sleep(Duration::from_millis(200)).await;
    }
    tracing::debug!(slots = slots.len(), "taken");
    Ok(())
}

/// Appends are refused. The testbed heals what a session that ends too early leaves behind.
pub(super) async fn fail_appends(scene: &mut Scene<'_>) -> Result<()> {
    let refusal = if scene.rng.random_bool(0.5) { Refusal::DiskFull } else { Refusal::Internal };
    session(&scene.testbed.database_url).await?.refuse_appends(refusal).await?;
    sleep(scene.span()).await;
    session(&scene.testbed.database_url).await?.accept_appends().await?;
    Ok(())
}

/// No row version that dies can be removed.
pub(super) async fn hold_snapshot(scene: &mut Scene<'_>) -> Result<()> {
    let mut instance = Instance::connect(&scene.testbed.database_url).await?;
    instance.hold_snapshot().await?;
    sleep(scene.span()).await;
    Ok(())
}

/// A row that everything of its stream or reader updates is locked.
pub(super) async fn lock_row(scene: &mut Scene<'_>) -> Result<()> {
    let row = if scene.rng.random_bool(0.5) { HotRow::Stream } else { HotRow::Subscription };
    let mut session = session(&scene.testbed.database_url).await?;
    session.lock_row(row).await?;
    // The longest there is: who waits for it must not give up.
    sleep(scene.most).await;
    session.close().await;
    Ok(())
}
