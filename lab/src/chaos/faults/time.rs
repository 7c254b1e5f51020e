//! Clocks: a replica's that runs fast or slow, Postgres's that is set.

use anyhow::{Context, Result};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tokio::time::sleep;

use super::Scene;

/// Parts in a million: the most that the service bears, either way.
const DRIFT_PPM_MAX: i64 = 50_000;
const SECOND: i64 = 1_000_000;
/// Steps of Postgres's clock, microseconds. Ahead as far as one likes; back only so far that time stands still: a message that is
/// under delay when the clock is put back further comes that much later, and nobody would wait for it.
const STEPS: [i64; 5] = [SECOND, 60 * SECOND, 3_600 * SECOND, -SECOND, -4 * SECOND];

/// A replica is started again with clocks that run fast or slow, and goes on like that.
pub(super) async fn drift(scene: &mut Scene<'_>) -> Result<()> {
    let drift = match scene.rng.random_range(0..4) {
        0 => DRIFT_PPM_MAX,
        1 => -DRIFT_PPM_MAX,
        _ => scene.rng.random_range(-DRIFT_PPM_MAX..=DRIFT_PPM_MAX),
    };
    let replica = scene.testbed.any_replica(&mut scene.rng);
    replica.drift(drift);
    replica.stop(scene.pause(), &scene.testbed.recorder).await?;
    sleep(scene.span()).await;
    Ok(())
}

/// Postgres's clock is set, once or several times.
pub(super) async fn step_postgres(scene: &mut Scene<'_>) -> Result<()> {
    let clocks = scene.testbed.clocks.as_ref().context("the clocks of this testbed cannot be set")?;
    for _ in 0..scene.rng.random_range(1..=2) {
        let step = *STEPS.choose(&mut scene.rng).context("no steps")?;
        let began = scene.recorder().now();
        clocks.step(step)?;
        scene.recorder().clock_step(scene.recorder().since(began));
        sleep(scene.span()).await;
    }
    Ok(())
}
