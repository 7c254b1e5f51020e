//! The faults, one function each: begins, lasts, ends. What one of them does to a session of another is no error.

mod database;
mod network;
mod statements;
mod time;

use std::time::Duration;

use anyhow::Result;
use rand::Rng as _;
use rand::rngs::StdRng;

use super::load::LEASE;
use super::recorder::Recorder;
use super::testbed::Testbed;
use crate::chaos::args::Fault;

/// Where a fault strikes, and for how long at most.
pub(super) struct Scene<'a> {
    pub testbed: &'a Testbed,
    pub rng: StdRng,
    pub most: Duration,
}

impl Scene<'_> {
    fn recorder(&self) -> &Recorder {
        &self.testbed.recorder
    }

    /// How long a fault lasts.
    fn span(&mut self) -> Duration {
        self.most.mul_f64(self.rng.random_range(0.2..=1.0))
    }

    /// A short while.
    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(0..1_500))
    }
}

/// Carries out one fault to its end.
pub(super) async fn inject(fault: Fault, testbed: &Testbed, rng: StdRng, most: Duration) -> Result<()> {
    let mut scene = Scene { testbed, rng, most };
    match fault {
        Fault::ReplicaKilled => {
            let down = scene.pause();
            testbed.any_replica(&mut scene.rng).kill(down, &testbed.recorder).await
        }
        Fault::ReplicaStopped => {
            let down = scene.pause();
            testbed.any_replica(&mut scene.rng).stop(down, &testbed.recorder).await
        }
        Fault::ReplicaFrozen => {
            // Past the leases that it has just given out, even the longest of them.
            let time = LEASE + Duration::from_secs(3) + scene.pause();
            testbed.any_replica(&mut scene.rng).freeze(time).await
        }
        Fault::PostgresKilled => database::kill(&mut scene).await,
        Fault::PrimaryLost => testbed.postgres.lock().await.fail_over(&testbed.recorder).await,
        Fault::PostgresRestarted => database::restart(&mut scene).await,
        Fault::BackendKilled => database::kill_backend(&mut scene).await,
        Fault::BackendsTerminated => tolerant(fault, statements::terminate_backends(&mut scene).await),
        Fault::SlotsTaken => tolerant(fault, statements::take_slots(&mut scene).await),
        Fault::DatabaseCut | Fault::ClientsCut => network::cut(&mut scene, fault == Fault::ClientsCut).await,
        Fault::DatabaseRefused => network::refuse(&mut scene).await,
        Fault::DatabaseDelayed | Fault::ClientsDelayed => {
            network::delay(&mut scene, fault == Fault::ClientsDelayed).await
        }
        Fault::DatabaseLost | Fault::ClientsLost => network::lose(&mut scene, fault == Fault::ClientsLost).await,
        Fault::AppendsFail => tolerant(fault, statements::fail_appends(&mut scene).await),
        Fault::SnapshotHeld => tolerant(fault, statements::hold_snapshot(&mut scene).await),
        Fault::ClockDrift => time::drift(&mut scene).await,
        Fault::PostgresClockStepped => time::step_postgres(&mut scene).await,
        Fault::RowLocked => tolerant(fault, statements::lock_row(&mut scene).await),
    }
}

/// A fault that is a session ends when another one ends its session.
fn tolerant(fault: Fault, result: Result<()>) -> Result<()> {
    if let Err(error) = result {
        tracing::debug!(fault = fault.name(), "cut short: {error:#}");
    }
    Ok(())
}
